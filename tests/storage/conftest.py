"""Stores and storage on small folders, crashes in a child process, and ocfl-py as the independent judge."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import ocfl
import pytest

from perdure.adapters.posix import PosixStore
from perdure.db import Database
from perdure.formats.manifest import ManifestEntry
from perdure.formats.ocfl import User
from perdure.kernel.ids import new_id
from perdure.storage.crash_points import EXIT_STATUS, VARIABLE
from perdure.storage.model import PartRef, Received, SealedPart
from perdure.storage.service import Storage
from perdure.testing.stores import INSTANCE

DIGESTS = frozenset({"sha512", "crc32"})
CREATED = datetime(2026, 11, 20, 12, tzinfo=UTC)
USER = User("Test Person", "mailto:test@example.org")


class SteppingClock:
    """Each look is a second later."""

    def __init__(self) -> None:
        self._now = CREATED

    def now(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now


def make_store(folder: Path, name: str = "first") -> PosixStore:
    return PosixStore(name, folder / name)


def open_storage(db: Database, folder: Path, count: int = 2) -> Storage:
    """Storage on stores in this folder, as another process would open it."""
    names = ("first", "second", "third")[:count]
    storage = Storage(db, [make_store(folder, name) for name in names], SteppingClock(), instance_id=INSTANCE)
    storage.prepare()
    return storage


@pytest.fixture
def storage(db: Database, tmp_path: Path) -> Iterator[Storage]:
    """Storage with two stores, `first` (the primary) and `second`; every root is valid OCFL at the end."""
    yield open_storage(db, tmp_path)
    for name in ("first", "second"):
        require_valid(tmp_path / name)


@pytest.fixture
def part() -> PartRef:
    return PartRef(new_id(), new_id())


def require_valid(store: Path) -> int:
    """Every object of the store is valid OCFL by ocfl-py; returns their number."""
    root = ocfl.StorageRoot(str(store / "root"))
    valid = root.validate(log_errors=True)
    assert valid and root.num_objects == root.good_objects, (root.errors, root.log.messages)
    return int(root.num_objects)


def entry_of(path: bytes, received: Received) -> ManifestEntry:
    return ManifestEntry(
        path, "file", size=received.size, digests=received.digests, content=received.content, mtime_ns=1, mode=0o644
    )


def stage(storage: Storage, part: PartRef, files: dict[bytes, bytes]) -> list[ManifestEntry]:
    """Stage files durably and return their entries, sorted."""
    received = storage.write_small(part, files.items(), DIGESTS)
    storage.sync(part)
    return sorted((entry_of(p, r) for p, r in zip(files, received, strict=True)), key=lambda entry: entry.path)


def seal(
    storage: Storage, part: PartRef, entries: list[ManifestEntry], algorithm: str = "sha512"
) -> tuple[SealedPart, dict[bytes, str]]:
    return storage.seal_part(part, entries, created=CREATED, message="Closed", user=USER, algorithm=algorithm)


def stage_and_seal(db: Database, storage: Storage, part: PartRef, files: dict[bytes, bytes]) -> dict[bytes, str]:
    sealed, final = seal(storage, part, stage(storage, part, files))
    with db.begin() as tx:
        storage.record_part(tx, part, sealed)
    return final


def ids(storage: Storage) -> list[UUID]:
    return [info.id for info in storage.stores()]


def state_of(db: Database, storage: Storage, object_id: str) -> dict[str, str]:
    """State of each copy by the name of its store."""
    names = {info.id: info.name for info in storage.stores()}
    with db.begin() as tx:
        return {names[c.store_id]: c.state.value for c in storage.copies(tx, [object_id])[object_id]}


def content(storage: Storage, object_id: str, path: str) -> bytes:
    return b"".join(storage.read_object(object_id, path))


def crash_at(point: str, act: Callable[[], object]) -> bool:
    """Run the act in a child process that ends without warning at the named step; whether it came there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child only acts and ends
        pid = os.fork()
    if pid == 0:
        os.environ[VARIABLE] = point
        try:
            act()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, EXIT_STATUS), f"the child failed with {status}"
    return status == EXIT_STATUS


def in_object(folder: Path, store: str, object_id: str) -> Path:
    from perdure.formats.ocfl import object_path

    return folder / store / "root" / object_path(object_id)
