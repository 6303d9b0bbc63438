"""How far the log of events is, and how far its numbering is behind."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from perdure.events.tables import events


@dataclass(frozen=True, slots=True)
class LogMeasures:
    """The number of the last event, how many wait for theirs, and since how many seconds the first of them."""

    position: int
    pending: int
    lag: float


def measure_log(tx: Connection) -> LogMeasures:
    """Read the two ends of the log."""
    age = func.extract("epoch", func.clock_timestamp() - func.min(events.c.recorded_at))
    pending, lag = tx.execute(select(func.count(), age).where(events.c.number.is_(None))).one()
    position = tx.execute(select(func.coalesce(func.max(events.c.number), 0))).scalar_one()
    return LogMeasures(position, pending, max(0.0, float(lag or 0)))
