"""Stores that say what is not so: bytes that changed, objects that are not there, syncs that were none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from enum import StrEnum

from perdure.storage.ports import Store
from perdure.testing.memory_store import HeldUpload, MemoryStore
from perdure.testing.wrapping import WrappedStore


class Lie(StrEnum):
    """What a reader gets in place of a file's bytes."""

    FLIPPED = "flipped"
    TRUNCATED = "truncated"
    EMPTY = "empty"


class LyingStore(WrappedStore):
    """Any store that gives wrong answers without an error.

    `lies` maps the place of a file (`<tree or object id>/<path>`) to how it is read. `denied` are ids of objects that
    it says it has not, `claimed` those that it says it has. All three may be changed at any time.
    """

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.lies: dict[str, Lie] = {}
        self.denied: set[str] = set()
        self.claimed: set[str] = set()

    def around_blocks(self, call: str, place: str, blocks: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
        lie = self.lies.get(place)
        return blocks() if lie is None else _distort(b"".join(blocks()), lie)

    def has_object(self, object_id: str) -> bool:
        if object_id in self.denied:
            return False
        return object_id in self.claimed or self.inner.has_object(object_id)


def _distort(data: bytes, lie: Lie) -> Iterator[bytes]:
    if lie is Lie.FLIPPED:
        middle = len(data) // 2
        yield data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else b"?"
    elif lie is Lie.TRUNCATED:
        yield data[: len(data) // 2]


@dataclass
class _Kept:
    """What outlives a power cut."""

    trees: dict[str, dict[str, bytes]] = field(default_factory=dict)
    objects: dict[str, dict[str, bytes]] = field(default_factory=dict)
    logs: dict[str, list[bytes]] = field(default_factory=dict)
    uploads: dict[str, HeldUpload] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    aside: dict[str, bytes] = field(default_factory=dict)


class VolatileStore(MemoryStore):
    """A store in memory that knows what would outlive a power cut, and loses the rest at `cut_power`.

    Durable is what the port says: a tree with its log after `sync_tree`, an object after `publish`, `exchange` and
    `settle_object`, a log after a durable append, an upload up to its checkpoint. Removals and moves that were not
    synced are undone by a power cut. With `is_lying` a sync is acknowledged and does nothing.
    """

    def __init__(self, name: str = "volatile", *, capacity: int = 1 << 40, medium: str = "disk") -> None:
        super().__init__(name, capacity=capacity, medium=medium)
        self._durable = threading.RLock()
        self._kept = _Kept()
        self.is_lying = False

    def cut_power(self) -> None:
        """Lose everything that is not durable; whoever holds an upload or a sink has lost it."""
        with self._durable:
            kept = deepcopy(self._kept)
            self.trees, self.objects, self.logs = kept.trees, kept.objects, kept.logs
            self.uploads, self.files, self.aside = kept.uploads, kept.files, kept.aside
            for upload in self.uploads.values():
                upload.is_busy = False
                if upload.data is not None:
                    del upload.data[upload.durable :]

    def sync_tree(self, tree: str) -> None:
        super().sync_tree(tree)
        if not self.is_lying:
            self._keep_tree(tree)

    def publish(self, tree: str, object_id: str) -> None:
        self.sync_tree(tree)
        super().publish(tree, object_id)
        self._keep_object(tree, object_id)

    def exchange(self, tree: str, object_id: str) -> None:
        self.sync_tree(tree)
        super().exchange(tree, object_id)
        self._keep_object(tree, object_id)

    def settle_object(self, object_id: str) -> None:
        super().settle_object(object_id)
        self._keep_object(None, object_id)

    def set_object_aside(self, object_id: str) -> None:
        super().set_object_aside(object_id)
        self._keep_object(None, object_id)

    def remove_object(self, object_id: str) -> tuple[int, int]:
        removed = super().remove_object(object_id)
        self._keep_object(None, object_id)
        return removed

    def append_log(self, name: str, lines: Iterable[bytes], *, durable: bool) -> None:
        super().append_log(name, lines, durable=durable)
        if durable:
            self._keep_log(name)

    def replace_log(self, name: str, lines: Iterable[bytes]) -> None:
        super().replace_log(name, lines)
        self._keep_log(name)

    def create_upload(self, name: str, attributes: bytes) -> None:
        super().create_upload(name, attributes)
        with self._durable:
            self._kept.uploads.setdefault(name, deepcopy(self.uploads[name]))

    def remove_upload(self, name: str) -> None:
        super().remove_upload(name)
        with self._durable:
            self._kept.uploads.pop(name, None)

    def keep_upload(self, held: HeldUpload) -> None:
        """A checkpoint or a note of an upload is durable."""
        if not self.is_lying:
            with self._durable:
                self._kept.uploads |= {name: deepcopy(one) for name, one in self.uploads.items() if one is held}

    def write_store_file(self, name: str, data: bytes) -> None:
        super().write_store_file(name, data)
        with self._durable:
            self._kept.files[name] = data

    def _keep_tree(self, tree: str) -> None:
        """What was synced of a tree: its files, its log, and that uploads were moved into it."""
        with self._durable:
            self._kept.trees.pop(tree, None)
            if tree in self.trees:
                self._kept.trees[tree] = dict(self.trees[tree])
            self._keep_log(f"staging/{tree}.entries.ndjson")
            moved = {name: deepcopy(one) for name, one in self.uploads.items() if one.data is None}
            self._kept.uploads |= moved

    def _keep_object(self, tree: str | None, object_id: str) -> None:
        with self._durable:
            if tree is not None:
                self._kept.trees.pop(tree, None)
            self._kept.objects.pop(object_id, None)
            if object_id in self.objects:
                self._kept.objects[object_id] = dict(self.objects[object_id])
            self._kept.aside = dict(self.aside)

    def _keep_log(self, name: str) -> None:
        with self._durable:
            self._kept.logs.pop(name, None)
            if name in self.logs:
                self._kept.logs[name] = list(self.logs[name])
