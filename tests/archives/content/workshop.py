"""What the tests of this folder stand on: all use cases on content over two stores of a temporary folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import sha512
from pathlib import Path
from typing import Any
from uuid import UUID

from perdure.adapters.posix.store import PosixStore
from perdure.adapters.registrar import FolderRegistrar
from perdure.adapters.signing import FileSigner
from perdure.archives.closing import Closing
from perdure.archives.downloading import Downloading
from perdure.archives.filling import Filling
from perdure.archives.heads import Heads
from perdure.archives.items import BatchItem, ItemResult
from perdure.archives.life import Life
from perdure.archives.model import Archive, Creator, Description, Entry, EntryKind, Profile
from perdure.archives.opening import OpenRequest
from perdure.archives.profiles import Profiles, seed_shipped
from perdure.archives.reading import Reading
from perdure.archives.records import ArchiveSettings, Context, load, make_context
from perdure.archives.verifying import Verifying
from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import Identity, IdentitySettings
from perdure.identity.passwords import PasswordCost
from perdure.jobs import Jobs, JobState, JobView, run_pending
from perdure.kernel.actor import Actor
from perdure.kernel.clock import SystemClock
from perdure.metadata.service import Metadata
from perdure.storage.ports import Store
from perdure.storage.service import Storage
from perdure.testing.sealing import MemorySealer

CHEAP = PasswordCost(passes=1, memory_kib=64, lanes=1)
PASSWORD = "plum tractor ninety sea"  # of people who exist in these tests only
INSTANCE = UUID("0192f0c0-1111-7000-8000-000000000001")
CITABLE = Description(
    title="Scan of a leaf",
    creators=(Creator("Ada Example"),),
    publisher="Example Institute",
    licence="CC-BY-4.0",
)


class MovableClock:
    """The clock of the machine, moved on by a test."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self.ahead = timedelta(0)

    def now(self) -> Any:  # a datetime
        return self._clock.now() + self.ahead


@dataclass
class Workshop:
    ctx: Context
    heads: Heads
    life: Life
    filling: Filling
    closing: Closing
    reading: Reading
    verifying: Verifying
    downloading: Downloading
    profiles: Profiles
    clock: MovableClock
    administrator: Actor
    ada: Actor
    roots: Sequence[Path] = field(default_factory=tuple)
    damaged: bool = False

    def join(self, login: str) -> Actor:
        self.ctx.identity.create_local_account(
            self.administrator, login=login, password=PASSWORD, display_name=login.title()
        )
        return self.ctx.identity.log_in(login, PASSWORD)[1]

    def open(self, *, profile: str = "personal", description: Description = CITABLE) -> Archive:
        return self.life.open_archive(self.ada, OpenRequest(profile=profile, description=description))

    def append(self, parent: Archive) -> Archive:
        return self.life.append_to(self.ada, parent.id, {})

    def define(self, name: str, **changes: Any) -> Profile:
        base = Profile(
            name=name, label=name, lifetime_default_days=10, lifetime_max_days=100, archive_max_bytes=None,
            archive_max_files=None, total_max_bytes=None, copies=1,
        )  # fmt: skip
        return self.profiles.define_profile(self.administrator, replace(base, **changes))

    def look(self, archive: Archive) -> Archive:
        with self.ctx.db.begin() as tx:
            return load(tx, archive.id)

    def put(self, archive: Archive, path: bytes, data: bytes, **options: Any) -> Entry:
        receiver = self.filling.begin_file(self.ada, archive.id, path, len(data), **options)
        receiver.write(data)
        return receiver.finish()

    def put_all(self, archive: Archive, contents: Mapping[bytes, bytes | None]) -> list[ItemResult]:
        """Files with their bytes, and empty folders (None), in one batch."""
        items = [
            BatchItem(path, EntryKind.DIRECTORY if data is None else EntryKind.FILE, len(data or b""))
            for path, data in contents.items()
        ]
        receiver = self.filling.begin_batch(self.ada, archive.id, items)
        receiver.write(b"".join(data or b"" for data in contents.values()))
        return receiver.finish()

    def close(self, archive: Archive, **options: Any) -> Archive:
        job = self.closing.close(self.ada, archive.id, **options)
        self.run()
        require_success(self.job(job))
        return self.look(archive)

    def run(self) -> None:
        run_pending(self.ctx.jobs, include_scheduled=True, limit=200)

    def job(self, job_id: UUID) -> JobView:
        with self.ctx.db.begin() as tx:
            return self.ctx.jobs.get(tx, job_id)

    def read(self, archive: Archive, path: bytes) -> bytes:
        return b"".join(self.reading.open_content(self.ada, archive.id, path).read())

    def tree(self, archive: Archive, **options: Any) -> dict[bytes, Entry]:
        """Everything that a listing shows, asked for in small pages."""
        found: dict[bytes, Entry] = {}
        cursor: str | None = None
        while True:
            page = self.reading.list_entries(self.ada, archive.id, recursive=True, cursor=cursor, limit=3, **options)
            found |= {entry.path: entry for entry in page.items}
            cursor = page.next_cursor
            if cursor is None:
                return found

    def contents(self, archive: Archive) -> dict[bytes, bytes]:
        """The bytes of every file that is shown."""
        files = (entry for entry in self.tree(archive).values() if entry.kind is EntryKind.FILE)
        return {entry.path: self.read(archive, entry.path) for entry in files}

    def told(self, archive: Archive) -> list[tuple[str, dict[str, Any]]]:
        self.ctx.events.sequence_pending()
        with self.ctx.db.begin() as tx:
            found = self.ctx.events.read(tx, after=0, limit=10_000, subject=archive.id)
        return [(event.type, dict(event.data)) for event in found]


def require_success(job: JobView) -> None:
    assert job.state is JobState.SUCCEEDED, job.error


def digest_of(data: bytes) -> str:
    return sha512(data).hexdigest()


def make_workshop(
    database: Database, folder: Path, *, stores: Sequence[Store] | None = None, is_new: bool = True
) -> Workshop:
    clock = MovableClock()
    roots = (folder / "one", folder / "two")
    if stores is None:
        stores = [PosixStore(root.name, root) for root in roots]
    storage = Storage(database, stores, clock, instance_id=INSTANCE, reserve_bytes=0)
    storage.prepare()
    events = EventLog(database, clock)
    identity = Identity(database, clock, events, MemorySealer(), IdentitySettings(password_cost=CHEAP))
    if is_new:
        identity.bootstrap_administrator("root", PASSWORD)
    ctx = make_context(
        db=database,
        clock=clock,
        identity=identity,
        events=events,
        jobs=Jobs(database),
        storage=storage,
        metadata=Metadata(),
        registrar=FolderRegistrar(folder / "registrar"),
        settings=ArchiveSettings(
            INSTANCE, public_url="https://archive.example.org", ingest_roots=(folder / "sources",)
        ),
    )
    heads = Heads(ctx)
    signer = FileSigner(folder / "keys", clock)
    signer.prepare()
    with database.begin() as tx:
        seed_shipped(tx)
    administrator = identity.log_in("root", PASSWORD)[1]
    if is_new:
        identity.create_local_account(administrator, login="ada", password=PASSWORD, display_name="Ada")
    ada = identity.log_in("ada", PASSWORD)[1]
    return Workshop(
        ctx,
        heads,
        Life(ctx, heads),
        Filling(ctx),
        Closing(ctx, heads, signer),
        Reading(ctx),
        Verifying(ctx),
        Downloading(ctx),
        Profiles(ctx),
        clock,
        administrator,
        ada,
        roots,
    )
