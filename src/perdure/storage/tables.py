"""Which stores there are, which objects, and which object lies in which store in which state."""

from __future__ import annotations

from sqlalchemy import TIMESTAMP, BigInteger, CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from perdure.db import metadata

stores = Table(
    "stores",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("medium", Text, nullable=False),
    Column("location", Text, nullable=False),
    Column("abilities", JSONB, nullable=False),
)

objects = Table(
    "objects",
    metadata,
    Column("object_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("archive_id", Uuid, index=True),
    Column("version", Integer, nullable=False),
    Column("inventory_digest", Text, nullable=False),
    Column("byte_count", BigInteger, nullable=False),
    CheckConstraint("kind IN ('head', 'part', 'log', 'registry', 'links')", name="kind"),
    CheckConstraint("version >= 1", name="version"),
)

copies = Table(
    "copies",
    metadata,
    Column("object_id", Text, ForeignKey("objects.object_id", ondelete="CASCADE"), primary_key=True),
    Column("store_id", Uuid, ForeignKey("stores.id"), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("written_at", TIMESTAMP(timezone=True)),
    Column("verified_at", TIMESTAMP(timezone=True)),
    Column("evidence", JSONB, nullable=False),
    CheckConstraint("state IN ('writing', 'written', 'verified', 'suspect', 'lost')", name="state"),
    CheckConstraint("state <> 'verified' OR verified_at IS NOT NULL", name="verified_when"),
    Index(None, "store_id", "verified_at"),
)
