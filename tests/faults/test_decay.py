"""Bits flip, files are cut, lost, exchanged and added, in every kind of object, in either store.

Each is found by a verification, makes the copy suspect, serves no reader and no repair, and lets no receipt be given.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha512
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from perdure.archives.tables import archives, parts
from perdure.db import Database
from perdure.formats.ocfl import object_path
from perdure.jobs import JobState
from perdure.storage.errors import CopyDamagedError, NoGoodCopyError
from perdure.storage.model import Copy, CopyState, object_uri
from perdure.testing.faults import FaultPlan
from perdure.testing.system import failing_system

from .life import House, Life

ALPHA, BETA = b"alpha" * 100, b"betas" * 100  # of one size
FILES = {b"a": ALPHA, b"b": BETA}
STORES = ("one", "two")


@dataclass(frozen=True)
class Place:
    """An object of the archive, and which of its files is damaged."""

    kind: str
    pattern: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.pattern.rpartition('/')[2]}"


PLACES = [
    Place("part", "v1/content/data/a"),
    Place("part", "v1/content/meta/manifest.ndjson.gz"),
    Place("part", "inventory.json"),
    Place("part", "inventory.json.sha512"),
    Place("part", "v1/inventory.json"),
    Place("part", "0=ocfl_object_1.1"),
    Place("head", "v1/content/archive.json"),
    Place("head", "inventory.json"),
    Place("head", "inventory.json.sha512"),
    Place("head", "v1/inventory.json.sha512"),
]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def remove(path: Path) -> None:
    path.unlink()


def add_beside(path: Path) -> None:
    path.with_name("stranger").write_bytes(b"?")


DAMAGES = [flip, truncate, lengthen, remove, add_beside]


class Shelf:
    """A closed archive on two stores, and what may be asked about its copies."""

    def __init__(self, house: House) -> None:
        self.house = house
        life = Life(house)
        life.open()
        assert life.archive is not None
        self.archive = life.archive
        for path, data in FILES.items():
            life._put(self.archive, path, data)
        self.life = life

    def close(self) -> None:
        self.life.close()

    def object_id(self, kind: str) -> str:
        if kind == "head":
            return object_uri(self.archive)
        with self.house.db.begin() as tx:
            return object_uri(tx.execute(select(parts.c.id).where(parts.c.archive_id == self.archive)).scalar_one())

    def folder(self, store: str, kind: str) -> Path:
        return self.house.folder / store / "root" / object_path(self.object_id(kind))

    def verify(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What a verification finds, by store and object."""
        job = self.house.archives.verifying.start_verify(self.house.ada, self.archive)
        self.house.work()
        with self.house.db.begin() as tx:
            view = self.house.jobs.get(tx, job)
        assert view.state is JobState.SUCCEEDED
        result: Any = view.result
        return {(one["store"], one["object"]): one for one in result["copies"]}

    def state(self, store: str, kind: str) -> CopyState:
        return self.copy(store, kind).state

    def copy(self, store: str, kind: str) -> Copy:
        names = {info.id: info.name for info in self.house.storage.stores()}
        with self.house.db.begin() as tx:
            found = self.house.storage.copies(tx, [self.object_id(kind)])[self.object_id(kind)]
        return next(copy for copy in found if names[copy.store_id] == store)

    def receipt(self) -> Any:
        with self.house.db.begin() as tx:
            return tx.execute(select(archives.c.receipt).where(archives.c.id == self.archive)).scalar_one()

    def require_readable(self) -> None:
        for path, data in FILES.items():
            assert self.house.read(self.archive, path) == data

    def store_id(self, name: str) -> UUID:
        return next(info.id for info in self.house.storage.stores() if info.name == name)


@pytest.fixture
def shelf(db: Database, fast_folder: Path) -> Iterator[Shelf]:
    made = Shelf(House(db, fast_folder))
    yield made
    made.house.require_chain()


@pytest.fixture(scope="module")
def closed(module_db: Database) -> Iterator[Shelf]:
    """One for many tests, each of which mends what it damaged."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        made = Shelf(House(module_db, Path(folder)))
        made.close()
        made.require_readable()
        yield made


@pytest.fixture
def mended(closed: Shelf, fast_folder: Path) -> Iterator[Shelf]:
    kept = {(store, kind): fast_folder / f"{store}-{kind}" for store in STORES for kind in ("head", "part")}
    for (store, kind), copy in kept.items():
        shutil.copytree(closed.folder(store, kind), copy)
    yield closed
    for (store, kind), copy in kept.items():
        shutil.rmtree(closed.folder(store, kind))
        shutil.copytree(copy, closed.folder(store, kind))
    assert all(one["good"] for one in closed.verify().values())


@pytest.mark.parametrize(("number", "place"), list(enumerate(PLACES)), ids=str)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_found_and_never_trusted(
    mended: Shelf, number: int, place: Place, damage: Callable[[Path], None]
) -> None:
    """In the primary and in the other store by turns."""
    store, other = random.Random(f"{number} {damage.__name__}").sample(STORES, 2)
    shelf = mended
    damage(shelf.folder(store, place.kind) / place.pattern)
    found = shelf.verify()
    bad = {key for key, one in found.items() if not one["good"]}
    assert bad == {(store, shelf.object_id(place.kind))}
    assert found[bad.pop()]["findings"]
    assert shelf.state(store, place.kind) is CopyState.SUSPECT
    assert shelf.state(other, place.kind) is CopyState.VERIFIED
    shelf.require_readable()
    assert shelf.house.archives.life.get(shelf.house.ada, shelf.archive).archive.id == shelf.archive
    # I4: it repairs nothing, not even when it is the only one left
    shelf.house.storage.place_copy(shelf.object_id(place.kind), shelf.store_id(other))
    assert shelf.state(other, place.kind) is CopyState.VERIFIED


@pytest.mark.parametrize("store", STORES)
def test_exchanged_files_of_one_size_are_found(mended: Shelf, store: str) -> None:
    folder = mended.folder(store, "part") / "v1" / "content" / "data"
    (folder / "a").rename(folder / "x")
    (folder / "b").rename(folder / "a")
    (folder / "x").rename(folder / "b")
    found = mended.verify()[store, mended.object_id("part")]
    assert {one["kind"] for one in found["findings"]} == {"swapped"}
    assert {one["content"] for one in found["findings"]} == {"v1/content/data/a", "v1/content/data/b"}
    mended.require_readable()


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("kind", ["part", "head"])
def test_a_lost_object_is_found(mended: Shelf, store: str, kind: str) -> None:
    shutil.rmtree(mended.folder(store, kind))
    found = mended.verify()[store, mended.object_id(kind)]
    assert not found["good"]
    assert mended.state(store, kind) is CopyState.SUSPECT
    mended.require_readable()
    mended.folder(store, kind).mkdir(parents=True)


def test_a_link_in_the_place_of_a_file_is_found(mended: Shelf) -> None:
    path = mended.folder("one", "part") / "v1" / "content" / "data" / "a"
    elsewhere = mended.house.folder / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert not mended.verify()["one", mended.object_id("part")]["good"]
    mended.require_readable()


def test_an_inventory_that_agrees_with_itself_and_not_with_the_record_is_found(mended: Shelf) -> None:
    """An inventory, its sidecar and their twins of the version are all changed so that they fit each other."""
    folder = mended.folder("one", "part")
    forged = (folder / "inventory.json").read_bytes().replace(b"Part 1", b"Part 2")
    for place in (folder, folder / "v1"):
        (place / "inventory.json").write_bytes(forged)
        (place / "inventory.json.sha512").write_bytes(sha512(forged).hexdigest().encode() + b" inventory.json\n")
    assert not mended.verify()["one", mended.object_id("part")]["good"]


def test_both_copies_damaged_serve_nobody(mended: Shelf) -> None:
    for store in STORES:
        flip(mended.folder(store, "part") / "v1" / "content" / "data" / "a")
    mended.verify()
    with pytest.raises(NoGoodCopyError):
        mended.house.read(mended.archive, b"a")
    for store in STORES:
        with pytest.raises(NoGoodCopyError):
            mended.house.storage.place_copy(mended.object_id("part"), mended.store_id(store))


@pytest.mark.parametrize("damage", [remove, truncate], ids=lambda damage: damage.__name__)
def test_a_reader_who_meets_damage_first_is_served_from_the_other_copy(
    mended: Shelf, damage: Callable[[Path], None]
) -> None:
    """Without any verification before: he who reads finds it, and the copy is doubted from then on."""
    damage(mended.folder("one", "part") / "v1" / "content" / "data" / "a")
    damage(mended.folder("two", "part") / "v1" / "content" / "data" / "b")
    for path in (b"a", b"b"):
        with suppress(NoGoodCopyError, CopyDamagedError):
            assert mended.house.read(mended.archive, path) == FILES[path]
    assert CopyState.SUSPECT in {mended.state(store, "part") for store in STORES}


def test_a_suspect_copy_is_mended_from_the_good_one_only_and_kept(mended: Shelf) -> None:
    path = mended.folder("two", "part") / "v1" / "content" / "data" / "a"
    flip(path)
    damaged = path.read_bytes()
    mended.verify()
    storage, part = mended.house.storage, mended.object_id("part")
    storage.place_copy(part, mended.store_id("two"))
    assert storage.verify_copy(part, mended.store_id("two")).is_good
    assert path.read_bytes() == ALPHA
    aside = (mended.house.folder / "two" / "quarantine" / "objects").glob("*/v1/content/data/a")
    assert damaged in [kept.read_bytes() for kept in aside]


# Before the receipt


@pytest.mark.parametrize("kind", ["part", "head"])
def test_no_receipt_while_a_copy_is_damaged(shelf: Shelf, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage between the closing and the receipt: the copy is made anew and read back before anything is signed."""
    house = shelf.house
    job = house.archives.closing.close(house.ada, shelf.archive)
    house.jobs.run_job(job)
    assert shelf.receipt() is None
    name = "v1/content/data/a" if kind == "part" else "v1/content/archive.json"
    flip(shelf.folder("two", kind) / name)
    assert house.storage.verify_copy(shelf.object_id(kind), shelf.store_id("two")).findings
    place = house.storage.place_copy

    def place_and_look(object_id: str, store_id: UUID) -> None:
        assert shelf.receipt() is None
        place(object_id, store_id)

    monkeypatch.setattr(house.storage, "place_copy", place_and_look)
    house.work()
    assert shelf.receipt() is not None
    assert all(one["good"] for one in shelf.verify().values())
    house.require_receipts()


def test_a_medium_that_failed_for_a_moment_holds_up_no_closing(shelf: Shelf) -> None:
    """The only copy is in doubt after one error of reading: it is read again, whole, and counts."""
    house = shelf.house
    unreadable = FaultPlan(at=1, counts=lambda call: call == "readv")
    with failing_system(unreadable):
        shelf.close()
    assert unreadable.injected == ["readv"]
    assert all(one["good"] for one in shelf.verify().values())
    house.require_receipts()
