"""What a rebuild does where a process died between head, journal and database, and where the stores hold strangers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from perdure.archives import model
from perdure.archives import rebuild as rebuilding
from perdure.archives.exporting import export_events, export_registry
from perdure.archives.filling import Filling
from perdure.archives.heads import Heads
from perdure.archives.rebuild import compare, rebuild
from perdure.archives.records import Context
from perdure.archives.sealing import Sealing
from perdure.kernel.actor import Actor
from perdure.storage.errors import StoreFailedError

from .house import House, list_superseded, make_sealing, put, shown


def fail(*_: object, **__: object) -> None:
    raise StoreFailedError("The process ends here.")


def die_before_commit(house: House, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], step: str) -> None:
    """Let an act end between the head that it writes and the commit."""
    with monkeypatch.context() as dying:
        dying.setattr(house.ctx.storage, step, fail)
        with pytest.raises(StoreFailedError):
            act()


def test_a_change_after_a_head_that_was_never_committed_comes_back(
    house: House, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head says "closed" at a revision that the database, after the crash, gave to another change."""
    archive = house.open(ada)
    house.life.describe(ada, archive.id, {"tags": ["before"]})
    die_before_commit(house, monkeypatch, lambda: house.close(archive), "reset_journal")
    assert b'"closed"' in house.head_file(archive.id, "archive.json")
    house.life.describe(ada, archive.id, {"tags": ["acknowledged"]})
    house.life.describe(ada, archive.id, {"title": "Also acknowledged"})
    export_registry(house.ctx)
    export_events(house.ctx)
    assert rebuild(fresh).problems == []
    assert compare(house.ctx.db, fresh.db) == []
    with fresh.db.begin() as tx:
        row = tx.execute(text("SELECT state, description ->> 'title' AS title FROM archives")).one()
    assert (row.state, row.title) == ("open", "Also acknowledged")
    Heads(fresh).fold(archive.id)
    assert b'"open"' in fresh.storage.read_head_file(archive.id.urn, "archive.json")


def test_a_change_that_only_an_uncommitted_head_has_comes_back_with_it(
    house: House, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head is where a closing becomes true: nothing acknowledged stands against it."""
    archive = house.open(ada)
    house.life.describe(ada, archive.id, {"tags": ["before"]})
    die_before_commit(house, monkeypatch, lambda: house.close(archive), "reset_journal")
    export_registry(house.ctx)
    assert rebuild(fresh).problems == []
    with fresh.db.begin() as tx:
        assert tx.execute(text("SELECT state FROM archives")).scalar_one() == "closed"


def test_what_was_taken_out_of_a_part_that_an_uncommitted_head_names_stays_away(
    house: House, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "MAX_PART_FILES", 2)
    filling, sealing = Filling(house.ctx), make_sealing(house.ctx, house.heads)
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"a": b"1", b"gone": b"2"})
    put(filling, ada, archive.id, {b"b": b"3"})
    die_before_commit(house, monkeypatch, lambda: sealing.seal(archive.id, 1), "reset_journal")
    filling.remove(ada, archive.id, [b"gone"])
    export_registry(house.ctx)
    make_sealing(fresh, Heads(fresh))
    assert rebuild(fresh).problems == []
    assert shown(fresh) == {(b"a", 1), (b"b", 2)}
    assert list_superseded(fresh) == [(1, b"gone")]


def test_a_note_of_a_part_that_is_being_sealed_names_it_by_its_new_number(
    house: House, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of parts that no head names are given anew, so what a head says of them by number is of another part."""
    monkeypatch.setattr(model, "MAX_PART_FILES", 2)
    filling, sealing = Filling(house.ctx), make_sealing(house.ctx, house.heads)
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"1": b"one", b"2": b"two"})
    put(filling, ada, archive.id, {b"x": b"1", b"gone": b"2"})
    put(filling, ada, archive.id, {b"gone later": b"3"})
    filling.remove(ada, archive.id, [b"1", b"2"])
    assert sealing.seal(archive.id, 1), "it holds nothing, and is dropped"
    with monkeypatch.context() as dying:
        dying.setattr(Sealing, "_record", fail)
        with pytest.raises(StoreFailedError):
            sealing.seal(archive.id, 2)
    filling.remove(ada, archive.id, [b"gone"])
    house.life.describe(ada, archive.id, {"tags": ["so that there is news"]})
    house.heads.fold(archive.id)
    assert b'"part":2' in house.head_file(archive.id, "superseded.ndjson").replace(b" ", b"")
    export_registry(house.ctx)
    make_sealing(fresh, Heads(fresh))
    assert rebuild(fresh).problems == []
    assert shown(fresh) == {(b"x", 1), (b"gone later", 2)}
    assert list_superseded(fresh) == [(1, b"gone")]


def test_a_part_that_nothing_names_is_reported(house: House, fresh: Context, ada: Actor) -> None:
    archive = house.open(ada)
    house.fill(archive, {b"a": b"1"})
    lost = house.open(ada)
    house.fill(lost, {b"b": b"2"})
    house.life.describe(ada, archive.id, {"tags": ["so that there is news"]})
    house.heads.fold(archive.id)
    export_registry(house.ctx)
    with house.ctx.db.begin() as tx:
        part = tx.execute(text("SELECT id FROM parts WHERE archive_id = :id"), {"id": lost.id}).scalar_one()
    report = rebuild(fresh)
    assert [line for line in report.problems if part.urn in line] == [
        line for line in report.problems if "no archive names it" in line
    ]
    assert len(report.problems) == 1


def test_a_rebuild_that_was_interrupted_begins_again(
    house: House, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for _ in range(3):
        house.describing.patch_metadata(ada, house.open(ada).id, b"", b'{"n":1}')
    export_registry(house.ctx)
    export_events(house.ctx)
    with monkeypatch.context() as dying:
        dying.setattr(rebuilding, "_restore_events", fail)
        with pytest.raises(StoreFailedError):
            rebuild(fresh)
    assert rebuilding.is_interrupted(fresh.db)
    report = rebuild(fresh)
    assert report.problems == []
    assert compare(house.ctx.db, fresh.db) == []
    assert not rebuilding.is_interrupted(fresh.db)
