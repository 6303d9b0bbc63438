"""How many archives there are, what they hold, what is on its way, and which verifications are overdue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Integer, func, select

from perdure.archives.model import ArchiveState
from perdure.archives.placing import ACTIVE_UPLOADS
from perdure.archives.tables import account_usage, archives, export_state, uploads
from perdure.storage.measures import measure_overdue


@dataclass(frozen=True, slots=True)
class ArchiveMeasures:
    """Counts over the whole instance; `reserved_bytes` are those that uploads have still to bring.

    `exported` is how far each export to the stores is: `events` by number.
    """

    archives: Mapping[str, int]
    files: int
    byte_count: int
    reserved_bytes: int
    uploads: Mapping[str, int]
    exported: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class OverdueMeasures:
    """Copies of closed archives past the interval of their profile, and by how many seconds the worst of them is."""

    copies: int
    worst: float


def measure_archives(tx: Connection) -> ArchiveMeasures:
    """Count; reads all rows of archives, and none of their files."""
    usage = account_usage.c
    sums = [func.coalesce(func.sum(column), 0) for column in (usage.file_count, usage.byte_count, usage.reserved_bytes)]
    files, byte_count, reserved = tx.execute(select(*sums)).one()
    by_state = {state.value: 0 for state in ArchiveState}
    by_state |= dict(tx.execute(select(archives.c.state, func.count()).group_by(archives.c.state)).tuples().all())
    active = dict.fromkeys(ACTIVE_UPLOADS, 0)
    under_way = uploads.c.state.in_(ACTIVE_UPLOADS)
    active |= dict(
        tx.execute(select(uploads.c.state, func.count()).where(under_way).group_by(uploads.c.state)).tuples().all()
    )
    exported = {"events": 0} | dict(tx.execute(select(export_state.c.name, export_state.c.position)).tuples().all())
    return ArchiveMeasures(by_state, int(files), int(byte_count), int(reserved), active, exported)


def measure_verification(tx: Connection, now: datetime) -> OverdueMeasures:
    """Look for copies of closed archives that nobody verified within the interval of the archive's profile."""
    closed = archives.c.state == ArchiveState.CLOSED.value
    interval = archives.c.profile["verify_interval_days"].as_string().cast(Integer)
    total, worst = 0, 0.0
    for days in tx.execute(select(interval).where(closed, interval.is_not(None)).distinct()).scalars():
        before = now - timedelta(days=days)
        these = select(archives.c.id).where(closed, interval == days)
        count, oldest = measure_overdue(tx, before, these)
        total += count
        if oldest is not None:
            worst = max(worst, (before - oldest).total_seconds())
    return OverdueMeasures(total, worst)
