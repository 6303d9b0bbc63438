"""Fixtures for every room: a real PostgreSQL, databases with the whole schema, stores, real instrument files."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from itertools import count
from pathlib import Path
from typing import NoReturn

import ocfl
import psycopg
import psycopg_pool.base
import pytest
import structlog
from hypothesis import HealthCheck, settings
from psycopg import sql

from perdure.db import Database
from perdure.db.embedded import EmbeddedServer
from perdure.db.engine import run_script
from perdure.db.migrations import collect_tables
from perdure.jobs.schema import queue_schema

# What runs on behind other tests must not speak into the output of a command that is under test
structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=sys.__stderr__))
# Nor draw from the generator that hypothesis watches while a property of other code is tested
psycopg_pool.base.random = random.Random().random  # type: ignore[attr-defined]

PROJECT = Path(__file__).resolve().parent.parent
_ENOUGH_MEMORY = 2 << 30  # bytes; a container may have a small one
_numbers = count()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT interrupts as at a terminal: who is started in the background ignores it from the beginning."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def find_memory() -> Path | None:
    """A folder in memory with room: a sync of a shared disk waits for what others write."""
    place = Path("/dev/shm")
    if os.access(place, os.W_OK) and shutil.disk_usage(place).free > _ENOUGH_MEMORY:
        return place
    return None


MEMORY = find_memory()

# A slow moment of a shared machine is no finding of a property
for _profile, _examples in {"fast": 30, "thorough": 200, "soak": 100_000}.items():
    _patience = [HealthCheck.too_slow]
    settings.register_profile(_profile, max_examples=_examples, deadline=None, suppress_health_check=_patience)
settings.load_profile("fast")


# The components that no test may be skipped for, by the word before the colon of the reason. Where they are named, a
# skip for anything else is refused too, but for what a container may forbid. Without the variable anything is skipped.
_required = os.environ.get("PERDURE_REQUIRE")
_FORBIDDEN_BY_CONTAINERS = frozenset({"mount", "syncfs"})


def skip_without(component: str, reason: str) -> NoReturn:
    """Skip the test aloud for want of a component."""
    pytest.skip(f"{component}: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test whose skip nobody expects here."""
    report = yield
    _refuse_unexpected_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a module whose skip nobody expects here."""
    report = yield
    _refuse_unexpected_skip(report)
    return report


def _refuse_unexpected_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if _required is None or not report.skipped or not isinstance(report.longrepr, tuple):
        return
    reason = str(report.longrepr[2]).removeprefix("Skipped: ")
    if reason.split(":")[0] not in _FORBIDDEN_BY_CONTAINERS.difference(_required.split(",")):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} may not be skipped here: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, None, None]:
    """Mark every test that starts commands and servers of its own as slow; the longest come first, the rest at random.

    A test of minutes that happens to be the last one would leave the other processors nothing to do.
    """
    for item in items:
        if "end_to_end" in item.path.parts:
            item.add_marker(pytest.mark.slow)
    yield
    items.sort(key=_minutes_given, reverse=True)


def _minutes_given(item: pytest.Item) -> float:
    """The minutes that a test may take where it is given several, 0 for all others."""
    given = item.get_closest_marker("timeout")
    return given.args[0] / 60 if given and given.args[0] >= 180 else 0.0


@pytest.fixture(scope="session")
def require_valid() -> Callable[[Path], None]:
    """Fails unless ocfl-py, which is not ours, finds a storage root and all its objects valid."""

    def judge(root: Path) -> None:
        found = ocfl.StorageRoot(root=str(root))
        is_sound = found.validate()
        if not is_sound or found.good_objects != found.num_objects:  # its answer tells of the root's structure only
            pytest.fail(f"{root}: {found.errors} {found.log.status_str() if found.log else ''}")

    return judge


class PostgresForTests:
    """One server for the session; each database is a copy of a template with the whole schema."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self._template = "template_schema"

    def prepare_template(self) -> None:
        self._run(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self._template)))
        url = self._url(self._template)
        database = Database(url)
        try:
            with database.begin() as tx:
                run_script(tx, queue_schema())
                collect_tables().create_all(tx)
        finally:
            database.dispose()

    def make_empty(self) -> str:
        """The URL of a new database without any table."""
        return self._make("template0")

    def make_ready(self) -> str:
        """The URL of a new database with the whole schema."""
        return self._make(self._template)

    def make_copy(self, url: str) -> str:
        """The URL of a copy of a database that nobody is connected to."""
        return self._make(_name_in(url))

    def drop(self, url: str) -> None:
        self._run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(_name_in(url))))

    def _make(self, template: str) -> str:
        name = f"test_{next(_numbers)}"
        made = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        self._run(made.format(sql.Identifier(name), sql.Identifier(template)))
        return self._url(name)

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def _url(self, name: str) -> str:
        return self.server.url.replace("/perdure?", f"/{name}?")


def _name_in(url: str) -> str:
    return url.split("/")[3].split("?")[0]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresForTests]:
    """The session's PostgreSQL server, fast and forgetful."""
    with tempfile.TemporaryDirectory(prefix="pg-test-", dir=MEMORY) as folder:  # short: a socket lies in it
        server = EmbeddedServer(Path(folder), durable=False)
        server.start()
        try:
            prepared = PostgresForTests(server)
            prepared.prepare_template()
            yield prepared
        finally:
            server.stop()


@pytest.fixture
def database_url(postgres: PostgresForTests) -> Iterator[str]:
    """A database of this test's own, with the whole schema."""
    url = postgres.make_ready()
    yield url
    postgres.drop(url)


@pytest.fixture
def empty_url(postgres: PostgresForTests) -> Iterator[str]:
    """A database of this test's own, without any table."""
    url = postgres.make_empty()
    yield url
    postgres.drop(url)


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """A Database of this test's own, with the whole schema."""
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture(scope="module")
def module_db(postgres: PostgresForTests) -> Iterator[Database]:
    """A Database that the tests of one module share, for those that only add."""
    url = postgres.make_ready()
    database = Database(url)
    yield database
    database.dispose()
    postgres.drop(url)


@pytest.fixture
def make_database(postgres: PostgresForTests) -> Iterator[Callable[[], Database]]:
    """Makes further databases with the whole schema; all are dropped at the end of the test."""
    made: list[Database] = []

    def make() -> Database:
        made.append(Database(postgres.make_ready()))
        return made[-1]

    yield make
    for database in made:
        database.dispose()
        postgres.drop(database.url)


@pytest.fixture
def fast_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where there is one."""
    if MEMORY is None:
        yield tmp_path_factory.mktemp("stores")
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="stores-") as folder:
        yield Path(folder)


@pytest.fixture
def tmp_store_root(tmp_path: Path) -> Path:
    """An empty folder for one POSIX store."""
    root = tmp_path / "store"
    root.mkdir()
    return root


@pytest.fixture(scope="session")
def nexus_data() -> Path:
    """The folder of real NeXus files from instruments; skips when it is not beside the project."""
    folder = PROJECT.parent / "shared" / "data" / "nexus"
    if not folder.is_dir():
        skip_without("nexus-data", f"there is no folder {folder}")
    return folder
