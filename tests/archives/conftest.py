"""Everything of these tests lies in memory where it can: each of them syncs two stores many times."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def tmp_path(fast_folder: Path) -> Path:
    return fast_folder
