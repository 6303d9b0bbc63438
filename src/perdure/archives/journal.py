"""The journal of an archive: changes that are in the database, on their way into the next head version.

A line is canonical JSON with a `kind`: `record` for a change of the record, ordered by `revision`, and `metadata` for
one line of the metadata's history, as text under `line`. Lines may be there twice; their numbers tell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, select, update

from perdure.archives.documents import JsonObject, apply_members, description_document, parse_description
from perdure.archives.errors import JournalUnavailableError
from perdure.archives.model import Archive, Description
from perdure.archives.tables import archives, record_changes
from perdure.db import Database
from perdure.formats.canonical import canonical_json
from perdure.kernel.clock import format_time
from perdure.kernel.ids import short_form
from perdure.metadata.history import change_to_line
from perdure.metadata.service import Metadata
from perdure.storage.errors import StoreFailedError, StoreFullError, StoreUnavailableError
from perdure.storage.service import Storage


class Journal:
    """Brings changes from the database to the store; safe to call at any time from any process."""

    def __init__(self, db: Database, storage: Storage, metadata: Metadata) -> None:
        self._db = db
        self._storage = storage
        self._metadata = metadata

    def flush(self, archive_id: UUID) -> int:
        """Write every committed change that the journal lacks, fsynced, and return how many lines that were.

        One process writes, the others wait for it and usually find their lines written. Raises
        JournalUnavailableError when the store refuses; the changes stay and are written by the next call.
        """
        with self._db.begin() as tx:
            lock_journal(tx, archive_id)
            state = tx.execute(select(archives).where(archives.c.id == archive_id)).one()
            records = list_record_changes(tx, archive_id, after=state.journalled)
            changes = list(self._metadata.iter_changes(tx, archive_id, state.metadata_journalled))
            lines = [record_line(row) for row in records] + [metadata_line(change_to_line(c)) for c in changes]
            if lines:
                self._append(archive_id, lines)
                marks = {
                    "journalled": state.journalled + len(records),
                    "metadata_journalled": state.metadata_journalled + len(changes),
                }
                tx.execute(update(archives).where(archives.c.id == archive_id).values(**marks))
        return len(lines)

    def _append(self, archive_id: UUID, lines: list[bytes]) -> None:
        try:
            self._storage.append_journal(archive_id, lines)
        except (StoreFailedError, StoreFullError, StoreUnavailableError) as error:
            raise JournalUnavailableError(f"The journal of {short_form(archive_id)} failed: {error.detail}") from error


def lock_journal(tx: Connection, archive_id: UUID) -> None:
    """Hold off everybody who writes this archive's journal or head until the transaction ends.

    Taken before the archive's row is locked, never after: that order keeps flush, fold and changes apart.
    """
    key = int.from_bytes(hashlib.sha256(b"journal " + archive_id.bytes).digest()[:8], "big", signed=True)
    tx.execute(select(func.pg_advisory_xact_lock(key)))


def list_record_changes(tx: Connection, archive_id: UUID, *, after: int, limit: int | None = None) -> list[Row[Any]]:
    """The changes of a record past a revision, in order."""
    return list(
        tx.execute(
            select(record_changes)
            .where(record_changes.c.archive_id == archive_id, record_changes.c.revision > after)
            .order_by(record_changes.c.revision)
            .limit(limit)
        )
    )


def description_at(tx: Connection, archive: Archive, revision: int) -> Description:
    """What the archive's record described at a revision."""
    document: Mapping[str, Any] = {"description": description_document(archive.description)}
    for change in reversed(list_record_changes(tx, archive.id, after=revision)):
        document = apply_members(document, {"description": change.before.get("description", {})})
    return parse_description(document["description"])


def record_line(row: Row[Any]) -> bytes:  # Any: a row of record_changes
    """One change of the record as its canonical line, without newline."""
    document: JsonObject = {
        "kind": "record",
        "revision": row.revision,
        "at": format_time(row.at),
        "actor": {"id": str(row.actor_id) if row.actor_id else None, "name": row.actor_name},
        "before": row.before,
        "after": row.after,
    }
    return canonical_json(document)


def metadata_line(line: bytes) -> bytes:
    """One line of the metadata's history as the journal carries it."""
    return canonical_json({"kind": "metadata", "line": line.removesuffix(b"\n").decode()})
