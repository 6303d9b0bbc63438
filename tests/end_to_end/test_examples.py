"""The examples of the manual, executed as they stand."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray

from perdure_client import Client

from .running import PROGRAM, Command, Server

DOCS = Path(__file__).parents[2] / "docs" / "use"
PLACEHOLDER = "ARCHIVE"


def blocks_of(page: str, language: str) -> list[str]:
    """The code blocks of a page in one language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the page about Python archives."""
    made = tmp_path / "beamtime_2026_11"
    (made / "scan_0001").mkdir(parents=True)
    with h5py.File(made / "scan_0001" / "data.h5", "w") as file:
        file["entry/data/counts"] = np.arange(100).reshape(10, 10)
    (made / "table.csv").write_text("x,y\n1,2\n3,4\n")
    temperature = xarray.DataArray(np.linspace(280, 300, 12).reshape(4, 3), dims=("x", "y"))
    temperature.to_dataset(name="temperature").to_netcdf(made / "grid.nc", engine="h5netcdf")
    return made


@pytest.mark.usefixtures("filesystems")
def test_the_page_about_python(
    server: Server, client: Client, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = client.create_token("the manual", verbs=["read", "write"])["secret"]
    names: dict[str, object] = {
        "url": server.url,
        "token": token,
        "host": f"127.0.0.1:{server.port}",
        "folder": folder,
        "target": tmp_path / "target",
    }
    blocks = blocks_of("python.md", "python")
    assert len(blocks) >= 7
    for number, block in enumerate(blocks):
        exec(compile(block, f"python.md, block {number + 1}", "exec"), names)  # noqa: S102  # it is our own manual
    opened = names["client"]
    assert isinstance(opened, Client)
    opened.close_connections()
    printed = capsys.readouterr().out
    assert "3 stored, 0 there already" in printed
    assert "[0 1 2 3]" in printed
    assert "archive.closed" in printed
    assert (tmp_path / "target" / "table.csv").read_bytes() == (folder / "table.csv").read_bytes()


def test_the_page_for_the_first_five_minutes(server: Server, folder: Path, tmp_path: Path) -> None:
    """Every shell block in order, with the address, the login and the printed identifier; nothing is installed."""
    person = Command(tmp_path, server.url)
    person.environment["PATH"] = f"{PROGRAM.parent}:{person.environment['PATH']}"
    del person.environment["PERDURE_URL"]
    archive = ""
    for block in blocks_of("first-archive.md", "sh"):
        if block.startswith("pip install"):
            continue
        login = f"perdure login {server.url} --login admin --password-stdin <<< '{server.password()}'"
        script = block.replace("perdure login https://archive.example.org", login)
        ran = subprocess.run(
            ["bash", "-euc", script.replace(PLACEHOLDER, archive)],
            env=person.environment,
            cwd=folder.parent,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, f"{script}\n{ran.stdout}\n{ran.stderr}"
        if "perdure archive create" in block:
            archive = ran.stdout.splitlines()[-1]
    shown = person("archive", "list", "--text", "Copper foil under load", "--url", server.url, code=2)
    assert "No such option" in shown.err  # the address stands before the command
    listed = person("archive", "list", "--text", "Copper foil under load", "--json").json
    assert {(one["state"], one["parent_id"] is None) for one in listed} >= {("closed", True), ("open", False)}
    assert (folder.parent / "copy" / "table.csv").read_bytes() == (folder / "table.csv").read_bytes()
