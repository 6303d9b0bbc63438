"""The work of this room's life side that runs behind: its jobs, and what is done again and again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from perdure.archives.exporting import (
    RENEW_JOB,
    export_events,
    export_registry,
    keep_exports,
    keep_position,
    renew_registry,
)
from perdure.archives.heads import Heads
from perdure.archives.lifetime import warn_of_ends
from perdure.archives.records import Context, forget_answers
from perdure.archives.registering import COPIES_JOB, REGISTER_JOB, keep_copies, mend_closed, register_identifier
from perdure.archives.reporting import count_usage
from perdure.archives.withdrawing import CLEAR_JOB, WITHDRAW_JOB, carry_out_withdrawal, clear
from perdure.jobs import JobContext, Json


def register_life_jobs(ctx: Context, heads: Heads) -> None:
    """Name the handlers to the queue; once for each process."""

    def withdraw(job: JobContext, payload: dict[str, Any]) -> dict[str, Json]:  # Any: see jobs.Handler
        return carry_out_withdrawal(ctx, heads, job, UUID(payload["archive"]))

    def clear_content(job: JobContext, payload: dict[str, Any]) -> dict[str, Json]:  # Any: see jobs.Handler
        return clear(ctx, heads, job, UUID(payload["archive"]))

    def register(job: JobContext, payload: dict[str, Any]) -> dict[str, Json]:  # Any: see jobs.Handler
        return register_identifier(ctx, heads, UUID(payload["archive"]))

    def place(job: JobContext, payload: dict[str, Any]) -> dict[str, Json]:  # Any: see jobs.Handler
        return keep_copies(ctx, job, UUID(payload["archive"]))

    def renew(job: JobContext, payload: dict[str, Any]) -> dict[str, Json]:  # Any: see jobs.Handler
        return {"version": renew_registry(ctx)}

    ctx.jobs.register(RENEW_JOB, renew, max_attempts=100)
    ctx.jobs.register(REGISTER_JOB, register, max_attempts=100)
    ctx.jobs.register(COPIES_JOB, place, max_attempts=100)
    ctx.jobs.register(WITHDRAW_JOB, withdraw)
    ctx.jobs.register(CLEAR_JOB, clear_content)
    ctx.jobs.register_periodic("archives.fold_heads", timedelta(seconds=30), heads.fold_quiet)
    ctx.jobs.register_periodic("archives.mend_closed", timedelta(hours=1), lambda: mend_closed(ctx))
    ctx.jobs.register_periodic("archives.warn_of_ends", timedelta(hours=6), lambda: warn_of_ends(ctx))
    ctx.jobs.register_periodic("archives.forget_answers", timedelta(hours=1), lambda: forget_answers(ctx))
    ctx.jobs.register_periodic("archives.count_usage", timedelta(hours=3), lambda: count_usage(ctx))
    ctx.jobs.register_periodic("archives.export_registry", timedelta(minutes=1), lambda: export_registry(ctx))
    ctx.jobs.register_periodic("archives.keep_exports", timedelta(hours=6), lambda: keep_exports(ctx))
    ctx.jobs.register_periodic("archives.keep_position", timedelta(minutes=1), lambda: keep_position(ctx))
    ctx.jobs.register_periodic("archives.export_events", timedelta(minutes=5), lambda: export_events(ctx))
