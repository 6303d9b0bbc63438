"""Reading an object in one store, and comparing what the medium gives with what the inventory says."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import NamedTuple

from perdure.formats import ocfl
from perdure.formats.errors import DamagedFormatError
from perdure.formats.manifest import MANIFEST_NAME, iter_manifest
from perdure.kernel.clock import Clock, format_time
from perdure.kernel.digests import content_digest_name, digest_bytes, make_digester
from perdure.kernel.errors import DamagedError
from perdure.storage.errors import StoreFailedError, VerificationStoppedError
from perdure.storage.helpers import Helpers
from perdure.storage.model import (
    DATA_PREFIX,
    KEPT_FINDINGS,
    META_PREFIX,
    Finding,
    FindingKind,
    VerifyReport,
    classify_mismatch,
)
from perdure.storage.parallel import iter_batches, iter_in_threads, worker_count
from perdure.storage.ports import Store
from perdure.storage.source_files import SMALL

Progress = Callable[[int, int], None]
ShouldStop = Callable[[], bool]

_MOST_HELPERS = 16
_FILES_FOR_A_HELPER = 500  # reading fewer takes less than starting one


@dataclass(frozen=True, slots=True)
class StoredInventory:
    """An inventory that agrees with its sidecar, its bytes and its digest."""

    inventory: ocfl.Inventory
    data: bytes
    digest: str


@dataclass(slots=True)
class _Checked:
    files: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)


def read_whole(store: Store, object_id: str, path: str) -> bytes:
    """A small file of an object; raises FileNotFoundError."""
    return b"".join(store.read_object(object_id, path))


def read_inventory(store: Store, object_id: str) -> StoredInventory:
    """The inventory in the root of an object, checked against its sidecar.

    Raises DamagedError where it does not agree, FileNotFoundError where the object or one of the two is not there.
    """
    return _check_inventory(object_id, lambda path: read_whole(store, object_id, path))


def verify_object(
    store: Store,
    object_id: str,
    clock: Clock,
    *,
    known_digest: str | None = None,
    only: Callable[[str], bool] | None = None,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> VerifyReport:
    """Read an object from its medium and compare it with its inventory, structure and every byte.

    `known_digest` is the digest that the inventory itself must have; `only` restricts the reading of content to some
    paths of the object (the structure is compared whole). Nothing is changed. Raises VerificationStoppedError when
    asked to stop, StoreUnavailableError when the store cannot be reached.
    """
    started = clock.now()
    checked = _Checked()
    present = _walk(store, object_id, checked)
    held = _verify_inventory(store, object_id, known_digest, checked) if present else None
    if held is not None:
        checked.findings += _find_structure_problems(object_id, held.inventory, present)
        checked.findings += _verify_version_files(store, object_id, held, present)
        _verify_content(store, object_id, held.inventory, present, only, checked, progress, should_stop)
    return _report(store, object_id, checked, started, clock.now(), held, "whole" if only is None else "version")


def _walk(store: Store, object_id: str, checked: _Checked) -> dict[str, int]:
    try:
        return dict(store.walk_object(object_id))
    except FileNotFoundError:
        checked.findings.append(Finding(FindingKind.MISSING, object_id, "", "the whole object is not there"))
        return {}


def _verify_inventory(
    store: Store, object_id: str, known_digest: str | None, checked: _Checked
) -> StoredInventory | None:
    try:
        held = _check_inventory(
            object_id, lambda path: b"".join(map(bytes, store.read_medium(object_id, path))), known_digest
        )
    except FileNotFoundError as error:
        detail = f"{error.filename or 'the inventory or its sidecar'} is not there"
    except DamagedError as error:
        detail = error.detail
    except StoreFailedError as error:
        detail = f"cannot be read: {error.detail}"
    else:
        if known_digest is None or held.digest == known_digest:
            return held
        detail = f"the inventory has the digest {held.digest}, known is {known_digest}"
    checked.findings.append(Finding(FindingKind.DAMAGED_INVENTORY, object_id, ocfl.INVENTORY_NAME, detail))
    return None


def _check_inventory(object_id: str, read: Callable[[str], bytes], known_digest: str | None = None) -> StoredInventory:
    data = read(ocfl.INVENTORY_NAME)
    known = _find_known(data, known_digest)
    inventory = known or ocfl.parse_inventory(data)
    sidecar = read(ocfl.sidecar_name(inventory.digest_algorithm))
    if known and known_digest and sidecar == ocfl.sidecar_line(known_digest):
        digest = known_digest  # without a digest of the same bytes once more
    else:
        digest = ocfl.check_sidecar(data, sidecar, inventory.digest_algorithm)
    if inventory.id != object_id:
        raise DamagedFormatError(f"the inventory is that of {inventory.id}")
    return StoredInventory(inventory, data, digest)


def _find_known(data: bytes, digest: str | None) -> ocfl.Inventory | None:
    """The inventory that has the digest which the database knows; None where it knows none, or another."""
    if digest is None:
        return None
    algorithm = content_digest_name(digest)
    is_known = digest_bytes(data, (algorithm,))[algorithm] == digest
    return ocfl.read_known_inventory(data, algorithm) if is_known else None


def _find_structure_problems(
    object_id: str, inventory: ocfl.Inventory, present: Mapping[str, int]
) -> Iterator[Finding]:
    for problem in ocfl.iter_object_problems(inventory, present):
        kind = FindingKind.EXTRA if problem.path in present else FindingKind.MISSING
        yield Finding(kind, object_id, problem.path, f"{problem.detail} (OCFL {problem.rule})")
    strange = {path for path, size in present.items() if size < 0}
    for path in sorted(strange & ocfl.expected_files(inventory)) if strange else ():
        yield Finding(FindingKind.FLIPPED, object_id, path, "is no regular file")


def _verify_version_files(
    store: Store, object_id: str, held: StoredInventory, present: Mapping[str, int]
) -> Iterator[Finding]:
    """The declaration, and the inventory of each version: the newest is the root's, each fits its sidecar."""
    algorithm = held.inventory.digest_algorithm
    beside = _try_read(store, object_id, ocfl.sidecar_name(algorithm)) or b""
    detail = _find_sidecar_problem(held.digest, beside)
    if detail:
        yield Finding(FindingKind.DAMAGED_INVENTORY, object_id, ocfl.sidecar_name(algorithm), detail)
    if ocfl.OBJECT_DECLARATION_NAME in present:
        found = _try_read(store, object_id, ocfl.OBJECT_DECLARATION_NAME)
        if found != ocfl.OBJECT_DECLARATION:
            yield Finding(FindingKind.FLIPPED, object_id, ocfl.OBJECT_DECLARATION_NAME, "not the declaration of OCFL")
    for version in held.inventory.versions:
        names = [f"{version}/{ocfl.INVENTORY_NAME}", f"{version}/{ocfl.sidecar_name(algorithm)}"]
        if not all(name in present for name in names):
            continue  # reported as missing by the structure
        data, sidecar = (_try_read(store, object_id, name) for name in names)
        detail = _find_inventory_problem(held, version, data, sidecar)
        if detail:
            yield Finding(FindingKind.DAMAGED_INVENTORY, object_id, names[0], detail)


def _find_inventory_problem(
    held: StoredInventory, version: str, data: bytes | None, sidecar: bytes | None
) -> str | None:
    if data is None or sidecar is None:
        return "cannot be read"
    if version == held.inventory.head and data != held.data:
        return "differs from the inventory in the root"
    if data == held.data and not _find_sidecar_problem(held.digest, sidecar):
        return None  # without a digest of the same bytes once more
    try:
        digest = ocfl.check_sidecar(data, sidecar, held.inventory.digest_algorithm)
    except DamagedError as error:
        return error.detail
    return _find_sidecar_problem(digest, sidecar)


def _find_sidecar_problem(digest: str, sidecar: bytes) -> str | None:
    """Ours are written in one way only: also a sidecar that still says the right thing was changed if it differs."""
    return None if sidecar == ocfl.sidecar_line(digest) else "its sidecar was changed"


def _try_read(store: Store, object_id: str, path: str) -> bytes | None:
    try:
        return b"".join(map(bytes, store.read_medium(object_id, path)))
    except (StoreFailedError, FileNotFoundError):
        return None


def _verify_content(
    store: Store,
    object_id: str,
    inventory: ocfl.Inventory,
    present: Mapping[str, int],
    only: Callable[[str], bool] | None,
    checked: _Checked,
    progress: Progress | None,
    should_stop: ShouldStop | None,
) -> None:
    expected = inventory.content_paths()
    # by name, which is mostly how they lie on the medium; the inventory has them by digest
    wanted = expected if only is None else filter(only, expected)
    to_read = sorted((path, size) for path in wanted if (size := present.get(path, -1)) >= 0)
    wrong: list[tuple[str, str, int]] = []
    # a direct read waits for many files at once, any other for each
    useful = (os.cpu_count() or 1) * (1 if store.abilities.medium_read == "direct" else 2)
    helpers = Helpers(store, min(_MOST_HELPERS, useful, len(to_read) // _FILES_FOR_A_HELPER))

    def check_batch(batch: list[tuple[str, int]]) -> _Read:
        return _check_files(store, helpers, object_id, batch, expected, inventory.digest_algorithm, should_stop)

    with closing(helpers):
        for read in iter_in_threads(check_batch, iter_batches(to_read), max(worker_count(), helpers.count)):
            checked.files += read.files
            checked.bytes += read.bytes
            wrong += read.wrong
            if progress:
                progress(checked.files, checked.bytes)
    checked.findings += _name_damage(store, object_id, inventory, wrong)


class _Read(NamedTuple):
    """Files that were read, their bytes, and of those that are not as expected path, digest and size."""

    files: int
    bytes: int
    wrong: list[tuple[str, str, int]]


def _check_files(
    store: Store,
    helpers: Helpers,
    object_id: str,
    batch: Sequence[tuple[str, int]],
    expected: Mapping[str, str],
    algorithm: str,
    should_stop: ShouldStop | None,
) -> _Read:
    """Read files and compare their digests; what a helper could not read is read here, which tells why."""
    paths = [path for path, _ in batch]
    wanted = list(map(expected.__getitem__, paths))
    found: Sequence[tuple[str, int] | None] = [None] * len(batch)
    if all(size <= SMALL for _, size in batch):
        _raise_if_stopping(object_id, should_stop)
        found = helpers.ask(len(batch), lambda helper: helper.digest(object_id, paths, algorithm))
    read = [
        one or _digest_file(store, object_id, path, algorithm, should_stop)
        for path, one in zip(paths, found, strict=True)
    ]
    size = sum(map(itemgetter(1), read))
    if list(map(itemgetter(0), read)) == wanted:
        return _Read(len(batch), size, [])
    compared = zip(paths, wanted, read, strict=True)
    return _Read(len(batch), size, [(path, *one) for path, digest, one in compared if one[0] != digest.lower()])


def _digest_file(
    store: Store, object_id: str, path: str, algorithm: str, should_stop: ShouldStop | None
) -> tuple[str, int]:
    """Digest and size; the digest is empty for a file that cannot be read and its size then 0."""
    digester, size = make_digester(algorithm), 0
    try:
        for block in store.read_medium(object_id, path):
            _raise_if_stopping(object_id, should_stop)
            digester.update(block)
            size += len(block)
    except (StoreFailedError, FileNotFoundError):
        return "", 0
    return digester.hexdigest(), size


def _raise_if_stopping(object_id: str, should_stop: ShouldStop | None) -> None:
    if should_stop is not None and should_stop():
        raise VerificationStoppedError(f"The verification of {object_id} was stopped.")


def _name_damage(
    store: Store, object_id: str, inventory: ocfl.Inventory, wrong: Iterable[tuple[str, str, int]]
) -> Iterator[Finding]:
    wrong = list(wrong)
    if not wrong:
        return
    sizes = _manifest_sizes(store, object_id, {path for path, _, _ in wrong})
    known = {digest.lower(): paths[0] for digest, paths in inventory.manifest.items()}
    for path, digest, size in wrong:
        if not digest:
            yield Finding(FindingKind.UNREADABLE, object_id, path, "the medium does not give its bytes")
            continue
        kind, detail = classify_mismatch(digest, size, sizes.get(path), known)
        yield Finding(kind, object_id, path, detail)


def _manifest_sizes(store: Store, object_id: str, wrong: set[str]) -> dict[str, int]:
    """The sizes that the part's manifest states: for naming the damage only, so an unreadable manifest is no error."""
    path = META_PREFIX + MANIFEST_NAME
    if path in wrong:
        return {}
    try:
        entries = iter_manifest(io.BytesIO(read_whole(store, object_id, path)))
        return {DATA_PREFIX + entry.content: entry.size for entry in entries if entry.content is not None}
    except (FileNotFoundError, DamagedFormatError, StoreFailedError):
        return {}


def _report(
    store: Store,
    object_id: str,
    checked: _Checked,
    started: datetime,
    ended: datetime,
    held: StoredInventory | None,
    scope: str,
) -> VerifyReport:
    findings = checked.findings
    evidence: dict[str, object] = {
        "read": store.abilities.medium_read,
        "filesystem": store.abilities.filesystem,
        "scope": scope,
        "started_at": format_time(started),
        "ended_at": format_time(ended),
        "files": checked.files,
        "bytes": checked.bytes,
        "algorithm": held.inventory.digest_algorithm if held else None,
        "inventory_digest": held.digest if held else None,
        "finding_count": len(findings),
        "findings": [
            {"kind": item.kind.value, "content": item.content, "detail": item.detail}
            for item in findings[:KEPT_FINDINGS]
        ],
    }
    return VerifyReport(object_id, store.info.id, checked.files, checked.bytes, tuple(findings), evidence)
