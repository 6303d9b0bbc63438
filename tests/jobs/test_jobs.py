"""The queue's promises: inside the transaction, at least once, in order, fenced, told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from procrastinate.jobs import Job
from procrastinate.manager import JobManager
from sqlalchemy import text

from perdure.db import Database
from perdure.jobs import (
    JobContext,
    JobNotFoundError,
    Jobs,
    JobState,
    JobStoppedError,
    JobView,
    RetryRule,
    run_pending,
    run_worker,
    worker,
)
from perdure.jobs.model import plan_retry
from perdure.jobs.worker import forget_finished, retry_stalled
from perdure.kernel.errors import BadInputError, DamagedError, TryAgainError
from perdure.kernel.ids import new_id


@pytest.fixture
def jobs(db: Database) -> Jobs:
    return Jobs(db)


def look(jobs: Jobs, job_id: UUID) -> JobView:
    with jobs.db.begin() as tx:
        return jobs.get(tx, job_id)


def defer(jobs: Jobs, kind: str = "test.work", **options: Any) -> UUID:  # Any: passed on as it is
    with jobs.db.begin() as tx:
        return jobs.defer(tx, kind, options.pop("payload", {}), **options)


def set_attempts(jobs: Jobs, job_id: UUID, attempts: int) -> None:
    with jobs.db.begin() as tx:
        tx.execute(text("UPDATE jobs SET attempts = :n WHERE id = :id"), {"n": attempts, "id": job_id})


@contextmanager
def working(jobs: Jobs, **options: Any) -> Iterator[threading.Event]:  # Any: passed on as it is
    stop = threading.Event()
    thread = threading.Thread(target=run_worker, args=(jobs,), kwargs={"stop_event": stop, "grace": 5.0, **options})
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def wait_until_over(jobs: Jobs, job_id: UUID, seconds: float = 60.0) -> JobView:
    deadline = time.monotonic() + seconds
    while not (view := look(jobs, job_id)).state.is_final:
        assert time.monotonic() < deadline, view
        time.sleep(0.02)
    return view


def wait_until_listening(jobs: Jobs, workers: int = 1) -> None:
    listening = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'LISTEN %'"
    deadline = time.monotonic() + 60
    while True:
        with jobs.db.begin() as tx:
            if len(tx.execute(text(listening)).all()) >= workers:
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_job_runs_with_its_payload_and_keeps_its_result(jobs: Jobs) -> None:
    thing, requester = new_id(), new_id()
    jobs.register("test.work", lambda context, payload: {"doubled": payload["number"] * 2})
    job_id = defer(jobs, payload={"number": 21}, thing=thing, requested_by=requester)
    assert look(jobs, job_id).state is JobState.WAITING
    assert run_pending(jobs) == 1
    view = look(jobs, job_id)
    assert (view.state, view.result, view.attempts) == (JobState.SUCCEEDED, {"doubled": 42}, 1)
    assert (view.thing, view.requested_by) == (thing, requester)
    assert view.started_at is not None
    assert view.finished_at is not None
    with jobs.db.begin() as tx:
        assert [found.id for found in jobs.find_for_thing(tx, thing, kind="test.work")] == [job_id]
        assert jobs.find_for_thing(tx, thing, kind="test.other") == []
        assert [found.id for found in jobs.list_recent(tx, state=JobState.SUCCEEDED)] == [job_id]


def test_a_job_of_a_rolled_back_transaction_never_was(jobs: Jobs) -> None:
    jobs.register("test.work", lambda context, payload: None)
    deferred: list[UUID] = []

    def fail_after_deferring() -> None:
        with jobs.db.begin() as tx:
            deferred.append(jobs.defer(tx, "test.work", {}))
            raise RuntimeError("the use case failed")

    with pytest.raises(RuntimeError):
        fail_after_deferring()
    assert run_pending(jobs) == 0
    with pytest.raises(JobNotFoundError):
        look(jobs, deferred[0])


def test_the_same_queueing_lock_queues_once_while_the_job_waits(jobs: Jobs) -> None:
    seen: list[object] = []
    jobs.register("test.work", lambda context, payload: seen.append(payload["number"]))
    first = defer(jobs, payload={"number": 1}, queueing_lock="fold")
    assert defer(jobs, payload={"number": 2}, queueing_lock="fold") == first
    run_pending(jobs)
    assert defer(jobs, payload={"number": 3}, queueing_lock="fold") != first
    run_pending(jobs)
    assert seen == [1, 3]


@pytest.mark.parametrize("queues", [None, ["other"]])
def test_a_job_that_waited_for_a_lock_runs_when_the_lock_is_free(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, queues: list[str] | None
) -> None:
    monkeypatch.setattr(worker, "_POLL_EVERY", 3600.0)
    is_first_running, is_second_there = threading.Event(), threading.Event()

    def wait_for_second(context: JobContext, payload: object) -> None:
        is_first_running.set()
        assert is_second_there.wait(60)

    jobs.register("test.first", wait_for_second, queue="other")
    jobs.register("test.second", lambda context, payload: None, queue="other")
    defer(jobs, "test.first", lock="one")
    with working(jobs, queues=queues):
        assert is_first_running.wait(60)
        wait_until_listening(jobs)
        second = defer(jobs, "test.second", lock="one")
        time.sleep(0.2)  # for the worker to see that it cannot have it yet
        is_second_there.set()
        assert wait_until_over(jobs, second).state is JobState.SUCCEEDED


def test_whoever_is_told_of_a_job_while_it_looks_looks_again(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_POLL_EVERY", 3600.0)
    jobs.register("test.work", lambda context, payload: None)
    fetch, late = JobManager.fetch_job, list[UUID]()

    async def find_nothing_once(manager: JobManager, queues: Iterable[str] | None, worker_id: int) -> Job | None:
        found = await fetch(manager, queues, worker_id)
        if found is None and not late:
            await asyncio.to_thread(wait_until_listening, jobs)
            late.append(await asyncio.to_thread(defer, jobs))
            await asyncio.sleep(0.5)  # for the notification to come while this look is still under way
        return found

    monkeypatch.setattr(JobManager, "fetch_job", find_nothing_once)
    with working(jobs):
        deadline = time.monotonic() + 60
        while not late and time.monotonic() < deadline:
            time.sleep(0.02)
        assert wait_until_over(jobs, late[0]).state is JobState.SUCCEEDED


def test_an_idle_worker_gets_the_job_before_one_that_has_some(jobs: Jobs) -> None:
    is_over, is_first_running = threading.Event(), threading.Event()
    taken: list[int] = []

    def occupy(context: JobContext, payload: object) -> None:
        is_first_running.set()
        assert is_over.wait(60)

    def tell(context: JobContext, payload: object) -> None:
        query = text("SELECT worker_id FROM procrastinate_jobs WHERE args ->> 'job_id' = :id")
        with jobs.db.begin() as tx:
            taken.append(tx.execute(query, {"id": str(context.job_id)}).scalar_one())

    jobs.register("test.long", occupy)
    jobs.register("test.work", tell)
    try:
        with working(jobs):
            long = defer(jobs, "test.long")
            assert is_first_running.wait(60)
            with jobs.db.begin() as tx:
                busy = tx.execute(text("SELECT id FROM procrastinate_workers")).scalar_one()
            with working(jobs):
                wait_until_listening(jobs, 2)
                for _ in range(5):
                    time.sleep(0.2)  # for the busy one to have ended the look that the job before caused
                    assert wait_until_over(jobs, defer(jobs)).state is JobState.SUCCEEDED
                is_over.set()
                wait_until_over(jobs, long)
    finally:
        is_over.set()
    assert len(taken) == 5
    assert busy not in taken


def test_a_joined_job_is_held_back_until_the_joining_transaction_ends(jobs: Jobs) -> None:
    jobs.register("test.work", lambda context, payload: None)
    waiting = defer(jobs, queueing_lock="fold")
    with jobs.db.begin() as tx:
        assert jobs.defer(tx, "test.work", {}, queueing_lock="fold") == waiting
        assert run_pending(jobs) == 0, "it would have run without seeing what this transaction writes"
    assert run_pending(jobs) == 1


def test_two_transactions_that_queue_the_same_work_at_once_share_a_job(jobs: Jobs) -> None:
    jobs.register("test.work", lambda context, payload: None)
    second: list[UUID] = []
    with jobs.db.begin() as tx:
        first = jobs.defer(tx, "test.work", {}, queueing_lock="fold")
        other = threading.Thread(target=lambda: second.append(defer(jobs, queueing_lock="fold")))
        other.start()
        time.sleep(0.2)
        assert second == [], "it waits for our outcome"
    other.join(60)
    assert second == [first]


def test_a_retry_beside_a_newer_job_with_the_same_queueing_lock_is_no_conflict(jobs: Jobs) -> None:
    def work(context: JobContext, payload: dict[str, Any]) -> None:  # Any: see Handler
        if context.attempt == 1 and payload["first"]:
            defer(jobs, payload={"first": False}, queueing_lock="fold")
            raise TryAgainError("not yet")

    jobs.register("test.work", work)
    job_id = defer(jobs, payload={"first": True}, queueing_lock="fold")
    assert run_pending(jobs, include_scheduled=True) == 3
    assert look(jobs, job_id).state is JobState.SUCCEEDED


def test_jobs_with_the_same_lock_run_in_order(jobs: Jobs) -> None:
    seen: list[int] = []
    jobs.register("test.work", lambda context, payload: seen.append(payload["number"]))
    for number in range(5):
        defer(jobs, payload={"number": number}, lock="archive")
    run_pending(jobs)
    assert seen == [0, 1, 2, 3, 4]


def test_an_error_that_says_try_again_is_retried_later(jobs: Jobs) -> None:
    def work(context: JobContext, payload: dict[str, Any]) -> None:  # Any: see Handler
        if context.attempt < 3:
            raise TryAgainError("the drive is busy")

    jobs.register("test.work", work)
    job_id = defer(jobs)
    assert run_pending(jobs) == 1, "the next attempt is in the future"
    view = look(jobs, job_id)
    assert view.state is JobState.WAITING
    assert view.error is not None
    assert view.error["detail"] == "the drive is busy"
    assert run_pending(jobs, include_scheduled=True) == 2
    view = look(jobs, job_id)
    assert (view.state, view.attempts, view.error) == (JobState.SUCCEEDED, 3, None)


@pytest.mark.parametrize("error", [BadInputError("no"), DamagedError("flipped")])
def test_an_error_that_stays_fails_the_job_at_once(jobs: Jobs, error: Exception) -> None:
    def work(context: JobContext, payload: dict[str, Any]) -> None:  # Any: see Handler
        raise error

    jobs.register("test.work", work)
    job_id = defer(jobs)
    assert run_pending(jobs, include_scheduled=True) == 1
    view = look(jobs, job_id)
    assert view.state is JobState.FAILED
    assert view.error is not None
    assert view.error["detail"] == str(error)


def test_an_unforeseen_error_is_retried_and_its_words_stay_in_the_log(jobs: Jobs) -> None:
    def work(context: JobContext, payload: dict[str, Any]) -> None:  # Any: see Handler
        raise RuntimeError("password=hunter2")

    jobs.register("test.work", work, max_attempts=2)
    job_id = defer(jobs)
    with pytest.raises(RuntimeError):
        run_pending(jobs)
    assert look(jobs, job_id).state is JobState.WAITING
    run_pending(jobs, include_scheduled=True, raise_unforeseen=False)
    view = look(jobs, job_id)
    assert (view.state, view.attempts) == (JobState.FAILED, 2)
    assert "hunter2" not in str(view.error)
    assert "RuntimeError" in str(view.error)


def test_a_scheduled_job_waits_for_its_time(jobs: Jobs) -> None:
    jobs.register("test.work", lambda context, payload: None)
    defer(jobs, schedule_at=datetime.now(UTC) + timedelta(hours=1))
    assert run_pending(jobs) == 0
    assert run_pending(jobs, include_scheduled=True) == 1


def test_a_cancelled_job_never_starts_and_frees_its_queueing_lock(jobs: Jobs) -> None:
    seen: list[int] = []
    jobs.register("test.work", lambda context, payload: seen.append(payload["number"]))
    job_id = defer(jobs, payload={"number": 1}, queueing_lock="fold", schedule_at=datetime.now(UTC) + timedelta(days=1))
    with jobs.db.begin() as tx:
        assert jobs.cancel(tx, job_id)
        assert not jobs.cancel(tx, job_id)
    defer(jobs, payload={"number": 2}, queueing_lock="fold")
    run_pending(jobs)
    assert look(jobs, job_id).state is JobState.CANCELLED
    assert seen == [2]


def test_a_running_job_hears_that_it_was_cancelled(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.jobs.service._FENCE_EVERY", 0.0)

    def work(context: JobContext, payload: dict[str, Any]) -> None:  # Any: see Handler
        assert not context.should_stop()
        with jobs.db.begin() as tx:
            jobs.cancel(tx, context.job_id)
        context.raise_if_stopping()
        pytest.fail("it went on")

    jobs.register("test.work", work)
    job_id = defer(jobs)
    run_pending(jobs)
    assert look(jobs, job_id).state is JobState.CANCELLED


def test_progress_is_told_while_the_job_runs_and_kept_after_it(jobs: Jobs) -> None:
    told: list[JobView] = []

    def work(context: JobContext, payload: dict[str, Any]) -> None:  # Any: see Handler
        context.progress(done=1, total=4, unit="files", message="Copying.")
        told.append(look(jobs, context.job_id))
        context.progress(done=4)

    jobs.register("test.work", work)
    job_id = defer(jobs)
    run_pending(jobs)
    first, last = told[0].progress, look(jobs, job_id).progress
    assert (first.done, first.total, first.unit, first.message) == (1, 4, "files", "Copying.")
    assert (last.done, last.total, last.message) == (4, 4, "Copying.")
    assert last.rate is not None
    assert last.rate > 0


def test_many_words_of_progress_cost_few_writes(jobs: Jobs) -> None:
    def transactions() -> int:
        with jobs.db.begin() as tx:
            return int(tx.execute(text("SELECT CAST(CAST(pg_current_xact_id() AS text) AS bigint)")).scalar_one())

    def work(context: JobContext, payload: dict[str, Any]) -> None:  # Any: see Handler
        for number in range(5000):
            context.progress(done=number)

    jobs.register("test.work", work)
    defer(jobs)
    before = transactions()
    run_pending(jobs)
    assert 3 <= transactions() - before < 30


def test_an_attempt_that_was_taken_over_cannot_settle_the_job(jobs: Jobs) -> None:
    def work(context: JobContext, payload: dict[str, Any]) -> dict[str, Any]:  # Any: see Handler
        if context.attempt == 1:  # the worker sleeps so long that another one takes the job over
            assert jobs.run_job(context.job_id) is None
            return {"attempt": 1}
        return {"attempt": context.attempt}

    jobs.register("test.work", work)
    job_id = defer(jobs)
    run_pending(jobs)
    assert look(jobs, job_id).result == {"attempt": 2}


def test_a_job_that_is_over_is_not_run_again(jobs: Jobs) -> None:
    seen: list[int] = []
    jobs.register("test.work", lambda context, payload: seen.append(1))
    job_id = defer(jobs)
    run_pending(jobs)
    assert jobs.run_job(job_id) is None
    assert seen == [1]


def test_a_job_whose_workers_keep_dying_is_given_up(jobs: Jobs) -> None:
    jobs.register("test.work", lambda context, payload: pytest.fail("it ran"), max_attempts=3)
    job_id = defer(jobs)
    set_attempts(jobs, job_id, 3)
    run_pending(jobs)
    view = look(jobs, job_id)
    assert view.state is JobState.FAILED
    assert view.error is not None
    assert view.error["code"] == "job_abandoned"


def test_a_kind_of_another_release_waits_for_its_worker(jobs: Jobs) -> None:
    jobs.register("test.newer", lambda context, payload: None)
    job_id = defer(jobs, "test.newer")
    older = Jobs(jobs.db)
    run_pending(older)
    assert look(older, job_id).state is JobState.WAITING
    assert run_pending(jobs, include_scheduled=True) == 1
    assert look(jobs, job_id).state is JobState.SUCCEEDED


def test_the_jobs_of_a_dead_worker_are_offered_again(jobs: Jobs) -> None:
    jobs.register("test.work", lambda context, payload: None)
    job_id = defer(jobs, lock="archive")
    with jobs.db.begin() as tx:  # a worker takes the job, starts it and is killed
        worker = tx.execute(text("SELECT worker_id FROM procrastinate_register_worker_v1()")).scalar_one()
        taken = tx.execute(text("SELECT id FROM procrastinate_fetch_job_v2(NULL, :w)"), {"w": worker}).scalar_one()
        tx.execute(text("UPDATE jobs SET state = 'running', attempts = 1"))
    assert retry_stalled(jobs.db, stalled_after=60) == 0, "its heart may still beat"
    assert retry_stalled(jobs.db, stalled_after=0) == 1
    assert look(jobs, job_id).state is JobState.WAITING
    assert run_pending(jobs) == 1
    assert look(jobs, job_id).attempts == 2
    with jobs.db.begin() as tx, pytest.raises(Exception, match="Job was not found"):
        tx.execute(text("SELECT procrastinate_finish_job_v1(:id, 'succeeded', true)"), {"id": taken})


def test_finished_jobs_are_forgotten_after_a_while(jobs: Jobs) -> None:
    jobs.register("test.work", lambda context, payload: None)
    done, waiting = defer(jobs), defer(jobs, schedule_at=datetime.now(UTC) + timedelta(days=1))
    run_pending(jobs)
    assert forget_finished(jobs.db) == 0
    assert forget_finished(jobs.db, older_than=timedelta(0)) == 1
    with pytest.raises(JobNotFoundError):
        look(jobs, done)
    assert look(jobs, waiting).state is JobState.WAITING


def test_periodic_work_runs_when_due_and_survives_its_errors(jobs: Jobs) -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise RuntimeError("broken")

    jobs.register_periodic("test.tick", timedelta(hours=1), fail)
    assert jobs.run_periodic("test.tick")
    assert not jobs.run_periodic("test.tick")
    with jobs.db.begin() as tx:
        tx.execute(text("UPDATE periodic_runs SET started_at = started_at - interval '2 hours'"))
    assert jobs.run_periodic("test.tick")
    assert len(calls) == 2
    with jobs.db.begin() as tx:
        assert "RuntimeError" in str(tx.execute(text("SELECT error FROM periodic_runs")).scalar_one())


def test_periodic_work_never_overlaps_itself(jobs: Jobs) -> None:
    inner: list[bool] = []
    jobs.register_periodic("test.tick", 0.0, lambda: inner.append(jobs.run_periodic("test.tick")))
    assert jobs.run_periodic("test.tick")
    assert inner == [False]


def test_a_worker_runs_jobs_side_by_side_and_retries(jobs: Jobs) -> None:
    together = threading.Barrier(2, timeout=60)

    def work(context: JobContext, payload: dict[str, Any]) -> None:  # Any: see Handler
        if context.attempt == 1:
            together.wait()
            raise TryAgainError("once more")

    jobs.register("test.work", work, retry=RetryRule(first_wait=timedelta(0)))
    with working(jobs, concurrency=2):
        ids = [defer(jobs), defer(jobs)]
        views = [wait_until_over(jobs, job_id) for job_id in ids]
    assert [(view.state, view.attempts) for view in views] == [(JobState.SUCCEEDED, 2)] * 2


def test_a_stopping_worker_hands_a_long_job_on_without_costing_an_attempt(jobs: Jobs) -> None:
    started = threading.Event()

    def work(context: JobContext, payload: dict[str, Any]) -> None:  # Any: see Handler
        started.set()
        while context.attempt == 1 and not payload.get("quick"):
            time.sleep(0.01)
            context.raise_if_stopping()

    jobs.register("test.work", work)
    with working(jobs):
        job_id = defer(jobs)
        assert started.wait(60)
    view = look(jobs, job_id)
    assert (view.state, view.attempts) == (JobState.WAITING, 0)
    assert view.error is not None
    assert view.error["code"] == JobStoppedError.code
    with jobs.db.begin() as tx:
        tx.execute(text("UPDATE jobs SET payload = '{\"quick\": true}'"))
    assert run_pending(jobs) == 1
    assert look(jobs, job_id).state is JobState.SUCCEEDED


def test_a_worker_takes_only_its_queues(jobs: Jobs) -> None:
    jobs.register("test.work", lambda context, payload: None)
    jobs.register("test.tape", lambda context, payload: None, queue="store.tape")
    with working(jobs, queues=["default"]):
        tape, disk = defer(jobs, "test.tape"), defer(jobs)
        wait_until_over(jobs, disk)
    assert look(jobs, tape).state is JobState.WAITING


def test_a_worker_keeps_the_periodic_work_going(jobs: Jobs) -> None:
    ticked = threading.Event()
    jobs.register_periodic("test.tick", 0.05, ticked.set)
    with working(jobs):
        assert ticked.wait(60)


def test_kinds_are_registered_once_and_known_when_deferred(jobs: Jobs) -> None:
    jobs.register("test.work", lambda context, payload: None)
    with pytest.raises(ValueError, match="has a handler already"):
        jobs.register("test.work", lambda context, payload: None)
    with pytest.raises(TryAgainError, match="no handler"):
        defer(jobs, "test.unknown")


@given(attempt=st.integers(1, 200), limit=st.integers(1, 100), unforeseen=st.booleans())
def test_waits_grow_to_the_longest_and_end_with_the_last_attempt(attempt: int, limit: int, unforeseen: bool) -> None:
    rule = RetryRule(max_attempts=limit)
    error = RuntimeError("unforeseen") if unforeseen else TryAgainError("busy")
    wait = plan_retry(error, attempt, rule)
    if attempt >= limit:
        assert wait is None
    else:
        assert wait is not None
        assert rule.first_wait <= wait <= rule.longest_wait
        later = plan_retry(error, attempt + 1, RetryRule(max_attempts=limit + 2))
        assert later is not None
        assert later >= wait
