"""The end of lifetimes: warned of in time, then proposed to people. Nothing is ever deleted here."""

from __future__ import annotations

from datetime import date, timedelta

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from perdure.archives import events
from perdure.archives.model import Archive, ArchiveState
from perdure.archives.records import Context, load_all
from perdure.archives.rules import WARNING_DAYS, due_notices
from perdure.archives.tables import archives, lifetime_notices
from perdure.kernel.actor import SYSTEM

_AT_ONCE = 500


def warn_of_ends(ctx: Context) -> int:
    """Record the warnings, and after the end the proposals to withdraw, that are due; returns how many."""
    told = 0
    while True:
        with ctx.db.begin() as tx:
            today = ctx.clock.now().date()
            due = _find_due(tx, today)
            told += sum(_tell(tx, ctx, archive, days) for archive, days in due)
        if len(due) < _AT_ONCE:
            return told


def _find_due(tx: Connection, today: date) -> list[tuple[Archive, int]]:
    """Closed archives whose nearest warning was not given yet, with that warning."""
    a = archives.c
    found: list[tuple[Archive, int]] = []
    for upper, lower in zip((*WARNING_DAYS, 0), (*WARNING_DAYS[1:], 0, None), strict=True):
        given = select(lifetime_notices.c.archive_id).where(
            lifetime_notices.c.archive_id == a.id,
            lifetime_notices.c.keep_until == a.keep_until,
            lifetime_notices.c.days == upper,
        )
        conditions = [a.state == ArchiveState.CLOSED.value, ~given.exists()]
        conditions.append(a.keep_until <= today + timedelta(days=upper))
        if lower is not None:
            conditions.append(a.keep_until > today + timedelta(days=lower))
        batch = load_all(tx, *conditions, limit=_AT_ONCE - len(found))
        found += [(archive, days) for archive in batch for days in due_notices(archive.keep_until, (), today=today)]
    return found


def _tell(tx: Connection, ctx: Context, archive: Archive, days: int) -> int:
    row = {"archive_id": archive.id, "keep_until": archive.keep_until, "days": days, "at": ctx.clock.now()}
    noted = insert(lifetime_notices).values(row).on_conflict_do_nothing().returning(lifetime_notices.c.days)
    if tx.execute(noted).one_or_none() is None:
        return 0
    event = events.ARCHIVE_EXPIRING if days else events.ARCHIVE_DISPOSAL_PROPOSED
    data = {"keep_until": archive.keep_until.isoformat(), "days": days}
    ctx.events.record(tx, event, archive.id, SYSTEM, data)
    return 1
