"""The processes of an installation: which there are, and how they are ended. Linux only: they are found in /proc."""

from __future__ import annotations

import os
import random
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

ROLES = ("web", "data", "worker")
_CHILD = "perdure.app.process"


def find_children(data_dir: Path) -> Mapping[str, int]:
    """The process number of each child of the `perdure serve` on that folder, by its role; a second one is `web-2`.

    Found by what they were told, so also when their supervisor is gone.
    """
    numbers = [int(proc.name) for proc in Path("/proc").iterdir() if proc.name.isdecimal()]
    found = {words[-1]: pid for pid in numbers if _CHILD in (words := words_of(pid)) and _is_told(pid, data_dir)}
    return {name: found[name] for role in ROLES for name in sorted(found) if name.partition("-")[0] == role}


def find_database_processes(data_dir: Path) -> list[int]:
    """The postmaster of the embedded database and all below it, it first; none when it is not there."""
    named = data_dir / "postgres" / "cluster" / "postmaster.pid"
    try:
        pid = int(named.read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return []
    is_ours = str(data_dir) in " ".join(words_of(pid))  # the number may be somebody else's since
    return [one for one in _descendants(pid) if words_of(one)] if is_ours else []


def words_of(pid: int) -> list[str]:
    """The command line of a process; empty when it has ended, also when nobody has asked for its end yet."""
    try:
        return [word for word in Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0") if word]
    except OSError:
        return []


def kill(pid: int) -> None:
    """End a process at once; nothing happens when it has ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, and that the system gives to no outgoing connection until we do."""
    found: set[int] = set()
    while len(found) < count:
        port = random.SystemRandom().randrange(20_000, 32_000)  # below those of outgoing connections
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.add(port)
    return sorted(found)


def _is_told(pid: int, data_dir: Path) -> bool:
    try:
        told = Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
    except OSError:
        return False
    return f"PERDURE_DATA_DIR={data_dir}" in told


def _descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *(one for child in children for one in _descendants(int(child)))]
