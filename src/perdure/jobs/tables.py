"""Jobs as rows; the queue's own tables come with the library's schema."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, Table, Text, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from perdure.db import metadata

jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("payload", JSONB, nullable=False),
    Column("thing", Uuid),
    Column("requested_by", Uuid),
    Column("queue_id", BigInteger, nullable=False),  # of the queue, which forgets the work when it is done
    Column("state", Text, nullable=False),
    Column("progress", JSONB, nullable=False, server_default=text("'{}'")),
    Column("result", JSONB),
    Column("error", JSONB),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    Column("started_at", TIMESTAMP(timezone=True)),
    Column("finished_at", TIMESTAMP(timezone=True)),
    CheckConstraint("state IN ('waiting', 'running', 'succeeded', 'failed', 'cancelled')", name="state"),
    CheckConstraint(
        "(finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled'))", name="finished_when_final"
    ),
    CheckConstraint("attempts >= 0", name="attempts"),
)
Index("ix_jobs_thing_id", jobs.c.thing, jobs.c.id)
Index("ix_jobs_finished_at", jobs.c.finished_at)

periodic_runs = Table(
    "periodic_runs",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("started_at", TIMESTAMP(timezone=True), nullable=False),
    Column("finished_at", TIMESTAMP(timezone=True)),
    Column("error", JSONB),
)
