"""The rows of stores: several processes of a new installation write them at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from uuid import UUID, uuid4

import pytest

from perdure.db import Database
from perdure.storage import records
from perdure.storage.errors import ForeignStoreError
from perdure.storage.model import Abilities, StoreInfo

_PROCESSES = 4
_TRIES = 800  # two collide in one of a few hundred
_ABILITIES = Abilities("ext4", "direct", batch_sync=True, exchange=True, hard_links=True)


def test_a_store_is_recorded_by_several_at_once(db: Database) -> None:
    barrier = Barrier(_PROCESSES)

    def save(info: StoreInfo) -> None:
        with db.begin() as tx:
            barrier.wait(30)
            records.save_store(tx, info, _ABILITIES)

    with ThreadPoolExecutor(_PROCESSES) as processes:
        for number in range(_TRIES):
            info = StoreInfo(uuid4(), f"store {number}", "posix", "disk", "/stores")
            for saved in [processes.submit(save, info) for _ in range(_PROCESSES)]:
                saved.result()


def test_a_row_is_renewed_and_a_name_belongs_to_one_store(db: Database) -> None:
    info = StoreInfo(UUID(int=1), "one", "posix", "disk", "/stores/one")
    with db.begin() as tx:
        records.save_store(tx, info, _ABILITIES)
        records.save_store(tx, replace(info, name="first"), _ABILITIES)
        assert (records.find_store_id(tx, "one"), records.find_store_id(tx, "first")) == (None, info.id)
        with pytest.raises(ForeignStoreError):
            records.save_store(tx, replace(info, id=UUID(int=2), name="first"), _ABILITIES)
