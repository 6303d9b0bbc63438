"""What a tree of processes uses, as Linux tells it: CPU seconds, memory, bytes written."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_EVERY = 0.5  # seconds between two looks at the memory


class Tree:
    """A process and all below it, also below those that started sessions of their own."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def pids(self) -> list[int]:
        """The living processes."""
        children: dict[int, list[int]] = {}
        for proc in Path("/proc").iterdir():
            if proc.name.isdecimal() and (fields := _fields(int(proc.name))):
                children.setdefault(int(fields[1]), []).append(int(proc.name))
        found = [self.pid]
        for pid in found:
            found.extend(children.get(pid, []))
        return found

    def cpu_seconds(self, role: str = "") -> float:
        """Seconds of CPU so far, of the dead too as far as their parents waited for them; of one role, or of all."""
        pids = [pid for pid in self.pids() if not role or _role(pid).partition("-")[0] == role]
        return sum(sum(map(int, fields[11:15])) for pid in pids if (fields := _fields(pid))) / _TICKS

    def written_bytes(self) -> tuple[int, int]:
        """Bytes that the processes wrote, to files and to each other, and bytes of the pages that were changed by it,
        those of the file system's own among them; of the dead too as far as their parents waited for them."""
        counted = [_counted(pid) for pid in self.pids()]
        written, changed = (sum(one.get(name, 0) for one in counted) for name in ("wchar", "write_bytes"))
        return written, changed


class PeakMemory:
    """The most memory (PSS, bytes) that any process of each role had while it was watched."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.peaks: dict[str, int] = {}

    @property
    def largest(self) -> tuple[str, int]:
        """The role with the highest peak, and that peak."""
        return max(self.peaks.items(), key=lambda item: item[1], default=("none", 0))

    @contextmanager
    def watching(self) -> Iterator[PeakMemory]:
        """Look at all processes again and again while the block runs."""
        stop = threading.Event()
        thread = threading.Thread(target=self._watch, args=(stop,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()

    def _watch(self, stop: threading.Event) -> None:
        while True:
            for pid in self._tree.pids():
                role = _role(pid)
                self.peaks[role] = max(self.peaks.get(role, 0), _pss(pid))
            if stop.wait(_EVERY):
                return


def _fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name (state, parent, ...); none for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _counted(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _role(pid: int) -> str:
    """What the process is for: web, data, worker, serve, or what PostgreSQL calls it."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0 ").split("\0")
    except OSError:
        return "gone"
    if words[0].startswith("postgres:"):
        return " ".join(words[0].split()[:2]) if "backend" not in words[0] else "postgres: backend"
    return "postgres" if words[0].endswith("/postgres") else words[-1]
