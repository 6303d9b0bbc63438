"""Nothing that was acknowledged is lost when a process is killed, and what was interrupted goes on."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from perdure_client import Client
from perdure_client.settings import Session

from .running import PROGRAM, Command, Server, running, wait_for

RECORD: dict[str, Any] = {"creators": [{"name": "Ada Example"}], "publisher": "Example Source", "licence": "CC0-1.0"}
_LARGE = 200 << 20  # more than three of the stretches that the server makes durable at once
_BLOCK = 4 << 20
_MOMENT = 0.02  # seconds


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


def write_random(place: Path, size: int) -> str:
    """Fill a file; its sha512."""
    digest = hashlib.sha512()
    with place.open("wb") as file:
        for _ in range(size // _BLOCK):
            block = os.urandom(_BLOCK)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def count_requests(server: Server, operation: str) -> int:
    """How often the log tells of a finished request of this kind."""
    lines = (json.loads(line) for line in server.log.read_text().splitlines() if operation in line)
    return sum((line["event"], line.get("operation")) == ("request", operation) for line in lines)  # not slow_request


@pytest.mark.timeout(180)
def test_an_upload_goes_on_after_the_data_plane_was_killed(server: Server, tmp_path: Path) -> None:
    digest = write_random(tmp_path / "large.bin", _LARGE)
    perdure = Command(tmp_path, server.url)
    perdure.log_in(server.password())
    archive = perdure.create("Interrupted")
    with server.client() as client:

        def durable() -> int:
            """What the server has safe of the upload, as it says itself."""
            items = client._transport.json("GET", f"/archives/{archive}/uploads")["items"]
            return sum(int(upload["offset"]) for upload in items)

        with _putting(perdure, archive) as put:  # lives through the death of the process it sends to
            let_creep(put, lambda: durable() > 0)
            server.kill_child("data")
            wait_for(lambda: _answers(server.data_port))
            first = durable()
            let_creep(put, lambda: durable() > first)
            assert put.poll() is None
        server.kill_child("data")  # once more, after the command itself
        wait_for(lambda: _answers(server.data_port))
        assert first < durable() < _LARGE
        said = perdure("put", archive, "large.bin", "--json").json
    assert (said["stored"], said["refused"]) == (1, [])
    assert count_requests(server, "create_upload") == 1, "it began anew instead of going on"
    perdure("get", archive, "--to", "back")
    assert hashlib.sha512((tmp_path / "back" / "large.bin").read_bytes()).hexdigest() == digest
    perdure("archive", "close", archive)


def let_creep(process: subprocess.Popen[bytes], is_far_enough: Callable[[], bool]) -> None:
    """Let a process run for moments only, and stop it: it cannot come to its end while somebody looks how far it is."""

    def is_there() -> bool:
        process.send_signal(signal.SIGCONT)
        time.sleep(_MOMENT)
        process.send_signal(signal.SIGSTOP)
        return is_far_enough()

    wait_for(is_there)


@contextmanager
def _putting(perdure: Command, archive: str) -> Iterator[subprocess.Popen[bytes]]:
    """`perdure put` under way, killed in the end."""
    process = subprocess.Popen(
        [str(PROGRAM), "put", archive, "large.bin"],
        env=perdure.environment,
        cwd=perdure.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.timeout(240)
def test_closings_and_acknowledged_files_survive_every_kill(server: Server, tmp_path: Path) -> None:
    """The worker is killed at several moments of several closings, then everything at once, amid uploads."""
    with server.client() as client:
        token = client.create_token("kills", verbs=["read", "write"])["secret"]
    with Client(Session(server.url, token)) as client:
        sources = [_make_source(tmp_path / f"source {number}") for number in range(4)]
        closing = [client.open_archive(title=f"Closing {number}", **RECORD).id for number in range(len(sources))]
        for archive, source in zip(closing, sources, strict=True):
            client.put(archive, source)
        for archive, moment in zip(closing, (0.0, 0.15, 0.4, 0.8), strict=True):
            client.close(archive, wait=False)
            time.sleep(moment)
            server.kill_child("worker")
            wait_for(lambda: "worker" in server.children())
        filling = client.open_archive(title="Filling", **RECORD).id
        acknowledged = _fill_until(server.kill, f"http://127.0.0.1:{server.data_port}", filling, token)

    server.start()
    with Client(Session(server.url, token)) as client:
        for path, digest in acknowledged.items():
            assert hashlib.sha512(client.read(filling, path)).hexdigest() == digest, path
        listed = {entry.path.decode(): entry.digests["sha512"] for entry in client.entries(filling, recursive=True)}
        assert acknowledged.items() <= listed.items()
        for path in listed.keys() - acknowledged.keys():
            assert hashlib.sha512(client.read(filling, path)).hexdigest() == listed[path], path
        client.close(filling, discard_uploads=True)
        for archive, source in zip(closing, sources, strict=True):
            client.close(archive)  # asks again, and waits
            assert client.archive(archive).state == "closed"
            assert client.get(archive, tmp_path / archive).files == 3
            for place in source.iterdir():
                assert (tmp_path / archive / place.name).read_bytes() == place.read_bytes()
            assert client.receipt(archive, wait_seconds=60)["source_may_be_deleted"]
            assert client.verify(archive).result["good"] is True


def _make_source(folder: Path) -> Path:
    folder.mkdir()
    for number in range(3):
        write_random(folder / f"{number}.bin", 2 * _BLOCK)
    return folder


def _fill_until(kill: Callable[[], None], data_url: str, archive: str, token: str) -> dict[str, str]:
    """Files sent from several sessions until all is killed; the digests of those that were acknowledged."""
    acknowledged: dict[str, str] = {}
    numbers = count()

    def send() -> None:
        with httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=30) as http:
            while True:
                path, content = f"folder/{next(numbers)}", os.urandom(100_000)
                try:
                    answer = http.put(f"{data_url}/api/v1/archives/{archive}/files/{path}", content=content)
                except httpx.TransportError:
                    return
                if answer.status_code == 201:
                    acknowledged[path] = hashlib.sha512(content).hexdigest()
                else:
                    assert answer.status_code >= 500, answer.text  # its database was killed a moment earlier

    senders = [threading.Thread(target=send) for _ in range(4)]
    for sender in senders:
        sender.start()
    wait_for(lambda: len(acknowledged) > 40)
    kill()
    for sender in senders:
        sender.join()
    return acknowledged
