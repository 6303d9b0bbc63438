"""The union of an archive with its ancestors: which layer's entry is seen at a path.

Layer 0 is the archive itself, layer 1 its parent, and so on. An entry is seen unless it hides, or a layer above has
an entry at the same path, a file, symbolic link or hiding entry at a folder above it, or (for a file or symbolic
link, which cannot be a folder) anything not hiding below it.

Paths come sorted by their raw bytes. There `a-b` stands between `a` and `a/b`, so a file at `a` is remembered until
the first path that does not begin with `a`: what is remembered at one time is a chain of prefixes of one path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from perdure.archives.model import Entry, EntryKind
from perdure.kernel.paths import iter_ancestors

_BLOCKING = frozenset({EntryKind.FILE, EntryKind.SYMLINK, EntryKind.HIDDEN})


@dataclass(frozen=True, slots=True)
class LayerEntry:
    """An entry of one layer; `covered` says that a layer above has something in the folder of this name."""

    entry: Entry
    covered: bool = False

    @property
    def is_shown(self) -> bool:
        return self.entry.kind is not EntryKind.HIDDEN and not self.covered

    @property
    def is_blocking(self) -> bool:
        """Whether no layer below is seen under this path."""
        return self.entry.kind in _BLOCKING


class Scan(Protocol):
    """One layer's entries sorted by path, read forward."""

    def head(self) -> LayerEntry | None:
        """The present entry, or None at the end."""
        ...

    def advance(self) -> None:
        """Step to the next entry."""
        ...

    def seek(self, start: bytes) -> None:
        """Step over every entry whose path is below `start`."""
        ...


@dataclass(frozen=True, slots=True)
class Blocker:
    path: bytes
    layer: int


def iter_union(scans: Sequence[Scan], blockers: Sequence[Blocker] = ()) -> Iterator[Entry]:
    """The entries that are seen, sorted by path; `blockers` stand before the scans' first paths."""
    remembered = sorted(blockers, key=lambda blocker: blocker.path)
    while True:
        heads = [(head, layer) for layer, scan in enumerate(scans) if (head := scan.head()) is not None]
        if not heads:
            return
        path = min(head.entry.path for head, _ in heads)
        while remembered and not path.startswith(remembered[-1].path):
            remembered.pop()
        ceiling = _find_ceiling(remembered, path)
        at_path = [(head, layer) for head, layer in heads if head.entry.path == path]
        top, top_layer = at_path[0]
        if top.is_shown and (ceiling is None or top_layer <= ceiling.layer):
            yield top.entry
        remembered.extend(Blocker(path, layer) for head, layer in at_path if head.is_blocking)
        _step(scans, at_path, ceiling)


def _find_ceiling(blockers: Sequence[Blocker], path: bytes) -> Blocker | None:
    """The blocker of the uppermost layer on a folder above the path: deeper layers are not seen here."""
    above = [b for b in blockers if len(b.path) < len(path) and path.startswith(b.path) and path[len(b.path)] == 0x2F]
    return min(above, key=lambda blocker: (blocker.layer, len(blocker.path)), default=None)


def _step(scans: Sequence[Scan], at_path: Sequence[tuple[LayerEntry, int]], ceiling: Blocker | None) -> None:
    for _, layer in at_path:
        if ceiling is not None and layer > ceiling.layer:
            scans[layer].seek(_behind(ceiling.path))
        else:
            scans[layer].advance()


def resolve(path: bytes, rows: Mapping[bytes, Mapping[int, LayerEntry]]) -> Entry | None:
    """The entry seen at a path; `rows` holds each layer's entry at the path and at the folders above it."""
    at_path = rows.get(path)
    if not at_path:
        return None
    layer = min(at_path)
    ceiling = find_ceiling(path, rows)
    is_seen = at_path[layer].is_shown and (ceiling is None or layer <= ceiling)
    return at_path[layer].entry if is_seen else None


def find_ceiling(path: bytes, rows: Mapping[bytes, Mapping[int, LayerEntry]]) -> int | None:
    """The uppermost layer that blocks the folders above a path: deeper layers are not seen there."""
    layers = (
        layer for ancestor in iter_ancestors(path) for layer, row in rows.get(ancestor, {}).items() if row.is_blocking
    )
    return min(layers, default=None)


def start_of_folder(folder: bytes) -> bytes:
    """The lower bound of the paths inside a folder; the archive's own is `b""`."""
    return folder + b"/" if folder else b""


def end_of_folder(folder: bytes) -> bytes | None:
    """The first path after those inside a folder; None for the archive's own."""
    return _behind(folder) if folder else None


def _behind(folder: bytes) -> bytes:
    return folder + b"0"  # 0x30 follows 0x2f, the slash


def after(path: bytes) -> bytes:
    """The lower bound of the paths behind this one: no path contains a NUL."""
    return path + b"\0"


def possible_blockers(start: bytes) -> list[bytes]:
    """The paths before `start` under which paths from `start` on may lie."""
    return [start[:length] for length in range(1, len(start)) if start[length] <= 0x2F]
