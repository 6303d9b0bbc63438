"""Digests of what is on its way."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor


class FollowingDigest:
    """A digest taken in another thread, at most one piece behind, so that receiving and writing need not wait."""

    def __init__(self, algorithm: str, threads: ThreadPoolExecutor) -> None:
        self._digest = hashlib.new(algorithm)
        self._threads = threads
        self._pending: Future[None] | None = None
        self.size = 0

    def add(self, piece: bytes | memoryview) -> None:
        """Take the next piece, which must not change before the next call; done with the one before."""
        self._settle()
        self._pending = self._threads.submit(self._digest.update, piece)
        self.size += len(piece)

    def finish(self) -> str:
        """The digest of everything so far, in hexadecimal."""
        self._settle()
        return self._digest.hexdigest()

    def _settle(self) -> None:
        if self._pending is not None:
            self._pending.result()
