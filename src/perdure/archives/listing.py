"""Folders of a union, page by page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection

from perdure.archives.entries import Child, iter_visible, list_children, load_rows
from perdure.archives.model import Entry, EntryKind
from perdure.archives.union import (
    LayerEntry,
    after,
    end_of_folder,
    find_ceiling,
    resolve,
    start_of_folder,
)

_MOST_AT_ONCE = 2_000


@dataclass(frozen=True, slots=True)
class EntryPage:
    """Entries in the order of their bytes; with `next_cursor` the next page is asked for, None at the end."""

    items: list[Entry]
    next_cursor: str | None


def list_tree(tx: Connection, layers: Sequence[UUID], folder: bytes, *, cursor: str | None, limit: int) -> EntryPage:
    """Everything below a folder that the union shows."""
    start = start_of_folder(folder)
    if cursor is not None:
        start = max(start, after(bytes.fromhex(cursor)))  # a cursor of another folder shows nothing outside this one
    found = iter_visible(tx, layers, start=start, end=end_of_folder(folder), chunk=min(limit + 1, _MOST_AT_ONCE))
    items = [entry for entry, _ in zip(found, range(limit + 1), strict=False)]
    return _page([(entry, entry.path) for entry in items], limit)


def list_folder(tx: Connection, layers: Sequence[UUID], folder: bytes, *, cursor: str | None, limit: int) -> EntryPage:
    """The names in a folder that the union shows; a folder without an entry of its own is shown as one."""
    start = b"" if cursor is None else after(bytes.fromhex(cursor))
    found: list[tuple[Entry, bytes]] = []
    for entry, key in _iter_folder(tx, layers, folder, start, min(limit + 1, _MOST_AT_ONCE)):
        found.append((entry, key))
        if len(found) > limit:
            break
    return _page(found, limit)


def find_folder(tx: Connection, layers: Sequence[UUID], path: bytes) -> Entry | None:
    """A folder that has no entry of its own, because something in it is shown."""
    inside = iter_visible(tx, layers, start=start_of_folder(path), end=end_of_folder(path), chunk=10)
    first = next(inside, None)
    return None if first is None else _as_folder(first, path)


def _page(found: list[tuple[Entry, bytes]], limit: int) -> EntryPage:
    more = len(found) > limit
    kept = found[:limit]
    return EntryPage([entry for entry, _ in kept], kept[-1][1].hex() if more else None)


def _iter_folder(
    tx: Connection, layers: Sequence[UUID], folder: bytes, start: bytes, count: int
) -> Iterator[tuple[Entry, bytes]]:
    """Entries shown in a folder with their keys, by key."""
    next_start: bytes | None = start
    while next_start is not None:
        by_key, horizon = _collect(tx, layers, folder, next_start, count)
        paths = [start_of_folder(folder) + next(iter(children.values())).name for children in by_key.values()]
        rows = load_rows(tx, layers, paths)
        for path, key in zip(paths, sorted(by_key), strict=True):
            entry = _find_shown(tx, layers, path, by_key[key], rows)
            if entry is not None:
                yield entry, key
        next_start = None if horizon is None else after(horizon)


def _collect(
    tx: Connection, layers: Sequence[UUID], folder: bytes, start: bytes, count: int
) -> tuple[dict[bytes, dict[int, Child]], bytes | None]:
    """The layers' children by key, sorted, up to the key to which all layers are known; None when that is the end."""
    by_key: dict[bytes, dict[int, Child]] = {}
    horizon: bytes | None = None
    for number, layer in enumerate(layers):
        children = list_children(tx, layer, folder, start=start, limit=count)
        if len(children) == count:
            horizon = min(children[-1].key, horizon) if horizon is not None else children[-1].key
        for child in children:
            by_key.setdefault(child.key, {})[number] = child
    known = sorted(key for key in by_key if horizon is None or key <= horizon)
    return {key: by_key[key] for key in known}, horizon


def _find_shown(
    tx: Connection,
    layers: Sequence[UUID],
    path: bytes,
    children: Mapping[int, Child],
    rows: Mapping[bytes, Mapping[int, LayerEntry]],
) -> Entry | None:
    own = resolve(path, rows)
    top = min(children)
    if not children[top].is_inside:
        return own
    if own is not None:
        return None  # shown already, where its own entry stands
    first = children[top].entry
    ceiling = find_ceiling(first.path, rows)
    if ceiling is not None and top > ceiling:
        return None
    if first.kind is not EntryKind.HIDDEN:
        return _as_folder(first, path)
    return find_folder(tx, layers, path)


def _as_folder(inside: Entry, path: bytes) -> Entry:
    return Entry(inside.archive_id, path, EntryKind.DIRECTORY)
