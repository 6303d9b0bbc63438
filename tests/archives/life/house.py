"""What the tests of this folder stand on: the use cases over two stores, a clock that the test sets, people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import select

from perdure.adapters.posix.store import PosixStore
from perdure.adapters.registrar import MemoryRegistrar
from perdure.archives.describing import Describing
from perdure.archives.entries import load_entries
from perdure.archives.filling import Filling
from perdure.archives.heads import Heads, writer
from perdure.archives.items import BatchItem
from perdure.archives.layers import to_manifest_entry
from perdure.archives.life import Life
from perdure.archives.model import Archive, ArchiveState, Creator, Description, Entry, EntryKind
from perdure.archives.opening import OpenRequest
from perdure.archives.placing import add_usage
from perdure.archives.profiles import Profiles, seed_shipped
from perdure.archives.records import ArchiveSettings, Context, load, make_context, save_change
from perdure.archives.sealing import Sealing
from perdure.archives.tables import archives, files, parts, superseded
from perdure.archives.tasks import register_life_jobs
from perdure.db import Database
from perdure.events import Event, EventLog
from perdure.identity import Identity, IdentitySettings
from perdure.identity.passwords import PasswordCost
from perdure.jobs import Jobs
from perdure.kernel.actor import SYSTEM, Actor
from perdure.kernel.ids import new_id
from perdure.metadata.service import Metadata
from perdure.storage.model import PartRef, object_uri
from perdure.storage.ports import Store
from perdure.storage.service import Storage
from perdure.testing.sealing import MemorySealer

CHEAP = PasswordCost(passes=1, memory_kib=64, lanes=1)
PASSWORD = "plum tractor ninety sea"  # of people who exist in these tests only
CITABLE = Description(
    title="Scan of a leaf",
    creators=(Creator("Ada Example", orcid="0000-0002-1825-0097"),),
    publisher="Example Institute",
    licence="CC-BY-4.0",
)
INSTANCE = UUID("0192f0c0-1111-7000-8000-000000000001")


class SetClock:
    """Tells the time that it was set to."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def move(self, **by: float) -> None:
        self.moment += timedelta(**by)


@dataclass
class House:
    """Everything a test of this folder needs."""

    ctx: Context
    heads: Heads
    life: Life
    describing: Describing
    profiles: Profiles
    clock: SetClock
    registrar: MemoryRegistrar
    administrator: Actor
    roots: Sequence[Path] = field(default_factory=tuple)
    damaged: bool = False

    def join(self, login: str) -> Actor:
        """A new person, logged in."""
        self.ctx.identity.create_local_account(
            self.administrator, login=login, password=PASSWORD, display_name=login.title()
        )
        return self.ctx.identity.log_in(login, PASSWORD)[1]

    def open(self, actor: Actor, *, profile: str = "personal", description: Description = CITABLE) -> Archive:
        return self.life.open_archive(actor, OpenRequest(profile=profile, description=description))

    def look(self, archive_id: UUID) -> Archive:
        with self.ctx.db.begin() as tx:
            return load(tx, archive_id)

    def told(self, archive_id: UUID | None = None) -> list[Event]:
        """The events so far, of one archive or of all."""
        self.ctx.events.sequence_pending()
        with self.ctx.db.begin() as tx:
            return self.ctx.events.read(tx, after=0, limit=10_000, subject=archive_id)

    def fill(self, archive: Archive, contents: dict[bytes, bytes]) -> None:
        """Put files into a sealed part with copies on both stores, as filling and closing do."""
        ctx, part = self.ctx, PartRef(archive.id, new_id())
        items = sorted(contents.items())
        digests = frozenset({"sha512", "crc32"})
        received = ctx.storage.write_small(part, items, digests)
        now = self.clock.now()
        entries = [
            Entry(archive.id, path, EntryKind.FILE, one.size, 0, 0o644, one.digests, part=1, content=one.content)
            for (path, _), one in zip(items, received, strict=True)
        ]
        ctx.storage.sync(part)
        size = sum(entry.size for entry in entries)
        sealed, final = ctx.storage.seal_part(
            part,
            [to_manifest_entry(entry) for entry in entries],
            created=now,
            message="Sealed",
            user=writer(ctx),
        )
        entries = [entry._replace(content=final[entry.path]) for entry in entries]
        with ctx.db.begin() as tx:
            load(tx, archive.id, lock=True)
            row = {"archive_id": archive.id, "number": 1, "id": part.part_id, "state": "sealed", "sealed_at": now}
            row |= {"inventory_digest": sealed.inventory_digest, "manifest_digest": sealed.manifest_digest}
            row |= {"file_count": len(entries), "byte_count": size}
            tx.execute(parts.insert().values(**row))
            load_entries(ctx.db, tx, entries, content_digest="sha512", added_at=now)
            add_usage(tx, archive.account_id, files=len(entries), size=size)
            ctx.storage.record_part(tx, part, sealed)
        for store in ctx.storage.stores():
            ctx.storage.place_copy(part.object_id, store.id)
            ctx.storage.verify_copy(part.object_id, store.id)

    def close(self, archive: Archive) -> Archive:
        """Bring the archive into the state that closing leaves."""
        reserved = self.registrar.reserve(archive.id)
        with self.heads.writing(archive.id, message="Closed") as change:
            before = change.archive
            closed = replace(
                before, state=ArchiveState.CLOSED, closed_at=self.clock.now(), identifier=reserved.identifier
            )
            change.archive = save_change(change.tx, self.ctx, SYSTEM, before, closed, event="archive.closed")
            states = {"identifier_state": reserved.state}
            change.tx.execute(archives.update().where(archives.c.id == archive.id).values(**states))
        return self.look(archive.id)

    def head_files(self, archive_id: UUID) -> dict[str, str]:
        return self.ctx.storage.head_state(object_uri(archive_id))

    def head_file(self, archive_id: UUID, name: str) -> bytes:
        return self.ctx.storage.read_head_file(object_uri(archive_id), name)


def open_stores(roots: Sequence[Path]) -> list[Store]:
    """The stores in these folders."""
    return [PosixStore(root.name, root) for root in roots]


def context_on(house: House, database: Database) -> Context:
    """The same stores over another database, as a rebuild finds them."""
    storage = Storage(database, open_stores(house.roots), house.clock, instance_id=INSTANCE, reserve_bytes=0)
    storage.prepare()
    events = EventLog(database, house.clock)
    return make_context(
        db=database,
        clock=house.clock,
        identity=Identity(database, house.clock, events, MemorySealer()),
        events=events,
        jobs=Jobs(database),
        storage=storage,
        metadata=Metadata(),
        registrar=house.registrar,
        settings=house.ctx.settings,
    )


def put(filling: Filling, actor: Actor, archive_id: UUID, contents: dict[bytes, bytes]) -> None:
    """Send files as one batch; all of them are stored."""
    items = [BatchItem(path, EntryKind.FILE, len(data)) for path, data in contents.items()]
    receiver = filling.begin_batch(actor, archive_id, items)
    receiver.write(b"".join(contents.values()))
    assert all(result.stored for result in receiver.finish())


def shown(ctx: Context) -> set[tuple[bytes, int]]:
    """The path and the part of every file."""
    with ctx.db.begin() as tx:
        return {(bytes(row.path), row.part) for row in tx.execute(select(files.c.path, files.c.part))}


def list_superseded(ctx: Context) -> list[tuple[int, bytes]]:
    """The part and the path of every file in it that something else took the place of."""
    with ctx.db.begin() as tx:
        rows = tx.execute(select(superseded.c.part, superseded.c.path).order_by(superseded.c.part, superseded.c.path))
        return [(row.part, bytes(row.path)) for row in rows]


def make_sealing(ctx: Context, heads: Heads) -> Sealing:
    """Sealing whose jobs are known."""
    sealing = Sealing(ctx, heads)
    sealing.register()
    return sealing


def make_house(database: Database, folder: Path | None = None, *, stores: Sequence[Store] | None = None) -> House:
    """Open the house on a database that nobody lives in."""
    clock = SetClock()
    roots: tuple[Path, ...] = ()
    if stores is None:
        if folder is None:
            raise ValueError("a folder or stores are needed")
        roots = (folder / "one", folder / "two")
        stores = open_stores(roots)
    storage = Storage(database, stores, clock, instance_id=INSTANCE, reserve_bytes=0)
    storage.prepare()
    events = EventLog(database, clock)
    identity = Identity(database, clock, events, MemorySealer(), IdentitySettings(password_cost=CHEAP))
    identity.bootstrap_administrator("root", PASSWORD)
    registrar = MemoryRegistrar()
    ctx = make_context(
        db=database,
        clock=clock,
        identity=identity,
        events=events,
        jobs=Jobs(database),
        storage=storage,
        metadata=Metadata(),
        registrar=registrar,
        settings=ArchiveSettings(INSTANCE, public_url="https://archive.example.org"),
    )
    heads = Heads(ctx)
    register_life_jobs(ctx, heads)
    with database.begin() as tx:
        seed_shipped(tx)
    administrator = identity.log_in("root", PASSWORD)[1]
    return House(ctx, heads, Life(ctx, heads), Describing(ctx), Profiles(ctx), clock, registrar, administrator, roots)
