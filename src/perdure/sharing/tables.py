"""This domain's tables. Links are in the stores; the others come from the database's backup after a rebuild."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP

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
    Column("change", BigInteger, nullable=False, server_default="1"),  # counts what the stores are to know
    Column("stored_change", BigInteger, nullable=False, server_default="0"),  # up to which they know it
    UniqueConstraint("digest"),
    CheckConstraint("kind IN ('read', 'drop', 'metadata', 'review')", name="kind"),
    CheckConstraint("download_limit > 0", name="download_limit"),
)

Index("ix_links_archive_id", links.c.archive_id, links.c.id)
Index("ix_links_unstored", links.c.archive_id, postgresql_where=text("change > stored_change"))

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

# Who was invited by mail, to be an identity of the organisation or to a role, and has not come yet or came lately.
invitations = Table(
    "invitations",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("address", Text, nullable=False),
    Column("organisation_id", Uuid, nullable=False),  # where an identity would be made
    Column("on_kind", Text),
    Column("on_id", Uuid),
    Column("label", Text, nullable=False),  # what it is on, as it was called then
    Column("role", Text),
    Column("role_until", _moment),
    Column("requires", ARRAY(Text), nullable=False, server_default="{}"),
    Column("note", Text, nullable=False),
    Column("by_manager", Boolean, nullable=False),  # who invited manages the organisation
    Column("quota_bytes", BigInteger),
    Column("invited_by", Uuid, nullable=False),
    Column("proofs", ARRAY(Text), nullable=False, server_default="{}"),  # of the login of who invited
    Column("entitlements", ARRAY(Text), nullable=False, server_default="{}"),  # which it brought
    Column("invited_at", _moment, nullable=False),
    Column("sent_at", _moment, nullable=False),
    Column("sent", Integer, nullable=False),
    Column("expires_at", _moment, nullable=False),
    Column("revoked_at", _moment),
    Column("accepted_at", _moment),
    Column("accepted_by", Uuid),
    UniqueConstraint("digest"),
    CheckConstraint("on_kind IN ('archive', 'account', 'organisation')", name="on_kind"),
    CheckConstraint("num_nonnulls(on_kind, on_id, role) IN (0, 3)", name="role"),
    CheckConstraint("(accepted_at IS NULL) = (accepted_by IS NULL)", name="accepted"),
    Index("ix_invitations_on_id", "on_id"),
    Index("ix_invitations_organisation_id", "organisation_id"),
    Index("ix_invitations_invited_by", "invited_by", "sent_at"),
)
