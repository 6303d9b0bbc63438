"""Read an archive: its entries, the bytes of a file, manifests and proofs, copies."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal
from uuid import UUID

from sqlalchemy import Connection, func, select

from perdure.archives.entries import count_entries, find_own, find_visible, iter_pages
from perdure.archives.errors import (
    ContentMovingError,
    EntryNotFoundError,
    NotAFileError,
    NotClosedError,
    ReceiptNotReadyError,
    TooManyItemsError,
)
from perdure.archives.expecting import content_etag
from perdure.archives.items import MAX_BATCH_FILES, MAX_READ_BYTES
from perdure.archives.layers import list_layers, to_manifest_entry
from perdure.archives.listing import EntryPage, find_folder, list_folder, list_tree
from perdure.archives.manifests import iter_open_lines, iter_sealed_lines, union_line
from perdure.archives.model import Archive, ArchiveState, Entry, EntryKind, PartState
from perdure.archives.placing import list_parts
from perdure.archives.records import Context, require_archive, require_state
from perdure.archives.tables import archives, files, parts
from perdure.formats.content_paths import hashed_content_path, natural_content_path
from perdure.formats.manifest import iter_sha512sum_lines
from perdure.formats.merkle import inclusion_proof
from perdure.formats.statement import ContentCounts
from perdure.identity.model import Action
from perdure.kernel.actor import Actor
from perdure.kernel.errors import BadInputError
from perdure.kernel.paths import check_path, common_folder, display_path
from perdure.storage.errors import UnknownObjectError
from perdure.storage.model import CopyState, PartRef, object_uri

Layers = Literal["union", "own"]
MAX_PAGE = 10_000
_READABLE = (ArchiveState.OPEN, ArchiveState.CLOSING, ArchiveState.CLOSED)
_MOVING_LOOKS = 20
_MOVING_WAIT = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class CopyView:
    """One copy of one object; `part` is None for the head. `evidence` says how it was read back."""

    part: int | None
    store: str
    medium: str
    location: str
    state: CopyState
    written_at: datetime | None
    verified_at: datetime | None
    evidence: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """That `line` is leaf `index` of the `size` leaves under `root`; steps are hexadecimal, nearest sibling first."""

    line: bytes
    index: int
    size: int
    root: str
    steps: list[str]


class PartFinder:
    """Where parts are, asked for once; what is remembered of a part that is not sealed may be old."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._known: dict[tuple[UUID, int | None], tuple[PartRef, PartState]] = {}

    def find(self, entry: Entry, *, anew: bool = False) -> tuple[PartRef, PartState]:
        """The part that holds an entry, and its state; looked up `anew` when the file was not where it should be."""
        key = (entry.archive_id, entry.part)
        known = self._known.get(key)
        if known is not None and (known[1] is PartState.SEALED or not anew):
            return known
        query = select(parts.c.id, parts.c.state).where(
            parts.c.archive_id == entry.archive_id, parts.c.number == entry.part
        )
        with self._ctx.db.begin() as tx:
            row = tx.execute(query).one()
        found = PartRef(entry.archive_id, row.id), PartState(row.state)
        self._known[key] = found
        return found


class Content:
    """The bytes of one file. `etag` is opaque and strong: other bytes have another one."""

    def __init__(self, ctx: Context, entry: Entry) -> None:
        self._ctx = ctx
        self.entry = entry
        self.etag = content_etag(entry)

    def read(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Blocks of up to 1 MiB from `offset` on."""
        wanted = self.entry.size - offset if length is None else min(length, self.entry.size - offset)
        return read_entry(self._ctx, self.entry, offset, wanted) if wanted > 0 else iter(())

    def local_path(self) -> Path | None:
        """Where this machine can open the file by itself, or None: then `read`."""
        part, state = PartFinder(self._ctx).find(self.entry)
        if state is not PartState.SEALED:
            return None
        return self._ctx.storage.local_path(part.object_id, self.entry.content or "", size=self.entry.size)


@dataclass(frozen=True, slots=True)
class BatchPart:
    """What a batch has for one path: the file, or the reason why its bytes are not among the contents."""

    path: bytes
    entry: Entry | None
    reason: str | None = None


class ContentBatch:
    """The bytes of many small files, one behind the other in the order of the parts that have an entry."""

    def __init__(self, ctx: Context, parts_: Sequence[BatchPart]) -> None:
        self._ctx = ctx
        self.parts = tuple(parts_)
        self.size = sum(part.entry.size for part in parts_ if part.entry is not None)

    def read(self) -> Iterator[bytes]:
        """All contents; raises when one of them is not what its entry says in length."""
        finder = PartFinder(self._ctx)
        for part in self.parts:
            if part.entry is None or not part.entry.size:
                continue
            sent = 0
            for block in read_entry(self._ctx, part.entry, 0, part.entry.size, finder):
                sent += len(block)
                yield block
            if sent != part.entry.size:
                raise ContentMovingError(f"{display_path(part.path)!r} changed while it was read.")


class Reading:
    """Use cases of those who may read an archive."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def list_entries(
        self,
        actor: Actor,
        archive_id: UUID,
        *,
        folder: bytes = b"",
        recursive: bool = False,
        cursor: str | None = None,
        limit: int = 1000,
        layers: Layers = "union",
    ) -> EntryPage:
        """A page of a folder, or of everything below it; `b""` is the top. The `archive_id` of an entry is its layer.

        Raises EntryNotFoundError for a folder that is not there.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise BadInputError(f"A page has 1 to {MAX_PAGE} entries.", field="limit")
        if folder:
            check_path(folder)
        with self._ctx.db.begin() as tx:
            chain = self._require_layers(tx, actor, archive_id, layers, folder)
            listing = list_tree if recursive else list_folder
            page = listing(tx, chain, folder, cursor=cursor, limit=limit)
            if folder and not page.items and cursor is None:
                _require_folder(tx, chain, folder)
            return replace(page, items=self._with_metadata(tx, archive_id, page.items))

    def stat(self, actor: Actor, archive_id: UUID, path: bytes) -> Entry:
        """What is at a path; a folder without an entry of its own is made up. Raises EntryNotFoundError."""
        check_path(path)
        with self._ctx.db.begin() as tx:
            entry = _find_entry(tx, self._require_layers(tx, actor, archive_id, "union", path), path)
            return self._with_metadata(tx, archive_id, [entry])[0]

    def _with_metadata(self, tx: Connection, archive_id: UUID, entries: Sequence[Entry]) -> list[Entry]:
        """The entries with the digests of what the archive says of them."""
        found = self._ctx.metadata.digests(tx, archive_id, [entry.path for entry in entries])
        return [
            entry._replace(metadata_digest=found[entry.path].digest) if entry.path in found else entry
            for entry in entries
        ]

    def open_content(self, actor: Actor, archive_id: UUID, path: bytes) -> Content:
        """A file's bytes; raises EntryNotFoundError and NotAFileError."""
        entry = self.stat(actor, archive_id, path)
        if entry.kind is not EntryKind.FILE:
            raise NotAFileError(f"{display_path(path)!r} is a {entry.kind.value}.", kind=entry.kind.value)
        return Content(self._ctx, entry)

    def open_batch(self, actor: Actor, archive_id: UUID, paths: Sequence[bytes]) -> ContentBatch:
        """Many small files in one answer; what is no file, or no longer fits into the batch, is told with its reason.

        Raises TooManyItemsError.
        """
        if len(paths) > MAX_BATCH_FILES:
            raise TooManyItemsError(f"{len(paths)} paths; a batch takes {MAX_BATCH_FILES}.")
        for path in paths:
            check_path(path)
        with self._ctx.db.begin() as tx:
            shown = find_visible(tx, self._require_layers(tx, actor, archive_id, "union", common_folder(paths)), paths)
        return ContentBatch(self._ctx, _fill_batch(paths, shown))

    def counts(self, actor: Actor, archive_id: UUID) -> ContentCounts:
        """What the archive holds of its own."""
        with self._ctx.db.begin() as tx:
            self._require(tx, actor, archive_id)
            return to_counts(count_entries(tx, archive_id))

    # Manifests and proofs

    def iter_manifest(self, actor: Actor, archive_id: UUID, layers: Layers = "union") -> Iterator[bytes]:
        """Manifest lines sorted by path.

        Those of a closed archive's own layer are the leaves of its Merkle tree. In a union of several layers a line
        also names its layer.
        """
        with self._ctx.db.begin() as tx:
            archive = self._require(tx, actor, archive_id)
            chain = list_layers(tx, archive_id) if layers == "union" else [archive_id]
        return self._iter_lines(archive, chain)

    def iter_checksums(self, actor: Actor, archive_id: UUID, layers: Layers = "union") -> Iterator[bytes]:
        """The files' content digests as lines that `sha512sum -c` (or `sha256sum -c`) reads."""
        with self._ctx.db.begin() as tx:
            archive = self._require(tx, actor, archive_id)
            chain = list_layers(tx, archive_id) if layers == "union" else [archive_id]
        return self._iter_checksums(archive, chain)

    def inclusion_proof(self, actor: Actor, archive_id: UUID, path: bytes) -> InclusionProof:
        """That the closing statement covers the archive's own entry at a path."""
        check_path(path)
        with self._ctx.db.begin() as tx:
            archive = self._require(tx, actor, archive_id)
            statement = _require_statement(archive)
            here = select(func.count()).where(files.c.archive_id == archive_id)
            index = tx.execute(here.where(files.c.path < path)).scalar_one()
            if not tx.execute(here.where(files.c.path == path)).scalar_one():
                raise EntryNotFoundError(f"The archive itself has nothing at {display_path(path)!r}.")
        found: list[bytes] = []
        steps = inclusion_proof(_keep(iter_sealed_lines(self._ctx, archive_id), index, found), index)
        merkle = statement["merkle"]
        assert isinstance(merkle, dict)
        return InclusionProof(found[0], index, merkle["size"], merkle["root"], steps)

    def statement(self, actor: Actor, archive_id: UUID) -> Mapping[str, object]:
        """The signed closing statement; raises NotClosedError."""
        with self._ctx.db.begin() as tx:
            return _require_statement(self._require(tx, actor, archive_id))

    def receipt(self, actor: Actor, archive_id: UUID) -> Mapping[str, object]:
        """The signed receipt that allows the source to be deleted; raises ReceiptNotReadyError."""
        with self._ctx.db.begin() as tx:
            _require_statement(self._require(tx, actor, archive_id))
            receipt = tx.execute(select(archives.c.receipt).where(archives.c.id == archive_id)).scalar_one()
        if receipt is None:
            raise ReceiptNotReadyError("Not as many copies are verified yet as the profile demands.")
        found: Mapping[str, object] = receipt
        return found

    def copies(self, actor: Actor, archive_id: UUID) -> list[CopyView]:
        """Every copy of the head and of the sealed parts, parts by number after the head."""
        with self._ctx.db.begin() as tx:
            self._require(tx, actor, archive_id)
            numbers: dict[str, int | None] = {object_uri(archive_id): None}
            sealed = [part for part in list_parts(tx, archive_id) if part.state is PartState.SEALED]
            numbers |= {object_uri(part.id): part.number for part in sealed}
            found = self._ctx.storage.copies(tx, numbers)
        stores = {store.id: store for store in self._ctx.storage.stores()}
        return [
            CopyView(
                part=numbers[object_id],
                store=stores[copy.store_id].name if copy.store_id in stores else str(copy.store_id),
                medium=stores[copy.store_id].medium if copy.store_id in stores else "",
                location=stores[copy.store_id].location if copy.store_id in stores else "",
                state=copy.state,
                written_at=copy.written_at,
                verified_at=copy.verified_at,
                evidence=copy.evidence,
            )
            for object_id in numbers
            for copy in found[object_id]
        ]

    def _require(self, tx: Connection, actor: Actor, archive_id: UUID, path: bytes | None = None) -> Archive:
        archive = require_archive(tx, self._ctx, actor, Action.READ, archive_id, path=path)
        require_state(archive, *_READABLE)
        return archive

    def _require_layers(
        self, tx: Connection, actor: Actor, archive_id: UUID, layers: Layers, path: bytes
    ) -> list[UUID]:
        self._require(tx, actor, archive_id, path)
        return list_layers(tx, archive_id) if layers == "union" else [archive_id]

    def _iter_lines(self, archive: Archive, chain: list[UUID]) -> Iterator[bytes]:
        if len(chain) > 1:
            yield from map(union_line, iter_pages(self._ctx.db, chain))
        elif archive.state is ArchiveState.CLOSED:
            yield from iter_sealed_lines(self._ctx, archive.id)
        else:
            yield from iter_open_lines(self._ctx, archive.id)

    def _iter_checksums(self, archive: Archive, chain: list[UUID]) -> Iterator[bytes]:
        entries = map(to_manifest_entry, iter_pages(self._ctx.db, chain))
        return iter_sha512sum_lines(entries, archive.profile.digests[0])


def _fill_batch(paths: Sequence[bytes], shown: Mapping[bytes, Entry]) -> list[BatchPart]:
    """Take the files in their order as long as they fit."""
    filled: list[BatchPart] = []
    left = MAX_READ_BYTES
    for path in paths:
        entry = shown.get(path)
        if entry is None or entry.kind is not EntryKind.FILE:
            filled.append(BatchPart(path, None, "there is no file at this path"))
        elif entry.size > left:
            filled.append(BatchPart(path, None, "it does not fit into this batch; read it by itself"))
        else:
            filled.append(BatchPart(path, entry))
            left -= entry.size
    return filled


def read_entry(
    ctx: Context, entry: Entry, offset: int, length: int, finder: PartFinder | None = None
) -> Iterator[bytes]:
    """Blocks of a file, wherever it lies, also while sealing moves it.

    Raises ContentMovingError when that lasts, or when another file has come to its path.
    """
    finder = finder or PartFinder(ctx)
    for attempt in range(_MOVING_LOOKS):
        part, state = finder.find(entry, anew=attempt > 0)
        for blocks in _iter_places(ctx, entry, part, state, offset, length):
            try:
                first = next(blocks, b"")
            except UnknownObjectError:
                continue
            if state is not PartState.SEALED:
                _find_same(ctx, entry)  # the name of a file that was replaced is given to others
            yield bytes(first)
            yield from map(bytes, blocks)
            return
        if attempt:
            time.sleep(_MOVING_WAIT)
        entry = _find_same(ctx, entry)  # the row tells where sealing has put it
    raise ContentMovingError(f"{display_path(entry.path)!r} is being sealed.")


def _find_same(ctx: Context, entry: Entry) -> Entry:
    """The entry as it stands; raises ContentMovingError when its path has other content by this time, or none."""
    with ctx.db.begin() as tx:
        found = find_own(tx, entry.archive_id, [entry.path]).get(entry.path)
    if found is None or found.digests != entry.digests:
        raise ContentMovingError(f"{display_path(entry.path)!r} was replaced or removed meanwhile.")
    return found


def _iter_places(
    ctx: Context, entry: Entry, part: PartRef, state: PartState, offset: int, length: int
) -> Iterator[Iterator[bytes]]:
    """Where the file may lie, the surest place first.

    Sealing gives a file its final name only after it has set aside whatever else had that name, so once the file is
    not at the name in its row, what has the final name is this file.
    """
    content = entry.content or ""
    if state is PartState.SEALED:
        yield ctx.storage.read_object(part.object_id, content, offset, length, size=entry.size)
        return
    yield ctx.storage.read_staged(part, content, offset, length)
    if state is PartState.SEALING:
        for final in (natural_content_path(entry.path), hashed_content_path(entry.path)):
            if final is not None:
                yield ctx.storage.read_staged(part, final, offset, length)


def to_counts(found: Mapping[EntryKind, tuple[int, int]]) -> ContentCounts:
    """Counts by kind as the closing statement has them."""
    number = {kind: count for kind, (count, _) in found.items()}
    return ContentCounts(
        files=number.get(EntryKind.FILE, 0),
        directories=number.get(EntryKind.DIRECTORY, 0),
        symlinks=number.get(EntryKind.SYMLINK, 0),
        hidden=number.get(EntryKind.HIDDEN, 0),
        size=found.get(EntryKind.FILE, (0, 0))[1],
    )


def _find_entry(tx: Connection, layers: list[UUID], path: bytes) -> Entry:
    entry = find_visible(tx, layers, [path]).get(path) or find_folder(tx, layers, path)
    if entry is None:
        raise EntryNotFoundError(f"There is nothing at {display_path(path)!r}.", path=display_path(path))
    return entry


def _require_folder(tx: Connection, layers: list[UUID], folder: bytes) -> None:
    if _find_entry(tx, layers, folder).kind is not EntryKind.DIRECTORY:
        raise EntryNotFoundError(f"{display_path(folder)!r} is not a folder.", path=display_path(folder))


def _require_statement(archive: Archive) -> Mapping[str, object]:
    if archive.statement is None:
        raise NotClosedError(f"The archive is {archive.state.value}.", state=archive.state.value)
    return archive.statement


def _keep(lines: Iterator[bytes], index: int, found: list[bytes]) -> Iterator[bytes]:
    """Pass lines on and keep the one at an index."""
    for number, line in enumerate(lines):
        if number == index:
            found.append(line)
        yield line
