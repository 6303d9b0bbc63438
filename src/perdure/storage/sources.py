"""Which copy of an object is read, and what happens to one that fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

from perdure.db import Database
from perdure.kernel.clock import Clock
from perdure.kernel.errors import DamagedError, PerdureError
from perdure.storage import records
from perdure.storage.errors import (
    CopyDamagedError,
    NoGoodCopyError,
    StoreFailedError,
    StoreUnavailableError,
    UnknownObjectError,
)
from perdure.storage.model import rank_sources
from perdure.storage.ports import Store

_KEPT_SECONDS = 5.0
_KEPT_OBJECTS = 10_000
Result = TypeVar("Result")


class Sources:
    """Finds the copies that may be read, best first; remembers them for seconds, because every read asks."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._kept: dict[str, tuple[float, list[UUID]]] = {}

    def forget(self, object_id: str) -> None:
        """Look at the copies anew at the next read: one of them has changed."""
        self._kept.pop(object_id, None)

    def good_stores(self, stores: Sequence[Store], object_id: str) -> list[Store]:
        """The stores among these that hold a copy to read, best first; raises UnknownObjectError."""
        kept = self._kept.get(object_id)
        if kept is None or kept[0] < time.monotonic():
            kept = time.monotonic() + _KEPT_SECONDS, self._rank(object_id)
            if len(self._kept) >= _KEPT_OBJECTS:
                self._kept.clear()
            self._kept[object_id] = kept
        by_id = {store.info.id: store for store in stores}
        return [by_id[store_id] for store_id in kept[1] if store_id in by_id]

    def read_from_best(self, stores: Sequence[Store], object_id: str, read: Callable[[Store], Result]) -> Result:
        """Read from the best copy; one that is damaged becomes suspect and the next is read.

        Raises NoGoodCopyError, or StoreUnavailableError when a copy could not be reached.
        """
        failure: PerdureError | None = None
        for store in self.good_stores(stores, object_id):
            try:
                return read(store)
            except StoreUnavailableError as error:
                failure = error
            except (DamagedError, FileNotFoundError, StoreFailedError) as error:
                failure = self.doubt(store, object_id, error)
        if isinstance(failure, StoreUnavailableError):
            raise failure
        raise NoGoodCopyError(f"{object_id} has no copy that can be read.") from failure

    def doubt(self, store: Store, object_id: str, error: Exception) -> PerdureError:
        """Mark a copy suspect because reading it failed, and give the error for the chain of causes."""
        detail = error.detail if isinstance(error, PerdureError) else f"{error} is not there"
        evidence = {"read": "served", "found_at": self._clock.now().isoformat(), "detail": detail}
        with self._db.begin() as tx:
            records.doubt_copy(tx, object_id, store.info.id, evidence)
        self.forget(object_id)
        return error if isinstance(error, PerdureError) else CopyDamagedError(detail)

    def _rank(self, object_id: str) -> list[UUID]:
        with self._db.begin() as tx:
            stored = records.find_object(tx, object_id)
            if stored is None:
                raise UnknownObjectError(f"There is no object {object_id}.")
            copies = records.load_copies(tx, [object_id])[object_id]
        return [copy.store_id for copy in rank_sources(copies, stored.version)]
