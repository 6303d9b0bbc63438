"""A single pass over files, the reference of other benchmarks: `python bench/reference.py [result.json]`.

It is the least that a tool must do that keeps a digested, durable copy: read, sha512, write, and make it durable; large
files each with an fsync, small ones with one sync of the file system at the end. It is written as fast as plain Python
allows. Run by itself, it compares the ways of doing so; the others use the fastest.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from harness import GB, Cost, Finding, Options, against, main, measured, seconds, take_turns
from sources import BLOCK, Shape, Source, buffer_of, chunks_of, in_threads, scratch_folder

_SMALL = 1 << 20  # bytes; a smaller file is read at once


class SinglePass:
    """The reference as a work: what it writes is removed, and the disk settled, outside of its time.

    Large files are copied by threads; a single one is digested in a second thread. Small ones are copied by processes,
    or by threads when `processes` is False: there the interpreter's lock costs more than starting processes does.
    """

    def __init__(self, source: Source, scratch: Path, *, workers: int | None = None, processes: bool = True) -> None:
        self._source, self._scratch = source, scratch
        self._workers = workers or os.cpu_count() or 1
        self._processes = processes

    def __call__(self) -> Cost:
        self._source.warm()
        with scratch_folder(self._scratch, is_many=self._source.shape.is_many) as target:
            return measured(lambda: self._copy(target))

    def _copy(self, target: Path) -> None:
        names = self._source.names
        for folder in {Path(name).parent for name in names}:
            (target / folder).mkdir(parents=True, exist_ok=True)
        if self._source.shape.size >= _SMALL:
            copy = _LargeCopy(self._source.folder, target, is_alone=len(names) == 1)
            digests = in_threads(copy, names, self._workers)
        elif self._processes:
            digests = self._copy_by_processes(target)
        else:
            digests = in_threads(lambda name: _copy_small(self._source.folder, target, name), names, self._workers)
        if self._source.shape.size < _SMALL:
            os.sync()
        assert len(digests) == len(names)

    def _copy_by_processes(self, target: Path) -> list[bytes]:
        chunks = [(str(self._source.folder), str(target), chunk) for chunk in chunks_of(self._source.names, 2)]
        with ProcessPoolExecutor(self._workers, get_context("spawn")) as pool:
            return [digest for done in pool.map(_copy_chunk, chunks) for digest in done]


def _copy_chunk(chunk: tuple[str, str, Sequence[str]]) -> list[bytes]:
    source, target, names = chunk
    return [_copy_small(source, target, name) for name in names]


def _copy_small(source: str | Path, target: str | Path, name: str) -> bytes:
    descriptor = os.open(f"{source}/{name}", os.O_RDONLY)
    try:
        data = os.read(descriptor, os.fstat(descriptor).st_size)  # no more: the buffer is cleared before
    finally:
        os.close(descriptor)
    descriptor = os.open(f"{target}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
    return hashlib.sha512(data).digest()


class _LargeCopy:
    """Copies files by blocks."""

    def __init__(self, source: Path, target: Path, *, is_alone: bool) -> None:
        self._source, self._target, self._is_alone = source, target, is_alone
        self._local = threading.local()

    def __call__(self, name: str) -> bytes:
        with (
            open(self._source / name, "rb", buffering=0) as coming,
            open(self._target / name, "xb", buffering=0) as going,
        ):
            digest = self._copy_in_two(coming.fileno(), going.fileno()) if self._is_alone else hashlib.sha512()
            buffer = buffer_of(self._local)
            while size := coming.readinto(buffer):
                going.write(buffer[:size])
                digest.update(buffer[:size])
            os.fsync(going.fileno())
        return digest.digest()

    @staticmethod
    def _copy_in_two(coming: int, going: int) -> hashlib._Hash:
        """Copy while a second thread digests the block before."""
        digest, buffers = hashlib.sha512(), [memoryview(bytearray(BLOCK)) for _ in range(2)]
        before: Future[None] | None = None
        with ThreadPoolExecutor(1) as digester:
            while size := os.readv(coming, [buffers[0]]):
                following = digester.submit(digest.update, buffers[0][:size])
                os.write(going, buffers[0][:size])
                if before is not None:
                    before.result()
                before = following
                buffers.reverse()
        return digest


def _large(options: Options) -> Iterator[Finding]:
    shape = Shape("large", 8, options.size(256 << 20))
    source = shape.make(options.folder)
    counts = sorted({1, os.cpu_count() or 1, 2 * (os.cpu_count() or 1)})
    works = {f"{count} threads": SinglePass(source, options.folder, workers=count) for count in counts}
    yield from _compare(shape, works, options, f"{os.cpu_count()} threads")
    source.remove()


def _small(options: Options) -> Iterator[Finding]:
    shape = Shape("small", options.count(30_000), 1 << 10)
    source = shape.make(options.folder)
    count = os.cpu_count() or 1
    works = {
        f"{each} {kind}": SinglePass(source, options.folder, workers=each, processes=kind == "processes")
        for kind in ("processes", "threads")
        for each in (count, 2 * count)
    }
    yield from _compare(shape, works, options, f"{count} processes")
    source.remove()


def _compare(shape: Shape, works: dict[str, SinglePass], options: Options, used: str) -> Iterator[Finding]:
    costs = take_turns(works, options.rounds)
    for name, found in costs.items():
        cpu = sum(cost.cpu for cost in found) / len(found) / shape.total * GB
        note = f"{cpu:.2f} CPU seconds per GB"
        yield against(f"{shape.described}, {name}", seconds(found), used, seconds(costs[used]), note=note)


if __name__ == "__main__":
    main(__doc__, {"large": _large, "small": _small})
