"""The outbox and the log in one table: an event without a number is committed and waits for the sequencer."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Identity, Index, LargeBinary, Table, Text, UniqueConstraint, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY, JSON, TIMESTAMP

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
    # The ids in the data, to search by; NULL where there are none, as of the many events of files.
    Column("about", ARRAY(Uuid)),
    Column("number", BigInteger),
    Column("numbered_at", _moment),
    Column("chain", LargeBinary),
    UniqueConstraint("number"),
)

Index("ix_events_pending", events.c.position, postgresql_where=text("number IS NULL"))
Index("ix_events_subject_number", events.c.subject, events.c.number)

# What is numbered is searched: an index of it costs those nothing who record, but the one who numbers.
_numbered = text("number IS NOT NULL")
Index("ix_events_type_number", events.c.type, events.c.number, postgresql_where=_numbered)
Index("ix_events_actor_number", events.c.actor_id, events.c.number, postgresql_where=_numbered)
Index("ix_events_about", events.c.about, postgresql_using="gin", postgresql_where=text("about IS NOT NULL"))
Index("ix_events_recorded_at", events.c.recorded_at, postgresql_using="brin")
