"""A store around another one, for tests that want to come between the two."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from perdure.storage.model import Abilities, JournalRead, Room, StoreInfo
from perdure.storage.ports import Buffer, Sink, Store, Upload

Result = TypeVar("Result")


class WrappedStore:
    """Passes every call on; a subclass comes between by `around`, `around_write` and `around_blocks`.

    Calls are named as the methods of the port are; those of sinks and uploads are `sink.write`, `upload.checkpoint`.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner

    def around(self, call: str, act: Callable[[], Result]) -> Result:
        """Every call that gives one answer."""
        return act()

    def around_write(self, call: str, data: Buffer, write: Callable[[Buffer], Result]) -> Result:
        """Every call that takes bytes."""
        return write(data)

    def around_blocks(self, call: str, place: str, blocks: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
        """Every call that gives the bytes of a file; `place` is the tree's name or object's id and the path."""
        return blocks()

    def around_names(self, call: str, names: Callable[[], Iterator[Result]]) -> Iterator[Result]:
        """Every call that lists."""
        return names()

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def info(self) -> StoreInfo:
        return self.inner.info

    @property
    def abilities(self) -> Abilities:
        return self.inner.abilities

    def prepare(self, instance_id: UUID, expected_id: UUID | None = None) -> None:
        self.around("prepare", lambda: self.inner.prepare(instance_id, expected_id))

    @property
    def is_sound(self) -> bool:
        return self.inner.is_sound

    def renew(self) -> WrappedStore:
        renewed = copy(self)
        renewed.inner = self.inner.renew()
        return renewed

    def room(self) -> Room:
        return self.around("room", self.inner.room)

    # Trees in staging

    def create_file(self, tree: str, path: str) -> Sink | None:
        sink = self.around("create_file", lambda: self.inner.create_file(tree, path))
        return None if sink is None else _WrappedSink(self, sink)

    def put_file(self, tree: str, path: str, data: Buffer) -> bool:
        return self.around_write("put_file", data, lambda given: self.inner.put_file(tree, path, given))

    def adopt_file(self, tree: str, path: str, object_id: str, object_path: str) -> bool:
        return self.around("adopt_file", lambda: self.inner.adopt_file(tree, path, object_id, object_path))

    def sync_tree(self, tree: str) -> None:
        self.around("sync_tree", lambda: self.inner.sync_tree(tree))

    def move_file(self, tree: str, path: str, new_path: str) -> None:
        self.around("move_file", lambda: self.inner.move_file(tree, path, new_path))

    def set_aside(self, tree: str, path: str) -> None:
        self.around("set_aside", lambda: self.inner.set_aside(tree, path))

    def forget_set_aside(self, tree: str) -> None:
        self.around("forget_set_aside", lambda: self.inner.forget_set_aside(tree))

    def walk_tree(self, tree: str) -> Iterator[tuple[str, int]]:
        return self.around_names("walk_tree", lambda: self.inner.walk_tree(tree))

    def prune_tree(self, tree: str) -> None:
        self.around("prune_tree", lambda: self.inner.prune_tree(tree))

    def file_size(self, tree: str, path: str) -> int:
        return self.around("file_size", lambda: self.inner.file_size(tree, path))

    def read_file(self, tree: str, path: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        place = f"{tree}/{path}"
        return self.around_blocks("read_file", place, lambda: self.inner.read_file(tree, path, offset, length))

    def remove_files(self, tree: str, paths: Iterable[str]) -> int:
        return self.around("remove_files", lambda: self.inner.remove_files(tree, paths))

    def remove_tree(self, tree: str) -> tuple[int, int]:
        return self.around("remove_tree", lambda: self.inner.remove_tree(tree))

    def iter_trees(self) -> Iterator[tuple[str, float]]:
        return self.around_names("iter_trees", self.inner.iter_trees)

    # Objects in the root

    def publish(self, tree: str, object_id: str) -> None:
        self.around("publish", lambda: self.inner.publish(tree, object_id))

    def exchange(self, tree: str, object_id: str) -> None:
        self.around("exchange", lambda: self.inner.exchange(tree, object_id))

    def settle_object(self, object_id: str) -> None:
        self.around("settle_object", lambda: self.inner.settle_object(object_id))

    def set_object_aside(self, object_id: str) -> None:
        self.around("set_object_aside", lambda: self.inner.set_object_aside(object_id))

    def has_object(self, object_id: str) -> bool:
        return self.around("has_object", lambda: self.inner.has_object(object_id))

    def walk_object(self, object_id: str) -> Iterator[tuple[str, int]]:
        return self.around_names("walk_object", lambda: self.inner.walk_object(object_id))

    def read_object(self, object_id: str, path: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        place = f"{object_id}/{path}"
        return self.around_blocks("read_object", place, lambda: self.inner.read_object(object_id, path, offset, length))

    def read_medium(self, object_id: str, path: str) -> Iterator[memoryview]:
        place = f"{object_id}/{path}"
        blocks = self.around_blocks("read_medium", place, lambda: map(bytes, self.inner.read_medium(object_id, path)))
        return map(memoryview, blocks)

    def local_path(self, object_id: str, path: str) -> Path | None:
        """None: what a reader opens by itself nobody comes between."""
        return None

    def remove_object(self, object_id: str) -> tuple[int, int]:
        return self.around("remove_object", lambda: self.inner.remove_object(object_id))

    def iter_objects(self) -> Iterator[str]:
        return self.around_names("iter_objects", self.inner.iter_objects)

    # Logs, uploads, files of the store itself

    def append_log(self, name: str, lines: Iterable[bytes], *, durable: bool) -> None:
        self.around("append_log", lambda: self.inner.append_log(name, lines, durable=durable))

    def read_log(self, name: str) -> JournalRead:
        return self.around("read_log", lambda: self.inner.read_log(name))

    def replace_log(self, name: str, lines: Iterable[bytes]) -> None:
        self.around("replace_log", lambda: self.inner.replace_log(name, lines))

    def create_upload(self, name: str, attributes: bytes) -> None:
        self.around("create_upload", lambda: self.inner.create_upload(name, attributes))

    def open_upload(self, name: str) -> Upload:
        return _WrappedUpload(self, self.around("open_upload", lambda: self.inner.open_upload(name)))

    def upload_offset(self, name: str) -> int:
        return self.around("upload_offset", lambda: self.inner.upload_offset(name))

    def move_upload(self, name: str, tree: str, path: str) -> bool:
        return self.around("move_upload", lambda: self.inner.move_upload(name, tree, path))

    def remove_upload(self, name: str) -> None:
        self.around("remove_upload", lambda: self.inner.remove_upload(name))

    def write_store_file(self, name: str, data: bytes) -> None:
        self.around("write_store_file", lambda: self.inner.write_store_file(name, data))

    def read_store_file(self, name: str) -> bytes | None:
        return self.around("read_store_file", lambda: self.inner.read_store_file(name))


class _WrappedSink:
    def __init__(self, store: WrappedStore, inner: Sink) -> None:
        self._store = store
        self._inner = inner

    def write(self, data: Buffer) -> None:
        self._store.around_write("sink.write", data, self._inner.write)

    def close(self) -> None:
        self._store.around("sink.close", self._inner.close)

    def abort(self) -> None:
        self._store.around("sink.abort", self._inner.abort)


class _WrappedUpload:
    def __init__(self, store: WrappedStore, inner: Upload) -> None:
        self._store = store
        self._inner = inner
        self.attributes = inner.attributes
        self._take_over()

    def write(self, data: Buffer) -> None:
        try:
            self._store.around_write("upload.write", data, self._inner.write)
        finally:
            self._take_over()

    def checkpoint(self) -> int:
        try:
            return self._store.around("upload.checkpoint", self._inner.checkpoint)
        finally:
            self._take_over()

    def read(self, offset: int, length: int) -> Iterator[bytes]:
        return self._store.around_blocks("upload.read", "", lambda: self._inner.read(offset, length))

    def keep_note(self, note: bytes) -> None:
        try:
            self._store.around("upload.keep_note", lambda: self._inner.keep_note(note))
        finally:
            self._take_over()

    def close(self) -> None:
        self._inner.close()

    def _take_over(self) -> None:
        self.size, self.durable, self.note = self._inner.size, self._inner.durable, self._inner.note
