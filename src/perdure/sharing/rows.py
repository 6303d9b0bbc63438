"""Rows of links, and the counting of what they are used for."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, delete, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from perdure.sharing.model import RESUMABLE_FOR, Link, LinkKind
from perdure.sharing.tables import link_days, link_starts, links


def to_link(row: Row[Any]) -> Link:  # Any: a row with all columns of a link
    return Link(
        id=row.id,
        archive_id=row.archive_id,
        path=row.path,
        kind=LinkKind(row.kind),
        name=row.name,
        made_by=row.made_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
        has_password=row.password is not None,
        download_limit=row.download_limit,
        only_when_closed=row.only_when_closed,
        pinned_revision=row.pinned_revision,
        revoked_at=row.revoked_at,
        uses=row.uses,
        downloads=row.downloads,
        last_used_at=row.last_used_at,
    )


def to_row(link: Link, digest: bytes, password: str | None) -> dict[str, object]:
    return {
        "id": link.id,
        "digest": digest,
        "archive_id": link.archive_id,
        "path": link.path,
        "kind": link.kind.value,
        "name": link.name,
        "made_by": link.made_by,
        "created_at": link.created_at,
        "expires_at": link.expires_at,
        "password": password,
        "download_limit": link.download_limit,
        "only_when_closed": link.only_when_closed,
        "pinned_revision": link.pinned_revision,
    }


def count_use(tx: Connection, link_id: UUID, now: datetime) -> None:
    """Count a request by the link."""
    tx.execute(update(links).where(links.c.id == link_id).values(uses=links.c.uses + 1, last_used_at=now))
    _count_day(tx, link_id, now, uses=1)


def count_start(tx: Connection, link: Link, what: bytes, address: str, now: datetime, *, goes_on: bool) -> bool:
    """Count a download that begins; False when the limit leaves none.

    One that `goes_on` is not counted again if the same was begun from the same address not long ago.
    """
    key = sha256(b"%d %s %s" % (len(what), what, address.encode("utf-8", "surrogatepass"))).digest()
    if link.download_limit is not None:
        begun = select(link_starts.c.at).where(link_starts.c.link_id == link.id, link_starts.c.key == key)
        begun_at = tx.execute(begun).scalar()
        if goes_on and begun_at is not None and begun_at + RESUMABLE_FOR > now:
            return True
    free = or_(links.c.download_limit.is_(None), links.c.downloads < links.c.download_limit)
    told = {} if link.download_limit is None else {"change": links.c.change + 1}  # after a rebuild it limits on
    counted = update(links).where(links.c.id == link.id, free).values(downloads=links.c.downloads + 1, **told)
    if tx.execute(counted).rowcount == 0:
        return False
    _count_day(tx, link.id, now, downloads=1)
    if link.download_limit is not None:
        fresh = insert(link_starts).values(link_id=link.id, key=key, at=now)
        tx.execute(fresh.on_conflict_do_update(index_elements=["link_id", "key"], set_={"at": now}))
    return True


def forget_starts(tx: Connection, now: datetime) -> int:
    """Remove notes of downloads that nobody may go on with any more."""
    return tx.execute(delete(link_starts).where(link_starts.c.at < now - RESUMABLE_FOR - timedelta(hours=1))).rowcount


def _count_day(tx: Connection, link_id: UUID, now: datetime, *, uses: int = 0, downloads: int = 0) -> None:
    fresh = insert(link_days).values(link_id=link_id, day=now.date(), uses=uses, downloads=downloads)
    added = {"uses": link_days.c.uses + uses, "downloads": link_days.c.downloads + downloads}
    tx.execute(fresh.on_conflict_do_update(index_elements=["link_id", "day"], set_=added))
