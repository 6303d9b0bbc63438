"""Jobs of a killed worker go to the next one of its machine at once; a clock that was ahead holds nothing up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from perdure.db import Database
from perdure.jobs import JobContext, Jobs, JobState, JobView, Lifelines, run_worker
from perdure.jobs.worker import hasten_retries, retry_stalled, take_over

HOLD = """
import sys
from pathlib import Path
from perdure.jobs.lifelines import Lifelines

lines = Lifelines(Path(sys.argv[1]))
lines.hold_worker(int(sys.argv[2]))
print(lines.own_name(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def jobs(db: Database) -> Jobs:
    made = Jobs(db)
    made.register("test.work", lambda context, payload: None)
    return made


@contextmanager
def living(folder: Path, worker: int) -> Iterator[str]:
    """Another process that holds the worker's lifeline and its own, killed in the end; its name."""
    command = [sys.executable, "-c", HOLD, str(folder), str(worker)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().decode().strip()
        finally:
            process.kill()


def take(jobs: Jobs) -> tuple[UUID, int]:
    """Queue a job and let a worker take and start it; the job and the worker's number."""
    with jobs.db.begin() as tx:
        job_id = jobs.defer(tx, "test.work", {})
    with jobs.db.begin() as tx:
        worker: int = tx.execute(text("SELECT worker_id FROM procrastinate_register_worker_v1()")).scalar_one()
        tx.execute(text("SELECT id FROM procrastinate_fetch_job_v2(NULL, :worker)"), {"worker": worker})
        tx.execute(text("UPDATE jobs SET state = 'running', attempts = 1, started_at = now()"))
    return job_id, worker


def look(jobs: Jobs, job_id: UUID) -> JobView:
    with jobs.db.begin() as tx:
        return jobs.get(tx, job_id)


def test_a_dead_worker_is_told_once_and_a_living_one_never(tmp_path: Path) -> None:
    ours = Lifelines(tmp_path)
    ours.hold_worker(3)
    with living(tmp_path, 7):
        with ours.dead_workers() as dead:
            assert dead == []
        with Lifelines(tmp_path).dead_workers() as dead:
            assert dead == [], "another object of the same process is no death"
    with pytest.raises(ZeroDivisionError), ours.dead_workers():
        1 / 0  # noqa: B018  # as when the database is away
    with ours.dead_workers() as dead:
        assert dead == [7]
    with ours.dead_workers() as dead:
        assert dead == []


def test_a_process_is_known_to_have_ended_by_its_name(tmp_path: Path) -> None:
    ours = Lifelines(tmp_path)
    with living(tmp_path, 7) as name:
        assert not ours.has_ended(name)
        assert not ours.has_ended(ours.own_name())
    assert ours.has_ended(name)
    assert ours.own_name() == ours.own_name()
    assert not ours.has_ended("elsewhere.process-1"), "nobody knows"
    os.utime(tmp_path / name, (0, 0))
    assert Lifelines(tmp_path).own_name() != name
    assert not (tmp_path / name).exists(), "what nobody asks for any more stays for ever"


def test_the_file_of_another_machine_is_not_judged(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.worker-7").touch()
    (tmp_path / ".7-being-made").touch()
    with Lifelines(tmp_path).dead_workers() as dead:
        assert dead == []


def test_jobs_of_the_dead_are_taken_over_and_those_of_the_living_stay(jobs: Jobs, tmp_path: Path) -> None:
    job_id, worker = take(jobs)
    ours = Lifelines(tmp_path)
    with living(tmp_path, worker):
        assert take_over(jobs.db, ours) == 0
        assert look(jobs, job_id).state is JobState.RUNNING
    assert take_over(jobs.db, ours) == 1
    assert look(jobs, job_id).state is JobState.WAITING
    with jobs.db.begin() as tx:
        assert tx.execute(text("SELECT count(*) FROM procrastinate_workers")).scalar_one() == 0


def test_a_new_worker_goes_on_with_what_the_dead_one_had(jobs: Jobs, tmp_path: Path) -> None:
    job_id, worker = take(jobs)
    with living(tmp_path, worker):
        pass
    done, stop = threading.Event(), threading.Event()

    def work(context: JobContext, payload: dict[str, Any]) -> None:  # Any: see jobs.Handler
        done.set()

    again = Jobs(jobs.db)
    again.register("test.work", work)
    options = {"stop_event": stop, "grace": 5.0, "stalled_after": 3600.0, "lifelines": Lifelines(tmp_path)}
    thread = threading.Thread(target=run_worker, args=(again,), kwargs=options)
    thread.start()
    try:
        assert done.wait(30), "the job waited for the heartbeat of the dead"
    finally:
        stop.set()
        thread.join()
    assert look(jobs, job_id).attempts == 2


def test_a_heartbeat_from_a_clock_that_was_ahead_keeps_no_job(jobs: Jobs) -> None:
    job_id, _ = take(jobs)
    with jobs.db.begin() as tx:
        tx.execute(text("UPDATE procrastinate_workers SET last_heartbeat = now() + interval '1 year'"))
    assert retry_stalled(jobs.db, stalled_after=20) == 1
    assert look(jobs, job_id).state is JobState.WAITING


def test_periodic_work_goes_on_after_the_clock_was_set_back(jobs: Jobs) -> None:
    runs: list[int] = []
    jobs.register_periodic("test.tick", timedelta(hours=1), lambda: runs.append(1))
    assert jobs.run_periodic("test.tick")
    assert not jobs.run_periodic("test.tick")
    with jobs.db.begin() as tx:
        tx.execute(text("UPDATE periodic_runs SET started_at = started_at + interval '1 year'"))
    assert jobs.run_periodic("test.tick")
    assert len(runs) == 2


def test_a_retry_from_a_clock_that_was_ahead_does_not_wait_for_it(jobs: Jobs) -> None:
    with jobs.db.begin() as tx:
        planned = jobs.defer(tx, "test.work", {}, queueing_lock="planned")
        tx.execute(text("UPDATE procrastinate_jobs SET scheduled_at = now() + interval '2 years'"))
    retried, _ = take(jobs)
    with jobs.db.begin() as tx:
        tx.execute(
            text(
                "UPDATE procrastinate_jobs SET status = 'todo', scheduled_at = now() + interval '1 year' "
                "WHERE status = 'doing'"
            )
        )
        tx.execute(text("UPDATE jobs SET state = 'waiting' WHERE id = :id"), {"id": retried})
        tx.execute(text("UPDATE jobs SET started_at = NULL WHERE id = :id"), {"id": planned})
    assert hasten_retries(jobs) == 1
    with jobs.db.begin() as tx:
        left = tx.execute(text("SELECT count(*) FROM procrastinate_jobs WHERE scheduled_at > now()")).scalar_one()
    assert left == 1, "an appointment that was meant stays"
