"""The outbox and the log in one table: an event without a number is committed and waits for the sequencer."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Identity, Index, LargeBinary, Table, Text, UniqueConstraint, Uuid, text
from sqlalchemy.dialects.postgresql import JSON, TIMESTAMP

from perdure.db import metadata

_moment = TIMESTAMP(timezone=True)

events = Table(
    "events",
    metadata,
    Column("id", Uuid, primary_key=True),
    # The order of recording; inside one subject the order of commits, as EventLog.record holds a lock until then.
    Column("position", BigInteger, Identity(always=True), nullable=False),
    Column("recorded_at", _moment, nullable=False),
    Column("type", Text, nullable=False),
    Column("subject", Uuid),
    Column("actor_kind", Text, nullable=False),
    Column("actor_id", Uuid),
    # json keeps the text that was digested; jsonb would rewrite 1e22 into other characters and break the chain.
    Column("data", JSON, nullable=False),
    Column("number", BigInteger),
    Column("numbered_at", _moment),
    Column("chain", LargeBinary),
    UniqueConstraint("number"),
)

Index("ix_events_pending", events.c.position, postgresql_where=text("number IS NULL"))
Index("ix_events_subject_number", events.c.subject, events.c.number)
