"""Which workers of this machine are dead for certain: each holds a lock on a file of its own for as long as it lives.

The system lets go of a lock when its process ends, however that happened, so no number of a process that somebody else
has got since can deceive. A worker on another machine is never judged by its file.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class Lifelines:
    """The locks of this process and the files of the others, in one folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._host = re.sub(r"[^A-Za-z0-9_-]", "_", platform.node()) or "host"

    def hold(self, worker: int) -> None:
        """Show that the worker with this number lives, until this process ends; to be called before it takes a job."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        being_made = self._folder / f".{os.getpid()}-{worker}"
        descriptor = os.open(
            being_made, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )  # never closed: that would free it
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        being_made.rename(self._path(worker))  # seen by the others only while it is locked

    @contextmanager
    def dead(self) -> Iterator[Sequence[int]]:
        """The numbers of workers that ended, held against other askers inside the block and forgotten at its end.

        When the block raises, they are told again the next time.
        """
        found: dict[int, int] = {}
        try:
            for worker in self._list():
                descriptor = _lock_if_free(self._path(worker))
                if descriptor is not None:
                    found[worker] = descriptor
            yield list(found)
            for worker in found:
                self._path(worker).unlink(missing_ok=True)
        finally:
            for descriptor in found.values():
                os.close(descriptor)

    def _path(self, worker: int) -> Path:
        return self._folder / f"{self._host}.{worker}"

    def _list(self) -> list[int]:
        """The workers of this machine that have a file, ourselves among them: nobody gets our lock, not even we."""
        pattern = re.compile(rf"{re.escape(self._host)}\.(\d+)")
        names = os.listdir(self._folder) if self._folder.is_dir() else []
        numbers = {int(match[1]) for match in map(pattern.fullmatch, names) if match}
        return sorted(numbers)


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
