"""The archive's record as JSON, in the database, the journal and the head alike (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import date
from typing import Any
from uuid import UUID

from perdure.archives.model import Access, Archive, ArchiveState, Creator, Description, Profile
from perdure.kernel.clock import format_time, parse_time

JsonObject = dict[str, Any]  # JSON as PostgreSQL and the head give it back; each reader below checks what it takes

_PROFILE_FIELDS = frozenset(field.name for field in fields(Profile))
TEXT_FIELDS = ("title", "description", "publisher", "licence")


def profile_document(profile: Profile) -> JsonObject:
    """A profile as JSON; `parse_profile` reads it back."""
    return {name: _plain(value) for name, value in asdict(profile).items()}


def parse_profile(document: Mapping[str, Any]) -> Profile:
    """Read a profile that was kept by value; fields that are newer than it have their defaults."""
    values = {name: _frozen(value) for name, value in document.items() if name in _PROFILE_FIELDS}
    values["access_default"] = Access(values.get("access_default", Access.PRIVATE))
    return Profile(**values)


def description_document(description: Description) -> JsonObject:
    """A description as JSON; `parse_description` reads it back."""
    document = asdict(description)
    document["creators"] = [
        {name: value for name, value in asdict(creator).items() if value is not None}
        for creator in description.creators
    ]
    return {name: _plain(value) for name, value in document.items()}


def parse_description(document: Mapping[str, Any]) -> Description:
    """Read a description that was kept."""
    return Description(
        **{name: str(document.get(name, "")) for name in TEXT_FIELDS},
        creators=tuple(Creator(**creator) for creator in document.get("creators", ())),
        subjects=tuple(document.get("subjects", ())),
        tags=tuple(document.get("tags", ())),
    )


def record_document(archive: Archive) -> JsonObject:
    """All of the record that changes are tracked for, as JSON; content, statement, tombstone have their own files."""
    return {
        "organisation": str(archive.organisation_id),
        "account": str(archive.account_id),
        "parent": _text(archive.parent_id),
        "state": archive.state.value,
        "profile": profile_document(archive.profile),
        "description": description_document(archive.description),
        "access": archive.access.value,
        "embargo_until": _day(archive.embargo_until),
        "keep_until": _day(archive.keep_until),
        "opened_at": format_time(archive.opened_at),
        "opened_by": _text(archive.opened_by),
        "closed_at": format_time(archive.closed_at) if archive.closed_at else None,
        "identifier": archive.identifier,
    }


def parse_record(archive_id: UUID, document: Mapping[str, Any], revision: int) -> Archive:
    """The archive that a record tells of; what has files of its own is left out."""
    return Archive(
        id=archive_id,
        organisation_id=UUID(document["organisation"]),
        account_id=UUID(document["account"]),
        parent_id=_id(document["parent"]),
        state=ArchiveState(document["state"]),
        profile=parse_profile(document["profile"]),
        description=parse_description(document["description"]),
        access=Access(document["access"]),
        embargo_until=_date(document["embargo_until"]),
        keep_until=date.fromisoformat(document["keep_until"]),
        opened_at=parse_time(document["opened_at"]),
        opened_by=_id(document["opened_by"]),
        closed_at=parse_time(document["closed_at"]) if document["closed_at"] else None,
        revision=revision,
        head_version=0,
        identifier=document["identifier"],
    )


def apply_members(record: Mapping[str, Any], after: Mapping[str, Any]) -> JsonObject:
    """The record after a change, given what `changed_members` told of it."""
    changed = dict(record)
    for name, value in after.items():
        previous = changed.get(name)
        changed[name] = {**previous, **value} if isinstance(previous, dict) and isinstance(value, dict) else value
    return changed


def changed_members(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[JsonObject, JsonObject]:
    """The members that differ, as they were and as they are; objects are compared one level down."""
    old: JsonObject = {}
    new: JsonObject = {}
    for name, value in after.items():
        previous = before.get(name)
        if previous == value:
            continue
        if isinstance(previous, dict) and isinstance(value, dict):
            old[name], new[name] = changed_members(previous, value)
        else:
            old[name], new[name] = previous, value
    return old, new


def folded_text(description: Description) -> str:
    """What a search for text in the record looks at, without case (PostgreSQL's `lower` differs between systems)."""
    names = [creator.name for creator in description.creators]
    words = [description.title, description.description, *names, *description.subjects, *description.tags]
    return "\n".join(words).casefold()


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _frozen(value: object) -> Any:  # any JSON value, its lists as tuples
    return tuple(value) if isinstance(value, list) else value


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _id(value: Any) -> UUID | None:  # a member of a JSON object
    return None if value is None else UUID(value)


def _date(value: Any) -> date | None:  # as above
    return None if value is None else date.fromisoformat(value)


def _day(value: date | None) -> str | None:
    return value.isoformat() if value else None
