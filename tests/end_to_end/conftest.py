"""One running installation for the tests of the session, stopped cleanly and judged by another OCFL validator."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure_client import Client, PerdureFileSystem

from .running import Command, Server, fill, running

PERSON, PASSWORD = "grace", "correct horse battery staple"


@pytest.fixture(scope="session", autouse=True)
def linux() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("linux: the processes are found in /proc")


@pytest.fixture(scope="session")
def ingest_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the server may read."""
    return tmp_path_factory.mktemp("ingest")


@pytest.fixture(scope="session")
def server(ingest_root: Path) -> Iterator[Server]:
    nexus = Path(__file__).parents[3] / "shared" / "data" / "nexus"
    with running(ingest_roots=f"{ingest_root},{nexus}") as server:
        server.admin("admin", "account", PERSON, "--name", "Grace Example", stdin=f"{PASSWORD}\n")
        yield server


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="session")
def kept_login(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The credentials file that `perdure login` leaves."""
    command = Command(tmp_path_factory.mktemp("admin"), server.url)
    command.log_in(server.password())
    return command.folder / "credentials.json"


@pytest.fixture
def perdure(server: Server, kept_login: Path, tmp_path: Path) -> Command:
    """The command of the administrator, logged in, in a folder of the test's own."""
    command = Command(tmp_path, server.url)
    command.environment["PERDURE_CREDENTIALS"] = str(kept_login)
    return command


@pytest.fixture(scope="session")
def closed(server: Server, kept_login: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A closed archive and the folder that it was made from."""
    command = Command(tmp_path_factory.mktemp("closed"), server.url)
    command.environment["PERDURE_CREDENTIALS"] = str(kept_login)
    source = fill(command.folder / "source")
    archive = command.create("Closed for all tests")
    command("put", archive, str(source))
    command("archive", "close", archive)
    return archive, source


@pytest.fixture
def filesystems() -> Iterator[None]:
    """Closes the connections of the filesystems that fsspec keeps for later."""
    yield
    for kept in PerdureFileSystem._cache.values():
        kept.client.close_connections()
    PerdureFileSystem.clear_instance_cache()
