"""Migrations make exactly the schema that the tables declare, once, and never over a newer one."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import text

from perdure.db import Database
from perdure.db.embedded import find_binaries
from perdure.db.errors import SchemaBehindError, SchemaNewerError
from perdure.db.migrations import SchemaState, migrate, require_current_schema, runner, schema_state


def dump_schema(url: str) -> list[str]:
    """Every line of the schema, sorted: the order of columns is no promise."""
    command = [str(find_binaries() / "pg_dump"), "--schema-only", "--no-owner", "--no-privileges", url]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = (line.rstrip(",") for line in done.stdout.splitlines())
    return sorted(line for line in lines if line.strip() and not line.startswith(("--", "\\")))


def test_a_migrated_schema_is_the_declared_one_with_every_check_function_and_partition(
    empty_url: str, database_url: str
) -> None:
    migrate(empty_url)
    with_version = [
        line for line in dump_schema(empty_url) if "alembic_version" not in line and "version_num" not in line
    ]
    declared = dump_schema(database_url)
    assert [line for line in with_version if line not in declared] == []
    assert [line for line in declared if line not in with_version] == []


def test_the_names_of_the_files_tell_the_revisions_in_their_order() -> None:
    scripts = ScriptDirectory(str(Path(runner.__file__).parent))
    assert runner.list_revisions() == [revision.revision for revision in scripts.walk_revisions()][::-1]


def test_migrating_twice_and_at_once_is_safe(empty_url: str) -> None:
    assert schema_state(empty_url) is SchemaState.BEHIND
    with pytest.raises(SchemaBehindError):
        require_current_schema(empty_url)
    threads = [threading.Thread(target=migrate, args=(empty_url,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert schema_state(empty_url) is SchemaState.CURRENT
    require_current_schema(empty_url)


def test_a_newer_schema_is_refused_and_left_alone(empty_url: str) -> None:
    migrate(empty_url)
    database = Database(empty_url)
    with database.begin() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = 'of the future'"))
    before = dump_schema(empty_url)
    assert schema_state(empty_url) is SchemaState.NEWER
    for refused in (migrate, require_current_schema):
        with pytest.raises(SchemaNewerError, match="does not know"):
            refused(empty_url)
    assert dump_schema(empty_url) == before
    database.dispose()


def test_the_checks_of_the_tables_reach_the_database(db: Database) -> None:
    with pytest.raises(Exception, match="ck_jobs_state"), db.begin() as tx:
        tx.execute(
            text(
                "INSERT INTO jobs (id, kind, payload, queue_id, state) VALUES (gen_random_uuid(), 'x', '{}', 1, 'odd')"
            )
        )
