"""Addresses below `/s/<secret>`: packed, single files with ranges, checksums, and files that are dropped.

They stand in no OpenAPI document: whoever has a link is told by its page. No log tells their paths.
"""

from __future__ import annotations

import mimetypes
from functools import partial
from typing import Literal
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from perdure.archives.model import Entry
from perdure.doors.http import tus
from perdure.doors.http.digest_fields import format_legacy_digest, format_repr_digest, stated_digests
from perdure.doors.http.paths import TailPath, find_query_path
from perdure.doors.http.receiving import receive_body, require_length
from perdure.doors.http.sending import attachment, http_date, send_content, send_stream
from perdure.doors.http.services import Given
from perdure.doors.http.visits import Visitor, goes_on
from perdure.kernel.paths import display_path

router = APIRouter(include_in_schema=False)

_TYPES = {"zip": "application/zip", "tar": "application/x-tar"}


def open_links(app: FastAPI) -> None:
    """Serve the bytes behind links."""
    app.include_router(router)


@router.get("/s/{secret}/{form}")
@router.head("/s/{secret}/{form}")
def download_by_link(
    form: Literal["zip", "tar", "checksums"], request: Request, visit: Visitor, services: Given
) -> Response:
    visiting = services.sharing.visiting
    if form == "checksums":
        name, lines = visiting.iter_checksums(visit)
        headers = {"content-type": "text/plain; charset=utf-8", "content-disposition": attachment(name.encode())}
        return send_stream(request, services.threads, lambda: lines, headers)
    folder = find_query_path(request, "folder") or b""
    packed = visiting.plan_download(visit, folder, form, goes_on=goes_on(request))
    headers = {"content-type": _TYPES[form], "content-disposition": attachment(packed.filename.encode())}
    if packed.length is None:
        return send_stream(request, services.threads, partial(packed.read, 0, None), headers)
    return send_content(
        request,
        services.threads,
        lambda start, length: packed.read(start, start + length),
        size=packed.length,
        etag=packed.etag,
        headers=headers,
    )


@router.get("/s/{secret}/files/{path}")
@router.head("/s/{secret}/files/{path}")
def read_by_link(path: TailPath, request: Request, visit: Visitor, services: Given) -> Response:
    content = services.sharing.visiting.open_file(visit, path, goes_on=goes_on(request))
    headers = _headers_of(content.entry, request.headers.get("want-digest"))
    size, etag = content.entry.size, f'"{content.etag}"'
    return send_content(request, services.threads, content.read, size=size, etag=etag, headers=headers)


@router.put("/s/{secret}/files/{path}")
async def drop_by_link(path: TailPath, request: Request, visit: Visitor, services: Given) -> Response:
    size = require_length(request)
    begin = partial(
        services.sharing.visiting.begin_drop, visit, path, size, stated_digests=stated_digests(request.headers) or None
    )
    digests = await receive_body(request, size, await services.threads.run(begin), services.threads)
    told = {"path": display_path(path), "size": size, "digests": dict(digests)}
    return JSONResponse(told, 201, _present({"repr-digest": format_repr_digest(digests)}))


@router.options("/s/{secret}/uploads")
async def tell_options_by_link() -> Response:
    return tus.tell_options()


@router.post("/s/{secret}/uploads")
def create_upload_by_link(
    visit: Visitor,
    services: Given,
    upload_length: tus.Length = None,
    upload_metadata: tus.Told = None,
    tus_resumable: tus.TusVersion = None,
) -> Response:
    tus.require_version(tus_resumable)
    wanted = tus.read_creation(upload_length, upload_metadata)
    upload = services.sharing.visiting.create_upload(visit, wanted.path, wanted.size, wanted.attributes)
    place = f"/s/{quote(visit.secret, safe='')}/uploads/{upload.id}"
    return tus.tus_answer({"location": place, **tus.expiry(upload)}, 201)


@router.head("/s/{secret}/uploads/{upload_id}")
def probe_upload_by_link(
    upload_id: UUID, visit: Visitor, services: Given, tus_resumable: tus.TusVersion = None
) -> Response:
    tus.require_version(tus_resumable)
    return tus.tell_progress(services.sharing.visiting.settle_upload(visit, upload_id))


@router.delete("/s/{secret}/uploads/{upload_id}")
def abort_upload_by_link(
    upload_id: UUID, visit: Visitor, services: Given, tus_resumable: tus.TusVersion = None
) -> Response:
    tus.require_version(tus_resumable)
    services.sharing.visiting.abort_upload(visit, upload_id)
    return tus.tus_answer({})


@router.patch("/s/{secret}/uploads/{upload_id}")
async def continue_upload_by_link(
    upload_id: UUID,
    request: Request,
    visit: Visitor,
    services: Given,
    upload_offset: tus.Offset = None,
    upload_checksum: tus.Checksum = None,
    tus_resumable: tus.TusVersion = None,
) -> Response:
    tus.require_version(tus_resumable)
    visiting = services.sharing.visiting
    return await tus.take_chunk(
        request,
        services.threads,
        (upload_offset, upload_checksum),
        partial(visiting.get_upload, visit, upload_id),
        partial(visiting.open_upload, visit, upload_id),
    )


def _headers_of(entry: Entry, want_digest: str | None) -> dict[str, str]:
    name = entry.path.rpartition(b"/")[2]
    headers = {
        "content-type": mimetypes.guess_type(display_path(name))[0] or "application/octet-stream",
        "content-disposition": attachment(name),
        "vary": "Authorization, Cookie, Want-Digest",
    }
    told = {
        "repr-digest": format_repr_digest(entry.digests),
        "last-modified": http_date(entry.mtime_ns),
        "digest": format_legacy_digest(entry.digests, want_digest),
    }
    return headers | _present(told)


def _present(headers: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if value is not None}
