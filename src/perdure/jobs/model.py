"""Jobs as values, and the rules of trying again: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias
from uuid import UUID

from perdure.kernel.errors import ErrorKind, PerdureError

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


class JobState(StrEnum):
    """`waiting` includes waiting for another attempt; the last three are final."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is: `done` of `total` in `unit` (`files`, `bytes`), units per second, a sentence for people."""

    done: int | None = None
    total: int | None = None
    unit: str | None = None
    message: str | None = None
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class JobView:
    """One job as others may see it; `error` holds code, title, detail and next_step of the last failure."""

    id: UUID
    kind: str
    thing: UUID | None
    requested_by: UUID | None
    state: JobState
    progress: Progress
    result: Mapping[str, Json] | None
    error: Mapping[str, Json] | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How often and how soon a job is tried again; the wait doubles each time up to the longest."""

    max_attempts: int = 10
    first_wait: timedelta = field(default=timedelta(seconds=2))
    longest_wait: timedelta = field(default=timedelta(minutes=15))


def plan_retry(error: BaseException, attempt: int, rule: RetryRule) -> timedelta | None:
    """How long to wait before the next attempt, or None when the job has failed for good.

    Only errors that say "try again", and those nobody foresaw, are worth another attempt: a caller's mistake or
    damaged data will be the same next time.
    """
    if isinstance(error, PerdureError) and error.kind not in (ErrorKind.TRY_AGAIN, ErrorKind.INTERNAL):
        return None
    if attempt >= rule.max_attempts:
        return None
    doubled: timedelta = rule.first_wait * 2 ** min(attempt - 1, 30)
    return min(doubled, rule.longest_wait)


def describe_error(error: BaseException) -> dict[str, Json]:
    """An error as a job keeps it. The words of an unforeseen error stay in the log: they may hold secrets."""
    if isinstance(error, PerdureError):
        return {"code": error.code, "title": error.title, "detail": error.detail, "next_step": error.next_step}
    return {
        "code": PerdureError.code,
        "title": PerdureError.title,
        "detail": f"An unforeseen error of the kind {type(error).__name__}; the worker's log has the details.",
        "next_step": PerdureError.next_step,
    }
