"""Stores that were away or failed: how one is examined before it is written to again."""

from __future__ import annotations

import secrets

from perdure.kernel.ids import new_id
from perdure.storage.errors import StoreFailedError
from perdure.storage.placing import TREES
from perdure.storage.ports import Store

_SAMPLE = 64 << 10  # bytes


def examine_store(store: Store) -> None:
    """Write, sync and read back a file of its own; raises what the store says, StoreFailedError for other bytes.

    Copies need no more: what was not synced was never recorded, and a copy counts only after it was read back.
    """
    tree, sample = f"{TREES}/{new_id()}", secrets.token_bytes(_SAMPLE)
    try:
        store.put_file(tree, "sample", sample)
        store.sync_tree(tree)
        if b"".join(store.read_file(tree, "sample")) != sample:
            raise StoreFailedError(f"The store {store.name} gives other bytes than were written to it.")
    finally:
        store.remove_tree(tree)
