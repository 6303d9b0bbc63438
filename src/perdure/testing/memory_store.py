"""A store in memory: the fake of `perdure.storage.ports.Store`, which passes the same suite as the real ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from perdure.kernel.ids import new_id
from perdure.storage.errors import (
    ForeignStoreError,
    StoreFailedError,
    StoreFullError,
    StoreUnavailableError,
    UploadBusyError,
)
from perdure.storage.model import Abilities, JournalRead, Room, StoreInfo
from perdure.storage.ports import Buffer

_BLOCK = 1 << 20
_ABILITIES = Abilities("memory", "plain", batch_sync=True, exchange=True, hard_links=True)


@dataclass(slots=True)
class HeldUpload:
    """One upload: the bytes outlive their holder, as far as a checkpoint said so."""

    attributes: bytes
    data: bytearray | None = field(default_factory=bytearray)
    durable: int = 0
    note: bytes | None = None
    is_busy: bool = False


class MemoryStore:
    """A store of `capacity` bytes; `is_down` and `is_broken` make it fail as an unmounted or a dying one would.

    Files lie in `trees` and `objects` as path -> bytes, for a test to look at and to damage.
    """

    def __init__(self, name: str = "memory", *, capacity: int = 1 << 40, medium: str = "disk") -> None:
        self._name = name
        self._medium = medium
        self._capacity = capacity
        self._info: StoreInfo | None = None
        self._instance_id: UUID | None = None
        self._lock = threading.RLock()
        self.trees: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, dict[str, bytes]] = {}
        self.logs: dict[str, list[bytes]] = {}
        self.uploads: dict[str, HeldUpload] = {}
        self.files: dict[str, bytes] = {}
        self.aside: dict[str, bytes] = {}
        self.is_down = False
        self.is_broken = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def info(self) -> StoreInfo:
        if self._info is None:
            raise StoreUnavailableError(f"The store {self._name} is not prepared.")
        return self._info

    @property
    def abilities(self) -> Abilities:
        return _ABILITIES

    def prepare(self, instance_id: UUID, expected_id: UUID | None = None) -> None:
        self._require_up()
        if self._instance_id not in (None, instance_id):
            raise ForeignStoreError(f"The store {self._name} belongs to another instance.")
        if self._info is None:
            if expected_id is not None:
                raise StoreUnavailableError(f"The store {expected_id} is not here.")
            self._info = StoreInfo(new_id(), self._name, "memory", self._medium, "")
        elif expected_id not in (None, self._info.id):
            raise ForeignStoreError(f"This is the store {self._info.id}.")
        self._instance_id = instance_id

    @property
    def is_sound(self) -> bool:
        return not self.is_broken

    def renew(self) -> MemoryStore:
        """Itself: what lies in memory is there for everybody."""
        return self

    def room(self) -> Room:
        self._require_up()
        return Room(self._capacity - self._used(), self._capacity)

    # Trees in staging

    def create_file(self, tree: str, path: str) -> MemorySink | None:
        with self._lock:
            if self._is_taken(tree, path):
                return None
            self.trees.setdefault(tree, {})[path] = b""
        return MemorySink(self, tree, path)

    def put_file(self, tree: str, path: str, data: Buffer) -> bool:
        with self._lock:
            if self._is_taken(tree, path):
                return False
            self.require_room(len(data))
            self.trees.setdefault(tree, {})[path] = bytes(data)
            return True

    def adopt_file(self, tree: str, path: str, object_id: str, object_path: str) -> bool:
        return self.put_file(tree, path, self._file_of(object_id, object_path))

    def sync_tree(self, tree: str) -> None:
        self._require_up()

    def move_file(self, tree: str, path: str, new_path: str) -> None:
        with self._lock:
            if self._is_taken(tree, new_path):
                raise FileExistsError(new_path)
            self.trees[tree][new_path] = self._take(tree, path)

    def set_aside(self, tree: str, path: str) -> None:
        with self._lock:
            self.aside[f"{tree}/{path}"] = self._take(tree, path)

    def forget_set_aside(self, tree: str) -> None:
        self._forget_aside(tree)

    def walk_tree(self, tree: str) -> Iterator[tuple[str, int]]:
        self._require_up()
        yield from [(path, len(data)) for path, data in self.trees.get(tree, {}).items()]

    def prune_tree(self, tree: str) -> None:
        self._require_up()

    def file_size(self, tree: str, path: str) -> int:
        return len(self._staged(tree, path))

    def read_file(self, tree: str, path: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        yield from _blocks(self._staged(tree, path), offset, length)

    def remove_files(self, tree: str, paths: Iterable[str]) -> int:
        self._require_up()
        with self._lock:
            return sum(self.trees.get(tree, {}).pop(path, None) is not None for path in paths)

    def remove_tree(self, tree: str) -> tuple[int, int]:
        self._require_up()
        with self._lock:
            names = [name for name in self.trees if name == tree or name.startswith(f"{tree}/")]
            removed = [self.trees.pop(name) for name in names]
            for name in [name for name in self.uploads if name.startswith(f"{tree}/")]:
                del self.uploads[name]
            for name in [name for name in self.logs if name.startswith(f"staging/{tree}/")]:
                del self.logs[name]
        return sum(map(len, removed)), sum(len(data) for files in removed for data in files.values())

    def iter_trees(self) -> Iterator[tuple[str, float]]:
        self._require_up()
        logs = [name.removeprefix("staging/") for name in self.logs if name.startswith("staging/")]
        for name in [*self.trees, *logs, *self.uploads]:
            yield name, time.time()

    # Objects in the root

    def publish(self, tree: str, object_id: str) -> None:
        with self._lock:
            if object_id in self.objects:
                raise FileExistsError(object_id)
            self._require_up()
            self.objects[object_id] = self.trees.pop(tree)

    def exchange(self, tree: str, object_id: str) -> None:
        with self._lock:
            self._require_up()
            self.objects[object_id] = self.trees.pop(tree)

    def settle_object(self, object_id: str) -> None:
        self._require_up()

    def set_object_aside(self, object_id: str) -> None:
        with self._lock:
            for path, data in self.objects.pop(object_id, {}).items():
                self.aside[f"{object_id}/{path}"] = data

    def has_object(self, object_id: str) -> bool:
        self._require_up()
        return object_id in self.objects

    def walk_object(self, object_id: str) -> Iterator[tuple[str, int]]:
        self._require_up()
        if object_id not in self.objects:
            raise FileNotFoundError(object_id)
        yield from [(path, len(data)) for path, data in self.objects[object_id].items()]

    def read_object(self, object_id: str, path: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        yield from _blocks(self._file_of(object_id, path), offset, length)

    def read_medium(self, object_id: str, path: str) -> Iterator[memoryview]:
        return map(memoryview, self.read_object(object_id, path))

    def local_path(self, object_id: str, path: str) -> Path | None:
        return None

    def remove_object(self, object_id: str) -> tuple[int, int]:
        self._require_up()
        with self._lock:
            removed = self.objects.pop(object_id, {})
        self._forget_aside(object_id)
        return len(removed), sum(map(len, removed.values()))

    def _forget_aside(self, folder: str) -> None:
        with self._lock:
            self.aside = {path: data for path, data in self.aside.items() if not path.startswith(f"{folder}/")}

    def iter_objects(self) -> Iterator[str]:
        self._require_up()
        yield from list(self.objects)

    # Logs, uploads, files of the store itself

    def append_log(self, name: str, lines: Iterable[bytes], *, durable: bool) -> None:
        self._require_up()
        added = list(lines)
        if any(b"\n" in line for line in added):
            raise ValueError("a line of a log has no newline in it")
        with self._lock:
            if added:
                self.logs.setdefault(name, []).extend(added)

    def read_log(self, name: str) -> JournalRead:
        self._require_up()
        return JournalRead(list(self.logs.get(name, [])))

    def replace_log(self, name: str, lines: Iterable[bytes]) -> None:
        self._require_up()
        with self._lock:
            self.logs.pop(name, None)
            self.append_log(name, lines, durable=True)

    def create_upload(self, name: str, attributes: bytes) -> None:
        self._require_up()
        self.uploads.setdefault(name, HeldUpload(attributes))

    def open_upload(self, name: str) -> MemoryUpload:
        held = self._upload(name)
        with self._lock:
            if held.is_busy:
                raise UploadBusyError("Another request holds this upload.")
            held.is_busy = True
        return MemoryUpload(self, held)

    def upload_offset(self, name: str) -> int:
        return self._upload(name).durable

    def move_upload(self, name: str, tree: str, path: str) -> bool:
        held = self._upload(name)
        with self._lock:
            if self._is_taken(tree, path):
                return False
            if held.data is None:
                raise FileNotFoundError(name)
            self.trees.setdefault(tree, {})[path] = bytes(held.data)
            held.data = None
            return True

    def remove_upload(self, name: str) -> None:
        self._require_up()
        self.uploads.pop(name, None)

    def write_store_file(self, name: str, data: bytes) -> None:
        self._require_up()
        self.files[name] = data

    def read_store_file(self, name: str) -> bytes | None:
        self._require_up()
        return self.files.get(name)

    # Inside

    def require_room(self, wanted: int) -> None:
        """Raises StoreFullError past the capacity."""
        self._require_up()
        if self._used() + wanted > self._capacity:
            raise StoreFullError(f"The store {self._name} is full.")

    def extend_file(self, tree: str, path: str, data: bytes) -> None:
        with self._lock:
            self.require_room(len(data))
            self.trees[tree][path] += data

    def keep_upload(self, held: HeldUpload) -> None:
        """Take note that a checkpoint or a note of an upload is durable, as everything is here."""

    def _require_up(self) -> None:
        if self.is_down:
            raise StoreUnavailableError(f"The store {self._name} cannot be reached.")
        if self.is_broken:
            raise StoreFailedError(f"The medium of the store {self._name} failed.")

    def _used(self) -> int:
        held = [*self.trees.values(), *self.objects.values()]
        return sum(len(data) for files in held for data in files.values())

    def _is_taken(self, tree: str, path: str) -> bool:
        self._require_up()
        files = self.trees.get(tree, {})
        above = [path[:index] for index, character in enumerate(path) if character == "/"]
        return path in files or any(a in files for a in above) or any(name.startswith(f"{path}/") for name in files)

    def _staged(self, tree: str, path: str) -> bytes:
        self._require_up()
        return _find(self.trees.get(tree, {}), path)

    def _take(self, tree: str, path: str) -> bytes:
        data = self._staged(tree, path)
        del self.trees[tree][path]
        return data

    def _file_of(self, object_id: str, path: str) -> bytes:
        self._require_up()
        return _find(self.objects.get(object_id, {}), path)

    def _upload(self, name: str) -> HeldUpload:
        self._require_up()
        try:
            return self.uploads[name]
        except KeyError:
            raise FileNotFoundError(name) from None


class MemorySink:
    """A new file that takes bytes in order."""

    def __init__(self, store: MemoryStore, tree: str, path: str) -> None:
        self._store = store
        self._tree = tree
        self._path = path

    def write(self, data: Buffer) -> None:
        self._store.extend_file(self._tree, self._path, bytes(data))

    def close(self) -> None:
        pass

    def abort(self) -> None:
        self._store.remove_files(self._tree, [self._path])


class MemoryUpload:
    """An upload in the hands of one holder."""

    def __init__(self, store: MemoryStore, held: HeldUpload) -> None:
        self._store = store
        self._held = held
        self.attributes = held.attributes
        self.note = held.note
        self.durable = held.durable if held.data is not None else 0
        self.size = self.durable
        if held.data is not None:
            del held.data[held.durable :]

    def write(self, data: Buffer) -> None:
        assert self._held.data is not None
        self._store.require_room(len(data))
        self._held.data += data
        self.size = len(self._held.data)

    def checkpoint(self) -> int:
        self.durable = self._held.durable = self.size
        self._store.keep_upload(self._held)
        return self.durable

    def read(self, offset: int, length: int) -> Iterator[bytes]:
        assert self._held.data is not None
        yield from _blocks(bytes(self._held.data), offset, length)

    def keep_note(self, note: bytes) -> None:
        self.note = self._held.note = note
        self._store.keep_upload(self._held)

    def close(self) -> None:
        self._held.is_busy = False


def _find(files: dict[str, bytes], path: str) -> bytes:
    try:
        return files[path]
    except KeyError:
        raise FileNotFoundError(path) from None


def _blocks(data: bytes, offset: int, length: int | None) -> Iterator[bytes]:
    end = len(data) if length is None else min(len(data), offset + length)
    for start in range(offset, end, _BLOCK):
        yield data[start : min(start + _BLOCK, end)]
