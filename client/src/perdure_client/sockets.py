"""Large answers read straight from the socket: a general HTTP client takes ten times the CPU for each byte."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.request import getproxies, proxy_bypass

import httpx

PIECE = 1 << 20
_Connection = http.client.HTTPConnection


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
    """Connections for large answers, used again one after the other; safe to use from several threads."""

    def __init__(self, *, verify: bool | str, timeout: float) -> None:
        self._verify, self._timeout = verify, timeout
        self._idle: dict[tuple[str, str, int], list[_Connection]] = {}

    def get(self, url: httpx.URL, headers: Mapping[str, str]) -> Asked:
        """Ask and read the head of the answer; raises OSError and http.client.HTTPException."""
        place = _place(url)
        idle = self._idle.setdefault(place, [])
        while idle:
            try:
                connection = idle.pop()
            except IndexError:  # another thread was faster
                break
            try:
                return _ask(connection, url, headers)
            except (OSError, http.client.HTTPException):
                connection.close()  # the server had ended it; a fresh one tells whether there is more to it
        connection = self._connect(*place)
        try:
            return _ask(connection, url, headers)
        except BaseException:
            connection.close()
            raise

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
            if is_reusable:
                self._idle[_place(asked.url)].append(asked.connection)
            else:
                asked.connection.close()

    def close(self) -> None:
        """Close what is idle."""
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


def _place(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def _ask(connection: _Connection, url: httpx.URL, headers: Mapping[str, str]) -> Asked:
    connection.request("GET", url.raw_path.decode("ascii"), headers=dict(headers))
    return Asked(url, connection, connection.getresponse())
