"""Service accounts with a responsible person; tokens that were used from somewhere, and that take over from others."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, ForeignKey, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "service_accounts",
        Column("identity_id", Uuid, ForeignKey("identities.id"), primary_key=True),
        Column("responsible_id", Uuid, ForeignKey("identities.id"), nullable=False, index=True),
        Column("purpose", Text, nullable=False),
        Column("verbs", ARRAY(Text), nullable=False),
        Column("archives", ARRAY(Uuid)),
        Column("addresses", ARRAY(Text), nullable=False, server_default="{}"),
        Column("created_at", TIMESTAMP(timezone=True), nullable=False),
    )
    op.add_column("tokens", Column("last_used_from", Text, nullable=False, server_default=""))
    op.add_column("tokens", Column("replaces", Uuid, ForeignKey("tokens.id")))
    told = text("replaces IS NOT NULL")
    op.create_index("ix_tokens_replaces", "tokens", ["replaces"], postgresql_where=told)
