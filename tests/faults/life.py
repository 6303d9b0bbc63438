"""A small complete life of an archive and its child over two stores, each step a command that may be asked for again.

What a person or a program does after an error is what the steps do: look at what is there, and ask again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha512
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select

from perdure.adapters.posix.store import PosixStore
from perdure.adapters.registrar import FolderRegistrar
from perdure.adapters.signing import FileSigner
from perdure.archives.exporting import export_events, export_registry
from perdure.archives.items import BatchItem
from perdure.archives.model import Archive, ArchiveState, Creator, Description, Entry, EntryKind, Profile
from perdure.archives.opening import OpenRequest
from perdure.archives.profiles import seed_shipped
from perdure.archives.records import ArchiveSettings, load, make_context
from perdure.archives.service import Archives, make_archives
from perdure.archives.tables import account_usage, archives, parts
from perdure.archives.upkeep import sweep_staging
from perdure.db import Database
from perdure.events import EventLog
from perdure.events.model import verify_chain
from perdure.identity import Identity, IdentitySettings
from perdure.identity.passwords import PasswordCost
from perdure.jobs import Jobs, JobState, run_pending
from perdure.kernel.actor import Actor
from perdure.kernel.clock import SystemClock
from perdure.kernel.errors import ConflictError, PerdureError
from perdure.metadata.service import Metadata
from perdure.storage.model import CopyState, ObjectKind
from perdure.storage.ports import Store
from perdure.storage.service import Storage
from perdure.testing.sealing import MemorySealer

INSTANCE = UUID("0192f0c0-1111-7000-8000-000000000001")
PASSWORD = "plum tractor ninety sea"  # of people who exist in these tests only
CHEAP = PasswordCost(passes=1, memory_kib=64, lanes=1)
LARGE = os.urandom(1 << 10) * 1100  # past what is written in one step
CITABLE = Description(
    title="Scan of a leaf", creators=(Creator("Ada Example"),), publisher="Example Institute", licence="CC-BY-4.0"
)
TWICE = Profile(
    name="twice", label="two copies", lifetime_default_days=10, lifetime_max_days=100, archive_max_bytes=None,
    archive_max_files=None, total_max_bytes=None, copies=2,
)  # fmt: skip
_MOST_ATTEMPTS = 60
_MOST_JOBS = 300


class MovableClock:
    """The clock of the machine, moved on by a test."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self.ahead = timedelta(0)

    def now(self) -> Any:  # a datetime
        return self._clock.now() + self.ahead


MakeStores = Callable[["House"], Sequence[Store]]


def two_folders(house: House) -> Sequence[Store]:
    """The primary asks for a new process when it has lost writes, as the service's does."""
    one, two = house.folder / "one", house.folder / "two"
    return [PosixStore("one", one, on_sync_failure=house.want_restart), PosixStore("two", two)]


class House:
    """One installation in this process, opened anew when its primary store asks for it."""

    def __init__(
        self, db: Database, folder: Path, make_stores: MakeStores = two_folders, *, reserve_bytes: int = 0
    ) -> None:
        self.db = db
        self.folder = folder
        self.clock = MovableClock()
        self.most_jobs: int | None = None  # how many attempts `work` makes where they are not to succeed
        self._make_stores = make_stores
        self._reserve = reserve_bytes
        self._is_new = True
        self._wants_restart = False
        (folder / "sources").mkdir(parents=True, exist_ok=True)
        self.open()

    def open(self) -> None:
        """Start as a process does."""
        self._compose()
        if self._is_new:
            self._found()
        self.log_in()

    def over(self, db: Database) -> House:
        """The same stores over another database, for who is logged in here."""
        again = copy(self)
        again.db = db
        again._compose()
        return again

    def _compose(self) -> None:
        self._wants_restart = False
        self.stores = tuple(self._make_stores(self))
        self.storage = Storage(self.db, self.stores, self.clock, instance_id=INSTANCE, reserve_bytes=self._reserve)
        self.storage.prepare()
        self.events = EventLog(self.db, self.clock)
        self.identity = Identity(
            self.db, self.clock, self.events, MemorySealer(), IdentitySettings(password_cost=CHEAP)
        )
        self.jobs = Jobs(self.db)
        self.ctx = make_context(
            db=self.db,
            clock=self.clock,
            identity=self.identity,
            events=self.events,
            jobs=self.jobs,
            storage=self.storage,
            metadata=Metadata(),
            registrar=FolderRegistrar(self.folder / "registrar"),
            settings=ArchiveSettings(
                INSTANCE, public_url="https://archive.example.org", ingest_roots=(self.folder / "sources",)
            ),
        )
        signer = FileSigner(self.folder / "keys", self.clock)
        signer.prepare()
        self.archives: Archives = make_archives(self.ctx, signer)

    def log_in(self) -> None:
        self.ada: Actor = self.identity.log_in("ada", PASSWORD)[1]

    def _found(self) -> None:
        self._is_new = False
        self.identity.bootstrap_administrator("root", PASSWORD)
        with self.db.begin() as tx:
            seed_shipped(tx)
        administrator = self.identity.log_in("root", PASSWORD)[1]
        self.archives.profiles.define_profile(administrator, TWICE)
        self.identity.create_local_account(administrator, login="ada", password=PASSWORD, display_name="Ada")

    def want_restart(self) -> None:
        self._wants_restart = True

    def restart_if_wanted(self) -> None:
        if self._wants_restart:
            self.open()

    def work(self) -> None:
        """Run jobs, appointments too, until there are none; a job that nobody foresaw fails the test."""
        for _ in range(self.most_jobs or _MOST_JOBS):
            self.restart_if_wanted()
            if not run_pending(self.jobs, include_scheduled=True, limit=1):
                return
            self.storage.recover()
        assert self.most_jobs, "the jobs never end"

    def look(self, archive_id: UUID) -> Archive:
        with self.db.begin() as tx:
            return load(tx, archive_id)

    def read(self, archive_id: UUID, path: bytes) -> bytes:
        return b"".join(self.archives.reading.open_content(self.ada, archive_id, path).read())

    def tree(self, archive_id: UUID) -> dict[bytes, Entry]:
        page = self.archives.reading.list_entries(self.ada, archive_id, recursive=True, limit=1000)
        return {entry.path: entry for entry in page.items}

    def shows(self, archive_id: UUID, path: bytes, data: bytes | None) -> bool:
        """Whether a file with these bytes, or an entry without bytes (None), is at the path."""
        entry = self.tree(archive_id).get(path)
        if entry is None:
            return False
        return data is None or entry.digests.get("sha512") == sha512(data).hexdigest()

    # What must hold whatever happened

    def require_chain(self) -> None:
        """I6: the log of events is numbered without gaps, and each link stands on the one before."""
        self.events.sequence_pending()
        with self.db.begin() as tx:
            found = self.events.read(tx, after=0, limit=1_000_000)
        assert verify_chain(found) is None

    def require_usage(self) -> None:
        """I5: what accounts use is what archives hold, and nothing stays reserved."""
        with self.db.begin() as tx:
            used = tx.execute(select(account_usage)).all()
            held = tx.execute(select(parts.c.file_count, parts.c.byte_count)).all()
        assert sum(row.reserved_bytes for row in used) == 0
        assert sum(row.byte_count for row in used) == sum(row.byte_count for row in held)
        assert sum(row.file_count for row in used) == sum(row.file_count for row in held)

    def require_receipts(self) -> None:
        """I3: whatever has a receipt has its verified copies."""
        with self.db.begin() as tx:
            rows = tx.execute(select(archives).where(archives.c.receipt.is_not(None))).all()
            for row in rows:
                if row.state == ArchiveState.CLOSED.value:
                    self._require_copies(tx, row.id, 2)

    def _require_copies(self, tx: Any, archive_id: UUID, wanted: int) -> None:
        for stored in self.storage.objects_of(tx, archive_id):
            copies = self.storage.copies(tx, [stored.object_id])[stored.object_id]
            good = [c for c in copies if c.state is CopyState.VERIFIED and c.version == stored.version]
            assert len(good) >= wanted, (stored, copies)

    def sweep(self) -> None:
        """Two days later the periodic work has tidied up: nothing of archives that are closed is left in staging."""
        self.clock.ahead += timedelta(days=2)
        self.archives.filling.expire_uploads()
        sweep_staging(self.ctx)
        left = [name for store in self.stores for name, _ in store.iter_trees()]
        assert not left, left


@dataclass
class Life:
    """One archive and its child; every step may be asked for again after it failed."""

    house: House
    key: str = field(default_factory=lambda: uuid4().hex)
    archive: UUID | None = None
    child: UUID | None = None
    step: str = ""

    def steps(self) -> Iterator[Callable[[], None]]:
        """In their order: those of the archive, then those of its child."""
        yield from self.own_steps()
        yield from self.child_steps()

    def own_steps(self) -> Iterator[Callable[[], None]]:
        """From the opening to a verified archive."""
        yield self.open
        yield self.put_stream
        yield self.put_batch
        yield self.upload
        yield self.ingest
        yield self.replace
        yield self.remove
        yield self.describe
        yield self.close
        yield self.describe_closed
        yield self.read
        yield self.verify
        yield self.tend

    def child_steps(self) -> Iterator[Callable[[], None]]:
        """Of a closed archive: a child that comes and goes, and what the service does by itself."""
        yield self.append
        yield self.fill_child
        yield self.close_child
        yield self.verify
        yield self.keep_up
        yield self.withdraw_child
        yield self.tend

    @property
    def parent_files(self) -> dict[bytes, bytes]:
        return {b"large": LARGE, b"batch/a": b"alpha", b"batch/b": b"", b"up": LARGE, b"in/deep/c": b"gamma"} | {
            b"in/d": b"delta",
            b"batch/c": b"new",
        }

    def open(self) -> None:
        opened = self.house.archives.life.open_archive(
            self.house.ada, OpenRequest(profile="twice", description=CITABLE), idempotency_key=self.key
        )
        self.archive = opened.id

    def put_stream(self) -> None:
        self._put(self._archive, b"large", LARGE)

    def put_batch(self) -> None:
        contents = {b"batch/a": b"alpha", b"batch/b": b"", b"batch/c": b"old", b"gone": b"gone"}
        items = [BatchItem(path, EntryKind.FILE, len(data)) for path, data in contents.items()]
        items += [BatchItem(b"empty", EntryKind.DIRECTORY), BatchItem(b"link", EntryKind.SYMLINK, target=b"large")]
        receiver = self.house.archives.filling.begin_batch(self.house.ada, self._archive, items)
        try:
            receiver.write(b"".join(contents.values()))
            results = receiver.finish()
        except PerdureError:
            with suppress(PerdureError):
                receiver.abort()
            raise
        assert all(result.stored for result in results), results

    def upload(self) -> None:
        filling, ada = self.house.archives.filling, self.house.ada
        if self.house.shows(self._archive, b"up", LARGE):
            return
        waiting = [view for view in filling.list_uploads(ada, self._archive) if view.path == b"up"]
        view = waiting[0] if waiting else filling.create_upload(ada, self._archive, b"up", len(LARGE))
        while not self.house.shows(self._archive, b"up", LARGE):
            offset = filling.get_upload(ada, view.id).offset
            writer = filling.open_upload(ada, view.id, offset)
            try:
                writer.write(LARGE[offset : offset + (1 << 20)])
                if writer.checkpoint() == len(LARGE):
                    writer.finish()
            finally:
                writer.close()

    def ingest(self) -> None:
        source = self.house.folder / "sources" / self.key
        if not source.exists():
            (source / "deep").mkdir(parents=True)
            (source / "deep" / "c").write_bytes(b"gamma")
            (source / "d").write_bytes(b"delta")
            os.mkfifo(source / "pipe")
        job = self.house.archives.filling.start_ingest(self.house.ada, self._archive, str(source), into=b"in")
        self.house.work()
        result: dict[str, Any] = dict(self._require_done(job) or {})
        assert result["counted"] == 3 == result["stored"] + result["present"] + result["refused"], result

    def replace(self) -> None:
        self._put(self._archive, b"batch/c", b"new")

    def remove(self) -> None:
        report = self.house.archives.filling.remove(self.house.ada, self._archive, [b"gone"])
        assert report.removed == 1 or not self.house.shows(self._archive, b"gone", None)

    def describe(self) -> None:
        describing, ada = self.house.archives.describing, self.house.ada
        describing.patch_metadata(ada, self._archive, b"", b'{"energy":{"value":8.5,"unit":"keV"}}')
        describing.patch_metadata(ada, self._archive, b"up", b'{"frames":3}')

    def close(self) -> None:
        self._close(self._archive)

    def describe_closed(self) -> None:
        self.house.archives.describing.patch_metadata(self.house.ada, self._archive, b"", b'{"quality":"good"}')
        self.house.archives.heads.fold(self._archive)

    def append(self) -> None:
        key = f"{self.key}-child"
        self.child = self.house.archives.life.append_to(self.house.ada, self._archive, {}, idempotency_key=key).id

    def fill_child(self) -> None:
        self._put(self._child, b"large", b"small now")
        self._put(self._child, b"more", b"more")
        self.house.archives.filling.remove(self.house.ada, self._child, [b"in"])

    def close_child(self) -> None:
        self._close(self._child)

    def verify(self) -> None:
        job = self.house.archives.verifying.start_verify(self.house.ada, self._archive)
        self.house.work()
        result: dict[str, Any] = dict(self._require_done(job) or {})
        if not result["good"]:  # a copy that could not be read at that moment stays in doubt: the next look mends it
            raise _NotGoodError(str(result))

    def keep_up(self) -> None:
        self.house.ctx.identity.create_group(self.house.ada, uuid4().hex)  # the registry has something new to keep
        self.house.archives.heads.fold_quiet()
        self.house.archives.filling.expire_uploads()
        sweep_staging(self.house.ctx)
        export_registry(self.house.ctx)
        export_events(self.house.ctx)

    def withdraw_child(self) -> None:
        if self.house.look(self._child).state is not ArchiveState.WITHDRAWN:
            self.house.archives.life.request_withdrawal(self.house.ada, self._child, "a mistake")
        self.house.work()
        if self.house.look(self._child).state is not ArchiveState.WITHDRAWN:
            raise _NotGoodError("the withdrawal has failed")

    def tend(self) -> None:
        """What the service does by itself, from time to time."""
        self.house.storage.recover()
        self.house.storage.reconcile_heads()
        self.house.work()

    def read(self) -> None:
        for path, data in self.parent_files.items():
            assert self.house.read(self._archive, path) == data, path

    # The end

    def require_end(self) -> None:
        """What stands at the end of every life, whatever happened in between."""
        house = self.house
        house.work()
        assert house.look(self._archive).state is ArchiveState.CLOSED
        tree = house.tree(self._archive)
        assert {path: entry.kind for path, entry in tree.items()} == {
            **dict.fromkeys(self.parent_files, EntryKind.FILE),
            b"empty": EntryKind.DIRECTORY,
            b"link": EntryKind.SYMLINK,
        }
        self.read()
        with house.db.begin() as tx:
            row = tx.execute(select(archives).where(archives.c.id == self._archive)).one()
            assert row.receipt is not None
            house._require_copies(tx, self._archive, 2)
        metadata = house.archives.describing.read_metadata(house.ada, self._archive)
        assert set(json.loads(metadata.value)) == {"energy", "quality"}
        if self.child is not None:
            assert house.look(self.child).state is ArchiveState.WITHDRAWN
            with house.db.begin() as tx:
                assert tx.execute(select(parts.c.id).where(parts.c.archive_id == self.child)).all() == []
                assert [one.kind for one in house.storage.objects_of(tx, self.child)] == [ObjectKind.HEAD]

    # Inside

    @property
    def _archive(self) -> UUID:
        assert self.archive is not None
        return self.archive

    @property
    def _child(self) -> UUID:
        assert self.child is not None
        return self.child

    def _put(self, archive: UUID, path: bytes, data: bytes) -> None:
        receiver = self.house.archives.filling.begin_file(self.house.ada, archive, path, len(data))
        try:
            for start in range(0, len(data), 1 << 20):
                receiver.write(data[start : start + (1 << 20)])
            receiver.finish()
        except PerdureError:
            with suppress(PerdureError):
                receiver.abort()
            raise

    def _close(self, archive: UUID) -> None:
        job = self.house.archives.closing.close(self.house.ada, archive)
        self.house.work()
        self._require_done(job)
        assert self.house.look(archive).state is ArchiveState.CLOSED

    def _require_done(self, job: UUID) -> Any:  # Any: the job's result
        with self.house.db.begin() as tx:
            view = self.house.jobs.get(tx, job)
        if view.state is not JobState.SUCCEEDED:
            error: Any = view.error or {}
            assert error.get("code") not in (None, "internal_error"), view
            raise _NotGoodError(f"{view.kind}: {error.get('title')}: {error.get('detail')}")
        return view.result


class _NotGoodError(ConflictError):
    """A job ended with a sentence; the same command is asked for again."""

    code = "test_job_failed"
    title = "The job has failed"
    next_step = "Ask again."


def require_clean(error: PerdureError) -> None:
    """A caller is told by a sentence of its own, and what to do."""
    assert type(error) is not PerdureError, error
    assert error.code != "internal_error", error
    assert error.detail
    assert error.next_step


def live(life: Life, told: list[str] | None = None, steps: Iterable[Callable[[], None]] | None = None) -> None:
    """Go through every step, or some, asking again for what fails, as a person would."""
    for step in life.steps() if steps is None else steps:
        life.step = step.__name__
        for attempt in range(_MOST_ATTEMPTS):
            life.house.restart_if_wanted()
            try:
                step()
                break
            except PerdureError as error:
                require_clean(error)
                if told is not None:
                    told.append(f"{step.__name__}: {type(error).__name__}: {error.detail}")
                if attempt == _MOST_ATTEMPTS - 1:
                    raise
    life.step = "end"
    life.require_end()
