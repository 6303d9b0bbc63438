"""The use cases of identity on a real database."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from perdure.db import Database

from .house import House, make_house


@pytest.fixture
def db(module_db: Database) -> Database:
    """One database for the module, emptied for each test: cheaper than a database for each."""
    with module_db.begin() as tx:
        tx.execute(
            text("TRUNCATE organisations, events, login_attempts, grants, terms, applications RESTART IDENTITY CASCADE")
        )
    return module_db


@pytest.fixture
def house(db: Database) -> House:
    return make_house(db)
