"""Archives are handed over: offers, until they are answered."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Boolean, Column, ForeignKey, Text, Uuid, text
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = TIMESTAMP(timezone=True)
    op.create_table(
        "transfers",
        Column("id", Uuid, primary_key=True),
        Column("archive_id", Uuid, ForeignKey("archives.id"), nullable=False),
        Column("from_id", Uuid, nullable=False),
        Column("to_id", Uuid, nullable=False),
        Column("keeps_account", Boolean, nullable=False),
        Column("state", Text, nullable=False),
        Column("offered_at", moment, nullable=False),
        Column("expires_at", moment, nullable=False),
        Column("decided_at", moment),
    )
    known = "state IN ('pending', 'accepted', 'declined', 'taken_back')"
    op.create_check_constraint("state_known", "transfers", known)
    op.create_check_constraint("decided", "transfers", "(state = 'pending') = (decided_at IS NULL)")
    for column in ("from_id", "to_id"):
        op.create_index(f"ix_transfers_{column}", "transfers", [column])
    pending = text("state = 'pending'")
    op.create_index("uq_transfers_pending", "transfers", ["archive_id"], unique=True, postgresql_where=pending)
