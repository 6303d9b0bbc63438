"""What happens to every request, whatever door it knocks at: an id, a log line, safe headers, limits for bodies.

Plain ASGI, because the framework's own middleware class buffers streams and hides the client's disconnect.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perdure.doors.http.auth import get_data_caller, identity_of
from perdure.doors.http.errors import BodyTooLargeError
from perdure.doors.http.limiting import standing_headers
from perdure.doors.http.paths import raw_path_of, set_tail_aside
from perdure.doors.http.problems import problem_response
from perdure.doors.http.watching import FinishedRequest, NoWatch, RequestWatch
from perdure.kernel.errors import PerdureError
from perdure.kernel.ids import new_id
from perdure.kernel.tally import Tally, start_counting, stop_counting

_log = structlog.get_logger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_STREAMED = re.compile(
    r"/api/v1/(archives/[^/]+/(files/.*|batch|uploads)|uploads/[^/]+)|/s/[^/]+/(files/.*|uploads/[^/]+)", re.DOTALL
)
_LISTING = re.compile(r"/api/v1/archives/[^/]+/(plan|remove|hide|read-batch|metadata|file-metadata/.*)", re.DOTALL)
LARGEST_LISTING = 32 * 1024 * 1024  # a plan of 20,000 items with long paths and digests
LARGEST_JSON = 4 * 1024 * 1024  # a record with thousands of creators
LARGEST_FROM_STRANGERS = 1024 * 1024  # a login, or the names of a thousand files

_SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
)
# for all below the address of a link, also of one that a mail has, which lets in whoever has it
_OF_LINKS = (
    (b"cache-control", b"private, no-store"),
    (b"x-robots-tag", b"noindex, nofollow"),
)
# for the host and all its ports: so only where pages and data both go over TLS
_ONLY_TLS = (b"strict-transport-security", b"max-age=31536000")


class Threshold:
    """The outermost ring: gives each request its id, logs its outcome and lets no exception out unanswered."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        clock: Callable[[], float] = time.perf_counter,
        watch: RequestWatch | None = None,
        is_https: bool = False,
    ) -> None:
        self._app = app
        self._clock = clock
        self._watch = watch or NoWatch()
        self._headers = (*_SAFE_HEADERS, *([_ONLY_TLS] if is_https else []))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["archive.request_id"] = _choose_request_id(Headers(scope=scope))
        set_tail_aside(scope)
        headers = (*self._headers, *(_OF_LINKS if raw_path_of(scope).startswith((b"/s/", b"/mail/")) else ()))
        outcome = _Outcome(scope, receive, send, self._clock, headers)
        counting = start_counting(outcome.tally)
        self._watch.began()
        try:
            await self._app(scope, outcome.receive, outcome.send)
        except Exception as error:
            _log.error("request_crashed", request_id=outcome.request_id, exc_info=error)
            if outcome.status is not None:
                raise  # the answer is under way: only breaking the connection tells that it is not whole
            crash = PerdureError("The server met an error that nobody foresaw; the log has it under the request id.")
            await problem_response(crash, outcome.request_id)(scope, receive, outcome.send)
        finally:
            stop_counting(counting)
            self._tell(scope, outcome)

    def _tell(self, scope: Scope, outcome: _Outcome) -> None:
        operation = getattr(
            scope.get("route"), "name", None
        )  # not the path, which may hold names of people and samples
        self._watch.ended(outcome.finish(scope["method"], operation))
        _log.info(
            "request",
            request_id=outcome.request_id,
            method=scope["method"],
            operation=operation,
            status=outcome.status,
            sent_bytes=outcome.sent,
            milliseconds=round(outcome.seconds * 1000, 1),
            client=(scope.get("client") or ("",))[0],
        )


class _Outcome:
    """Watches what comes and what is sent, and adds the headers that every answer carries."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        clock: Callable[[], float],
        headers: Iterable[tuple[bytes, bytes]],
    ) -> None:
        self.request_id: str = scope["archive.request_id"]
        self.status: int | None = None
        self.sent = 0
        self.tally = Tally("request_id", self.request_id)
        self._scope = scope
        self._receive = receive
        self._send = send
        self._clock = clock
        self._headers = headers
        self._started = clock()
        self._busy: float | None = None

    @property
    def seconds(self) -> float:
        return self._clock() - self._started

    def finish(self, method: str, operation: str | None) -> FinishedRequest:
        busy = self._busy_seconds() if self._busy is None else self._busy
        return FinishedRequest(self.request_id, method, operation, self.status, busy, self.sent, self.tally)

    async def receive(self) -> Message:
        asked = self._clock()
        message = await self._receive()
        if message["type"] == "http.request":  # the other kind, the end of the connection, nobody waits for
            self.tally.waited += self._clock() - asked
            self.tally.received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._busy = self._busy_seconds()
            always = (*self._headers, *standing_headers(self._scope))
            message["headers"] = _complete(message.get("headers", ()), self.request_id, always)
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
        await self._send(message)

    def _busy_seconds(self) -> float:
        return max(0.0, self.seconds - self.tally.waited)


class BodyLimit:
    """Refuses bodies that are read into memory whole and are larger than any of them needs to be.

    The framework reads and decodes a body before anybody asks who sent it, and decoded JSON is many times as large:
    so whoever sends much says first who he is.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _STREAMED.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        largest = LARGEST_LISTING if _LISTING.fullmatch(scope["path"]) else LARGEST_JSON
        try:
            if (_stated_length(headers) or 0) > largest:
                raise BodyTooLargeError(f"The body is larger than {largest} bytes.", limit=largest)
            if _may_be_large(headers):
                await run_in_threadpool(_require_known_caller, Request(scope))
        except PerdureError as error:
            await problem_response(error, scope["archive.request_id"])(scope, receive, send)
            return
        await self._app(scope, self._counting(receive, largest), send)

    @staticmethod
    def _counting(receive: Receive, largest: int) -> Receive:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > largest:
                raise HTTPException(413)
            return message

        return counted


def _complete(
    headers: Iterable[tuple[bytes, bytes]], request_id: str, always: Iterable[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    """The headers of an answer with those that every answer carries; what it says itself stands."""
    complete = [header for header in headers if header[0] != b"x-request-id"]
    said = {name for name, _ in complete}
    complete.append((b"x-request-id", request_id.encode()))
    complete += [header for header in always if header[0] not in said]
    return complete


def _may_be_large(headers: Headers) -> bool:
    stated = _stated_length(headers)
    return "transfer-encoding" in headers if stated is None else stated > LARGEST_FROM_STRANGERS


def _require_known_caller(request: Request) -> None:
    identity_of(get_data_caller(request, request.app.state.services))  # each door looks again whom it lets in


def _choose_request_id(headers: Headers) -> str:
    offered = headers.get("x-request-id", "")
    return offered if _REQUEST_ID.fullmatch(offered) else new_id().hex


def _stated_length(headers: Headers) -> int | None:
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None
