"""A workshop for each test; another OCFL validator judges what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perdure.db import Database

from .workshop import Workshop, make_workshop

Judge = Callable[[Path], None]


@pytest.fixture
def shop(db: Database, tmp_path: Path, require_valid: Judge) -> Iterator[Workshop]:
    made = make_workshop(db, tmp_path)
    yield made
    for root in () if made.damaged else made.roots:
        require_valid(root / "root")
