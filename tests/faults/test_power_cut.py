"""The power goes after every step: what was acknowledged had been synced. A disk that lies about it is found out."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.db import Database
from perdure.kernel.errors import PerdureError
from perdure.testing.lying import VolatileStore

from .life import House, Life, require_clean


@pytest.fixture
def disks() -> list[VolatileStore]:
    return [VolatileStore("one"), VolatileStore("two")]


def cut_power(house: House, disks: list[VolatileStore]) -> None:
    for disk in disks:
        disk.cut_power()
    house.open()


def test_every_acknowledged_step_outlives_a_power_cut(
    db: Database, fast_folder: Path, disks: list[VolatileStore]
) -> None:
    """I1: of each step nothing is lost, neither what it did nor what those before it did."""
    house = House(db, fast_folder, lambda _: disks)
    life = Life(house)
    for step in life.steps():
        step()
        cut_power(house, disks)
    life.require_end()
    house.require_chain()
    house.require_receipts()


def test_a_disk_that_lies_about_syncs_is_found_out(db: Database, fast_folder: Path, disks: list[VolatileStore]) -> None:
    """What it lost was acknowledged, and nobody says that it is there: closing names it and signs nothing."""
    house = House(db, fast_folder, lambda _: disks)
    life = Life(house)
    life.open()
    disks[0].is_lying = True
    life.put_stream()
    cut_power(house, disks)
    house.most_jobs = 4
    with pytest.raises(PerdureError, match="not there") as told:
        life.close()
    require_clean(told.value)
    assert house.look(life._archive).statement is None
