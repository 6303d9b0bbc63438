"""The bytes of single files: read with ranges and digests, put in one stream, removed."""

from __future__ import annotations

import mimetypes
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Request, Response

from perdure.archives.expecting import Expected
from perdure.archives.model import Entry
from perdure.doors.api.contents import entry_fields
from perdure.doors.api.fields import LARGEST_INTEGER, ArchiveId
from perdure.doors.api.views import EntryRecord, answer_json
from perdure.doors.http.auth import DataCaller, KnownDataCaller
from perdure.doors.http.digest_fields import format_legacy_digest, format_repr_digest, stated_digests
from perdure.doors.http.errors import MalformedRequestError
from perdure.doors.http.openapi import ANYONE, problems
from perdure.doors.http.paths import TailPath, encode_logical_path
from perdure.doors.http.preconditions import expected_tags, require_match
from perdure.doors.http.receiving import receive_body, require_length
from perdure.doors.http.sending import attachment, http_date, send_content
from perdure.doors.http.services import Given, Services
from perdure.identity.model import as_prober
from perdure.kernel.actor import Actor
from perdure.kernel.errors import NotFoundError
from perdure.kernel.paths import display_path

router = APIRouter(tags=["data"])

IfMatch = Annotated[str | None, Header(alias="If-Match", description="The ETag of the bytes that are meant.")]
_BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
_BODY = {"requestBody": {"required": True, **_BYTES}}


@router.get(
    "/archives/{archive_id}/files/{path}",
    operation_id="read_file",
    summary="The bytes of a file, or one range of them",
    response_class=Response,
    responses=problems(
        403,
        409,
        410,
        412,
        416,
        beside={
            200: {"description": "The whole file", **_BYTES},
            206: {"description": "The range that was asked for", **_BYTES},
            304: {"description": "Not Modified"},
        },
    ),
    openapi_extra=ANYONE,
)
@router.head(
    "/archives/{archive_id}/files/{path}",
    operation_id="probe_file",
    summary="Size, time and digests of a file",
    response_class=Response,
    responses=problems(403, 409, 410, 412, beside={304: {"description": "Not Modified"}}),
    openapi_extra=ANYONE,
)
def read_file(archive_id: ArchiveId, path: TailPath, request: Request, caller: DataCaller, services: Given) -> Response:
    content = services.archives.reading.open_content(_reader(request, caller), archive_id, path)
    headers = _headers_of(content.entry, request.headers.get("want-digest"))
    return send_content(
        request, services.threads, content.read, size=content.entry.size, etag=f'"{content.etag}"', headers=headers
    )


@router.put(
    "/archives/{archive_id}/files/{path}",
    operation_id="put_file",
    summary="Store a file in one stream; Content-Length is required",
    status_code=201,
    response_model=EntryRecord,
    responses=problems(403, 409, 410, 411, 412, 507),
    openapi_extra=_BODY,
)
async def put_file(
    archive_id: ArchiveId,
    path: TailPath,
    request: Request,
    caller: KnownDataCaller,
    services: Given,
    x_mtime_ns: Annotated[
        str | None, Header(alias="X-Mtime-Ns", description="Nanoseconds since 1970.", pattern=r"^-?\d{1,19}$")
    ] = None,
    x_mode: Annotated[
        str | None, Header(alias="X-Mode", description="Permission bits in octal.", pattern=r"^(0o)?[0-7]{1,4}$")
    ] = None,
    if_none_match: Annotated[
        str | None, Header(alias="If-None-Match", description="`*`: do not replace a file.")
    ] = None,
    if_match: IfMatch = None,
) -> Response:
    if if_match is not None:
        await services.threads.run(partial(_require_present, request, caller, archive_id, path, services))
    begin = partial(
        services.archives.filling.begin_file,
        caller,
        archive_id,
        path,
        require_length(request),
        mtime_ns=_read_mtime(x_mtime_ns),
        mode=int(x_mode, 8) if x_mode else None,
        stated_digests=stated_digests(request.headers) or None,
        replace=if_none_match is None,
        expected=None if if_match is None else Expected(expected_tags(request.headers)),
    )
    if if_none_match not in (None, "*"):
        raise MalformedRequestError("If-None-Match takes only '*' here.")
    receiver = await services.threads.run(begin)
    entry = await receive_body(request, require_length(request), receiver, services.threads)
    headers = {
        "location": f"{services.place().data_url}/api/v1/archives/{archive_id}/files/{encode_logical_path(path)}"
    }
    return answer_json(entry_fields(entry), 201, headers | _digest_header(entry))


@router.delete(
    "/archives/{archive_id}/files/{path}",
    operation_id="remove_file",
    summary="Remove a file or folder from an open archive; an inherited one is hidden",
    status_code=204,
    responses=problems(403, 409, 410, 412),
)
def remove_file(
    archive_id: ArchiveId,
    path: TailPath,
    request: Request,
    caller: KnownDataCaller,
    services: Given,
    if_match: IfMatch = None,
) -> None:
    if if_match is None:
        services.archives.reading.stat(as_prober(caller), archive_id, path)
    else:
        _require_present(request, caller, archive_id, path, services)
    expected = None if if_match is None else Expected(expected_tags(request.headers))
    services.archives.filling.remove(caller, archive_id, [path], expected=expected)


def _reader(request: Request, caller: Actor) -> Actor:
    return as_prober(caller) if request.method == "HEAD" else caller


def _require_present(request: Request, caller: Actor, archive_id: UUID, path: bytes, services: Services) -> None:
    """Raise ConditionFailedError unless If-Match names the bytes that are at the path."""
    try:
        etag = f'"{services.archives.reading.open_content(as_prober(caller), archive_id, path).etag}"'
    except NotFoundError:
        etag = None
    require_match(request.headers, etag)


def _headers_of(entry: Entry, want_digest: str | None) -> dict[str, str]:
    name = entry.path.rpartition(b"/")[2]
    guessed = mimetypes.guess_type(display_path(name))[0]
    headers = {
        "content-type": guessed or "application/octet-stream",
        "content-disposition": attachment(name),
        "cache-control": "private, no-cache",
        "vary": "Authorization, Cookie, Want-Digest",
    }
    modified, legacy = http_date(entry.mtime_ns), format_legacy_digest(entry.digests, want_digest)
    return headers | _digest_header(entry) | _present({"last-modified": modified, "digest": legacy})


def _digest_header(entry: Entry) -> dict[str, str]:
    return _present({"repr-digest": format_repr_digest(entry.digests)})


def _present(headers: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if value is not None}


def _read_mtime(text: str | None) -> int | None:
    if text is None:
        return None
    value = int(text)
    if abs(value) > LARGEST_INTEGER:
        raise MalformedRequestError("X-Mtime-Ns is out of range.")
    return value
