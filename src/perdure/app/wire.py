"""HTTP as it comes over the wire, with an end to what a stranger may send before anybody looks at it.

The rest of a large body can be taken past the parser: every byte that goes through it is copied four times in pieces of
64 KiB, which costs more than to receive it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from perdure.doors.http.hops import CLIENT_CERTIFICATE

LARGEST_HEAD = 128 * 1024  # paths of 4,096 bytes, encoded, and many of them in one query
SLOWEST_HEAD = 30.0  # seconds
SLOWEST_GAP = 120.0  # seconds without a byte of a body that somebody waits for
LARGE_BODY = 256 * 1024
TAKE_BODY = "archive.take_body"  # in the scope of a request whose body is large: see BoundedProtocol.take_body
_LARGE_PIECE = 64 * 1024  # costs more to copy than to send by itself
_NO_ROOM = memoryview(bytearray())


class RestOfBody(asyncio.BufferedProtocol):
    """What is still to come of a body, received straight into the memory of who asks; `left` tells how much it is.

    One task at a time reads; `give_back` ends it, and the connection goes on with the next request.
    """

    def __init__(self, owner: BoundedProtocol, transport: asyncio.Transport, left: int) -> None:
        self.left = left
        self._owner = owner
        self._transport = transport
        self._room = _NO_ROOM
        self._filled = 0
        self._done: asyncio.Future[None] | None = None
        self._is_late = False
        self._is_lost = False
        transport.set_protocol(self)

    async def read_into(self, room: memoryview, *, patience: float) -> int:
        """Fill the room, or as much of it as there is left or comes in `patience` seconds; how many bytes came.

        One comes at least, unless the client went away meanwhile, or sent nothing for SLOWEST_GAP; after that it raises
        ConnectionResetError.
        """
        if self._is_lost or self._transport.is_closing():
            raise ConnectionResetError
        self._room, self._filled = room[: self.left], 0
        if len(self._room):
            loop = asyncio.get_running_loop()
            self._done, self._is_late = loop.create_future(), False
            timer = loop.call_later(patience, self._lose_patience)
            self._transport.resume_reading()
            try:
                await self._done
            finally:
                timer.cancel()
                self._transport.pause_reading()
                self._room, self._done = _NO_ROOM, None
        return self._filled

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for bytes from the client at this moment."""
        return self._done is not None

    def give_back(self) -> None:
        """Let the connection go on; what nobody read of the body is passed over."""
        if not self._is_lost:
            self._transport.set_protocol(self._owner)
            self._owner.pass_over(self.left)

    # What the transport calls

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self.left -= nbytes
        self._owner.note_bytes()
        if self._filled == len(self._room) or self._is_late:
            self._transport.pause_reading()
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._wake()
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()

    def _lose_patience(self) -> None:
        self._is_late = True
        if self._filled:
            self._wake()

    def _wake(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)


class _Together:
    """The transport of one answer: its head goes out with the piece that follows at once, by one call of the system."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.is_closing = transport.is_closing
        self._transport = transport
        self._loop = loop
        self._is_begun = False
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            if len(data) < _LARGE_PIECE:
                data, self._head = self._head + data, b""
            else:
                self._send_head()
        elif not self._is_begun:
            self._is_begun, self._head = True, data
            self._loop.call_soon(self._send_head)
            return
        self._transport.write(data)

    def close(self) -> None:
        self._send_head()
        self._transport.close()

    def _send_head(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)


class BoundedProtocol(HttpToolsProtocol):
    """Ends connections whose request line and headers are too long or too slow: the parser gathers them for ever.

    So are those whose body does not come on any more while somebody waits for it.
    """

    def __init__(self, *given: Any, **named: Any) -> None:  # Any: what the server gives its protocol
        super().__init__(*given, **named)
        self._is_in_head = True
        self._head_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._body_left: int | None = None  # as Content-Length says, without what the parser has passed on
        self._certificate: bytes | None = None  # of the client, which TLS has verified
        self._unread = 0  # bytes of a body that nobody wants and the parser does not know of
        self._rest: RestOfBody | None = None
        self._last_bytes = 0.0  # when some came, by the loop's clock
        self._gap: asyncio.TimerHandle | None = None  # looks after them while a body is under way

    def take_body(self, cycle: RequestResponseCycle) -> tuple[bytes, RestOfBody] | None:
        """What has come of the body and was not read yet, and its rest; None when the parser is to go on with it.

        A request finds this, bound to itself, in its scope, and calls it after the first `receive`, which tells the
        client to go on.
        """
        if cycle is not self.cycle or not cycle.more_body or cycle.disconnected or not self._body_left:
            return None
        self.flow.pause_reading()
        come, cycle.body = bytes(cycle.body), bytearray()
        self._rest = RestOfBody(self, self.transport, self._body_left)
        return come, self._rest

    def pass_over(self, count: int) -> None:
        """Go on after a body that was taken, when so many more bytes of it have come."""
        self._rest = None
        self.parser = httptools.HttpRequestParser(self)  # the old one waits for the bytes that went past it
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as the server's own
        self._unread = count
        if not count:
            self.on_message_complete()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        super().connection_made(transport)
        secured = transport.get_extra_info("ssl_object")
        self._certificate = None if secured is None else secured.getpeercert(binary_form=True)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        self._end_gap()
        super().connection_lost(exc)

    def note_bytes(self) -> None:
        """Know that the client still sends."""
        self._last_bytes = self.loop.time()

    def data_received(self, data: bytes) -> None:
        self.note_bytes()
        if self._unread:
            data = self._pass_over(data)
            if not data:
                return
        super().data_received(data)
        if not self._is_in_head:
            return
        self._head_bytes += len(data)
        if self._head_bytes > LARGEST_HEAD and not self.transport.is_closing():
            self.send_400_response("The headers of the request are too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begin_head()

    def on_headers_complete(self) -> None:
        self._end_head()
        super().on_headers_complete()
        self.cycle.transport = cast("asyncio.Transport", _Together(self.transport, self.loop))
        if self._certificate is not None:
            self.scope[CLIENT_CERTIFICATE] = self._certificate  # type: ignore[literal-required]  # ours
        self._body_left = _find_length(self.headers)
        if self._body_left is not None and self._body_left >= LARGE_BODY:
            self.scope[TAKE_BODY] = partial(self.take_body, self.cycle)  # type: ignore[literal-required]  # ours
        if self._body_left != 0:
            self._end_gap()
            self._gap = self.loop.call_later(SLOWEST_GAP, self._look_for_gap)

    def on_message_complete(self) -> None:
        self._end_gap()
        super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if self._body_left is not None:
            self._body_left -= len(body)

    def _pass_over(self, data: bytes) -> bytes:
        """What of this belongs to the next request."""
        passed = min(self._unread, len(data))
        self._unread -= passed
        if not self._unread:
            self.on_message_complete()
        return data[passed:]

    def _begin_head(self) -> None:
        self._end_head()
        self._is_in_head, self._head_bytes = True, 0
        self._deadline = self.loop.call_later(SLOWEST_HEAD, self._give_up)

    def _end_head(self) -> None:
        self._is_in_head = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _look_for_gap(self) -> None:
        """End the connection when the client sends nothing that could be taken, also of what nobody reads any more: its
        bytes end the time that the server gives a connection between two requests."""
        self._gap = None
        if self.transport.is_closing():
            return
        is_taken = not self.flow.read_paused if self._rest is None else self._rest.is_awaited
        if not is_taken and not self.cycle.response_complete:
            self.note_bytes()
        left = self._last_bytes + SLOWEST_GAP - self.loop.time()
        if left > 0:
            self._gap = self.loop.call_later(left, self._look_for_gap)
        else:
            self.transport.abort()

    def _end_gap(self) -> None:
        if self._gap is not None:
            self._gap.cancel()
            self._gap = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def _find_length(headers: list[tuple[bytes, bytes]]) -> int | None:
    """The Content-Length, which the parser has found to be a number; None where the body has another end."""
    found = dict(headers)
    return None if b"transfer-encoding" in found else int(found.get(b"content-length", b"0"))
