"""An event log on a real database, with a clock that the test sets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from perdure.db import Database
from perdure.events import EventLog


class SetClock:
    """Tells the time that it was set to."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def move(self, by: timedelta) -> None:
        self.moment += by


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def db(module_db: Database) -> Database:
    """One database for the module, its log emptied for each test: cheaper than a database for each."""
    with module_db.begin() as tx:
        tx.execute(text("TRUNCATE events RESTART IDENTITY"))
    return module_db


@pytest.fixture
def log(db: Database, clock: SetClock) -> EventLog:
    return EventLog(db, clock)
