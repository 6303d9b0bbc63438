#!/usr/bin/env python3
"""Set up and start: `python3 start.py` runs the demonstration, `python3 start.py test` the checks and tests.

Needs Python 3.11 or newer with `venv` or `pip`, and nothing else. What it installs goes into `.uv/` and `.venv/` beside
this file; nothing is changed elsewhere, and running it again is quick. `test --fast` leaves the slow tests out; further
words after `test` go to pytest. `soak --minutes 120` kills a whole installation for two hours and checks what is left.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE / ".venv"
PRIVATE_UV = HERE / ".uv"
LOCK = HERE / "locks" / "develop.txt"
UV_LOCK = HERE / "locks" / "uv.txt"
MEANINGFUL = (LOCK, HERE / "pyproject.toml", HERE / "client" / "pyproject.toml")


def main() -> int:
    if sys.version_info < (3, 11):
        raise SystemExit(f"Python 3.11 or newer is needed; this is {platform.python_version()}.")
    words = sys.argv[1:]
    if words[:1] in (["-h"], ["--help"]):
        print(__doc__)
        print("`python3 start.py setup` only sets up; any other words are given to the command `perdure`.")
        return 0
    # Where it is set, each of the many processes would compile all that it imports anew: two seconds of a processor
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    set_up()
    if words[:1] == ["setup"]:
        return 0
    if words[:1] == ["test"]:
        return run_tests(words[1:])
    if words[:1] == ["soak"]:
        return become(str(program("python")), "-m", "perdure.testing.soak", *words[1:])
    return become(str(program("perdure")), *(words or ["demo"]))


def become(*command: str) -> NoReturn:
    """Go on as that program, so that a Ctrl-C is its own."""
    os.execv(command[0], command)


def set_up() -> None:
    """Make `.venv` as the lock says, unless it was made from the same files."""
    stamp = ENVIRONMENT / "made-from"
    state = digest_of_inputs()
    if stamp.is_file() and stamp.read_text() == state:
        return
    print("Setting up (once; a minute without a warm cache) ...", flush=True)
    uv = find_uv()
    if not program("python").exists():
        run(uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(ENVIRONMENT))
    python = ("--python", str(program("python")))
    run(uv, "pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode", *python, str(LOCK))
    editable = ("--no-deps", "--no-build-isolation", "--editable")  # the build backend is in the lock, too
    run(uv, "pip", "install", "--quiet", *python, *editable, str(HERE / "client"), "--editable", str(HERE))
    stamp.write_text(state)


def find_uv() -> str:
    """`uv` of this machine, or one of our own in `.uv/`."""
    found = shutil.which("uv")
    if found:
        return found
    private = PRIVATE_UV / ("Scripts" if os.name == "nt" else "bin") / "uv"
    if not private.exists():
        install_uv()
    return str(private)


def install_uv() -> None:
    """Install `uv` without touching the system's Python, which Debian forbids rightly."""
    shutil.rmtree(PRIVATE_UV, ignore_errors=True)
    wanted = ("install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", str(UV_LOCK))
    made = subprocess.run([sys.executable, "-m", "venv", str(PRIVATE_UV)], capture_output=True, text=True)
    if made.returncode == 0:
        run(str(PRIVATE_UV / ("Scripts" if os.name == "nt" else "bin") / "python"), "-m", "pip", *wanted)
        return
    shutil.rmtree(PRIVATE_UV, ignore_errors=True)
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        apart = (
            "--prefix",
            str(PRIVATE_UV),
            "--ignore-installed",
            "--break-system-packages",
        )  # harmless there
        run(sys.executable, "-m", "pip", *wanted, *apart)
        return
    raise SystemExit(
        "This Python has neither `venv` nor `pip`, so nothing can be installed with it.\n"
        "On Debian and Ubuntu: sudo apt install python3-venv\n"
        "Elsewhere, install `uv` in any way and run this again."
    )


def run_tests(words: list[str]) -> int:
    """Style, types, import contracts, then the tests; the first that fails ends it."""
    checks = [
        ["ruff", "check", "--quiet", "."],
        ["ruff", "format", "--quiet", "--check", "."],
        ["mypy"],
        ["lint-imports", "--no-cache"],
    ]
    for check in checks:
        print(f"== {' '.join(check)}", flush=True)
        code = subprocess.run([str(program(check[0])), *check[1:]], cwd=HERE).returncode
        if code:
            return code
    chosen = [  # three on two processors: tests also wait, for processes to start and for the disk
        *(["-n", "3", "--dist", "worksteal"] if "-n" not in words else []),
        *(["-m", "not slow"] if "--fast" in words else []),
    ]
    tests = ["-m", "pytest", *chosen, *(word for word in words if word != "--fast")]
    print(f"== {' '.join(tests[1:])}", flush=True)
    return subprocess.run([str(program("python")), *tests], cwd=HERE).returncode


def program(name: str) -> Path:
    """A program of the environment."""
    return ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin") / name


def digest_of_inputs() -> str:
    digest = hashlib.sha256(f"{sys.version}\n{HERE}\n".encode())  # scripts hold the folder's name, so it counts
    for path in MEANINGFUL:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run(*command: str) -> None:
    """Run a step of the set-up; its own words are enough when it fails."""
    code = subprocess.run(command, cwd=HERE).returncode
    if code:
        raise SystemExit(f"The set-up stopped: `{' '.join(command)}` failed ({code}). Mend it, then run this again.")


if __name__ == "__main__":
    raise SystemExit(main())
