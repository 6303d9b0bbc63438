"""The client sends files to a real server, and answers are lost: what is there is asked, and not taken for granted."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.testing.app import RunningApplication
from perdure_client import upload
from perdure_client.errors import ApiError, ConnectionLostError
from perdure_client.local import LocalItem, scan_sources
from perdure_client.progress import Progress
from perdure_client.settings import Session
from perdure_client.transport import Transport
from perdure_client.upload import FolderUpload, LargeUpload

from .callers import Caller

CONTENT = os.urandom(3_000_000)


@pytest.fixture
def transport(running: RunningApplication, ada: Caller) -> Iterator[Transport]:
    transport = Transport(Session(running.url, ada.headers["authorization"].removeprefix("Bearer ")))
    yield transport
    transport.close()


@pytest.fixture
def item(tmp_path: Path) -> LocalItem:
    (tmp_path / "file").write_bytes(CONTENT)
    return scan_sources([str(tmp_path / "file")]).items[0]


def lose_answer(transport: Transport, monkeypatch: pytest.MonkeyPatch, afterwards: Any = None) -> None:
    """Let the first PATCH do its work, and its answer be lost."""
    send = transport.send
    lost: list[Any] = []

    def send_and_lose(method: str, *given: Any, **named: Any) -> Any:
        answer = send(method, *given, **named)
        if method == "PATCH" and not lost:
            lost.append(answer)
            if afterwards:
                afterwards()
            raise ConnectionLostError("The connection was lost.")
        return answer

    monkeypatch.setattr(transport, "send", send_and_lose)
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def test_a_file_whose_last_answer_was_lost_is_stored(
    transport: Transport, ada: Caller, item: LocalItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = ada.open()
    lose_answer(transport, monkeypatch)
    LargeUpload(transport, archive, item, Progress("Sent")).run()
    assert ada.get_file(archive, "file").content == CONTENT


def test_a_file_that_another_has_replaced_since_is_not_taken_for_stored(
    transport: Transport, ada: Caller, item: LocalItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = ada.open()

    def replace() -> None:
        ada.put_file(archive, "file", b"another's").raise_for_status()

    lose_answer(transport, monkeypatch, replace)
    with pytest.raises(ApiError) as caught:
        LargeUpload(transport, archive, item, Progress("Sent")).run()
    assert caught.value.code == "upload_ended"


def make_folder(folder: Path, sizes: list[int]) -> dict[str, bytes]:
    contents = {f"f{number:02}": os.urandom(size) for number, size in enumerate(sizes)}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return contents


def test_batches_of_every_size_share_their_memory_and_mix_nothing(
    transport: Transport, ada: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers to the first batches are lost, so that they go twice: progress tells each byte once."""
    monkeypatch.setattr(upload, "_FIRST_BATCH", 100_000)
    monkeypatch.setattr(upload, "_LARGEST_BATCH", 5_000_000)
    lost: list[Any] = []

    def send_and_lose(self: Transport, request: Any, pieces: Any) -> Any:
        answer = sending(self, request, pieces)
        if len(lost) < 2:
            lost.append(answer)
            raise ConnectionResetError
        return answer

    sending = Transport._send_once  # below what sends again
    monkeypatch.setattr(Transport, "_send_once", send_and_lose)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    contents = make_folder(tmp_path, [0, 2_500_000, 1, 70_000, 3_000_000, 0, 1_048_577, 4_096] * 3)
    archive, progress = ada.open(), Progress("Sent")
    report = FolderUpload(transport, archive, progress=progress).run(scan_sources([f"{tmp_path}/"]))
    assert (report.stored, report.refused) == (len(contents), [])
    assert (progress.files, progress.bytes) == (len(contents), sum(map(len, contents.values())))
    assert {name: ada.get_file(archive, name).content for name in contents} == contents
    assert len(lost) == 2


def test_the_first_failure_stops_what_has_not_begun(
    transport: Transport, ada: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "_FIRST_BATCH", 1)
    monkeypatch.setattr(upload, "_QUICK", -1.0)  # no batch is followed by a larger one
    asked: list[str] = []

    def refuse(method: str, path: str, *given: Any, **named: Any) -> Any:
        asked.append(path)
        raise ConnectionLostError("The connection was lost.")

    make_folder(tmp_path, [1000] * 50)
    archive = ada.open()
    monkeypatch.setattr(transport, "send", refuse)
    with pytest.raises(ConnectionLostError):
        FolderUpload(transport, archive, progress=Progress("Sent")).run(scan_sources([f"{tmp_path}/"]))
    assert len(asked) <= 6


def test_a_file_that_shrinks_before_its_turn_is_refused_alone(
    transport: Transport, ada: Caller, tmp_path: Path
) -> None:
    contents = make_folder(tmp_path, [50_000, 60_000, 70_000])
    tree = scan_sources([f"{tmp_path}/"])
    (tmp_path / "f01").write_bytes(b"less")
    archive, progress = ada.open(), Progress("Sent")
    report = FolderUpload(transport, archive, progress=progress).run(tree)
    assert (report.stored, [path for path, _ in report.refused]) == (2, [b"f01"])
    assert {name: ada.get_file(archive, name).content for name in ("f00", "f02")} == {
        name: contents[name] for name in ("f00", "f02")
    }


@pytest.mark.usefixtures("interruptible")
def test_who_interrupts_waits_for_a_piece_and_not_for_the_file(
    transport: Transport, ada: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large").write_bytes(b"")
    os.truncate(tmp_path / "large", 1 << 30)
    taken: list[int] = []

    def take_slowly(method: str, path: str, pieces: Any, **named: Any) -> Any:
        for piece in pieces:
            taken.append(len(piece))
            if len(taken) == 3:
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)

    archive = ada.open()
    monkeypatch.setattr(transport, "send", take_slowly)
    with pytest.raises(KeyboardInterrupt):
        FolderUpload(transport, archive, progress=Progress("Sent")).run(scan_sources([f"{tmp_path}/"]))
    assert 3 <= len(taken) < 400  # of 512
