"""HTTP to one server: authentication, problems as exceptions, retries of what may be sent twice."""

from __future__ import annotations

import http.client
import random
import ssl
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from perdure_client.errors import ApiError, ConnectionLostError, UsageError
from perdure_client.settings import Session
from perdure_client.sockets import PIECE, Asked, LargeAnswer, Piece, Sockets, is_proxied

API = "/api/v1"
_RETRIES = 5
_FIRST_PAUSE = 0.3
_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
_READ_TIMEOUT = 120.0
_OF_CONNECTIONS = frozenset({"host", "connection", "accept-encoding"})  # the sockets tell these themselves
_TIMEOUT = httpx.Timeout(connect=10.0, read=_READ_TIMEOUT, write=120.0, pool=60.0)

Json = Any  # decoded JSON: its shape is the server's contract, checked where records are made
Body = bytes | Iterable[bytes]


class Transport:
    """One pool of connections, safe to use from several threads.

    Requests that change nothing when repeated are tried again, with growing pauses, when the connection breaks or
    the server answers "try again", then after the time that it asks for (a minute at most); others only when they
    carry an idempotency key or `repeatable=True`.
    """

    def __init__(self, session: Session, *, connections: int = 8, verify: bool | str = True) -> None:
        self.session = session
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        trusted = ssl.create_default_context(cafile=verify) if isinstance(verify, str) else verify
        told = {"User-Agent": f"perdure-client/{version('perdure-client')}"}
        self._http = httpx.Client(timeout=_TIMEOUT, limits=limits, verify=trusted, follow_redirects=False, headers=told)
        self._sockets = Sockets(verify=trusted, timeout=_READ_TIMEOUT)
        self._data_url: str | None = None

    def close(self) -> None:
        self._http.close()
        self._sockets.close()

    def data_url(self) -> str:
        """Where bytes go: the address of the data plane, asked for once."""
        if self._data_url is None:
            told = str(self.json("GET", "")["data_url"]).rstrip("/")
            if self.session.url.startswith("https://") and not told.startswith("https://"):
                raise UsageError(
                    f"{self.session.url} names {told} for files, where the token would go without TLS.",
                    next_step="Tell the operator: data_url must be an https address.",
                )
            self._data_url = told
        return self._data_url

    def json(self, method: str, path: str, **options: Any) -> Json:
        """Send a request to the API and decode the answer; None for an empty one. Options are those of `request`."""
        response = self.request(method, path, **options)
        return response.json() if response.content else None

    def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        content: Body | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, object] | None = None,
        plane: str = "api",
        repeatable: bool = False,
    ) -> httpx.Response:
        """Send a request and read the answer whole; raises ApiError or ConnectionLostError."""
        headers = dict(headers or {})
        may_repeat = repeatable or method in _REPEATABLE or "Idempotency-Key" in headers
        may_repeat = may_repeat and (content is None or isinstance(content, bytes))
        for attempt in range(_RETRIES):
            told_wait = 0.0
            try:
                request = self._build(method, path, json, content, headers, params, plane)
                response = self._http.send(request)
            except httpx.TransportError as error:
                if not may_repeat or attempt == _RETRIES - 1:
                    raise self._lost(error) from error
            else:
                problem = _find_problem(response)
                if problem is None:
                    return response
                if not (may_repeat and problem.is_worth_a_retry) or attempt == _RETRIES - 1:
                    raise problem
                told_wait = problem.wait_seconds
            _pause(attempt, told_wait)
        raise AssertionError("the loop above ends by return or raise")

    def send(
        self,
        method: str,
        path: str,
        pieces: Iterable[Piece],
        *,
        size: int,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
    ) -> httpx.Response:
        """Send `size` bytes to the data plane and read the answer; raises like `request`.

        With `repeatable` it may be sent again as `request` does: then the pieces can be had more than once.
        """
        told = {**(headers or {}), "Content-Length": str(size)}
        tries = _RETRIES if repeatable else 1
        for attempt in range(1, tries + 1):
            told_wait = 0.0
            request = self._build(method, path, None, b"", dict(told), None, "data")
            try:
                response = self._send_once(request, pieces)
            except (OSError, http.client.HTTPException, httpx.TransportError) as error:
                if attempt == tries:
                    raise self._lost(error) from error
            else:
                problem = _find_problem(response)
                if problem is None:
                    return response
                if not problem.is_worth_a_retry or attempt == tries:
                    raise problem
                told_wait = problem.wait_seconds
            _pause(attempt - 1, told_wait)
        raise AssertionError("the loop above ends by return or raise")

    def _send_once(self, request: httpx.Request, pieces: Iterable[Piece]) -> httpx.Response:
        if is_proxied(request.url):
            whole = (bytes(piece) for piece in pieces)
            return self._http.send(
                self._http.build_request(request.method, request.url, headers=request.headers, content=whole)
            )
        kept = {name: value for name, value in request.headers.items() if name not in _OF_CONNECTIONS}
        response, body = self._sockets.send(request.method, request.url, kept, pieces)
        return httpx.Response(response.status, headers=response.getheaders(), content=body)

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, object] | None = None,
        plane: str = "data",
    ) -> Iterator[httpx.Response]:
        """Open an answer, of the data plane unless told, to read piece by piece; raises like `request`, no retries."""
        request = self._build(method, path, None, None, dict(headers or {}), params, plane)
        try:
            response = self._http.send(request, stream=True)
            try:
                if response.status_code >= 400:
                    response.read()
                problem = _find_problem(response)
                if problem is not None:
                    raise problem
                yield response
            finally:
                response.close()
        except httpx.TransportError as error:
            raise self._lost(error) from error

    @contextmanager
    def large(self, path: str, *, headers: Mapping[str, str] | None = None) -> Iterator[LargeAnswer]:
        """Open a large file of the data plane to read piece by piece; raises like `stream`."""
        request = self._build("GET", path, None, None, dict(headers or {}), None, "data")
        if is_proxied(request.url):
            with self.stream("GET", path, headers=headers) as answer:
                yield LargeAnswer(answer.status_code, answer.iter_raw(PIECE))
            return
        kept = {
            name: request.headers[name] for name in ("Authorization", "Range", "User-Agent") if name in request.headers
        }
        try:
            asked = self._sockets.get(request.url, kept)
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error
        pieces = self._iter_pieces(asked)
        try:
            if asked.response.status >= 400:
                refused = httpx.Response(
                    asked.response.status, headers=asked.response.getheaders(), content=b"".join(pieces)
                )
                raise _find_problem(refused) or AssertionError("a status of 400 or more is a problem")
            yield LargeAnswer(asked.response.status, pieces)
        finally:
            pieces.close()
            if not asked.response.isclosed():  # it was not read to its end, or not at all
                asked.connection.close()
                asked.response.close()

    def _iter_pieces(self, asked: Asked) -> Generator[bytes, None, None]:
        try:
            yield from self._sockets.iter_pieces(asked)
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error

    def _build(
        self,
        method: str,
        path: str,
        json: object,
        content: Body | None,
        headers: dict[str, str],
        params: Mapping[str, object] | None,
        plane: str,
    ) -> httpx.Request:
        base = self.data_url() if plane == "data" else self.session.url
        url = path if path.startswith(("http://", "https://")) else f"{base}{API}{path}"
        if self.session.token and _same_server(url, (self.session.url, base)):
            headers["Authorization"] = f"Bearer {self.session.token}"
        wanted = {name: value for name, value in (params or {}).items() if value is not None}
        if wanted:
            url = f"{url}?{urlencode(wanted, quote_via=quote)}"  # not by httpx: it has no bytes, which paths are
        return self._http.build_request(method, url, json=json, content=content, headers=headers)

    def _lost(self, error: Exception) -> ConnectionLostError:
        reason = str(error) or type(error).__name__
        return ConnectionLostError(
            f"No answer from {self.session.url}: {reason}.",
            next_step="Check the address and the network, then run the command again: it goes on where it stopped.",
        )


def _same_server(url: str, bases: Iterable[str]) -> bool:
    """The token goes to the API and the data plane only, whatever address an answer names."""
    return any(url == base or url.startswith(base + "/") for base in bases)


def _find_problem(response: httpx.Response) -> ApiError | None:
    if response.status_code < 400:
        return None
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    error = ApiError(response.status_code, problem if isinstance(problem, dict) else {})
    if response.status_code == 429:
        error.wait_seconds = _find_seconds(response.headers.get("retry-after", ""))
    return error


def _find_seconds(text: str) -> float:
    """The seconds of a Retry-After; none for its other form, a date, which our server does not send."""
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _pause(attempt: int, told_wait: float = 0.0) -> None:
    own = _FIRST_PAUSE * 2**attempt * random.uniform(0.7, 1.3)  # noqa: S311  # no secret
    time.sleep(told_wait + own)  # spread, so that many clients do not return at once
