"""Bodies go straight to the socket; whatever a server does meanwhile, the caller hears of it."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perdure.testing.certificates import make_certificate
from perdure_client.errors import ApiError, ConnectionLostError, LocalDamageError, SourceChangedError
from perdure_client.local import LocalItem, scan_sources
from perdure_client.progress import Progress
from perdure_client.settings import Session
from perdure_client.transport import Transport
from perdure_client.upload import WholeUpload

CONTENT = os.urandom(5_000_000)


class Host:
    """A server that reads each request whole and answers as it is told; `bodies` are what came."""

    def __init__(
        self, answers: list[Callable[[socket.socket, bytes], bytes | None]], tls: ssl.SSLContext | None = None
    ) -> None:
        self._answers = answers
        self._tls = tls
        self.bodies: list[bytes] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._answers:
            connection, _ = self._listener.accept()
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self.connections += 1
            with connection:
                while self._answers and self._talk(connection):
                    pass

    def _talk(self, connection: socket.socket) -> bool:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = connection.recv(1)
            if not byte:
                return False
            head += byte
        if head.startswith(b"GET /api/v1 "):
            connection.sendall(answer(f'{{"data_url": "{self.url}"}}'.encode(), "Connection: close"))
            return False
        found = self._answers.pop(0)(connection, head)
        if found is None:
            return False
        connection.sendall(found)
        return b"close" not in found

    def end(self) -> None:
        self._thread.join(60)
        self._listener.close()

    def read(self, connection: socket.socket, head: bytes) -> bytes:
        """The whole body of a request."""
        found = re.search(rb"(?i)content-length: (\d+)", head)
        assert found
        body = b""
        while len(body) < int(found[1]):
            body += connection.recv(1 << 20)
        self.bodies.append(body)
        return body


def answer(body: bytes, *more: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *more, "", ""]).encode() + body


@contextmanager
def hosted(*kinds: str, certificate: Path | None = None) -> Iterator[tuple[Host, Transport]]:
    """A host that does these by turns: take, take and end the connection, refuse early, lose the connection."""

    def take(connection: socket.socket, head: bytes) -> bytes:
        digest = b64encode(hashlib.sha512(host.read(connection, head)).digest()).decode()
        return answer(b"{}", f"Repr-Digest: sha-512=:{digest}:")

    def confuse(connection: socket.socket, head: bytes) -> bytes:
        host.read(connection, head)
        return answer(b"{}", f"Repr-Digest: sha-512=:{'A' * 86}==:")

    def refuse(connection: socket.socket, head: bytes) -> bytes:
        return answer(b'{"status": 507, "code": "store_full"}', "Connection: close", status="507 Full")

    def lose(connection: socket.socket, head: bytes) -> None:
        connection.recv(1000)  # and no more

    def break_off(connection: socket.socket, head: bytes) -> None:
        while connection.recv(1 << 20):
            pass

    def busy(connection: socket.socket, head: bytes) -> bytes:
        host.read(connection, head)
        return answer(b'{"status": 503, "code": "try_again"}', status="503 Busy")

    def hold_up(connection: socket.socket, head: bytes) -> bytes:
        host.read(connection, head)
        problem = b'{"status": 429, "code": "rate_exceeded", "kind": "try again"}'
        return answer(problem, "Retry-After: 7", status="429 Too Many Requests")

    def hold_up_long(connection: socket.socket, head: bytes) -> bytes:
        host.read(connection, head)
        problem = b'{"status": 429, "code": "login_throttled", "kind": "try again"}'
        return answer(problem, "Retry-After: 61", status="429 Too Many Requests")

    known: dict[str, Callable[[socket.socket, bytes], bytes | None]] = {
        "take": take,
        "confuse": confuse,
        "refuse": refuse,
        "lose": lose,
        "busy": busy,
        "break off": break_off,
        "hold up": hold_up,
        "hold up long": hold_up_long,
    }
    tls = None
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    host = Host([known[kind] for kind in kinds], tls)
    transport = Transport(Session(host.url, "secret"), verify=str(certificate) if certificate else True)
    try:
        yield host, transport
    finally:
        transport.close()
        host.end()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy stands between, and no pause is made."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.fixture
def item(tmp_path: Path) -> LocalItem:
    (tmp_path / "file").write_bytes(CONTENT)
    return scan_sources([str(tmp_path / "file")]).items[0]


def send(transport: Transport, item: LocalItem) -> None:
    WholeUpload(transport, "a", item, Progress("Sent")).run()


def test_pieces_are_one_body_and_a_connection_serves_again() -> None:
    with hosted("take", "take") as (host, transport):
        transport.send("PUT", "/a", [b"one", memoryview(b"two"), CONTENT], size=6 + len(CONTENT))
        transport.send("PUT", "/a", [CONTENT], size=len(CONTENT))
    assert host.bodies == [b"onetwo" + CONTENT, CONTENT]
    assert host.connections == 2  # one of them asked where the bytes go


def test_only_what_is_repeatable_is_sent_again() -> None:
    with hosted("lose", "busy", "take") as (host, transport):
        transport.send("POST", "/a", [CONTENT], size=len(CONTENT), repeatable=True)
    assert host.bodies == [CONTENT, CONTENT]
    with hosted("lose") as (host, transport), pytest.raises(ConnectionLostError):
        transport.send("POST", "/a", [CONTENT], size=len(CONTENT))


def test_what_the_server_asks_to_wait_is_waited(monkeypatch: pytest.MonkeyPatch, item: LocalItem) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    with hosted("hold up", "take") as (host, transport):
        transport.send("PUT", "/a", [CONTENT], size=len(CONTENT), repeatable=True)
    assert 7 < waited[0] < 8
    with hosted("hold up", "take") as (host, transport):
        transport.request("PUT", "/a", content=b"x")
    assert (host.bodies, len(waited)) == ([b"x", b"x"], 2)
    with hosted("hold up", "take") as (host, transport):
        send(transport, item)
    assert (host.bodies[-1], len(waited)) == (CONTENT, 3)


@pytest.mark.parametrize(("kind", "method"), [("hold up long", "PUT"), ("hold up", "POST")])
def test_a_long_wait_and_what_may_not_be_repeated_are_left_to_the_caller(
    monkeypatch: pytest.MonkeyPatch, kind: str, method: str
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    with hosted(kind) as (_, transport), pytest.raises(ApiError) as caught:
        transport.request(method, "/a", content=b"x")
    assert (caught.value.status, caught.value.exit_code, waited) == (429, 6, [])


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return make_certificate(tmp_path / "certificate.pem")


def test_a_body_goes_whole_over_tls(certificate: Path) -> None:
    """What the server says of the next session, when it likes, is no answer."""
    with hosted("take", "take", certificate=certificate) as (host, transport):
        for _ in range(2):
            transport.send("PUT", "/a", iter([CONTENT] * 3), size=3 * len(CONTENT))
    assert host.bodies == [CONTENT * 3] * 2


def test_an_early_refusal_is_heard() -> None:
    with hosted("refuse") as (_, transport), pytest.raises(ApiError) as caught:
        transport.send("PUT", "/a", iter([CONTENT] * 20), size=20 * len(CONTENT))
    assert caught.value.status == 507


def test_a_file_goes_whole_whatever_happens_on_the_way(item: LocalItem) -> None:
    with hosted("lose", "busy", "lose", "take") as (host, transport):
        send(transport, item)
    assert host.bodies[-1] == CONTENT


def test_a_file_that_arrived_as_another_is_told(item: LocalItem) -> None:
    with hosted("confuse") as (_, transport), pytest.raises(LocalDamageError):
        send(transport, item)


@pytest.mark.parametrize("change", [CONTENT[:-1], CONTENT + b"more"])
def test_a_file_that_changes_meanwhile_is_not_sent(
    item: LocalItem, change: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = os.preadv

    def preadv(descriptor: int, rooms: list[memoryview], offset: int) -> int:
        if offset:
            Path(os.fsdecode(item.source)).write_bytes(change)
        return read(descriptor, rooms, offset)

    monkeypatch.setattr("os.preadv", preadv)
    with hosted("break off") as (host, transport), pytest.raises(SourceChangedError):
        send(transport, item)
    assert host.bodies == []
