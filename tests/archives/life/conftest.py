"""A house for each test, its stores judged by another OCFL validator afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ocfl
import pytest

from perdure.db import Database
from perdure.kernel.actor import Actor

from .house import House, make_house


@pytest.fixture
def house(db: Database, tmp_path: Path) -> Iterator[House]:
    made = make_house(db, tmp_path)
    yield made
    for root in () if made.damaged else made.roots:
        require_valid(root / "root")


@pytest.fixture
def ada(house: House) -> Actor:
    return house.join("ada")


@pytest.fixture
def bob(house: House) -> Actor:
    return house.join("bob")


def require_valid(root: Path) -> None:
    """Fail unless ocfl-py finds the storage root and all its objects valid."""
    judge = ocfl.StorageRoot(root=str(root))
    if not judge.validate():
        pytest.fail(f"{root}: {judge.errors} {judge.log.status_str() if judge.log else ''}")
