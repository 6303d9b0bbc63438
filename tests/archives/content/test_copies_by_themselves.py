"""Copies that are missing or broken are made by themselves, once it is quiet, and never from anything in doubt."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from perdure.archives import model, sealing
from perdure.archives.copying import ensure_copies
from perdure.archives.exporting import export_registry, keep_exports
from perdure.archives.model import Archive, ArchiveState
from perdure.archives.registering import mend_closed
from perdure.archives.sealing import copy_quiet
from perdure.archives.tasks import register_life_jobs
from perdure.jobs import run_pending
from perdure.storage.model import CopyState

from .workshop import Workshop


@pytest.fixture
def sealed(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """An open archive with two sealed parts whose copies were not made."""
    monkeypatch.setattr(model, "MAX_PART_FILES", 2)
    archive = shop.open()
    upload = shop.filling.create_upload(shop.ada, archive.id, b"late", 4)
    for number in range(3):
        shop.put_all(archive, {b"%d/a" % number: b"1", b"%d/b" % number: b"2"})
    with monkeypatch.context() as patched:
        patched.setattr(sealing, "ensure_copies", lambda *_, **__: [])  # as where stores fail
        shop.run()
        shop.filling.abort_upload(shop.ada, upload.id)
        shop.run()
    assert list_states(shop, archive) == {"written": 2}
    return archive


@pytest.fixture
def closed(shop: Workshop) -> Archive:
    register_life_jobs(shop.ctx, shop.heads)
    archive = shop.open()
    shop.put_all(archive, {b"a": b"alpha" * 100, b"b": b"beta" * 100})
    return shop.close(archive)


def list_states(shop: Workshop, archive: Archive) -> dict[str, int]:
    """How many copies of parts there are in each state."""
    found = [copy.state.value for copy in shop.reading.copies(shop.ada, archive.id) if copy.part]
    return {state: found.count(state) for state in found}


def damage(shop: Workshop, archive: Archive, store: int, name: str = "a") -> Path:
    """Another byte in one file of one store, as verifying finds it."""
    path = next(file for file in (shop.roots[store] / "root").rglob(f"v1/content/data/{name}") if file.is_file())
    path.chmod(0o644)
    path.write_bytes(b"X" + path.read_bytes()[1:])
    shop.verifying.start_verify(shop.ada, archive.id)
    shop.run()
    return path


def test_copies_that_waited_are_made_once_it_is_quiet(shop: Workshop, sealed: Archive) -> None:
    assert copy_quiet(shop.ctx) == 0, "something came in a moment ago"
    shop.clock.ahead += timedelta(minutes=10)
    upload = shop.filling.create_upload(shop.ada, sealed.id, b"another", 4)
    assert copy_quiet(shop.ctx) == 0, "something is on its way"
    shop.filling.abort_upload(shop.ada, upload.id)
    assert [copy_quiet(shop.ctx), copy_quiet(shop.ctx)] == [1, 1]
    shop.run()
    assert list_states(shop, sealed) == {"verified": 6}, "with the part that the upload took the room of"
    assert copy_quiet(shop.ctx) == 0
    assert shop.close(sealed).state is ArchiveState.CLOSED


def test_an_archive_that_is_closing_is_left_to_its_closing(shop: Workshop, sealed: Archive) -> None:
    shop.clock.ahead += timedelta(minutes=10)
    shop.closing.close(shop.ada, sealed.id)
    assert copy_quiet(shop.ctx) == 0
    shop.run()
    assert list_states(shop, sealed) == {"verified": 6}


def test_a_damaged_copy_is_mended_and_its_bytes_are_kept(shop: Workshop, closed: Archive) -> None:
    path = damage(shop, closed, 1)
    bad = path.read_bytes()
    assert list_states(shop, closed) == {"verified": 1, "suspect": 1}
    assert mend_closed(shop.ctx) == 1
    shop.run()
    assert list_states(shop, closed) == {"verified": 2}
    assert path.read_bytes() == b"alpha" * 100
    aside = [file for file in (shop.roots[1] / "quarantine").rglob("a") if file.is_file()]
    assert [file.read_bytes() for file in aside] == [bad]
    assert [name for name, _ in shop.told(closed)].count("copy.mended") == 1
    assert mend_closed(shop.ctx) == 0


def test_a_copy_beyond_the_number_is_mended_too(shop: Workshop) -> None:
    register_life_jobs(shop.ctx, shop.heads)
    shop.define("once", copies=1)
    archive = shop.open(profile="once")
    shop.put(archive, b"a", b"alpha")
    shop.close(archive)
    with shop.ctx.db.begin() as tx:
        (stored,) = [one for one in shop.ctx.storage.objects_of(tx, archive.id) if one.object_id != archive.id.urn]
    second = shop.ctx.storage.stores()[1]
    shop.ctx.storage.place_copy(stored.object_id, second.id)
    shop.ctx.storage.verify_copy(stored.object_id, second.id)
    damage(shop, archive, 1)
    assert mend_closed(shop.ctx) == 1
    shop.run()
    assert list_states(shop, archive) == {"verified": 2}


def test_nothing_is_mended_from_what_is_in_doubt(shop: Workshop, closed: Archive) -> None:
    """With every copy damaged, each stays where and as it is: the evidence is all there is."""
    shop.damaged = True
    paths = [damage(shop, closed, store) for store in (0, 1)]
    kept = [path.read_bytes() for path in paths]
    assert list_states(shop, closed) == {"suspect": 2}
    assert mend_closed(shop.ctx) == 0
    shop.run()
    assert [path.read_bytes() for path in paths] == kept
    assert not [file for root in shop.roots for file in (root / "quarantine").rglob("a")]


def test_a_store_that_spoils_what_is_written_is_tried_once_a_day(
    shop: Workshop, closed: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.damaged = True
    damage(shop, closed, 1)
    assert mend_closed(shop.ctx) == 1
    second = shop.ctx.storage._stores[1]
    publish = second.publish

    def spoil(tree: str, object_id: str) -> None:
        publish(tree, object_id)
        path = next(file for file in (shop.roots[1] / "root").rglob("v1/content/data/a") if file.is_file())
        path.write_bytes(b"spoilt")

    monkeypatch.setattr(second, "publish", spoil)
    run_pending(shop.ctx.jobs, limit=1, raise_unforeseen=False)
    assert list_states(shop, closed) == {"verified": 1, "suspect": 1}
    assert mend_closed(shop.ctx) == 0
    shop.clock.ahead += timedelta(days=2)
    assert mend_closed(shop.ctx) == 1


def test_a_sealed_part_with_a_damaged_copy_is_mended_while_the_archive_is_open(shop: Workshop, sealed: Archive) -> None:
    shop.clock.ahead += timedelta(minutes=10)
    copy_quiet(shop.ctx)
    shop.run()
    damage(shop, sealed, 1, "0/a")
    assert list_states(shop, sealed) == {"verified": 3, "suspect": 1}
    assert copy_quiet(shop.ctx) == 1
    shop.run()
    assert list_states(shop, sealed) == {"verified": 4}
    with shop.ctx.db.begin() as tx:
        objects = [one.object_id for one in shop.ctx.storage.objects_of(tx, sealed.id)]
    assert all(
        copy.state is CopyState.VERIFIED for one in objects for copy in ensure_copies(shop.ctx, shop.look(sealed), one)
    )


def test_the_registry_is_read_back_by_itself_and_mended(shop: Workshop) -> None:
    ctx = shop.ctx
    export_registry(ctx)
    with ctx.db.begin() as tx:
        (registry,) = ctx.storage.objects_of_none(tx)
    path = next(file for file in (shop.roots[1] / "root").rglob("profiles.ndjson") if file.is_file())
    good = path.read_bytes()
    path.write_bytes(good[:-2] + b"?\n")
    assert keep_exports(ctx) == 0  # read when it was written
    assert path.read_bytes() != good
    shop.clock.ahead += timedelta(days=31)
    assert keep_exports(ctx) == 0
    assert path.read_bytes() == good
    ctx.events.sequence_pending()
    with ctx.db.begin() as tx:
        copies = ctx.storage.copies(tx, [registry.object_id])[registry.object_id]
        told = [event.type for event in ctx.events.read(tx, after=0, limit=1000)]
    assert [copy.state for copy in copies] == [CopyState.VERIFIED] * 2
    assert told.count("copy.mended") == 1


def test_a_registry_that_no_store_has_whole_is_left_as_it_is(shop: Workshop) -> None:
    shop.damaged = True
    export_registry(shop.ctx)
    paths = [next(f for f in (root / "root").rglob("profiles.ndjson") if f.is_file()) for root in shop.roots]
    for path in paths:
        path.write_bytes(b"spoilt")
    shop.clock.ahead += timedelta(days=31)
    assert keep_exports(shop.ctx) == 1
    assert keep_exports(shop.ctx) == 1
    assert [path.read_bytes() for path in paths] == [b"spoilt"] * 2
