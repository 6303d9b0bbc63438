"""Identities end: merged into another, or erased; they stay in history."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, ForeignKey, Text, Uuid
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    kept = ForeignKey("identities.id", name="fk_identities_merged_into")
    op.add_column("identities", Column("merged_into", Uuid, kept))
    op.add_column("identities", Column("ended_at", TIMESTAMP(timezone=True)))
    op.add_column("identities", Column("ended_by", Uuid))
    op.add_column("identities", Column("ended_reason", Text))
    op.create_index("ix_identities_merged_into", "identities", ["merged_into"])
    op.drop_constraint("ck_identities_state", "identities")
    op.create_check_constraint("state", "identities", "state IN ('active', 'disabled', 'merged', 'erased')")
    op.create_check_constraint("merged", "identities", "(state = 'merged') = (merged_into IS NOT NULL)")
