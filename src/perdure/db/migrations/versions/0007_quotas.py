"""Quotas of organisations and in files, requests for other quotas, and what each account used day by day."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Date, ForeignKey, Text, Uuid, text
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = TIMESTAMP(timezone=True)
    op.add_column("organisations", Column("quota_bytes", BigInteger))
    op.create_check_constraint("quota", "organisations", "quota_bytes >= 0")
    op.add_column("accounts", Column("quota_files", BigInteger))
    op.create_check_constraint("quota_files", "accounts", "quota_files >= 0")
    op.create_table(
        "quota_requests",
        Column("id", Uuid, primary_key=True),
        Column("account_id", Uuid, ForeignKey("accounts.id"), nullable=False),
        Column("asked_bytes", BigInteger, nullable=False),
        Column("reason", Text, nullable=False),
        Column("state", Text, nullable=False),
        Column("asked_by", Uuid),
        Column("asked_at", moment, nullable=False),
        Column("given_bytes", BigInteger),
        Column("decided_by", Uuid),
        Column("decided_at", moment),
        Column("note", Text, nullable=False, server_default=""),
    )
    op.create_index("ix_quota_requests_account_id", "quota_requests", ["account_id"])
    pending = text("state = 'pending'")
    op.create_index(
        "uq_quota_requests_pending", "quota_requests", ["account_id"], unique=True, postgresql_where=pending
    )
    op.create_check_constraint("state", "quota_requests", "state IN ('pending', 'approved', 'refused')")
    op.create_check_constraint("decided", "quota_requests", "(state = 'pending') = (decided_at IS NULL)")
    op.create_check_constraint("given", "quota_requests", "(state = 'approved') = (given_bytes IS NOT NULL)")
    op.create_check_constraint("bytes", "quota_requests", "asked_bytes >= 0 AND given_bytes >= 0")
    op.create_table(
        "usage_snapshots",
        Column("day", Date, primary_key=True),
        Column("account_id", Uuid, primary_key=True),
        Column("organisation_id", Uuid, nullable=False),
        Column("kind", Text, nullable=False),
        Column("byte_count", BigInteger, nullable=False),
        Column("file_count", BigInteger, nullable=False),
        Column("archives_open", BigInteger, nullable=False),
        Column("archives_closed", BigInteger, nullable=False),
        Column("copy_bytes", BigInteger, nullable=False),
    )
    op.create_index("ix_usage_snapshots_organisation_id", "usage_snapshots", ["organisation_id", "day"])
