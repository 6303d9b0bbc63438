"""The composition root: settings become adapters, adapters services, services what the doors are given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import Identity, IdentitySettings
from perdure.jobs import Jobs
from perdure.kernel.clock import Clock, SystemClock
from perdure.settings import Settings


@dataclass(frozen=True, slots=True)
class Application:
    """Everything that the doors of one process share."""

    settings: Settings
    db: Database
    jobs: Jobs
    clock: Clock
    events: EventLog
    identity: Identity

    def close(self) -> None:
        """Let go of the database."""
        self.db.dispose()


def build(settings: Settings, database_url: str, *, process: str = "perdure") -> Application:
    """Wire the application on a database whose schema fits; connects to nothing yet."""
    db = Database(database_url, application_name=f"perdure {process}")
    clock = SystemClock()
    jobs = Jobs(db)
    events = EventLog(db, clock)
    identity = Identity(db, clock, events, IdentitySettings(session_lifetime=timedelta(hours=settings.session_hours)))
    return Application(settings=settings, db=db, jobs=jobs, clock=clock, events=events, identity=identity)


@contextmanager
def opened(settings: Settings, database_url: str, *, process: str) -> Iterator[Application]:
    """A built application that is closed at the end."""
    application = build(settings, database_url, process=process)
    try:
        yield application
    finally:
        application.close()
