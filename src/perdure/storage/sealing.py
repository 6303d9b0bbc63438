"""Making a staged part an OCFL object: renames, manifest, inventory, sync, one rename into the root.

Every step may be interrupted; the same call then goes on where it stopped.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from perdure.formats import ocfl
from perdure.formats.content_paths import plan_content_paths
from perdure.formats.manifest import (
    MANIFEST_NAME,
    ManifestEntry,
    checksum_list_name,
    iter_manifest,
    iter_sha512sum_lines,
    write_manifest,
)
from perdure.kernel.digests import digest_bytes, make_digester
from perdure.kernel.paths import display_path
from perdure.storage.crash_points import crash_point
from perdure.storage.errors import CopyDamagedError, StagedContentError
from perdure.storage.model import DATA_FOLDER, DATA_PREFIX, META_FOLDER, META_PREFIX, PART_VERSION, PartRef, SealedPart
from perdure.storage.ports import Store
from perdure.storage.staging import tree_of
from perdure.storage.verifying import StoredInventory, read_inventory, read_whole

_NAMED_MISSING = 20


@dataclass(frozen=True, slots=True)
class SealRequest:
    """What the inventory of a part says beside its files."""

    created: datetime
    message: str
    user: ocfl.User
    algorithm: str = "sha512"


def seal_part(
    store: Store, part: PartRef, entries: Iterable[ManifestEntry], request: SealRequest
) -> tuple[SealedPart, dict[bytes, str]]:
    """Seal a staged part; returns it with the final content path of each file.

    `entries` are sorted by path, and the `content` of each file is where it lies in staging. Files that no entry names
    go to quarantine. The part's log stays: it tells whose the object is until a head names it. Raises
    StagedContentError, and then removes nothing, when a file is not there in its size.
    """
    if store.has_object(part.object_id):
        return _finish_sealed(store, part)
    listed = list(entries)
    files = [entry for entry in listed if entry.kind == "file"]
    final = plan_content_paths(entry.path for entry in files)
    _arrange(store, tree_of(part), files, final, request.algorithm)
    crash_point("seal.arranged")
    placed = [_place(entry, final.get(entry.path)) for entry in listed]
    sealed = _write_documents(store, part, placed, request)
    crash_point("seal.documents_written")
    store.publish(tree_of(part), part.object_id)
    crash_point("seal.published")
    return sealed, final


def _arrange(store: Store, tree: str, files: list[ManifestEntry], final: Mapping[bytes, str], algorithm: str) -> None:
    """Bring every file to its final name and everything else out of the part."""
    staged = dict(store.walk_tree(tree))
    present = _find_in_place(files, staged) or {
        entry.path: _locate(store, tree, entry, final[entry.path], staged, algorithm) for entry in files
    }
    _require_all(files, present)
    kept = {DATA_PREFIX + content for content in present.values() if content is not None}
    documents = _document_paths(algorithm)  # what lies there is from an interrupted sealing, and is written anew
    for path in staged.keys() - kept:
        if path not in documents or staged[path] < 0:
            store.set_aside(tree, path)
    crash_point("seal.strays_aside")
    store.prune_tree(tree)
    moves = []
    if present != final:
        moves = [(content, final[path]) for path, content in present.items() if content and content != final[path]]
    for content, name in moves:
        store.move_file(tree, DATA_PREFIX + content, DATA_PREFIX + name)
        crash_point("seal.moved")
    if moves:
        store.prune_tree(tree)


def _place(entry: ManifestEntry, content: str | None) -> ManifestEntry:
    """The entry as its manifest has it: most files were staged where they stay."""
    return entry if content is None or content == entry.content else replace(entry, content=content)


def _find_in_place(files: list[ManifestEntry], staged: Mapping[str, int]) -> dict[bytes, str | None] | None:
    """Where each file lies when all lie where they were staged, which is the rule; None otherwise."""
    wanted = {DATA_PREFIX + entry.content: entry.size for entry in files if entry.content is not None}
    if len(wanted) < len(files) or not wanted.items() <= staged.items():
        return None
    return {entry.path: entry.content for entry in files}


def _locate(
    store: Store, tree: str, entry: ManifestEntry, final: str, staged: Mapping[str, int], algorithm: str
) -> str | None:
    """Where the entry's file lies: where it was staged, or already at its final name after an interrupted sealing."""
    if entry.content is not None and staged.get(DATA_PREFIX + entry.content) == entry.size:
        return entry.content
    if entry.content == final or staged.get(DATA_PREFIX + final) != entry.size:
        return None
    # The name alone proves nothing here: a stray of the same size may lie there.
    digester = make_digester(algorithm)
    for block in store.read_file(tree, DATA_PREFIX + final):
        digester.update(block)
    return final if digester.hexdigest() == entry.digests.get(algorithm) else None


def _require_all(files: list[ManifestEntry], present: Mapping[bytes, str | None]) -> None:
    missing = [display_path(entry.path) for entry in files if present[entry.path] is None]
    if missing:
        raise StagedContentError(
            f"{len(missing)} staged files are not there, or not in their size, first {missing[0]!r}.",
            paths=missing[:_NAMED_MISSING],
            count=len(missing),
        )


def _document_paths(algorithm: str) -> set[str]:
    meta = {META_PREFIX + MANIFEST_NAME, META_PREFIX + checksum_list_name(algorithm)}
    return meta | inventory_files(b"", algorithm, PART_VERSION).keys()


def _write_documents(store: Store, part: PartRef, placed: list[ManifestEntry], request: SealRequest) -> SealedPart:
    algorithm = request.algorithm
    manifest = io.BytesIO()
    write_manifest(placed, manifest)
    listing = b"".join(iter_sha512sum_lines(placed, algorithm))
    meta = {MANIFEST_NAME: manifest.getvalue(), checksum_list_name(algorithm): listing}
    meta_digests = {name: digest_bytes(data, (algorithm,))[algorithm] for name, data in meta.items()}
    content = [(f"{DATA_FOLDER}/{e.content}", e.digests[algorithm]) for e in placed if e.content is not None]
    content += [(f"{META_FOLDER}/{name}", digest) for name, digest in meta_digests.items()]
    inventory = ocfl.part_inventory(
        part.object_id,
        content,
        created=request.created,
        message=request.message,
        user=request.user,
        algorithm=algorithm,
    )
    documents = {META_PREFIX + name: data for name, data in meta.items()}
    digest = digest_bytes(inventory, (algorithm,))[algorithm]
    documents |= inventory_files(inventory, algorithm, PART_VERSION, digest=digest)
    write_documents(store, tree_of(part), documents)
    return _describe(part, placed, digest, meta_digests[MANIFEST_NAME])


def inventory_files(inventory: bytes, algorithm: str, version: str, *, digest: str | None = None) -> dict[str, bytes]:
    """The inventory and its sidecar for the version's folder and the object's root, and the declaration.

    `digest` is that of the inventory where it is known already.
    """
    sidecar = ocfl.sidecar_line(digest) if digest else ocfl.sidecar_bytes(inventory, algorithm)
    name = ocfl.sidecar_name(algorithm)
    return {
        f"{version}/{ocfl.INVENTORY_NAME}": inventory,
        f"{version}/{name}": sidecar,
        ocfl.INVENTORY_NAME: inventory,
        name: sidecar,
        ocfl.OBJECT_DECLARATION_NAME: ocfl.OBJECT_DECLARATION,
    }


def write_documents(store: Store, tree: str, documents: Mapping[str, bytes]) -> None:
    """Write small files of a tree in order, in place of what an interrupted attempt left there."""
    store.remove_files(tree, documents)
    for path, data in documents.items():
        if not store.put_file(tree, path, data):
            raise StagedContentError(f"{path} of the tree {tree} cannot be written: the name is taken.")


def _finish_sealed(store: Store, part: PartRef) -> tuple[SealedPart, dict[bytes, str]]:
    """The part was renamed before: tell what stands there."""
    try:
        held = read_inventory(store, part.object_id)
        data = read_whole(store, part.object_id, META_PREFIX + MANIFEST_NAME)
    except FileNotFoundError:
        raise CopyDamagedError(f"{part.object_id} was sealed in {store.name}, and lacks what tells of it.") from None
    manifest_digest = digest_bytes(data, (held.inventory.digest_algorithm,))[held.inventory.digest_algorithm]
    _require_manifest(held, manifest_digest, part)
    entries = list(iter_manifest(io.BytesIO(data)))
    store.settle_object(part.object_id)
    final = {entry.path: entry.content for entry in entries if entry.content is not None}
    return _describe(part, entries, held.digest, manifest_digest), final


def _require_manifest(held: StoredInventory, digest: str, part: PartRef) -> None:
    if held.inventory.content_paths().get(META_PREFIX + MANIFEST_NAME) != digest:
        raise StagedContentError(f"The manifest of {part.object_id} is not the one that its inventory states.")


def _describe(
    part: PartRef, entries: Iterable[ManifestEntry], inventory_digest: str, manifest_digest: str
) -> SealedPart:
    sizes = [entry.size for entry in entries if entry.kind == "file"]
    return SealedPart(part.part_id, len(sizes), sum(sizes), inventory_digest, manifest_digest)
