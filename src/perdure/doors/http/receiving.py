"""Requests that bring bytes: how many they say, and what happens when they do not come."""

from __future__ import annotations

from typing import Protocol, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from perdure.doors.http.errors import LengthRequiredError, MalformedRequestError
from perdure.doors.http.streams import Body, ByteThreads, pump

_T_co = TypeVar("_T_co", covariant=True)


class Receiver(Protocol[_T_co]):
    """Takes content in order; either `finish` or `abort` ends it, and gives its reservation back or uses it up."""

    def write(self, data: bytes | bytearray | memoryview, /) -> object: ...

    def finish(self) -> _T_co: ...

    def abort(self) -> None: ...


class IncompleteBodyError(MalformedRequestError):
    """Nobody reads this answer as a rule: the connection is gone. The log does."""

    code = "incomplete_body"
    title = "The connection ended before the content did"
    next_step = "Send it again; nothing of it was kept."


_T = TypeVar("_T")


def require_length(request: Request) -> int:
    """The Content-Length; raises LengthRequiredError without one, as with chunked transfer."""
    text = request.headers.get("content-length", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise LengthRequiredError("The request has no Content-Length.")
    return int(text)


async def receive_all(body: Body, receiver: Receiver[_T], threads: ByteThreads, *, is_roomy: bool = False) -> _T:
    """Move the rest of a body into the receiver and finish it; whatever goes wrong, cancellation too, aborts it."""
    try:
        await pump(body, receiver, threads, is_roomy=is_roomy)
        return await threads.run(receiver.finish)
    except BaseException as error:
        await threads.run(receiver.abort)
        if isinstance(error, ClientDisconnect):
            raise IncompleteBodyError("The client went away before the end of the content.") from None
        raise
    finally:
        body.close()


async def receive_body(request: Request, length: int, receiver: Receiver[_T], threads: ByteThreads) -> _T:
    """`receive_all` for the body of a request."""
    return await receive_all(Body(request, length), receiver, threads)
