"""Nobody gets past a quota, not two at once either; content lies where its profile lets it."""

from __future__ import annotations

from pathlib import Path
from threading import Barrier, Thread

import pytest

from perdure.adapters.posix.store import PosixStore
from perdure.archives.errors import BadProfileError, NoRoomError, NotEnoughStoresError, ProfileDoesNotFitError
from perdure.archives.model import Archive
from perdure.archives.opening import OpenRequest
from perdure.db import Database
from perdure.kernel.actor import Actor
from perdure.kernel.errors import NotAllowedError, NotFoundError

from .workshop import CITABLE, Workshop, make_workshop


def open_for(shop: Workshop, actor: Actor) -> Archive:
    return shop.life.open_archive(actor, OpenRequest(profile="personal", description=CITABLE))


def limit_all(shop: Workshop, size: int | None) -> None:
    home = shop.ada.organisation_id
    assert home is not None
    shop.ctx.identity.change_organisation(shop.administrator, home, quota_bytes=size)


def test_the_accounts_of_an_organisation_share_its_quota(shop: Workshop) -> None:
    bob = shop.join("bob")
    mine, his = shop.open(), open_for(shop, bob)
    limit_all(shop, 10)
    shop.put(mine, b"a", b"123456")
    with pytest.raises(NoRoomError) as refused:
        shop.filling.begin_file(bob, his.id, b"b", 5)
    assert refused.value.extra == {}, "how much others use is not his to know"
    assert "6" not in refused.value.detail
    receiver = shop.filling.begin_file(bob, his.id, b"b", 4)
    receiver.write(b"1234")
    receiver.finish()
    with pytest.raises(NoRoomError):
        shop.put(mine, b"c", b"1")
    shop.put(mine, b"empty", b"")
    limit_all(shop, None)
    shop.put(mine, b"c", b"1")


def test_two_uploads_at_the_last_byte_of_an_organisation(shop: Workshop) -> None:
    people = [shop.ada, *(shop.join(f"p{number}") for number in range(5))]
    archives = [open_for(shop, actor) for actor in people]
    limit_all(shop, 100)
    start, outcomes = Barrier(len(people)), list[bool]()

    def upload(actor: Actor, archive: Archive) -> None:
        for number in range(6):
            start.wait(60)
            try:
                receiver = shop.filling.begin_file(actor, archive.id, b"f%d" % number, 7)
                receiver.write(b"1234567")
                receiver.finish()
                outcomes.append(True)
            except NoRoomError:
                outcomes.append(False)

    threads = [Thread(target=upload, args=pair) for pair in zip(people, archives, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(outcomes) == 36
    assert sum(outcomes) == 14, "14 files of 7 bytes, not one more and not one less"
    usage = shop.life.use_of_all(shop.administrator, archives[0].organisation_id)
    assert (usage.bytes, usage.reserved_bytes, usage.files, usage.quota_bytes) == (98, 0, 14, 100)
    with pytest.raises((NotAllowedError, NotFoundError)):
        shop.life.use_of_all(shop.ada, archives[0].organisation_id)


def test_a_quota_in_files(shop: Workshop) -> None:
    first, second = shop.open(), shop.open()
    shop.ctx.identity.change_account(shop.administrator, first.account_id, quota_files=3)
    assert all(result.stored for result in shop.put_all(first, {b"a": b"1", b"b": b"2"}))
    waiting = shop.filling.begin_file(shop.ada, second.id, b"c", 1)
    with pytest.raises(NoRoomError, match="files of the account"):
        shop.put(first, b"d", b"4")
    waiting.write(b"3")
    waiting.finish()
    with pytest.raises(NoRoomError):
        shop.put(second, b"d", b"4")
    assert shop.life.use_of(shop.ada, first.account_id).quota_files == 3


# Locations


def build(db: Database, folder: Path, *places: str) -> Workshop:
    stores = [PosixStore(f"s{number}", folder / str(number), stands=place) for number, place in enumerate(places)]
    return make_workshop(db, folder, stores=stores)


def held_at(shop: Workshop, archive: Archive) -> set[str]:
    """Where the archive's content lies."""
    with shop.ctx.db.begin() as tx:
        parts = [one.object_id for one in shop.ctx.storage.objects_of(tx, archive.id) if one.kind.value == "part"]
        copies = shop.ctx.storage.copies(tx, parts)
    names = {store.id: store.location for store in shop.ctx.storage.stores()}
    assert parts
    return {names[copy.store_id] for held in copies.values() for copy in held}


def test_copies_lie_at_the_locations_of_the_profile_only(db: Database, tmp_path: Path) -> None:
    shop = build(db, tmp_path, "Hamburg", "Chicago", "Berlin")
    shop.define("eu", copies=2, locations=("Hamburg", "Berlin"))
    archive = shop.open(profile="eu")
    shop.put(archive, b"a", b"1")
    closed = shop.close(archive)
    assert held_at(shop, closed) == {"Hamburg", "Berlin"}
    shop.run()
    assert held_at(shop, closed) == {"Hamburg", "Berlin"}


def test_a_profile_that_no_store_fits_opens_no_archive(db: Database, tmp_path: Path) -> None:
    shop = build(db, tmp_path, "Chicago", "Hamburg")
    shop.define("eu", locations=("Hamburg", "Berlin"))
    shop.define("moon", locations=("Moon",))
    shop.define("twice", copies=2, locations=("Chicago",))
    for name, place in (("moon", "Moon"), ("eu", "Hamburg or Berlin"), ("twice", "Chicago")):
        with pytest.raises(NotEnoughStoresError, match=place):
            shop.open(profile=name)
    for locations in (("",), ("Hamburg", "Hamburg")):
        with pytest.raises(BadProfileError, match="locations"):
            shop.define("odd", locations=locations)


def test_content_that_lies_elsewhere_gets_no_narrower_profile(db: Database, tmp_path: Path) -> None:
    shop = build(db, tmp_path, "Hamburg", "Chicago")
    shop.define("wide", copies=2)
    shop.define("eu", locations=("Hamburg",))
    filled, empty = shop.open(profile="wide"), shop.open(profile="wide")
    shop.put(filled, b"a", b"1")
    shop.close(filled)
    with pytest.raises(ProfileDoesNotFitError, match="elsewhere"):
        shop.life.change_profile(shop.ada, filled.id, "eu")
    assert shop.life.change_profile(shop.ada, empty.id, "eu").profile.locations == ("Hamburg",)
    shop.put(empty, b"a", b"1")
    assert held_at(shop, shop.close(empty)) == {"Hamburg"}


def test_nothing_comes_in_where_the_primary_store_moved_away(db: Database, tmp_path: Path) -> None:
    shop = build(db, tmp_path, "Hamburg", "Berlin")
    shop.define("eu", locations=("Hamburg",))
    closed, archive = shop.open(profile="eu"), shop.open(profile="eu")
    shop.put(closed, b"a", b"1")
    shop.close(closed)
    moved = make_workshop(
        db, tmp_path, is_new=False,
        stores=[PosixStore(f"s{n}", tmp_path / str(n), stands=place) for n, place in enumerate(("Chicago", "Berlin"))],
    )  # fmt: skip
    with pytest.raises(NotEnoughStoresError, match="Hamburg"):
        moved.put(archive, b"b", b"1")
    with pytest.raises(NotEnoughStoresError):
        moved.append(closed)
