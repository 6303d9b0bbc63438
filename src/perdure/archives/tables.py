"""This domain's tables. The stores are the truth (D2); all here but uploads, approvals and notices rebuilds."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Date,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from perdure.db import metadata

_moment = TIMESTAMP(timezone=True)

profiles = Table(
    "profiles",
    metadata,
    Column("name", Text, primary_key=True),
    Column("contract", JSONB, nullable=False),
    Column("offered", Boolean, nullable=False, server_default="true"),
    Column("ordinal", Integer, nullable=False, server_default="0"),
)

archives = Table(
    "archives",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("organisation_id", Uuid, nullable=False),
    Column("account_id", Uuid, nullable=False),
    Column("parent_id", Uuid, ForeignKey("archives.id")),
    Column("state", Text, nullable=False),
    Column("profile", JSONB, nullable=False),
    Column("description", JSONB, nullable=False),
    Column("folded", Text, nullable=False, server_default=""),
    Column("access", Text, nullable=False),
    Column("embargo_until", Date),
    Column("keep_until", Date, nullable=False),
    Column("opened_at", _moment, nullable=False),
    Column("opened_by", Uuid),
    Column("closed_at", _moment),
    Column("revision", BigInteger, nullable=False),
    Column("head_version", Integer, nullable=False, server_default="0"),
    # How far the changes of the record (by revision) and of the metadata (by sequence) are in the journal and the head.
    Column("journalled", BigInteger, nullable=False, server_default="0"),
    Column("metadata_journalled", BigInteger, nullable=False, server_default="0"),
    Column("head_revision", BigInteger, nullable=False, server_default="0"),
    Column("metadata_sequence", BigInteger, nullable=False, server_default="0"),
    Column("metadata_folded", BigInteger, nullable=False, server_default="0"),
    Column("changed_at", _moment, nullable=False),
    Column("close_job", Uuid),
    Column("identifier", Text, unique=True),
    Column("identifier_state", Text),
    Column("statement", JSONB),
    Column("receipt", JSONB),
    Column("tombstone", JSONB),
    CheckConstraint("state IN ('open','closing','closed','withdrawn','discarded')", name="state_known"),
    CheckConstraint("access IN ('private','embargoed','public')", name="access_known"),
    CheckConstraint("access <> 'embargoed' OR embargo_until IS NOT NULL", name="embargo_has_end"),
    CheckConstraint("state NOT IN ('closed','withdrawn') OR closed_at IS NOT NULL", name="closed_has_time"),
    Index("ix_archives_account_id", "account_id", "id"),
    Index("ix_archives_parent_id", "parent_id"),
)

parts = Table(
    "parts",
    metadata,
    Column("archive_id", Uuid, ForeignKey("archives.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("id", Uuid, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("assigned_files", Integer, nullable=False, server_default="0"),  # with reservations; never shrinks
    Column("assigned_bytes", BigInteger, nullable=False, server_default="0"),
    Column("file_count", Integer, nullable=False, server_default="0"),
    Column("byte_count", BigInteger, nullable=False, server_default="0"),
    Column("removals", BigInteger, nullable=False, server_default="0"),  # orders what its log says of one path
    Column("inventory_digest", Text),
    Column("manifest_digest", Text),
    Column("sealed_at", _moment),
    CheckConstraint("state IN ('filling','full','sealing','sealed')", name="state_known"),
    CheckConstraint("state <> 'sealed' OR inventory_digest IS NOT NULL", name="sealed_has_digest"),
)

FILE_PARTITIONS = 16

# Partitioned by hash of the archive: 260 million rows a year at a facility.
files = Table(
    "files",
    metadata,
    Column("archive_id", Uuid, primary_key=True),
    Column("path", LargeBinary, primary_key=True),  # bytea sorts by raw bytes, as manifests do
    Column("kind", SmallInteger, nullable=False),  # 0 file, 1 directory, 2 symlink, 3 hidden
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger),
    Column("mode", Integer),
    Column("digest", LargeBinary),  # the content digest (profile.digests[0]) of a file
    Column("crc32", BigInteger),
    Column("digests", JSONB),  # the other digests, if any
    Column("target", LargeBinary),
    Column("part", Integer, nullable=False),
    Column("content", Text),  # NULL: the natural content path of the logical path
    Column("added_at", _moment, nullable=False),
    CheckConstraint("kind BETWEEN 0 AND 3", name="kind_known"),
    CheckConstraint("size >= 0", name="size_positive"),
    CheckConstraint("kind <> 0 OR (digest IS NOT NULL AND crc32 IS NOT NULL)", name="file_has_digests"),
    CheckConstraint("(kind = 2) = (target IS NOT NULL)", name="symlink_has_target"),
    Index("ix_files_archive_id_part", "archive_id", "part"),
    postgresql_partition_by="HASH (archive_id)",
)


def file_partition_statements() -> list[str]:
    """The statements that make the partitions of `files`; a migration that makes the table by itself runs them too."""
    return [
        f"CREATE TABLE files_{number:02d} PARTITION OF files"
        f" FOR VALUES WITH (MODULUS {FILE_PARTITIONS}, REMAINDER {number})"
        for number in range(FILE_PARTITIONS)
    ]


def _make_partitions(_table: Table, connection: Connection, **_options: object) -> None:
    for statement in file_partition_statements():
        connection.execute(text(statement))


event.listen(files, "after_create", _make_partitions)

# What a sealed part holds that was replaced or removed while its archive was still open.
superseded = Table(
    "superseded",
    metadata,
    Column("archive_id", Uuid, ForeignKey("archives.id"), primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("path", LargeBinary, primary_key=True),
    Column("at", _moment, nullable=False),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("archive_id", Uuid, ForeignKey("archives.id"), nullable=False),
    Column("part", Integer, nullable=False),
    Column("path", LargeBinary),  # NULL for a batch
    Column("state", Text, nullable=False),
    Column("file_count", Integer, nullable=False),
    Column("byte_count", BigInteger, nullable=False),  # reserved against the quota
    Column("received", BigInteger, nullable=False, server_default="0"),
    Column("attributes", JSONB, nullable=False, server_default="{}"),  # mtime_ns, mode, stated digests
    Column("opened_by", Uuid),
    Column("opened_at", _moment, nullable=False),
    Column("expires_at", _moment, nullable=False),
    Column("lease_until", _moment),  # while its bytes go into the part itself, which is not sealed before
    CheckConstraint("state IN ('reserved','receiving','finished','abandoned')", name="state_known"),
    Index("ix_uploads_archive_id", "archive_id"),
    Index("ix_uploads_expires_at", "expires_at"),
)

# Changes of an archive's record that its journal carries and its next head version folds.
record_changes = Table(
    "record_changes",
    metadata,
    Column("archive_id", Uuid, ForeignKey("archives.id"), primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("at", _moment, nullable=False),
    Column("actor_id", Uuid),
    Column("actor_name", Text, nullable=False),
    Column("before", JSONB, nullable=False),
    Column("after", JSONB, nullable=False),
)

withdrawals = Table(
    "withdrawals",
    metadata,
    Column("archive_id", Uuid, ForeignKey("archives.id"), primary_key=True),
    Column("identity_id", Uuid, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("at", _moment, nullable=False),
)

# Which warning of an archive's end of life was given for which end; a later end gives the warnings anew.
lifetime_notices = Table(
    "lifetime_notices",
    metadata,
    Column("archive_id", Uuid, ForeignKey("archives.id"), primary_key=True),
    Column("keep_until", Date, primary_key=True),
    Column("days", Integer, primary_key=True),  # 90, 30, 7; 0 is the proposal to withdraw
    Column("at", _moment, nullable=False),
)

# Offers to hand an archive over, until they are answered; they come back from the database's backup.
transfers = Table(
    "transfers",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("archive_id", Uuid, ForeignKey("archives.id"), nullable=False),
    Column("from_id", Uuid, nullable=False, index=True),
    Column("to_id", Uuid, nullable=False, index=True),
    Column("keeps_account", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    Column("offered_at", _moment, nullable=False),
    Column("expires_at", _moment, nullable=False),
    Column("decided_at", _moment),
    CheckConstraint("state IN ('pending', 'accepted', 'declined', 'taken_back')", name="state_known"),
    CheckConstraint("(state = 'pending') = (decided_at IS NULL)", name="decided"),
    Index("uq_transfers_pending", "archive_id", unique=True, postgresql_where=text("state = 'pending'")),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("identity_id", Uuid, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request_digest", Text, nullable=False),
    Column("answer", JSONB, nullable=False),
    Column("at", _moment, nullable=False),
)

account_usage = Table(
    "account_usage",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("byte_count", BigInteger, nullable=False, server_default="0"),
    Column("reserved_bytes", BigInteger, nullable=False, server_default="0"),
    Column("file_count", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("byte_count >= 0 AND reserved_bytes >= 0 AND file_count >= 0", name="use_positive"),
)

# What each account used on a day (UTC), as it was counted last on it; past days are in no store, but in the backup.
usage_snapshots = Table(
    "usage_snapshots",
    metadata,
    Column("day", Date, primary_key=True),
    Column("account_id", Uuid, primary_key=True),
    Column("organisation_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("byte_count", BigInteger, nullable=False),
    Column("file_count", BigInteger, nullable=False),
    Column("archives_open", BigInteger, nullable=False),
    Column("archives_closed", BigInteger, nullable=False),
    Column("copy_bytes", BigInteger, nullable=False),
    Index("ix_usage_snapshots_organisation_id", "organisation_id", "day"),
)

export_state = Table(
    "export_state",
    metadata,
    Column("id", Integer, Identity(), primary_key=True),
    Column("name", Text, nullable=False),  # events, registry
    Column("position", BigInteger, nullable=False),
    Column("digest", Text),
    UniqueConstraint("name", name="uq_export_state_name"),
)
