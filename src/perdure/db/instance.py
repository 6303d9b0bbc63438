"""The identity of this installation: one row, made once, carried by every store too."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from perdure.db.tables import instance


def settle_instance_id(tx: Connection, proposal: UUID) -> UUID:
    """The identity of this installation; the proposal becomes it when there is none yet. Safe for two at once."""
    tx.execute(insert(instance).values(is_only=True, id=proposal).on_conflict_do_nothing())
    found: UUID = tx.execute(select(instance.c.id)).scalar_one()
    return found
