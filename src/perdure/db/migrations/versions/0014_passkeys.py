"""Passkeys: keys on devices of people, each with a name and a count of its uses."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, DateTime, ForeignKey, LargeBinary, Text, UniqueConstraint, Uuid

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "passkeys",
        Column("id", Uuid, primary_key=True),
        Column("identity_id", Uuid, ForeignKey("identities.id"), nullable=False),
        Column("credential_id", LargeBinary, nullable=False, unique=True),
        Column("public_key", LargeBinary, nullable=False),
        Column("sign_count", BigInteger, nullable=False),
        Column("is_synced", Boolean, nullable=False),
        Column("name", Text, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False),
        Column("last_used_at", DateTime(timezone=True)),
        UniqueConstraint("identity_id", "name"),
    )
