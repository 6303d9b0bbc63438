"""Head objects: each version adds to the object in every store; what is old is shared, never written again.

The new form of an object grows in staging beside the old one, which it shares its old files with, and takes its place
in one step; a reader meets the old version or the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from perdure.formats import ocfl
from perdure.kernel.digests import digest_bytes, make_digester
from perdure.kernel.errors import PerdureError
from perdure.storage.crash_points import crash_point
from perdure.storage.errors import (
    CopyDamagedError,
    SourceChangedError,
    StagedContentError,
    StoreFailedError,
    StoreUnavailableError,
)
from perdure.storage.model import StoredObject
from perdure.storage.placing import (
    bring_object,
    find_inventory,
    install,
    object_tree,
    put_documents,
    share_files,
)
from perdure.storage.ports import Store
from perdure.storage.sealing import inventory_files
from perdure.storage.verifying import StoredInventory, read_inventory, read_whole

Content = bytes | Path
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class HeadChange:
    """The files of the next version: content for what is new, None for what leaves, nothing for what stays."""

    changes: Mapping[str, Content | None]
    created: datetime
    message: str
    user: ocfl.User
    algorithm: str = "sha512"


@dataclass(frozen=True, slots=True)
class Found:
    """What the stores hold of an object: the newest inventory, one store that has it, and who could not be asked."""

    base: StoredInventory | None
    source: Store | None
    failures: Mapping[str, PerdureError]


def find_newest(stores: Iterable[Store], object_id: str, known: StoredObject | None) -> Found:
    """The newest version among the stores, which is at least the one that the database knows.

    A version beyond the database's is one whose writer was interrupted before the commit: it is adopted. Raises
    StoreUnavailableError when only older ones can be reached, because writing on them would fork the object.
    """
    best: tuple[int, StoredInventory, Store] | None = None
    failures: dict[str, PerdureError] = {}
    for store in stores:
        try:
            held = find_inventory(store, object_id)
        except PerdureError as error:
            failures[store.info.name] = error
            continue
        if held is None:
            continue
        number = ocfl.version_number(held.inventory.head)
        if known and number == known.version and held.digest != known.inventory_digest:
            continue  # the same number from a line that was never acknowledged
        if known and number > known.version and not stands_on(store, object_id, held, known):
            continue  # a longer line that was never acknowledged
        if best is None or number > best[0]:
            best = number, held, store
    if known and (best is None or best[0] < known.version):
        raise StoreUnavailableError(f"No store that can be reached has version {known.version} of {object_id}.")
    return Found(best[1], best[2], failures) if best else Found(None, None, failures)


def stands_on(store: Store, object_id: str, held: StoredInventory, known: StoredObject) -> bool:
    """Whether the store's newest version was added to the one that the database knows, and keeps all of its content."""
    try:
        data = read_whole(store, object_id, f"v{known.version}/{ocfl.INVENTORY_NAME}")
    except (FileNotFoundError, StoreFailedError):
        return False
    algorithm = held.inventory.digest_algorithm
    if digest_bytes(data, (algorithm,))[algorithm] != known.inventory_digest:
        return False
    return ocfl.parse_inventory(data).content_paths().items() <= held.inventory.content_paths().items()


def plan_next(object_id: str, base: StoredInventory | None, change: HeadChange) -> ocfl.NextVersion | None:
    """The next version, or None when the changes change nothing."""
    before = base.inventory.head_state() if base else {}
    state = dict(before)
    for path, content in change.changes.items():
        if content is None:
            state.pop(path, None)
        else:
            state[path] = _digest_content(content, change.algorithm)
    if base is not None and state == before:
        return None
    return ocfl.next_version(
        base.inventory if base else None,
        state,
        object_id=object_id,
        created=change.created,
        message=change.message,
        user=change.user,
        algorithm=change.algorithm,
    )


def write_version(
    store: Store, object_id: str, found: Found, planned: ocfl.NextVersion, changes: Mapping[str, Content | None]
) -> None:
    """Add the planned version to the object in one store, after bringing the store up to the version before it."""
    own = find_inventory(store, object_id)
    data = ocfl.inventory_bytes(planned.inventory)
    algorithm = planned.inventory.digest_algorithm
    if found.base is not None and found.source is not None and (own is None or own.digest != found.base.digest):
        bring_object(found.source, store, object_id, found.base)
        own = found.base
    elif found.base is None and own is not None:
        raise CopyDamagedError(f"{object_id} is in the store {store.info.name} in a line that nobody knows.")
    tree = object_tree(object_id)
    store.remove_tree(tree)
    if own is not None:
        share_files(store, tree, object_id, own)
    crash_point("head.shared")
    for path, logical in planned.new_content.items():
        content = changes[logical]
        assert content is not None
        _put_content(store, tree, path, content, _digest_of(planned.inventory, path))
    put_documents(store, tree, inventory_files(data, algorithm, planned.inventory.head))
    crash_point("head.written")
    install(store, tree, object_id)
    crash_point("head.installed")


@dataclass(frozen=True, slots=True)
class Written:
    """An object as one store has it after writing."""

    version: int
    digest: str
    byte_count: int


def write_one(
    store: Store,
    object_id: str,
    found: Found,
    planned: ocfl.NextVersion | None,
    changes: Mapping[str, Content | None],
) -> Written:
    """Bring one store to the planned version, or without a plan to the newest there is."""
    if planned is not None:
        write_version(store, object_id, found, planned, changes)
    elif found.base is not None and found.source is not None:
        bring_object(found.source, store, object_id, found.base)
    held = read_inventory(store, object_id)
    size = sum(max(size, 0) for _, size in store.walk_object(object_id))
    return Written(ocfl.version_number(held.inventory.head), held.digest, size)


def _digest_of(inventory: ocfl.Inventory, path: str) -> str:
    return inventory.content_paths()[path]


def _digest_content(content: Content, algorithm: str) -> str:
    if isinstance(content, bytes):
        return digest_bytes(content, (algorithm,))[algorithm]
    digester = make_digester(algorithm)
    with content.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digester.update(block)
    return digester.hexdigest()


def _put_content(store: Store, tree: str, path: str, content: Content, digest: str) -> None:
    if isinstance(content, bytes):
        put_documents(store, tree, {path: content})
        return
    sink = store.create_file(tree, path)
    if sink is None:
        raise StagedContentError(f"{path} of the tree {tree} cannot be written: the name is taken.")
    digester = make_digester("sha512" if len(digest) == 128 else "sha256")
    try:
        with content.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digester.update(block)
                sink.write(block)
        sink.close()
        if digester.hexdigest() != digest:
            raise SourceChangedError(f"{content} changed while it was read.")
    except BaseException:
        sink.abort()
        raise
