"""Links brought back from the stores after the database was lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, time
from typing import Any
from urllib.parse import unquote_to_bytes
from uuid import UUID

from sqlalchemy import Connection, update
from sqlalchemy.dialects.postgresql import insert

from perdure.archives import events as facts
from perdure.archives.errors import ArchiveNotFoundError
from perdure.archives.rebuild_found import FoundObject, RebuildReport, find_archive_id
from perdure.archives.records import Context, load
from perdure.events import Event, Search, search_events
from perdure.formats.canonical import parse_json_object
from perdure.kernel.clock import parse_time
from perdure.kernel.errors import DamagedError
from perdure.kernel.ids import short_form
from perdure.sharing.storing import links_file
from perdure.sharing.tables import links
from perdure.storage.model import ObjectKind

_EVENTS_AT_ONCE = 1000


def restore_links(ctx: Context, found: Mapping[str, FoundObject], report: RebuildReport) -> None:
    """Load the links of every archive that came back; what the event log knows of them is counted and heeded.

    A link that was revoked stays so, also when the stores were told by the log alone. What was used today, and on a day
    of which the log does not tell yet, is not known any more.
    """
    for one in found.values():
        archive_id = find_archive_id(one) if one.kind is ObjectKind.LINKS else None
        if archive_id is None:
            continue
        try:
            with ctx.db.begin() as tx:
                load(tx, archive_id)
                content = ctx.storage.read_head_file(one.object_id, links_file(archive_id))
                for line in content.splitlines():
                    tx.execute(insert(links).values(_row(archive_id, dict(parse_json_object(line)))))
        except ArchiveNotFoundError:
            report.problems.append(f"{one.object_id}: links of an archive that did not come back")
        except DamagedError as error:
            report.problems.append(f"links of {short_form(archive_id)}: {error.detail}")
    _count_uses(ctx)
    _repeat_revocations(ctx)


def _row(archive_id: UUID, told: dict[str, Any]) -> dict[str, object]:  # Any: a line of JSON
    moments = {
        name: parse_time(told[name]) if told[name] else None for name in ("created_at", "expires_at", "revoked_at")
    }
    return {
        **told,
        **moments,
        "id": UUID(told["id"]),
        "digest": bytes.fromhex(told["digest"]),
        "archive_id": archive_id,
        "path": unquote_to_bytes(told["path"]),
        "made_by": UUID(told["made_by"]) if told["made_by"] else None,
        "downloads": told["downloads"] or 0,
        "stored_change": 1,
    }


def _count_uses(ctx: Context) -> None:
    """Each event tells of a day. Downloads of a link that limits them stand with it, as they were when it was left."""
    for event in _iter_events(ctx, facts.LINK_USED):
        day = datetime.fromisoformat(str(event.data["day"])).date()
        used = {
            "uses": links.c.uses + int(str(event.data["uses"])),
            "last_used_at": datetime.combine(day, time(), tzinfo=event.recorded_at.tzinfo),
        }
        with ctx.db.begin() as tx:
            tx.execute(_of(event).values(**used))
            more = links.c.downloads + int(str(event.data["downloads"]))
            tx.execute(_of(event).where(links.c.download_limit.is_(None)).values(downloads=more))


def _repeat_revocations(ctx: Context) -> None:
    for event in _iter_events(ctx, facts.LINK_REVOKED):
        ended = {"revoked_at": event.recorded_at, "change": links.c.change + 1}
        with ctx.db.begin() as tx:
            tx.execute(_of(event).where(links.c.revoked_at.is_(None)).values(**ended))


def _of(event: Event) -> Any:  # Any: an update of links
    return update(links).where(links.c.id == UUID(str(event.data["link"])))


def _iter_events(ctx: Context, kind: str) -> Iterator[Event]:
    after = 0
    while True:
        with ctx.db.begin() as tx:
            found = _search(tx, kind, after)
        yield from found
        if len(found) < _EVENTS_AT_ONCE:
            return
        after = found[-1].number


def _search(tx: Connection, kind: str, after: int) -> list[Event]:
    return search_events(tx, Search(type=kind, after=after, is_newest_first=False, limit=_EVENTS_AT_ONCE))
