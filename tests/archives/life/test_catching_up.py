"""Heads and journals whose writers died: the upkeep and an orderly stop bring stores and database together again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from perdure.archives import heads as writing
from perdure.archives.exporting import export_events, export_registry
from perdure.archives.model import Archive
from perdure.archives.rebuild import compare, rebuild
from perdure.archives.records import Context
from perdure.kernel.actor import Actor
from perdure.storage import heads as storing
from perdure.storage import spreading

from .house import House

POINTS = {
    "head.shared": storing,
    "head.written": storing,
    "head.installed": storing,
    "head.committed": spreading,
    "head.journal_reset": writing,
}


class Death(BaseException):
    """What ends a process in the middle: nothing catches it."""


def die_at(point: str, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    def end(name: str) -> None:
        if name == point:
            raise Death

    with monkeypatch.context() as dying:
        dying.setattr(POINTS[point], "crash_point", end)
        with pytest.raises(Death):
            act()


def find_differences(house: House, fresh: Context) -> list[str]:
    """What a rebuild from the stores makes otherwise."""
    export_registry(house.ctx)
    export_events(house.ctx)
    assert rebuild(fresh).problems == []
    return compare(house.ctx.db, fresh.db)


def find_only(house: House, ada: Actor) -> Archive:
    [found] = house.life.list_archives(ada).items
    return house.look(found.archive.id)


@pytest.mark.parametrize("point", POINTS)
def test_an_archive_whose_opener_died_gets_its_head(
    house: House, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    die_at(point, monkeypatch, lambda: house.open(ada))
    assert find_only(house, ada).head_version == 0
    assert house.heads.fold_quiet() == 1
    assert find_only(house, ada).head_version == 1
    assert find_differences(house, fresh) == []


@pytest.mark.parametrize("point", ["head.committed", "head.journal_reset"])
def test_a_head_ahead_of_the_database_does_not_wait_until_changes_are_quiet(
    house: House, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    archive = house.open(ada)
    house.life.describe(ada, archive.id, {"title": "In the head that was not noted"})
    die_at(point, monkeypatch, lambda: house.heads.fold(archive.id))
    house.life.describe(ada, archive.id, {"title": "Of this moment"})
    assert house.heads.fold_quiet() == 1
    assert house.look(archive.id).head_version == 3
    assert house.heads.fold_quiet() == 0
    assert find_differences(house, fresh) == []


def test_before_a_stop_is_written_what_stands_only_in_the_database(
    house: House, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathering = house.open(ada)
    house.life.describe(ada, gathering.id, {"title": "In the journal"})
    house.clock.move(hours=1)
    unwritten = house.open(ada)
    with monkeypatch.context() as dying:
        dying.setattr(house.ctx.journal, "flush", lambda archive_id: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            house.life.describe(ada, unwritten.id, {"title": "Not in the journal"})
    die_at("head.committed", monkeypatch, lambda: house.open(ada))
    assert house.heads.catch_up() == 1, "the head of the last one"
    assert house.look(gathering.id).head_version == 1, "a stop is no reason for a version"
    assert find_differences(house, fresh) == []
