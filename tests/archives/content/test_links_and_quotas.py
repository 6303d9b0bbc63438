"""Whoever has a link for dropping files holds no more room than he sends bytes for, and no longer than minutes."""

from __future__ import annotations

from datetime import timedelta
from threading import Barrier, Thread
from uuid import UUID

import pytest

from perdure.archives.errors import NoRoomError, TooManyUploadsError, UploadEndedError
from perdure.archives.model import Archive
from perdure.archives.patience import Patience
from perdure.archives.placing import LINK_GRACE, MAX_LINK_UPLOADS, link_deadline
from perdure.identity.model import Action
from perdure.kernel.actor import Actor, ActorKind, LinkScope
from perdure.kernel.ids import new_id

from .workshop import MovableClock, Workshop

DAY = timedelta(days=1)


def bearer(archive: Archive, link_id: UUID | None = None) -> Actor:
    """Whoever has a link for dropping files into the archive."""
    scope = LinkScope(link_id or new_id(), archive.id, frozenset({Action.FILL.value}), b"", content_only=True)
    return Actor(ActorKind.LINK, name="link", link=scope)


def limit(shop: Workshop, archive: Archive, size: int | None) -> None:
    shop.ctx.identity.change_account(shop.administrator, archive.account_id, quota_bytes=size)


def reserved(shop: Workshop, archive: Archive) -> int:
    return shop.life.use_of(shop.ada, archive.account_id).reserved_bytes


def begin(shop: Workshop, who: Actor, archive: Archive, name: str, size: int) -> UUID:
    return shop.filling.create_upload(who, archive.id, name.encode(), size, replace=False).id


def send(shop: Workshop, who: Actor, upload: UUID, offset: int, data: bytes) -> None:
    receiver = shop.filling.open_upload(who, upload, offset)
    try:
        receiver.write(data)
        receiver.checkpoint()
    finally:
        receiver.close()


def test_links_together_leave_half_of_the_room_to_everybody_else(shop: Workshop) -> None:
    archive, other = shop.open(), shop.open()
    limit(shop, archive, 1000)
    shop.put(archive, b"held", b"x" * 200)
    first, second = bearer(archive), bearer(other)
    begin(shop, first, archive, "a", 300)
    with pytest.raises(NoRoomError) as refused:
        begin(shop, second, other, "b", 101)
    assert refused.value.extra == {}
    with pytest.raises(NoRoomError):
        shop.filling.begin_file(second, other.id, b"b", 101, replace=False)
    begin(shop, second, other, "b", 100)
    with pytest.raises(NoRoomError):
        begin(shop, first, archive, "c", 1)
    shop.put(archive, b"mine", b"x" * 400)
    with pytest.raises(NoRoomError):
        shop.put(archive, b"too much", b"x")


def test_the_room_of_the_organisation_is_left_to_others_too(shop: Workshop) -> None:
    archive = shop.open()
    home = shop.ada.organisation_id
    assert home is not None
    shop.ctx.identity.change_organisation(shop.administrator, home, quota_bytes=100)
    with pytest.raises(NoRoomError):
        begin(shop, bearer(archive), archive, "a", 51)
    begin(shop, bearer(archive), archive, "a", 50)


def test_the_limits_of_a_profile_are_left_to_others_too(shop: Workshop) -> None:
    shop.define("small", archive_max_bytes=100, copies=1)
    shop.define("few", total_max_bytes=60, copies=1)
    for profile, most in (("small", 50), ("few", 30)):
        archive = shop.open(profile=profile)
        with pytest.raises(NoRoomError):
            begin(shop, bearer(archive), archive, "a", most + 1)
        begin(shop, bearer(archive), archive, "a", most)


def test_of_those_who_come_at_once_by_one_link_so_many_are_let_in(shop: Workshop) -> None:
    archive, link_id = shop.open(), new_id()
    count, outcomes = 6, list[bool]()
    for number in range(MAX_LINK_UPLOADS - 2):
        begin(shop, bearer(archive, link_id), archive, f"n{number}", 1)
    start = Barrier(count)

    def come(number: int) -> None:
        start.wait(60)
        try:
            begin(shop, bearer(archive, link_id), archive, f"m{number}", 1)
            outcomes.append(True)
        except TooManyUploadsError:
            outcomes.append(False)

    threads = [Thread(target=come, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(outcomes) == [False] * 4 + [True] * 2
    with pytest.raises(TooManyUploadsError):
        shop.filling.begin_file(bearer(archive, link_id), archive.id, b"stream", 1, replace=False)
    begin(shop, bearer(archive), archive, "another link", 1)


def test_who_sends_nothing_has_the_room_for_minutes(shop: Workshop) -> None:
    archive = shop.open()
    limit(shop, archive, 1000)
    who = bearer(archive)
    upload = begin(shop, who, archive, "a", 500)
    patience, with_links = Patience(timedelta(hours=6)), Patience(timedelta(0))
    assert shop.filling.expire_uploads(patience, with_links) == 0
    shop.clock.ahead += LINK_GRACE + timedelta(seconds=1)
    with pytest.raises(UploadEndedError):
        send(shop, who, upload, 0, b"x")
    assert shop.filling.expire_uploads(patience, with_links) == 1
    assert reserved(shop, archive) == 0
    own = begin(shop, shop.ada, archive, "b", 500)
    shop.clock.ahead += 2 * LINK_GRACE
    assert shop.filling.expire_uploads(patience, with_links) == 0
    send(shop, shop.ada, own, 0, b"x")


def test_what_came_buys_time_by_its_share_of_the_file(shop: Workshop) -> None:
    archive = shop.open()
    who = bearer(archive)
    upload = begin(shop, who, archive, "a", 1000)
    send(shop, who, upload, 0, b"x" * 500)
    shop.clock.ahead += timedelta(hours=12)
    send(shop, who, upload, 500, b"x")
    assert shop.filling.expire_uploads() == 0
    shop.clock.ahead += timedelta(minutes=20)
    assert shop.filling.expire_uploads() == 1


def test_a_byte_now_and_then_buys_no_time(shop: Workshop) -> None:
    archive = shop.open()
    who = bearer(archive)
    drip = begin(shop, who, archive, "b", 10_000)
    for offset in range(2):
        send(shop, who, drip, offset, b"x")
        shop.clock.ahead += LINK_GRACE - timedelta(minutes=1)
    with pytest.raises(UploadEndedError):
        send(shop, who, drip, 2, b"x")


def test_a_long_request_keeps_its_time_by_what_comes(shop: Workshop) -> None:
    archive = shop.open()
    who = bearer(archive)
    upload = begin(shop, who, archive, "a", 100)
    receiver = shop.filling.open_upload(who, upload, 0)
    for _ in range(100):
        receiver.write(b"x")
        shop.clock.ahead += timedelta(minutes=14)
        assert shop.filling.expire_uploads() == 0
    receiver.finish()
    receiver.close()
    assert shop.read(archive, b"a") == b"x" * 100


def test_a_stream_that_drips_is_ended(shop: Workshop) -> None:
    archive = shop.open()
    receiver = shop.filling.begin_file(bearer(archive), archive.id, b"a", 1_000_000, replace=False)
    for _ in range(30):
        receiver.write(b"x")
        shop.clock.ahead += timedelta(seconds=31)
    with pytest.raises(UploadEndedError):
        receiver.write(b"x")
    receiver.abort()
    assert reserved(shop, archive) == 0
    steady = shop.filling.begin_file(shop.ada, archive.id, b"b", 60)
    for _ in range(60):
        steady.write(b"x")
        shop.clock.ahead += timedelta(seconds=30)
    assert steady.finish().size == 60


def test_the_time_of_a_link_is_no_longer_than_that_of_others() -> None:
    begun = MovableClock().now()
    assert link_deadline(begun, 0, 7, DAY) == begun + LINK_GRACE
    assert link_deadline(begun, 7, 7, DAY) == begun + DAY == link_deadline(begun, 0, 0, DAY)
    assert link_deadline(begun, 0, 7, timedelta(minutes=1)) == begun + timedelta(minutes=1)
