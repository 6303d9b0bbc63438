"""Workers: take jobs from the queue, run them in threads, keep the periodic work going."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import procrastinate
import structlog
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Notification, Status
from procrastinate.manager import JobManager, NotificationCallback
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from sqlalchemy import text

from perdure.db import Database
from perdure.jobs.lifelines import Lifelines
from perdure.jobs.service import TASK_NAME, Jobs

log = structlog.get_logger(__name__)

_HEARTBEAT = 4.0  # seconds
_STALLED_AFTER = 20.0  # seconds without a heartbeat: the worker is dead or cut off, its jobs go to others
_NEVER = 1e12  # seconds: only those who are named
_AFTER_YOU = 0.05  # seconds; an idle worker has taken the job by then
_POLL_EVERY = 1.0  # seconds; a notification usually wakes the worker first
_FORGET_AFTER = timedelta(days=30)


class _RunAgainError(Exception):
    """Tells the queue that the job waits for another attempt."""

    def __init__(self, wait: timedelta) -> None:
        super().__init__(f"again in {wait}")
        self.at = datetime.now(UTC) + wait


class _AsWeDecided(BaseRetryStrategy):
    """The next attempt is decided by our own rule; whatever else ends an attempt is the worker's own death throes."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision:
        at = exception.at if isinstance(exception, _RunAgainError) else datetime.now(UTC) + timedelta(seconds=2)
        return RetryDecision(retry_at=at)


_TELL_WAITING = """
    SELECT pg_notify(channel, %(payload)s)
    FROM unnest(ARRAY['procrastinate_any_queue_v1', 'procrastinate_queue_v1#' || %(queue)s]) AS channel
"""


class _ToldManager(JobManager):
    """Holds the lifeline of a worker before it may take a job, and tells all of them when a job's lock is free.

    Whoever is told while it looks for a job looks again: the worker forgets with the end of a look what it was told.
    Whoever has a job lets the others look first: two jobs in one process share one interpreter.
    """

    def __init__(self, connector: procrastinate.PsycopgConnector, lifelines: Lifelines | None) -> None:
        super().__init__(connector)
        self._lifelines = lifelines
        self._times_told = 0
        self.running = 0

    async def listen_for_jobs(
        self, *, on_notification: NotificationCallback, queues: Iterable[str] | None = None
    ) -> None:
        async def count(*, channel: str, notification: Notification) -> None:
            self._times_told += 1
            await on_notification(channel=channel, notification=notification)

        await super().listen_for_jobs(on_notification=count, queues=queues)

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> Job | None:
        while True:
            if self.running:
                await asyncio.sleep(_AFTER_YOU)
            told = self._times_told
            job = await super().fetch_job(queues, worker_id)
            if job is not None or told == self._times_told:
                return job

    async def register_worker(self) -> int:
        worker = await super().register_worker()
        if self._lifelines is not None:
            self._lifelines.hold_worker(worker)
        return worker

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:
        await super().finish_job(job, status, delete_job)
        if job.lock is not None:  # whoever waited for the lock would be found at the next poll only
            payload = json.dumps({"type": "job_inserted", "job_id": job.id})
            with suppress(ConnectorException):
                await self.connector.execute_query_async(_TELL_WAITING, payload=payload, queue=job.queue)


def run_worker(
    jobs: Jobs,
    *,
    queues: Sequence[str] | None = None,
    concurrency: int = 4,
    stop_event: threading.Event,
    grace: float = 20.0,
    stalled_after: float = _STALLED_AFTER,
    lifelines: Lifelines | None = None,
) -> None:
    """Work until `stop_event` is set, then give running handlers `grace` seconds. Blocks.

    `queues` None means all. A lost database connection is waited out. Jobs of workers that died are taken over
    `stalled_after` seconds after their last heartbeat; at once where both shared this machine and its `lifelines`.
    """
    logging.getLogger("procrastinate").setLevel(logging.ERROR)  # our own lines tell the same with our job ids
    _register_upkeep(jobs, stalled_after, lifelines)
    asyncio.run(_work_until_stopped(jobs, queues, concurrency, stop_event, grace, lifelines))


def run_pending(
    jobs: Jobs, *, include_scheduled: bool = False, raise_unforeseen: bool = True, limit: int = 10_000
) -> int:
    """Carry out the due jobs of all queues here and now, those that they queue included; how many attempts were made.

    For tests and errands. `include_scheduled` brings every appointment forward, also of retries. An unforeseen error
    is raised after the job was settled, unless told not to.
    """
    with jobs.db.begin() as tx:
        worker = tx.execute(text("SELECT worker_id FROM procrastinate_register_worker_v1()")).scalar_one()
    attempts = 0
    try:
        while attempts < limit and _run_next(jobs, worker, include_scheduled, raise_unforeseen):
            attempts += 1
    finally:
        with jobs.db.begin() as tx:
            tx.execute(text("SELECT procrastinate_unregister_worker_v1(:worker)"), {"worker": worker})
    return attempts


def retry_stalled(db: Database, *, stalled_after: float = _STALLED_AFTER, dead: Sequence[int] = ()) -> int:
    """Offer the jobs of dead workers to the others; how many there were.

    Dead are those without a heartbeat for so many seconds, those whose last one lies as far in the future, because the
    clock was set back since, and those in `dead`, whose processes have ended.
    """
    with db.begin() as tx:
        number: int = tx.execute(_RETRY_STALLED, {"seconds": stalled_after, "dead": list(dead)}).scalar_one()
        tx.execute(text("DELETE FROM procrastinate_workers WHERE id = ANY(:dead)"), {"dead": list(dead)})
    return number


def take_over(db: Database, lifelines: Lifelines) -> int:
    """Offer the jobs of workers that ended on this machine to the others at once; how many there were."""
    with lifelines.dead_workers() as dead:
        number = retry_stalled(db, stalled_after=_NEVER, dead=dead) if dead else 0
    if number:
        log.warning("jobs_taken_over", jobs=number, workers=list(dead))
    return number


def hasten_retries(jobs: Jobs) -> int:
    """Bring retries forward that wait longer than any rule lets them: the clock was ahead when they were appointed."""
    with jobs.db.begin() as tx:
        return tx.execute(_HASTEN, {"longest": jobs.longest_wait()}).rowcount


def forget_finished(db: Database, *, older_than: timedelta = _FORGET_AFTER) -> int:
    """Delete what is known of jobs that ended long ago; how many there were."""
    with db.begin() as tx:
        return tx.execute(text("DELETE FROM jobs WHERE finished_at < now() - :age"), {"age": older_than}).rowcount


# A stalled job comes back under a new number, so that a worker that was only cut off can no longer end it
_RETRY_STALLED = text(
    """
    WITH stalled AS (
        SELECT job.id
        FROM procrastinate_jobs job LEFT JOIN procrastinate_workers worker ON worker.id = job.worker_id
        WHERE job.status = 'doing'
          AND (worker.id IS NULL
               OR worker.id = ANY(:dead)
               OR abs(extract(epoch FROM now() - worker.last_heartbeat)) > :seconds)
        FOR UPDATE OF job SKIP LOCKED
    ), gone AS (
        DELETE FROM procrastinate_jobs job USING stalled WHERE job.id = stalled.id
        RETURNING job.queue_name, job.task_name, job.priority, job.lock, job.args
    ), offered AS (
        INSERT INTO procrastinate_jobs (queue_name, task_name, priority, lock, args) SELECT * FROM gone
        RETURNING id, CAST(args ->> 'job_id' AS uuid) AS job_id
    ), ours AS (
        UPDATE jobs SET queue_id = offered.id, state = CASE state WHEN 'running' THEN 'waiting' ELSE state END
        FROM offered WHERE jobs.id = offered.job_id
    )
    SELECT count(*) FROM offered
    """
)
_HASTEN = text(
    """
    UPDATE procrastinate_jobs queued SET scheduled_at = now() FROM jobs
    WHERE jobs.queue_id = queued.id AND jobs.started_at IS NOT NULL
      AND queued.status = 'todo' AND queued.scheduled_at > now() + :longest
    """
)


def _register_upkeep(jobs: Jobs, stalled_after: float, lifelines: Lifelines | None) -> None:
    def offer_again() -> None:
        retry_stalled(jobs.db, stalled_after=stalled_after)
        if lifelines is not None:
            take_over(jobs.db, lifelines)
        hasten_retries(jobs)

    if "jobs.retry_stalled" not in jobs.periodic_kinds():
        jobs.register_periodic("jobs.retry_stalled", stalled_after / 4, offer_again)
        jobs.register_periodic("jobs.forget_finished", timedelta(hours=6), partial(forget_finished, jobs.db))


async def _work_until_stopped(
    jobs: Jobs,
    queues: Sequence[str] | None,
    concurrency: int,
    stop_event: threading.Event,
    grace: float,
    lifelines: Lifelines | None,
) -> None:
    stopping = asyncio.Event()
    watcher = asyncio.create_task(_watch(stop_event, stopping))
    periodic = [asyncio.create_task(_tick(jobs, kind, wait, stopping)) for kind, wait in jobs.periodic_kinds().items()]
    pool = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="job")
    try:
        while not stopping.is_set():
            try:
                await _work(jobs, queues, concurrency, pool, stopping, stop_event, grace, lifelines)
            except Exception as problem:
                log.warning("worker_lost_the_database", error=repr(problem))
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), 1.0)
    finally:
        watcher.cancel()
        await asyncio.gather(*periodic, return_exceptions=True)
        pool.shutdown(wait=False, cancel_futures=True)


async def _work(
    jobs: Jobs,
    queues: Sequence[str] | None,
    concurrency: int,
    pool: ThreadPoolExecutor,
    stopping: asyncio.Event,
    stop_event: threading.Event,
    grace: float,
    lifelines: Lifelines | None,
) -> None:
    connector = procrastinate.PsycopgConnector(conninfo=jobs.db.url, min_size=1, max_size=4)
    app = procrastinate.App(connector=connector)
    manager = _ToldManager(connector, lifelines)
    app.job_manager = manager

    @app.task(name=TASK_NAME, retry=_AsWeDecided())
    async def run_job(job_id: str) -> None:
        attempt = partial(jobs.run_job, UUID(job_id), is_stopping=stop_event.is_set)
        manager.running += 1
        try:
            wait = await asyncio.get_running_loop().run_in_executor(pool, attempt)
        finally:
            manager.running -= 1
        if wait is not None:
            raise _RunAgainError(wait)

    async with app.open_async():
        if lifelines is not None:
            await asyncio.to_thread(take_over, jobs.db, lifelines)
        worker = asyncio.create_task(
            app.run_worker_async(
                queues=queues,  # type: ignore[arg-type]  # None means all, as Worker declares and App does not
                concurrency=concurrency,
                fetch_job_polling_interval=_POLL_EVERY,
                update_heartbeat_interval=_HEARTBEAT,
                stalled_worker_timeout=_STALLED_AFTER,
                shutdown_graceful_timeout=grace,
                delete_jobs="always",  # the table `jobs` remembers
                install_signal_handlers=False,
            )
        )
        stopper = asyncio.create_task(stopping.wait())
        await asyncio.wait({worker, stopper}, return_when=asyncio.FIRST_COMPLETED)
        stopper.cancel()
        if not worker.done():
            worker.cancel()  # asks it to stop, and lets running jobs end within the grace
        with suppress(asyncio.CancelledError):
            await worker


async def _watch(stop_event: threading.Event, stopping: asyncio.Event) -> None:
    while not stop_event.is_set():
        await asyncio.sleep(0.1)
    stopping.set()


async def _tick(jobs: Jobs, kind: str, wait: timedelta, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        try:
            await asyncio.to_thread(jobs.run_periodic, kind)
        except Exception as problem:
            log.warning("periodic_work_postponed", kind=kind, error=repr(problem))
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), wait.total_seconds())


def _run_next(jobs: Jobs, worker: int, include_scheduled: bool, raise_unforeseen: bool) -> bool:
    with jobs.db.begin() as tx:
        if include_scheduled:
            tx.execute(text("UPDATE procrastinate_jobs SET scheduled_at = NULL WHERE status = 'todo'"))
        fetch = text("SELECT id, args ->> 'job_id' AS job_id FROM procrastinate_fetch_job_v2(NULL, :worker)")
        row = tx.execute(fetch, {"worker": worker}).one()
    if row.id is None:
        return False
    unforeseen: list[Exception] = []
    wait = jobs.run_job(UUID(row.job_id), on_unforeseen=unforeseen.append)
    with jobs.db.begin() as tx:
        if wait is None:
            tx.execute(text("SELECT procrastinate_finish_job_v1(:id, 'succeeded', true)"), {"id": row.id})
        else:
            again = text("SELECT procrastinate_retry_job_v2(:id, now() + :wait, NULL, NULL, NULL)")
            tx.execute(again, {"id": row.id, "wait": wait})
    if unforeseen and raise_unforeseen:
        raise unforeseen[0]
    return True
