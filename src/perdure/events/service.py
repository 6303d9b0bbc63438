"""The event log: write inside a transaction, number and chain after it, read in order, export and restore."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from hashlib import sha512
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, func, insert, select, update

from perdure.db import Database
from perdure.events.errors import EventChainBrokenError
from perdure.events.model import (
    GENESIS,
    SEGMENT_EVENTS,
    DailyRoot,
    Event,
    Segment,
    build_segment,
    chain_digest,
    find_ids,
    is_event_type,
    parse_segment,
)
from perdure.events.tables import events
from perdure.formats.canonical import canonical_json
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.clock import Clock
from perdure.kernel.errors import TryAgainError
from perdure.kernel.ids import new_id
from perdure.kernel.tally import find_tally

Visible = Callable[[ColumnElement[UUID | None]], ColumnElement[bool]]

_SEQUENCER_LOCK = 0x6576656E  # any number that no other advisory lock of the database has
_BATCH = 1_000  # events numbered in one transaction
_PEEK_SECONDS = 0.1  # how old the head may be that waiting readers of one process share


class EventLog:
    """One log for the whole instance; safe to share between threads.

    Readers see numbered events only, so that `number > cursor` never passes over an event that commits late.
    """

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._peek_lock = threading.Lock()
        self._peeked: tuple[float, int] = (float("-inf"), 0)

    def record(
        self,
        tx: Connection,
        event_type: str,
        subject: UUID | None,
        actor: Actor,
        data: Mapping[str, object] | None = None,
    ) -> UUID:
        """Write a fact that becomes true when the caller's transaction commits; returns the event's id.

        `data` is JSON-ready and holds ids, not names; of what a service account did it also names who is responsible
        for it. Record last in the transaction: events of one subject wait for each other from here until the commit,
        which is what makes their order the order of commits.
        """
        if not is_event_type(event_type):
            raise ValueError(f"{event_type!r} is not of the form subject.action")
        content = dict(data or {})
        if actor.responsible_id is not None:
            content.setdefault("responsible", str(actor.responsible_id))
        canonical_json(content)  # refuses here what could not be chained later
        if subject is not None:
            tx.execute(select(func.pg_advisory_xact_lock(_lock_key(subject))))
        event_id = new_id()
        tx.execute(
            insert(events).values(
                id=event_id,
                recorded_at=self._clock.now(),
                type=event_type,
                subject=subject,
                actor_kind=actor.kind.value,
                actor_id=actor.identity_id or (actor.link.link_id if actor.link else None),
                data=content,
                about=find_ids(content) or None,
            )
        )
        return event_id

    def sequence_pending(self) -> int:
        """Number and chain every event committed before the call, and return how many this call numbered.

        Any process may call it at any time: one numbers, the others wait for it.
        """
        total = 0
        while True:
            with self._db.begin() as tx:
                numbered = self._sequence_batch(tx)
            total += numbered
            if numbered < _BATCH:
                return total

    def run_sequencer(self, stop: threading.Event, *, interval: float = 0.1) -> None:
        """Number events as they come until `stop` is set; an outage of the database is waited out.

        Looking is one probe of an index that holds pending events only. (A NOTIFY by each writer would queue all
        commits of the database behind one lock.)
        """
        while not stop.is_set():
            try:
                self.sequence_pending()
            except TryAgainError:
                stop.wait(10 * interval)
            stop.wait(interval)

    def read(
        self,
        tx: Connection,
        *,
        after: int,
        limit: int,
        subject: UUID | None = None,
        visible: Visible | None = None,
    ) -> list[Event]:
        """Numbered events after a number, in order, at most `limit`; `visible` gets the subject's column."""
        query = _numbered().where(events.c.number > after).limit(limit)
        if subject is not None:
            query = query.where(events.c.subject == subject)
        if visible is not None:
            query = query.where(visible(events.c.subject))
        return [to_event(row) for row in tx.execute(query)]

    def head(self, tx: Connection) -> tuple[int, bytes]:
        """The last number and its chain digest; (0, GENESIS) of an empty log."""
        row = tx.execute(
            select(events.c.number, events.c.chain)
            .where(events.c.number.is_not(None))
            .order_by(events.c.number.desc())
            .limit(1)
        ).first()
        return (0, GENESIS) if row is None else (row.number, row.chain)

    def wait_for(self, after: int, timeout: float) -> bool:
        """Wait until an event past `after` is numbered; False when `timeout` seconds have gone by without one.

        All waiting threads of a process share one look at the head per tenth of a second.
        """
        deadline = time.monotonic() + timeout
        while self._peek_head() <= after:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            _nap(min(_PEEK_SECONDS, remaining))
        return True

    def build_segment(self, tx: Connection, *, after: int, limit: int = SEGMENT_EVENTS) -> Segment | None:
        """The next events past `after` as a segment, None when there are none; equal calls give equal bytes."""
        found = self.read(tx, after=after, limit=min(limit, SEGMENT_EVENTS))
        return build_segment(found, self._digest_at(tx, after)) if found else None

    def iter_segments(self, tx: Connection, *, after: int) -> Iterator[Segment]:
        """All segments past `after` in order; only the last holds fewer than SEGMENT_EVENTS."""
        while (segment := self.build_segment(tx, after=after)) is not None:
            yield segment
            after = segment.last

    def restore_segment(self, tx: Connection, data: bytes) -> int:
        """Load a segment of an exported log and return how many events were new; calling again loads nothing.

        Segments come in order. Raises DamagedError when the bytes are not a segment, its chain is broken or it does
        not stand on what is already there; then nothing was loaded.
        """
        previous, loaded = parse_segment(data)
        tx.execute(select(func.pg_advisory_xact_lock(_SEQUENCER_LOCK)))
        number, digest = self.head(tx)
        fresh = [event for event in loaded if event.number > number]
        self._require_continuation(tx, loaded, previous, number, digest)
        if fresh:
            tx.execute(insert(events), [_row(event) for event in fresh])
        return len(fresh)

    def daily_root(self, tx: Connection, day: date) -> DailyRoot:
        """What the log was at the end of a day (UTC); it never changes once the day is over."""
        end = datetime.combine(day + timedelta(days=1), time_of_day.min, UTC)
        number = tx.execute(
            select(func.coalesce(func.max(events.c.number), 0)).where(
                events.c.number.is_not(None), events.c.numbered_at < end
            )
        ).scalar_one()
        return DailyRoot(day.isoformat(), number, self._digest_at(tx, number).hex())

    def _sequence_batch(self, tx: Connection) -> int:
        tx.execute(select(func.pg_advisory_xact_lock(_SEQUENCER_LOCK)))
        pending = tx.execute(
            select(events).where(events.c.number.is_(None)).order_by(events.c.position).limit(_BATCH)
        ).all()
        if pending:
            tx.execute(_NUMBER_EVENT, self._number(tx, pending))
        return len(pending)

    def _number(self, tx: Connection, pending: Sequence[Row[*tuple[object, ...]]]) -> list[dict[str, object]]:
        last, digest = self.head(tx)
        moment = self._next_moment(tx, last)
        changes: list[dict[str, object]] = []
        for number, row in enumerate(pending, start=last + 1):
            event = to_event(row, number=number, numbered_at=moment)
            digest = chain_digest(digest, event)
            changes.append({"event": event.id, "number": number, "numbered_at": moment, "chain": digest})
        return changes

    def _next_moment(self, tx: Connection, number: int) -> datetime:
        # A clock that was set back must not move events into a day whose root is signed.
        latest: datetime | None = tx.execute(select(events.c.numbered_at).where(events.c.number == number)).scalar()
        now = self._clock.now()
        return now if latest is None else max(latest, now)

    def _peek_head(self) -> int:
        with self._peek_lock:
            if time.monotonic() - self._peeked[0] >= _PEEK_SECONDS:
                with self._db.begin() as tx:
                    number = self.head(tx)[0]
                self._peeked = (time.monotonic(), number)
            return self._peeked[1]

    def _digest_at(self, tx: Connection, number: int) -> bytes:
        if number == 0:
            return GENESIS
        chain = tx.execute(select(events.c.chain).where(events.c.number == number)).scalar()
        if chain is None:
            raise EventChainBrokenError(f"Event {number} is missing.", number=number)
        return bytes(chain)

    def _require_continuation(
        self, tx: Connection, loaded: Sequence[Event], previous: bytes, number: int, digest: bytes
    ) -> None:
        first, last = loaded[0].number, loaded[-1].number
        if first > number + 1:
            raise EventChainBrokenError(f"The segment starts at {first}, the log ends at {number}.", number=number + 1)
        if self._digest_at(tx, first - 1) != previous:
            raise EventChainBrokenError(f"The segment does not stand on event {first - 1}.", number=first)
        joint = min(last, number)
        if joint >= first and self._digest_at(tx, joint) != loaded[joint - first].chain:
            raise EventChainBrokenError("The segment differs from the log where they overlap.", number=joint)


_NUMBER_EVENT = (
    update(events)
    .where(events.c.id == bindparam("event"))
    .values(number=bindparam("number"), numbered_at=bindparam("numbered_at"), chain=bindparam("chain"))
)


def _nap(seconds: float) -> None:
    """Wait, and say that it was wanted."""
    time.sleep(seconds)
    tally = find_tally()
    if tally is not None:
        tally.waited += seconds


def _lock_key(subject: UUID) -> int:
    """A signed 64-bit number for the subject; two subjects that share one only wait for each other."""
    return int.from_bytes(sha512(b"events of " + subject.bytes).digest()[:8], "big", signed=True)


def _numbered() -> Select[*tuple[object, ...]]:
    return select(events).where(events.c.number.is_not(None)).order_by(events.c.number)


def to_event(row: Row[*tuple[object, ...]], *, number: int | None = None, numbered_at: datetime | None = None) -> Event:
    """The event of a row; its number and the moment of it are given while they are not stored yet."""
    return Event(
        number=row.number if number is None else number,
        id=row.id,
        type=row.type,
        subject=row.subject,
        actor_kind=ActorKind(row.actor_kind),
        actor_id=row.actor_id,
        recorded_at=row.recorded_at,
        numbered_at=row.numbered_at if numbered_at is None else numbered_at,
        data=row.data,
        chain=row.chain or b"",
    )


def _row(event: Event) -> dict[str, object]:
    return {
        "id": event.id,
        "recorded_at": event.recorded_at,
        "type": event.type,
        "subject": event.subject,
        "actor_kind": event.actor_kind.value,
        "actor_id": event.actor_id,
        "data": dict(event.data),
        "about": find_ids(event.data) or None,
        "number": event.number,
        "numbered_at": event.numbered_at,
        "chain": event.chain,
    }
