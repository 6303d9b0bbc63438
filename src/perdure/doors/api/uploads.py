"""Uploads that go on where they stopped: tus 1.0 with creation, termination, expiration and checksum."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from email.utils import format_datetime
from functools import partial
from typing import Annotated, Protocol
from uuid import UUID

from fastapi import APIRouter, Header, Path, Request, Response
from starlette.requests import ClientDisconnect

from perdure.archives.filling import Attributes
from perdure.archives.items import UploadView
from perdure.archives.model import Entry
from perdure.doors.api.fields import LARGEST_INTEGER, ArchiveId, Id
from perdure.doors.api.views import Page, UploadRecord, path_fields
from perdure.doors.http.auth import KnownCaller, KnownDataCaller
from perdure.doors.http.digest_fields import format_repr_digest, parse_tus_checksum
from perdure.doors.http.errors import (
    BodyTooLargeError,
    ChecksumMismatchError,
    LengthRequiredError,
    MalformedRequestError,
    TusVersionError,
    UnsupportedContentError,
)
from perdure.doors.http.openapi import problems
from perdure.doors.http.receiving import IncompleteBodyError, require_length
from perdure.doors.http.repeats import DATA_ONCE, CreatingRoute
from perdure.doors.http.services import Given, Services
from perdure.doors.http.streams import Body, ByteThreads, pump
from perdure.kernel.actor import Actor
from perdure.kernel.digests import DIGEST_LENGTHS

router = APIRouter(tags=["data"], route_class=CreatingRoute)
list_router = APIRouter(tags=["content"])

VERSION = "1.0.0"
CHUNK_TYPE = "application/offset+octet-stream"
CHECKSUMS = frozenset({"sha1", "sha256", "sha512", "md5"})  # the protocol demands sha1 of every server
_EXTENSIONS = "creation,expiration,checksum,termination"

UploadId = Annotated[Id, Path()]
TusVersion = Annotated[str | None, Header(alias="Tus-Resumable", description="`1.0.0`, or left out.")]
_CHUNK_BODY = {
    "requestBody": {"required": True, "content": {CHUNK_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
}


class UploadWriter(Protocol):
    """A resumable upload that is open for writing."""

    def write(self, data: bytes | bytearray | memoryview, /) -> object: ...

    def checkpoint(self) -> object: ...

    def close(self) -> None: ...

    def finish(self) -> Entry: ...


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
    return _options()


@router.options(
    "/uploads/{upload_id}",
    operation_id="get_options_of_upload",
    summary="What of tus is spoken",
    status_code=204,
    response_class=Response,
    responses=problems(),
)
async def get_options_of_upload(upload_id: UploadId) -> Response:
    return _options()


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
    upload_length: Annotated[
        str | None, Header(alias="Upload-Length", description="The size of the file in bytes.")
    ] = None,
    upload_metadata: Annotated[
        str | None,
        Header(
            alias="Upload-Metadata",
            max_length=20_000,
            description="`path <base64>`, and perhaps `mtime_ns`, `mode` (decimal), digests by name, each in base64.",
        ),
    ] = None,
    tus_resumable: TusVersion = None,
) -> Response:
    _require_version(tus_resumable)
    size = _read_number(upload_length, "Upload-Length")
    if size is None:
        raise LengthRequiredError("The request has no Upload-Length.")
    told = _read_metadata(upload_metadata or "")
    path = told.get("path") or told.get("filename")
    if path is None:
        raise MalformedRequestError("Upload-Metadata names no path.", field="path")
    upload = services.archives.filling.create_upload(caller, archive_id, path, size, _attributes(told))
    return _tus_answer({"location": _url(upload.id, services), **_expiry(upload)}, 201)


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
    upload_id: UploadId, caller: KnownDataCaller, services: Given, tus_resumable: TusVersion = None
) -> Response:
    _require_version(tus_resumable)
    upload = services.archives.filling.settle_upload(caller, upload_id)
    headers = {"upload-offset": str(upload.offset), "upload-length": str(upload.size)}
    return _tus_answer({**headers, **_expiry(upload)}, 200)


@router.delete(
    "/uploads/{upload_id}",
    operation_id="abort_upload",
    summary="End an upload and discard what came",
    status_code=204,
    response_class=Response,
    responses=problems(403, 409, 410, 412),
)
def abort_upload(
    upload_id: UploadId, caller: KnownDataCaller, services: Given, tus_resumable: TusVersion = None
) -> Response:
    _require_version(tus_resumable)
    services.archives.filling.abort_upload(caller, upload_id)
    return _tus_answer({})


@router.patch(
    "/uploads/{upload_id}",
    operation_id="continue_upload",
    summary="Send the next bytes of an upload; the last ones make the file",
    status_code=204,
    response_class=Response,
    responses=problems(403, 409, 410, 411, 412, 415, 460, 507),
    openapi_extra=_CHUNK_BODY,
)
async def continue_upload(
    upload_id: UploadId,
    request: Request,
    caller: KnownDataCaller,
    services: Given,
    upload_offset: Annotated[
        str | None, Header(alias="Upload-Offset", description="Where these bytes go; what HEAD tells.")
    ] = None,
    upload_checksum: Annotated[
        str | None, Header(alias="Upload-Checksum", description="`sha512 <base64>` of these bytes.")
    ] = None,
    tus_resumable: TusVersion = None,
) -> Response:
    _require_version(tus_resumable)
    _require_type(request)
    offset, length = _read_number(upload_offset, "Upload-Offset"), require_length(request)
    if offset is None:
        raise MalformedRequestError("The request has no Upload-Offset.", field="Upload-Offset")
    checked = _Checked(upload_checksum) if upload_checksum is not None else None
    upload, writer = await services.threads.run(partial(_open, services, caller, upload_id, offset, length))
    entry = await _take(request, length, writer, checked, services.threads, is_last=offset + length == upload.size)
    digest = {"repr-digest": format_repr_digest(entry.digests) or ""} if entry else {}
    return _tus_answer({"upload-offset": str(offset + length), **_expiry(upload), **digest})


class _Checked:
    """The checksum that a chunk is said to have, beside the one that it has."""

    def __init__(self, field: str) -> None:
        name, self._stated = parse_tus_checksum(field, CHECKSUMS)
        self._digest = hashlib.new(name, usedforsecurity=False)

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self._digest.update(data)

    def require(self) -> None:
        if self._digest.hexdigest() != self._stated:
            raise ChecksumMismatchError("The chunk was not kept.")


class _Both:
    """A sink that digests the chunk on its way into the upload."""

    def __init__(self, writer: UploadWriter, checked: _Checked) -> None:
        self._writer, self._checked = writer, checked

    def write(self, data: bytes | bytearray | memoryview, /) -> object:
        self._checked.update(data)
        return self._writer.write(data)


def _open(
    services: Services, caller: Actor, upload_id: UUID, offset: int, length: int
) -> tuple[UploadView, UploadWriter]:
    upload = services.archives.filling.get_upload(caller, upload_id)
    if offset + length > upload.size:
        raise BodyTooLargeError(
            f"The upload has {upload.size} bytes; these would end at {offset + length}.", limit=upload.size
        )
    return upload, services.archives.filling.open_upload(caller, upload_id, offset)


async def _take(
    request: Request,
    length: int,
    writer: UploadWriter,
    checked: _Checked | None,
    threads: ByteThreads,
    *,
    is_last: bool,
) -> Entry | None:
    """Move the body into the upload. What arrives before the connection ends is kept, unless a checksum covers it."""
    sink = _Both(writer, checked) if checked else writer
    body = Body(request, length)
    try:
        await pump(body, sink, threads)
        if checked is not None:
            checked.require()
        if is_last:
            return await threads.run(writer.finish)
        await threads.run(writer.checkpoint)
    except ClientDisconnect:
        if checked is None:
            await threads.run(writer.checkpoint)
        raise IncompleteBodyError("The client went away; HEAD tells what was kept.") from None
    finally:
        body.close()
        await threads.run(writer.close)
    return None


def _attributes(told: Mapping[str, bytes]) -> Attributes:
    digests = {name: _ascii(told[name], name).lower() for name in DIGEST_LENGTHS if name in told}
    return Attributes(mtime_ns=_integer(told, "mtime_ns"), mode=_integer(told, "mode"), digests=digests or None)


def _integer(told: Mapping[str, bytes], name: str) -> int | None:
    if name not in told:
        return None
    text = _ascii(told[name], name)
    if not text.removeprefix("-").isdigit() or len(text) > 20 or abs(int(text)) > LARGEST_INTEGER:
        raise MalformedRequestError(f"{name} in Upload-Metadata is not a whole number.", field=name)
    return int(text)


def _ascii(value: bytes, name: str) -> str:
    if not value.isascii():
        raise MalformedRequestError(f"{name} in Upload-Metadata is not ASCII.", field=name)
    return value.decode("ascii")


def _read_metadata(field: str) -> dict[str, bytes]:
    told: dict[str, bytes] = {}
    for pair in filter(None, (part.strip() for part in field.split(","))):
        name, _, value = pair.partition(" ")
        try:
            told[name] = base64.b64decode(value.strip(), validate=True)
        except (binascii.Error, ValueError):
            raise MalformedRequestError("A value in Upload-Metadata is not base64.", field="Upload-Metadata") from None
    return told


def _read_number(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > LARGEST_INTEGER:
        raise MalformedRequestError(f"{name} is not a number of bytes.", field=name)
    return int(text)


def _require_version(stated: str | None) -> None:
    if stated not in (None, VERSION):
        raise TusVersionError("Tus-Resumable names another version than 1.0.0.")


def _require_type(request: Request) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != CHUNK_TYPE:
        raise UnsupportedContentError(f"This address takes {CHUNK_TYPE}.")


def _expiry(upload: UploadView) -> dict[str, str]:
    return {"upload-expires": format_datetime(upload.expires_at, usegmt=True)}


def _url(upload_id: UUID, services: Services) -> str:
    return f"{services.place().data_url}/api/v1/uploads/{upload_id}"


def _options() -> Response:
    checksums = ",".join(sorted(CHECKSUMS))
    return _tus_answer({"tus-version": VERSION, "tus-extension": _EXTENSIONS, "tus-checksum-algorithm": checksums})


def _tus_answer(headers: dict[str, str], status: int = 204) -> Response:
    return Response(status_code=status, headers={"tus-resumable": VERSION, "cache-control": "no-store", **headers})


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
