"""What is done again and again for links: each day's use becomes one event, and old notes go."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select, update

from perdure.archives import events as facts
from perdure.archives.records import Context
from perdure.identity.model import Action
from perdure.kernel.actor import SYSTEM
from perdure.sharing.model import KIND_ACTIONS, LinkKind
from perdure.sharing.rows import forget_starts
from perdure.sharing.storing import store_all
from perdure.sharing.tables import link_days, links

_AT_ONCE = 500


def register_upkeep(ctx: Context) -> None:
    """Name the periodic work to the queue; once for each process."""
    ctx.jobs.register_periodic("sharing.tell_use", timedelta(hours=1), lambda: tell_use(ctx))
    ctx.jobs.register_periodic("sharing.store_links", timedelta(minutes=1), lambda: store_all(ctx))


def tell_use(ctx: Context) -> int:
    """Record what links were used for in the days (UTC) that are over; returns how many days of links that were.

    Who manages an archive sees it as `link.used` and, where content was open to the visitors, as `archive.read`.
    """
    today = ctx.clock.now().date()
    query = (
        select(link_days, links.c.archive_id, links.c.kind)
        .join_from(link_days, links, links.c.id == link_days.c.link_id)
        .where(link_days.c.is_told.is_(False), link_days.c.day < today)
        .order_by(links.c.archive_id, link_days.c.day, link_days.c.link_id)
        .limit(_AT_ONCE)
        .with_for_update(of=link_days)
    )
    with ctx.db.begin() as tx:
        rows = tx.execute(query).all()
        for row in rows:
            mine = (link_days.c.link_id == row.link_id) & (link_days.c.day == row.day)
            tx.execute(update(link_days).where(mine).values(is_told=True))
        for row in rows:
            told = {"link": str(row.link_id), "day": row.day.isoformat(), "uses": row.uses, "downloads": row.downloads}
            ctx.events.record(tx, facts.LINK_USED, row.archive_id, SYSTEM, told)
            if Action.READ in KIND_ACTIONS[LinkKind(row.kind)]:
                ctx.events.record(tx, facts.ARCHIVE_READ, row.archive_id, SYSTEM, {**told, "by": "link"})
        forget_starts(tx, ctx.clock.now())
    return len(rows)
