"""A store that lies through the whole life of an archive: it is found out, and never taken for a good copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from perdure.archives.exporting import export_events, export_registry
from perdure.archives.rebuild import rebuild
from perdure.archives.tables import archives, parts
from perdure.db import Database
from perdure.jobs import JobState
from perdure.kernel.errors import PerdureError
from perdure.storage.model import CopyState, object_uri
from perdure.testing.lying import Lie, LyingStore
from perdure.testing.memory_store import MemoryStore

from .life import House, Life, require_clean

pytestmark = pytest.mark.slow
FILES = {b"a": b"alpha" * 100, b"b": b"betas" * 100}
NAMES = ("one", "two")
OF_PART = ("v1/content/data/a", "v1/content/meta/manifest.ndjson.gz", "inventory.json", "v1/inventory.json.sha512")
OF_HEAD = ("v1/content/archive.json", "inventory.json")
FEW_JOBS = 25  # enough for a closing that succeeds


class Liars:
    """An archive on two stores that lie when they are told to, and what is believed of them."""

    def __init__(self, house: House, archive: UUID, stores: dict[str, LyingStore]) -> None:
        self.house = house
        self.archive = archive
        self.stores = stores

    @property
    def part(self) -> str:
        with self.house.db.begin() as tx:
            return object_uri(tx.execute(select(parts.c.id).where(parts.c.archive_id == self.archive)).scalar_one())

    @property
    def places(self) -> list[tuple[str, str]]:
        """Objects and their files that are lied about."""
        head = object_uri(self.archive)
        return [*((self.part, path) for path in OF_PART), *((head, path) for path in OF_HEAD)]

    def try_to_close(self) -> None:
        """Ask for the closing; who asks is told what is wrong, or nothing is."""
        self.house.most_jobs = FEW_JOBS
        try:
            Life(self.house, archive=self.archive)._close(self.archive)
        except PerdureError as error:
            require_clean(error)
        finally:
            self.house.most_jobs = None

    def verify(self) -> set[tuple[str, str]]:
        """The copies that a verification finds bad, by store and object."""
        job = self.house.archives.verifying.start_verify(self.house.ada, self.archive)
        self.house.work()
        with self.house.db.begin() as tx:
            view = self.house.jobs.get(tx, job)
        assert view.state is JobState.SUCCEEDED, view
        result: Any = view.result
        return {(one["store"], one["object"]) for one in result["copies"] if not one["good"]}

    def trusted(self, object_id: str) -> set[str]:
        """The stores whose copy of an object counts."""
        names = {info.id: info.name for info in self.house.storage.stores()}
        with self.house.db.begin() as tx:
            copies = self.house.storage.copies(tx, [object_id]).get(object_id, ())
        return {names[copy.store_id] for copy in copies if copy.state is CopyState.VERIFIED}

    def has_receipt(self) -> bool:
        with self.house.db.begin() as tx:
            found = tx.execute(select(archives.c.receipt).where(archives.c.id == self.archive)).scalar_one()
        return found is not None

    def require_readable(self) -> None:
        """Whoever reads gets the right bytes."""
        for path, data in FILES.items():
            assert self.house.read(self.archive, path) == data


@pytest.fixture
def liars(db: Database, fast_folder: Path) -> Liars:
    """An open archive that holds files."""
    stores = {name: LyingStore(MemoryStore(name)) for name in NAMES}
    house = House(db, fast_folder, lambda _: list(stores.values()))
    life = Life(house)
    life.open()
    for path, data in FILES.items():
        life._put(life._archive, path, data)
    return Liars(house, life._archive, stores)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lie", Lie)
def test_wrong_bytes_are_found_in_every_act_of_a_life(
    liars: Liars, make_database: Callable[[], Database], lie: Lie, name: str
) -> None:
    liar, part = liars.stores[name], liars.part

    liar.lies = {f"{part}/{path}": lie for path in OF_PART}
    liars.try_to_close()
    assert name not in liars.trusted(part)
    assert not liars.has_receipt()
    liar.lies = {}
    liars.try_to_close()
    assert liars.has_receipt()
    assert liars.verify() == set()

    for object_id, path in liars.places:
        liar.lies = {f"{object_id}/{path}": lie}
        assert liars.verify() == {(name, object_id)}, path
        assert liars.trusted(object_id) == {*NAMES} - {name}
        liars.require_readable()
        liar.lies = {}
        assert liars.verify() == set(), path

    export_registry(liars.house.ctx)
    export_events(liars.house.ctx)
    for object_id, path in liars.places:
        liar.lies = {f"{object_id}/{path}": lie}
        again = Liars(liars.house.over(make_database()), liars.archive, liars.stores)
        report = rebuild(again.house.ctx)
        assert report.archives == 1
        is_told = any(f"{object_id} in {name}:" in line for line in report.problems)
        assert again.verify() == (set() if is_told else {(name, object_id)}), path
        assert again.trusted(object_id) == {*NAMES} - {name}
        again.require_readable()


@pytest.mark.parametrize("name", NAMES)
def test_an_object_that_is_only_claimed_is_no_copy(liars: Liars, name: str) -> None:
    """The store says before the closing that it has what it has not."""
    liar, part = liars.stores[name], liars.part
    liar.claimed = {part}
    liars.try_to_close()
    assert name not in liars.trusted(part)
    assert not liars.has_receipt()
    liar.claimed = set()
    liars.try_to_close()
    assert liars.has_receipt()
    assert liars.verify() == set()
    liars.require_readable()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_object_that_is_denied_is_not_lost(liars: Liars, name: str, when: str) -> None:
    """The store says, from the closing on or later, that it has not what it has."""
    liar, part = liars.stores[name], liars.part
    liar.denied = {part} if when == "before" else set()
    liars.try_to_close()
    liar.denied = {part}
    liars.verify()
    liars.house.storage.place_copy(part, next(info.id for info in liars.house.storage.stores() if info.name == name))
    liar.denied = set()
    liars.try_to_close()
    assert liars.has_receipt()
    assert liars.verify() == set()
    assert liars.trusted(part) == {*NAMES}
    liars.require_readable()
