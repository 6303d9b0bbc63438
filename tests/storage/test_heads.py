"""Head objects: many versions, little written, no window, no lost version, whatever fails in between."""

from __future__ import annotations

import hashlib
import os
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from perdure.adapters.posix.store import PosixStore
from perdure.formats.ocfl import sidecar_bytes
from perdure.kernel.digests import digest_bytes
from perdure.kernel.errors import DamagedError
from perdure.kernel.ids import new_id
from perdure.storage.errors import NoGoodCopyError, StoreUnavailableError, UnknownObjectError
from perdure.storage.model import Abilities, object_uri
from perdure.storage.ports import Store
from perdure.testing.memory_store import MemoryStore

if TYPE_CHECKING:
    from tests.storage.conftest import Lab

    from perdure.storage.service import Storage

HEAD_POINTS = [
    "head.shared",
    "head.written",
    "exchange.synced",
    "exchange.done",
    "exchange.old_removed",
    "head.installed",
    "head.committed",
]


@pytest.fixture
def archive() -> UUID:
    return new_id()


def read(lab: Lab, archive: UUID, name: str, version: int | None = None) -> bytes:
    return lab.storage.read_head_file(object_uri(archive), name, version)


def bytes_in(folder: Path) -> int:
    """Bytes of the distinct files below a folder."""
    stats = [path.lstat() for path in folder.rglob("*") if path.is_file()]
    return sum({found.st_ino: found.st_size for found in stats}.values())


def test_versions_add_and_old_ones_stay(lab: Lab, archive: UUID) -> None:
    first = lab.write_head(archive, {"archive.json": b"1", "metadata/history-000001.ndjson": b"a"})
    second = lab.write_head(archive, {"archive.json": b"2", "metadata/history-000001.ndjson": None})
    assert (first.version, second.version, second.behind) == (1, 2, ())
    assert lab.storage.head_state(object_uri(archive)) == {"archive.json": hashlib.sha512(b"2").hexdigest()}
    assert read(lab, archive, "archive.json") == b"2"
    assert read(lab, archive, "archive.json", 1) == b"1"
    assert read(lab, archive, "metadata/history-000001.ndjson", 1) == b"a"
    with pytest.raises(UnknownObjectError):
        read(lab, archive, "metadata/history-000001.ndjson")
    with pytest.raises(UnknownObjectError):
        read(lab, archive, "archive.json", 3)
    assert lab.states(object_uri(archive)) == {"first": "verified", "second": "verified"}


def test_no_change_makes_no_version(lab: Lab, archive: UUID) -> None:
    first = lab.write_head(archive, {"a": b"1", "b": b"1"})
    assert lab.write_head(archive, {"a": b"1", "c": None}) == first


def test_content_that_comes_back_is_not_stored_again(lab: Lab, archive: UUID, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 1000)
    lab.write_head(archive, {"a": tmp_path / "large"})
    lab.write_head(archive, {"a": b"other"})
    lab.write_head(archive, {"a": b"x" * 1000, "b": tmp_path / "large"})
    assert read(lab, archive, "b") == b"x" * 1000
    assert len(list((lab.object_folder("first", object_uri(archive))).rglob("content/*"))) == 2


def test_thirty_versions_of_a_large_head_write_little(lab: Lab, archive: UUID, tmp_path: Path) -> None:
    large = tmp_path / "manifest"
    large.write_bytes(os.urandom(20 << 20))
    lab.write_head(archive, {"manifest.ndjson": large})
    folder = lab.object_folder("first", object_uri(archive))
    before = bytes_in(folder)
    inode = next(folder.rglob("manifest.ndjson")).stat().st_ino
    for number in range(29):
        lab.write_head(archive, {"archive.json": b'{"n":%d}' % number, f"metadata/{number}": b"m" * 1000})
    assert bytes_in(folder) - before < 5_000_000 // 2  # for each of the two stores
    assert next(folder.rglob("manifest.ndjson")).stat().st_ino == inode
    assert next(folder.rglob("manifest.ndjson")).stat().st_nlink == 1
    assert read(lab, archive, "archive.json", 10) == b'{"n":8}'
    for store in (lab.first, lab.second):
        assert lab.storage.verify_copy(object_uri(archive), store).is_good


def test_two_writers_lose_no_version(lab: Lab, archive: UUID) -> None:
    lab.write_head(archive, {"start": b""})
    storages = [lab.open() for _ in range(3)]
    failures: list[BaseException] = []

    def write(storage: Storage, name: str) -> None:
        try:
            for number in range(3):
                lab.write_head(archive, {f"{name}-{number}": f"{name} {number}".encode()}, storage)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(storage, f"w{i}")) for i, storage in enumerate(storages)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(lab.storage.head_state(object_uri(archive))) == 10
    assert lab.storage.inventory(object_uri(archive)).inventory.head == "v10"


@pytest.mark.parametrize("point", HEAD_POINTS)
def test_an_interrupted_version_is_written_once(lab: Lab, archive: UUID, point: str) -> None:
    lab.write_head(archive, {"a": b"1", "kept": b"k"})
    assert lab.crash_at(point, lambda storage: lab.write_head(archive, {"a": b"2"}, storage))
    assert read(lab, archive, "kept") == b"k"
    done = lab.write_head(archive, {"a": b"2"})
    assert (done.version, done.behind) == (2, ())
    assert read(lab, archive, "a") == b"2"
    assert list((lab.folder / "first" / "staging" / "objects").iterdir()) == []


@pytest.mark.parametrize("point", ["publish.synced", "publish.renamed", "head.installed"])
def test_an_interrupted_first_version_is_written_once(lab: Lab, archive: UUID, point: str) -> None:
    assert lab.crash_at(point, lambda storage: lab.write_head(archive, {"a": b"1"}, storage))
    assert lab.write_head(archive, {"a": b"1"}).version == 1
    assert lab.states(object_uri(archive)) == {"first": "verified", "second": "verified"}


@pytest.mark.parametrize("point", ["exchange.new_ready", "exchange.old_aside", "exchange.done"])
def test_without_exchange_no_version_is_lost(lab: Lab, archive: UUID, point: str) -> None:
    lesser = Abilities("lesser", "dropped", batch_sync=False, exchange=False, hard_links=True)

    def stores() -> list[Store]:
        return [PosixStore("first", lab.folder / "first", abilities=lesser)]

    lab.storage = lab.open(stores())
    lab.write_head(archive, {"a": b"1"})
    assert lab.crash_at(point, lambda storage: lab.write_head(archive, {"a": b"2"}, storage), stores)
    lab.storage = lab.open(stores())
    assert [object_id for object_id, _ in lab.storage.iter_objects(lab.first)] == [object_uri(archive)]
    assert lab.storage.inventory(object_uri(archive)).inventory.id == object_uri(archive)
    assert lab.write_head(archive, {"a": b"2"}).version == 2
    assert read(lab, archive, "a") == b"2"


def test_a_store_that_is_down_is_left_behind_and_caught_up(lab: Lab, archive: UUID) -> None:
    other = MemoryStore("other")
    lab.storage = lab.open([PosixStore("first", lab.folder / "first"), other])
    lab.write_head(archive, {"a": b"1"})
    other.is_down = True
    for number in range(2):
        lab.write_head(archive, {"b": b"%d" % number})
    done = lab.write_head(archive, {"c": b"c"})
    assert (done.version, done.behind) == (4, (other.info.id,))
    assert lab.copies(object_uri(archive))["other"].version == 1
    other.is_down = False
    assert lab.storage.reconcile_head(object_uri(archive)).behind == ()
    assert lab.copies(object_uri(archive))["other"].version == 4
    assert other.objects[object_uri(archive)].keys() == {
        str(path.relative_to(lab.object_folder("first", object_uri(archive))))
        for path in lab.object_folder("first", object_uri(archive)).rglob("*")
        if path.is_file()
    }


def test_a_longer_line_that_was_never_acknowledged_is_not_the_newest(lab: Lab, archive: UUID) -> None:
    """Two writers end before the second store; it then goes on alone, and the first comes back with more versions."""
    lab.write_head(archive, {"a": b"1"})
    for name in ("x", "y"):
        assert lab.crash_at("head.installed", partial(lab.write_head, archive, {name: b""}))
    lab.storage = lab.open([PosixStore("second", lab.folder / "second")])
    lab.write_head(archive, {"b": b"acknowledged"})
    lab.storage = lab.open()
    done = lab.write_head(archive, {"c": b"3"})
    assert (done.version, done.behind) == (3, ())
    assert lab.storage.head_state(object_uri(archive)).keys() == {"a", "b", "c"}
    aside = lab.folder / "first" / "quarantine" / "objects"
    assert [(path / "v3" / "inventory.json").is_file() for path in aside.iterdir()] == [True]


def test_nobody_writes_on_an_old_version(lab: Lab, archive: UUID) -> None:
    """With the only store of the newest version down, another version would fork the object."""
    first, other = PosixStore("first", lab.folder / "first"), MemoryStore("other")
    lab.storage = lab.open([first, other])
    lab.write_head(archive, {"a": b"1"})
    other.is_down = True
    lab.write_head(archive, {"a": b"2"})
    other.is_down = False
    (lab.folder / "first").rename(lab.folder / "away")
    try:
        with pytest.raises(StoreUnavailableError):
            lab.write_head(archive, {"a": b"3"})
    finally:
        (lab.folder / "away").rename(lab.folder / "first")
    assert lab.write_head(archive, {"a": b"3"}).version == 3


def test_a_version_that_was_never_acknowledged_does_not_fork_the_object(lab: Lab, archive: UUID) -> None:
    """One store takes version 2, the writer dies; another version 2 is acknowledged; both come together again."""
    other = MemoryStore("other")
    lab.storage = lab.open([PosixStore("first", lab.folder / "first"), other])
    lab.write_head(archive, {"a": b"1"})
    acknowledged = dict(other.objects[object_uri(archive)])
    lab.write_head(archive, {"a": b"unacknowledged"})
    orphan = other.objects[object_uri(archive)]
    lab.storage.remove_object(object_uri(archive))
    with lab.db.begin() as tx:
        lab.storage.forget_objects(tx, [object_uri(archive)])
    other.objects[object_uri(archive)] = acknowledged
    lab.write_head(archive, {"a": b"acknowledged"})
    other.objects[object_uri(archive)] = orphan
    lab.storage.reconcile_head(object_uri(archive))
    assert read(lab, archive, "a") == b"acknowledged"
    assert lab.storage.verify_copy(object_uri(archive), other.info.id).is_good


def test_a_damaged_head_is_not_built_upon(lab: Lab, archive: UUID, damaged: set[str]) -> None:
    lab.write_head(archive, {"a": b"1"})
    damaged.add("first")
    target = lab.object_folder("first", object_uri(archive)) / "v1" / "content" / "a"
    target.write_bytes(b"2")
    assert read(lab, archive, "a") == b"1"
    assert lab.states(object_uri(archive)) == {"first": "suspect", "second": "verified"}
    done = lab.write_head(archive, {"b": b"2"})
    assert done.behind == (lab.first,)
    assert target.read_bytes() == b"2"
    lab.storage.place_copy(object_uri(archive), lab.first)
    assert lab.storage.verify_copy(object_uri(archive), lab.first).is_good
    damaged.clear()


def test_a_head_without_a_good_copy_is_not_written(lab: Lab, archive: UUID) -> None:
    lab.write_head(archive, {"a": b"1"})
    with lab.db.begin() as tx:
        tx.exec_driver_sql("UPDATE copies SET state = 'suspect'")
    with pytest.raises((NoGoodCopyError, StoreUnavailableError)):
        lab.write_head(archive, {"a": b"2"})


def test_a_version_more_by_an_interrupted_writer_is_no_damage(lab: Lab) -> None:
    archive = new_id()
    lab.write_head(archive, {"record.json": b"one"})
    change = {"record.json": b"two"}
    assert lab.crash_at("exchange.old_removed", lambda storage: lab.write_head(archive, change, storage))
    for store in (lab.first, lab.second):
        assert lab.storage.verify_copy(object_uri(archive), store).is_good
    assert lab.write_head(archive, change).version == 2
    assert lab.states(object_uri(archive)) == {"first": "verified", "second": "verified"}


def test_a_store_that_was_behind_when_a_writer_died_is_sound(lab: Lab, archive: UUID) -> None:
    """The first store has the next version already while the second is brought to the one before it."""
    lab.write_head(archive, {"record.json": b"one"})
    for point, said in (("head.installed", b"two"), ("place.published", b"three")):
        assert lab.crash_at(point, partial(lab.write_head, archive, {"record.json": said}))
    for store in (lab.first, lab.second):
        held = dict(lab.storage.iter_objects(store))[object_uri(archive)]
        assert not isinstance(held, DamagedError), held
        assert lab.storage.verify_copy(object_uri(archive), store).is_good
    assert lab.write_head(archive, {"record.json": b"four"}).behind == ()
    assert lab.states(object_uri(archive)) == {"first": "verified", "second": "verified"}


def test_a_version_more_that_changes_what_was_there_is_damage(lab: Lab, damaged: set[str]) -> None:
    archive = new_id()
    lab.write_head(archive, {"record.json": b"one", "kept.json": b"kept"})
    assert lab.crash_at("exchange.old_removed", lambda storage: lab.write_head(archive, {"more.json": b"2"}, storage))
    damaged.add("first")
    folder = lab.object_folder("first", object_uri(archive))
    kept = next(
        place for place in (folder / "v1" / "content").rglob("*") if place.is_file() and place.read_bytes() == b"kept"
    )
    kept.write_bytes(b"KEPT")
    old, new = (digest_bytes(data, ("sha512",))["sha512"] for data in (b"kept", b"KEPT"))
    for inventory in (folder / "inventory.json", folder / "v2" / "inventory.json"):
        data = inventory.read_bytes().replace(old.encode(), new.encode())
        inventory.write_bytes(data)
        (inventory.parent / "inventory.json.sha512").write_bytes(sidecar_bytes(data, "sha512"))
    assert not lab.storage.verify_copy(object_uri(archive), lab.first).is_good
