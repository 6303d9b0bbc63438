"""Bytes straight to and from the socket: a general HTTP client takes several times the CPU for each of them."""

from __future__ import annotations

import http.client
import select
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from urllib.request import getproxies, proxy_bypass

import httpx

PIECE = 1 << 20
_Connection = http.client.HTTPConnection
Piece = bytes | bytearray | memoryview


@dataclass(frozen=True)
class LargeAnswer:
    """An answer whose bytes come in pieces of up to 1 MiB, in order."""

    status_code: int
    pieces: Iterator[bytes]


@dataclass(frozen=True)
class Asked:
    """An answer whose head was read, and the connection that its bytes come by."""

    url: httpx.URL
    connection: _Connection
    response: http.client.HTTPResponse


class Sockets:
    """Connections for large bodies, used again one after the other; safe to use from several threads."""

    def __init__(self, *, verify: bool | ssl.SSLContext, timeout: float) -> None:
        self._verify, self._timeout = verify, timeout
        self._idle: dict[tuple[str, str, int], list[_Connection]] = {}
        self._is_closed = False

    def get(self, url: httpx.URL, headers: Mapping[str, str]) -> Asked:
        """Ask and read the head of the answer; raises OSError and http.client.HTTPException.

        A server may end a connection that was kept while the next question is on its way: that one is asked again.
        """
        kept = self._take_kept(url)
        if kept is not None:
            with suppress(ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected):
                return _ask(url, kept, headers)
        return _ask(url, self._connect(*_place(url)), headers)

    def send(
        self, method: str, url: httpx.URL, headers: Mapping[str, str], pieces: Iterable[Piece]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Send a body, whose length the headers tell, and read the answer whole.

        Raises OSError and http.client.HTTPException, and what `pieces` raise. A server may answer before the end of
        the body: then no more of it is sent.
        """
        connection, response, is_reusable = self._take_kept(url) or self._connect(*_place(url)), None, False
        try:
            connection.putrequest(method, url.raw_path.decode("ascii"), skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            is_whole = _send_pieces(connection, pieces)
            response = connection.getresponse()
            body = response.read()
            is_reusable = is_whole and not response.will_close
            return response, body
        finally:
            self._give_back(url, connection, response, is_reusable=is_reusable)

    def iter_pieces(self, asked: Asked) -> Iterator[bytes]:
        """The bytes of an answer; raises OSError and http.client.HTTPException, also when it ends too early."""
        response, is_reusable = asked.response, False
        try:
            while piece := response.read(PIECE):
                yield piece
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
            is_reusable = not response.will_close
        finally:
            self._give_back(asked.url, asked.connection, response, is_reusable=is_reusable)

    def _take_kept(self, url: httpx.URL) -> _Connection | None:
        """An idle connection that the server has not ended, as far as it is known here."""
        idle = self._idle.setdefault(_place(url), [])
        while idle:
            try:
                connection = idle.pop()
            except IndexError:  # another thread was faster
                break
            if not _has_news(connection):
                return connection
            connection.close()
        return None

    def _give_back(
        self,
        url: httpx.URL,
        connection: _Connection,
        response: http.client.HTTPResponse | None,
        *,
        is_reusable: bool,
    ) -> None:
        if is_reusable and not self._is_closed:
            self._idle[_place(url)].append(connection)
            return
        connection.close()
        if response is not None:
            response.close()  # it holds the socket of a connection that the server wants closed

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it is given back."""
        self._is_closed = True
        for idle in self._idle.values():
            while idle:
                idle.pop().close()

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return httpx.create_ssl_context(verify=self._verify)

    def _connect(self, scheme: str, host: str, port: int) -> _Connection:
        if scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._context)
        return _Connection(host, port, timeout=self._timeout)


def is_proxied(url: httpx.URL) -> bool:
    """Whether the environment sends requests to this address through a proxy."""
    proxies = getproxies()
    return (url.scheme in proxies or "all" in proxies) and not proxy_bypass(url.host)


def _ask(url: httpx.URL, connection: _Connection, headers: Mapping[str, str]) -> Asked:
    try:
        connection.request("GET", url.raw_path.decode("ascii"), headers=dict(headers))
        return Asked(url, connection, connection.getresponse())
    except BaseException:
        connection.close()
        raise


def _place(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def _send_pieces(connection: _Connection, pieces: Iterable[Piece]) -> bool:
    """Send until the end, or until the server has something to say; whether it was all."""
    try:
        for piece in pieces:
            # tickets for a next session of TLS come at any time, and are no answer
            if not isinstance(connection.sock, ssl.SSLSocket) and _has_news(connection):
                return False
            connection.send(piece)
    except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
        return False  # it may have said why; if not, reading the answer fails too
    return True


def _has_news(connection: _Connection) -> bool:
    """Whether there is something to read before an answer is due: an early one, or the end of the connection."""
    if connection.sock is None:
        return False
    waiting = select.poll()
    waiting.register(connection.sock, select.POLLIN)
    return bool(waiting.poll(0))
