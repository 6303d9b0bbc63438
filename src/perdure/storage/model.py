"""Stores, objects, copies and what a verification finds: values and rules only.

Two kinds of path meet here. The *content* of a staged or stored user file is its content path below the folder
`v1/content/data` of its part, as manifests hold it. A *file of an object* is its path below the object's root, such as
`v1/content/data/a.h5` or `inventory.json`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

DATA_FOLDER = "data"
META_FOLDER = "meta"
CONTENT_FOLDER = "content"
PART_VERSION = "v1"
DATA_PREFIX = f"{PART_VERSION}/{CONTENT_FOLDER}/{DATA_FOLDER}/"
META_PREFIX = f"{PART_VERSION}/{CONTENT_FOLDER}/{META_FOLDER}/"
KEPT_FINDINGS = 1000  # evidence of a wholly lost part stays readable

_RESERVE_LIMIT = 2 << 30
_RESERVE_SHARE = 20


class ObjectKind(StrEnum):
    HEAD = "head"
    PART = "part"
    LOG = "log"
    REGISTRY = "registry"
    LINKS = "links"  # of one archive


class CopyState(StrEnum):
    """Only `verified` counts towards a profile; `suspect` and `lost` are never read or copied from."""

    WRITING = "writing"
    WRITTEN = "written"
    VERIFIED = "verified"
    SUSPECT = "suspect"
    LOST = "lost"


class FindingKind(StrEnum):
    FLIPPED = "flipped"
    MISSING = "missing"
    EXTRA = "extra"
    TRUNCATED = "truncated"
    SWAPPED = "swapped"
    UNREADABLE = "unreadable"
    DAMAGED_INVENTORY = "damaged_inventory"


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """A configured place for bytes. `kind` is posix, memory, s3…; `medium` disk, object or tape."""

    id: UUID
    name: str
    kind: str
    medium: str
    location: str


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes on the medium of a store, as ordinary users may take them."""

    free: int
    total: int


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a store's medium was found able to do.

    `medium_read` says how a verification reads: `direct` past the page cache, `dropped` after asking the system to
    forget its pages, `plain` where neither is possible. `batch_sync` is one sync for many files.
    """

    filesystem: str
    medium_read: str
    batch_sync: bool
    exchange: bool
    hard_links: bool


@dataclass(frozen=True, slots=True)
class PartRef:
    """A part of an archive, staged or sealed."""

    archive_id: UUID
    part_id: UUID

    @property
    def object_id(self) -> str:
        return object_uri(self.part_id)


class Received(NamedTuple):
    """Bytes that were taken in: where they lie in their part, how many they are, and their digests in hexadecimal.

    `mtime_ns` and `mode` are those of a file that was copied in, at the moment of reading.
    """

    content: str
    size: int
    digests: Mapping[str, str]
    mtime_ns: int | None = None
    mode: int | None = None


@dataclass(frozen=True, slots=True)
class SealedPart:
    """A part as it stands in the root of a store."""

    part_id: UUID
    file_count: int
    byte_count: int
    inventory_digest: str
    manifest_digest: str


@dataclass(frozen=True, slots=True)
class HeadVersion:
    """The newest version of a head object, and the digest of its inventory.

    `behind` names the stores that could not be written; `reconcile_head` brings them up when they can.
    """

    version: int
    inventory_digest: str
    behind: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which a copy is not what its inventory says; `content` is the path of the file in the object."""

    kind: FindingKind
    object_id: str
    content: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a verification of one copy read and found; `evidence` says how and when it was read, ready for JSON."""

    object_id: str
    store_id: UUID
    files: int
    bytes: int
    findings: tuple[Finding, ...]
    evidence: Mapping[str, object]

    @property
    def is_good(self) -> bool:
        return not self.findings


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as the database knows it."""

    object_id: str
    kind: ObjectKind
    archive_id: UUID | None
    version: int
    inventory_digest: str
    byte_count: int


@dataclass(frozen=True, slots=True)
class Copy:
    """One object in one store; a head's copy may be behind the object's version."""

    object_id: str
    store_id: UUID
    version: int
    state: CopyState
    written_at: datetime | None = None
    verified_at: datetime | None = None
    evidence: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JournalRead:
    """The whole lines of a journal, without newlines, and the bytes after them that no append ever acknowledged.

    `damaged` says of each store whose journal is damaged what is wrong with it: the lines come from another one.
    """

    lines: list[bytes]
    torn: bytes = b""
    damaged: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Removal:
    """What left one store, and when."""

    store_id: UUID
    object_id: str
    files: int
    bytes: int
    at: datetime


@dataclass(frozen=True, slots=True)
class StagedPart:
    """A part in staging, as a rebuild meets it."""

    part: PartRef
    has_log: bool


def object_uri(identifier: UUID) -> str:
    """The OCFL object id of a head or a part."""
    return identifier.urn


def object_uuid(object_id: str) -> UUID:
    """The UUID in an object id; raises ValueError for any other form."""
    if not object_id.startswith("urn:uuid:"):
        raise ValueError(f"{object_id!r} is not the id of an object of ours")
    return UUID(object_id)


def reserve_of(total: int) -> int:
    """Bytes that stay free for the database: 2 GiB, or a twentieth of a small medium."""
    return min(_RESERVE_LIMIT, total // _RESERVE_SHARE)


def has_room(room: Room, wanted: int, reserve: int | None = None) -> bool:
    """Whether so many bytes more leave the reserve untouched."""
    return room.free - wanted >= (reserve_of(room.total) if reserve is None else reserve)


def rank_sources(copies: Iterable[Copy], version: int) -> list[Copy]:
    """The copies that may be read from, best first: verified before written, none that is behind or doubted."""
    order = {CopyState.VERIFIED: 0, CopyState.WRITTEN: 1}
    usable = [copy for copy in copies if copy.state in order and copy.version == version]
    return sorted(usable, key=lambda copy: order[copy.state])


def classify_mismatch(
    digest: str, found_size: int, expected_size: int | None, digests: Mapping[str, str]
) -> tuple[FindingKind, str]:
    """What kind of damage a wrong digest is; `digests` maps the digests of the inventory to one of their paths."""
    if digest in digests:
        return FindingKind.SWAPPED, f"holds the bytes of {digests[digest]}"
    if expected_size is not None and found_size != expected_size:
        kind = FindingKind.TRUNCATED if found_size < expected_size else FindingKind.FLIPPED
        return kind, f"{found_size} bytes in place of {expected_size}"
    return FindingKind.FLIPPED, f"{found_size} bytes with the digest {digest}"
