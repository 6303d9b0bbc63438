"""What a folder of a file system may do to a store."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from uuid import UUID

import pytest

from perdure.adapters.posix import syncing
from perdure.adapters.posix.store import PosixStore
from perdure.formats.ocfl import object_path
from perdure.kernel.ids import new_id
from perdure.storage.errors import StoreFailedError, StoreFullError, StoreUnavailableError
from perdure.testing.faults import FaultPlan
from perdure.testing.stores import INSTANCE
from perdure.testing.system import failing_system


@pytest.fixture
def store(tmp_path: Path) -> PosixStore:
    store = PosixStore("folder", tmp_path / "store")
    store.prepare(INSTANCE)
    if not store.abilities.batch_sync:
        pytest.skip(f"syncfs: {store.abilities.filesystem} has no batch sync to fail")
    return store


@pytest.mark.parametrize(("number", "expected"), [(errno.EIO, StoreFailedError), (errno.ENOSPC, StoreFullError)])
def test_a_failed_sync_is_never_taken_for_repaired(
    store: PosixStore, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    """The kernel tells of a lost write once; the files of other callers were lost with it."""

    def fail(_: int) -> None:
        raise OSError(number, "lost")

    told: list[bool] = []
    store._syncer._on_failure = lambda: told.append(True)
    store.put_file("a/b", "f", b"1")
    monkeypatch.setattr(syncing, "syncfs", fail)
    with pytest.raises(expected):
        store.sync_tree("a/b")
    monkeypatch.undo()
    for _ in range(2):
        with pytest.raises(StoreFailedError):
            store.sync_tree("a/b")
    with pytest.raises(StoreFailedError):
        store.append_log("journal/x.ndjson", [b"line"], durable=True)
    assert told == [True]  # to its process, which may then be started anew


def test_callers_at_one_time_share_syncs_that_began_after_them(
    store: PosixStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, release, count = threading.Event(), threading.Event(), [0]

    def slow(_: int) -> None:
        count[0] += 1
        began.set()
        release.wait(10)

    monkeypatch.setattr(syncing, "syncfs", slow)
    first = threading.Thread(target=store.sync_tree, args=("a",))
    first.start()
    began.wait(10)
    others = [threading.Thread(target=store.sync_tree, args=("a",)) for _ in range(8)]
    for thread in others:
        thread.start()
    while not store._syncer._running.locked():
        pass
    release.set()
    for thread in (first, *others):
        thread.join()
    assert 2 <= count[0] <= 9  # the first may have passed the files of the others
    began.clear()
    store.sync_tree("a")
    assert began.is_set()


def test_nothing_is_written_beside_a_store_that_is_not_mounted(store: PosixStore, tmp_path: Path) -> None:
    (tmp_path / "store").rename(tmp_path / "away")
    (tmp_path / "store").mkdir()
    with pytest.raises(StoreUnavailableError):
        store.put_file("a/b", "f", b"1")
    with pytest.raises(StoreUnavailableError):
        store.append_log("journal/x.ndjson", [b"1"], durable=True)
    with pytest.raises(StoreUnavailableError):
        store.has_object("urn:uuid:01930000-0000-7000-8000-00000000000a")
    with pytest.raises(StoreUnavailableError):
        PosixStore("folder", tmp_path / "store").prepare(INSTANCE, store.info.id)
    assert list((tmp_path / "store").iterdir()) == []


def test_two_processes_that_claim_a_folder_agree(tmp_path: Path) -> None:
    stores = [PosixStore("folder", tmp_path / "store") for _ in range(8)]
    threads = [threading.Thread(target=store.prepare, args=(INSTANCE,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({store.info.id for store in stores}) == 1
    names = {path.name for path in (tmp_path / "store").iterdir()}
    assert names == {"store.json", "root", "staging", "journal", "quarantine"}


def test_an_unexpected_file_in_staging_is_removed_by_name(store: PosixStore, tmp_path: Path) -> None:
    (tmp_path / "store" / "staging" / "odd").mkdir()
    (tmp_path / "store" / "staging" / "odd" / "file").write_bytes(b"12")
    assert [name for name, _ in store.iter_trees()] == ["odd/file"]
    assert store.remove_tree("odd/file") == (1, 2)


def test_a_name_of_the_store_itself_is_no_file_of_it(store: PosixStore) -> None:
    for name in ("store.json", "root", "a/b", ".."):
        with pytest.raises(ValueError, match="cannot be"):
            store.write_store_file(name, b"")
    assert store.read_store_file(str(new_id())) is None


PART = UUID("0192f0c0-2222-7000-8000-000000000002")
TREE, OBJECT = f"{UUID(int=1)}/{PART}", f"urn:uuid:{PART}"


@pytest.mark.parametrize(("call", "at"), [("rename", 1), ("mkdir", 2), ("mkdir", 4)])
def test_a_publish_that_fails_leaves_no_folder_in_the_root(tmp_path: Path, call: str, at: int) -> None:
    store = make_staged(tmp_path)
    with failing_system(FaultPlan(at=at, counts=lambda name: name == call)), pytest.raises(StoreFailedError):
        store.publish(TREE, OBJECT)
    assert list_folders(tmp_path) == []
    store.publish(TREE, OBJECT)
    assert store.has_object(OBJECT)


@pytest.mark.parametrize("leave", ["set_object_aside", "remove_object"])
def test_a_folder_that_cannot_be_removed_is_told_and_removed_by_the_next_start(tmp_path: Path, leave: str) -> None:
    store = make_staged(tmp_path)
    store.publish(TREE, OBJECT)
    with failing_system(FaultPlan(at=2, counts=lambda name: name == "rmdir")), pytest.raises(StoreFailedError):
        getattr(store, leave)(OBJECT)
    assert len(list_folders(tmp_path)) == 2, "the first of three was removed"
    store.renew().prepare(INSTANCE)
    assert list_folders(tmp_path) == []


def test_what_else_lies_in_the_folders_above_an_object_stays(tmp_path: Path) -> None:
    store = make_staged(tmp_path)
    store.publish(TREE, OBJECT)
    above = tmp_path / "store" / "root" / object_path(OBJECT)
    (above.parent.parent / "other").mkdir()
    store.remove_object(OBJECT)
    assert list_folders(tmp_path) == ["other", above.parent.parent.name, above.parent.parent.parent.name]


def make_staged(folder: Path) -> PosixStore:
    store = PosixStore("folder", folder / "store")
    store.prepare(INSTANCE)
    store.put_file(TREE, "f", b"1")
    return store


def list_folders(folder: Path) -> list[str]:
    """The folders of a storage root where objects are, deepest first."""
    root = folder / "store" / "root"
    found = [path for path in root.rglob("*") if path.is_dir() and "extensions" not in path.parts]
    return [path.name for path in sorted(found, key=lambda path: -len(path.parts))]
