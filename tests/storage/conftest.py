"""A laboratory of small stores: crashes in a child process, damage on the medium, ocfl-py as the independent judge."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import ocfl
import pytest

from perdure.adapters.posix.store import PosixStore
from perdure.db import Database
from perdure.formats.manifest import ManifestEntry
from perdure.formats.ocfl import User, object_path
from perdure.kernel.ids import new_id
from perdure.storage.crash_points import EXIT_STATUS, VARIABLE
from perdure.storage.model import Copy, HeadVersion, ObjectKind, PartRef, Received, SealedPart, object_uri
from perdure.storage.ports import Store
from perdure.storage.service import Storage
from perdure.testing.stores import INSTANCE

CREATED = datetime(2026, 11, 20, 12, tzinfo=UTC)


class SteppingClock:
    """Each look is a second later."""

    def __init__(self) -> None:
        self._now = CREATED

    def now(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now


class Lab:
    """Storage on two stores in one folder, `first` (the primary) and `second`, and the short words for using it."""

    digests = frozenset({"sha512", "crc32"})
    created = CREATED
    user = User("Test Person", "mailto:test@example.org")

    def __init__(self, db: Database, folder: Path, stores: list[Store] | None = None) -> None:
        self.db = db
        self.folder = folder
        self.storage = self.open(stores)
        self.part = PartRef(new_id(), new_id())

    def open(self, stores: list[Store] | None = None, db: Database | None = None) -> Storage:
        """Storage as another process would open it."""
        places: list[Store] = stores or [PosixStore(name, self.folder / name) for name in ("first", "second")]
        storage = Storage(db or self.db, places, SteppingClock(), instance_id=INSTANCE)
        storage.prepare()
        return storage

    @property
    def first(self) -> UUID:
        return self.storage.stores()[0].id

    @property
    def second(self) -> UUID:
        return self.storage.stores()[1].id

    def stage(self, files: Mapping[bytes, bytes]) -> list[ManifestEntry]:
        """Stage files durably and return their entries, sorted."""
        received = self.storage.write_small(self.part, files.items(), self.digests)
        self.storage.sync(self.part)
        entries = (self.entry(path, taken) for path, taken in zip(files, received, strict=True))
        return sorted(entries, key=lambda entry: entry.path)

    def entry(self, path: bytes, received: Received) -> ManifestEntry:
        return ManifestEntry(
            path, "file", size=received.size, digests=received.digests, content=received.content, mtime_ns=1, mode=0o644
        )

    def seal(
        self, entries: list[ManifestEntry], storage: Storage | None = None, algorithm: str = "sha512"
    ) -> tuple[SealedPart, dict[bytes, str]]:
        sealed, final = (storage or self.storage).seal_part(
            self.part, entries, created=CREATED, message="Closed", user=self.user, algorithm=algorithm
        )
        with self.db.begin() as tx:
            self.storage.record_part(tx, self.part, sealed)
        return sealed, final

    def make_part(self, files: Mapping[bytes, bytes]) -> dict[bytes, str]:
        """A sealed and recorded part; returns the content path of each file."""
        return self.seal(self.stage(files))[1]

    def write_head(
        self, archive: UUID, changes: Mapping[str, bytes | Path | None], storage: Storage | None = None
    ) -> HeadVersion:
        return (storage or self.storage).write_head(
            object_uri(archive), archive, ObjectKind.HEAD, changes, message="Changed", user=self.user, created=CREATED
        )

    def copies(self, object_id: str) -> dict[str, Copy]:
        """Each copy by the name of its store."""
        names = {info.id: info.name for info in self.storage.stores()}
        with self.db.begin() as tx:
            return {names[copy.store_id]: copy for copy in self.storage.copies(tx, [object_id])[object_id]}

    def states(self, object_id: str) -> dict[str, str]:
        return {name: copy.state.value for name, copy in self.copies(object_id).items()}

    def read(self, content: str) -> bytes:
        return b"".join(self.storage.read_object(self.part.object_id, content))

    def object_folder(self, store: str, object_id: str | None = None) -> Path:
        return self.folder / store / "root" / object_path(object_id or self.part.object_id)

    def staged_folder(self) -> Path:
        return self.folder / "first" / "staging" / str(self.part.archive_id) / str(self.part.part_id)

    def crash_at(
        self, point: str, act: Callable[[Storage], object], make_stores: Callable[[], list[Store]] | None = None
    ) -> bool:
        """Let a child process with its own Storage end without warning at a step; whether it came to the step."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the child shares nothing that a thread holds
            pid = os.fork()
        if pid == 0:
            self._act_in_child(point, act, make_stores() if make_stores else None)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status in (0, EXIT_STATUS), f"the child failed with {status}"
        return status == EXIT_STATUS

    def _act_in_child(self, point: str, act: Callable[[Storage], object], stores: list[Store] | None) -> None:
        try:
            storage = self.open(stores, Database(self.db.url))
            os.environ[VARIABLE] = point
            act(storage)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)


def require_valid(store: Path) -> None:
    """Every object of the store is valid OCFL by ocfl-py."""
    root = ocfl.StorageRoot(str(store / "root"))
    valid = root.validate()
    assert valid, (root.errors, root.log.messages)
    assert root.num_objects == root.good_objects, (root.errors, root.log.messages)


@pytest.fixture
def damaged() -> set[str]:
    """Names of stores that a test has damaged on purpose, so that they are not judged."""
    return set()


@pytest.fixture
def lab(module_db: Database, fast_folder: Path, damaged: set[str]) -> Iterator[Lab]:
    """A laboratory; every undamaged root that the test leaves is valid OCFL."""
    with module_db.begin() as tx:
        tx.exec_driver_sql("TRUNCATE stores, objects, copies CASCADE")
    yield Lab(module_db, fast_folder)
    for store in fast_folder.glob("*/store.json"):
        if store.parent.name not in damaged:
            require_valid(store.parent)
