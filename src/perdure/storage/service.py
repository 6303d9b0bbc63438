"""What the rest of the house asks of storage: stage, seal, place, verify, read, keep heads and journals, remove.

There is no actor here: storage knows bytes, not people. Who may do what is decided by the domains that call it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from uuid import UUID

import structlog
from sqlalchemy import Connection, Select, text

from perdure.db import Database
from perdure.formats import ocfl
from perdure.formats.manifest import ManifestEntry
from perdure.kernel.clock import Clock, SystemClock
from perdure.kernel.digests import content_digest_name, digest_bytes
from perdure.kernel.errors import DamagedError, PerdureError
from perdure.storage import journals, placing, records, sealing
from perdure.storage.copying import CopyIn
from perdure.storage.crash_points import crash_point
from perdure.storage.errors import (
    OUT,
    CopyDamagedError,
    NoGoodCopyError,
    StoreFailedError,
    StoreFullError,
    StoreUnavailableError,
    UnknownObjectError,
    UnknownStoreError,
)
from perdure.storage.heads import Content, HeadChange
from perdure.storage.model import (
    DATA_PREFIX,
    META_PREFIX,
    Copy,
    CopyState,
    HeadVersion,
    JournalRead,
    ObjectKind,
    PartRef,
    Received,
    Removal,
    Room,
    SealedPart,
    StagedPart,
    StoredObject,
    StoreInfo,
    VerifyReport,
    has_room,
    rank_sources,
)
from perdure.storage.ports import Buffer, Store
from perdure.storage.recovering import examine_store
from perdure.storage.sealing import SealRequest
from perdure.storage.sources import Sources
from perdure.storage.spreading import Spreading, find_known_digest
from perdure.storage.staging import FileWriter, Staging, UploadWriter, log_of, tree_of
from perdure.storage.sweeping import Known, find_part, sweep_store
from perdure.storage.verifying import Progress, ShouldStop, StoredInventory, read_inventory, read_whole, verify_object

log = structlog.get_logger(__name__)

__all__ = ["FileWriter", "SealRequest", "Storage", "UploadWriter"]


class Storage:
    """The stores of one instance. The first store is the primary: files are staged and sealed there.

    Safe to share between threads; several processes may use the same stores and database.
    """

    def __init__(
        self,
        db: Database,
        stores: Sequence[Store],
        clock: Clock | None = None,
        *,
        instance_id: UUID,
        reserve_bytes: int | None = None,
    ) -> None:
        self._db = db
        self._all = tuple(stores)
        self._stores: tuple[Store, ...] = ()
        self._recovering = threading.Lock()
        self._store_files: dict[str, bytes] = {}
        self._clock = clock or SystemClock()
        self._instance_id = instance_id
        self._reserve = reserve_bytes
        self._staging = Staging(self._all[0])
        self._sources = Sources(db, self._clock)
        self._spreading = Spreading(db, self._clock, self._sources, lambda: self._stores)

    # Stores

    def prepare(self) -> None:
        """Create or open every store and record it; raises ForeignStoreError. Safe to call twice.

        A store other than the primary that cannot be used at this moment is left out until `recover` takes it in.
        """
        present = list(self._stores)
        for store in self._all:
            if store in present:
                continue
            try:
                self._prepare(store)
            except OUT as error:
                if store is self._all[0]:
                    raise
                log.warning("store_left_out", store=store.name, error=error.detail)
            else:
                present.append(store)
        self._stores = tuple(store for store in self._all if store in present)

    def recover(self) -> list[str]:
        """Take in stores that were away at the start, and take back those that failed since; returns their names.

        Each passes an examination first. The primary is none of them: a process whose primary lost writes has to end,
        because much that is under way stands on them. To be called again and again, in every process.
        """
        if not self._recovering.acquire(blocking=False):
            return []
        try:
            out = [store for store in self._all[1:] if store not in self._stores or not store.is_sound]
            return [store.name for store in out if self._take_back(store)]
        finally:
            self._recovering.release()

    def _take_back(self, store: Store) -> bool:
        """Put a store opened anew in the place of one; what is under way on the old one goes on failing."""
        fresh = store.renew()
        try:
            self._prepare(fresh)
            examine_store(fresh)
            for name, data in self._store_files.items():
                fresh.write_store_file(name, data)
        except PerdureError as error:
            log.warning("store_still_out", store=store.name, error=error.detail)
            return False
        present = [fresh if one is store else one for one in self._stores] + [fresh]
        self._all = tuple(fresh if one is store else one for one in self._all)
        self._stores = tuple(one for one in self._all if one in present)
        log.info("store_taken_back", store=store.name)
        return True

    def stores(self) -> list[StoreInfo]:
        """The stores that are prepared, the primary first."""
        return [store.info for store in self._stores]

    def primary(self) -> StoreInfo:
        return self._stores[0].info

    def check_room(self, bytes_wanted: int, store_id: UUID | None = None) -> None:
        """Raises StoreFullError when so many bytes would touch the reserve of the primary or the named store."""
        store = self._stores[0] if store_id is None else self._store(store_id)
        if not has_room(store.room(), bytes_wanted, self._reserve):
            raise StoreFullError(
                f"The store {store.info.name} has no room for {bytes_wanted} bytes more.", wanted=bytes_wanted
            )

    def is_sound(self, store_id: UUID) -> bool:
        """Whether this process may use a store: its place is the one that was opened, and it lost no writes.

        Raises UnknownStoreError.
        """
        return self._store(store_id).is_sound

    def room(self, store_id: UUID) -> Room:
        """Bytes on the medium of a store; raises UnknownStoreError and StoreUnavailableError."""
        return self._store(store_id).room()

    def write_store_file(self, name: str, data: bytes) -> None:
        """Keep a small file, such as the list of public keys, with every store; replaced in one durable step each.

        A store other than the primary that is out at this moment gets it when it is back.
        """
        self._store_files[name] = data
        for store in self._stores:
            try:
                store.write_store_file(name, data)
            except OUT as error:
                if store is self._stores[0]:
                    raise
                log.warning("store_file_not_written", store=store.name, file=name, error=error.detail)

    def read_store_file(self, name: str) -> bytes | None:
        """The file from the first store that has it."""
        found = (store.read_store_file(name) for store in self._stores)
        return next((data for data in found if data is not None), None)

    def read_store_files(self, name: str) -> dict[str, bytes]:
        """The file of each store that has it and is there to be asked, by the store's name."""
        found: dict[str, bytes] = {}
        for store in self._stores:
            try:
                data = store.read_store_file(name)
            except OUT:
                continue
            if data is not None:
                found[store.info.name] = data
        return found

    # Staging

    def begin_file(self, part: PartRef, path: bytes, *, digests: frozenset[str]) -> FileWriter:
        """Begin a staged file under its own name, or beside it when that name is taken or unsafe."""
        return self._staging.begin_file(part, path, digests)

    def write_small(
        self, part: PartRef, items: Iterable[tuple[bytes, Buffer]], digests: frozenset[str]
    ) -> list[Received]:
        """Stage small files, given whole, in order. When it raises, those before stay staged and unnamed."""
        write = self._staging.write_small
        return [write(part, path, data, digests) for path, data in items]

    def copy_in(
        self, part: PartRef, source: bytes | Path, path: bytes, digests: frozenset[str], *, dir_fd: int | None = None
    ) -> Received:
        """Stage a regular file of this machine, read once; links are not followed in its last component.

        `source` may be relative to the open folder `dir_fd`. Raises SourceChangedError when the file is not the same
        after reading as before, SourceRefusedError for anything but a readable regular file.
        """
        return self._staging.copy_in(part, source, path, digests, dir_fd)

    @contextmanager
    def copying(self) -> Iterator[CopyIn]:
        """What copies many files in at once, for as long as the block lasts."""
        copy_in = CopyIn(self._staging)
        try:
            yield copy_in
        finally:
            copy_in.close()

    def sync(self, part: PartRef) -> None:
        """Make everything of the part that was finished before the call durable: only then may it be acknowledged."""
        self._staging.store.sync_tree(tree_of(part))
        crash_point("staging.synced")

    def begin_upload(self, part: PartRef, upload_id: UUID, path: bytes, *, digests: frozenset[str]) -> None:
        """Begin a resumable upload, durably; safe to call twice."""
        self._staging.begin_upload(part, upload_id, path, digests)

    def open_upload(self, part: PartRef, upload_id: UUID) -> UploadWriter:
        """Take hold of an upload at its durable offset; raises UploadBusyError, UnknownUploadError.

        `part` is where the file will be staged; it may be another part of the archive than at the beginning.
        """
        return self._staging.open_upload(part, upload_id)

    def upload_offset(self, part: PartRef, upload_id: UUID) -> int:
        """The durable offset of an upload, without taking hold of it."""
        return self._staging.upload_offset(part, upload_id)

    def forget_upload(self, part: PartRef, upload_id: UUID) -> None:
        """Remove what is left of an upload: after its finish was committed, or to give it up. Safe to call twice."""
        self._staging.forget_upload(part, upload_id)

    def discard_staged(self, part: PartRef, contents: Iterable[str]) -> int:
        """Remove staged files, and return how many there were.

        A content path is used again once its file is gone: the caller makes sure that no entry names these contents
        while it calls, and does not repeat the call later without looking again.
        """
        return self._staging.store.remove_files(tree_of(part), [DATA_PREFIX + content for content in contents])

    def discard_part(self, part: PartRef) -> tuple[int, int]:
        """Remove a staged part with its log; returns files and bytes."""
        removed = self._staging.store.remove_tree(tree_of(part))
        self._staging.store.replace_log(log_of(part), [])
        return removed

    def discard_archive(self, archive_id: UUID) -> tuple[int, int]:
        """Remove everything that is staged for an archive, uploads too, and its journal; returns files and bytes.

        What was set aside of its parts leaves quarantine, too.
        """
        removed = self._staging.store.remove_tree(str(archive_id))
        self._staging.store.forget_set_aside(str(archive_id))
        journals.discard(self._stores, archive_id)
        return removed

    def read_staged(self, part: PartRef, content: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Blocks of up to 1 MiB; raises UnknownObjectError when nothing is staged there."""
        try:
            yield from self._staging.store.read_file(tree_of(part), DATA_PREFIX + content, offset, length)
        except FileNotFoundError:
            raise UnknownObjectError(f"Nothing is staged at {content!r}.") from None

    def staged_size(self, part: PartRef, content: str) -> int:
        """Bytes of a staged file; raises UnknownObjectError."""
        try:
            return self._staging.store.file_size(tree_of(part), DATA_PREFIX + content)
        except FileNotFoundError:
            raise UnknownObjectError(f"Nothing is staged at {content!r}.") from None

    def log_staged(self, part: PartRef, lines: list[bytes]) -> None:
        """Note entries beside the staged part, for a rebuild; durable after the next `sync`. No newline in a line."""
        self._staging.store.append_log(log_of(part), lines, durable=False)

    def read_staged_log(self, part: PartRef) -> JournalRead:
        """Every whole line noted for the part; raises JournalDamagedError."""
        return self._staging.store.read_log(log_of(part))

    def forget_staged_log(self, part: PartRef) -> None:
        """Remove the log of a part that a head names as sealed; until then a rebuild needs it. Safe to call twice."""
        self._staging.store.replace_log(log_of(part), [])

    def iter_staged(self, store_id: UUID | None = None) -> Iterator[StagedPart]:
        """The parts in staging, as their folders and logs show them."""
        store = self._staging.store if store_id is None else self._store(store_id)
        found: dict[PartRef, bool] = {}
        for name, _ in store.iter_trees():
            part = find_part(name)
            if part is not None:
                found[part] = found.get(part, False) or name.endswith(".ndjson")
        for part, has_log in found.items():
            yield StagedPart(part, has_log)

    def sweep_staging(self, known: Known, older_than: datetime) -> list[str]:
        """Remove what nobody knows and nothing has changed since a time; returns the names of what was removed.

        `known` is asked with archive and part, or with archive and upload. An unfinished copy or head goes only when
        nobody is at it: its age alone proves nothing where clocks differ.
        """
        swept: list[str] = []
        for store in self._stores:
            swept += sweep_store(store, known, older_than, partial(self._holding_still, store))
        return swept

    # Sealing and copies

    def seal_part(
        self,
        part: PartRef,
        entries: Iterable[ManifestEntry],
        *,
        created: datetime,
        message: str,
        user: ocfl.User,
        algorithm: str = "sha512",
    ) -> tuple[SealedPart, dict[bytes, str]]:
        """Make a staged part a write-once object of the primary store; returns it and each file's final content path.

        `entries` are sorted by path, with the content path at which each file is staged. Nothing may write to the
        part meanwhile. Safe to call again after a crash at any step, also after the end. Raises StagedContentError
        when acknowledged files are not there. Afterwards `record_part` belongs into the caller's transaction, and once
        a head names the part, `forget_staged_log`.
        """
        return sealing.seal_part(self._staging.store, part, entries, SealRequest(created, message, user, algorithm))

    def record_part(self, tx: Connection, part: PartRef, sealed: SealedPart) -> None:
        """Record a sealed part and its first copy, which is written and not yet verified. Safe to call twice."""
        if records.find_object(tx, part.object_id) is not None:
            return
        stored = StoredObject(
            part.object_id, ObjectKind.PART, part.archive_id, 1, sealed.inventory_digest, sealed.byte_count
        )
        records.save_object(tx, stored)
        primary = self.primary().id
        records.save_copy(tx, Copy(part.object_id, primary, 1, CopyState.WRITTEN, written_at=self._clock.now()))

    def record_object(self, tx: Connection, stored: StoredObject) -> None:
        """Record an object found in a store, for a rebuild."""
        records.save_object(tx, stored)

    def record_copy(self, tx: Connection, copy: Copy) -> None:
        """Record a copy found in a store, for a rebuild."""
        records.save_copy(tx, copy)

    def copies(self, tx: Connection, object_ids: Iterable[str]) -> dict[str, list[Copy]]:
        """The copies of each object; an object without copies has an empty list."""
        return records.load_copies(tx, object_ids)

    @staticmethod
    def select_copied_bytes() -> Select[UUID | None, Decimal]:
        """Each archive with the bytes of all its copies that are good to read: a query for reports to join."""
        return records.select_copied_bytes()

    def find_object(self, tx: Connection, object_id: str) -> StoredObject | None:
        return records.find_object(tx, object_id)

    def find_objects(self, tx: Connection, object_ids: Iterable[str]) -> list[StoredObject]:
        """Those of the objects that were ever written."""
        return records.find_objects(tx, object_ids)

    def objects_of(self, tx: Connection, archive_id: UUID) -> list[StoredObject]:
        """The objects of an archive: its head and its sealed parts."""
        return records.find_objects_of_archive(tx, archive_id)

    def objects_of_none(self, tx: Connection) -> list[StoredObject]:
        """The objects that are no archive's: the registry, and the log of events by months."""
        return records.find_objects_of_none(tx)

    def due_copies(self, tx: Connection, store_id: UUID, before: datetime, limit: int = 100) -> list[Copy]:
        """Copies that were last verified before a time or never, the most urgent first."""
        return records.find_due_copies(tx, store_id, before, limit)

    def broken_copies(self, tx: Connection, written_before: datetime, limit: int = 10_000) -> list[tuple[UUID, str]]:
        """Archive and object of suspect, lost and unfinished copies in stores that are here.

        A copy that was written since a time and never verified is not told: its store is in doubt, more than the copy.
        """
        return records.find_broken_copies(tx, [store.info.id for store in self._stores], written_before, limit)

    def place_copy(self, object_id: str, store_id: UUID) -> None:
        """Write a copy of an object into a store from the best copy there is; it counts only after `verify_copy`.

        Every byte is compared with the inventory on its way. A suspect or lost copy in the target goes to quarantine
        first. Safe to call again at any time: a copy that is there already stays. Raises NoGoodCopyError,
        SourceDamagedError (the source is suspect from then on), StoreFullError.
        """
        target = self._store(store_id)
        with self._exclusively(object_id):
            stored, copies = self._load(object_id)
            own = next((copy for copy in copies if copy.store_id == store_id), None)
            if own and own.version == stored.version and own.state in (CopyState.WRITTEN, CopyState.VERIFIED):
                return
            if not self._find_sources(target, stored, copies):
                raise NoGoodCopyError(f"{object_id} has no copy to place another one from.")
            self.check_room(stored.byte_count, store_id)
            self._prepare_place(target, object_id, stored, own)
            crash_point("place.recorded")
            self._bring(target, stored, copies)
            self._save_copy(Copy(object_id, store_id, stored.version, CopyState.WRITTEN, written_at=self._clock.now()))

    def verify_copy(
        self,
        object_id: str,
        store_id: UUID,
        progress: Progress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> VerifyReport:
        """Read a copy back from its medium and compare every byte and the structure with the inventory.

        The copy becomes verified, or suspect; nothing is repaired. `progress` is told files and bytes so far. Raises
        VerificationStoppedError, and StoreUnavailableError, which leaves the copy's state as it is.
        """
        store = self._store(store_id)
        with self._exclusively(object_id, only_if_versioned=True):
            stored, copies = self._load(object_id)
            own = next((copy for copy in copies if copy.store_id == store_id), None)
            if own is None:
                raise UnknownObjectError(f"The store {store.info.name} has no copy of {object_id}.")
            known = find_known_digest(store, stored) if own.version == stored.version else None
            report = verify_object(
                store, object_id, self._clock, known_digest=known, progress=progress, should_stop=should_stop
            )
            self._record_verification(own, report)
        return report

    def remove_object(self, object_id: str) -> list[Removal]:
        """Remove an object from every store, the last one first, and tell what left. Safe to call again.

        Its copies are `lost` from the first step on, so that nothing reads half of it; `forget_objects` then removes
        the rows in the caller's transaction. Raises StoreUnavailableError as long as one store cannot be reached.
        """
        removals = []
        with self._exclusively(object_id):
            present = {store.info.id for store in self._stores}
            with self._db.begin() as tx:
                copies = records.load_copies(tx, [object_id])[object_id]
            for store in reversed(self._stores):
                with self._db.begin() as tx:
                    records.mark_copy(tx, object_id, store.info.id, CopyState.LOST, {"removed": True})
                self._sources.forget(object_id)
                crash_point("remove.marked")
                files, size = store.remove_object(object_id)
                crash_point("remove.removed")
                removals.append(Removal(store.info.id, object_id, files, size, self._clock.now()))
        away = [copy.store_id for copy in copies if copy.store_id not in present and copy.state is not CopyState.LOST]
        if away:
            raise StoreUnavailableError(f"{object_id} is also in a store that is not here: {away[0]}.")
        return removals

    def forget_objects(self, tx: Connection, object_ids: Sequence[str]) -> None:
        """Remove the rows of objects and of their copies, after `remove_object`."""
        records.delete_objects(tx, object_ids)
        for object_id in object_ids:
            self._sources.forget(object_id)

    def iter_objects(self, store_id: UUID) -> Iterator[tuple[str, ocfl.Inventory | DamagedError]]:
        """Every object of a store with its inventory, read from the store itself; damage is given, not skipped."""
        store = self._store(store_id)
        for object_id in store.iter_objects():
            try:
                yield object_id, read_inventory(store, object_id).inventory
            except DamagedError as error:
                yield object_id, error
            except StoreFailedError as error:
                yield object_id, CopyDamagedError(f"{object_id} cannot be read: {error.detail}")
            except FileNotFoundError:
                yield object_id, CopyDamagedError(f"{object_id} has no inventory, or no sidecar to it.")

    def inventory(self, object_id: str) -> StoredInventory:
        """The newest inventory of an object, with its bytes and digest, from the best copy."""
        return self._sources.read_from_best(self._stores, object_id, lambda store: read_inventory(store, object_id))

    # Reading

    def read_object(
        self, object_id: str, content: str, offset: int = 0, length: int | None = None, *, size: int | None = None
    ) -> Iterator[bytes]:
        """Blocks of up to 1 MiB of a user's file in a sealed part, from the best copy.

        `size` is that of the whole file, where the caller knows it: a copy that ends before the bytes wanted of it is
        damaged. A copy that fails before the first byte becomes suspect and the next one is read; one that fails later
        becomes suspect, and the error is raised. Raises NoGoodCopyError, CopyDamagedError.
        """
        path = DATA_PREFIX + content
        wanted = 0 if size is None else max(size - offset, 0)
        wanted = wanted if length is None else min(wanted, length)

        def begin(store: Store) -> tuple[Store, bytes, Iterator[bytes]]:
            blocks = store.read_object(object_id, path, offset, length)
            first = next(blocks, b"")
            if wanted and not first:
                raise _wrong_length(store, object_id, content)
            return store, first, blocks

        source, first, rest = self._sources.read_from_best(self._stores, object_id, begin)
        given = len(first)
        if first:
            yield first
        try:
            for block in rest:
                given += len(block)
                yield block
            if given < wanted:
                raise _wrong_length(source, object_id, content)
        except (CopyDamagedError, StoreFailedError) as error:
            self._sources.doubt(source, object_id, error)
            raise

    def local_path(self, object_id: str, content: str, *, size: int | None = None) -> Path | None:
        """Where this machine can open a user's file of a sealed part by itself, or None: then `read_object`.

        A copy whose file has not the `size`, where the caller knows it, becomes suspect and the next one is taken.
        """
        for store in self._sources.good_stores(self._stores, object_id):
            path = store.local_path(object_id, DATA_PREFIX + content)
            if path is None:
                continue
            if size is None or path.stat().st_size == size:
                return path
            self._sources.doubt(store, object_id, _wrong_length(store, object_id, content))
        return None

    def read_part_document(self, object_id: str, name: str, *, digest: str | None = None) -> bytes:
        """A document of a sealed part, such as its manifest, compared with its digest: the known one, else the
        inventory's."""

        def read(store: Store) -> bytes:
            return _read_document(store, object_id, name, digest)

        return self._sources.read_from_best(self._stores, object_id, read)

    def read_sealed_document(self, part: PartRef, name: str, *, digest: str | None = None) -> bytes:
        """The same of a part that was just sealed and that no committed row names yet: from the primary."""
        return _read_document(self._stores[0], part.object_id, name, digest)

    def head_state(self, object_id: str, version: int | None = None) -> dict[str, str]:
        """The digest of each logical path of a head object, now or as of a version."""
        held = self.inventory(object_id)
        return _state_of(held.inventory, version)

    def read_head_file(self, object_id: str, logical_path: str, version: int | None = None) -> bytes:
        """A file of a head object, now or as of a version, compared with the inventory; raises UnknownObjectError."""

        def read(store: Store) -> bytes:
            inventory = read_inventory(store, object_id).inventory
            digest = _state_of(inventory, version).get(logical_path)
            if digest is None:
                raise UnknownObjectError(f"{object_id} has no file {logical_path!r}.")
            return _read_checked(store, object_id, inventory, inventory.manifest[digest][0])

        return self._sources.read_from_best(self._stores, object_id, read)

    # Heads

    def write_head(
        self,
        object_id: str,
        archive_id: UUID | None,
        kind: ObjectKind,
        changes: Mapping[str, Content | None],
        *,
        message: str,
        user: ocfl.User,
        created: datetime,
        algorithm: str = "sha512",
    ) -> HeadVersion:
        """Add one version to a head object in every store, or make the object; read back what was written.

        A path with None leaves the state; old versions keep it. Writers wait for each other. When the changes change
        nothing, also because an interrupted call had written them, no version is added. A store that fails or holds a
        suspect copy is left behind and named in the answer; the call fails only when no store took the version.
        """
        change = HeadChange(changes, created, message, user, algorithm)
        return self._spreading.write(object_id, archive_id, kind, change)

    def reconcile_head(self, object_id: str) -> HeadVersion:
        """Bring the head object in every undoubted store to the newest version; safe to call at any time."""
        return self._spreading.reconcile(object_id)

    def reconcile_heads(self) -> int:
        """Bring heads up that some store is behind with, and return how many; a store that fails is left for later."""
        return self._spreading.reconcile_all()

    # Journals

    def append_journal(self, archive_id: UUID, lines: list[bytes]) -> None:
        """Append lines (no newline in them) to an archive's journal, durably, on the primary and on all that are up."""
        journals.append(self._stores, archive_id, lines)

    def read_journal(self, archive_id: UUID) -> JournalRead:
        """Every whole line of the journal, from the primary or else from the store that has most of it.

        `torn` holds bytes after the last whole line, which were never acknowledged, and `damaged` names the stores
        whose journal is not read: the caller reports both. Raises JournalDamagedError when no other store has a whole
        journal that is at least as long as what is whole of a damaged one.
        """
        return journals.read(self._stores, archive_id)

    def reset_journal(self, archive_id: UUID, keep: list[bytes]) -> None:
        """Replace the journal in one durable step in each store, after its changes were folded into a head version."""
        journals.reset(self._stores, archive_id, keep)

    # Inside

    def _prepare(self, store: Store) -> None:
        with self._db.begin() as tx:
            store.prepare(self._instance_id, records.find_store_id(tx, store.name))
            records.save_store(tx, store.info, store.abilities)

    def _store(self, store_id: UUID) -> Store:
        for store in self._stores:
            if store.info.id == store_id:
                return store
        raise UnknownStoreError(f"There is no store {store_id}.")

    @contextmanager
    def _exclusively(self, object_id: str, *, only_if_versioned: bool = False) -> Iterator[None]:
        """Hold an object against writers of all processes, for as long as the block takes."""
        with self._db.connect_autocommit() as connection:
            if only_if_versioned:
                kind = records.find_object(connection, object_id)
                if kind is None or kind.kind is ObjectKind.PART:
                    yield
                    return
            key = {"id": object_id}
            connection.execute(text("SELECT pg_advisory_lock(hashtextextended(:id, 0))"), key)
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(hashtextextended(:id, 0))"), key)

    def _load(self, object_id: str) -> tuple[StoredObject, list[Copy]]:
        with self._db.begin() as tx:
            stored = records.find_object(tx, object_id)
            if stored is None:
                raise UnknownObjectError(f"There is no object {object_id}.")
            return stored, records.load_copies(tx, [object_id])[object_id]

    def _save_copy(self, copy: Copy) -> None:
        with self._db.begin() as tx:
            records.save_copy(tx, copy)
        self._sources.forget(copy.object_id)

    def _prepare_place(self, target: Store, object_id: str, stored: StoredObject, own: Copy | None) -> None:
        is_doubted = own is not None and own.state in (CopyState.SUSPECT, CopyState.LOST)
        if is_doubted or not placing.has_sound_inventory(target, object_id):
            target.set_object_aside(object_id)
        self._save_copy(Copy(object_id, target.info.id, stored.version, CopyState.WRITING))

    def _bring(self, target: Store, stored: StoredObject, copies: list[Copy]) -> None:
        """Place from the best copy; one that proves damaged becomes suspect, and the next one is tried."""
        failure: PerdureError | None = None
        for source in self._find_sources(target, stored, copies):
            try:
                held = placing.read_source(source, stored)
                placing.bring_object(source, target, stored.object_id, held)
            except placing.SourceDamagedError as error:
                if error.store_id != source.info.id:
                    raise  # the target's own older files: the source is not to blame
                failure = self._sources.doubt(source, stored.object_id, error)
            else:
                return
        raise NoGoodCopyError(f"{stored.object_id} has no copy to place another one from.") from failure

    def _find_sources(self, target: Store, stored: StoredObject, copies: list[Copy]) -> list[Store]:
        """The stores that are here with a copy to place from, best first."""
        here = {store.info.id: store for store in self._stores if store is not target}
        return [here[copy.store_id] for copy in rank_sources(copies, stored.version) if copy.store_id in here]

    def _record_verification(self, copy: Copy, report: VerifyReport) -> None:
        """Note what was found of the copy as it was when the reading began; nothing if it was changed meanwhile."""
        when = self._clock.now()
        with self._db.begin() as tx:
            if report.is_good:
                records.mark_verified(tx, copy, when, report.evidence)
            else:
                records.mark_suspect(tx, copy, report.evidence)
        self._sources.forget(copy.object_id)

    @contextmanager
    def _holding_still(self, store: Store, object_id: str) -> Iterator[bool]:
        """Hold off whoever wants to write an object here; False while somebody does, or a copy is unfinished."""
        with self._db.begin() as tx:
            if not records.try_lock_object(tx, object_id):
                yield False
                return
            copies = records.load_copies(tx, [object_id])[object_id]
            yield not any(copy.store_id == store.info.id and copy.state is CopyState.WRITING for copy in copies)


def _wrong_length(store: Store, object_id: str, content: str) -> CopyDamagedError:
    where = {"object_id": object_id, "store": store.info.name, "path": content}
    return CopyDamagedError(f"{content!r} of {object_id} in the store {store.info.name} has not its length.", **where)


def _state_of(inventory: ocfl.Inventory, version: int | None) -> dict[str, str]:
    name = inventory.head if version is None else f"v{version}"
    if name not in inventory.versions:
        raise UnknownObjectError(f"{inventory.id} has no version {version}.")
    return {path: digest for digest, paths in inventory.versions[name].state.items() for path in paths}


def _read_document(store: Store, object_id: str, name: str, digest: str | None) -> bytes:
    """A document of a part; its inventory is read, which takes long, only where nobody knows the digest."""
    if digest is None:
        return _read_checked(store, object_id, read_inventory(store, object_id).inventory, META_PREFIX + name)
    data = read_whole(store, object_id, META_PREFIX + name)
    algorithm = content_digest_name(digest)
    if digest_bytes(data, (algorithm,))[algorithm] != digest.lower():
        raise placing.SourceDamagedError(store, object_id, META_PREFIX + name)
    return data


def _read_checked(store: Store, object_id: str, inventory: ocfl.Inventory, path: str) -> bytes:
    """A small file of an object whose bytes are compared with the inventory; raises CopyDamagedError."""
    expected = inventory.content_paths().get(path)
    if expected is None:
        raise UnknownObjectError(f"{object_id} has no file {path!r}.")
    data = read_whole(store, object_id, path)
    if digest_bytes(data, (inventory.digest_algorithm,))[inventory.digest_algorithm] != expected.lower():
        raise placing.SourceDamagedError(store, object_id, path)
    return data
