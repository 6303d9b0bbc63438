"""The embedded server comes up, comes back, stays private and belongs to one process at a time."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from perdure.db import embedded
from perdure.db.embedded import EmbeddedServer, find_binaries, open_embedded, socket_folder
from perdure.db.errors import DataFolderInUseError, EmbeddedServerError


@pytest.fixture(scope="module")
def used_folder() -> Iterator[Path]:
    """A folder that a server has used and left: a copy is made faster than a new one."""
    with tempfile.TemporaryDirectory(prefix="pg-test-") as made:
        server = EmbeddedServer(Path(made) / "postgres", durable=False)
        server.start()
        server.stop()
        yield Path(made) / "postgres"


@pytest.fixture
def fresh_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pg-test-") as made:  # short: a socket lies in it
        yield Path(made) / "postgres"


@pytest.fixture
def folder(fresh_folder: Path, used_folder: Path) -> Path:
    shutil.copytree(used_folder, fresh_folder)
    return fresh_folder


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedServer]:
    made = EmbeddedServer(folder, durable=False)
    yield made
    made.stop()


def ask(url: str, question: str = "SELECT 1") -> object:
    with psycopg.connect(url, connect_timeout=5) as connection:
        row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return row[0]


def postmaster_pid(folder: Path) -> int:
    return int((folder / "cluster" / "postmaster.pid").read_text().splitlines()[0])


def test_it_keeps_what_was_written_over_a_stop(server: EmbeddedServer) -> None:
    url = server.start()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    server.stop()
    assert not server.is_running()
    assert not server.is_served()
    assert server.start() == url
    assert ask(url, "SELECT n FROM kept") == 7


def test_it_speaks_utf8_in_the_order_of_bytes_and_listens_on_no_network(server: EmbeddedServer) -> None:
    url = server.start()
    assert ask(url, "SHOW server_encoding") == "UTF8"
    assert ask(url, "SELECT datcollate FROM pg_database WHERE datname = current_database()") == "C"
    assert ask(url, "SHOW listen_addresses") == ""
    assert ask(url, "SHOW jit") == "off"


def test_a_killed_postmaster_is_replaced(server: EmbeddedServer, folder: Path) -> None:
    url = server.start()
    assert not server.ensure()
    os.kill(postmaster_pid(folder), signal.SIGKILL)
    deadline = time.monotonic() + 60
    while server.is_running():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert server.ensure()
    assert ask(url) == 1


def test_a_second_server_on_the_folder_is_refused_until_the_first_stops(server: EmbeddedServer, folder: Path) -> None:
    server.start()
    second = EmbeddedServer(folder, durable=False)
    with pytest.raises(DataFolderInUseError, match="Another process"):
        second.start()
    assert ask(server.url) == 1, "the first one is unharmed"
    server.stop()
    second.start()
    second.stop()


def test_what_a_killed_supervisor_left_running_is_taken_over(server: EmbeddedServer, folder: Path) -> None:
    program = f"""
        import os, signal, pathlib
        from perdure.db.embedded import EmbeddedServer
        EmbeddedServer(pathlib.Path({str(folder)!r}), durable=False).start()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False, timeout=30)
    orphan = postmaster_pid(folder)
    assert server.is_served()
    server.start()
    assert postmaster_pid(folder) != orphan
    assert ask(server.url) == 1


def test_a_remembered_number_of_a_stranger_is_forgotten_and_the_stranger_spared(
    server: EmbeddedServer, folder: Path
) -> None:
    server.start()
    remembered = (folder / "cluster" / "postmaster.pid").read_text()
    old = postmaster_pid(folder)
    server.stop()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (folder / "cluster" / "postmaster.pid").write_text(remembered.replace(str(old), str(stranger.pid), 1))
        (folder / "run" / ".s.PGSQL.5432.lock").write_text(remembered.replace(str(old), str(stranger.pid), 1))
        server.start()
        assert stranger.poll() is None
        stranger.kill()
    assert ask(server.url) == 1


def test_an_interrupted_creation_starts_afresh(fresh_folder: Path) -> None:
    half = fresh_folder / "cluster.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18")
    server = EmbeddedServer(fresh_folder, durable=False)
    try:
        assert ask(server.start()) == 1
    finally:
        server.stop()


def test_a_long_path_gets_a_short_private_socket_folder(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / ("long" * 30) / "postgres", durable=False)
    server.start()
    try:
        assert ask(server.url) == 1
        sockets = socket_folder(tmp_path / ("long" * 30) / "postgres")
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert len(str(sockets)) < 80
    finally:
        server.stop()


def test_a_socket_folder_that_someone_prepared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = tmp_path / "elsewhere"
    prepared.mkdir()
    (tmp_path / "run").symlink_to(prepared)
    monkeypatch.setattr(embedded, "socket_folder", lambda folder: tmp_path / "run")
    server = EmbeddedServer(tmp_path / "postgres", durable=False)
    with pytest.raises(EmbeddedServerError, match="belongs to someone else"):
        server.start()
    assert not server.is_running()


def test_nobody_else_may_enter_and_no_parent_is_opened(server: EmbeddedServer, folder: Path) -> None:
    folder.parent.chmod(0o700)
    server.start()
    for entered in (folder, folder / "cluster", folder / "run"):
        assert stat.S_IMODE(entered.stat().st_mode) == 0o700
        assert entered.stat().st_uid == os.geteuid()
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_a_server_that_cannot_start_says_why(server: EmbeddedServer, folder: Path) -> None:
    server.start()
    server.stop()
    (folder / "cluster" / "postgresql.auto.conf").write_text("shared_buffers = 'much'\n")
    with pytest.raises(EmbeddedServerError, match="shared_buffers"):
        EmbeddedServer(folder, durable=False, start_timeout=5).start()


def test_an_errand_uses_the_running_server_or_starts_its_own(server: EmbeddedServer, folder: Path) -> None:
    with open_embedded(folder) as url:
        assert ask(url) == 1
    assert not server.is_served()
    server.start()
    with open_embedded(folder) as url:
        assert ask(url) == 1
    assert server.is_running()


def test_binaries_of_another_major_version_are_not_passed_off(folder: Path) -> None:
    assert (find_binaries("18") / "initdb").exists()
    with pytest.raises(EmbeddedServerError, match="PostgreSQL 9"):
        find_binaries("9")


def test_root_without_user_namespaces_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(embedded, "_may_unshare", lambda unshare: False)
    monkeypatch.setattr(embedded, "_make_private", lambda folder: folder.mkdir(parents=True, exist_ok=True))
    with pytest.raises(EmbeddedServerError, match="PERDURE_DATABASE_URL"):
        EmbeddedServer(folder, durable=False).start()
