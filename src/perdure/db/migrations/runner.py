"""Apply revisions, and say how a database's schema stands to this release.

Alembic applies them. How the schema stands is told without it: every process asks that when it starts, and Alembic is
slow to import.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, MetaData, text

import perdure
from perdure.db.engine import Database, metadata
from perdure.db.errors import SchemaBehindError, SchemaNewerError

if TYPE_CHECKING:
    from alembic.config import Config

_HERE = Path(__file__).parent
_MIGRATION_LOCK = 7_236_094_410_281_774  # any number that nothing else locks


class SchemaState(StrEnum):
    BEHIND = "behind"
    CURRENT = "current"
    NEWER = "newer"


def collect_tables() -> MetaData:
    """The metadata with every domain's tables in it."""
    for package in pkgutil.iter_modules(perdure.__path__, "perdure."):
        if package.ispkg and importlib.util.find_spec(f"{package.name}.tables"):
            importlib.import_module(f"{package.name}.tables")
    return metadata


def migrate(url: str) -> None:
    """Bring the schema to this release's; safe to call twice and from two machines at once.

    Each revision is a transaction. Raises SchemaNewerError when a newer release was here before.
    """
    from alembic import command  # noqa: PLC0415  # slow to import

    database = Database(url, pool_size=1)
    try:
        with database.connect_autocommit() as guard:
            guard.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _MIGRATION_LOCK})
            with database.begin() as tx:
                _refuse_newer(tx)
                command.upgrade(_configuration(tx), "head")
    finally:
        database.dispose()


def schema_state(url: str) -> SchemaState:
    """How the database's schema stands to this release."""
    database = Database(url, pool_size=1)
    try:
        with database.begin() as tx:
            return _state(tx)
    finally:
        database.dispose()


def require_current_schema(url: str) -> None:
    """Raise SchemaBehindError or SchemaNewerError unless this release and the database fit."""
    state = schema_state(url)
    if state is SchemaState.NEWER:
        raise SchemaNewerError("The database has a schema that this release does not know.")
    if state is SchemaState.BEHIND:
        raise SchemaBehindError("The database has an older schema than this release needs.")


def list_revisions() -> list[str]:
    """All that this release knows, in their order: the names of their files begin with them."""
    return sorted(path.name.partition("_")[0] for path in (_HERE / "versions").glob("[0-9]*_*.py"))


def _state(tx: Connection) -> SchemaState:
    known = list_revisions()
    present = _find_present(tx)
    if not present.issubset(known):
        return SchemaState.NEWER
    return SchemaState.CURRENT if present == {known[-1]} else SchemaState.BEHIND


def _find_present(tx: Connection) -> set[str]:
    """The revision of the database; none when it is new."""
    if tx.execute(text("SELECT to_regclass('alembic_version')")).scalar_one() is None:
        return set()
    return set(tx.execute(text("SELECT version_num FROM alembic_version")).scalars())


def _refuse_newer(tx: Connection) -> None:
    if _state(tx) is SchemaState.NEWER:
        raise SchemaNewerError("The database has a schema that this release does not know.")


def _configuration(tx: Connection) -> Config:
    from alembic.config import Config  # noqa: PLC0415  # slow to import

    configuration = Config()
    configuration.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    configuration.attributes["connection"] = tx
    return configuration
