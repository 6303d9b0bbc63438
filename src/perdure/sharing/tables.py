"""This domain's tables. They are in no store: after a rebuild they come from the database's backup."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP

from perdure.db import metadata

_moment = TIMESTAMP(timezone=True)

links = Table(
    "links",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("archive_id", Uuid, nullable=False),
    Column("path", LargeBinary, nullable=False),  # empty: the whole archive
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("made_by", Uuid),
    Column("created_at", _moment, nullable=False),
    Column("expires_at", _moment),
    Column("password", Text),  # what identity keeps of it
    Column("download_limit", BigInteger),
    Column("only_when_closed", Boolean, nullable=False, server_default="false"),
    Column("pinned_revision", BigInteger),  # of the archive's record, as it was when the link was made
    Column("revoked_at", _moment),
    Column("uses", BigInteger, nullable=False, server_default="0"),
    Column("downloads", BigInteger, nullable=False, server_default="0"),
    Column("last_used_at", _moment),
    UniqueConstraint("digest"),
    CheckConstraint("kind IN ('read', 'drop', 'metadata', 'review')", name="kind"),
    CheckConstraint("download_limit > 0", name="download_limit"),
)

Index("ix_links_archive_id", links.c.archive_id, links.c.id)

# What each link was used for in a day (UTC), until the event of that day is written.
link_days = Table(
    "link_days",
    metadata,
    Column("link_id", Uuid, ForeignKey("links.id"), nullable=False),
    Column("day", Date, nullable=False),
    Column("uses", BigInteger, nullable=False),
    Column("downloads", BigInteger, nullable=False),
    Column("is_told", Boolean, nullable=False, server_default="false"),
    PrimaryKeyConstraint("link_id", "day"),
)

Index("ix_link_days_untold", link_days.c.day, postgresql_where=text("NOT is_told"))

# Downloads by links with a limit that were counted when they began: whoever began one may go on with it.
link_starts = Table(
    "link_starts",
    metadata,
    Column("link_id", Uuid, ForeignKey("links.id"), nullable=False),
    Column("key", LargeBinary, nullable=False),  # a digest of what, and of from where
    Column("at", _moment, nullable=False),
    PrimaryKeyConstraint("link_id", "key"),
)
