"""What an archive is, the states it goes through and the rules that need nothing but values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

from perdure.identity.model import AccessClass, Action, ArchiveThing


class ArchiveState(StrEnum):
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"
    WITHDRAWN = "withdrawn"
    DISCARDED = "discarded"


class Access(StrEnum):
    PRIVATE = "private"
    EMBARGOED = "embargoed"
    PUBLIC = "public"


class EntryKind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HIDDEN = "hidden"


class PartState(StrEnum):
    """`filling` takes files, `full` takes no more, `sealed` is a write-once object in the stores.

    From `sealing` on nothing leaves the part: what is replaced or removed is superseded.
    """

    FILLING = "filling"
    FULL = "full"
    SEALING = "sealing"
    SEALED = "sealed"


class UploadState(StrEnum):
    RESERVED = "reserved"
    RECEIVING = "receiving"
    FINISHED = "finished"
    ABANDONED = "abandoned"


_AFTER_FILLING = frozenset({Action.APPEND, Action.WITHDRAW})
_FILLING = frozenset({Action.FILL, Action.CLOSE})
_IMPOSSIBLE: Mapping[ArchiveState, frozenset[Action]] = {
    ArchiveState.OPEN: _AFTER_FILLING,
    ArchiveState.CLOSING: _AFTER_FILLING | {Action.FILL},
    ArchiveState.CLOSED: _FILLING,
    ArchiveState.WITHDRAWN: _FILLING | _AFTER_FILLING | {Action.DESCRIBE, Action.VERIFY},
    ArchiveState.DISCARDED: _FILLING | _AFTER_FILLING | {Action.DESCRIBE, Action.VERIFY},
}
MAX_PART_FILES = 25_000  # whoever closes waits for the last part: it is sealed when all files have come
MAX_PART_BYTES = 10 * 10**12


@dataclass(frozen=True, slots=True)
class Creator:
    """Who made the data, as DataCite and RO-Crate cite it; `orcid` and `affiliation_ror` are bare or https forms."""

    name: str
    orcid: str | None = None
    affiliation: str | None = None
    affiliation_ror: str | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """What a citable record says of an archive; whatever the profile wants is there at closing at the latest."""

    title: str = ""
    description: str = ""
    creators: tuple[Creator, ...] = ()
    publisher: str = ""
    licence: str = ""
    subjects: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """The contract an archive is opened with and keeps by value.

    Lifetimes are days, sizes bytes. `copies` counts the stores that each hold a verified copy; `stores` names the
    admissible ones and `locations` where they may stand (empty: any). `digests` starts with the content digest; crc32
    is always taken beside them. `required_at_close` names fields of Description that must not be empty.
    `withdraw_approvals` counts the persons a withdrawal takes. `children_block_withdrawal` says that a parent with
    children stays.
    """

    name: str
    label: str
    lifetime_default_days: int
    lifetime_max_days: int
    archive_max_bytes: int | None
    archive_max_files: int | None
    total_max_bytes: int | None
    copies: int
    stores: tuple[str, ...] = ()
    digests: tuple[str, ...] = ("sha512",)
    verify_interval_days: int = 365
    mandatory_roles: tuple[str, ...] = ("owner",)
    access_default: Access = Access.PRIVATE
    required_at_close: tuple[str, ...] = ("title", "creators", "publisher", "licence")
    withdraw_approvals: int = 1
    children_block_withdrawal: bool = True
    locations: tuple[str, ...] = ()

    def admits(self, store: str, location: str) -> bool:
        """Whether a copy may lie in the store of this name at this location."""
        return (not self.stores or store in self.stores) and (not self.locations or location in self.locations)


@dataclass(frozen=True, slots=True)
class Archive:
    """One archive as the database knows it. `revision` grows with every change of the record and is its ETag."""

    id: UUID
    organisation_id: UUID
    account_id: UUID
    parent_id: UUID | None
    state: ArchiveState
    profile: Profile
    description: Description
    access: Access
    embargo_until: date | None
    keep_until: date
    opened_at: datetime
    opened_by: UUID | None
    closed_at: datetime | None
    revision: int
    head_version: int
    file_count: int = 0
    byte_count: int = 0
    identifier: str | None = None
    statement: Mapping[str, object] | None = None
    tombstone: Mapping[str, object] | None = None

    def thing(self, path: bytes | None = None, *, may_replace: bool = False) -> ArchiveThing:
        """The archive, or what is at a path of it (`b""`: all content), as `identity.require` wants it."""
        return ArchiveThing(
            id=self.id,
            account_id=self.account_id,
            organisation_id=self.organisation_id,
            access=AccessClass(self.access.value),
            embargo_until=self.embargo_until,
            is_closed=self.state in (ArchiveState.CLOSED, ArchiveState.WITHDRAWN),
            path=path,
            may_replace=may_replace,
        )


class Entry(NamedTuple):
    """One path of one layer. `mtime_ns` is nanoseconds since 1970, `mode` the permission bits, sizes are bytes.

    `part` and `content` say where the bytes lie: part number and content path below the part's content folder.
    `archive_id` is the layer the entry is from; `metadata_digest` that of the path's metadata, where readers are told.
    """

    archive_id: UUID
    path: bytes
    kind: EntryKind
    size: int = 0
    mtime_ns: int | None = None
    mode: int | None = None
    digests: Mapping[str, str] = MappingProxyType({})
    target: bytes | None = None
    part: int | None = None
    content: str | None = None
    added_at: datetime | None = None
    metadata_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    id: UUID
    archive_id: UUID
    number: int
    state: PartState
    file_count: int
    byte_count: int
    inventory_digest: str | None = None
    manifest_digest: str | None = None


def possible_actions(actions: frozenset[Action], state: ArchiveState) -> frozenset[Action]:
    """Of what an actor may do with an archive, what its state leaves to do."""
    return actions - _IMPOSSIBLE[state]


def missing_for_close(description: Description, profile: Profile) -> list[str]:
    """The fields that the profile demands before an archive may close and that are empty."""
    return [name for name in profile.required_at_close if not getattr(description, name)]


def initial_keep_until(profile: Profile, opened: datetime) -> date:
    return (opened + timedelta(days=profile.lifetime_default_days)).date()


def latest_keep_until(profile: Profile, opened: datetime) -> date:
    return (opened + timedelta(days=profile.lifetime_max_days)).date()


def part_has_room(part: Part, files: int, size: int) -> bool:
    """Whether a part takes these too; an empty part takes a single file of any size."""
    if part.state is not PartState.FILLING:
        return False
    if part.file_count == 0:
        return True
    return part.file_count + files <= MAX_PART_FILES and part.byte_count + size <= MAX_PART_BYTES


def as_open_child(parent: Archive, *, child_id: UUID, opened: datetime, opened_by: UUID | None) -> Archive:
    """The archive that appends to `parent`: profile, description and access by value, nothing of its content."""
    return replace(
        parent,
        id=child_id,
        parent_id=parent.id,
        state=ArchiveState.OPEN,
        keep_until=initial_keep_until(parent.profile, opened),
        opened_at=opened,
        opened_by=opened_by,
        closed_at=None,
        revision=1,
        head_version=0,
        file_count=0,
        byte_count=0,
        identifier=None,
        statement=None,
        tombstone=None,
    )
