"""Searches find what a look at each event finds, in the order that was asked for, and page after page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from itertools import product
from random import Random
from uuid import UUID

import pytest
from sqlalchemy import text

from perdure.db import Database
from perdure.events import Event, EventLog, Search, search_events
from perdure.events.model import find_ids
from perdure.kernel.actor import SYSTEM, Actor, ActorKind
from perdure.kernel.ids import new_id

_TYPES = ("session.opened", "session.refused", "sessions.forgotten", "grant.given", "files.added")
_START = datetime(2026, 5, 1, tzinfo=UTC)


class Clock:
    """Tells the time that it was set to."""

    moment = _START

    def now(self) -> datetime:
        return self.moment


@pytest.fixture
def told(db: Database) -> Iterator[list[Event]]:
    """Many events of every kind, in the log."""
    random, clock = Random(7), Clock()
    log = EventLog(db, clock)
    actors = [*(Actor(ActorKind.PERSON, new_id()) for _ in range(3)), SYSTEM]
    archives, things = [new_id() for _ in range(3)], [new_id() for _ in range(3)]
    with db.begin() as tx:
        for number in range(200):
            clock.moment = _START + timedelta(minutes=random.randrange(number + 1))  # not in the order of numbers
            data: dict[str, object] = random.choice([{}, {"count": 1}, {"of": {"thing": str(random.choice(things))}}])
            subject = random.choice([None, *archives])
            log.record(tx, random.choice(_TYPES), subject, random.choice(actors), data)
    log.sequence_pending()
    with db.begin() as tx:
        log.record(tx, "session.opened", None, SYSTEM)  # without a number, so not found yet
        yield log.read(tx, after=0, limit=1000)


def fits(event: Event, search: Search) -> bool:
    kind = search.type
    return (
        (kind is None or (event.type.startswith(kind) if kind.endswith(".") else event.type == kind))
        and search.actor in (None, event.actor_id)
        and search.subject in (None, event.subject)
        and (search.about is None or search.about in find_ids(event.data))
        and (search.since is None or event.recorded_at >= search.since)
        and (search.until is None or event.recorded_at < search.until)
    )


def test_every_mixture_of_conditions_finds_what_fits_page_after_page(db: Database, told: list[Event]) -> None:
    actor = next(event.actor_id for event in told if event.actor_id)
    subject = next(event.subject for event in told if event.subject)
    about = next(found for event in told for found in find_ids(event.data))
    kinds = (None, "session.opened", "session.", "nothing.", "nothing.done")
    times = ((None, None), (_START + timedelta(minutes=30), _START + timedelta(minutes=90)))
    mixtures = product(kinds, (None, actor), (None, subject), (None, about), times, (True, False))
    for kind, by, on, naming, (since, until), is_newest in mixtures:
        search = Search(kind, by, on, naming, since, until, is_newest_first=is_newest, limit=7)
        expected = [event for event in told if fits(event, search)]
        with db.begin() as tx:
            found: list[Event] = []
            while page := search_events(tx, replace(search, after=found[-1].number if found else None)):
                assert len(page) <= 7
                found += page
        assert found == (expected[::-1] if is_newest else expected)


def test_who_may_not_see_an_event_does_not_find_it(db: Database, told: list[Event]) -> None:
    subject = next(event.subject for event in told if event.subject)
    for kind in (None, "session.", "grant.given"):
        with db.begin() as tx:
            found = search_events(tx, Search(kind, limit=1000), seen=lambda columns: columns.subject == subject)
        expected = [event for event in told if event.subject == subject and fits(event, Search(kind))]
        assert found == expected[::-1]


def test_ids_are_found_wherever_they_stand_in_the_data() -> None:
    one, two = UUID(int=1), UUID(int=2)
    data = {"a": [str(two), {"b": str(one)}], "c": str(one), "d": f" {one}", "e": None, "f": 3, "g": "x" * 36}
    assert find_ids(data) == [one, two]


def test_a_log_from_before_is_searched_by_what_it_is_about(db: Database, told: list[Event]) -> None:
    """What the migration fills is what recording fills."""
    migration = import_module("perdure.db.migrations.versions.0008_searchable_log")
    with db.begin() as tx:
        before = tx.execute(text("SELECT id, about FROM events ORDER BY id")).all()
        tx.execute(text("UPDATE events SET about = NULL"))
        tx.execute(text(migration._FILL))
        assert tx.execute(text("SELECT id, about FROM events ORDER BY id")).all() == before
