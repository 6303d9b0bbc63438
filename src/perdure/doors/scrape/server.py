"""The port where Prometheus asks; no part of the service for people, so it needs no more than the standard library."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

import structlog

log = structlog.get_logger(__name__)

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SLOWEST_CLIENT = 10.0  # seconds


@contextmanager
def scraping(host: str, port: int, token: str | None, render: Callable[[], bytes]) -> Iterator[int]:
    """Answer `GET /metrics` with what `render` gives while the block runs; yields the port, which is free for 0.

    With a token only those who send it as a bearer token are answered. Raises OSError when the port is taken.
    """
    server = _server(host)((host, port), _handler(token, render))
    thread = threading.Thread(target=server.serve_forever, name="scrape", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _server(host: str) -> type[ThreadingHTTPServer]:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True
        block_on_close = False  # nobody waits for a scraper that hangs

        def server_bind(self) -> None:
            TCPServer.server_bind(self)  # the class between asks the name service for our name
            self.server_name, self.server_port = host, self.server_address[1]

        def handle_error(self, request: object, client_address: object) -> None:
            log.info("scrape_broken_off")

    return Server


def _handler(token: str | None, render: Callable[[], bytes]) -> type[BaseHTTPRequestHandler]:
    wanted = None if token is None else f"Bearer {token}".encode()

    class Handler(BaseHTTPRequestHandler):
        timeout = _SLOWEST_CLIENT
        server_version, sys_version = "metrics", ""

        def do_GET(self) -> None:
            given = self.headers.get("Authorization", "").encode(errors="replace")
            if wanted is not None and not compare_digest(given, wanted):
                self._answer(401, b"A bearer token is needed: metrics_token.\n", ("WWW-Authenticate", "Bearer"))
            elif self.path.partition("?")[0] != "/metrics":
                self._answer(404, b"There is nothing but /metrics.\n")
            else:
                self._answer(200, render())

        def _answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
            self.send_response(status)
            self.send_header("Content-Type", _CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *values: object) -> None:  # noqa: A002  # the base class calls it so
            log.debug("scrape", said=format % values)

    return Handler
