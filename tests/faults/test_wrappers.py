"""The stores that fail, take their time or lie are stores like any other while they do nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

import pytest

from perdure.adapters.posix.store import PosixStore
from perdure.storage.errors import StoreFailedError, StoreFullError
from perdure.storage.ports import Store
from perdure.testing.failing import FailingStore, SlowStore
from perdure.testing.faults import Fault, FaultPlan
from perdure.testing.lying import Lie, LyingStore, VolatileStore
from perdure.testing.memory_store import MemoryStore
from perdure.testing.stores import INSTANCE, OBJECT, TREE, StoreContract, fill, read
from perdure.testing.system import WRITES, failing_system


def prepared(store: Store) -> Store:
    store.prepare(INSTANCE)
    return store


class TestFailingStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return prepared(FailingStore(PosixStore("folder", tmp_path / "store"), FaultPlan()))

    def reopen(self, store: Store) -> Store:
        return FailingStore(PosixStore("folder", Path(store.info.location)), FaultPlan())


class TestSlowStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return prepared(SlowStore(MemoryStore(), latency=0.1, bandwidth=1e6, sleep=lambda seconds: None))


class TestLyingStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return prepared(LyingStore(MemoryStore()))


class TestVolatileStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return prepared(VolatileStore())


class TestPosixStoreOnAFailingSystem(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        with failing_system(FaultPlan()):
            yield prepared(PosixStore("folder", tmp_path / "store"))

    def reopen(self, store: Store) -> Store:
        return PosixStore("folder", Path(store.info.location))


@pytest.mark.parametrize(("fault", "error"), [(Fault.FAILED, StoreFailedError), (Fault.FULL, StoreFullError)])
def test_the_call_that_was_named_fails_and_no_other(fault: Fault, error: type[Exception]) -> None:
    store = FailingStore(MemoryStore(), FaultPlan(at=2, fault=fault, counts=lambda call: call == "put_file"))
    store.prepare(INSTANCE)
    assert store.put_file(TREE, "a", b"1")
    with pytest.raises(error):
        store.put_file(TREE, "b", b"2")
    assert store.put_file(TREE, "c", b"3")
    assert dict(store.walk_tree(TREE)) == {"a": 1, "c": 1}
    assert store.plan.injected == ["put_file"]
    assert store.plan.count == 3


def test_a_short_write_leaves_half() -> None:
    store = FailingStore(MemoryStore(), FaultPlan(at=1, fault=Fault.SHORT, counts=lambda call: call == "sink.write"))
    store.prepare(INSTANCE)
    sink = store.create_file(TREE, "a")
    assert sink is not None
    with pytest.raises(StoreFullError):
        sink.write(b"12345678")
    assert store.file_size(TREE, "a") == 4


def test_an_answer_can_be_lost_after_the_act() -> None:
    plan = FaultPlan(at=1, counts=lambda call: call == "publish")
    store = prepared(FailingStore(MemoryStore(), plan, acts_first=True))
    fill(store, TREE, {"a": b"1"})
    with pytest.raises(StoreFailedError):
        store.publish(TREE, OBJECT)
    assert store.has_object(OBJECT)


def test_a_dead_medium_stays_dead() -> None:
    store = prepared(FailingStore(MemoryStore(), FaultPlan(at=2, stays=True)))
    for _ in range(3):
        with pytest.raises(StoreFailedError):
            store.has_object(OBJECT)


def test_a_slow_store_waits_for_calls_and_for_bytes() -> None:
    waited: list[float] = []
    store = prepared(SlowStore(MemoryStore(), latency=0.5, bandwidth=100.0, sleep=waited.append))
    fill(store, TREE, {"a": b"x" * 50})
    assert waited == [0.5, 0.5]
    assert list(store.read_file(TREE, "a")) == [b"x" * 50]
    assert waited == [0.5, 0.5, 0.5, 0.5]


def test_a_liar_lies_about_what_it_was_told_to() -> None:
    inner = MemoryStore()
    store = LyingStore(inner)
    store.prepare(INSTANCE)
    fill(store, TREE, {"a": b"abcd", "b": b"abcd"})
    store.publish(TREE, OBJECT)
    for lie, seen in ((Lie.FLIPPED, b"abbd"), (Lie.TRUNCATED, b"ab"), (Lie.EMPTY, b"")):
        store.lies = {f"{OBJECT}/a": lie}
        assert read(store, OBJECT, "a") == seen
        assert b"".join(map(bytes, store.read_medium(OBJECT, "a"))) == seen
        assert read(store, OBJECT, "b") == b"abcd"
    store.denied = {OBJECT}
    assert not store.has_object(OBJECT)
    store.denied, store.claimed = set(), {"urn:uuid:none"}
    assert store.has_object("urn:uuid:none")


@pytest.mark.parametrize("is_lying", [False, True])
def test_a_power_cut_takes_what_was_not_synced(is_lying: bool) -> None:
    store = VolatileStore()
    store.prepare(INSTANCE)
    store.is_lying = is_lying
    fill(store, TREE, {"a": b"1"})
    store.sync_tree(TREE)
    fill(store, TREE, {"b": b"2"})
    store.append_log("journal/a.ndjson", [b"kept"], durable=True)
    store.append_log("journal/a.ndjson", [b"lost"], durable=False)
    store.create_upload("a/upload-1", b"")
    upload = store.open_upload("a/upload-1")
    upload.write(b"durable")
    upload.checkpoint()
    upload.write(b" and not")
    store.cut_power()
    assert dict(store.walk_tree(TREE)) == ({} if is_lying else {"a": 1})
    assert store.read_log("journal/a.ndjson").lines == [b"kept"]
    assert store.upload_offset("a/upload-1") == (0 if is_lying else 7)


@pytest.mark.parametrize("name", ["write", "fsync", "syncfs", "renameat2", "mkdir", "open", "close"])
def test_a_call_of_the_system_fails(tmp_path: Path, name: str) -> None:
    store = prepared(PosixStore("folder", tmp_path / "store"))
    plan = FaultPlan(at=1, counts=lambda call: call == name)

    def use() -> None:
        fill(store, TREE, {"0=ocfl_object_1.1": b"1"})
        store.append_log("journal/a.ndjson", [b"line"], durable=True)
        store.move_file(TREE, "0=ocfl_object_1.1", "0=moved")
        store.publish(TREE, OBJECT)

    with failing_system(plan), pytest.raises(StoreFailedError):
        use()
    assert plan.injected == [name]


def test_a_short_write_of_the_system_is_made_whole(tmp_path: Path) -> None:
    store = prepared(PosixStore("folder", tmp_path / "store"))
    data = bytes(range(256)) * (3 << 12)
    for number in chain(range(1, 4), repeat(0, 1)):
        tree = f"{TREE}{number}"
        plan = FaultPlan(at=number or None, fault=Fault.SHORT, counts=WRITES.__contains__)
        with failing_system(plan):
            sink = store.create_file(tree, "a")
            assert sink is not None
            for start in range(0, len(data), 1 << 20):
                sink.write(data[start : start + (1 << 20)])
            sink.close()
        assert b"".join(store.read_file(tree, "a")) == data
        assert len(plan.injected) == bool(number)


def test_a_package_that_is_not_loaded_is_an_error() -> None:
    with pytest.raises(LookupError), failing_system(FaultPlan(), "perdure.adapters.nowhere"):
        pass
