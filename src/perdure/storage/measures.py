"""How the copies are: how many in which state, and how long ago somebody looked at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Select, func, select

from perdure.storage.model import CopyState
from perdure.storage.tables import copies, objects, stores


@dataclass(frozen=True, slots=True)
class CopyMeasures:
    """The copies of one store in one state. `oldest_written` is when the first of them was written, `oldest_verified`
    when the one that was verified longest ago was."""

    store: str
    state: CopyState
    count: int
    oldest_written: datetime | None
    oldest_verified: datetime | None


def measure_copies(tx: Connection) -> list[CopyMeasures]:
    """Every store and state of which there is a copy; reads all rows of copies."""
    grouped = (
        select(
            stores.c.name,
            copies.c.state,
            func.count(),
            func.min(copies.c.written_at),
            func.min(copies.c.verified_at),
        )
        .join(stores, stores.c.id == copies.c.store_id)
        .group_by(stores.c.name, copies.c.state)
        .order_by(stores.c.name, copies.c.state)
    )
    return [CopyMeasures(row[0], CopyState(row[1]), row[2], row[3], row[4]) for row in tx.execute(grouped)]


def measure_overdue(tx: Connection, before: datetime, archives: Select[tuple[object]]) -> tuple[int, datetime | None]:
    """How many copies of these archives nobody verified since a time, and when the longest forgotten one was.

    A copy that was never verified counts from its writing. `archives` selects their ids.
    """
    looked_at = func.coalesce(copies.c.verified_at, copies.c.written_at)
    states: Sequence[str] = [CopyState.WRITTEN.value, CopyState.VERIFIED.value]
    query = (
        select(func.count(), func.min(looked_at))
        .join(objects, objects.c.object_id == copies.c.object_id)
        .where(copies.c.state.in_(states))
        .where((copies.c.verified_at.is_(None)) | (copies.c.verified_at < before), looked_at < before)
        .where(objects.c.archive_id.in_(archives))
    )
    count, oldest = tx.execute(query).one()
    return count, oldest
