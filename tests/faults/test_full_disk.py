"""Disks that are really full: the store's, the other store's, the database's.

Whoever asks is told so and what to do; nothing acknowledged is lost; once there is room, the same command goes on.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path

import pytest
from sqlalchemy import text

from perdure.db import Database
from perdure.db.embedded import EmbeddedServer
from perdure.db.errors import DatabaseFullError, DatabaseUnavailableError
from perdure.db.migrations import migrate
from perdure.kernel.errors import PerdureError, TryAgainError

from .life import House, Life, require_clean

pytestmark = pytest.mark.slow

UNCHECKED = -(1 << 50)  # a reserve below nothing: the medium itself has the word
STEPS = ["open", "put_stream", "put_batch", "upload", "ingest", "replace", "describe", "close", "describe_closed"]
STEPS += ["append", "fill_child", "close_child"]
HEADS_ONLY = {"open", "append", "describe_closed"}  # another store has room for them, and that is enough
SPARES = [0, 16 << 10, 200 << 10]
ALL_CASES = list(product(STEPS, ["one", "two"], SPARES))
CASES = ALL_CASES if os.environ.get("PERDURE_FAULTS", "some") != "some" else ALL_CASES[::5]
TOLD = {"store_full", "journal_unavailable", "copies_missing", "test_job_failed"}


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """A file system of so many bytes at an empty folder."""
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount: a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def filled(place: Path, *, spare: int = 0) -> Iterator[None]:
    """No room, but for `spare` bytes, while the block runs."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as stream, suppress(OSError):
        for size in (1 << 20, 4096, 1):
            _write_until_full(stream.fileno(), size)
    if spare:
        os.truncate(filler, max(filler.stat().st_size - spare, 0))
    try:
        yield
    finally:
        filler.unlink()


def _write_until_full(fd: int, size: int) -> None:
    try:
        while os.write(fd, b"\0" * size):
            pass
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


class Trial:
    """A life in a house one of whose disks is small."""

    def __init__(self, house: House, disk: Path) -> None:
        self.house = house
        self.disk = disk
        self.life = Life(house)

    def go_to(self, name: str) -> Callable[[], None]:
        """Take every step before the named one, and return it."""
        for step in self.life.steps():
            if step.__name__ == name:
                return step
            step()
        raise LookupError(name)

    def go_on_from(self, name: str) -> None:
        """Take the named step and every one after it."""
        is_due = False
        for step in self.life.steps():
            is_due = is_due or step.__name__ == name
            if is_due:
                step()

    def contents(self) -> dict[bytes, bytes]:
        """Everything that was acknowledged."""
        archive = self.life.archive
        if archive is None:
            return {}
        house = self.house
        return {e.path: house.read(archive, e.path) for e in house.tree(archive).values() if e.kind.value == "file"}

    def judge(self, require_valid: Callable[[Path], None]) -> None:
        self.life.require_end()
        self.house.require_chain()
        self.house.require_usage()
        self.house.require_receipts()
        self.house.sweep()
        for store in ("one", "two"):
            require_valid(self.house.folder / store / "root")


@pytest.mark.parametrize(("name", "store", "spare"), CASES)
def test_a_full_store_is_said_and_the_same_command_goes_on(
    db: Database, fast_folder: Path, require_valid: Callable[[Path], None], name: str, store: str, spare: int
) -> None:
    disk = fast_folder / store
    with small_disk(disk, "32m"):
        trial = Trial(House(db, fast_folder, reserve_bytes=UNCHECKED), disk)
        step = trial.go_to(name)
        before = trial.contents()
        with filled(disk, spare=spare):
            trial.house.most_jobs = 4
            told = _told_by(step)
            assert before.items() <= trial.contents().items() or name == "replace"
        if spare == 0 and store == "one" and name not in HEADS_ONLY:
            assert told is not None, "there was no room, and nobody was told"
        if told is not None:
            require_clean(told)
            assert told.code in TOLD, (told.code, told.detail)
        trial.house.most_jobs = None
        trial.go_on_from(name)
        trial.judge(require_valid)


def _told_by(step: Callable[[], None]) -> PerdureError | None:
    try:
        step()
    except PerdureError as error:
        return error
    return None


def test_a_store_whose_reserve_is_touched_refuses_before_the_first_byte(db: Database, fast_folder: Path) -> None:
    disk = fast_folder / "one"
    with small_disk(disk, "32m"):
        trial = Trial(House(db, fast_folder), disk)
        step = trial.go_to("put_stream")
        with filled(disk, spare=1 << 20):
            told = _told_by(step)
        assert told is not None
        assert (told.code, told.status) == ("store_full", 507)
        step()


# The database


@pytest.fixture
def small_server(fast_folder: Path) -> Iterator[tuple[EmbeddedServer, Path]]:
    """A database server whose cluster lies on a disk of 400 MB."""
    disk = fast_folder / "pg"
    with small_disk(disk, "400m"):
        server = EmbeddedServer(disk / "s", durable=False)
        server.start()
        migrate(server.url)
        try:
            yield server, disk
        finally:
            server.stop()


@pytest.mark.timeout(240)
def test_a_full_database_is_said_and_the_same_command_goes_on(
    small_server: tuple[EmbeddedServer, Path], fast_folder: Path, require_valid: Callable[[Path], None]
) -> None:
    server, disk = small_server
    db = Database(server.url)
    try:
        house = House(db, fast_folder / "house")
        trial = Trial(house, disk)
        trial.go_to("put_batch")
        before = trial.contents()
        with filled(disk):
            told = _fill_database(trial)
            assert isinstance(told, DatabaseFullError | DatabaseUnavailableError), repr(told)
            require_clean(told)
        server.ensure()
        assert trial.contents() == before
        trial.go_on_from("put_batch")
        trial.judge(require_valid)
    finally:
        db.dispose()


def _fill_database(trial: Trial) -> PerdureError:
    """Work on until the database has no room; what it says then."""
    for _ in range(400):
        told = _told_by(lambda: _write_rows(trial.house))
        if told is not None:
            return told
    raise AssertionError("the disk is full, and the database took everything")


def _write_rows(house: House) -> None:
    with house.db.begin() as tx:
        tx.execute(text("CREATE TABLE IF NOT EXISTS ballast (data text)"))
        tx.execute(text("INSERT INTO ballast SELECT repeat(md5(random()::text), 100) FROM generate_series(1, 3000)"))


def test_a_full_database_is_worth_another_try() -> None:
    assert issubclass(DatabaseFullError, TryAgainError)
    assert DatabaseFullError.status == 507
