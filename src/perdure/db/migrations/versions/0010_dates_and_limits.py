"""Memberships in groups and the rules that lead to them have dates; roles say to whom they may be passed on."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Text, text
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("group_members", "claim_rules"):
        op.add_column(table, Column("starts_at", TIMESTAMP(timezone=True)))
        op.add_column(table, Column("ends_at", TIMESTAMP(timezone=True)))
        op.create_check_constraint("dates", table, "starts_at < ends_at")
    op.create_index(
        "ix_group_members_ends_at", "group_members", ["ends_at"], postgresql_where=text("ends_at IS NOT NULL")
    )
    op.add_column("grants", Column("pass_on", Text))
