"""Links that show an archive's record as it was when they were made."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("links", Column("pinned_revision", BigInteger))
