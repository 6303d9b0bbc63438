"""Files of instruments through both ways in, a second layer over them, and back out as bytes and by URL."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest

from perdure_client import Client

from .running import Server

RECORD: dict[str, Any] = {"creators": [{"name": "Ada Example"}], "publisher": "Example Source", "licence": "CC0-1.0"}


def digest_files(folder: Path) -> dict[str, str]:
    """The sha512 of every file below a folder, by its path there."""
    return {
        str(place.relative_to(folder)): hashlib.sha512(place.read_bytes()).hexdigest()
        for place in folder.rglob("*")
        if place.is_file()
    }


@pytest.fixture(scope="module", params=["put", "ingest"])
def closed(request: pytest.FixtureRequest, client: Client, nexus_data: Path) -> str:
    """The real files as a closed archive, taken in by either way."""
    way: str = request.param
    archive = client.open_archive(title=f"Instrument files by {way}", **RECORD).id
    expected = len(digest_files(nexus_data))
    if way == "put":
        report = client.put(archive, nexus_data)
        assert (report.seen, report.stored, report.refused) == (expected, expected, [])
    else:
        result = client.ingest(archive, str(nexus_data)).result
        assert (result["counted"], result["stored"], result["refused"]) == (expected, expected, 0)
        assert client.put(archive, nexus_data).stored == 0, "both ways must agree on what is there"
    client.close(archive)
    return archive


def test_they_come_back_as_they_went(client: Client, closed: str, nexus_data: Path, tmp_path: Path) -> None:
    report = client.get(closed, tmp_path / "back")
    assert not report.refused
    assert digest_files(tmp_path / "back") == digest_files(nexus_data)
    stated = {entry.path.decode(): entry.digests["sha512"] for entry in client.entries(closed, recursive=True)}
    assert stated == digest_files(nexus_data)
    for place in (tmp_path / "back").rglob("*"):
        if place.is_file():
            assert place.stat().st_mtime_ns == (nexus_data / place.relative_to(tmp_path / "back")).stat().st_mtime_ns


def test_a_second_layer_replaces_hides_and_adds(client: Client, closed: str, nexus_data: Path, tmp_path: Path) -> None:
    before = digest_files(nexus_data)
    replaced, hidden = sorted(before)[0], sorted(before)[-1]
    folder_hidden = next(
        name for name in sorted(before) if "/" in name and name.split("/")[0] != replaced.split("/")[0]
    )
    layer = tmp_path / "layer"
    (layer / replaced).parent.mkdir(parents=True)
    (layer / replaced).write_bytes(b"a later calibration\n")
    (layer / "added").mkdir()
    (layer / "added" / "notes.txt").write_bytes(b"what was learned\n")

    child = client.append(closed, title="The second layer").id
    assert client.put(child, layer).stored == 2
    client.remove(child, [hidden, folder_hidden.split("/")[0]])
    client.close(child)

    expected = {
        name: digest
        for name, digest in before.items()
        if name != hidden and not name.startswith(f"{folder_hidden.split('/')[0]}/")
    } | digest_files(layer)
    client.get(child, tmp_path / "union")
    assert digest_files(tmp_path / "union") == expected
    client.get(closed, tmp_path / "parent")
    assert digest_files(tmp_path / "parent") == before
    layers = {entry.path.decode(): entry.layer for entry in client.entries(child, recursive=True)}
    assert layers["added/notes.txt"] == layers[replaced] == child
    assert {one for name, one in layers.items() if name not in digest_files(layer)} == {closed}


@pytest.mark.usefixtures("filesystems")
def test_hdf5_is_read_by_url_in_slices(client: Client, server: Server, closed: str, nexus_data: Path) -> None:
    token = client.session.token
    opened = 0
    for place in nexus_data.rglob("*"):
        if not place.is_file() or not h5py.is_hdf5(place):
            continue
        url = f"perdure://127.0.0.1:{server.port}/{closed}/{place.relative_to(nexus_data)}"
        with fsspec.open(url, token=token).open() as stream, h5py.File(stream) as far, h5py.File(place) as near:
            for name in _datasets(near):
                np.testing.assert_array_equal(far[name][()], near[name][()])
                opened += 1
    assert opened > 10


def _datasets(file: h5py.File) -> list[str]:
    """Datasets of numbers that lie in the file itself, a few of them."""
    found: list[str] = []

    def look(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "iuf" and not item.external and not item.is_virtual:
            found.append(name)

    file.visititems(look)
    return found[:5]
