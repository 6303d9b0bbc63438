"""The public tools that are measured beside us, as works of the harness; each a program that the system brings.

What a tool writes is removed, and the disk settled, outside of its time. The sources are in the page cache.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import Cost, Work, measured, require_program, run_program
from serving import free_port
from sources import Source, scratch_folder

_START_TIMEOUT = 10.0  # seconds
_RESTIC = {"RESTIC_PASSWORD": "benchmark"}
_GIT = {
    "GIT_AUTHOR_NAME": "Benchmark",
    "GIT_AUTHOR_EMAIL": "benchmark@localhost",
    "GIT_COMMITTER_NAME": "Benchmark",
    "GIT_COMMITTER_EMAIL": "benchmark@localhost",
    "GIT_CONFIG_GLOBAL": os.devnull,
}
Act = Callable[[Source, Path], None]

# What each tool does, for the table: where it does less than we do, and where more.
DOES = {
    "cp + sha512sum": "copies, then digests in a second pass; nothing is synchronised",
    "rclone copy + sync + check": "copies, synchronises the file system once, compares md5 digests of both sides",
    "borg create": "deduplicates and packs into segments, each synchronised; files are read back by borg only",
    "restic backup": "deduplicates, encrypts and packs into files of some MB, each synchronised",
    "git-annex add": "moves files in place into an object store named by digest; nothing is copied or synchronised",
    "bagit-python": "moves files in place below `data/` and writes a list of sha512; nothing is copied or synchronised",
}


def _cp(source: Source, target: Path) -> None:
    run_program("cp", "-r", source.folder, target / "copy")
    run_program("find", target / "copy", "-type", "f", "-exec", "sha512sum", "{}", "+")


def _rclone(source: Source, target: Path) -> None:
    run_program("rclone", "copy", source.folder, target / "copy", environment={"RCLONE_CONFIG": os.devnull})
    os.sync()
    run_program("rclone", "check", source.folder, target / "copy", environment={"RCLONE_CONFIG": os.devnull})


def _borg(source: Source, target: Path) -> None:
    own = {"BORG_BASE_DIR": str(target)}
    run_program("borg", "init", "--encryption=none", target / "repository", environment=own)
    run_program("borg", "create", f"{target / 'repository'}::one", source.folder, environment=own)


def _restic(source: Source, target: Path) -> None:
    words = ("restic", "--no-cache", "--repo", target / "repository")
    run_program(*words, "init", environment=_RESTIC)
    run_program(*words, "backup", source.folder, environment=_RESTIC)


def _git_annex(source: Source, target: Path) -> None:
    own = {**_GIT, "HOME": str(target)}
    folder = target / source.folder.name
    run_program("git", "init", "--quiet", cwd=folder, environment=own)
    run_program("git", "annex", "init", "--quiet", cwd=folder, environment=own)
    run_program("git", "annex", "add", "--quiet", "--jobs=cpus", ".", cwd=folder, environment=own)
    run_program("git", "commit", "--quiet", "--message=all", cwd=folder, environment=own)


def _bagit(source: Source, target: Path) -> None:
    run_program("bagit.py", "--sha512", "--processes", str(os.cpu_count()), target / source.folder.name)


_ACTS: dict[str, tuple[str, Act]] = {
    "cp + sha512sum": ("sha512sum", _cp),
    "rclone copy + sync + check": ("rclone", _rclone),
    "borg create": ("borg", _borg),
    "restic backup": ("restic", _restic),
    "git-annex add": ("git-annex", _git_annex),
    "bagit-python": ("bagit.py", _bagit),
}
_IN_PLACE = ("git-annex add", "bagit-python")


def is_installed(name: str) -> bool:
    """Whether the tool of that name in DOES is on this machine."""
    return shutil.which(_ACTS[name][0]) is not None


def peer(name: str, source: Source, scratch: Path) -> Work:
    """The tool of that name in DOES as a work; raises SkippedError when it is not installed."""
    program, act = _ACTS[name]
    require_program(program)

    def work() -> Cost:
        with scratch_folder(scratch, is_many=source.shape.is_many) as target:
            if name in _IN_PLACE:
                shutil.copytree(source.folder, target / source.folder.name)
                os.sync()
            source.warm()
            cost = measured(lambda: act(source, target))
            run_program("chmod", "-R", "u+w", target)  # git-annex takes the right to write away
            return cost

    return work


@contextmanager
def nginx(root: Path, scratch: Path) -> Iterator[str]:
    """nginx as installed, serving the files below `root` with sendfile; the address of the folder."""
    program, port = require_program("nginx"), free_port()
    temporary = "".join(
        f"{kind}_temp_path {scratch}/nginx;" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (scratch / "nginx.conf").write_text(
        f"daemon off; pid {scratch}/nginx.pid; error_log {scratch}/nginx.log; worker_processes auto;"
        + ("user root;" if os.geteuid() == 0 else "")
        + f"events {{}} http {{ access_log off; sendfile on; tcp_nopush on; {temporary}"
        + f"server {{ listen 127.0.0.1:{port}; root {root}; }} }}",
        encoding="utf-8",
    )
    server = subprocess.Popen([program, "-c", scratch / "nginx.conf", "-e", scratch / "nginx.log"])
    try:
        _wait_for(f"http://127.0.0.1:{port}/", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


@contextmanager
def bare_framework(module: str) -> Iterator[str]:
    """The bare framework on uvicorn, in a process of its own; its address."""
    port = free_port()
    words = ["--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--log-level", "warning"]
    place = ["--app-dir", str(Path(__file__).parent), "--loop", "uvloop", "--http", "httptools"]
    server = subprocess.Popen([sys.executable, "-m", "uvicorn", module, *words, *place])
    try:
        _wait_for(f"http://127.0.0.1:{port}/", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        try:
            opener.open(url, timeout=1).close()
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server of {url} did not start") from None
            time.sleep(0.05)
        else:
            return
