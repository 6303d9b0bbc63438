"""Ends of lifetimes are warned of and proposed, and nothing is deleted."""

from __future__ import annotations

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from perdure.archives.lifetime import warn_of_ends
from perdure.archives.model import ArchiveState
from perdure.archives.rules import due_notices
from perdure.kernel.actor import Actor

from .house import House


def _warnings(house: House, archive_id: object) -> list[int]:
    types = ("archive.expiring", "archive.disposal_proposed")
    return [event.data["days"] for event in house.told() if event.type in types and event.subject == archive_id]  # type: ignore[misc]


def test_warned_ninety_thirty_and_seven_days_before(house: House, ada: Actor) -> None:
    archive = house.close(house.open(ada, profile="beamline"))
    house.open(ada)  # an open one is nobody's end
    days_left = (archive.keep_until - house.clock.now().date()).days
    assert warn_of_ends(house.ctx) == 0
    for before in (91, 90, 89, 30, 8, 7, 1, 0, -5):
        house.clock.move(days=days_left - before)
        days_left = before
        warn_of_ends(house.ctx)
        assert warn_of_ends(house.ctx) == 0
    assert _warnings(house, archive.id) == [90, 30, 7, 0]
    assert house.look(archive.id).state is ArchiveState.CLOSED


def test_an_extended_archive_is_warned_of_anew(house: House, ada: Actor) -> None:
    archive = house.close(house.open(ada, profile="beamline"))
    house.clock.move(days=(archive.keep_until - house.clock.now().date()).days - 10)
    assert warn_of_ends(house.ctx) == 1
    house.life.extend_lifetime(ada, archive.id, archive.keep_until + timedelta(days=100))
    assert warn_of_ends(house.ctx) == 0
    house.clock.move(days=85)
    assert warn_of_ends(house.ctx) == 1
    assert _warnings(house, archive.id) == [30, 30]


@given(st.integers(-400, 400), st.sets(st.sampled_from([90, 30, 7, 0])))
def test_one_notice_at_most_and_never_twice(left: int, given_before: set[int]) -> None:
    today = date(2026, 3, 1)
    due = due_notices(today + timedelta(days=left), given_before, today=today)
    assert len(due) <= 1
    assert not set(due) & given_before
    assert all(left <= days for days in due)
