"""Metadata of archives and of single files: read at any time of the past, changed in one step, with their history."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel

from perdure.doors.api.fields import LARGEST_INTEGER, ArchiveId, CursorText, Moment, Text
from perdure.doors.api.views import Page, page_json, path_fields
from perdure.doors.http.auth import Caller, KnownCaller
from perdure.doors.http.cursors import A_NUMBER, decode_cursor, encode_cursor
from perdure.doors.http.errors import UnsupportedContentError
from perdure.doors.http.openapi import ANYONE, Answers, problems
from perdure.doors.http.paths import TailPath, find_query_path
from perdure.doors.http.preconditions import expected_revision, format_revision, is_not_modified
from perdure.doors.http.services import Given, Services
from perdure.kernel.actor import Actor
from perdure.metadata.history import Change
from perdure.metadata.patches import PatchForm
from perdure.metadata.service import Document

router = APIRouter(tags=["metadata"])

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
_FORMS: dict[str, PatchForm] = {MERGE_PATCH: "merge", "application/json": "merge", JSON_PATCH: "json-patch"}
_ANY_JSON: dict[str, Any] = {"content": {"application/json": {"schema": {}}}}
_OPERATIONS = {"type": "array", "items": {"type": "object", "required": ["op", "path"]}}
_PATCH_BODY = {
    "requestBody": {
        "required": True,
        "content": {MERGE_PATCH: {"schema": {"type": "object"}}, JSON_PATCH: {"schema": _OPERATIONS}},
    }
}


class PatchedView(BaseModel):
    """The metadata after a patch; `changed` counts the values that differ."""

    revision: int
    sequence: int
    digest: str | None
    changed: int


class LeafChangeView(BaseModel):
    pointer: str
    before: Any | None = None  # Any: a value of metadata
    after: Any | None = None  # Any: as above


class MetadataChangeView(BaseModel):
    """One change: who, when, which values. `digest` chains the changes of the archive."""

    sequence: int
    path: str
    path_b64: str | None = None
    revision: int
    at: datetime
    actor_id: UUID | None
    actor_name: str
    changes: list[LeafChangeView]
    digest: str


async def read_body(request: Request) -> bytes:
    return await request.body()


Body = Annotated[bytes, Depends(read_body)]
Pointer = Annotated[Text, Query(description="A JSON pointer (RFC 6901); without it the whole document.")]
AsOf = Annotated[Moment | None, Query(description="The metadata as they were at this time.")]
_READ: Answers = problems(
    403,
    beside={  # Any: OpenAPI's own free form
        200: {"description": "The document, or the value at the pointer", **_ANY_JSON},
        304: {"description": "Not Modified"},
    },
)


@router.get(
    "/archives/{archive_id}/metadata",
    operation_id="read_metadata",
    summary="An archive's metadata",
    response_class=Response,
    responses=_READ,
    openapi_extra=ANYONE,
)
def read_metadata(
    archive_id: ArchiveId, request: Request, caller: Caller, services: Given, pointer: Pointer = "", as_of: AsOf = None
) -> Response:
    return _answer(
        request, services.archives.describing.read_metadata(caller, archive_id, b"", pointer=pointer, as_of=as_of)
    )


@router.get(
    "/archives/{archive_id}/file-metadata/{path}",
    operation_id="read_file_metadata",
    summary="The metadata of one file or folder",
    response_class=Response,
    responses=_READ,
    openapi_extra=ANYONE,
)
def read_file_metadata(
    archive_id: ArchiveId,
    path: TailPath,
    request: Request,
    caller: Caller,
    services: Given,
    pointer: Pointer = "",
    as_of: AsOf = None,
) -> Response:
    return _answer(
        request, services.archives.describing.read_metadata(caller, archive_id, path, pointer=pointer, as_of=as_of)
    )


@router.patch(
    "/archives/{archive_id}/metadata",
    operation_id="patch_metadata",
    summary="Change an archive's metadata in one step",
    responses=problems(403, 409, 410, 412, 415),
    openapi_extra=_PATCH_BODY,
)
def patch_metadata(
    archive_id: ArchiveId, request: Request, response: Response, body: Body, caller: KnownCaller, services: Given
) -> PatchedView:
    return _patch(archive_id, b"", request, response, body, caller, services)


@router.patch(
    "/archives/{archive_id}/file-metadata/{path}",
    operation_id="patch_file_metadata",
    summary="Change the metadata of one file or folder in one step",
    responses=problems(403, 409, 410, 412, 415),
    openapi_extra=_PATCH_BODY,
)
def patch_file_metadata(
    archive_id: ArchiveId,
    path: TailPath,
    request: Request,
    response: Response,
    body: Body,
    caller: KnownCaller,
    services: Given,
) -> PatchedView:
    return _patch(archive_id, path, request, response, body, caller, services)


@router.get(
    "/archives/{archive_id}/metadata-history",
    operation_id="list_metadata_history",
    summary="Who changed which values when, the oldest first",
    response_model=Page[MetadataChangeView],
    responses=problems(403),
    openapi_extra=ANYONE,
)
def list_metadata_history(
    archive_id: ArchiveId,
    request: Request,
    caller: Caller,
    services: Given,
    path: Annotated[
        str | None, Query(description="One file, percent-encoded once; empty: the archive itself; left out: all.")
    ] = None,
    after: Annotated[
        int, Query(ge=0, le=LARGEST_INTEGER, description="The sequence of the last change that is known.")
    ] = 0,
    cursor: CursorText = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    position = decode_cursor("metadata-history", cursor, A_NUMBER)
    start = int(position) if position is not None else after
    changes = services.archives.describing.metadata_history(
        caller, archive_id, find_query_path(request, "path"), after=start, limit=limit
    )
    following = str(changes[-1].sequence) if len(changes) == limit else None
    return page_json([_change(change) for change in changes], encode_cursor("metadata-history", following))


def _answer(request: Request, document: Document) -> Response:
    etag = format_revision("m", document.revision)
    headers = {"etag": etag, "cache-control": "private, no-cache"}
    if document.digest is not None:
        headers["x-metadata-digest"] = document.digest
    if is_not_modified(request.headers, etag):
        return Response(status_code=304, headers=headers)
    return Response(document.value, 200, headers, "application/json")


def _patch(
    archive_id: UUID, path: bytes, request: Request, response: Response, body: bytes, caller: Actor, services: Services
) -> PatchedView:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _FORMS:
        raise UnsupportedContentError(f"This address takes {MERGE_PATCH} and {JSON_PATCH}.")
    result = services.archives.describing.patch_metadata(
        caller, archive_id, path, body, form=_FORMS[kind], expected_revision=expected_revision(request.headers, "m")
    )
    response.headers["etag"] = format_revision("m", result.revision)
    return PatchedView(
        revision=result.revision, sequence=result.sequence, digest=result.digest, changed=len(result.changes)
    )


def _change(change: Change) -> dict[str, object]:
    leaves = [
        {"pointer": leaf.pointer, "before": _value(leaf.before), "after": _value(leaf.after)} for leaf in change.changes
    ]
    return {
        "sequence": change.sequence,
        **path_fields(change.path),
        "revision": change.revision,
        "at": change.at,
        "actor_id": change.actor_id,
        "actor_name": change.actor_name,
        "changes": leaves,
        "digest": change.digest,
    }


def _value(text: str | None) -> object:
    return None if text is None else orjson.Fragment(text)  # numbers keep the spelling that they came in
