"""Each version of a head brought to every store, read back there, and noted in the database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from uuid import UUID

import structlog
from sqlalchemy import Connection

from perdure.db import Database
from perdure.formats import ocfl
from perdure.kernel.clock import Clock
from perdure.kernel.errors import DamagedError, PerdureError
from perdure.storage import heads, records
from perdure.storage.crash_points import crash_point
from perdure.storage.errors import CopyDamagedError, NoGoodCopyError, StoreFailedError, UnknownObjectError
from perdure.storage.heads import Content, HeadChange
from perdure.storage.model import Copy, CopyState, HeadVersion, ObjectKind, StoredObject
from perdure.storage.ports import Store
from perdure.storage.sources import Sources
from perdure.storage.verifying import read_inventory, verify_object

log = structlog.get_logger(__name__)

_WHOLE_HEAD_READ = 8 << 20  # of a larger head only the new files are read back after each version
_HEADS_AT_ONCE = 1000


class Spreading:
    """Writes heads to the stores there are at the moment; see `Storage` for what its use cases promise."""

    def __init__(self, db: Database, clock: Clock, sources: Sources, stores: Callable[[], Sequence[Store]]) -> None:
        self._db = db
        self._clock = clock
        self._sources = sources
        self._stores = stores

    def write(self, object_id: str, archive_id: UUID | None, kind: ObjectKind, change: HeadChange) -> HeadVersion:
        """Add one version to a head, or make the object."""
        with self._db.begin() as tx:
            records.lock_object(tx, object_id)
            known = records.find_object(tx, object_id)
            usable = self._undoubted(records.load_copies(tx, [object_id])[object_id])
            found = heads.find_newest(usable, object_id, known)
            planned = heads.plan_next(object_id, found.base, change)
            answer = self._spread(tx, object_id, kind, archive_id, usable, found, planned, change.changes)
        crash_point("head.committed")
        return answer

    def reconcile(self, object_id: str) -> HeadVersion:
        """Bring a head in every undoubted store to the newest version."""
        with self._db.begin() as tx:
            records.lock_object(tx, object_id)
            known = records.find_object(tx, object_id)
            if known is None:
                raise UnknownObjectError(f"There is no object {object_id}.")
            usable = self._undoubted(records.load_copies(tx, [object_id])[object_id])
            found = heads.find_newest(usable, object_id, known)
            return self._spread(tx, object_id, known.kind, known.archive_id, usable, found, None, {})

    def reconcile_all(self) -> int:
        """Bring heads up that some store is behind with; returns how many."""
        done, failing = 0, set[UUID]()
        for object_id, store_ids in self._find_behind():
            if not set(store_ids) - failing:
                continue
            try:
                failing |= set(self.reconcile(object_id).behind)
                done += 1
            except PerdureError as error:
                log.warning("head_not_reconciled", object=object_id, error=error.detail)
        return done

    def _find_behind(self) -> list[tuple[str, list[UUID]]]:
        present = [store.info.id for store in self._stores() if store.is_sound]
        with self._db.begin() as tx:
            return records.find_heads_behind(tx, present, _HEADS_AT_ONCE)

    def _undoubted(self, copies: Iterable[Copy]) -> list[Store]:
        doubted = {copy.store_id for copy in copies if copy.state in (CopyState.SUSPECT, CopyState.LOST)}
        return [store for store in self._stores() if store.info.id not in doubted]

    def _spread(
        self,
        tx: Connection,
        object_id: str,
        kind: ObjectKind,
        archive_id: UUID | None,
        usable: list[Store],
        found: heads.Found,
        planned: ocfl.NextVersion | None,
        changes: Mapping[str, Content | None],
    ) -> HeadVersion:
        """Write a version (None: the newest there is) to each store, read it back, and record where it stands."""
        earlier = {copy.store_id: copy for copy in records.load_copies(tx, [object_id])[object_id]}
        done: list[tuple[Store, heads.Written]] = []
        failures: list[PerdureError] = []
        for store in usable:
            try:
                done.append((store, heads.write_one(store, object_id, found, planned, changes)))
            except PerdureError as error:
                failures.append(error)
        if not done:
            raise failures[0] if failures else NoGoodCopyError(f"{object_id} has no undoubted copy to write to.")
        written = done[0][1]
        records.save_object(
            tx, StoredObject(object_id, kind, archive_id, written.version, written.digest, written.byte_count)
        )
        copies = [self._read_back(store, object_id, each, earlier.get(store.info.id)) for store, each in done]
        for copy in copies:
            records.save_copy(tx, copy)
        self._sources.forget(object_id)
        if not any(copy.state is CopyState.VERIFIED for copy in copies):
            raise CopyDamagedError(f"Version {written.version} of {object_id} cannot be read back from any store.")
        current = {copy.store_id for copy in copies if copy.state is CopyState.VERIFIED}
        behind = tuple(store.info.id for store in self._stores() if store.info.id not in current)
        return HeadVersion(written.version, written.digest, behind)

    def _read_back(self, store: Store, object_id: str, written: heads.Written, earlier: Copy | None) -> Copy:
        """Verify what was written: all of it, or of a large head only the new files if the old ones are verified."""
        now = self._clock.now()
        is_new_only = (
            written.byte_count > _WHOLE_HEAD_READ
            and earlier is not None
            and earlier.state is CopyState.VERIFIED
            and earlier.version >= written.version - 1
        )
        prefix = f"v{written.version}/"
        report = verify_object(
            store,
            object_id,
            self._clock,
            known_digest=written.digest,
            only=(lambda path: path.startswith(prefix)) if is_new_only else None,
        )
        # reading only what is new does not put off the next reading of the whole
        verified_at = earlier.verified_at if is_new_only and earlier is not None else self._clock.now()
        state = CopyState.VERIFIED if report.is_good else CopyState.SUSPECT
        return Copy(object_id, store.info.id, written.version, state, now, verified_at, report.evidence)


def find_known_digest(store: Store, stored: StoredObject) -> str:
    """The digest that the inventory in a store must have: that of the version which the database knows.

    A writer that was interrupted before its commit leaves a version more in a head, which the next writer adopts: it is
    no damage, and what it was added to is read with it.
    """
    if stored.kind is ObjectKind.PART:
        return stored.inventory_digest
    try:
        held = read_inventory(store, stored.object_id)
    except (DamagedError, FileNotFoundError, StoreFailedError):
        return stored.inventory_digest
    return held.digest if heads.stands_on(store, stored.object_id, held, stored) else stored.inventory_digest
