"""A workshop for each test; another OCFL validator judges what it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ocfl
import pytest

from perdure.db import Database

from .workshop import Workshop, make_workshop


@pytest.fixture
def shop(db: Database, tmp_path: Path) -> Iterator[Workshop]:
    made = make_workshop(db, tmp_path)
    yield made
    for root in () if made.damaged else made.roots:
        require_valid(root / "root")


def require_valid(root: Path) -> None:
    """Fail unless ocfl-py finds the storage root and all its objects valid."""
    judge = ocfl.StorageRoot(root=str(root))
    if not judge.validate():
        pytest.fail(f"{root}: {judge.errors} {judge.log.status_str() if judge.log else ''}")
