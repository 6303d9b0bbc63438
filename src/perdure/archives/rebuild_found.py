"""What a rebuild finds in the stores, and what it says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from perdure.archives.model import Entry, EntryKind
from perdure.formats.manifest import ManifestEntry
from perdure.storage.model import ObjectKind, object_uuid

LINKS_FOLDER = "links/"  # in it a file that has the archive's id for its name


@dataclass(slots=True)
class RebuildReport:
    """What was found, and what could not be used: nothing damaged is passed over without a word.

    `doubts` tell of files of which no store says whether they had been replaced; they are no damage.
    """

    objects: int = 0
    archives: int = 0
    parts: int = 0
    files: int = 0
    events: int = 0
    problems: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


@dataclass(slots=True)
class FoundObject:
    """One object as the stores hold it; `state` is that of the newest version."""

    object_id: str
    kind: ObjectKind
    version: int
    digest: str
    created: datetime
    state: Mapping[str, str]
    stores: dict[UUID, int]


def find_archive_id(one: FoundObject) -> UUID | None:
    """The archive whose head or links the object is."""
    if one.kind is ObjectKind.HEAD:
        return object_uuid(one.object_id)
    if one.kind is ObjectKind.LINKS:
        name = next(path for path in one.state if path.startswith(LINKS_FOLDER))
        return UUID(name.removeprefix(LINKS_FOLDER).removesuffix(".ndjson"))
    return None


def to_entry(archive_id: UUID, number: int, entry: ManifestEntry) -> Entry:
    return Entry(
        archive_id=archive_id,
        path=entry.path,
        kind=EntryKind(entry.kind),
        size=entry.size,
        mtime_ns=entry.mtime_ns,
        mode=entry.mode,
        digests=entry.digests,
        target=entry.target,
        part=number,
        content=entry.content,
    )
