"""Put work into the queue inside a transaction, carry it out, tell how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeAlias
from uuid import UUID

import structlog
from sqlalchemy import Connection, Row, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from perdure.db import Database
from perdure.jobs.errors import JobAbandonedError, JobNotFoundError, JobStoppedError, JobUnknownError
from perdure.jobs.model import JobState, JobView, Json, Progress, RetryRule, describe_error, plan_retry
from perdure.jobs.tables import jobs as jobs_table
from perdure.jobs.tables import periodic_runs
from perdure.kernel.errors import PerdureError
from perdure.kernel.ids import new_id
from perdure.kernel.tally import Tally, counting

log = structlog.get_logger(__name__)

TASK_NAME = "perdure.job"
_PROGRESS_EVERY = 0.5  # seconds between two writes of progress
_FENCE_EVERY = 2.0  # seconds between two looks whether the job is still ours

# A payload is JSON that its own kind wrote: Any lets each handler name the fields that it put there.
Handler: TypeAlias = Callable[["JobContext", dict[str, Any]], Mapping[str, Json] | None]


@dataclass(frozen=True, slots=True)
class JobKind:
    handler: Handler
    queue: str
    retry: RetryRule


@dataclass(frozen=True, slots=True)
class PeriodicKind:
    every: timedelta
    handler: Callable[[], object]


class JobContext:
    """What a running handler knows of its job; belongs to the one thread that runs it."""

    def __init__(
        self,
        db: Database,
        job_id: UUID,
        attempt: int,
        is_stopping: Callable[[], bool],
        received: Callable[[int], None] | None = None,
    ) -> None:
        self.job_id = job_id
        self.attempt = attempt
        self.latest = Progress()
        self.outcome = "broken"
        self._db = db
        self._is_stopping = is_stopping
        self._received = received
        self._started = time.monotonic()
        self._written = 0.0
        self._looked = time.monotonic()
        self._is_lost = False

    def progress(
        self, *, done: int | None = None, total: int | None = None, unit: str | None = None, message: str | None = None
    ) -> None:
        """Tell how far the job is, as often as you like: at most two writes a second reach the database.

        What is left out stays as it was.
        """
        told = {"done": done, "total": total, "unit": unit, "message": message}
        self.latest = replace(self.latest, **{k: v for k, v in told.items() if v is not None})  # type: ignore[arg-type]
        if self.latest.done is not None:
            elapsed = max(time.monotonic() - self._started, 1e-3)
            self.latest = replace(self.latest, rate=round(self.latest.done / elapsed, 3))
        if time.monotonic() - self._written >= _PROGRESS_EVERY:
            self._write()

    def count_received(self, byte_count: int) -> None:
        """Have bytes counted that the job took in from outside."""
        if self._received is not None:
            self._received(byte_count)

    def should_stop(self) -> bool:
        """Whether to end soon: the worker stops, the job was cancelled, or another worker has taken it over."""
        if not self._is_lost and time.monotonic() - self._looked >= _FENCE_EVERY:
            self._write()
        return self._is_lost or self._is_stopping()

    def raise_if_stopping(self) -> None:
        """Raise JobStoppedError when the handler should end; the job goes on later without losing an attempt."""
        if self.should_stop():
            raise JobStoppedError("The job gives way and goes on later.")

    def _write(self) -> None:
        self._written = self._looked = time.monotonic()
        with self._db.begin() as tx:
            owned = tx.execute(
                update(jobs_table)
                .where(jobs_table.c.id == self.job_id, jobs_table.c.state == JobState.RUNNING)
                .where(jobs_table.c.attempts == self.attempt)
                .values(progress=_progress_document(self.latest))
            )
        self._is_lost = owned.rowcount == 0


class JobWatch(Protocol):
    """Is told of each attempt in the thread that makes it; `outcome` is succeeded, failed, retried, gave_way, or broken
    when the database went away."""

    def began(self, kind: str) -> None: ...

    def received(self, kind: str, byte_count: int) -> None: ...

    def ended(self, kind: str, outcome: str, seconds: float) -> None: ...


class Jobs:
    """The kinds of work that this program knows, and the queue that holds it; `watch` is told of each attempt."""

    def __init__(self, db: Database, *, watch: JobWatch | None = None) -> None:
        self.db = db
        self._watch = watch
        self._kinds: dict[str, JobKind] = {}
        self._periodic: dict[str, PeriodicKind] = {}

    def register(
        self,
        kind: str,
        handler: Handler,
        *,
        queue: str = "default",
        max_attempts: int = 10,
        retry: RetryRule | None = None,
    ) -> None:
        """Name the handler of a kind (`archive.close`); it may run twice and may stop anywhere.

        A handler's return value, if any, is the job's result. Errors that say "try again" and unforeseen ones are
        retried by the rule; others fail the job.
        """
        if kind in self._kinds:
            raise ValueError(f"the kind {kind!r} has a handler already")
        rule = retry or RetryRule()
        self._kinds[kind] = JobKind(handler, queue, replace(rule, max_attempts=max_attempts) if retry is None else rule)

    def register_periodic(self, kind: str, every: float | timedelta, handler: Callable[[], object]) -> None:
        """Have the workers call `handler` about every so many seconds; it never overlaps itself, on any machine."""
        if kind in self._periodic:
            raise ValueError(f"the periodic kind {kind!r} has a handler already")
        wait = every if isinstance(every, timedelta) else timedelta(seconds=every)
        self._periodic[kind] = PeriodicKind(wait, handler)

    def kinds(self) -> Sequence[str]:
        """Each kind that has a handler."""
        return sorted(self._kinds)

    def periodic_kinds(self) -> Mapping[str, timedelta]:
        """Each periodic kind with its wait."""
        return {kind: entry.every for kind, entry in self._periodic.items()}

    def longest_wait(self) -> timedelta:
        """How long a retry waits at most, whatever its kind."""
        return max([RetryRule().longest_wait, *(kind.retry.longest_wait for kind in self._kinds.values())])

    def defer(
        self,
        tx: Connection,
        kind: str,
        payload: Mapping[str, Json],
        *,
        lock: str | None = None,
        queueing_lock: str | None = None,
        schedule_at: datetime | None = None,
        thing: UUID | None = None,
        requested_by: UUID | None = None,
    ) -> UUID:
        """Queue a job in the caller's transaction and return its id; it exists if and only if that commits.

        Jobs with the same `lock` run one after the other, in order (a scheduled one holds up those behind it). While a
        job with the same `queueing_lock` waits, that job is returned instead of a new one, and it is held back until
        the caller's transaction ends, so that it sees what the caller wrote.
        """
        known = self._require_kind(kind)
        if queueing_lock is not None:
            waiting = _find_waiting(tx, queueing_lock)
            if waiting is not None:
                return waiting
        job_id = new_id()
        parameters = {
            "queue": known.queue,
            "task": TASK_NAME,
            "lock": lock,
            "queueing_lock": queueing_lock,
            "job_id": str(job_id),
            "at": schedule_at,
        }
        queue_id = tx.execute(_ENQUEUE, parameters).scalar_one_or_none()
        if queue_id is None:  # somebody queued the same work between our look and now
            return self.defer(
                tx,
                kind,
                payload,
                lock=lock,
                queueing_lock=queueing_lock,
                schedule_at=schedule_at,
                thing=thing,
                requested_by=requested_by,
            )
        row = {"id": job_id, "kind": kind, "payload": dict(payload), "thing": thing, "requested_by": requested_by}
        tx.execute(insert(jobs_table).values(**row, queue_id=queue_id, state=JobState.WAITING))
        return job_id

    def cancel(self, tx: Connection, job_id: UUID) -> bool:
        """End a job: a waiting one never starts, a running one is asked to stop. False if it was over already."""
        cancelled = tx.execute(
            update(jobs_table)
            .where(jobs_table.c.id == job_id, jobs_table.c.state.in_([JobState.WAITING, JobState.RUNNING]))
            .values(state=JobState.CANCELLED, finished_at=func.clock_timestamp())
            .returning(jobs_table.c.queue_id)
        ).scalar_one_or_none()
        if cancelled is None:
            return False
        tx.execute(_RELEASE_CANCELLED, {"id": cancelled})
        return True

    def get(self, tx: Connection, job_id: UUID) -> JobView:
        """One job; raises JobNotFoundError."""
        row = tx.execute(select(jobs_table).where(jobs_table.c.id == job_id)).one_or_none()
        if row is None:
            raise JobNotFoundError(f"There is no job {job_id}.")
        return _view(row)

    def find_for_thing(self, tx: Connection, thing: UUID, *, kind: str | None = None) -> Sequence[JobView]:
        """The jobs about a thing (an archive), newest first."""
        query = select(jobs_table).where(jobs_table.c.thing == thing).order_by(jobs_table.c.id.desc())
        if kind is not None:
            query = query.where(jobs_table.c.kind == kind)
        return [_view(row) for row in tx.execute(query)]

    def list_recent(self, tx: Connection, *, limit: int = 50, state: JobState | None = None) -> Sequence[JobView]:
        """The newest jobs of all kinds, newest first."""
        query = select(jobs_table).order_by(jobs_table.c.id.desc()).limit(limit)
        if state is not None:
            query = query.where(jobs_table.c.state == state)
        return [_view(row) for row in tx.execute(query)]

    def run_job(
        self,
        job_id: UUID,
        *,
        is_stopping: Callable[[], bool] = lambda: False,
        on_unforeseen: Callable[[Exception], object] = lambda error: None,
    ) -> timedelta | None:
        """Carry out one attempt; the wait before the next one, or None when the job is over.

        Safe to call for a job that is over: nothing happens. `on_unforeseen` gets an error that is none of ours, after
        it was logged. Raises what the database raises; the queue then offers the job again.
        """
        claimed = self._claim(job_id)
        if claimed is None:
            return None
        kind, payload, attempt = claimed
        received = None if self._watch is None else partial(self._watch.received, kind)
        context = JobContext(self.db, job_id, attempt, is_stopping, received)
        with structlog.contextvars.bound_contextvars(job_id=str(job_id), job_kind=kind), self._watched(context, kind):
            return self._attempt(context, kind, payload, on_unforeseen)

    def run_periodic(self, kind: str) -> bool:
        """Run one periodic handler if it is due and no other worker is at it; whether it ran."""
        entry = self._periodic[kind]
        with self.db.connect_autocommit() as guard:
            if not guard.execute(
                text("SELECT pg_try_advisory_lock(hashtextextended(:kind, 0))"), {"kind": kind}
            ).scalar():
                return False
            try:
                return self._run_if_due(kind, entry)
            finally:
                guard.execute(text("SELECT pg_advisory_unlock(hashtextextended(:kind, 0))"), {"kind": kind})

    def _run_if_due(self, kind: str, entry: PeriodicKind) -> bool:
        now = func.clock_timestamp()
        with self.db.begin() as tx:
            statement = insert(periodic_runs).values(kind=kind, started_at=now)
            started = periodic_runs.c.started_at
            due = or_(started <= now - entry.every * 0.9, started > now)  # later than now: the clock was set back since
            renewed = statement.on_conflict_do_update(index_elements=["kind"], set_={"started_at": now}, where=due)
            if tx.execute(renewed.returning(periodic_runs.c.kind)).one_or_none() is None:
                return False
        error: dict[str, Json] | None = None
        try:
            entry.handler()
        except Exception as problem:
            error = describe_error(problem)
            log.exception("periodic_work_failed", kind=kind)
        with self.db.begin() as tx:
            tx.execute(update(periodic_runs).where(periodic_runs.c.kind == kind).values(finished_at=now, error=error))
        return True

    def _claim(self, job_id: UUID) -> tuple[str, dict[str, Any], int] | None:  # Any: see Handler
        with self.db.begin() as tx:
            row = tx.execute(
                update(jobs_table)
                .where(jobs_table.c.id == job_id, jobs_table.c.state.in_([JobState.WAITING, JobState.RUNNING]))
                .values(
                    state=JobState.RUNNING,
                    attempts=jobs_table.c.attempts + 1,
                    started_at=func.coalesce(jobs_table.c.started_at, func.clock_timestamp()),
                )
                .returning(jobs_table.c.kind, jobs_table.c.payload, jobs_table.c.attempts, jobs_table.c.queue_id)
            ).one_or_none()
            if row is not None:
                tx.execute(_DROP_QUEUEING_LOCK, {"id": row.queue_id})
        return None if row is None else (row.kind, row.payload, row.attempts)

    @contextmanager
    def _watched(self, context: JobContext, kind: str) -> Iterator[None]:
        """Count what the attempt costs and tell the watch of it."""
        if self._watch is None:
            yield
            return
        started = time.monotonic()
        self._watch.began(kind)
        try:
            with counting(Tally("job_id", str(context.job_id))):
                yield
        finally:
            self._watch.ended(kind, context.outcome, time.monotonic() - started)

    def _attempt(
        self,
        context: JobContext,
        kind: str,
        payload: dict[str, Any],  # Any: see Handler
        on_unforeseen: Callable[[Exception], object],
    ) -> timedelta | None:
        rule = self._kinds[kind].retry if kind in self._kinds else RetryRule(max_attempts=1_000_000)
        started = time.monotonic()
        log.info("job_started", attempt=context.attempt)
        try:
            if context.attempt > rule.max_attempts:
                raise JobAbandonedError(f"Its worker died {rule.max_attempts} times while it ran.")
            result = self._require_kind(kind).handler(context, payload)
        except JobStoppedError as error:
            log.info("job_gives_way")
            context.outcome = "gave_way"
            return self._settle_retry(context, error, timedelta(0), attempts=context.attempt - 1)
        except Exception as error:
            if not isinstance(error, PerdureError):
                on_unforeseen(error)
            return self._settle_error(context, error, rule)
        self._settle(context, JobState.SUCCEEDED, result=result)
        context.outcome = "succeeded"
        log.info("job_succeeded", seconds=round(time.monotonic() - started, 3))
        return None

    def _settle_error(self, context: JobContext, error: Exception, rule: RetryRule) -> timedelta | None:
        wait = plan_retry(error, context.attempt, rule)
        foreseen = isinstance(error, PerdureError)
        log.warning("job_attempt_failed", error=str(error) if foreseen else repr(error), exc_info=not foreseen)
        context.outcome = "failed" if wait is None else "retried"
        if wait is not None:
            return self._settle_retry(context, error, wait, attempts=context.attempt)
        self._settle(context, JobState.FAILED, error=describe_error(error))
        return None

    def _settle_retry(
        self, context: JobContext, error: Exception, wait: timedelta, *, attempts: int
    ) -> timedelta | None:
        settled = self._settle(context, JobState.WAITING, error=describe_error(error), attempts=attempts)
        return wait if settled else None

    def _settle(
        self,
        context: JobContext,
        state: JobState,
        *,
        result: Mapping[str, Json] | None = None,
        error: Mapping[str, Json] | None = None,
        attempts: int | None = None,
    ) -> bool:
        """Write how the attempt ended, unless the job was cancelled or taken over in the meantime."""
        with self.db.begin() as tx:
            settled = tx.execute(
                update(jobs_table)
                .where(jobs_table.c.id == context.job_id, jobs_table.c.state == JobState.RUNNING)
                .where(jobs_table.c.attempts == context.attempt)
                .values(
                    state=state,
                    result=result,
                    error=error,
                    attempts=context.attempt if attempts is None else attempts,
                    progress=_progress_document(context.latest),
                    finished_at=func.clock_timestamp() if state.is_final else None,
                )
            )
        return settled.rowcount == 1

    def _require_kind(self, kind: str) -> JobKind:
        try:
            return self._kinds[kind]
        except KeyError:
            raise JobUnknownError(f"This release has no handler for jobs of the kind {kind!r}.") from None


_ENQUEUE = text(
    """
    INSERT INTO procrastinate_jobs (queue_name, task_name, lock, queueing_lock, args, scheduled_at)
    VALUES (:queue, :task, :lock, :queueing_lock, jsonb_build_object('job_id', CAST(:job_id AS text)), :at)
    ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING
    RETURNING id
    """
)
_FIND_WAITING = text(
    """
    SELECT CAST(args ->> 'job_id' AS uuid) FROM procrastinate_jobs
    WHERE queueing_lock = :queueing_lock AND status = 'todo' FOR SHARE
    """
)
# A retry beside a newer job with the same queueing lock would break the queue's uniqueness
_DROP_QUEUEING_LOCK = text("UPDATE procrastinate_jobs SET queueing_lock = NULL WHERE id = :id AND status = 'doing'")
_RELEASE_CANCELLED = text(
    "UPDATE procrastinate_jobs SET scheduled_at = NULL, queueing_lock = NULL WHERE id = :id AND status = 'todo'"
)


def _find_waiting(tx: Connection, queueing_lock: str) -> UUID | None:
    # FOR SHARE: workers pass over locked rows, so the job cannot start before our transaction is seen
    found: UUID | None = tx.execute(_FIND_WAITING, {"queueing_lock": queueing_lock}).scalar_one_or_none()
    return found


def _progress_document(progress: Progress) -> dict[str, Json]:
    fields: dict[str, Json] = {
        "done": progress.done,
        "total": progress.total,
        "unit": progress.unit,
        "message": progress.message,
        "rate": progress.rate,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _view(row: Row[Any]) -> JobView:  # Any: a row of every column of the table
    return JobView(
        id=row.id,
        kind=row.kind,
        thing=row.thing,
        requested_by=row.requested_by,
        state=JobState(row.state),
        progress=Progress(**row.progress),
        result=row.result,
        error=row.error,
        attempts=row.attempts,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )
