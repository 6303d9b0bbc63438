"""The files that are measured, of bytes that do not compress, and folders for what comes out."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

BLOCK = 4 << 20
_PER_FOLDER = 1000
_MANY = 1000  # files
_CHUNK = 500  # small files that a thread takes at a time
Thing = TypeVar("Thing")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Shape:
    """So many files of one size in bytes."""

    name: str
    count: int
    size: int

    @property
    def total(self) -> int:
        return self.count * self.size

    @property
    def is_many(self) -> bool:
        """Whether the file system takes notice when they are removed; see `discard`. Large ones need their room."""
        return self.count >= _MANY and self.size < BLOCK

    @property
    def described(self) -> str:
        return f"{self.count:,} × {_described_size(self.size)}"

    def make(self, folder: Path) -> Source:
        """Write the files below a new folder."""
        top = folder / self.name
        for number in range(0, self.count, _PER_FOLDER):
            (top / f"{number // _PER_FOLDER:04d}").mkdir(parents=True)
        in_threads(lambda number: self._write(top, number), range(self.count), os.cpu_count() or 1)
        os.sync()
        return Source(self, top)

    def _write(self, top: Path, number: int) -> None:
        with open(f"{top}/{number // _PER_FOLDER:04d}/{number:07d}.dat", "wb", buffering=0) as stream:
            for start in range(0, self.size, BLOCK):
                stream.write(os.urandom(min(BLOCK, self.size - start)))


class Source:
    """A folder of files of one shape."""

    def __init__(self, shape: Shape, folder: Path) -> None:
        self.shape, self.folder = shape, folder
        self.names = sorted(str(place.relative_to(folder)) for place in folder.rglob("*.dat"))

    def warm(self) -> None:
        """Read everything, so that each contender finds it in the page cache."""
        if self.shape.is_many:
            forget_deleted()
        local = threading.local()

        def read(name: str) -> None:
            buffer = buffer_of(local)
            with open(self.folder / name, "rb", buffering=0) as stream:
                while stream.readinto(buffer):
                    pass

        in_threads(read, self.names, 2)

    def remove(self) -> None:
        discard(self.folder, is_many=self.shape.is_many)


def forget_deleted() -> None:
    """Let the file system forget what was deleted before, where we may.

    ext4 passes over an inode for up to six minutes after its file was deleted as long as it has the inode in memory,
    and after many deletions that takes longer than all else.
    """
    os.sync()
    with suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("1", encoding="ascii")


def buffer_of(local: threading.local) -> memoryview:
    """A buffer that the thread keeps."""
    if not hasattr(local, "buffer"):
        local.buffer = memoryview(bytearray(BLOCK))
    found: memoryview = local.buffer
    return found


def in_threads(work: Callable[[Thing], Result], things: Sequence[Thing], threads: int) -> list[Result]:
    """Do all, in order; of many things a thread takes many at a time, so that handing over costs little."""
    with ThreadPoolExecutor(threads) as pool:
        done = pool.map(lambda chunk: [work(thing) for thing in chunk], chunks_of(things, threads))
        return [one for chunk in done for one in chunk]


def chunks_of(things: Sequence[Thing], workers: int) -> list[Sequence[Thing]]:
    """Several chunks for each worker, of at most some hundred things."""
    step = max(1, min(_CHUNK, len(things) // (workers * 4)))
    return [things[start : start + step] for start in range(0, len(things), step)]


@contextmanager
def scratch_folder(inside: Path, *, is_many: bool) -> Iterator[Path]:
    """A folder on a settled disk for few or many files, discarded at the end."""
    os.sync()
    target = Path(tempfile.mkdtemp(dir=inside, prefix="scratch-"))
    try:
        yield target
    finally:
        discard(target, is_many=is_many)


def discard(folder: Path, *, is_many: bool) -> None:
    """Remove a folder; one of many files is only renamed, and removed with everything else at the end.

    The turn of one contender would pay for the cleaning up of another: see `forget_deleted`.
    """
    if is_many:
        folder.rename(Path(tempfile.mkdtemp(dir=folder.parent, prefix="discarded-")) / folder.name)
    else:
        shutil.rmtree(folder)


def _described_size(size: int) -> str:
    units = ((1 << 30, "GiB"), (10**9, "GB"), (1 << 20, "MiB"), (10**6, "MB"), (1 << 10, "KiB"))
    return next((f"{size // unit} {name}" for unit, name in units if size >= unit and size % unit == 0), f"{size:,} B")
