"""How many times something was taken out of a part: a counter that orders what the log of a staged part says."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("parts", Column("removals", BigInteger, nullable=False, server_default="0"))
