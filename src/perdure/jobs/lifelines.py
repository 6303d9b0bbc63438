"""Which processes of this machine have ended for certain: each holds locks on files for as long as it lives.

The system lets go of a lock when its process ends, however that happened, so no number of a process that somebody else
has got since can deceive. A process on another machine is never judged by its file.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from perdure.kernel.ids import new_id

_WORKER = "worker-"
_PROCESS = "process-"
_FORGET_AFTER = 7 * 86400.0  # seconds: no lease of a process that ended is as long


class Lifelines:
    """The locks of this process and the files of the others, in one folder of this machine. Safe between threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._host = re.sub(r"[^A-Za-z0-9_-]", "_", platform.node()) or "host"
        self._turn = threading.Lock()
        self._own: str | None = None

    def own_name(self) -> str:
        """The name by which others can ask whether this process has ended; the same each time."""
        with self._turn:
            if self._own is None:
                self._forget_old()
                self._own = self._hold(f"{_PROCESS}{new_id().hex}")
            return self._own

    def has_ended(self, name: str) -> bool:
        """Whether the process of that name, which `own_name` told there, has ended; False also when nobody knows."""
        descriptor = _lock_if_free(self._folder / Path(name).name)
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is not None

    def hold_worker(self, worker: int) -> None:
        """Show that the worker with this number lives, until this process ends; to be called before it takes a job."""
        self._hold(f"{_WORKER}{worker}")

    @contextmanager
    def dead_workers(self) -> Iterator[Sequence[int]]:
        """The numbers of workers that ended, held against other askers inside the block and forgotten at its end.

        When the block raises, they are told again the next time.
        """
        found: dict[Path, int] = {}
        try:
            for path in self._list(_WORKER):
                descriptor = _lock_if_free(path)
                if descriptor is not None:
                    found[path] = descriptor
            yield [int(path.name.rpartition("-")[2]) for path in found]
            for path in found:
                path.unlink(missing_ok=True)
        finally:
            for descriptor in found.values():
                os.close(descriptor)

    def _hold(self, what: str) -> str:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = f"{self._host}.{what}"
        being_made = self._folder / f".{os.getpid()}-{name}"
        descriptor = os.open(
            being_made, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )  # never closed: that would free it
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        being_made.rename(self._folder / name)  # seen by the others only while it is locked
        return name

    def _list(self, kind: str) -> list[Path]:
        """The files of this machine, our own among them: nobody gets our locks, not even we."""
        pattern = re.compile(rf"{re.escape(self._host)}\.{kind}[0-9a-f]+")
        names = os.listdir(self._folder) if self._folder.is_dir() else []
        return sorted(self._folder / name for name in names if pattern.fullmatch(name))

    def _forget_old(self) -> None:
        for path in self._list(_PROCESS):
            descriptor = _lock_if_free(path)
            if descriptor is not None:
                if time.time() - os.fstat(descriptor).st_mtime > _FORGET_AFTER:
                    path.unlink(missing_ok=True)
                os.close(descriptor)


def _lock_if_free(path: Path) -> int | None:
    """The file's open descriptor, locked, or None when its process lives or somebody else asks at this moment."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
