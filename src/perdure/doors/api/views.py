"""How things look in answers. Times are RFC 3339 in UTC, sizes bytes, ids UUIDs."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

import orjson
from fastapi import Response
from pydantic import BaseModel, Field

from perdure.kernel.paths import display_path, is_text_path

Json = Any  # JSON of a form that a profile, a patch or a job decides; documented as "any value"
Item = TypeVar("Item", bound=BaseModel)


class Page(BaseModel, Generic[Item]):
    """A page of a list; `next_cursor` is null on the last one."""

    items: list[Item]
    next_cursor: str | None = None


class CredentialView(BaseModel):
    """What somebody is known by outside, whether he has been here or not."""

    kind: str
    subject: str


class PassOnView(BaseModel):
    """To whom roles may be given by a role; `id` is that of the organisation or group."""

    to: Literal["nobody", "organisation", "group"]
    id: UUID | None


class GrantView(BaseModel):
    """A role that somebody has, until `expires_at` if that is set, by logins that prove what it `requires`.

    A null `pass_on` is no limit but that of the role.
    """

    id: UUID
    identity_id: UUID | None
    group_id: UUID | None
    credential: CredentialView | None
    name: str | None = Field(description="Of whom has it, where the caller may know it.")
    role: str
    granted_by: UUID | None
    granted_at: datetime
    expires_at: datetime | None
    requires: list[str]
    pass_on: PassOnView | None


class NamedView(BaseModel):
    identity_id: UUID
    name: str


class AccessView(BaseModel):
    """One way into an archive: whom it lets in (nobody named: everybody, or all administrators), as what and why."""

    through: Literal["archive", "account", "organisation", "access_class", "administrator", "invitation"] = Field(
        description="A grant on the archive or what it belongs to, its access class, the powers of administrators, or "
        "an invitation that was not accepted yet and lets nobody in until it is; `name` is its address then."
    )
    identity_id: UUID | None
    group_id: UUID | None
    credential: CredentialView | None
    name: str | None
    role: str | None
    actions: list[str]
    grant_id: UUID | None
    expires_at: datetime | None
    requires: list[str]
    member_count: int = Field(description="Of a group and of administrators: how many people it lets in.")
    members: list[NamedView] = Field(description="The first of them by name, where the caller may know them.")
    invitation_id: UUID | None = None


class CreatorView(BaseModel):
    name: str
    orcid: str | None = None
    affiliation: str | None = None
    affiliation_ror: str | None = None


class ProfileView(BaseModel):
    """The contract that an archive is opened with and keeps. Lifetimes are days, sizes bytes, null is no limit."""

    name: str
    label: str
    lifetime_default_days: int
    lifetime_max_days: int
    archive_max_bytes: int | None
    archive_max_files: int | None
    total_max_bytes: int | None
    copies: int
    stores: list[str]
    locations: list[str] = Field(description="Where the stores of the content may stand; empty: anywhere.")
    digests: list[str]
    verify_interval_days: int
    mandatory_roles: list[str]
    access_default: str
    required_at_close: list[str]
    withdraw_approvals: int
    children_block_withdrawal: bool


class ArchiveRecord(BaseModel):
    """An archive as the caller may see it; `actions` are what he may do with it."""

    id: UUID
    short_id: str
    url: str = Field(description="The landing page.")
    state: str
    title: str
    description: str
    creators: list[CreatorView]
    publisher: str
    licence: str
    subjects: list[str]
    tags: list[str]
    profile: str
    contract: ProfileView = Field(description="The profile as it was when the archive was opened.")
    access: str
    embargo_until: date | None
    keep_until: date
    organisation_id: UUID
    account_id: UUID
    parent_id: UUID | None
    opened_at: datetime
    opened_by: UUID | None
    closed_at: datetime | None
    revision: int
    head_version: int
    file_count: int = Field(description="Files of this layer, without those of the archives it appends to.")
    byte_count: int
    identifier: str | None
    identifier_is_test: bool | None = Field(
        default=None, description="Whether nobody outside this installation can resolve it; null in lists."
    )
    tombstone: Json | None = None
    actions: list[str] = Field(default_factory=list)
    children: list[UUID] = Field(default_factory=list)


class EntryRecord(BaseModel):
    """One path. `path_b64` stands where the bytes are not UTF-8; `path` is then for reading only."""

    path: str
    path_b64: str | None = None
    kind: str
    size: int
    mtime_ns: int | None = None
    mode: int | None = None
    digests: dict[str, str] = Field(default_factory=dict)
    target: str | None = None
    target_b64: str | None = None
    archive_id: UUID | None = Field(default=None, description="The archive (layer) that the entry is from.")
    metadata_digest: str | None = Field(
        default=None, description="SHA-512 of the metadata of this path, if it has any."
    )


class ProgressView(BaseModel):
    done: int | None = None
    total: int | None = None
    unit: str | None = None
    message: str | None = None
    rate: float | None = None


class JobRecord(BaseModel):
    """Work that goes on after the request; `state` is waiting, running, succeeded, failed or cancelled."""

    id: UUID
    kind: str
    archive_id: UUID | None
    state: str
    progress: ProgressView
    result: dict[str, Json] | None
    error: dict[str, Json] | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class UploadRecord(BaseModel):
    """A resumable upload; `offset` is how much of it is safe on the store."""

    id: UUID
    url: str
    path: str
    path_b64: str | None = None
    size: int
    offset: int
    mtime_ns: int | None = None
    mode: int | None = None
    state: str
    expires_at: datetime


def path_fields(path: bytes, name: str = "path") -> dict[str, str]:
    """`{"path": …}`, with `path_b64` beside it when text cannot carry the bytes."""
    fields = {name: display_path(path)}
    if not is_text_path(path):
        fields[f"{name}_b64"] = base64.b64encode(path).decode()
    return fields


def answer_json(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that is ready to send: for long lists and for documents whose form is not ours to check."""
    body = orjson.dumps(content, default=_plain, option=orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_UTC_Z)
    return Response(body, status, dict(headers or {}), "application/json")


def page_json(items: Sequence[object], next_cursor: str | None = None) -> Response:
    return answer_json({"items": items, "next_cursor": next_cursor})


def sorted_texts(values: Iterable[object]) -> list[str]:
    return sorted(str(value) for value in values)


def _plain(value: object) -> object:
    if isinstance(value, (frozenset, set)):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
