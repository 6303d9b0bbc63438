"""Answers that are bytes: one file or a packed folder, whole, in part, or as headers only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import quote_from_bytes

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from perdure.doors.http.preconditions import Span, find_span, is_not_modified, require_match
from perdure.doors.http.streams import ByteThreads, iter_in_threads

Reader = Callable[[int, int], Iterator[bytes]]  # from, how many bytes
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def send_content(
    request: Request, threads: ByteThreads, read: Reader, *, size: int, etag: str | None, headers: Mapping[str, str]
) -> Response:
    """Answer GET or HEAD for content of a known size, with conditions and a range where the request has them.

    Dates are no conditions here: the time of a file is its owner's, and may be that of other bytes.
    """
    named = {**headers, "accept-ranges": "bytes"} | ({"etag": etag} if etag else {})
    require_match(request.headers, etag)
    if etag is not None and is_not_modified(request.headers, etag):
        return Response(status_code=304, headers=named)
    is_head = request.method == "HEAD"
    span = None if is_head else find_span(request.headers, size, etag)
    whole = span or Span(0, size)
    named["content-length"] = str(whole.length)
    if span is not None:
        named["content-range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
    if is_head:
        return Response(status_code=200, headers=named)
    return StreamingResponse(_iter(threads, read, whole), 206 if span else 200, named)


def send_stream(
    request: Request, threads: ByteThreads, chunks: Callable[[], Iterator[bytes]], headers: Mapping[str, str]
) -> Response:
    """Answer with content whose size is not known beforehand."""
    if request.method == "HEAD":
        return Response(status_code=200, headers=dict(headers))
    return StreamingResponse(iter_in_threads(chunks(), threads), 200, dict(headers))


def attachment(name: bytes) -> str:
    """A Content-Disposition (RFC 6266) that saves under this name and never opens in the page of this host."""
    plain = "".join(chr(c) if 0x20 <= c < 0x7F and c not in b'"\\%' else "_" for c in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote_from_bytes(name, safe='')}"


def http_date(mtime_ns: int | None) -> str | None:
    """A time for Last-Modified; None for none, and for those that no HTTP date can tell."""
    if mtime_ns is None:
        return None
    try:
        return format_datetime(_EPOCH + timedelta(seconds=mtime_ns // 10**9), usegmt=True)
    except OverflowError:
        return None


async def _iter(threads: ByteThreads, read: Reader, span: Span) -> AsyncIterator[bytes]:
    if span.length == 0:
        return
    async for chunk in iter_in_threads(read(span.start, span.length), threads):
        yield chunk
