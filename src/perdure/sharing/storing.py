"""Links brought to the stores, so that they outlive the database: an object for each archive that has some.

What stands there of a secret is its digest, of a password what is kept of it in the database. Uses are told by the
event log; the downloads of a link that limits them stand with it.
"""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import quote_from_bytes
from uuid import UUID, uuid5

import structlog
from sqlalchemy import Connection, Row, func, select, update

from perdure.archives.heads import writer
from perdure.archives.rebuild_found import LINKS_FOLDER
from perdure.archives.records import Context
from perdure.formats.canonical import canonical_line
from perdure.kernel.clock import format_time
from perdure.kernel.errors import PerdureError
from perdure.sharing.tables import links
from perdure.storage.model import ObjectKind, object_uri

log = structlog.get_logger(__name__)

_AT_ONCE = 500


def links_id(archive_id: UUID) -> UUID:
    """The id of the object that holds the links of an archive."""
    return uuid5(archive_id, "links")


def links_file(archive_id: UUID) -> str:
    """Its one file."""
    return f"{LINKS_FOLDER}{archive_id}.ndjson"


def store_links(ctx: Context, archive_id: UUID) -> None:
    """Write the links of an archive as they are to the stores. Safe to call twice, and by several at once."""
    with ctx.db.begin() as tx:
        tx.execute(select(func.pg_advisory_xact_lock(_key_of(archive_id))))
        rows = tx.execute(select(links).where(links.c.archive_id == archive_id).order_by(links.c.id)).all()
        if all(row.change == row.stored_change for row in rows):
            return
        content = b"".join(map(_line, rows))
        ctx.storage.write_head(
            object_uri(links_id(archive_id)),
            archive_id,
            ObjectKind.LINKS,
            {links_file(archive_id): content},
            message="Links",
            user=writer(ctx),
            created=ctx.clock.now(),
        )
        for row in rows:
            tx.execute(update(links).where(links.c.id == row.id).values(stored_change=row.change))


def try_to_store(ctx: Context, archive_id: UUID) -> None:
    """As `store_links`; what a store that is out does not take is written by `store_all`, later."""
    try:
        store_links(ctx, archive_id)
    except PerdureError as error:
        log.warning("links_not_stored", archive=str(archive_id), error=error.detail)


def store_all(ctx: Context) -> int:
    """Write what changed since it was written; how many archives that were. A periodic job."""
    with ctx.db.begin() as tx:
        behind = _find_behind(tx)
    for archive_id in behind:
        try_to_store(ctx, archive_id)
    return len(behind)


def _find_behind(tx: Connection) -> list[UUID]:
    query = select(links.c.archive_id).distinct().where(links.c.change > links.c.stored_change).limit(_AT_ONCE)
    return list(tx.execute(query).scalars())


def _line(row: Row[Any]) -> bytes:  # Any: a row with all columns
    moments = ("created_at", "expires_at", "revoked_at")
    plain = ("kind", "name", "password", "download_limit", "only_when_closed", "pinned_revision")
    return canonical_line(
        {
            "id": str(row.id),
            "digest": row.digest.hex(),
            "path": quote_from_bytes(row.path, safe="/"),
            "made_by": str(row.made_by) if row.made_by else None,
            "downloads": None if row.download_limit is None else row.downloads,
            **{name: getattr(row, name) for name in plain},
            **{name: format_time(at) if (at := getattr(row, name)) else None for name in moments},
        }
    )


def _key_of(archive_id: UUID) -> int:
    digest = hashlib.sha256(b"links " + archive_id.bytes).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
