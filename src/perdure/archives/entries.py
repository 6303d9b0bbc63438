"""The rows of `files`: entries of the archives' layers, read sorted and loaded in bulk."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Connection,
    Dialect,
    Integer,
    Row,
    Select,
    Uuid,
    and_,
    bindparam,
    delete,
    func,
    literal,
    or_,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.types import UserDefinedType

from perdure.archives.model import Entry, EntryKind
from perdure.archives.tables import files
from perdure.archives.union import (
    Blocker,
    LayerEntry,
    after,
    end_of_folder,
    iter_union,
    possible_blockers,
    resolve,
    start_of_folder,
)
from perdure.db import Database
from perdure.formats.content_paths import hashed_content_path, natural_content_path
from perdure.formats.manifest import ManifestEntry
from perdure.kernel.digests import DIGEST_LENGTHS
from perdure.kernel.paths import find_ancestors

_KINDS = (EntryKind.FILE, EntryKind.DIRECTORY, EntryKind.SYMLINK, EntryKind.HIDDEN)
_CODES = {kind: code for code, kind in enumerate(_KINDS)}
_FILE = _CODES[EntryKind.FILE]
_HIDDEN = _CODES[EntryKind.HIDDEN]
_FOLDERLESS = (_CODES[EntryKind.FILE], _CODES[EntryKind.SYMLINK])
_CONTENT_DIGEST_BY_SIZE = {64: "sha512", 32: "sha256"}
_CHUNK = 5_000
_STRETCH = 250  # paths
COLUMNS = (
    "archive_id", "kind", "size", "mtime_ns", "mode", "path", "digest", "crc32", "digests", "target", "part",
    "content", "added_at",
)  # fmt: skip
_OF_MANIFESTS = ("path", "kind", "size", "mtime_ns", "mode", "digest", "crc32", "digests", "target", "content")


def default_content(path: bytes) -> str:
    """Where a file lies below its part's content folder unless its row says otherwise."""
    return natural_content_path(path) or hashed_content_path(path)


def row_to_entry(row: Row[Any]) -> Entry:  # Any: a row of this table, whose columns SQLAlchemy does not type
    kind = _KINDS[row.kind]
    is_file = kind is EntryKind.FILE
    return Entry(
        archive_id=row.archive_id,
        path=row.path,
        kind=kind,
        size=row.size,
        mtime_ns=row.mtime_ns,
        mode=row.mode,
        digests=_read_digests(row.digest, row.crc32, row.digests) if is_file else {},
        target=row.target,
        part=row.part or None,
        content=(row.content or default_content(row.path)) if is_file else None,
        added_at=row.added_at,
    )


def list_part_entries(
    tx: Connection, archive_id: UUID, part: int, metadata: Mapping[bytes, Mapping[str, object]]
) -> list[ManifestEntry]:
    """The entries of one part as its manifest has them, sorted by path, each with what is said of its metadata.

    `content` is where a file was staged. They are read as one statement sees them.
    """
    columns = (files.c[name] for name in _OF_MANIFESTS)
    query = select(*columns).where(files.c.archive_id == archive_id, files.c.part == part).order_by(files.c.path)
    with tx.execute(query, execution_options={"yield_per": _CHUNK}) as rows:
        return [_to_manifest_entry(row, metadata.get(row[0])) for row in rows]


def _to_manifest_entry(
    row: Sequence[Any], metadata: Mapping[str, object] | None
) -> ManifestEntry:  # Any: see row_to_entry
    path, code, size, mtime_ns, mode, digest, crc32, others, target, content = row
    if code == _FILE and not others and not content:
        digests = {_CONTENT_DIGEST_BY_SIZE[len(digest)]: digest.hex(), "crc32": f"{crc32:08x}"}
        return ManifestEntry.known(path, "file", size, mtime_ns, mode, digests, None, default_content(path), metadata)
    if code != _FILE:
        return ManifestEntry.known(path, _KINDS[code].value, size, mtime_ns, mode, {}, target, None, metadata)
    digests = _read_digests(digest, crc32, others)
    where = content or default_content(path)
    return ManifestEntry.known(path, "file", size, mtime_ns, mode, digests, None, where, metadata)


def _read_digests(digest: bytes, crc32: int, others: Mapping[str, str] | None) -> dict[str, str]:
    digests = {_CONTENT_DIGEST_BY_SIZE[len(digest)]: digest.hex(), "crc32": f"{crc32:08x}"}
    return {**digests, **others} if others else digests


def entry_to_row(entry: Entry, content_digest: str, added_at: datetime) -> tuple[object, ...]:
    """The values of COLUMNS."""
    is_file = entry.kind is EntryKind.FILE
    others = None
    if len(entry.digests) > 2:
        others = {name: value for name, value in entry.digests.items() if name not in (content_digest, "crc32")}
    return (
        entry.archive_id,
        _CODES[entry.kind],
        entry.size,
        entry.mtime_ns,
        entry.mode,
        entry.path,
        bytes.fromhex(entry.digests[content_digest]) if is_file else None,
        int(entry.digests["crc32"], 16) if is_file else None,
        others,
        entry.target,
        entry.part or 0,
        entry.content if is_file and entry.content != default_content(entry.path) else None,
        added_at,
    )


# Reading


def find_own(tx: Connection, archive_id: UUID, paths: Sequence[bytes]) -> dict[bytes, Entry]:
    """The archive's own entries at these paths."""
    query = select(files).where(files.c.archive_id == archive_id)
    return {row.path: row_to_entry(row) for row in _iter_at(tx, archive_id, query, paths)}


def find_near(tx: Connection, archive_id: UUID, paths: Sequence[bytes]) -> list[bytes]:
    """These paths, sorted, without stretches of them where the archive's own layer has nothing at them or inside them.

    Most of what comes in is new, and far from all that is there.
    """
    return _occupied(tx, archive_id, sorted(paths), inside=True)


def find_named_contents(tx: Connection, archive_id: UUID, part: int, contents: Sequence[str]) -> set[str]:
    """Which of these staged contents entries of the part name."""
    natural = [content.encode() for content in contents]
    query = select(files.c.content, files.c.path).where(
        files.c.archive_id == archive_id,
        files.c.part == part,
        or_(files.c.content.in_(contents), and_(files.c.content.is_(None), files.c.path == func.any(_paths(natural)))),
    )
    return {row.content or default_content(row.path) for row in tx.execute(query)}


def find_visible(tx: Connection, layers: Sequence[UUID], paths: Iterable[bytes]) -> dict[bytes, Entry]:
    """The entries that the union of the layers shows at these paths."""
    wanted = list(paths)
    rows = load_rows(tx, layers, wanted)
    if not rows:
        return {}
    found = ((path, resolve(path, rows)) for path in wanted if path in rows)
    return {path: entry for path, entry in found if entry is not None}


def load_rows(tx: Connection, layers: Sequence[UUID], paths: Iterable[bytes]) -> dict[bytes, dict[int, LayerEntry]]:
    """Each layer's row at each of these paths and at the folders above them."""
    needed = list(dict.fromkeys(paths))  # in their order, which is mostly that of paths and then soon sorted
    if len(layers) > 1:
        needed = list(dict.fromkeys((*needed, *find_ancestors(needed))))
    rows: dict[bytes, dict[int, LayerEntry]] = {}
    for start in range(0, len(needed), _CHUNK):
        chunk = needed[start : start + _CHUNK]
        for layer, query in enumerate(_select_layers(layers)):
            for row in _iter_at(tx, layers[layer], query, chunk):
                rows.setdefault(row.path, {})[layer] = LayerEntry(row_to_entry(row), row.covered)
    return rows


def iter_visible(
    tx: Connection, layers: Sequence[UUID], *, start: bytes = b"", end: bytes | None = None, chunk: int = _CHUNK
) -> Iterator[Entry]:
    """What the union shows from `start` to before `end`, sorted by path; rows are fetched `chunk` at a time."""
    if len(layers) == 1:
        own = iter_own(tx, layers[0], start=start, end=end, chunk=chunk)
        return (entry for entry in own if entry.kind is not EntryKind.HIDDEN)
    scans = [EntryScan(tx, query, start=start, end=end, chunk=chunk) for query in _select_layers(layers)]
    return iter_union(scans, _find_blockers(tx, layers, start))


def iter_pages(
    db: Database, layers: Sequence[UUID], *, start: bytes = b"", end: bytes | None = None, own: bool = False
) -> Iterator[Entry]:
    """As `iter_visible`, in short transactions, for readers who take their time; of `own`, hiding entries included."""
    next_start: bytes | None = start
    while next_start is not None:
        with db.begin() as tx:
            found = (
                iter_own(tx, layers[0], start=next_start, end=end)
                if own
                else iter_visible(tx, layers, start=next_start, end=end)
            )
            page = list(islice(found, _CHUNK))
        yield from page
        next_start = after(page[-1].path) if len(page) == _CHUNK else None


def iter_own(
    tx: Connection, archive_id: UUID, *, start: bytes = b"", end: bytes | None = None, part: int | None = None,
    chunk: int = _CHUNK,
) -> Iterator[Entry]:  # fmt: skip
    """The archive's own entries, hiding ones included, sorted by path; of one part only when it is given."""
    query = _select_layers([archive_id])[0]
    if part is not None:
        query = query.where(files.c.part == part)
    scan = EntryScan(tx, query, start=start, end=end, chunk=chunk)
    while (head := scan.head()) is not None:
        yield head.entry
        scan.advance()


@dataclass(frozen=True, slots=True)
class Child:
    """The first row of a layer that stands for a name in a folder; `is_inside` says that it lies deeper."""

    name: bytes
    entry: Entry
    is_inside: bool

    @property
    def key(self) -> bytes:
        """Where it stands among the folder's rows: `a` before `a-b` before what is inside `a`."""
        return self.name + b"/" if self.is_inside else self.name


def list_children(tx: Connection, layer: UUID, folder: bytes, *, start: bytes, limit: int) -> list[Child]:
    """One layer's names in a folder with a key from `start` on, by key, without walking what is inside them."""
    prefix = start_of_folder(folder)
    parameters = {
        "layer": layer,
        "start": prefix + start,
        "end": end_of_folder(folder) or b"\xff" * 8,
        "prefix": len(prefix),
        "limit": limit,
    }
    rows = tx.execute(_CHILDREN, parameters)
    return [_to_child(row, prefix) for row in rows]


# PostgreSQL makes rows of a recursive query one by one, as the outer one asks for them: each is one probe of the index.
_CHILDREN = (
    text(
        """
    WITH RECURSIVE walk AS (
        (SELECT * FROM files WHERE archive_id = :layer AND path >= :start AND path < :end ORDER BY path LIMIT 1)
        UNION ALL
        SELECT found.* FROM walk CROSS JOIN LATERAL (
            SELECT * FROM files WHERE archive_id = :layer AND path < :end AND path >= CASE
                WHEN position('\\x2f'::bytea IN substring(walk.path FROM :prefix + 1)) > 0
                THEN substring(
                    walk.path FOR :prefix + position('\\x2f'::bytea IN substring(walk.path FROM :prefix + 1)) - 1
                ) || '\\x30'::bytea
                ELSE walk.path || '\\x00'::bytea END
            ORDER BY path LIMIT 1
        ) AS found
    )
    SELECT * FROM walk LIMIT :limit
    """
    )
    .bindparams(
        bindparam("layer", type_=Uuid),
        bindparam("start", type_=BYTEA),
        bindparam("end", type_=BYTEA),
        bindparam("prefix", type_=Integer),
        bindparam("limit", type_=Integer),
    )
    .columns(*files.c)
)


def _to_child(row: Row[Any], prefix: bytes) -> Child:  # Any: see row_to_entry
    name, slash, _ = row.path[len(prefix) :].partition(b"/")
    return Child(name, row_to_entry(row), bool(slash))


# A plan for these very values stands on statistics, which lack what has just come: it would sort all that follows.
_PLAN_WITHOUT_VALUES = text("SET LOCAL plan_cache_mode = force_generic_plan")


class EntryScan:
    """One layer's rows from `start` to before `end`, fetched in chunks by key, so that it may be long.

    What follows in the transaction is planned without its values, too.
    """

    def __init__(
        self, tx: Connection, query: Select[Any], *, start: bytes, end: bytes | None, chunk: int
    ) -> None:  # Any: see row_to_entry
        self._tx = tx
        self._query = query.order_by(files.c.path).limit(chunk)
        self._chunk = chunk
        self._start = start
        self._end = end
        self._rows: Sequence[Row[Any]] = ()
        self._index = 0
        self._is_last = False
        self._head: LayerEntry | None = None
        tx.execute(_PLAN_WITHOUT_VALUES)

    def head(self) -> LayerEntry | None:
        if self._head is None:
            if self._index >= len(self._rows) and not self._is_last:
                self._fetch()
            if self._index < len(self._rows):
                row = self._rows[self._index]
                self._head = LayerEntry(row_to_entry(row), row.covered)
        return self._head

    def advance(self) -> None:
        self._head = None
        self._index += 1

    def seek(self, start: bytes) -> None:
        self._head = None
        while self._index < len(self._rows) and self._rows[self._index].path < start:
            self._index += 1
        if self._index >= len(self._rows):
            self._start = max(self._start, start)

    def _fetch(self) -> None:
        query = self._query.where(files.c.path >= self._start)
        if self._end is not None:
            query = query.where(files.c.path < self._end)
        self._rows = self._tx.execute(query).all()
        self._index = 0
        self._is_last = len(self._rows) < self._chunk
        if self._rows:
            self._start = after(self._rows[-1].path)


def _select_layers(layers: Sequence[UUID]) -> list[Select[Any]]:
    return [_select_layer(layer, layers[:index]) for index, layer in enumerate(layers)]


def _select_layer(layer: UUID, uppers: Sequence[UUID]) -> Select[Any]:
    """The layer's rows, each with whether a layer above has an entry in the folder of its name."""
    if not uppers:
        return select(files, literal(False).label("covered")).where(files.c.archive_id == layer)
    above = files.alias("above")
    inside = select(1).where(
        above.c.archive_id.in_(uppers),
        above.c.path > files.c.path.op("||")(literal(b"/", BYTEA)),
        above.c.path < files.c.path.op("||")(literal(b"0", BYTEA)),
        above.c.kind != _HIDDEN,
    )
    covered = and_(files.c.kind.in_(_FOLDERLESS), inside.exists())
    return select(files, covered.label("covered")).where(files.c.archive_id == layer)


def _find_blockers(tx: Connection, layers: Sequence[UUID], start: bytes) -> list[Blocker]:
    candidates = possible_blockers(start)
    if not candidates:
        return []
    numbers = {layer: number for number, layer in enumerate(layers)}
    query = select(files.c.archive_id, files.c.path).where(
        files.c.archive_id.in_(layers),
        files.c.path == func.any(_paths(candidates)),
        files.c.kind != _CODES[EntryKind.DIRECTORY],
    )
    return [Blocker(row.path, numbers[row.archive_id]) for row in tx.execute(query)]


# Writing: the archive's row is locked by the caller


def load_entries(
    db: Database,
    tx: Connection,
    entries: Sequence[Entry],
    *,
    content_digest: str,
    added_at: datetime,
    as_staged: bool = False,
) -> None:
    """Load entries at paths where the archive has none.

    `as_staged` says that staging gave them their content paths: it gives a file its own name only where that is the
    natural one, so that nobody has to look.
    """
    encoded, others = encode_ordinary(entries, content_digest, added_at) if as_staged else (b"", entries)
    rows = (entry_to_row(entry, content_digest, added_at) for entry in others)
    db.copy_rows(tx, files, COLUMNS, rows, encoded=encoded)


_FIGURES = struct.Struct("!iqiqiii")  # each after its length, and the length of the path
_NULL = struct.pack("!i", -1)
_TOO_FAR = 1 << 63
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # of PostgreSQL


def encode_ordinary(entries: Sequence[Entry], content_digest: str, added_at: datetime) -> tuple[bytes, Sequence[Entry]]:
    """The rows of ordinary files of one part at their own names as COPY has them, and the other entries.

    They are those of `entry_to_row`, in a third of the time that it takes with the driver.
    """
    if not entries or (part := entries[0].part) is None:
        return b"", entries
    archive_id, digest_bytes = entries[0].archive_id, DIGEST_LENGTHS[content_digest] // 2
    head = struct.pack("!hi16sih", len(COLUMNS), 16, archive_id.bytes, 2, _FILE)
    moment = (added_at - _EPOCH) // timedelta(microseconds=1)
    tail = _NULL + _NULL + struct.pack("!ii", 4, part) + _NULL + struct.pack("!iq", 8, moment)
    of_digest, of_crc32, length = f"{digest_bytes:08x}", "0000000800000000", 4 + digest_bytes + 4 + 8
    joint, pack, from_hex = tail + head, _FIGURES.pack, bytes.fromhex
    pieces: list[bytes] = [head]
    others: list[Entry] = []
    for entry in entries:
        layer, path, kind, size, mtime_ns, mode, digests, target, number, content, _, _ = entry
        if kind is EntryKind.FILE and content is not None and content.encode() == path and len(digests) == 2:
            judged = from_hex(f"{of_digest}{digests[content_digest]}{of_crc32}{digests['crc32']}")
            is_alike = layer is archive_id and number == part and target is None and len(judged) == length
            if is_alike and mtime_ns is not None and mode is not None and abs(mtime_ns) < _TOO_FAR:
                pieces += (pack(8, size, 8, mtime_ns, 4, mode, len(path)), path, judged, joint)
                continue
        others.append(entry)
    pieces[-1] = tail
    return b"".join(pieces) if len(pieces) > 1 else b"", others


def delete_entries(tx: Connection, archive_id: UUID, paths: Sequence[bytes]) -> None:
    """Delete the archive's own rows at these paths."""
    if paths:
        tx.execute(delete(files).where(files.c.archive_id == archive_id, files.c.path == func.any(_paths(paths))))


def find_occupied_folders(tx: Connection, archive_id: UUID, paths: Sequence[bytes]) -> set[bytes]:
    """Which of these paths are folders of the archive's own entries, hiding ones apart."""
    if not paths:
        return set()
    wanted = func.unnest(_paths(paths)).column_valued("wanted")
    # A scalar subquery is one probe of the index for each path; EXISTS becomes a join that compares all with all.
    first_inside = (
        select(files.c.path)
        .where(
            files.c.archive_id == archive_id,
            files.c.path > wanted.op("||")(literal(b"/", BYTEA)),
            files.c.path < wanted.op("||")(literal(b"0", BYTEA)),
            files.c.kind != _HIDDEN,
        )
        .order_by(files.c.path)
        .limit(1)
        .scalar_subquery()
    )
    return set(tx.execute(select(wanted).where(first_inside.is_not(None))).scalars())


def count_entries(tx: Connection, archive_id: UUID) -> dict[EntryKind, tuple[int, int]]:
    """The number and the bytes of the archive's own entries by kind."""
    query = select(files.c.kind, func.count(), func.coalesce(func.sum(files.c.size), 0)).where(
        files.c.archive_id == archive_id
    )
    return {_KINDS[kind]: (count, int(size)) for kind, count, size in tx.execute(query.group_by(files.c.kind))}


def in_folder(folder: bytes) -> Any:  # Any: an SQL condition
    """The condition of being a path itself, or inside the folder of that name."""
    return or_(
        files.c.path == folder, and_(files.c.path > folder + b"/", files.c.path < (end_of_folder(folder) or b""))
    )


class _PathArray(UserDefinedType[Sequence[bytes]]):
    """Paths as the text of an array: the driver takes ten times as long to write one of its own.

    The parameter itself is of the array's type. A cast of text in the statement would be made again for each row.
    """

    cache_ok = True
    render_bind_cast = True

    def get_col_spec(self, **_options: object) -> str:
        return "BYTEA[]"

    def bind_processor(self, dialect: Dialect) -> Callable[[Sequence[bytes] | None], str | None]:
        return _array_text


def _array_text(paths: Sequence[bytes] | None) -> str | None:
    if not paths:
        return None if paths is None else "{}"
    return '{"\\\\x' + '","\\\\x'.join(map(bytes.hex, paths)) + '"}'


def _iter_at(
    tx: Connection, layer: UUID, query: Select[Any], paths: Sequence[bytes]
) -> Iterator[Row[Any]]:  # Any: see row_to_entry
    """The rows of one layer's query at these paths, by one probe of the index for each.

    Asked for any of many paths, on a table without statistics, the whole archive is read: quadratic during an ingest.
    """
    wanted = _occupied(tx, layer, sorted(paths))
    if wanted:
        path, given = _given(wanted)
        found = query.where(files.c.path == path).limit(1).lateral("found")  # a limit is not flattened into a join
        yield from tx.execute(select(found).select_from(given.join(found, true())))


def _occupied(tx: Connection, layer: UUID, paths: list[bytes], *, inside: bool = False) -> list[bytes]:
    """These sorted paths without stretches of them where the layer has nothing: most of what comes in is new.

    With `inside` it has nothing inside the paths as folders either, which may come after the last of a stretch.
    """
    if len(paths) <= _STRETCH:
        return paths
    stretches = [paths[start : start + _STRETCH] for start in range(0, len(paths), _STRETCH)]
    path, given = _given([stretch[0] for stretch in stretches])
    following = select(files.c.path).where(files.c.archive_id == layer, files.c.path >= path)
    first = following.order_by(files.c.path).limit(1).lateral("first")
    rows = tx.execute(select(path, first.c.path.label("first")).select_from(given.join(first, true())))
    found = {row[0]: row[1] for row in rows}
    kept: list[bytes] = []
    for stretch in stretches:
        first_there = found.get(stretch[0])
        if first_there is None:
            continue
        last = max(end_of_folder(path) or path for path in stretch) if inside else stretch[-1]
        if first_there <= last:
            kept += stretch
    return kept


def _given(paths: Sequence[bytes]) -> tuple[Any, Any]:  # Any: an SQL column and its table
    given = func.unnest(_paths(paths)).table_valued("path").render_derived("given")
    return given.c.path, given


def _paths(paths: Sequence[bytes]) -> Any:  # Any: an SQL parameter
    return literal(list(paths), _PathArray())
