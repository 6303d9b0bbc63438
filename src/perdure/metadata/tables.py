"""The tables of the metadata: present values as one row per leaf, and the history that they follow from.

A path or pointer can be longer than an index entry may be, so each has a *key*: its own bytes, or for a long one
the first bytes and the SHA-256 of all of it (`rows.key_of`). Keys keep everything below a pointer in one range.
"""

from __future__ import annotations

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
)

from perdure.db import metadata as db_metadata

states = Table(
    "metadata_state",
    db_metadata,
    Column("thing", Uuid, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("chain_digest", Text, nullable=False),
    Column("changed_at", TIMESTAMP(timezone=True)),
    CheckConstraint("sequence >= 0", name="sequence"),
)
"""One row per thing, locked by every writer: it gives changes their order."""

subjects = Table(
    "metadata_subjects",
    db_metadata,
    Column("thing", Uuid, nullable=False),
    Column("path_key", LargeBinary, nullable=False),
    Column("path", LargeBinary, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("changed_at", TIMESTAMP(timezone=True), nullable=False),
    Column("leaves", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("digest", Text),
    PrimaryKeyConstraint("thing", "path_key"),
    CheckConstraint("revision > 0 AND leaves >= 0 AND size >= 0", name="counts"),
)
"""One row per subject that ever had metadata; it outlives its values, so that a revision never returns."""

values = Table(
    "metadata_values",
    db_metadata,
    Column("thing", Uuid, nullable=False),
    Column("path_key", LargeBinary, nullable=False),
    Column("pointer_key", LargeBinary, nullable=False),
    Column("long_pointer", Text),
    Column("kind", Text, nullable=False),
    Column("ordinal", BigInteger, nullable=False),
    Column("members", Integer, nullable=False),
    Column("next_ordinal", BigInteger, nullable=False),
    Column("value", Text),
    Column("folded", Text, nullable=False),
    PrimaryKeyConstraint("thing", "path_key", "pointer_key"),
    CheckConstraint("(value IS NULL) = (kind = 'object')", name="object_has_no_value"),
    CheckConstraint("members = 0 OR kind = 'object'", name="leaf_has_no_members"),
)
"""A row per leaf with its exact JSON text, and a row per object with its number of members and no text.

`ordinal` is the place among the members of the parent; `folded` is for searching: the member's name, a line break, the
text of the value, case-folded.
"""

changes = Table(
    "metadata_changes",
    db_metadata,
    Column("thing", Uuid, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("path_key", LargeBinary, nullable=False),
    Column("path", LargeBinary, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("at", TIMESTAMP(timezone=True), nullable=False),
    Column("actor_id", Uuid),
    Column("actor_name", Text, nullable=False),
    Column("changes", Text, nullable=False),
    Column("digest", Text, nullable=False),
    PrimaryKeyConstraint("thing", "sequence"),
    Index(None, "thing", "path_key", "sequence"),
)
"""The history: `changes` is a list of `{"pointer", "before", "after"}` as JSON text, exact as in the exported line."""
