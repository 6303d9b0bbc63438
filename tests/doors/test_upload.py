"""The client sends a large file whose last answer is lost: whether it is there is asked, and not taken for granted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.testing.app import RunningApplication
from perdure_client.errors import ApiError, ConnectionLostError
from perdure_client.local import LocalItem, scan_sources
from perdure_client.progress import Progress
from perdure_client.settings import Session
from perdure_client.transport import Transport
from perdure_client.upload import LargeUpload

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
