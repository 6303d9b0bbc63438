"""tus 1.0, uploads that go on where they stopped: its header fields, its answers, and the way of a chunk."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import format_datetime
from typing import Annotated, Protocol

from fastapi import Header, Request, Response
from starlette.requests import ClientDisconnect

from perdure.archives.filling import Attributes
from perdure.archives.items import UploadView
from perdure.archives.model import Entry
from perdure.doors.http.digest_fields import format_repr_digest, parse_tus_checksum
from perdure.doors.http.errors import (
    BodyTooLargeError,
    ChecksumMismatchError,
    LengthRequiredError,
    MalformedRequestError,
    TusVersionError,
    UnsupportedContentError,
)
from perdure.doors.http.receiving import IncompleteBodyError, require_length
from perdure.doors.http.streams import Body, ByteThreads, pump
from perdure.kernel.digests import DIGEST_LENGTHS

VERSION = "1.0.0"
CHUNK_TYPE = "application/offset+octet-stream"
CHECKSUMS = frozenset({"sha1", "sha256", "sha512", "md5"})  # the protocol demands sha1 of every server
_EXTENSIONS = "creation,expiration,checksum,termination"
_LARGEST_INTEGER = (1 << 63) - 1

TusVersion = Annotated[str | None, Header(alias="Tus-Resumable", description="`1.0.0`, or left out.")]
Length = Annotated[str | None, Header(alias="Upload-Length", description="The size of the file in bytes.")]
Told = Annotated[
    str | None,
    Header(
        alias="Upload-Metadata",
        max_length=20_000,
        description="`path <base64>`, and perhaps `mtime_ns`, `mode` (decimal), digests by name, each in base64.",
    ),
]
Offset = Annotated[str | None, Header(alias="Upload-Offset", description="Where these bytes go; what HEAD tells.")]
Checksum = Annotated[str | None, Header(alias="Upload-Checksum", description="`sha512 <base64>` of these bytes.")]


class UploadWriter(Protocol):
    """A resumable upload that is open for writing."""

    def write(self, data: bytes | bytearray | memoryview, /) -> object: ...

    def hold(self) -> None: ...

    def checkpoint(self) -> object: ...

    def close(self) -> None: ...

    def finish(self) -> Entry: ...


@dataclass(frozen=True, slots=True)
class Creation:
    """What a creation asks for."""

    path: bytes
    size: int
    attributes: Attributes


def read_creation(length: str | None, told: str | None) -> Creation:
    """The fields of a creation; raises LengthRequiredError and MalformedRequestError."""
    size = read_number(length, "Upload-Length")
    if size is None:
        raise LengthRequiredError("The request has no Upload-Length.")
    metadata = _read_metadata(told or "")
    path = metadata.get("path") or metadata.get("filename")
    if path is None:
        raise MalformedRequestError("Upload-Metadata names no path.", field="path")
    return Creation(path, size, _attributes(metadata))


async def take_chunk(
    request: Request,
    threads: ByteThreads,
    fields: tuple[str | None, str | None],
    find: Callable[[], UploadView],
    open_at: Callable[[int], UploadWriter],
) -> Response:
    """Move the body of a request into the upload that `find` tells of; its last bytes make the file.

    `fields` are Upload-Offset and Upload-Checksum. What arrives before the connection ends is kept, unless a checksum
    covers it.
    """
    _require_type(request)
    offset, length = read_number(fields[0], "Upload-Offset"), require_length(request)
    if offset is None:
        raise MalformedRequestError("The request has no Upload-Offset.", field="Upload-Offset")
    checked = _Checked(fields[1]) if fields[1] is not None else None

    def begin() -> tuple[UploadView, UploadWriter]:
        upload = find()
        if offset + length > upload.size:
            raise BodyTooLargeError(
                f"The upload has {upload.size} bytes; these would end at {offset + length}.", limit=upload.size
            )
        return upload, open_at(offset)

    upload, writer = await threads.run(begin)
    entry = await _take(request, length, writer, checked, threads, is_last=offset + length == upload.size)
    digest = {"repr-digest": format_repr_digest(entry.digests) or ""} if entry else {}
    return tus_answer({"upload-offset": str(offset + length), **expiry(upload), **digest})


def tell_progress(upload: UploadView) -> Response:
    """How far an upload is."""
    told = {"upload-offset": str(upload.offset), "upload-length": str(upload.size)}
    return tus_answer({**told, **expiry(upload)}, 200)


def tell_options() -> Response:
    """What of the protocol is spoken."""
    checksums = ",".join(sorted(CHECKSUMS))
    return tus_answer({"tus-version": VERSION, "tus-extension": _EXTENSIONS, "tus-checksum-algorithm": checksums})


def tus_answer(headers: dict[str, str], status: int = 204) -> Response:
    """An answer without content."""
    return Response(status_code=status, headers={"tus-resumable": VERSION, "cache-control": "no-store", **headers})


def expiry(upload: UploadView) -> dict[str, str]:
    """When it is abandoned unless it is finished."""
    return {"upload-expires": format_datetime(upload.expires_at, usegmt=True)}


def require_version(stated: str | None) -> None:
    """Raise TusVersionError for another version than ours."""
    if stated not in (None, VERSION):
        raise TusVersionError("Tus-Resumable names another version than 1.0.0.")


def read_number(text: str | None, name: str) -> int | None:
    """A number of bytes in a field; raises MalformedRequestError."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > _LARGEST_INTEGER:
        raise MalformedRequestError(f"{name} is not a number of bytes.", field=name)
    return int(text)


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
    if checked:
        writer.hold()
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
    if not text.removeprefix("-").isdigit() or len(text) > 20 or abs(int(text)) > _LARGEST_INTEGER:
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


def _require_type(request: Request) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != CHUNK_TYPE:
        raise UnsupportedContentError(f"This address takes {CHUNK_TYPE}.")
