"""What lies in staging that nobody knows of: found by its name and its age, and removed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from uuid import UUID

from perdure.storage import placing
from perdure.storage.model import PartRef
from perdure.storage.ports import Store

Known = Callable[[UUID, UUID | None], bool]
HoldStill = Callable[[str], AbstractContextManager[bool]]


def find_part(name: str) -> PartRef | None:
    """The part whose tree or log this is; None for uploads and for the trees of heads and copies."""
    folder, _, rest = name.partition("/")
    try:
        return PartRef(UUID(folder), UUID(rest.removesuffix(".entries.ndjson")))
    except ValueError:
        return None


def sweep_store(store: Store, known: Known, older_than: datetime, hold_still: HoldStill) -> list[str]:
    """Remove what is old and unknown from the staging of one store; returns the names of what was removed.

    `hold_still` gets an object id and keeps others from writing the object while its tree is removed; it says whether
    somebody is at it already. A clock that runs ahead makes everything old.
    """
    trees = list(store.iter_trees())
    newest: dict[tuple[str, str], float] = {}
    for name, changed in trees:
        newest[_key_of(name)] = max(changed, newest.get(_key_of(name), 0.0))
    old = [name for name, _ in trees if newest[_key_of(name)] < older_than.timestamp()]
    return [name for name in old if _sweep_one(store, name, known, hold_still)]


def _sweep_one(store: Store, name: str, known: Known, hold_still: HoldStill) -> bool:
    """Remove one thing in staging unless it is known; whether it was removed."""
    folder, rest = _key_of(name)
    if folder == placing.TREES:
        with hold_still(f"urn:uuid:{rest.partition('.')[0]}") as is_still:
            if is_still:
                _remove(store, name)
            return is_still
    if _is_known(folder, rest, known):
        return False
    _remove(store, name)
    return True


def _key_of(name: str) -> tuple[str, str]:
    """What belongs together in staging: a part's tree and log, an upload's files."""
    folder, _, rest = name.partition("/")
    return folder, rest.removesuffix(".entries.ndjson").removeprefix("upload-")


def _is_known(folder: str, name: str, known: Known) -> bool:
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
