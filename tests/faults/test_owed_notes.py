"""A process that ends between the commit of a removal and its note: the note is written by whoever comes later."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from perdure.archives import layers, removing
from perdure.archives.rebuild import compare, rebuild
from perdure.archives.tables import uploads
from perdure.db import Database
from perdure.kernel.errors import PerdureError

from .life import House, Life


class _EndedError(PerdureError):
    code = "test_ended"


def end(*arguments: object) -> None:
    raise _EndedError("The process ended here.")


@pytest.fixture
def house(db: Database, fast_folder: Path) -> House:
    return House(db, fast_folder)


def opened(house: House, contents: dict[bytes, bytes]) -> Life:
    life = Life(house)
    life.open()
    for path, data in contents.items():
        life._put(life._archive, path, data)
    return life


def remove_without_a_note(house: House, life: Life, path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends after the commit; five minutes later nobody waits for it any more."""
    with monkeypatch.context() as patched:
        patched.setattr(removing, "carry_out", end)
        with pytest.raises(_EndedError):
            house.archives.filling.remove(house.ada, life._archive, [path])
    house.clock.ahead += timedelta(minutes=5)


def rebuilt(house: House, other: Database, archive: UUID) -> list[str]:
    """How a database made from the stores differs, in what the archive holds."""
    report = rebuild(house.over(other).ctx)
    assert not report.problems
    return compare(house.db, other, tables={"files": ("added_at",), "superseded": ("at",)})


def test_a_removal_is_noted_after_its_process_ended(
    house: House, make_database: Callable[[], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    life = opened(house, {b"kept": b"1", b"gone": b"2"})
    remove_without_a_note(house, life, b"gone", monkeypatch)
    assert set(house.tree(life._archive)) == {b"kept"}
    house.archives.filling.expire_uploads()
    with house.db.begin() as tx:
        assert tx.execute(select(uploads)).all() == []
    assert rebuilt(house, make_database(), life._archive) == []


def test_what_is_put_at_the_path_again_stays(
    house: House, make_database: Callable[[], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    life = opened(house, {b"p": b"old"})
    remove_without_a_note(house, life, b"p", monkeypatch)
    life._put(life._archive, b"p", b"new")
    house.archives.filling.expire_uploads()
    assert house.read(life._archive, b"p") == b"new"
    assert rebuilt(house, make_database(), life._archive) == []


def test_what_is_on_its_way_meanwhile_stays(
    house: House, make_database: Callable[[], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note is written although an entry may be in the log already, and in no row yet."""
    life = opened(house, {b"p": b"old"})
    remove_without_a_note(house, life, b"p", monkeypatch)
    view = house.archives.filling.create_upload(house.ada, life._archive, b"p", 3)
    house.archives.filling.expire_uploads()
    with house.db.begin() as tx:
        assert [row.id for row in tx.execute(select(uploads))] == [view.id]
    receiver = house.archives.filling.open_upload(house.ada, view.id, 0)
    receiver.write(b"new")
    receiver.finish()
    receiver.close()
    assert rebuilt(house, make_database(), life._archive) == []


def test_a_note_without_a_number_waits_for_what_is_on_its_way(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that a release owed which did not number them: its place in the log decides what it takes away."""
    life = opened(house, {b"p": b"old"})
    with monkeypatch.context() as patched:
        patched.setattr(layers, "number_removals", lambda tx, archive_id, removed: removed)
        remove_without_a_note(house, life, b"p", monkeypatch)
    view = house.archives.filling.create_upload(house.ada, life._archive, b"p", 3)
    house.archives.filling.expire_uploads()
    with house.db.begin() as tx:
        assert len(tx.execute(select(uploads)).all()) == 2
    house.archives.filling.abort_upload(house.ada, view.id)
    house.archives.filling.expire_uploads()
    with house.db.begin() as tx:
        assert [row.id for row in tx.execute(select(uploads))] == [view.id]


def test_a_replacement_owes_nothing_when_it_is_over(house: House) -> None:
    life = opened(house, {b"p": b"old"})
    life._put(life._archive, b"p", b"new")
    house.archives.filling.remove(house.ada, life._archive, [b"p"])
    with house.db.begin() as tx:
        assert tx.execute(select(uploads)).all() == []
