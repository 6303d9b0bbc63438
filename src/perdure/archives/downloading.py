"""Pack an archive, folders or files of it as ZIP or tar while it is read.

Of a closed archive every byte of the ZIP is settled beforehand, so it has a length, a strong ETag and ranges. All lies
below one folder, named from the title that was closed and the identifier; beside the content lie the checksum list,
the manifest of what was selected, and the closing statement.
"""

from __future__ import annotations

import pickle
import re
import tempfile
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import BinaryIO, Literal
from uuid import UUID

from sqlalchemy import Connection

from perdure.archives.entries import find_visible, iter_pages
from perdure.archives.errors import EntryNotFoundError
from perdure.archives.layers import list_layers, to_manifest_entry
from perdure.archives.listing import find_folder
from perdure.archives.manifests import union_line
from perdure.archives.model import Archive, ArchiveState, Entry, EntryKind
from perdure.archives.reading import PartFinder, read_entry
from perdure.archives.records import Context, require_archive, require_state
from perdure.archives.union import after, end_of_folder, start_of_folder
from perdure.formats.archive_files import ZipMember, iter_tar, iter_zip, iter_zip_range, zip_length
from perdure.formats.canonical import canonical_json
from perdure.formats.manifest import checksum_list_name, entry_to_line, sha512sum_line
from perdure.formats.statement import statement_digest
from perdure.identity.model import Action, sees_all_of
from perdure.kernel.actor import Actor, LinkScope
from perdure.kernel.errors import BadInputError
from perdure.kernel.ids import short_form
from perdure.kernel.paths import check_path, common_folder, display_path

Form = Literal["zip", "tar"]
_LAYOUT = 1  # part of the ETag: raise it when the same content would be packed into other bytes
_PIECE = 1 << 20
_MOST_SELECTIONS = 1000
_REMEMBERED = 256
_LONGEST_TITLE = 60
_NO_TITLE = "archive"


@dataclass(frozen=True, slots=True)
class PackedMember(ZipMember):
    """A member with the entry or the document that its content is."""

    entry: Entry | None = None
    document: str | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """A file that is made while it is read; length and ETag are known for the ZIP of a closed archive."""

    filename: str
    length: int | None
    etag: str | None
    read: Callable[[int, int | None], Iterator[bytes]] = field(repr=False)
    """The bytes from a start to before an end; a download without length is read whole: from 0 to None."""


@dataclass(frozen=True, slots=True)
class _Document:
    """A file beside the content: its place in the package, and its length and CRC-32."""

    name: bytes
    size: int
    crc32: int


@dataclass(frozen=True, slots=True)
class _Layout:
    """What costs one pass over all entries to know."""

    documents: tuple[_Document, ...]
    length: int


class Downloading:
    """Use cases of those who take content with them."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._layouts: OrderedDict[str, _Layout] = OrderedDict()
        self._lock = threading.Lock()

    def plan_download(
        self, actor: Actor, archive_id: UUID, selections: Sequence[bytes] = (), form: Form = "zip"
    ) -> Download:
        """Pack the selected files and folders, or all, as the union shows them; raises EntryNotFoundError."""
        if len(selections) > _MOST_SELECTIONS:
            raise BadInputError(f"At most {_MOST_SELECTIONS} files and folders are packed at once.", field="path")
        with self._ctx.db.begin() as tx:
            chosen = _reduce(selections)
            archive = require_archive(tx, self._ctx, actor, Action.READ, archive_id, path=common_folder(chosen))
            require_state(archive, ArchiveState.OPEN, ArchiveState.CLOSING, ArchiveState.CLOSED)
            layers = list_layers(tx, archive_id)
            for path in chosen:
                _require_present(tx, layers, path)
            package = _Package(self._ctx, archive, layers, chosen, actor)
            prefix = _free_prefix(tx, layers, package.document_names(), actor.link)
        package.document_prefix = prefix
        if archive.state is not ArchiveState.CLOSED:
            return Download(f"{package.top}.{form}", None, None, lambda start, end: package.iter_open(form))
        etag = package.make_etag(form)
        layout = self._find_layout(etag, package)
        if form == "tar":
            return Download(f"{package.top}.tar", None, None, lambda start, end: package.iter_tar(layout.documents))
        return Download(
            f"{package.top}.zip",
            layout.length,
            f'"{etag}"',
            lambda start, end: package.iter_zip(layout, start, layout.length if end is None else end),
        )

    def _find_layout(self, etag: str, package: _Package) -> _Layout:
        with self._lock:
            found = self._layouts.get(etag)
        if found is None:
            found = package.measure()
            with self._lock:
                self._layouts[etag] = found
                if len(self._layouts) > _REMEMBERED:
                    self._layouts.popitem(last=False)
        return found


class _Package:
    """One selection of one archive: its members, always in the same order."""

    def __init__(
        self, ctx: Context, archive: Archive, layers: Sequence[UUID], chosen: Sequence[bytes], actor: Actor
    ) -> None:
        self._ctx = ctx
        self._archive = archive
        self._layers = layers
        self._chosen = chosen
        self._finder = PartFinder(ctx)
        # The statement counts all that the archive holds, and names it
        is_whole, link = sees_all_of(actor, archive.id), actor.link
        is_stated = archive.statement is not None and is_whole
        self._statement = canonical_json(dict(archive.statement or {})) + b"\n" if is_stated else b""
        title = str(archive.statement["title"]) if archive.statement else archive.description.title
        self.top = f"{_slug(title)}-{short_form(archive.id)[:9]}"
        if link is None and not is_whole:
            self.top = f"archive-{short_form(archive.id)[:9]}"
        if link is not None and link.below:
            self.top = _slug(display_path(link.below.rpartition(b"/")[2]))
        self.document_prefix = b""

    def document_names(self) -> list[bytes]:
        algorithm = self._archive.profile.digests[0]
        names = [checksum_list_name(algorithm).encode(), b"manifest.ndjson"]
        return [*names, b"statement.json"] if self._statement else names

    def make_etag(self, form: Form) -> str:
        """Changes with every byte of the package: the statement names title and content, the layers are closed."""
        told: dict[str, object] = {
            "layout": _LAYOUT,
            "form": form,
            "statement": statement_digest(self._archive.statement or {}),
            "layers": [str(layer) for layer in self._layers],
            "chosen": [path.hex() for path in self._chosen],
        }
        if not self._statement:
            told["top"] = self.top  # the same content as others have it, in another folder and without the statement
        return sha256(canonical_json(told)).hexdigest()

    def measure(self) -> _Layout:
        """Length and CRC-32 of the documents, and the length of the ZIP."""
        documents = tuple(self._measure_document(name) for name in self.document_names())
        return _Layout(documents, zip_length(self._iter_members(documents)))

    def iter_zip(self, layout: _Layout, start: int, end: int) -> Iterator[bytes]:
        pieces = iter_zip_range(lambda: self._iter_members(layout.documents), start, end, self._read)
        return _gather(pieces)

    def iter_tar(self, documents: Sequence[_Document]) -> Iterator[bytes]:
        return _gather(iter_tar(self._iter_members(documents), self._read))

    def iter_open(self, form: Form) -> Iterator[bytes]:
        """Pack what is there at this moment: the members are noted down first, because the archive may change."""
        with tempfile.TemporaryFile() as notes:
            for entry in self._iter_entries():
                pickle.dump(entry, notes)
            frozen = _Frozen(self, notes)
            documents = tuple(frozen.measure_document(name) for name in self.document_names())
            if form == "tar":
                yield from _gather(iter_tar(frozen.iter_members(documents), frozen.read))
            else:
                yield from _gather(iter_zip(lambda: frozen.iter_members(documents), frozen.read))

    def iter_document(self, name: bytes, entries: Iterable[Entry]) -> Iterator[bytes]:
        """The bytes of a document about these entries."""
        if name == b"statement.json":
            yield self._statement
            return
        for entry in entries:
            if name == b"manifest.ndjson":
                yield union_line(entry) if len(self._layers) > 1 else entry_to_line(to_manifest_entry(entry))
            elif entry.kind is EntryKind.FILE:
                yield sha512sum_line(to_manifest_entry(entry), self._archive.profile.digests[0])

    def to_member(self, entry: Entry) -> PackedMember:
        kind: Literal["file", "directory", "symlink"] = (
            "file" if entry.kind is EntryKind.FILE else "symlink" if entry.kind is EntryKind.SYMLINK else "directory"
        )
        return PackedMember(
            name=self.top.encode() + b"/" + entry.path,
            size=entry.size,
            crc32=int(entry.digests["crc32"], 16) if kind == "file" else 0,
            mtime=None if entry.mtime_ns is None else entry.mtime_ns // 10**9,
            mode=entry.mode,
            kind=kind,
            target=entry.target or b"",
            entry=entry,
        )

    def document_member(self, document: _Document) -> PackedMember:
        name = self.top.encode() + b"/" + self.document_prefix + document.name
        return PackedMember(name, document.size, document.crc32, document=document.name.decode())

    def read_content(self, entry: Entry, offset: int, length: int) -> Iterator[bytes]:
        return read_entry(self._ctx, entry, offset, length, self._finder)

    def _read(self, member: PackedMember, offset: int, length: int) -> Iterator[bytes]:
        if member.entry is not None:
            return self.read_content(member.entry, offset, length)
        assert member.document is not None
        return _cut(self.iter_document(member.document.encode(), self._iter_entries()), offset, length)

    def _iter_members(self, documents: Sequence[_Document]) -> Iterator[PackedMember]:
        yield from map(self.to_member, self._iter_entries())
        yield from map(self.document_member, documents)

    def _measure_document(self, name: bytes) -> _Document:
        return measure(name, self.iter_document(name, self._iter_entries()))

    def _iter_entries(self) -> Iterator[Entry]:
        if not self._chosen:
            yield from iter_pages(self._ctx.db, self._layers)
        for path in self._chosen:
            yield from iter_pages(self._ctx.db, self._layers, start=path, end=after(path))
            yield from iter_pages(self._ctx.db, self._layers, start=start_of_folder(path), end=end_of_folder(path))


class _Frozen:
    """The members of a package as they were at one moment, noted in a file."""

    def __init__(self, package: _Package, notes: BinaryIO) -> None:
        self._package = package
        self._notes = notes
        self._end = notes.tell()

    def iter_members(self, documents: Sequence[_Document]) -> Iterator[PackedMember]:
        yield from map(self._package.to_member, self._iter_entries())
        yield from map(self._package.document_member, documents)

    def measure_document(self, name: bytes) -> _Document:
        return measure(name, self._package.iter_document(name, self._iter_entries()))

    def read(self, member: PackedMember, offset: int, length: int) -> Iterator[bytes]:
        if member.entry is not None:
            return self._package.read_content(member.entry, offset, length)
        assert member.document is not None
        document = self._package.iter_document(member.document.encode(), self._iter_entries())
        return _cut(document, offset, length)

    def _iter_entries(self) -> Iterator[Entry]:
        position = 0
        while position < self._end:
            self._notes.seek(position)
            entry: Entry = pickle.load(self._notes)  # noqa: S301  # our own notes, in a file that has no name
            position = self._notes.tell()
            yield entry


def measure(name: bytes, pieces: Iterable[bytes]) -> _Document:
    """Length and CRC-32 of a document."""
    size = checksum = 0
    for piece in pieces:
        size += len(piece)
        checksum = zlib.crc32(piece, checksum)
    return _Document(name, size, checksum)


def _reduce(selections: Sequence[bytes]) -> list[bytes]:
    """The selections sorted, without those inside another."""
    chosen: list[bytes] = []
    for path in sorted({check_path(path.rstrip(b"/")) for path in selections if path.strip(b"/")}):
        if not any(path.startswith(folder + b"/") for folder in chosen):
            chosen.append(path)
    return chosen


def _require_present(tx: Connection, layers: Sequence[UUID], path: bytes) -> None:
    if not find_visible(tx, layers, [path]) and find_folder(tx, layers, path) is None:
        raise EntryNotFoundError(f"There is nothing at {display_path(path)!r}.", path=display_path(path))


def _free_prefix(tx: Connection, layers: Sequence[UUID], names: Sequence[bytes], link: LinkScope | None) -> bytes:
    """What to put before the documents' names so that none is that of a user's file or folder."""
    top = link.below.partition(b"/")[0] if link is not None else b""

    def is_taken(name: bytes) -> bool:
        if top:  # what lies elsewhere is not told, not even by its being avoided
            return name == top
        return bool(find_visible(tx, layers, [name])) or find_folder(tx, layers, name) is not None

    prefix = b""
    while any(is_taken(prefix + name) for name in names):
        prefix += b"_"
    return prefix


def _slug(title: str) -> str:
    """A title as a name that every system takes."""
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-._")
    return words[:_LONGEST_TITLE].rstrip("-._") or _NO_TITLE


def _cut(pieces: Iterable[bytes], offset: int, length: int) -> Iterator[bytes]:
    """The bytes [offset, offset + length) of a stream."""
    position = 0
    for piece in pieces:
        first, last = max(offset - position, 0), min(offset + length - position, len(piece))
        if first < last:
            yield piece[first:last]
        position += len(piece)
        if position >= offset + length:
            return


def _gather(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces that are worth a hop between threads."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= _PIECE:
            yield b"".join(held)
            held, size = [], 0
    if size:
        yield b"".join(held)
