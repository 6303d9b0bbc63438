"""The one table of this room."""

from __future__ import annotations

from sqlalchemy import Boolean, CheckConstraint, Column, Table, Uuid

from perdure.db.engine import metadata

instance = Table(
    "instance",
    metadata,
    Column("is_only", Boolean, primary_key=True),
    Column("id", Uuid, nullable=False),
    CheckConstraint("is_only", name="only_one"),
)
