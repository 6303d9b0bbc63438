"""Notes of removed entries that a process owed when it ended: kept in the transaction, written by whoever comes later.

What is removed is committed first and noted in the log of its part afterwards, so that no note ever takes away what
the database still shows. Between the two the note stands in a row of its own beside the uploads, past its end like one
that lapsed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, delete, insert, select, update

from perdure.archives.model import Archive, UploadState
from perdure.archives.placing import STREAM_LEASE, select_active_uploads
from perdure.archives.records import Context, load
from perdure.archives.tables import files, parts, uploads
from perdure.formats.manifest import SupersededEntry, line_to_superseded, superseded_to_line
from perdure.kernel.ids import new_id
from perdure.storage.model import PartRef

_OWED = "owed"


def number_removals(
    tx: Connection, archive_id: UUID, removed: Mapping[PartRef, Sequence[SupersededEntry]]
) -> dict[PartRef, list[SupersededEntry]]:
    """Count a removal from each part that loses something, and give its number to the notes.

    The transaction holds the archive's row, so that whatever is noted of the part with a lower number came before.
    """
    losing = {entry.part for entries in removed.values() for entry in entries}
    if not losing:
        return {}
    numbers = count_removal(tx, archive_id, losing)
    return {
        part: [replace(entry, removal=numbers[entry.part]) for entry in entries] for part, entries in removed.items()
    }


def count_removal(tx: Connection, archive_id: UUID, numbers: Iterable[int]) -> dict[int, int]:
    """Count a removal from each of these parts; the number that it has, by that of the part."""
    query = update(parts).where(parts.c.archive_id == archive_id, parts.c.number.in_(numbers))
    counted = query.values(removals=parts.c.removals + 1).returning(parts.c.number, parts.c.removals)
    return {row.number: row.removals for row in tx.execute(counted)}


def owe_notes(
    tx: Connection, ctx: Context, archive: Archive, number: int, removed: Mapping[PartRef, Iterable[SupersededEntry]]
) -> UUID | None:
    """Keep what is to be noted of removed entries until `settle_notes`; None when there is nothing to note."""
    owed = [[str(part.part_id), _to_text(entry)] for part, entries in removed.items() for entry in entries]
    if not owed:
        return None
    now, owed_id = ctx.clock.now(), new_id()
    values = {"id": owed_id, "archive_id": archive.id, "part": number, "path": None, "attributes": {_OWED: owed}}
    moments = {"opened_at": now, "expires_at": now + STREAM_LEASE, "state": UploadState.FINISHED.value}
    tx.execute(insert(uploads).values(**values, **moments, file_count=0, byte_count=0))
    return owed_id


def settle_notes(tx: Connection, owed_id: UUID) -> None:
    """The notes are durable: nobody owes them any more."""
    tx.execute(delete(uploads).where(uploads.c.id == owed_id))


def owes_notes(row: Row[Any]) -> bool:  # Any: row of the table
    """Whether a row beside the uploads holds notes that somebody owed when he ended."""
    return _OWED in row.attributes


def write_owed_notes(ctx: Context, row: Row[Any]) -> bool:  # Any: row of the table
    """Write what somebody owed; False while that waits for what is on its way into the archive.

    Only notes without a number wait, and are passed over where the part shows something again: by their place in the
    log alone they would take away what came after the removal.
    """
    with ctx.db.begin() as tx:
        archive = load(tx, row.archive_id, lock=True)
        by_part: dict[PartRef, list[SupersededEntry]] = {}
        for part_id, line in row.attributes[_OWED]:
            by_part.setdefault(PartRef(archive.id, UUID(part_id)), []).append(_from_text(line))
        unnumbered = [entry for entries in by_part.values() for entry in entries if entry.removal is None]
        if unnumbered and tx.execute(select_active_uploads(archive.id).limit(1)).first() is not None:
            return False
        shown = _find_shown(tx, archive.id, unnumbered)
        for part, entries in by_part.items():
            lines = [superseded_to_line(e).rstrip(b"\n") for e in entries if e.removal or (e.part, e.path) not in shown]
            if lines:
                ctx.storage.log_staged(part, lines)
                ctx.storage.sync(part)
        settle_notes(tx, row.id)
    return True


def _find_shown(tx: Connection, archive_id: UUID, entries: Sequence[SupersededEntry]) -> set[tuple[int, bytes]]:
    if not entries:
        return set()
    own = select(files.c.part, files.c.path).where(files.c.archive_id == archive_id)
    found = tx.execute(own.where(files.c.path.in_([entry.path for entry in entries])))
    return {(row.part, row.path) for row in found}


def _to_text(entry: SupersededEntry) -> str:
    return superseded_to_line(entry).decode("utf-8")


def _from_text(line: str) -> SupersededEntry:
    return line_to_superseded(line.encode("utf-8"))
