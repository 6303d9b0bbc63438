"""The client fetches files: small ones in batches, large ones by themselves, each compared with its digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.testing.app import RunningApplication
from perdure_client import Client
from perdure_client.errors import LocalDamageError
from perdure_client.settings import Session

from .callers import Caller

CONTENTS = {
    **{f"small/{number}": os.urandom(number) for number in range(40)},
    "medium": os.urandom(900_000),
    "large": os.urandom(5_000_000),
    "line\nbreak": b"odd",
}


@pytest.fixture(scope="module")
def client(running: RunningApplication, ada: Caller) -> Iterator[Client]:
    with Client(Session(running.url, ada.headers["authorization"].removeprefix("Bearer "))) as connected:
        yield connected


@pytest.fixture
def filled(ada: Caller, client: Client, tmp_path: Path) -> str:
    source = tmp_path / "source"
    for name, content in CONTENTS.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
        os.utime(source / name, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    archive = ada.open()
    client.put(archive, source)
    return archive


def found(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_everything_comes_once(client: Client, filled: str, tmp_path: Path) -> None:
    report = client.get(filled, tmp_path / "to")
    assert (report.files, report.kept) == (len(CONTENTS), 0)
    assert report.bytes_received == sum(map(len, CONTENTS.values()))
    assert found(tmp_path / "to") == CONTENTS
    assert (tmp_path / "to" / "small" / "7").stat().st_mtime_ns == 1_700_000_000_123_456_789
    again = client.get(filled, tmp_path / "to")
    assert (again.files, again.kept) == (0, len(CONTENTS))


def test_what_is_wrong_or_half_here_is_fetched_anew(client: Client, filled: str, tmp_path: Path) -> None:
    to = tmp_path / "to"
    client.get(filled, to)
    (to / "small" / "9").write_bytes(b"x" * 9)
    part = to / f".{hashlib.sha256(b'large').hexdigest()[:16]}.part"
    part.write_bytes(CONTENTS["large"][:3_000_000])
    (to / "large").unlink()
    report = client.get(filled, to)
    assert report.files == 2
    assert found(to) == CONTENTS


@pytest.mark.parametrize("name", ["small/9", "large"])
def test_bytes_that_are_not_the_stored_ones_get_no_name(
    client: Client, filled: str, name: str, tmp_path: Path, running: RunningApplication
) -> None:
    staged = [place for place in running.data_dir.rglob(name) if place.read_bytes() == CONTENTS[name]]
    assert staged
    for place in staged:
        place.write_bytes(b"y" * len(CONTENTS[name]))
    with pytest.raises(LocalDamageError):
        client.get(filled, tmp_path / "to")
    assert not (tmp_path / "to" / name).exists()
