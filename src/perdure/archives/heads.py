"""Head objects: the record of an archive in the stores, one OCFL version for many changes.

Files of a head: `archive.json` (the record, with its roles), `parts.json`, `superseded.ndjson`, `statement.json`,
`receipt.json`, `tombstone.json` where there is such a thing, `datacite.json` and `ro-crate-metadata.json` as soon as
the archive can be cited, `checksums/part-NNNN.ndjson.gz` (the manifest of each sealed part), the checksum list of the
whole archive from closing on, and the histories: `history/record-NNNNNN.ndjson` and `metadata/history-NNNNNN.ndjson`,
to which each version adds a segment.

A version is written inside the transaction that holds the archive's row and its journal: write the head, reset the
journal, commit. A crash after the head leaves a head that is ahead of the database; the next version carries the same
changes in segments of the same name, so that nothing is there twice.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection, Row, or_, select, update

from perdure.archives.citing import build_archive_crate, build_datacite, is_citable
from perdure.archives.copying import require_head_copies
from perdure.archives.documents import JsonObject, record_document
from perdure.archives.journal import list_record_changes, lock_journal, record_line
from perdure.archives.model import Archive
from perdure.archives.records import Context, load
from perdure.archives.tables import archives, files, parts, superseded
from perdure.formats.manifest import SupersededEntry, superseded_to_line
from perdure.formats.ocfl import User
from perdure.formats.statement import PartSummary, build_parts_document
from perdure.kernel.errors import PerdureError
from perdure.kernel.ids import short_form
from perdure.metadata.history import change_to_line
from perdure.storage.crash_points import crash_point
from perdure.storage.model import ObjectKind, object_uri

log = structlog.get_logger(__name__)

ARCHIVE_FILE = "archive.json"
STATEMENT_FILE = "statement.json"
ARCHIVE_FORMAT = "archive-record-1"
RECORD_HISTORY = "history/record-"
METADATA_HISTORY = "metadata/history-"
CHECKSUMS_FOLDER = "checksums/"
WRITER = "archive service"
_WRITERS_AT_ONCE = 4  # each holds a connection while storage takes another: more could exhaust the pool
_FOUND_AT_ONCE = 500
_VERSIONS_AT_FULL_PACE = 8
_LONGEST_GATHERING = timedelta(days=7)
_MOST_FOLDERS = 100
_MOST_STEPS = 300

Content = bytes | Path


@dataclass(slots=True)
class HeadChange:
    """One version in the making: `archive` is set to what the use case saved, `files` to what it adds to the head.

    `is_forced` asks for a version also when the record and the metadata are as they were; `needs_copies` that it stands
    verified in as many stores as the profile demands, or nothing is committed.
    """

    tx: Connection
    archive: Archive
    files: dict[str, Content | None] = field(default_factory=dict)
    is_forced: bool = False
    needs_copies: bool = False


@dataclass(frozen=True, slots=True)
class _Pending:
    """An archive's row with the `number` of changes that its head lacks and whether its journal `lags`, and the
    version that its head has in the stores as far as those who wrote it could tell."""

    row: Row[Any]  # Any: a row of archives
    stored_version: int

    @property
    def is_unsettled(self) -> bool:
        """Whether there is no head, or one whose writer died before the archive's row told of it."""
        known: int = self.row.head_version
        return known == 0 or self.stored_version > known


class Heads:
    """Writes head versions; safe to share between threads and to call twice."""

    def __init__(self, context: Context) -> None:
        self._ctx = context
        self._slots = threading.BoundedSemaphore(_WRITERS_AT_ONCE)

    def ensure_written(self, archive_id: UUID) -> int:
        """The archive's head version, written when there is none yet."""
        with self._ctx.db.begin() as tx:
            version = load(tx, archive_id).head_version
        return version or self.fold(archive_id)

    def fold(self, archive_id: UUID) -> int:
        """Write every change that the head lacks as one version, and return the head's version."""
        with self.writing(archive_id, message="Changes of the record") as change:
            pass
        return change.archive.head_version

    @contextmanager
    def writing(self, archive_id: UUID, *, message: str) -> Iterator[HeadChange]:
        """A transaction whose changes stand in the head before they are committed.

        The block saves what it changes through `change.tx`, sets `change.archive` to the outcome, and puts files of
        its own into `change.files`. When it raises, or when storage does, nothing is committed; the head may then be
        ahead, which the next version heals.
        """
        with self._slots, self._ctx.db.begin() as tx:
            lock_journal(tx, archive_id)
            change = HeadChange(tx, load(tx, archive_id, lock=True))
            yield change
            self._write(tx, change, message)

    def fold_quiet(self) -> int:
        """Write the journals that lag and fold what is due; returns how many heads were written. A periodic job."""
        return self._write_pending(self._is_due)

    def catch_up(self) -> int:
        """Write what stands in the database only, and note the heads that are ahead of it; returns how many heads.

        For a process that ends: what stands in a journal goes on gathering there.
        """
        return self._write_pending(lambda tx, pending: pending.is_unsettled)

    def _write_pending(self, is_due: Callable[[Connection, _Pending], bool]) -> int:
        written = 0
        for archive_id, is_head in self._iter_pending(is_due):
            try:
                if is_head:
                    self.fold(archive_id)
                    written += 1
                else:
                    self._ctx.journal.flush(archive_id)
            except PerdureError as error:
                log.warning("head_not_written", archive=short_form(archive_id), error=error.detail)
        return written

    def _iter_pending(self, is_due: Callable[[Connection, _Pending], bool]) -> Iterator[tuple[UUID, bool]]:
        """The archives whose head, or else whose journal, is to be written; whether it is the head."""
        last = UUID(int=0)
        while True:
            with self._ctx.db.begin() as tx:
                batch = [(pending, is_due(tx, pending)) for pending in self._find_pending(tx, last)]
            if not batch:
                return
            yield from ((pending.row.id, is_head) for pending, is_head in batch if is_head or pending.row.lags)
            last = batch[-1][0].row.id

    def _find_pending(self, tx: Connection, after: UUID) -> list[_Pending]:
        a = archives.c
        number = (a.revision - a.head_revision) + (a.metadata_sequence - a.metadata_folded)
        lags = or_(a.journalled < a.revision, a.metadata_journalled < a.metadata_sequence)
        query = select(archives, number.label("number"), lags.label("lags")).where(number > 0, a.id > after)
        rows = tx.execute(query.order_by(a.id).limit(_FOUND_AT_ONCE)).all()
        stored = self._ctx.storage.find_objects(tx, [object_uri(row.id) for row in rows])
        versions = {one.object_id: one.version for one in stored}
        return [_Pending(row, versions.get(object_uri(row.id), 0)) for row in rows]

    def _is_due(self, tx: Connection, pending: _Pending) -> bool:
        row, settings = pending.row, self._ctx.settings
        if pending.is_unsettled or row.number >= settings.head_max_changes:
            return True
        return row.changed_at <= self._ctx.clock.now() - settings.head_quiet and self._has_gathered(tx, row)

    def _has_gathered(self, tx: Connection, row: Row[Any]) -> bool:  # Any: a row of archives
        """Whether the oldest change that the head lacks has waited for others as long as it should."""
        if row.head_version <= _VERSIONS_AT_FULL_PACE:
            return True
        times = [change.at for change in list_record_changes(tx, row.id, after=row.head_revision, limit=1)]
        known = self._ctx.metadata.history(tx, row.id, after_sequence=row.metadata_folded, limit=1)
        oldest: datetime = min([*times, *(change.at for change in known)])
        return self._ctx.clock.now() - oldest >= gathering_time(row.head_version, self._ctx.settings.head_quiet)

    def _write(self, tx: Connection, change: HeadChange, message: str) -> None:
        row = tx.execute(select(archives).where(archives.c.id == change.archive.id)).one()
        with tempfile.TemporaryDirectory(prefix="head-") as folder:
            head = _NextHead(tx, self._ctx, change.archive, row, Path(folder))
            if row.head_version and not (head.has_news or change.files or change.is_forced):
                return
            written = self._ctx.storage.write_head(
                object_uri(change.archive.id),
                change.archive.id,
                ObjectKind.HEAD,
                head.build(change.files),
                message=message if row.head_version else "Opened",
                user=writer(self._ctx),
                created=self._ctx.clock.now(),
            )
        if change.needs_copies:
            require_head_copies(self._ctx, change.archive, written.behind)
        self._ctx.storage.reset_journal(change.archive.id, [])
        crash_point("head.journal_reset")
        tx.execute(update(archives).where(archives.c.id == row.id).values(head_version=written.version, **head.marks()))
        change.archive = load(tx, row.id)


class _NextHead:
    """The files of the next version, built from the database as the transaction sees it."""

    def __init__(self, tx: Connection, ctx: Context, archive: Archive, row: Row[Any], folder: Path) -> None:
        self._tx = tx
        self._ctx = ctx
        self._archive = archive
        self._row = row
        self._number = row.head_version + 1
        self._records = [record_line(change) for change in list_record_changes(tx, row.id, after=row.head_revision)]
        self._metadata_file = folder / "metadata.ndjson"
        self._metadata_sequence, self._chain_digest = self._spool_metadata()

    @property
    def has_news(self) -> bool:
        """Whether there is a change that the head does not carry."""
        return bool(self._records) or self._metadata_sequence > self._row.metadata_folded

    def marks(self) -> JsonObject:
        """How far record and metadata are in head and journal after this version."""
        return {
            "head_revision": self._archive.revision,
            "journalled": self._archive.revision,
            "metadata_sequence": self._metadata_sequence,
            "metadata_folded": self._metadata_sequence,
            "metadata_journalled": self._metadata_sequence,
        }

    def build(self, extra: Mapping[str, Content | None]) -> dict[str, Content | None]:
        """Logical paths with their content."""
        changes: dict[str, Content | None] = {ARCHIVE_FILE: _document(self._record())}
        if self._records:
            changes[segment_name(RECORD_HISTORY, self._number)] = b"".join(line + b"\n" for line in self._records)
        if self._metadata_sequence > self._row.metadata_folded:
            changes[segment_name(METADATA_HISTORY, self._number)] = self._metadata_file
        sealed = list_part_summaries(self._tx, self._archive.id)
        changes["parts.json"] = _document(build_parts_document(sealed)) if sealed else None
        replaced = list_superseded(self._tx, self._archive.id)
        changes["superseded.ndjson"] = b"".join(map(superseded_to_line, replaced)) if replaced else None
        for name, value in self._signed().items():
            changes[name] = _document(value) if value is not None else None
        return {**changes, **self._citations(changes), **extra}

    def _record(self) -> JsonObject:
        return {
            "format": ARCHIVE_FORMAT,
            "id": self._archive.id.urn,
            "short_id": short_form(self._archive.id),
            "revision": self._archive.revision,
            "metadata": {"sequence": self._metadata_sequence, "chain_digest": self._chain_digest},
            "identifier_state": self._row.identifier_state,
            "grants": self._ctx.identity.export_grants(self._tx, self._archive.id),
            "stands_on": self._ctx.identity.export_standing(
                self._tx, archive_id=self._archive.id, account_id=self._archive.account_id
            ),
            **record_document(self._archive),
        }

    def _signed(self) -> JsonObject:
        return {
            STATEMENT_FILE: self._archive.statement,
            "receipt.json": self._row.receipt,
            "tombstone.json": self._archive.tombstone,
        }

    def _citations(self, changes: Mapping[str, Content | None]) -> dict[str, Content | None]:
        archive = self._archive
        if not is_citable(archive.description):
            return {}
        page, parent = self._ctx.settings.public_url, find_parent_identifier(self._tx, archive)
        present = [name for name, content in changes.items() if content is not None]
        folders = find_top_folders(self._tx, archive.id) if archive.closed_at else []
        record = build_datacite(archive, public_url=page, parent_identifier=parent)
        crate = build_archive_crate(archive, public_url=page, parent_identifier=parent, files=present, folders=folders)
        return {"datacite.json": _document(record), "ro-crate-metadata.json": _document(crate)}

    def _spool_metadata(self) -> tuple[int, str]:
        """Write the lines that the head lacks into a file: the first version may carry hundreds of megabytes."""
        state = self._ctx.metadata.state(self._tx, self._row.id)
        sequence, digest = self._row.metadata_folded, state.chain_digest
        with self._metadata_file.open("wb") as spool:
            for change in self._ctx.metadata.iter_changes(self._tx, self._row.id, self._row.metadata_folded):
                spool.write(change_to_line(change))
                sequence, digest = change.sequence, change.digest
        return sequence, digest


def gathering_time(head_version: int, head_quiet: timedelta) -> timedelta:
    """How long changes gather before a head gets a version for them.

    Each inventory lists the files of every version, so that a version costs more the more there are: heads that have
    many get new ones less often. What waits is safe in the journal meanwhile.
    """
    return min(head_quiet * max(1.0, (head_version / _VERSIONS_AT_FULL_PACE) ** 2), _LONGEST_GATHERING)


def segment_name(prefix: str, number: int) -> str:
    """The name of a segment of a history; names sort in the order of their lines."""
    return f"{prefix}{number:06d}.ndjson"


def writer(ctx: Context) -> User:
    """Who versions are written by: the installation; who changed what stands in the histories."""
    return User(WRITER, ctx.settings.instance_id.urn)


def list_part_summaries(tx: Connection, archive_id: UUID) -> list[PartSummary]:
    """The sealed parts, as `parts.json` and the closing statement list them."""
    sealed = select(parts).where(parts.c.archive_id == archive_id, parts.c.inventory_digest.is_not(None))
    return [
        PartSummary(row.number, row.id, row.file_count, row.byte_count, row.inventory_digest, row.manifest_digest)
        for row in tx.execute(sealed.order_by(parts.c.number))
    ]


def list_superseded(tx: Connection, archive_id: UUID) -> list[SupersededEntry]:
    """What sealed parts hold and the archive does not show, sorted."""
    query = select(superseded).where(superseded.c.archive_id == archive_id)
    rows = tx.execute(query.order_by(superseded.c.part, superseded.c.path))
    return [SupersededEntry(row.part, row.path) for row in rows]


def find_parent_identifier(tx: Connection, archive: Archive) -> str | None:
    """The identifier of the archive that this one was appended to."""
    if archive.parent_id is None:
        return None
    return load(tx, archive.parent_id).identifier or archive.parent_id.urn


def find_top_folders(tx: Connection, archive_id: UUID) -> list[str]:
    """The topmost folders by name, as many as a crate names, found without walking what is in them."""
    found: list[str] = []
    start = b""
    for _ in range(_MOST_STEPS):
        query = select(files.c.path).where(files.c.archive_id == archive_id, files.c.path >= start)
        path = tx.execute(query.order_by(files.c.path).limit(1)).scalar_one_or_none()
        if path is None or len(found) == _MOST_FOLDERS:
            break
        top, is_below, _ = path.partition(b"/")
        if is_below:
            found.append(top.decode("utf-8", "backslashreplace"))
        start = top + b"0" if is_below else path + b"\0"
    return found


def _document(value: Mapping[str, Any]) -> bytes:
    return json.dumps(dict(value), indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"
