"""How much work waits, how long, and how the periodic work goes."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class QueueMeasures:
    """The jobs of one kind that are not over. `scheduled` ones wait for their time; `oldest` is how many seconds the
    one that waits longest could have been running."""

    kind: str
    waiting: int
    scheduled: int
    running: int
    oldest: float


@dataclass(frozen=True, slots=True)
class PeriodicMeasures:
    """When a periodic kind last began, in seconds ago, and whether that run failed."""

    kind: str
    age: float
    is_failing: bool


def measure_queue(tx: Connection) -> list[QueueMeasures]:
    """Every kind of which a job is not over."""
    return [
        QueueMeasures(row.kind, row.waiting, row.scheduled, row.running, max(0.0, row.oldest))
        for row in tx.execute(_QUEUE)
    ]


def measure_periodic(tx: Connection) -> list[PeriodicMeasures]:
    """Every periodic kind that ever ran."""
    return [PeriodicMeasures(row.kind, max(0.0, row.age), row.is_failing) for row in tx.execute(_PERIODIC)]


_QUEUE = text(
    """
    WITH unfinished AS (
        SELECT job.kind, job.state,
            coalesce(queued.scheduled_at > clock_timestamp(), false) AS is_scheduled,
            extract(epoch FROM clock_timestamp() - coalesce(queued.scheduled_at, job.created_at))::float8 AS age
        FROM jobs job LEFT JOIN procrastinate_jobs queued ON queued.id = job.queue_id
        WHERE job.finished_at IS NULL
    )
    SELECT kind,
        count(*) FILTER (WHERE state = 'waiting' AND NOT is_scheduled) AS waiting,
        count(*) FILTER (WHERE state = 'waiting' AND is_scheduled) AS scheduled,
        count(*) FILTER (WHERE state = 'running') AS running,
        coalesce(max(age) FILTER (WHERE state = 'waiting' AND NOT is_scheduled), 0) AS oldest
    FROM unfinished GROUP BY kind ORDER BY kind
    """
)
_PERIODIC = text(
    """
    SELECT kind, extract(epoch FROM clock_timestamp() - started_at)::float8 AS age,
        coalesce(jsonb_typeof(error) = 'object', false) AS is_failing -- without an error it is JSON's null
    FROM periodic_runs ORDER BY kind
    """
)
