"""Uploads that go on where they stopped: tus 1.0 with creation, termination, expiration and checksum."""

from __future__ import annotations

from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response

from perdure.archives.items import UploadView
from perdure.doors.api.fields import ArchiveId, Id
from perdure.doors.api.views import Page, UploadRecord, path_fields
from perdure.doors.http import tus
from perdure.doors.http.auth import KnownCaller, KnownDataCaller
from perdure.doors.http.openapi import problems
from perdure.doors.http.repeats import DATA_ONCE, CreatingRoute
from perdure.doors.http.services import Given, Services

router = APIRouter(tags=["data"], route_class=CreatingRoute)
list_router = APIRouter(tags=["content"])

UploadId = Annotated[Id, Path()]
_CHUNK = {tus.CHUNK_TYPE: {"schema": {"type": "string", "format": "binary"}}}


@list_router.get(
    "/archives/{archive_id}/uploads",
    operation_id="list_uploads",
    summary="Resumable uploads that are not ended",
    responses=problems(403),
)
def list_uploads(archive_id: ArchiveId, caller: KnownCaller, services: Given) -> Page[UploadRecord]:
    return Page(
        items=[_record(upload, services) for upload in services.archives.filling.list_uploads(caller, archive_id)]
    )


@router.options(
    "/archives/{archive_id}/uploads",
    operation_id="get_upload_options",
    summary="What of tus is spoken",
    status_code=204,
    response_class=Response,
    responses=problems(),
)
async def get_upload_options(archive_id: ArchiveId) -> Response:
    return tus.tell_options()


@router.options(
    "/uploads/{upload_id}",
    operation_id="get_options_of_upload",
    summary="What of tus is spoken",
    status_code=204,
    response_class=Response,
    responses=problems(),
)
async def get_options_of_upload(upload_id: UploadId) -> Response:
    return tus.tell_options()


@router.post(
    "/archives/{archive_id}/uploads",
    operation_id="create_upload",
    summary="Begin a resumable upload; its room is reserved",
    status_code=201,
    dependencies=DATA_ONCE,
    response_class=Response,
    responses=problems(403, 409, 410, 411, 412, 507),
)
def create_upload(
    archive_id: ArchiveId,
    caller: KnownDataCaller,
    services: Given,
    upload_length: tus.Length = None,
    upload_metadata: tus.Told = None,
    tus_resumable: tus.TusVersion = None,
) -> Response:
    tus.require_version(tus_resumable)
    wanted = tus.read_creation(upload_length, upload_metadata)
    upload = services.archives.filling.create_upload(caller, archive_id, wanted.path, wanted.size, wanted.attributes)
    return tus.tus_answer({"location": _url(upload.id, services), **tus.expiry(upload)}, 201)


@router.head(
    "/uploads/{upload_id}",
    operation_id="probe_upload",
    summary="How far the upload is",
    description="All bytes are told only when the file is stored: where a request had sent the last ones and ended "
    "before it was, this one stores it.",
    response_class=Response,
    responses=problems(403, 409, 410, 412, 507),
)
def probe_upload(
    upload_id: UploadId, caller: KnownDataCaller, services: Given, tus_resumable: tus.TusVersion = None
) -> Response:
    tus.require_version(tus_resumable)
    return tus.tell_progress(services.archives.filling.settle_upload(caller, upload_id))


@router.delete(
    "/uploads/{upload_id}",
    operation_id="abort_upload",
    summary="End an upload and discard what came",
    status_code=204,
    response_class=Response,
    responses=problems(403, 409, 410, 412),
)
def abort_upload(
    upload_id: UploadId, caller: KnownDataCaller, services: Given, tus_resumable: tus.TusVersion = None
) -> Response:
    tus.require_version(tus_resumable)
    services.archives.filling.abort_upload(caller, upload_id)
    return tus.tus_answer({})


@router.patch(
    "/uploads/{upload_id}",
    operation_id="continue_upload",
    summary="Send the next bytes of an upload; the last ones make the file",
    status_code=204,
    response_class=Response,
    responses=problems(403, 409, 410, 411, 412, 415, 460, 507),
    openapi_extra={"requestBody": {"required": True, "content": _CHUNK}},
)
async def continue_upload(
    upload_id: UploadId,
    request: Request,
    caller: KnownDataCaller,
    services: Given,
    upload_offset: tus.Offset = None,
    upload_checksum: tus.Checksum = None,
    tus_resumable: tus.TusVersion = None,
) -> Response:
    tus.require_version(tus_resumable)
    filling = services.archives.filling
    return await tus.take_chunk(
        request,
        services.threads,
        (upload_offset, upload_checksum),
        partial(filling.get_upload, caller, upload_id),
        partial(filling.open_upload, caller, upload_id),
    )


def _url(upload_id: UUID, services: Services) -> str:
    return f"{services.place().data_url}/api/v1/uploads/{upload_id}"


def _record(upload: UploadView, services: Services) -> UploadRecord:
    return UploadRecord(
        id=upload.id,
        url=_url(upload.id, services),
        **path_fields(upload.path or b""),
        size=upload.size,
        offset=upload.offset,
        mtime_ns=upload.mtime_ns,
        mode=upload.mode,
        state=upload.state.value,
        expires_at=upload.expires_at,
    )
