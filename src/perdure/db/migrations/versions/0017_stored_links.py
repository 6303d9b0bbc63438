"""Links stand in the stores, too: which change of one is there, and a kind of object for them."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, text

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("links", Column("change", BigInteger, nullable=False, server_default="1"))
    op.add_column("links", Column("stored_change", BigInteger, nullable=False, server_default="0"))
    op.create_index("ix_links_unstored", "links", ["archive_id"], postgresql_where=text("change > stored_change"))
    op.drop_constraint("kind", "objects", type_="check")
    op.create_check_constraint("kind", "objects", "kind IN ('head', 'part', 'log', 'registry', 'links')")
