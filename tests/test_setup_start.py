"""The set-up that a newcomer meets: two commands, locked packages, a clear word where Python lacks something."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("start", PROJECT / "start.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ENVIRONMENT", tmp_path / "venv")
    monkeypatch.setattr(module, "PRIVATE_UV", tmp_path / "uv")
    return module


def test_a_python_that_can_install_nothing_is_told_what_to_install(
    start: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: subprocess.CompletedProcess[str] = subprocess.CompletedProcess([], returncode=1)
    monkeypatch.setattr(start.shutil, "which", lambda name: None)
    monkeypatch.setattr(start.subprocess, "run", lambda *words, **options: refused)
    with pytest.raises(SystemExit, match="sudo apt install python3-venv"):
        start.set_up()


def test_a_python_with_pip_alone_keeps_the_installer_apart(start: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(words: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        commands.append(list(words))
        return subprocess.CompletedProcess(words, returncode=1 if "venv" in words else 0)

    monkeypatch.setattr(start.shutil, "which", lambda name: None)
    monkeypatch.setattr(start.subprocess, "run", run)
    assert start.find_uv() == str(start.PRIVATE_UV / "bin" / "uv")
    install = commands[-1]
    assert install[:3] == [sys.executable, "-m", "pip"]
    assert install[install.index("--prefix") + 1] == str(start.PRIVATE_UV)
    assert "--require-hashes" in install


def test_what_was_set_up_is_not_set_up_again_until_a_lock_changes(
    start: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lock = tmp_path / "develop.txt"
    lock.write_text("one==1\n")
    steps: list[tuple[str, ...]] = []
    (tmp_path / "venv").mkdir()
    monkeypatch.setattr(start, "MEANINGFUL", (lock,))
    monkeypatch.setattr(start, "find_uv", lambda: "uv")
    monkeypatch.setattr(start, "run", lambda *words: steps.append(words))
    start.set_up()
    made = len(steps)
    assert made > 0
    start.set_up()
    assert len(steps) == made
    lock.write_text("one==2\n")
    start.set_up()
    assert len(steps) > made


def test_a_step_that_fails_stops_the_set_up_and_leaves_no_stamp(
    start: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    start.ENVIRONMENT.mkdir()
    monkeypatch.setattr(start, "find_uv", lambda: "false")
    with pytest.raises(SystemExit, match="The set-up stopped"):
        start.set_up()
    assert not (start.ENVIRONMENT / "made-from").exists()


@pytest.mark.parametrize("lock", ["develop.txt", "uv.txt"])
def test_locks_pin_by_digest_and_name_no_host(lock: str) -> None:
    text = (PROJECT / "locks" / lock).read_text()
    entries = re.split(r"(?m)^(?=\S)", text)[1:]
    assert entries
    assert "://" not in text
    for entry in entries:
        assert re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+", entry), entry[:80]
        assert "--hash=sha256:" in entry, entry[:80]


def test_every_requirement_is_in_the_lock() -> None:
    lock = (PROJECT / "locks" / "develop.txt").read_text()
    locked = {name.replace("_", "-").lower() for name in re.findall(r"(?m)^([\w.-]+)==", lock)}
    for file in ("pyproject.toml", "client/pyproject.toml"):
        project = tomllib.loads((PROJECT / file).read_text())["project"]
        wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
        names = {re.split(r"[\[<>=; ]", requirement)[0].lower() for requirement in wanted} - {"perdure-client"}
        assert names <= locked


def test_the_readme_offers_exactly_two_commands() -> None:
    offered = (PROJECT / "README.md").read_text().split("## Try it")[1].split("```sh\n")[1].split("```")[0]
    commands = [line.split("#")[0].strip() for line in offered.splitlines()]
    assert commands == ["python3 start.py", "python3 start.py test"]
