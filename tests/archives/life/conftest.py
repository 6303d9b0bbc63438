"""A house for each test, its stores judged by another OCFL validator afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perdure.archives.records import Context
from perdure.db import Database
from perdure.kernel.actor import Actor

from .house import House, context_on, make_house

Judge = Callable[[Path], None]


@pytest.fixture
def house(db: Database, tmp_path: Path, require_valid: Judge) -> Iterator[House]:
    made = make_house(db, tmp_path)
    yield made
    for root in () if made.damaged else made.roots:
        require_valid(root / "root")


@pytest.fixture
def fresh(house: House, make_database: Callable[[], Database]) -> Context:
    """The same stores over an empty database."""
    return context_on(house, make_database())


@pytest.fixture
def ada(house: House) -> Actor:
    return house.join("ada")


@pytest.fixture
def bob(house: House) -> Actor:
    return house.join("bob")
