"""Links: secrets that open an archive, a folder or a file of it, and what they were used for."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Date, ForeignKey, LargeBinary, Text, Uuid, text
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = TIMESTAMP(timezone=True)
    op.create_table(
        "links",
        Column("id", Uuid, primary_key=True),
        Column("digest", LargeBinary, nullable=False),
        Column("archive_id", Uuid, nullable=False),
        Column("path", LargeBinary, nullable=False),
        Column("kind", Text, nullable=False),
        Column("name", Text, nullable=False),
        Column("made_by", Uuid),
        Column("created_at", moment, nullable=False),
        Column("expires_at", moment),
        Column("password", Text),
        Column("download_limit", BigInteger),
        Column("only_when_closed", Boolean, nullable=False, server_default="false"),
        Column("revoked_at", moment),
        Column("uses", BigInteger, nullable=False, server_default="0"),
        Column("downloads", BigInteger, nullable=False, server_default="0"),
        Column("last_used_at", moment),
    )
    op.create_unique_constraint("uq_links_digest", "links", ["digest"])
    op.create_check_constraint("kind", "links", "kind IN ('read', 'drop', 'metadata', 'review')")
    op.create_check_constraint("download_limit", "links", "download_limit > 0")
    op.create_index("ix_links_archive_id", "links", ["archive_id", "id"])
    op.create_table(
        "link_days",
        Column("link_id", Uuid, ForeignKey("links.id"), primary_key=True),
        Column("day", Date, primary_key=True),
        Column("uses", BigInteger, nullable=False),
        Column("downloads", BigInteger, nullable=False),
        Column("is_told", Boolean, nullable=False, server_default="false"),
    )
    op.create_index("ix_link_days_untold", "link_days", ["day"], postgresql_where=text("NOT is_told"))
    op.create_table(
        "link_starts",
        Column("link_id", Uuid, ForeignKey("links.id"), primary_key=True),
        Column("key", LargeBinary, primary_key=True),
        Column("at", moment, nullable=False),
    )
