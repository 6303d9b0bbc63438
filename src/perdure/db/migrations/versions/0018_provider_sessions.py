"""Sessions and tokens remember the session at a provider in which they began, so that they end with it."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, LargeBinary, Text

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("sessions", "tokens"):
        op.add_column(table, Column("provider", Text))
        op.add_column(table, Column("provider_subject", LargeBinary))
        op.add_column(table, Column("provider_session", LargeBinary))
        op.create_index(f"ix_{table}_provider_subject", table, ["provider_subject"])
        op.create_index(f"ix_{table}_provider_session", table, ["provider_session"])
