"""Folders, selections and whole archives, packed while they are sent."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from perdure.doors.api.fields import ArchiveId
from perdure.doors.http.auth import DataCaller
from perdure.doors.http.openapi import ANYONE, problems
from perdure.doors.http.paths import get_query_paths
from perdure.doors.http.sending import attachment, send_content, send_stream
from perdure.doors.http.services import Given

router = APIRouter(tags=["data"])

_TYPES = {"zip": "application/zip", "tar": "application/x-tar"}
_PACKED = {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _TYPES.values()}}


@router.get(
    "/archives/{archive_id}/download",
    operation_id="download",
    summary="A ZIP or tar of the archive, or of some of it",
    response_class=Response,
    responses=problems(
        403,
        409,
        410,
        412,
        416,
        beside={
            200: {"description": "The whole", **_PACKED},
            206: {"description": "The range that was asked for", **_PACKED},
            304: {"description": "Not Modified"},
        },
    ),
    openapi_extra=ANYONE,
)
@router.head(
    "/archives/{archive_id}/download",
    operation_id="probe_download",
    summary="Length and ETag of a download, where they are known beforehand",
    response_class=Response,
    responses=problems(403, 409, 410, 412, beside={304: {"description": "Not Modified"}}),
    openapi_extra=ANYONE,
)
def download(
    archive_id: ArchiveId,
    request: Request,
    caller: DataCaller,
    services: Given,
    form: Annotated[Literal["zip", "tar"], Query(alias="format")] = "zip",
    path: Annotated[
        list[str] | None, Query(description="Files and folders, each percent-encoded once; all without any.")
    ] = None,
) -> Response:
    packed = services.archives.downloading.plan_download(caller, archive_id, get_query_paths(request, "path"), form)
    headers = {
        "content-type": _TYPES[form],
        "content-disposition": attachment(packed.filename.encode()),
        "cache-control": "private, no-cache",
        "vary": "Authorization, Cookie",
    }
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
