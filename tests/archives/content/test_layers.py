"""Append: the union of layers equals a simple overlay (I8), and ancestors never change."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Iterator
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.archives.entries import iter_own
from perdure.archives.errors import NothingToHideError, PathTakenError
from perdure.archives.items import BatchItem, PlanItem, Verdict
from perdure.archives.model import Archive, Entry, EntryKind
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
from perdure.kernel.paths import iter_ancestors

from .workshop import Workshop

ID = UUID(int=1)
NAMES = st.lists(st.sampled_from([b"a", b"b", b"a-b", b"a0", b"a.b"]), min_size=1, max_size=3).map(b"/".join)
KINDS = st.sampled_from(list(EntryKind))
BLOCKING = (EntryKind.FILE, EntryKind.SYMLINK, EntryKind.HIDDEN)
Layer = dict[bytes, EntryKind]


def make_layer(items: Layer) -> Layer:
    """Without paths that contradict each other, as an archive's own entries are."""
    layer: Layer = {}
    for path, kind in sorted(items.items()):
        if not any(layer.get(above, EntryKind.DIRECTORY) in BLOCKING[:2] for above in iter_ancestors(path)):
            layer[path] = kind
    return layer


LAYERS = st.lists(st.dictionaries(NAMES, KINDS, max_size=8).map(make_layer), min_size=1, max_size=4)


def overlay(layers: list[Layer]) -> Layer:
    """The model: lay each layer over what is below it."""
    shown: Layer = {}
    for layer in reversed(layers):
        for path, kind in layer.items():
            inside = path + b"/"
            if kind in BLOCKING:
                shown = {p: k for p, k in shown.items() if p != path and not p.startswith(inside)}
            shown.pop(path, None)
            if kind is not EntryKind.HIDDEN:
                folders = iter_ancestors(path)
                shown = {p: k for p, k in shown.items() if p not in folders or k is EntryKind.DIRECTORY}
        shown |= {path: kind for path, kind in layer.items() if kind is not EntryKind.HIDDEN}
    return shown


class ListScan:
    """A layer in memory."""

    def __init__(self, rows: list[LayerEntry]) -> None:
        self._rows = rows
        self._index = 0

    def head(self) -> LayerEntry | None:
        return self._rows[self._index] if self._index < len(self._rows) else None

    def advance(self) -> None:
        self._index += 1

    def seek(self, start: bytes) -> None:
        while self._index < len(self._rows) and self._rows[self._index].entry.path < start:
            self._index += 1


def rows_of(layers: list[Layer]) -> Iterator[list[LayerEntry]]:
    for number, layer in enumerate(layers):
        above = [p for upper in layers[:number] for p, kind in upper.items() if kind is not EntryKind.HIDDEN]
        yield [
            LayerEntry(
                Entry(ID, path, kind),
                kind in BLOCKING[:2] and any(other.startswith(path + b"/") for other in above),
            )
            for path, kind in sorted(layer.items())
        ]


@given(LAYERS)
def test_the_merged_scan_is_the_overlay(layers: list[Layer]) -> None:
    seen = [(entry.path, entry.kind) for entry in iter_union([ListScan(rows) for rows in rows_of(layers)])]
    assert seen == sorted(overlay(layers).items())


@given(LAYERS, NAMES)
def test_a_scan_may_begin_anywhere(layers: list[Layer], cursor: bytes) -> None:
    start = after(cursor)
    rows = [[row for row in layer if row.entry.path >= start] for layer in rows_of(layers)]
    candidates = possible_blockers(start)
    blockers = [
        Blocker(path, number)
        for number, layer in enumerate(layers)
        for path, kind in layer.items()
        if path in candidates and kind in BLOCKING
    ]
    seen = [entry.path for entry in iter_union([ListScan(layer) for layer in rows], blockers)]
    assert seen == sorted(path for path in overlay(layers) if path > cursor)


@given(LAYERS, NAMES)
def test_one_path_is_resolved_as_the_scan_shows_it(layers: list[Layer], path: bytes) -> None:
    rows: dict[bytes, dict[int, LayerEntry]] = {}
    for number, layer in enumerate(rows_of(layers)):
        for row in layer:
            rows.setdefault(row.entry.path, {})[number] = row
    found = resolve(path, rows)
    assert (found.kind if found else None) == overlay(layers).get(path)


@given(NAMES, NAMES)
def test_the_bounds_of_a_folder_hold_its_content_only(folder: bytes, path: bytes) -> None:
    end = end_of_folder(folder)
    assert end is not None
    assert (start_of_folder(folder) <= path < end) == path.startswith(folder + b"/")


def test_a_chain_shows_the_overlay_of_its_layers(shop: Workshop) -> None:
    """The same through the database: listings of all forms, single paths and the plan, over generated layers."""
    contents = make_contents(seed=7)
    archives: list[Archive] = []
    for number, layer in enumerate(reversed(contents)):
        archive = shop.open() if number == 0 else shop.append(archives[-1])
        put_layer(shop, archive.id, layer)
        shop.put(archive, b"own/%d" % number, b"x")
        archives.append(shop.close(archive))
    layers = [{entry.path: entry.kind for entry in own_entries(shop, archive.id)} for archive in reversed(archives)]
    expected = overlay(layers)
    top = archives[-1]
    assert {path: entry.kind for path, entry in shop.tree(top).items()} == expected
    folders = {above for path in expected for above in iter_ancestors(path)}
    for folder in sorted({b"", *folders}):
        page = shop.reading.list_entries(shop.ada, top.id, folder=folder)
        assert sorted(entry.path for entry in page.items) == children_of(expected, folder)
    for path, kind in expected.items():
        assert shop.reading.stat(shop.ada, top.id, path).kind is kind


def make_contents(seed: int) -> list[dict[bytes, EntryKind]]:
    chosen = random.Random(seed)  # for variety, not for secrets
    names = [b"a", b"b", b"a-b", b"a.b"]
    layers = []
    for _ in range(4):
        paths = {b"/".join(chosen.choices(names, k=chosen.randint(1, 3))) for _ in range(14)}
        layers.append(make_layer({p: chosen.choice(list(EntryKind)) for p in paths}))
    return layers


def put_layer(shop: Workshop, archive_id: UUID, layer: dict[bytes, EntryKind]) -> None:
    items = [
        BatchItem(path, kind, target=b"t" if kind is EntryKind.SYMLINK else None)
        for path, kind in layer.items()
        if kind is not EntryKind.HIDDEN
    ]
    receiver = shop.filling.begin_batch(shop.ada, archive_id, items)
    receiver.finish()
    for path in (path for path, kind in layer.items() if kind is EntryKind.HIDDEN):
        try:
            shop.filling.hide(shop.ada, archive_id, [path])
        except NothingToHideError:
            continue


def own_entries(shop: Workshop, archive_id: UUID) -> list[Entry]:
    with shop.ctx.db.begin() as tx:
        return list(iter_own(tx, archive_id))


def children_of(tree: dict[bytes, EntryKind], folder: bytes) -> list[bytes]:
    prefix = start_of_folder(folder)
    inside = (path[len(prefix) :] for path in tree if path.startswith(prefix) and path != folder)
    return sorted({prefix + rest.split(b"/")[0] for rest in inside})


def test_a_child_adds_replaces_and_hides(shop: Workshop) -> None:
    parent = shop.open()
    shop.put_all(parent, {b"keep": b"1", b"change": b"old", b"drop/x": b"2", b"drop/y": b"3"})
    parent = shop.close(parent)
    before = shop.reading.statement(shop.ada, parent.id)
    child = shop.append(parent)
    assert shop.contents(child) == shop.contents(parent)

    shop.put(child, b"change", b"new")
    shop.put(child, b"more", b"4")
    assert shop.filling.remove(shop.ada, child.id, [b"drop"]).hidden == 1
    with pytest.raises(NothingToHideError):
        shop.filling.hide(shop.ada, child.id, [b"more"])
    plan = shop.filling.plan(shop.ada, child.id, [PlanItem(b"keep", 1, digests=shop.tree(child)[b"keep"].digests)])
    assert plan[0].verdict is Verdict.PRESENT
    child = shop.close(child)
    grandchild = shop.append(child)
    shop.put(grandchild, b"drop/z", b"5")
    grandchild = shop.close(grandchild)

    shown = {b"keep": b"1", b"change": b"new", b"more": b"4"}
    assert shop.contents(child) == shown
    assert shop.contents(grandchild) == shown | {b"drop/z": b"5"}
    layers = {path: entry.archive_id for path, entry in shop.tree(grandchild).items()}
    assert layers == {b"keep": parent.id, b"change": child.id, b"more": child.id, b"drop/z": grandchild.id}
    assert shop.contents(parent)[b"change"] == b"old"
    assert shop.reading.statement(shop.ada, parent.id) == before
    lines = [json.loads(line) for line in shop.reading.iter_manifest(shop.ada, grandchild.id)]
    assert [line["layer"] for line in lines] == [layers[path].urn for path in sorted(layers)]
    download = shop.downloading.plan_download(shop.ada, grandchild.id)
    with zipfile.ZipFile(io.BytesIO(b"".join(download.read(0, None)))) as packed:
        assert packed.testzip() is None
        assert len(packed.namelist()) == 4 + 3


def test_who_is_not_to_replace_hides_nothing_inherited(shop: Workshop) -> None:
    parent = shop.open()
    shop.put_all(parent, {b"a": b"1", b"b/c": b"2", b"b/d": b"3", b"gone": b"4", b"empty": None})
    child = shop.append(shop.close(parent))
    before = shop.contents(child)
    for path in (b"a", b"a/below", b"a/far/below", b"b", b"b/c", b"b/c/d", b"empty"):
        with pytest.raises(PathTakenError):
            shop.put(child, path, b"mine", replace=False)
    assert shop.contents(child) == before
    shop.filling.remove(shop.ada, child.id, [b"gone"])
    for path in (b"new", b"b/new", b"gone", b"a-b", b"empty/new"):
        shop.put(child, path, b"mine", replace=False)
    added = dict.fromkeys((b"new", b"b/new", b"gone", b"a-b", b"empty/new"), b"mine")
    assert shop.contents(shop.close(child)) == before | added
