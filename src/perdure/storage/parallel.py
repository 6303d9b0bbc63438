"""Work on many files in threads, with little in flight and results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from operator import itemgetter
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_BATCH_FILES = 250
_BATCH_BYTES = 32 << 20


def worker_count() -> int:
    """Threads that keep both the processors and the medium busy."""
    return min(16, 2 * (os.cpu_count() or 1))


def iter_in_threads(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Apply the function to the items in threads; the first error ends it after what is running has ended."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="storage") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def iter_batches(sizes: Iterable[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    """Cut files into batches that are worth a thread's while."""
    waiting = iter(sizes)
    while batch := list(islice(waiting, _BATCH_FILES)):
        if sum(map(itemgetter(1), batch)) <= _BATCH_BYTES:  # as of many small files nearly every one
            yield batch
        else:
            yield from _iter_lighter(batch)


def _iter_lighter(files: Iterable[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    batch: list[tuple[str, int]] = []
    held = 0
    for one in files:
        if batch and held + one[1] > _BATCH_BYTES:
            yield batch
            batch, held = [], 0
        batch.append(one)
        held += max(one[1], 0)
    if batch:
        yield batch
