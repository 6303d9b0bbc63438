"""What the tests of this room stand on: the use cases, a clock that the test sets, an administrator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from perdure.adapters.passkeys import WebAuthn
from perdure.db import Database
from perdure.events import Event, EventLog
from perdure.identity import Account, Identity, IdentityCard, IdentitySettings
from perdure.identity.federation import Federation
from perdure.identity.passwords import PasswordCost
from perdure.identity.ports import Provider
from perdure.identity.tickets import Tickets
from perdure.kernel.actor import Actor
from perdure.kernel.clock import Clock
from perdure.testing.sealing import MemorySealer

CHEAP = PasswordCost(passes=1, memory_kib=64, lanes=1)
PASSWORD = "plum tractor ninety sea"


class SetClock:
    """Tells the time that it was set to."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def move(self, by: timedelta) -> None:
        self.moment += by


def make_federation(clock: Clock, providers: Sequence[Provider]) -> Federation:
    """Logins at providers, with answers that are used once, and no database."""
    used: set[str] = set()

    def use_once(text: str, until: datetime) -> bool:
        is_first = text not in used
        used.add(text)
        return is_first

    return Federation(clock, Tickets(clock, MemorySealer()), providers, use_once)


@dataclass
class House:
    """Everything a test of this room needs, with an administrator in it."""

    db: Database
    clock: SetClock
    events: EventLog
    identity: Identity
    administrator: Actor
    password: str = PASSWORD

    def add(self, login: str) -> tuple[IdentityCard, Account]:
        return self.identity.create_local_account(
            self.administrator, login=login, password=PASSWORD, display_name=login.title()
        )

    def log_in(self, login: str) -> Actor:
        return self.identity.log_in(login, PASSWORD)[1]

    def join(self, login: str) -> Actor:
        """A new person, logged in."""
        self.add(login)
        return self.log_in(login)

    def personal(self, actor: Actor) -> Account:
        return self.identity.get_personal_account(actor)

    def told(self, *, since: int = 0) -> list[Event]:
        """The events so far."""
        self.events.sequence_pending()
        with self.db.begin() as tx:
            return self.events.read(tx, after=since, limit=10_000)


def make_house(database: Database) -> House:
    """Open the house on a database that nobody lives in."""
    clock = SetClock()
    events = EventLog(database, clock)
    identity = Identity(
        database, clock, events, MemorySealer(), IdentitySettings(password_cost=CHEAP), passkeys=WebAuthn()
    )
    identity.bootstrap_administrator("root", PASSWORD)
    return House(database, clock, events, identity, identity.log_in("root", PASSWORD)[1])


def own_id(actor: Actor) -> UUID:
    """The identity of an actor that has one."""
    if actor.identity_id is None:
        raise AssertionError("an actor without identity")
    return actor.identity_id
