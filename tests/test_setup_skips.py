"""No test is passed over in silence: where PERDURE_REQUIRE is set, an unexpected skip is a failure."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOM = """
import pytest

def test_in_it() -> None:
    pytest.skip("mount: not permitted")

@pytest.mark.skipif(True, reason="openssl: not installed")
def test_before_it() -> None: ...
"""
MODULE = 'import pytest\npytest.skip("nexus-data: not there", allow_module_level=True)\n'


@pytest.mark.parametrize(
    ("required", "refused"),
    [
        (None, set()),
        ("openssl,nexus-data", {"openssl", "nexus-data"}),
        ("tar", {"openssl", "nexus-data"}),
        ("mount,tar", {"openssl", "nexus-data", "mount"}),
    ],
)
def test_a_skip_that_nobody_expects_fails(tmp_path: Path, required: str | None, refused: set[str]) -> None:
    (tmp_path / "test_room.py").write_text(ROOM)
    (tmp_path / "test_module.py").write_text(MODULE)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PERDURE_", "PYTEST_"))}
    environment |= {"PYTHONPATH": str(Path(__file__).parent)} | ({"PERDURE_REQUIRE": required} if required else {})
    words = ["-p", "conftest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "--continue-on-collection-errors"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *words, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert set(re.findall(r"may not be skipped here: ([\w-]+)", ended.stdout)) == refused
    assert ended.returncode == (pytest.ExitCode.TESTS_FAILED if refused else pytest.ExitCode.OK), ended.stdout
