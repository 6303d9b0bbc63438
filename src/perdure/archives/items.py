"""What a client offers for an archive, and the rules that tell what can be taken (pure)."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

from perdure.archives.model import Entry, EntryKind, UploadState
from perdure.kernel.digests import DIGEST_LENGTHS, find_digest_mismatch
from perdure.kernel.paths import find_ancestors, find_path_problem, iter_ancestors

MAX_TARGET_BYTES = 4096
MAX_BATCH_FILES = 1000
MAX_BATCH_BYTES = 64 << 20
MAX_READ_BYTES = 16 << 20  # of many files in one answer
MAX_PLAN_ITEMS = 20_000
_MAX_TIME_NS = (1 << 63) - 1
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


class Verdict(StrEnum):
    MISSING = "missing"
    DIFFERENT = "different"
    PRESENT = "present"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class PlanItem:
    """What a client has at a path. Digests decide; without a common one size and mtime do."""

    path: bytes
    size: int = 0
    mtime_ns: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    kind: EntryKind = EntryKind.FILE
    target: bytes | None = None


@dataclass(frozen=True, slots=True)
class PlanAnswer:
    """Whether the client should send its item; `reason` says why it would be refused."""

    path: bytes
    verdict: Verdict
    reason: str | None = None


class BatchItem(NamedTuple):
    """One entry offered: a file of `size` bytes, a directory, or a symbolic link to `target`.

    `digests` are what the client states; each is compared with what arrives. It is a tuple, as all that an ingest makes
    for each file: a frozen dataclass takes four times as long to make.
    """

    path: bytes
    kind: EntryKind = EntryKind.FILE
    size: int = 0
    mtime_ns: int | None = None
    mode: int | None = None
    target: bytes | None = None
    digests: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ItemResult:
    """What became of an item: `stored` with its digests, or refused with its reason."""

    path: bytes
    stored: bool
    reason: str | None = None
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UploadView:
    """A resumable upload; `offset` bytes of `size` are durable."""

    id: UUID
    archive_id: UUID
    path: bytes | None
    state: UploadState
    offset: int
    size: int
    expires_at: datetime
    mtime_ns: int | None = None
    mode: int | None = None


@dataclass(frozen=True, slots=True)
class RemoveReport:
    """How many entries were removed, how many inherited paths are hidden, and which paths had nothing."""

    removed: int
    hidden: int
    missing: tuple[bytes, ...] = ()


def find_item_problem(item: BatchItem | PlanItem) -> str | None:
    """Why this item can never be stored, in words, or None."""
    if isinstance(item, BatchItem) and _is_ordinary(item):
        return find_path_problem(item.path)
    problem = find_path_problem(item.path)
    if problem:
        return problem
    if item.kind is EntryKind.HIDDEN:
        return "hiding is not an item; ask for it by its own call"
    if item.size < 0 or (item.size and item.kind is not EntryKind.FILE):
        return "only a file has a size, and it is not negative"
    if item.mtime_ns is not None and not -_MAX_TIME_NS <= item.mtime_ns <= _MAX_TIME_NS:
        return "the time of change is out of range"
    if isinstance(item, BatchItem):
        return _find_batch_item_problem(item)
    return None


def _is_ordinary(item: BatchItem) -> bool:
    """Whether it is a file with nothing but its size, time and mode, and these as they may be: almost every item."""
    _, kind, size, mtime_ns, mode, target, digests = item
    if kind is not EntryKind.FILE or target is not None or digests or mtime_ns is None or mode is None:
        return False
    return size >= 0 and -_MAX_TIME_NS <= mtime_ns <= _MAX_TIME_NS and 0 <= mode <= 0o7777


def _find_batch_item_problem(item: BatchItem) -> str | None:
    if item.mode is not None and not 0 <= item.mode <= 0o7777:
        return "the mode is more than permission bits"
    if item.kind is EntryKind.SYMLINK:
        return find_target_problem(item.path, item.target)
    if item.target is not None:
        return "only a symbolic link has a target"
    return find_stated_digest_problem(item.digests) if item.digests else None


def find_target_problem(path: bytes, target: bytes | None) -> str | None:
    """Why a symbolic link at this path may not have this target, or None: it stays inside the tree."""
    if not target:
        return "a symbolic link needs a target"
    if len(target) > MAX_TARGET_BYTES or b"\0" in target:
        return "the target of the symbolic link is too long or contains a NUL"
    if target.startswith(b"/"):
        return "the target of the symbolic link is absolute"
    resolved = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if resolved == b".." or resolved.startswith(b"../"):
        return "the target of the symbolic link is outside the tree"
    return None


def find_stated_digest_problem(stated: Mapping[str, str]) -> str | None:
    """Why stated digests cannot be compared, or None."""
    for name, value in stated.items():
        if name not in DIGEST_LENGTHS:
            return f"the digest {name} is unknown here"
        if len(value) != DIGEST_LENGTHS[name] or not _HEX_DIGITS.issuperset(value):
            return f"the stated {name} is not hexadecimal of {DIGEST_LENGTHS[name]} digits"
    return None


def find_batch_conflicts(items: Sequence[BatchItem]) -> dict[int, str]:
    """The items, by index, that contradict an earlier item of the same batch, each with its reason."""
    paths = {item.path for item in items}
    if len(paths) == len(items) and paths.isdisjoint(find_ancestors(paths)):
        return {}
    taken: dict[bytes, EntryKind] = {}
    folders: set[bytes] = set()  # a path in here is never taken by a file, so what is above it need not be asked again
    refused: dict[int, str] = {}
    for index, item in enumerate(items):
        folder = item.path.rpartition(b"/")[0]
        ancestors = [] if not folder or folder in folders else iter_ancestors(item.path)
        if item.path in taken:
            refused[index] = "the path is given twice"
        elif any(taken.get(ancestor, EntryKind.DIRECTORY) is not EntryKind.DIRECTORY for ancestor in ancestors):
            refused[index] = "a folder above it is given as a file"
        elif item.kind is not EntryKind.DIRECTORY and item.path in folders:
            refused[index] = "it is given as a folder, too"
        else:
            taken[item.path] = item.kind
            folders.update(ancestors)
    return refused


def compare_item(item: PlanItem, entry: Entry | None) -> Verdict:
    """Whether the entry that the archive shows is the client's item."""
    if entry is None:
        return Verdict.MISSING
    if entry.kind is not item.kind or entry.size != item.size:
        return Verdict.DIFFERENT
    if item.kind is EntryKind.DIRECTORY:
        return Verdict.PRESENT
    if item.kind is EntryKind.SYMLINK:
        return Verdict.PRESENT if item.target == entry.target else Verdict.DIFFERENT
    common = item.digests.keys() & entry.digests.keys()
    if common:
        return Verdict.DIFFERENT if find_digest_mismatch(item.digests, entry.digests) else Verdict.PRESENT
    return Verdict.PRESENT if item.mtime_ns is not None and item.mtime_ns == entry.mtime_ns else Verdict.DIFFERENT


def digests_to_take(profile_digests: Iterable[str], stated: Mapping[str, str]) -> list[str]:
    """The digests of one pass over a file: the profile's, crc32 for downloads that resume, and what was stated."""
    return list(dict.fromkeys((*profile_digests, "crc32", *sorted(stated))))


def kept_digests(profile_digests: Iterable[str]) -> tuple[str, ...]:
    """The digests that an entry keeps."""
    return tuple(dict.fromkeys((*profile_digests, "crc32")))
