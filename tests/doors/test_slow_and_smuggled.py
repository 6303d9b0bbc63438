"""Clients that take all the time in the world, and requests that two servers would read in two ways."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import httpx
import pytest

from perdure.app import wire
from perdure.testing.app import RunningApplication

from .callers import Caller

PLANES = ("api", "data")
INNER = b"GET /api/v1/inner HTTP/1.1\r\nHost: here\r\nX-Request-Id: smuggled-request\r\n\r\n"


@contextmanager
def connected(running: RunningApplication, plane: str) -> Iterator[socket.socket]:
    parts = urlsplit(running.url if plane == "api" else running.data_url)
    assert parts.hostname is not None
    with socket.create_connection((parts.hostname, parts.port or 0), timeout=20) as line:
        yield line


def receive_all(line: socket.socket, *, within: float = 10.0) -> bytes:
    """What is answered until the connection ends, or nothing comes for a while."""
    line.settimeout(within)
    taken = b""
    try:
        while piece := line.recv(65536):
            taken += piece
    except (TimeoutError, ConnectionResetError):
        pass
    return taken


# What must be refused: read by another server in front of us, each ends at another place, or has another header.
AMBIGUOUS = {
    "length_and_chunks": b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    "chunks_and_length": b"Transfer-Encoding: chunked\r\nContent-Length: 200\r\n\r\n0\r\n\r\n",
    "two_lengths": b"Content-Length: 0\r\nContent-Length: 200\r\n\r\n",
    "two_equal_lengths": b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "list_of_lengths": b"Content-Length: 0, 200\r\n\r\n",
    "signed_length": b"Content-Length: +0\r\n\r\n",
    "hexadecimal_length": b"Content-Length: 0x0\r\n\r\n",
    "length_past_every_number": b"Content-Length: 99999999999999999999999\r\n\r\n",
    "length_with_letters": b"Content-Length: 0a\r\n\r\n",
    "unknown_coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding_after_chunks": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "two_codings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "blank_before_colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "length_with_blank_before_colon": b"Content-Length : 0\r\n\r\n",
    "folded_line": b"X-First: a\r\n Content-Length: 200\r\n\r\n",
    "folded_coding": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "folded_first_line": b" X-First: a\r\n\r\n",
    "bare_line_feed": b"X-First: a\nContent-Length: 200\r\n\r\n",
    "bare_return": b"X-First: a\rContent-Length: 200\r\n\r\n",
    "only_line_feeds": b"Content-Length: 0\n\n",
    "nul_in_a_value": b"X-First: a\0b\r\n\r\n",
    "nul_in_a_name": b"X-Fi\0rst: a\r\n\r\n",
    "no_colon": b"Content-Length 0\r\n\r\n",
    "wrong_chunk_length": b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    "chunk_with_line_feed": b"Transfer-Encoding: chunked\r\n\r\n1\na\n0\n\n",
    "chunk_longer_than_said": b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", list(AMBIGUOUS))
def test_what_could_be_read_in_two_ways_is_refused_and_ends_the_connection(
    running: RunningApplication, plane: str, name: str
) -> None:
    with connected(running, plane) as line:
        line.sendall(b"POST /api/v1/login HTTP/1.1\r\nHost: here\r\n" + AMBIGUOUS[name] + INNER)
        answered = receive_all(line, within=3.0)
    assert b"smuggled-request" not in answered, answered
    assert answered.count(b"HTTP/1.1 ") <= 1
    assert answered.startswith(b"HTTP/1.1 400 ") or not answered, answered[:200]


@pytest.mark.parametrize("plane", PLANES)
def test_requests_one_after_the_other_are_told_apart(running: RunningApplication, plane: str) -> None:
    """So that the test before would find a request that was smuggled in."""
    with connected(running, plane) as line:
        line.sendall(
            b"POST /api/v1/login HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
            + INNER
        )
        answered = receive_all(line, within=15.0)
    assert answered.count(b"HTTP/1.1 ") == 2
    assert b"smuggled-request" in answered


@pytest.mark.parametrize("length", [b"0", b"300000"])
def test_a_body_that_nobody_wants_is_no_request(running: RunningApplication, length: bytes) -> None:
    """Refused before it is read, it is passed over to its end and never taken for another request."""
    body = INNER * (int(length) // len(INNER) + 1)
    with connected(running, "data") as line:
        head = b"PUT /api/v1/archives/x/files/y HTTP/1.1\r\nHost: here\r\nContent-Length: " + length + b"\r\n\r\n"
        line.sendall(head + body[: int(length)])
        answered = receive_all(line, within=3.0)
    assert b"smuggled-request" not in answered
    assert answered.count(b"HTTP/1.1 ") == 1


@contextmanager
def held_open(running: RunningApplication, plane: str, head: bytes, count: int) -> Iterator[list[socket.socket]]:
    """So many connections on which somebody began to send, and does not go on."""
    with ExitStack() as stack:
        lines = [stack.enter_context(connected(running, plane)) for _ in range(count)]
        for line in lines:
            line.sendall(head)
        yield lines


SLOW = {
    "slow_headers": b"GET /healthz HTTP/1.1\r\nHost: here\r\nX-Slow: ",
    "slow_body": b"POST /api/v1/login HTTP/1.1\r\nHost: here\r\nContent-Length: 90\r\n\r\n{",
    "slow_chunks": b"POST /api/v1/login HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    "slow_upload": b"PUT /api/v1/archives/%b/files/slow HTTP/1.1\r\nHost: here\r\nAuthorization: %b\r\n"
    b"Content-Length: 900000\r\n\r\nx",
}


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", list(SLOW))
def test_others_are_answered_beside_many_who_are_slow(
    running: RunningApplication, ada: Caller, archive: str, plane: str, name: str
) -> None:
    """More of them than there are threads for requests and for bytes, and connections to the database."""
    head = SLOW[name].replace(b"%b", archive.encode(), 1).replace(b"%b", ada.headers["authorization"].encode())
    base = ada.data if plane == "data" else str(ada.base_url).rstrip("/")
    with held_open(running, plane, head, 150):
        time.sleep(0.5)
        with httpx.Client(headers=dict(ada.headers), timeout=20) as other:
            for _ in range(5):
                assert other.get(f"{base}/archives/{archive}/files/none").status_code == 404
        assert ada.get("/me").status_code == 200
        assert ada.put_file(archive, "quick", b"quick").status_code == 201


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", ["slow_body", "slow_chunks", "slow_upload"])
def test_a_body_that_does_not_come_on_is_not_waited_for(
    running: RunningApplication,
    ada: Caller,
    archive: str,
    plane: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "SLOWEST_GAP", 0.5)
    head = SLOW[name].replace(b"%b", archive.encode(), 1).replace(b"%b", ada.headers["authorization"].encode())
    with connected(running, plane) as line:
        line.sendall(head)
        for _ in range(4):  # whoever goes on is waited for
            time.sleep(0.3)
            line.sendall(b"1")
        began = time.monotonic()
        receive_all(line, within=10.0)
        assert time.monotonic() - began < 8.0, "the connection is still open"
    answer = ada.put_file(archive, "steady", b"s" * 900_000)
    assert answer.status_code == 201
    assert ada.put_file(archive, "again", b"s").status_code == 201
