"""Stores that were away, failed or are damaged: they come back by themselves, and nothing that happens is lost."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from subprocess import run
from uuid import UUID

import pytest

from perdure.adapters.posix.store import PosixStore
from perdure.adapters.posix.system import translate
from perdure.db import Database
from perdure.storage.errors import StoreFailedError, StoreFullError, StoreUnavailableError
from perdure.storage.model import Copy, CopyState, object_uri
from perdure.testing.failing import FailingStore
from perdure.testing.faults import Fault, FaultPlan
from perdure.testing.memory_store import MemoryStore
from perdure.testing.stores import INSTANCE, fill
from perdure.testing.system import failing_system

from .life import House, Life


@pytest.fixture
def house(db: Database, fast_folder: Path, require_valid: Callable[[Path], None]) -> Iterator[House]:
    made = House(db, fast_folder)
    yield made
    made.require_chain()
    for root in (fast_folder / "one" / "root", fast_folder / "two" / "root"):
        require_valid(root)


def opened(house: House) -> UUID:
    life = Life(house)
    life.open()
    assert life.archive is not None
    return life.archive


def head_copies(house: House, archive: UUID) -> dict[str, Copy]:
    names = {store.id: store.name for store in house.storage.stores()}
    with house.db.begin() as tx:
        found = house.storage.copies(tx, [object_uri(archive)])[object_uri(archive)]
    return {names[copy.store_id]: copy for copy in found}


def journal(house: House, store: str, archive: UUID) -> Path:
    return house.folder / store / "journal" / f"{archive}.ndjson"


def describe(house: House, archive: UUID, text: bytes) -> None:
    house.archives.describing.patch_metadata(house.ada, archive, b"", text)


# A damaged journal beside a whole one


def test_a_damaged_journal_of_another_store_holds_up_nothing(house: House) -> None:
    archive = opened(house)
    describe(house, archive, b'{"a":1}')
    describe(house, archive, b'{"b":2}')
    damaged = journal(house, "two", archive).read_bytes().replace(b"kind", b"kinx", 1)
    journal(house, "two", archive).write_bytes(damaged)
    house.open()
    describe(house, archive, b'{"c":3}')
    assert journal(house, "two", archive).read_bytes() == journal(house, "one", archive).read_bytes()
    aside = list((house.folder / "two" / "quarantine").glob("*.damaged-*"))
    assert [path.read_bytes() for path in aside] == [damaged]


def test_a_full_store_beside_the_primary_gets_its_journal_later(db: Database, fast_folder: Path) -> None:
    plan = FaultPlan(fault=Fault.FULL, counts=lambda call: call in ("append_log", "replace_log"), stays=True)
    house = House(db, fast_folder, lambda h: [_primary(h), FailingStore(PosixStore("two", h.folder / "two"), plan)])
    archive = opened(house)
    plan._at = 1
    describe(house, archive, b'{"a":1}')
    assert not journal(house, "two", archive).exists()
    plan.mend()
    describe(house, archive, b'{"b":2}')
    assert journal(house, "two", archive).read_bytes() == journal(house, "one", archive).read_bytes()


# A store that is not there at the start


def test_a_store_that_was_away_at_the_start_is_taken_in_later(house: House) -> None:
    archive = opened(house)
    two, away = house.folder / "two", house.folder / "unmounted"
    two.rename(away)
    house.open()
    describe(house, archive, b'{"a":1}')
    assert house.archives.heads.fold(archive) == 2
    assert [store.name for store in house.storage.stores()] == ["one"]
    assert house.storage.recover() == []
    away.rename(two)
    assert house.storage.recover() == ["two"]
    assert house.storage.recover() == []
    assert [store.name for store in house.storage.stores()] == ["one", "two"]
    assert house.storage.reconcile_heads() == 1
    copies = head_copies(house, archive)
    assert {(copy.version, copy.state) for copy in copies.values()} == {(2, CopyState.VERIFIED)}
    assert house.storage.reconcile_heads() == 0


def test_a_store_whose_medium_fails_at_the_start_is_left_out(db: Database, fast_folder: Path) -> None:
    plan = FaultPlan(at=1, counts=lambda call: call == "prepare")
    house = House(db, fast_folder, lambda h: [_primary(h), FailingStore(PosixStore("two", h.folder / "two"), plan)])
    assert [store.name for store in house.storage.stores()] == ["one"]
    assert house.storage.recover() == ["two"]


def test_keys_reach_a_store_that_was_out(db: Database, fast_folder: Path) -> None:
    plan = FaultPlan(at=1, counts=lambda call: call == "write_store_file")
    two = FailingStore(PosixStore("two", fast_folder / "two"), plan)
    house = House(db, fast_folder, lambda h: [_primary(h), two])
    house.storage.write_store_file("keys.json", b"keys")
    assert two.read_store_file("keys.json") is None
    with failing_system(FaultPlan(at=1, counts=lambda call: call == "fsync")), pytest.raises(StoreFailedError):
        two.append_log("journal/x.ndjson", [b"line"], durable=True)
    assert house.storage.recover() == ["two"]
    assert two.read_store_file("keys.json") == b"keys"


# A store that has lost writes


def test_a_store_that_lost_writes_comes_back_after_an_examination(house: House) -> None:
    archive = opened(house)
    lost = house.stores[1]
    with failing_system(FaultPlan(at=1, counts=lambda call: call == "fsync")), pytest.raises(StoreFailedError):
        lost.write_store_file("lost", b"")
    assert not lost.is_sound
    describe(house, archive, b'{"a":1}')
    assert house.archives.heads.fold(archive) == 2
    copies = head_copies(house, archive)
    assert (copies["one"].version, copies["two"].version) == (2, 1)
    syncs = FaultPlan(at=1, counts=lambda call: call in ("syncfs", "fsync"))
    with failing_system(syncs):
        assert house.storage.recover() == [], "a medium that still fails stays out"
    assert house.storage.recover() == ["two"]
    assert not lost.is_sound, "what is under way on the old one goes on failing"
    assert house.storage.reconcile_heads() == 1
    copies = head_copies(house, archive)
    assert {(copy.version, copy.state) for copy in copies.values()} == {(2, CopyState.VERIFIED)}
    describe(house, archive, b'{"b":1}')
    assert journal(house, "two", archive).read_bytes() == journal(house, "one", archive).read_bytes()


def test_what_was_written_before_writes_were_lost_is_never_published(tmp_path: Path) -> None:
    store = PosixStore("two", tmp_path / "store")
    store.prepare(INSTANCE)
    tree, object_id = "objects/a", "urn:uuid:01930000-0000-7000-8000-00000000000a"
    fill(store, tree, {"0=ocfl_object_1.1": b"1"})
    plan = FaultPlan(at=1, counts=lambda call: call in ("syncfs", "fsync"))
    with failing_system(plan), pytest.raises(StoreFailedError):
        store.sync_tree("objects/b")
    fresh = store.renew()
    fresh.prepare(INSTANCE)
    with pytest.raises(StoreFailedError):
        store.publish(tree, object_id)
    assert not fresh.has_object(object_id)


def test_the_primary_does_not_come_back_in_the_same_process(house: House) -> None:
    with failing_system(FaultPlan(at=1, counts=lambda call: call == "fsync")), pytest.raises(StoreFailedError):
        house.stores[0].write_store_file("lost", b"")
    assert house.storage.recover() == []
    assert not house.stores[0].is_sound


def test_another_file_system_at_the_same_place_takes_no_syncs(tmp_path: Path) -> None:
    """A sync goes to the file system that was there at the start."""
    place = tmp_path / "place"
    told: list[bool] = []
    store = PosixStore("two", place, on_sync_failure=lambda: told.append(True))
    store.prepare(INSTANCE)
    with mounted_over(place):
        other = PosixStore("two", place)
        other.prepare(INSTANCE)
        assert not store.is_sound
        fill(store, "objects/a", {"x": b"1"})
        with pytest.raises(StoreUnavailableError):
            store.sync_tree("objects/a")
        assert told == [True]
        store.renew().prepare(INSTANCE)
    assert store.is_sound


@contextmanager
def mounted_over(place: Path) -> Iterator[None]:
    done = run(["mount", "-t", "tmpfs", "tmpfs", str(place)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount: no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.EIO, StoreFailedError),
        (errno.ENOSPC, StoreFullError),
        (errno.EDQUOT, StoreFullError),
        (errno.ESTALE, StoreUnavailableError),
        (errno.EMFILE, StoreUnavailableError),
        (errno.EACCES, StoreUnavailableError),  # a wrong mode says nothing of the bytes: no copy is doubted for it
    ],
)
def test_what_the_system_says_becomes_a_sentence(number: int, error: type[Exception]) -> None:
    assert type(translate(OSError(number, os.strerror(number)), "two")) is error


# Clocks


def test_a_sweep_with_a_clock_ahead_spares_what_is_being_built(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head's tree is known to nobody but to him who builds it."""
    archive = opened(house)
    describe(house, archive, b'{"a":1}')
    store = house.stores[0]
    exchange, swept = store.exchange, list[str]()

    def sweep_and_exchange(tree: str, object_id: str) -> None:
        swept.extend(house.storage.sweep_staging(lambda *_: False, house.clock.now() + timedelta(days=1)))
        assert dict(store.walk_tree(tree))
        exchange(tree, object_id)

    monkeypatch.setattr(store, "exchange", sweep_and_exchange)
    assert house.archives.heads.fold(archive) == 2
    assert not [name for name in swept if name.startswith("objects/")]


def test_an_abandoned_tree_is_swept_when_nobody_is_at_it(house: House) -> None:
    archive = opened(house)
    store = house.stores[0]
    fill(store, f"objects/{archive}", {"left": b"1"})
    old = time.time() - 90_000
    os.utime(house.folder / "one" / "staging" / "objects" / str(archive), (old, old))
    assert house.storage.sweep_staging(lambda *_: True, house.clock.now() - timedelta(days=1)) == [f"objects/{archive}"]


def test_a_broken_store_in_memory_is_not_sound() -> None:
    store = MemoryStore()
    store.prepare(INSTANCE)
    store.is_broken = True
    assert not store.is_sound
    assert store.renew() is store


def _primary(house: House) -> PosixStore:
    return PosixStore("one", house.folder / "one", on_sync_failure=house.want_restart)


def test_letting_go_of_an_upload_is_no_error(tmp_path: Path) -> None:
    """What was promised was synced before."""
    store = PosixStore("two", tmp_path / "store")
    store.prepare(INSTANCE)
    store.create_upload("a/upload-1", b"")
    plan = FaultPlan(at=2, fault=Fault.FULL, counts=lambda call: call == "close")  # after that of the record
    with failing_system(plan):
        upload = store.open_upload("a/upload-1")
        upload.write(b"kept")
        upload.checkpoint()
        upload.close()
    assert plan.injected == ["close"]
    assert store.upload_offset("a/upload-1") == 4
