"""What one look at the database and the stores tells, taken when somebody asks and remembered for a while.

A look that took long is repeated seldom: all of them together take at most a hundredth of the time. One that hangs, on
a dead file system or database, holds up nobody: its numbers are left out, and it is told that they are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import Connection, text

from perdure.archives.measures import measure_archives, measure_verification
from perdure.db import Database
from perdure.db.measures import measure_database
from perdure.events.measures import measure_log
from perdure.jobs.measures import QueueMeasures, measure_periodic, measure_queue
from perdure.kernel.clock import Clock
from perdure.kernel.tally import Tally, counting
from perdure.storage.measures import measure_copies
from perdure.storage.model import CopyState, Room, StoreInfo

log = structlog.get_logger(__name__)

Look = Callable[[], Iterable[Metric]]

_SHARE = 100  # a look is not repeated before so many times its own length
_OFTEN, _SELDOM = 5.0, 15.0  # seconds between two looks
_PATIENCE = 3.0  # seconds that a scrape waits for looks
_STUCK_AFTER = 10.0  # seconds
_LONGEST_STATEMENT = "SET LOCAL statement_timeout = '5s'"


class Fact:
    """One look, its last answer, and how it went."""

    def __init__(self, name: str, look: Look, every: float, turn: AbstractContextManager[object] | None = None) -> None:
        self.name = name
        self._look = look
        self._every = every
        self._turn = turn or nullcontext()
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._began: float | None = None
        self._next = float("-inf")
        self._answer: list[Metric] | None = None
        self.seconds = 0.0

    def begin(self) -> None:
        """Look anew in a thread of its own, unless one is at it or the last answer is fresh."""
        with self._lock:
            if self._began is not None or time.monotonic() < self._next:
                return
            self._began = time.monotonic()
            self._done.clear()
        threading.Thread(target=self._run, name=f"look {self.name}", daemon=True).start()

    def answer(self, until: float) -> list[Metric] | None:
        """The last answer, None when the last look failed or hangs; waits for a look under way."""
        if self._began is not None:
            self._done.wait(max(0.0, until - time.monotonic()))
        began = self._began
        return None if began is not None and time.monotonic() - began > _STUCK_AFTER else self._answer

    def _run(self) -> None:
        found, seconds = self._try()
        with self._lock:
            self.seconds, self._answer, self._began = seconds, found, None
            self._next = time.monotonic() + max(self._every, _SHARE * seconds)
            self._done.set()

    def _try(self) -> tuple[list[Metric] | None, float]:
        """What the look tells, None when it fails, and how long it took."""
        with counting(Tally("look", self.name)), self._turn:
            started = time.monotonic()
            try:
                return list(self._look()), time.monotonic() - started
            except Exception as error:
                log.warning("look_failed", look=self.name, error=str(error))
                return None, time.monotonic() - started


class Facts:
    """Every look that an installation has; safe to share between threads."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        *,
        stores: Iterable[str],
        prepared: Callable[[], Iterable[StoreInfo]],
        is_sound: Callable[[UUID], bool],
        room: Callable[[UUID], Room],
        reserve: int,
        kinds: Iterable[str],
        periodic: Mapping[str, timedelta],
    ) -> None:
        self._prepared = prepared
        self._is_sound = is_sound
        self._reserve = reserve
        turn = threading.Lock()  # one connection at a time
        often: Mapping[str, Callable[[Connection], Iterable[Metric]]] = {
            "database": _database,
            "jobs": lambda tx: _jobs(tx, kinds, periodic),
            "events": _events,
        }
        seldom: Mapping[str, Callable[[Connection], Iterable[Metric]]] = {
            "archives": _archives,
            "copies": lambda tx: _copies(tx, clock.now()),
            "verification": lambda tx: _verification(tx, clock.now()),
        }
        self._facts = [Fact(name, partial(_ask, db, look), _OFTEN, turn) for name, look in often.items()]
        self._facts += [Fact(name, partial(_ask, db, look), _SELDOM, turn) for name, look in seldom.items()]
        self._rooms = {name: Fact(f"store {name}", partial(self._look_at_store, name, room), _OFTEN) for name in stores}

    def collect(self) -> Iterator[Metric]:
        """What is known now, after at most a few seconds."""
        until = time.monotonic() + _PATIENCE
        facts = [*self._facts, *self._rooms.values()]
        for fact in facts:
            fact.begin()
        answers = {fact.name: fact.answer(until) for fact in facts}
        for fact in self._facts:
            yield from answers[fact.name] or ()
        yield from _joined(answers[fact.name] or () for fact in self._rooms.values())
        yield from self._states(answers)

    def _look_at_store(self, name: str, room: Callable[[UUID], Room]) -> Iterator[Metric]:
        found = next((store for store in self._prepared() if store.name == name), None)
        if found is None or not self._is_sound(found.id):  # the room of another medium would mislead
            return
        now = room(found.id)
        for metric, told, value in (
            ("perdure_store_free_bytes", "Bytes that are free on the store's medium.", now.free),
            ("perdure_store_size_bytes", "Bytes of the store's medium.", now.total),
            ("perdure_store_reserve_bytes", "Bytes that are kept free: uploads are refused before.", self._reserve),
        ):
            yield _level(metric, told, {"store": name}, value)

    def _states(self, answers: Mapping[str, list[Metric] | None]) -> Iterator[Metric]:
        up = GaugeMetricFamily("perdure_look_up", "Whether what a look tells is known; 0: it failed.", labels=("look",))
        took = GaugeMetricFamily("perdure_look_seconds", "Seconds that the last look took.", labels=("look",))
        for fact in self._facts:
            up.add_metric((fact.name,), answers[fact.name] is not None)
            took.add_metric((fact.name,), fact.seconds)
        yield from (up, took)
        yield _level("perdure_database_up", "Whether the database answers.", {}, answers["database"] is not None)
        reachable = GaugeMetricFamily(
            "perdure_store_reachable",
            "Whether the store answers, is the right one, and lost no writes.",
            labels=("store",),
        )
        for name, fact in self._rooms.items():
            reachable.add_metric((name,), bool(answers[fact.name]))
        yield reachable


def _ask(db: Database, look: Callable[[Connection], Iterable[Metric]]) -> list[Metric]:
    with db.begin() as tx:
        tx.execute(text(_LONGEST_STATEMENT))
        return list(look(tx))


def _database(tx: Connection) -> Iterator[Metric]:
    found = measure_database(tx)
    yield _level("perdure_database_size_bytes", "Size of the database.", {}, found.byte_count)
    connections = GaugeMetricFamily(
        "perdure_database_connections", "Connections to the database server by state.", labels=("state",)
    )
    for state, number in sorted(found.connections.items()):
        connections.add_metric((state,), number)
    yield connections
    yield _level("perdure_database_connections_limit", "Connections that the server takes.", {}, found.most_connections)
    yield _level(
        "perdure_database_oldest_transaction_seconds", "Age of the oldest transaction.", {}, found.oldest_transaction
    )
    rows = GaugeMetricFamily("perdure_database_rows", "Rows, dead ones until they are vacuumed.", labels=("state",))
    rows.add_metric(("live",), found.live_rows)
    rows.add_metric(("dead",), found.dead_rows)
    yield rows
    yield CounterMetricFamily(
        "perdure_database_wal_bytes", "Bytes written to the write-ahead log.", value=found.written_bytes
    )
    ended = CounterMetricFamily("perdure_database_transactions", "Transactions that ended.", labels=("outcome",))
    ended.add_metric(("commit",), found.commits)
    ended.add_metric(("rollback",), found.rollbacks)
    yield ended
    yield CounterMetricFamily("perdure_database_deadlocks", "Deadlocks that were broken.", value=found.deadlocks)


def _jobs(tx: Connection, kinds: Iterable[str], periodic: Mapping[str, timedelta]) -> Iterator[Metric]:
    yield from _queue(tx, kinds)
    age = GaugeMetricFamily("perdure_periodic_age_seconds", "Since the periodic work last began.", labels=("kind",))
    failing = GaugeMetricFamily("perdure_periodic_failing", "Whether its last run failed.", labels=("kind",))
    wanted = GaugeMetricFamily("perdure_periodic_interval_seconds", "How often it is to begin.", labels=("kind",))
    for found in measure_periodic(tx):
        age.add_metric((found.kind,), found.age)
        failing.add_metric((found.kind,), found.is_failing)
    for kind, interval in periodic.items():
        wanted.add_metric((kind,), interval.total_seconds())
    yield from (age, failing, wanted)


def _queue(tx: Connection, kinds: Iterable[str]) -> Iterator[Metric]:
    queued = GaugeMetricFamily(
        "perdure_jobs_queued",
        "Jobs that are not over: waiting, scheduled for later, running.",
        labels=("kind", "state"),
    )
    oldest = GaugeMetricFamily(
        "perdure_jobs_oldest_waiting_seconds", "How long the job waits that waits longest.", labels=("kind",)
    )
    none = {kind: QueueMeasures(kind, 0, 0, 0, 0.0) for kind in kinds}
    for found in (none | {found.kind: found for found in measure_queue(tx)}).values():
        for state in ("waiting", "scheduled", "running"):
            queued.add_metric((found.kind, state), getattr(found, state))
        oldest.add_metric((found.kind,), found.oldest)
    yield from (queued, oldest)


def _events(tx: Connection) -> Iterator[Metric]:
    found = measure_log(tx)
    yield _level("perdure_events_position", "Number of the last event.", {}, found.position)
    yield _level("perdure_events_pending", "Events that wait for their number.", {}, found.pending)
    yield _level("perdure_events_lag_seconds", "How long the first of them waits.", {}, found.lag)


def _archives(tx: Connection) -> Iterator[Metric]:
    found = measure_archives(tx)
    archives = GaugeMetricFamily("perdure_archives", "Archives by state.", labels=("state",))
    for state, number in found.archives.items():
        archives.add_metric((state,), number)
    uploads = GaugeMetricFamily("perdure_uploads_active", "Uploads that are not ended, by state.", labels=("state",))
    for state, number in found.uploads.items():
        uploads.add_metric((state,), number)
    exported = GaugeMetricFamily("perdure_exported_position", "How far exports to stores are.", labels=("export",))
    for name, position in found.exported.items():
        exported.add_metric((name,), position)
    yield from (archives, uploads, exported)
    yield _level("perdure_files_stored", "Files in all archives.", {}, found.files)
    yield _level("perdure_content_bytes", "Bytes of these files, each counted once.", {}, found.byte_count)
    yield _level("perdure_uploads_reserved_bytes", "Bytes that uploads have reserved.", {}, found.reserved_bytes)


def _copies(tx: Connection, now: datetime) -> Iterator[Metric]:
    by_state = GaugeMetricFamily("perdure_copies", "Copies of objects by store and state.", labels=("store", "state"))
    unverified = GaugeMetricFamily(
        "perdure_copies_oldest_unverified_seconds", "Age of the oldest copy that nobody verified.", labels=("store",)
    )
    verified = GaugeMetricFamily(
        "perdure_copies_oldest_verified_seconds", "Since the copy that waits longest was verified.", labels=("store",)
    )
    for found in measure_copies(tx):
        by_state.add_metric((found.store, found.state.value), found.count)
        if found.state is CopyState.WRITTEN and found.oldest_written is not None:
            unverified.add_metric((found.store,), (now - found.oldest_written).total_seconds())
        if found.state is CopyState.VERIFIED and found.oldest_verified is not None:
            verified.add_metric((found.store,), (now - found.oldest_verified).total_seconds())
    yield from (by_state, unverified, verified)


def _verification(tx: Connection, now: datetime) -> Iterator[Metric]:
    found = measure_verification(tx, now)
    told = "Copies of closed archives past the interval of their profile."
    yield _level("perdure_verification_overdue_copies", told, {}, found.copies)
    yield _level("perdure_verification_overdue_seconds", "By how much the worst of them is.", {}, found.worst)


def _level(name: str, told: str, labels: Mapping[str, str], value: float) -> Metric:
    family = GaugeMetricFamily(name, told, labels=tuple(labels))
    family.add_metric(tuple(labels.values()), value)
    return family


def _joined(groups: Iterable[Iterable[Metric]]) -> Iterator[Metric]:
    """The families of several looks, each once."""
    joined: dict[str, Metric] = {}
    for group in groups:
        for family in group:
            if family.name in joined:
                joined[family.name].samples.extend(family.samples)
            else:
                joined[family.name] = Metric(family.name, family.documentation, family.type)
                joined[family.name].samples.extend(family.samples)
    yield from joined.values()
