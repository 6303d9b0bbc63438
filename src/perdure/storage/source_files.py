"""What a file of this machine that is taken in is recognised by, and how it is named; imports little."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from perdure.formats.content_paths import hashed_content_path, natural_content_path

SMALL = 1 << 20  # a file up to this size is read and written in one step
OPEN_SOURCE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not hold us up


def _random_hex(count: int) -> str:
    return os.urandom(count).hex()


def iter_content_names(path: bytes, random_hex: Callable[[int], str] = _random_hex) -> Iterator[str]:
    """Where a file may be staged: under its own name if that is safe, then under names that nobody else has."""
    natural = natural_content_path(path)
    if natural is not None:
        yield natural
    hashed = hashed_content_path(path)
    while True:
        yield f"{hashed}.{random_hex(6)}"


def mark_of(found: os.stat_result) -> tuple[int, int, int, int]:
    """What of a file's status changes when its bytes do."""
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
