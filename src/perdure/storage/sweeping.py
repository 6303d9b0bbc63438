"""What lies in staging that nobody knows of: found by its name and its age, and removed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from perdure.storage import placing
from perdure.storage.model import PartRef
from perdure.storage.ports import Store

Known = Callable[[UUID, UUID | None], bool]


def find_part(name: str) -> PartRef | None:
    """The part whose tree or log this is; None for uploads and for the trees of heads and copies."""
    folder, _, rest = name.partition("/")
    try:
        return PartRef(UUID(folder), UUID(rest.removesuffix(".entries.ndjson")))
    except ValueError:
        return None


def sweep_store(store: Store, known: Known, older_than: datetime, is_growing: Callable[[str], bool]) -> list[str]:
    """Remove what is old and unknown from the staging of one store; returns the names of what was removed.

    `is_growing` is asked with an object id whether a copy of it is being written: a large one takes longer than any
    sweep waits.
    """
    trees = list(store.iter_trees())
    newest: dict[tuple[str, str], float] = {}
    for name, changed in trees:
        newest[_key_of(name)] = max(changed, newest.get(_key_of(name), 0.0))
    old = [name for name, _ in trees if newest[_key_of(name)] < older_than.timestamp()]
    swept = [name for name in old if not _is_known(_key_of(name), known, is_growing)]
    for name in swept:
        _remove(store, name)
    return swept


def _key_of(name: str) -> tuple[str, str]:
    """What belongs together in staging: a part's tree and log, an upload's files."""
    folder, _, rest = name.partition("/")
    return folder, rest.removesuffix(".entries.ndjson").removeprefix("upload-")


def _is_known(key: tuple[str, str], known: Known, is_growing: Callable[[str], bool]) -> bool:
    folder, name = key
    if folder == placing.TREES:
        return is_growing(f"urn:uuid:{name.partition('.')[0]}")
    try:
        return known(UUID(folder), UUID(name))
    except ValueError:
        return False


def _remove(store: Store, name: str) -> None:
    if name.endswith(".ndjson"):
        store.replace_log(f"staging/{name}", [])
    elif "/upload-" in name:
        store.remove_upload(name)
    else:
        store.remove_tree(name)
