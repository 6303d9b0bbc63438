"""What every store must do: subclass `StoreContract` in a test module and give it a fixture `store`.

```python
class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        store = MemoryStore()
        store.prepare(INSTANCE)
        return store
```
"""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from perdure.storage.errors import ForeignStoreError, UploadBusyError
from perdure.storage.ports import Store

INSTANCE = UUID("01930000-0000-7000-8000-000000000001")
OBJECT = "urn:uuid:01930000-0000-7000-8000-00000000000a"
TREE = "objects/01930000-0000-7000-8000-00000000000a"


def fill(store: Store, tree: str, files: dict[str, bytes]) -> None:
    """Stage files."""
    for path, data in files.items():
        assert store.put_file(tree, path, data)


def read(store: Store, object_id: str, path: str) -> bytes:
    """A file of an object, whole."""
    return b"".join(store.read_object(object_id, path))


class StoreContract:
    """The suite; `store` is an empty store that was prepared for INSTANCE."""

    @pytest.fixture
    def store(self) -> Store:
        """An empty store, prepared."""
        raise NotImplementedError("give the suite a store")

    def test_keeps_its_identity(self, store: Store) -> None:
        identity = store.info.id
        store.prepare(INSTANCE)
        assert store.info.id == identity
        assert store.info.name == store.name
        assert store.room().total >= store.room().free > 0

    # Trees

    def test_a_file_in_pieces_is_read_whole_and_in_ranges(self, store: Store) -> None:
        sink = store.create_file(TREE, "v1/content/data/a/b.bin")
        assert sink is not None
        for piece in (b"one", bytearray(b"two"), memoryview(b"three")):
            sink.write(piece)
        sink.close()
        store.sync_tree(TREE)
        assert b"".join(store.read_file(TREE, "v1/content/data/a/b.bin")) == b"onetwothree"
        assert b"".join(store.read_file(TREE, "v1/content/data/a/b.bin", 3, 3)) == b"two"
        assert b"".join(store.read_file(TREE, "v1/content/data/a/b.bin", 3, 0)) == b""
        assert b"".join(store.read_file(TREE, "v1/content/data/a/b.bin", 6, 100)) == b"three"
        assert store.file_size(TREE, "v1/content/data/a/b.bin") == 11

    def test_blocks_join_to_the_file(self, store: Store) -> None:
        data = bytes(range(256)) * 12_345
        assert store.put_file(TREE, "large", data)
        blocks = list(store.read_file(TREE, "large"))
        assert max(map(len, blocks)) <= 1 << 20
        assert b"".join(blocks) == data

    def test_a_name_is_taken_once(self, store: Store) -> None:
        assert store.put_file(TREE, "a/b", b"first")
        assert not store.put_file(TREE, "a/b", b"second")
        assert store.create_file(TREE, "a/b") is None
        assert not store.put_file(TREE, "a", b"a folder has the name")
        assert not store.put_file(TREE, "a/b/c", b"a file has the name above")
        assert store.create_file(TREE, "a/b/c/d") is None
        assert b"".join(store.read_file(TREE, "a/b")) == b"first"

    def test_an_aborted_file_is_gone(self, store: Store) -> None:
        sink = store.create_file(TREE, "gone")
        assert sink is not None
        sink.write(b"half")
        sink.abort()
        sink.abort()
        assert dict(store.walk_tree(TREE)) == {}
        assert store.put_file(TREE, "gone", b"again")

    def test_walk_names_every_file_with_its_size(self, store: Store) -> None:
        assert list(store.walk_tree(TREE)) == []
        names = {"é/日本": b"xy", "a/b": b"", " ~'\"": b"z", "n" * 200: b"12"}
        fill(store, TREE, names)
        assert dict(store.walk_tree(TREE)) == {path: len(data) for path, data in names.items()}

    def test_files_move_and_leave(self, store: Store) -> None:
        fill(store, TREE, {"a": b"1", "b/c": b"22", "d": b"333"})
        store.move_file(TREE, "a", "e/f")
        with pytest.raises(FileExistsError):
            store.move_file(TREE, "d", "e/f")
        store.set_aside(TREE, "d")
        assert dict(store.walk_tree(TREE)) == {"e/f": 1, "b/c": 2}
        assert store.remove_files(TREE, ["b/c", "b/c", "never"]) == 1
        store.prune_tree(TREE)
        assert store.put_file(TREE, "b", b"the folder of this name is gone")
        assert store.remove_tree(TREE) == (2, 32)
        assert store.remove_tree(TREE) == (0, 0)

    def test_what_is_missing_is_said(self, store: Store) -> None:
        with pytest.raises(FileNotFoundError):
            store.file_size(TREE, "a")
        with pytest.raises(FileNotFoundError):
            next(store.read_file(TREE, "a"))
        with pytest.raises(FileNotFoundError):
            next(store.read_object(OBJECT, "a"))
        with pytest.raises(FileNotFoundError):
            next(store.walk_object(OBJECT))
        with pytest.raises(FileNotFoundError):
            store.open_upload("a/upload-b")

    def test_trees_are_listed(self, store: Store) -> None:
        fill(store, "a/b", {"x": b""})
        store.append_log("staging/a/b.entries.ndjson", [b"line"], durable=False)
        store.create_upload("a/upload-c", b"")
        assert {name for name, _ in store.iter_trees()} == {"a/b", "a/b.entries.ndjson", "a/upload-c"}
        assert all(changed > 1e9 for _, changed in store.iter_trees())
        store.remove_tree("a")
        assert list(store.iter_trees()) == []

    # Objects

    def test_a_tree_becomes_an_object(self, store: Store) -> None:
        files = {"0=ocfl_object_1.1": b"ocfl_object_1.1\n", "v1/content/data/ä": b"bytes"}
        fill(store, TREE, files)
        assert not store.has_object(OBJECT)
        store.publish(TREE, OBJECT)
        store.settle_object(OBJECT)
        assert store.has_object(OBJECT)
        assert dict(store.walk_tree(TREE)) == {}
        assert dict(store.walk_object(OBJECT)) == {path: len(data) for path, data in files.items()}
        assert list(store.iter_objects()) == [OBJECT]
        assert read(store, OBJECT, "v1/content/data/ä") == b"bytes"
        assert b"".join(store.read_object(OBJECT, "v1/content/data/ä", 1, 2)) == b"yt"
        assert b"".join(map(bytes, store.read_medium(OBJECT, "v1/content/data/ä"))) == b"bytes"
        local = store.local_path(OBJECT, "v1/content/data/ä")
        assert local is None or local.read_bytes() == b"bytes"

    @pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, (4 << 20) - 1, 4 << 20, (4 << 20) + 4096 + 7])
    def test_the_medium_gives_every_byte(self, store: Store, size: int) -> None:
        data = (bytes(range(251)) * (size // 251 + 1))[:size]
        fill(store, TREE, {"f": data})
        store.publish(TREE, OBJECT)
        assert b"".join(map(bytes, store.read_medium(OBJECT, "f"))) == data

    def test_an_object_is_not_replaced_by_publishing(self, store: Store) -> None:
        fill(store, TREE, {"0=ocfl_object_1.1": b"first"})
        store.publish(TREE, OBJECT)
        fill(store, TREE, {"0=ocfl_object_1.1": b"second"})
        with pytest.raises(FileExistsError):
            store.publish(TREE, OBJECT)
        assert read(store, OBJECT, "0=ocfl_object_1.1") == b"first"

    def test_an_exchange_shares_what_is_old(self, store: Store) -> None:
        fill(store, TREE, {"0=ocfl_object_1.1": b"x", "v1/content/a": b"old"})
        store.publish(TREE, OBJECT)
        fill(store, TREE, {"0=ocfl_object_1.1": b"y", "v2/content/b": b"new"})
        assert store.adopt_file(TREE, "v1/content/a", OBJECT, "v1/content/a") or not store.abilities.hard_links
        store.put_file(TREE, "v1/content/a", b"old")
        store.exchange(TREE, OBJECT)
        assert dict(store.walk_object(OBJECT)) == {"0=ocfl_object_1.1": 1, "v1/content/a": 3, "v2/content/b": 3}
        assert read(store, OBJECT, "v1/content/a") == b"old"
        assert dict(store.walk_tree(TREE)) == {}

    def test_an_object_leaves_once(self, store: Store) -> None:
        fill(store, TREE, {"0=ocfl_object_1.1": b"1", "v1/content/a": b"22"})
        store.publish(TREE, OBJECT)
        assert store.remove_object(OBJECT) == (2, 3)
        assert store.remove_object(OBJECT) == (0, 0)
        assert not store.has_object(OBJECT)
        assert list(store.iter_objects()) == []

    def test_an_object_set_aside_makes_room_for_another(self, store: Store) -> None:
        store.set_object_aside(OBJECT)
        fill(store, TREE, {"0=ocfl_object_1.1": b"1"})
        store.publish(TREE, OBJECT)
        store.set_object_aside(OBJECT)
        assert not store.has_object(OBJECT)
        fill(store, TREE, {"0=ocfl_object_1.1": b"2"})
        store.publish(TREE, OBJECT)
        assert read(store, OBJECT, "0=ocfl_object_1.1") == b"2"

    # Logs, uploads, files of the store

    def test_a_log_grows_and_is_replaced(self, store: Store) -> None:
        name = "journal/a.ndjson"
        assert store.read_log(name).lines == []
        store.append_log(name, [b"one", b""], durable=True)
        store.append_log(name, [], durable=True)
        store.append_log(name, [b'{"three":3}'], durable=True)
        assert store.read_log(name).lines == [b"one", b"", b'{"three":3}']
        store.replace_log(name, [b"kept"])
        store.append_log(name, [b"more"], durable=False)
        assert store.read_log(name).lines == [b"kept", b"more"]
        store.replace_log(name, [])
        store.replace_log(name, [])
        assert store.read_log(name).lines == []
        with pytest.raises(ValueError, match="newline"):
            store.append_log(name, [b"a\nb"], durable=True)

    def test_an_upload_goes_on_where_it_is_durable(self, store: Store) -> None:
        store.create_upload("a/upload-1", b"about it")
        store.create_upload("a/upload-1", b"ignored: it exists")
        first = store.open_upload("a/upload-1")
        assert (first.attributes, first.size, first.note) == (b"about it", 0, None)
        first.write(b"durable")
        assert first.checkpoint() == 7
        first.write(memoryview(b" and lost"))
        assert (first.size, first.durable) == (16, 7)
        first.close()
        first.close()
        assert store.upload_offset("a/upload-1") == 7
        second = store.open_upload("a/upload-1")
        assert second.size == second.durable == 7
        second.write(b"!")
        assert b"".join(second.read(0, 8)) == b"durable!"
        second.checkpoint()
        second.keep_note(b"where it goes")
        assert store.move_upload("a/upload-1", TREE, "x/y")
        second.close()
        moved = store.open_upload("a/upload-1")
        assert (moved.size, moved.note) == (0, b"where it goes")
        moved.close()
        store.remove_upload("a/upload-1")
        store.remove_upload("a/upload-1")
        assert b"".join(store.read_file(TREE, "x/y")) == b"durable!"

    def test_an_upload_takes_no_name_that_is_taken(self, store: Store) -> None:
        store.create_upload("a/upload-1", b"")
        assert store.put_file(TREE, "taken", b"")
        assert not store.move_upload("a/upload-1", TREE, "taken")
        assert not store.move_upload("a/upload-1", TREE, "taken/below")
        assert store.move_upload("a/upload-1", TREE, "free")

    def test_an_upload_has_one_holder(self, store: Store) -> None:
        store.create_upload("a/upload-1", b"")
        holder = store.open_upload("a/upload-1")
        with pytest.raises(UploadBusyError):
            store.open_upload("a/upload-1")
        holder.close()
        store.open_upload("a/upload-1").close()

    def test_files_of_the_store_are_replaced(self, store: Store) -> None:
        assert store.read_store_file("keys.json") is None
        store.write_store_file("keys.json", b"1")
        store.write_store_file("keys.json", b"2")
        assert store.read_store_file("keys.json") == b"2"

    def test_another_instance_is_refused(self, store: Store) -> None:
        other = self.reopen(store)
        with pytest.raises(ForeignStoreError):
            other.prepare(uuid4())

    def reopen(self, store: Store) -> Store:
        """The same place as another process opens it; a store in memory is its own."""
        return store
