"""Bytes in and out without ever waiting for a disk in the event loop.

In: what the network brings is gathered into batches of 4 MiB; while a thread digests and writes one batch, the next
one gathers. Out: a thread reads the next MiB while the last one is sent. Threads for bytes are a pool of their own,
so that a flood of transfers leaves the threads of the pages alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from starlette.requests import ClientDisconnect, Request

BATCH_BYTES = 4 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024

_T = TypeVar("_T")


class Sink(Protocol):
    """Where received bytes go, in order."""

    def write(self, data: bytes | bytearray | memoryview, /) -> object: ...


class ByteThreads:
    """The threads that touch content; their number bounds what the disks are asked at one time."""

    def __init__(self, count: int = 32) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="bytes")

    async def run(self, work: Callable[[], _T]) -> _T:
        """Do `work` in a thread and wait for its end even when this task is cancelled: nothing is left half done."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await future
            raise

    def start(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


async def pump(chunks: AsyncIterator[bytes], sink: Sink, threads: ByteThreads) -> int:
    """Write a stream into the sink and tell its size; the sink sees batches, one call at a time, in order."""
    pending: asyncio.Future[object] | None = None
    batch, gathered, total = bytearray(), 0, 0
    try:
        async for chunk in chunks:
            batch += chunk
            gathered = len(batch)
            if gathered >= BATCH_BYTES:
                pending = await _hand_over(pending, batch, sink, threads)
                batch, total = bytearray(), total + gathered
        if batch:
            total += len(batch)
            pending = await _hand_over(pending, batch, sink, threads)
    finally:
        if pending is not None:
            await _settle(pending)
    if pending is not None:
        pending.result()
    return total


async def _hand_over(
    pending: asyncio.Future[object] | None, batch: bytearray, sink: Sink, threads: ByteThreads
) -> asyncio.Future[object]:
    if pending is not None:
        await asyncio.shield(pending)
    return threads.start(lambda: sink.write(batch))


async def _settle(pending: asyncio.Future[object]) -> None:
    """Wait for a thread whatever happens to this task; its error is for whoever asks for its result."""
    while not pending.done():
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await asyncio.shield(pending)


async def iter_body(request: Request, length: int) -> AsyncIterator[bytes]:
    """The body of the request; raises ClientDisconnect when it ends before its stated length."""
    seen = 0
    async for chunk in request.stream():
        seen += len(chunk)
        yield chunk
    if seen < length:
        raise ClientDisconnect


async def iter_in_threads(chunks: Iterator[bytes], threads: ByteThreads) -> AsyncIterator[bytes]:
    """The chunks of a blocking iterator in pieces of about a MiB, read one ahead; the iterator is closed at the end."""
    following = threads.start(lambda: _gather(chunks))
    try:
        while piece := await asyncio.shield(following):
            following = threads.start(lambda: _gather(chunks))
            yield piece
    finally:
        await _settle(following)  # type: ignore[arg-type]  # a future is invariant; only its end matters here
        await threads.run(lambda: _close(chunks))


def _gather(chunks: Iterator[bytes]) -> bytes:
    first = next(chunks, b"")
    if len(first) >= CHUNK_BYTES or not first:
        return first
    gathered = bytearray(first)
    while len(gathered) < CHUNK_BYTES and (more := next(chunks, b"")):
        gathered += more
    return bytes(gathered)


def _close(chunks: Iterator[bytes]) -> None:
    close = getattr(chunks, "close", None)
    if close is not None:
        close()
