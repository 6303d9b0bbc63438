"""Every store passes one suite: the folder, the folder on a lesser file system, and the fake."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.adapters.posix.store import PosixStore
from perdure.storage.model import Abilities
from perdure.storage.ports import Store
from perdure.testing.memory_store import MemoryStore
from perdure.testing.stores import INSTANCE, StoreContract


class TestPosixStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        store = PosixStore("folder", tmp_path / "store")
        store.prepare(INSTANCE)
        return store

    def reopen(self, store: Store) -> Store:
        return PosixStore("folder", Path(store.info.location))


class TestPosixStoreOnALesserFileSystem(StoreContract):
    """No syncfs, no exchange, no hard links, no O_DIRECT."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        lesser = Abilities("lesser", "dropped", batch_sync=False, exchange=False, hard_links=False)
        store = PosixStore("folder", tmp_path / "store", abilities=lesser)
        store.prepare(INSTANCE)
        return store

    def reopen(self, store: Store) -> Store:
        return PosixStore("folder", Path(store.info.location))


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        store = MemoryStore()
        store.prepare(INSTANCE)
        return store
