"""Bodies that pass the parser by: nothing is lost or kept too much, and the connection goes on after each of them."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
import uvicorn
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from perdure.app.wire import BoundedProtocol
from perdure.archives.receiving import FileReceiver
from perdure.doors.http import streams
from perdure.doors.http.streams import Body

from .callers import Caller

CONTENT = os.urandom(9 << 20) + b"the end"


@contextmanager
def connected(caller: Caller) -> Iterator[socket.socket]:
    place = urlsplit(caller.data)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=20) as connection:
        yield connection


def head(caller: Caller, method: str, path: str, *more: str) -> bytes:
    lines = [f"{method} /api/v1{path} HTTP/1.1", "Host: localhost", f"Authorization: {caller.headers['authorization']}"]
    return "\r\n".join([*lines, *more, "", ""]).encode()


def put(caller: Caller, archive: str, path: str, size: int, *more: str) -> bytes:
    return head(caller, "PUT", f"/archives/{archive}/files/{path}", f"Content-Length: {size}", *more)


def read_answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of one answer, and no byte more."""
    come = b""
    while b"\r\n\r\n" not in come:
        piece = connection.recv(1)
        assert piece, come
        come += piece
    fields = dict(line.split(b": ", 1) for line in come.lower().split(b"\r\n")[1:] if line)
    body = b""
    while len(body) < int(fields.get(b"content-length", b"0")):
        body += connection.recv(int(fields[b"content-length"]) - len(body))
    return int(come.split(b" ", 2)[1]), body


def used(caller: Caller, archive: str) -> list[str]:
    return [item["path"] for item in caller.get(f"/archives/{archive}/entries").json()["items"]]


def test_one_connection_takes_several_bodies(ada: Caller, archive: str) -> None:
    with connected(ada) as connection:
        for name in ("a", "b"):
            connection.sendall(put(ada, archive, name, len(CONTENT)) + CONTENT)
            assert read_answer(connection)[0] == 201
        connection.sendall(head(ada, "HEAD", f"/archives/{archive}/files/a"))
        assert b"200" in connection.recv(65536)
    assert ada.get_file(archive, "b").content == CONTENT


def test_a_request_sent_ahead_waits_for_its_turn(ada: Caller, archive: str) -> None:
    small = put(ada, archive, "small", 5) + b"small"
    with connected(ada) as connection:
        connection.sendall(put(ada, archive, "large", len(CONTENT)) + CONTENT + small + small)
        assert [read_answer(connection)[0] for _ in range(3)] == [201, 201, 201]
    assert ada.get_file(archive, "large").content == CONTENT
    assert ada.get_file(archive, "small").content == b"small"


def test_a_body_comes_as_slowly_as_it_likes(ada: Caller, archive: str) -> None:
    with connected(ada) as connection:
        connection.sendall(put(ada, archive, "slow", len(CONTENT)))
        for start in range(0, len(CONTENT), 300_001):
            connection.sendall(CONTENT[start : start + 300_001])
            time.sleep(0.01)
        assert read_answer(connection)[0] == 201
    assert ada.get_file(archive, "slow").content == CONTENT


def test_what_comes_slowly_is_taken_in_time(ada: Caller, archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a slow sender's reservation would end while the memory for one piece fills."""
    pieces: list[int] = []
    taking = FileReceiver.write

    def write(receiver: FileReceiver, data: memoryview) -> None:
        pieces.append(len(data))
        taking(receiver, data)

    monkeypatch.setattr(FileReceiver, "write", write)
    monkeypatch.setattr(streams, "_PATIENCE", 0.2)
    with connected(ada) as connection:
        connection.sendall(put(ada, archive, "slow", len(CONTENT)))
        for start, pause in ((0, 0.5), (1_000_000, 1.0), (2_000_000, 0.0)):
            time.sleep(pause)
            connection.sendall(CONTENT[start : start + 1_000_000])
        connection.sendall(CONTENT[3_000_000:])
        assert read_answer(connection)[0] == 201
    assert len(pieces) >= 3
    assert pieces[0] <= 1_000_000
    assert ada.get_file(archive, "slow").content == CONTENT


def test_who_asks_before_he_sends_is_told_to_go_on(ada: Caller, archive: str) -> None:
    with connected(ada) as connection:
        connection.sendall(put(ada, archive, "asked", len(CONTENT), "Expect: 100-continue"))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(CONTENT)
        assert read_answer(connection)[0] == 201


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_a_body_that_ends_too_early_leaves_nothing(newcomer: Caller, share: float) -> None:
    archive = newcomer.open()
    with connected(newcomer) as connection:
        connection.sendall(put(newcomer, archive, "cut", len(CONTENT)) + CONTENT[: int(len(CONTENT) * share)])
        time.sleep(0.2)
    account = newcomer.get(f"/archives/{archive}").json()["account_id"]
    deadline = time.monotonic() + 60
    while newcomer.get(f"/accounts/{account}/usage").json()["reserved_bytes"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert newcomer.get(f"/accounts/{account}/usage").json()["reserved_bytes"] == 0
    assert used(newcomer, archive) == []


def test_an_upload_keeps_what_came_before_the_end(ada: Caller, archive: str) -> None:
    named = {"Tus-Resumable": "1.0.0", "Upload-Length": str(len(CONTENT)), "Upload-Metadata": "path Y3V0"}
    url = ada.post(f"{ada.data}/archives/{archive}/uploads", headers=named).headers["location"]
    sent = 2_500_000
    with connected(ada) as connection:
        more = ("Tus-Resumable: 1.0.0", "Upload-Offset: 0", "Content-Type: application/offset+octet-stream")
        path = urlsplit(url).path.removeprefix("/api/v1")
        connection.sendall(head(ada, "PATCH", path, f"Content-Length: {len(CONTENT)}", *more) + CONTENT[:sent])
        time.sleep(0.2)
    deadline = time.monotonic() + 60
    offset = 0
    while not offset and time.monotonic() < deadline:
        offset = int(ada.head(url, headers={"Tus-Resumable": "1.0.0"}).headers["upload-offset"])
    assert offset == sent
    rest = {"Tus-Resumable": "1.0.0", "Upload-Offset": str(sent), "Content-Type": "application/offset+octet-stream"}
    answer = ada.patch(url, headers=rest, content=CONTENT[sent:])
    assert answer.status_code == 204
    assert ada.get_file(archive, "cut").content == CONTENT


def test_what_nobody_reads_of_a_body_is_passed_over(ada: Caller, archive: str) -> None:
    """A batch that is refused for its index is answered before its contents are read."""
    index = b'{"items": "none"}'
    body = len(index).to_bytes(4, "big") + index + CONTENT
    batch = head(
        ada,
        "POST",
        f"/archives/{archive}/batch",
        f"Content-Length: {len(body)}",
        "Content-Type: application/vnd.archive.batch",
    )
    with connected(ada) as connection:
        connection.sendall(batch + body + put(ada, archive, "next", 4) + b"next")
        assert read_answer(connection)[0] == 400
        assert read_answer(connection)[0] == 201
    assert used(ada, archive) == ["next"]


def test_a_large_batch_is_cut_where_its_index_says(ada: Caller, archive: str) -> None:
    contents = [CONTENT[:70_000], b"", CONTENT[:2_000_000], b"x"]
    items = [{"path": f"f{number}", "size": len(content)} for number, content in enumerate(contents)]
    index = json.dumps({"items": items}).encode()
    body = len(index).to_bytes(4, "big") + index + b"".join(contents)
    answer = ada.post(
        f"{ada.data}/archives/{archive}/batch", content=body, headers={"content-type": "application/vnd.archive.batch"}
    )
    assert answer.json()["stored"] == len(contents)
    assert [ada.get_file(archive, f"f{number}").content for number in range(4)] == contents


@pytest.mark.parametrize("wanted", [1, 300_000, 1_500_000, len(CONTENT)])
def test_who_has_enough_of_a_body_leaves_the_rest_to_the_connection(wanted: int) -> None:
    """A door may stop anywhere; the next request on the connection begins where the body ends."""
    with small_server(wanted) as place, socket.create_connection(place, timeout=20) as connection:
        for _ in range(2):
            connection.sendall(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(CONTENT) + CONTENT)
            status, body = read_answer(connection)
            assert (status, body) == (200, hashlib.sha512(CONTENT[:wanted]).hexdigest().encode())


@contextmanager
def small_server(wanted: int) -> Iterator[tuple[str, int]]:
    """A server that answers with the digest of the first bytes of each body, and reads no more of it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = Body(Request(scope, receive, send), len(CONTENT))
        taken = await body.take(wanted)
        body.close()
        digest = hashlib.sha512(taken).hexdigest().encode()
        headers = [(b"content-length", str(len(digest)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": digest})

    listening = socket.create_server(("127.0.0.1", 0))
    configuration = uvicorn.Config(app, loop="uvloop", http=BoundedProtocol, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(configuration)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def test_a_refusal_in_the_middle_lets_the_connection_go_on(ada: Caller, archive: str) -> None:
    """A checksum that is wrong is found when all is read; a wrong digest, too."""
    wrong = f"Repr-Digest: sha-512=:{'A' * 86}==:"
    with connected(ada) as connection:
        connection.sendall(put(ada, archive, "wrong", len(CONTENT), wrong) + CONTENT)
        assert read_answer(connection)[0] in (400, 409, 422)
        connection.sendall(put(ada, archive, "right", len(CONTENT)) + CONTENT)
        status, entry = read_answer(connection)
        assert status == 201
        assert hashlib.sha512(CONTENT).hexdigest().encode() in entry
    assert used(ada, archive) == ["right"]
