"""Sessions remember when their owner last showed who he is; of those that exist nobody can tell."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", Column("proven_at", TIMESTAMP(timezone=True)))
