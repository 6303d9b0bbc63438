"""The queue's own tables and functions, as procrastinate brings them."""

from __future__ import annotations

from procrastinate.schema import SchemaManager


def queue_schema() -> str:
    """The SQL that makes the queue's tables in an empty schema."""
    return SchemaManager.get_schema()
