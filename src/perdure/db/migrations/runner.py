"""Apply revisions, and say how a database's schema stands to this release."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from enum import StrEnum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text

import perdure
from perdure.db.engine import Database, metadata
from perdure.db.errors import SchemaBehindError, SchemaNewerError

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


def _state(tx: Connection) -> SchemaState:
    scripts = ScriptDirectory(str(Path(__file__).parent))
    known = {revision.revision for revision in scripts.walk_revisions()}
    present = set(MigrationContext.configure(tx).get_current_heads())
    if present - known:
        return SchemaState.NEWER
    return SchemaState.CURRENT if present == set(scripts.get_heads()) else SchemaState.BEHIND


def _refuse_newer(tx: Connection) -> None:
    if _state(tx) is SchemaState.NEWER:
        raise SchemaNewerError("The database has a schema that this release does not know.")


def _configuration(tx: Connection) -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    configuration.attributes["connection"] = tx
    return configuration
