"""Bytes in and out without ever waiting for a disk in the event loop.

In: what the network brings is gathered in memory that is used again and again; while a thread digests and writes one
batch, the next one gathers. Out: a thread reads the next MiB while the last one is sent. Threads for bytes are a pool
of their own, so that a flood of transfers leaves the threads of the pages alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from functools import partial
from time import monotonic, perf_counter
from typing import Protocol, TypeVar

from starlette.requests import ClientDisconnect, Request

from perdure.kernel.tally import find_tally

CHUNK_BYTES = 1024 * 1024
# Each piece costs the event loop futures and wake-ups whatever its size, which batches feel most. For single files
# pieces are short: with four of them on their way in long ones, small requests waited twice as long. And a thousand
# slow senders must not fill the memory. How long a buffer is, while so many are lent; the first is for who asks for it:
_LENGTHS = ((16, 4 * 1024 * 1024), (64, 1024 * 1024), (sys.maxsize, 128 * 1024))
_SHORTEST = _LENGTHS[-1][1]
_KEPT_BUFFERS = 16  # of each length
_PATIENCE = 5.0  # seconds to gather a piece of what comes slowly: whoever takes it has a lease to renew

_T = TypeVar("_T")


class Sink(Protocol):
    """Where received bytes go, in order. The memory of `data` is used again as soon as `write` returns."""

    def write(self, data: bytes | bytearray | memoryview, /) -> object: ...


class Rest(Protocol):
    """The rest of a body that is taken past the parser of HTTP; see `perdure.app.wire`."""

    async def read_into(self, room: memoryview, /, *, patience: float) -> int: ...

    def give_back(self) -> None: ...


class ByteThreads:
    """The threads that touch content; their number bounds what the disks are asked at one time."""

    def __init__(self, count: int = 32) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="bytes")
        self._kept: dict[int, list[bytearray]] = {length: [] for _, length in _LENGTHS}
        self._lent = 0

    async def run(self, work: Callable[[], _T]) -> _T:
        """Do `work` in a thread and wait for its end even when this task is cancelled: nothing is left half done."""
        future = self.start(work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await future
            raise

    def start(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        in_context = copy_context().run  # whatever it costs is counted for the request
        return asyncio.get_running_loop().run_in_executor(self._pool, in_context, work)

    @contextmanager
    def lend_buffer(self, size: int, *, is_roomy: bool = False) -> Iterator[memoryview]:
        """Memory for a part of `size` bytes inside the block, used again later; for the event loop only.

        Memory that is new to a process costs as much as a copy into it.
        """
        if size < _SHORTEST:
            yield memoryview(bytearray(size))
            return
        length = next(length for most, length in _LENGTHS[not is_roomy :] if self._lent < most)
        kept = self._kept[length]
        buffer = kept.pop() if kept else bytearray(length)
        self._lent += 1
        try:
            yield memoryview(buffer)
        finally:
            self._lent -= 1
            if len(kept) < _KEPT_BUFFERS:
                kept.append(buffer)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class Body:
    """The body of a request, of a length that its sender stated; `close` it, whatever happened.

    Reading raises ClientDisconnect when the client goes away before the end.
    """

    def __init__(self, request: Request, length: int) -> None:
        self.left = length
        self._request = request
        self._come: bytes | memoryview = b""
        self._rest: Rest | None = None
        self._is_begun = False

    async def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        taken, room = bytearray(), memoryview(bytearray(min(count, _SHORTEST)))
        while len(taken) < count:  # memory for what comes, not for what is announced
            came = await self.read_into(room[: count - len(taken)])
            if not came:
                raise ClientDisconnect
            taken += room[:came]
        return bytes(taken)

    async def read_into(self, room: memoryview) -> int:
        """Fill the room, or as much of it as there is left or comes in time; how many bytes came, 0 at the end.

        What came before the client went away is given first.
        """
        filled, wanted, deadline = 0, min(len(room), self.left), monotonic() + _PATIENCE
        try:
            while filled < wanted and not (filled and monotonic() > deadline):
                came = await self._receive_into(room[filled:wanted], deadline)
                filled, self.left = filled + came, self.left - came
        except ClientDisconnect:
            if not filled:
                raise
        return filled

    def close(self) -> None:
        """Let the connection go on, with what nobody read passed over."""
        if self._rest is not None:
            self._rest.give_back()
            self._rest = None

    async def _receive_into(self, room: memoryview, deadline: float) -> int:
        if self._come:
            count = min(len(room), len(self._come))
            room[:count], self._come = self._come[:count], memoryview(self._come)[count:]
            return count
        if self._rest is not None:
            return await self._receive_rest(self._rest, room, deadline)
        if not self._take_over():
            self._come = await self._receive()
        return 0

    async def _receive_rest(self, rest: Rest, room: memoryview, deadline: float) -> int:
        started = perf_counter()
        try:
            came = await rest.read_into(room, patience=max(deadline - monotonic(), 0.0))
        except ConnectionResetError:
            raise ClientDisconnect from None
        _count(came, perf_counter() - started)
        return came

    async def _receive(self) -> bytes:
        message = await self._request.receive()
        self._is_begun = True
        if message["type"] == "http.disconnect" or not (message.get("body") or message.get("more_body")):
            raise ClientDisconnect
        return bytes(message.get("body", b""))

    def _take_over(self) -> bool:
        """Have the rest without its way through the parser, where server and length allow."""
        take = self._request.scope.get("archive.take_body") if self._is_begun else None
        taken = take() if take is not None else None
        if taken is None:
            return False
        self._come, self._rest = taken
        _count(len(self._come), 0.0)
        return True


def _count(received: int, waited: float) -> None:
    """Count what went past the ring around the request."""
    tally = find_tally()
    if tally is not None:
        tally.received += received
        tally.waited += waited


async def pump(body: Body, sink: Sink, threads: ByteThreads, *, is_roomy: bool = False) -> int:
    """Move the rest of a body into the sink and tell its size; the sink sees pieces, one call at a time, in order."""
    pending: asyncio.Future[object] | None = None
    total = 0
    with ExitStack() as lent:
        lend = partial(threads.lend_buffer, is_roomy=is_roomy)
        filling, writing = lent.enter_context(lend(body.left)), memoryview(b"")
        try:
            while count := await body.read_into(filling):
                if pending is not None:
                    await asyncio.shield(pending)
                pending = threads.start(partial(sink.write, filling[:count]))
                if body.left and not len(writing):
                    writing = lent.enter_context(lend(body.left))
                filling, writing, total = writing, filling, total + count
        finally:
            if pending is not None:
                await _settle(pending)
        if pending is not None:
            pending.result()
    return total


async def _settle(pending: asyncio.Future[object]) -> None:
    """Wait for a thread whatever happens to this task; its error is for whoever asks for its result."""
    while not pending.done():
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await asyncio.shield(pending)


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
