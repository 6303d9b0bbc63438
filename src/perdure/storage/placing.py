"""Bringing an object of one store into another: read, digested, compared, staged there, renamed in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from perdure.formats import ocfl
from perdure.kernel.digests import digest_bytes, make_digester
from perdure.kernel.errors import DamagedError
from perdure.storage.crash_points import crash_point
from perdure.storage.errors import CopyDamagedError, StagedContentError
from perdure.storage.model import StoredObject, object_uuid
from perdure.storage.parallel import iter_batches, iter_in_threads, worker_count
from perdure.storage.ports import Store
from perdure.storage.source_files import SMALL
from perdure.storage.verifying import StoredInventory, read_inventory, read_whole

TREES = "objects"  # the folder in staging for objects that grow outside an archive's own


class SourceDamagedError(CopyDamagedError):
    """The copy that was read from is not what its inventory says; the target was not changed."""

    code = "source_copy_damaged"

    def __init__(self, store: Store, object_id: str, path: str) -> None:
        super().__init__(
            f"{path} of {object_id} in the store {store.info.name} is not what its inventory says.",
            object_id=object_id,
            store=store.info.name,
            path=path,
        )
        self.store_id = store.info.id
        self.object_id = object_id
        self.path = path


def object_tree(object_id: str) -> str:
    """The tree in staging in which the next form of an object grows."""
    return f"{TREES}/{object_uuid(object_id)}"


def read_source(source: Store, stored: StoredObject) -> StoredInventory:
    """The inventory of a source, which must be the one that the database knows; raises SourceDamagedError."""
    try:
        held = read_inventory(source, stored.object_id)
    except (DamagedError, FileNotFoundError) as error:
        raise SourceDamagedError(source, stored.object_id, ocfl.INVENTORY_NAME) from error
    if held.digest != stored.inventory_digest:
        raise SourceDamagedError(source, stored.object_id, ocfl.INVENTORY_NAME)
    return held


def has_sound_inventory(store: Store, object_id: str) -> bool:
    """Whether an object, if there is one, has an inventory that agrees with its sidecar."""
    try:
        find_inventory(store, object_id)
    except DamagedError:
        return False
    return True


def bring_object(source: Store, target: Store, object_id: str, held: StoredInventory) -> None:
    """Make the target's object what `held`, the inventory in the source, says. Safe to call again after a crash.

    Files that the target has already, by an older version of the same line, are shared and not written again. Raises
    SourceDamagedError when the source is not what its inventory says; the target is then as it was.
    """
    own = find_inventory(target, object_id)
    tree = object_tree(object_id)
    target.remove_tree(tree)  # of an interrupted attempt
    if own is not None and own.digest == held.digest:
        target.settle_object(object_id)
        return
    is_older = own is not None and is_earlier(source, object_id, own, held)
    shared = share_files(target, tree, object_id, own) if own is not None and is_older else set()
    digests = held.inventory.content_paths()
    wanted = ocfl.expected_files(held.inventory) - shared
    sizes = [(path, size) for path, size in _walk(source, object_id) if path in wanted and path in digests]
    _copy_content(source, target, tree, object_id, sizes, digests)
    missing = (wanted & digests.keys()) - {path for path, _ in sizes}
    if missing:
        raise SourceDamagedError(source, object_id, min(missing))
    crash_point("place.copied")
    documents = _gather_documents(source, object_id, held, wanted - digests.keys())
    put_documents(target, tree, documents)
    crash_point("place.documents_written")
    if {path for path, _ in target.walk_tree(tree)} != ocfl.expected_files(held.inventory):
        raise StagedContentError(f"The tree {tree} was changed while a copy of {object_id} grew in it.")
    if own is not None and not is_older:
        target.set_object_aside(object_id)  # another line of versions: nobody knows what was in it
    install(target, tree, object_id)
    crash_point("place.published")


def find_inventory(store: Store, object_id: str) -> StoredInventory | None:
    """The inventory of an object, or None when the store has no such object; raises DamagedError."""
    try:
        return read_inventory(store, object_id)
    except FileNotFoundError:
        if store.has_object(object_id):
            raise CopyDamagedError(f"{object_id} has no inventory, or no sidecar to it.") from None
        return None


def is_earlier(source: Store, object_id: str, own: StoredInventory, held: StoredInventory) -> bool:
    """Whether `own` is a version of the line that `held` is the newest of."""
    if own.inventory.head not in held.inventory.versions:
        return False
    try:
        return read_whole(source, object_id, f"{own.inventory.head}/{ocfl.INVENTORY_NAME}") == own.data
    except FileNotFoundError:
        return False


def share_files(store: Store, tree: str, object_id: str, own: StoredInventory) -> set[str]:
    """Let the tree share every file of the versions that the store has; returns their paths."""
    shared: set[str] = set()
    digests = own.inventory.content_paths()
    for path in sorted(ocfl.expected_files(own.inventory)):
        if "/" not in path:
            continue  # the files of the object's root are those of the newest version
        if not store.adopt_file(tree, path, object_id, path):
            _copy_file(store, store, tree, object_id, path, digests.get(path))
        shared.add(path)
    return shared


def put_documents(store: Store, tree: str, documents: Mapping[str, bytes]) -> None:
    for path, data in documents.items():
        if not store.put_file(tree, path, data):
            raise _taken(tree, path)


def install(store: Store, tree: str, object_id: str) -> None:
    """Make the tree the object, whether or not there is one already."""
    if store.has_object(object_id):
        store.exchange(tree, object_id)
    else:
        store.publish(tree, object_id)


def _walk(source: Store, object_id: str) -> list[tuple[str, int]]:
    try:
        return list(source.walk_object(object_id))
    except FileNotFoundError:
        raise SourceDamagedError(source, object_id, "") from None


def _copy_content(
    source: Store,
    target: Store,
    tree: str,
    object_id: str,
    sizes: Iterable[tuple[str, int]],
    digests: Mapping[str, str],
) -> None:
    def copy_batch(batch: list[tuple[str, int]]) -> None:
        for path, size in batch:
            copy = _copy_small if size <= SMALL else _copy_file
            copy(source, target, tree, object_id, path, digests[path])

    for _ in iter_in_threads(copy_batch, iter_batches(sizes), worker_count()):
        pass


def _copy_small(source: Store, target: Store, tree: str, object_id: str, path: str, digest: str) -> None:
    """`_copy_file` in one step: a file is written when it is known to be good."""
    try:
        data = read_whole(source, object_id, path)
    except FileNotFoundError:
        raise SourceDamagedError(source, object_id, path) from None
    if digest_bytes(data, [_algorithm_of(digest)]) != {_algorithm_of(digest): digest.lower()}:
        raise SourceDamagedError(source, object_id, path)
    put_documents(target, tree, {path: data})


def _algorithm_of(digest: str | None) -> str:
    return "sha512" if digest is None or len(digest) == 128 else "sha256"


def _copy_file(source: Store, target: Store, tree: str, object_id: str, path: str, digest: str | None) -> None:
    sink = target.create_file(tree, path)
    if sink is None:
        raise _taken(tree, path)
    digester = make_digester(_algorithm_of(digest))
    try:
        for block in source.read_object(object_id, path):
            digester.update(block)
            sink.write(block)
        sink.close()
    except FileNotFoundError:
        sink.abort()
        raise SourceDamagedError(source, object_id, path) from None
    except BaseException:
        sink.abort()
        raise
    if digest is not None and digester.hexdigest() != digest.lower():
        sink.abort()
        raise SourceDamagedError(source, object_id, path)


def _gather_documents(source: Store, object_id: str, held: StoredInventory, paths: Iterable[str]) -> dict[str, bytes]:
    """What is no content; inventory and sidecar in the root are those of `held`: the source may be a version ahead."""
    algorithm = held.inventory.digest_algorithm
    sidecar = ocfl.sidecar_bytes(held.data, algorithm)
    root = {ocfl.INVENTORY_NAME: held.data, ocfl.sidecar_name(algorithm): sidecar}
    return root | {path: _read_document(source, object_id, path) for path in sorted(set(paths) - root.keys())}


def _taken(tree: str, path: str) -> StagedContentError:
    return StagedContentError(f"{path} of the tree {tree} cannot be written: the name is taken.")


def _read_document(source: Store, object_id: str, path: str) -> bytes:
    try:
        return read_whole(source, object_id, path)
    except FileNotFoundError:
        raise SourceDamagedError(source, object_id, path) from None
