"""Waiting that no clock cuts short which somebody sets: what is late by the hour of the day may be so by mistake."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Hashable
from datetime import timedelta


class Patience:
    """Says of a thing that is late whether this process has found it so for long enough. Safe to share between threads.

    It begins anew with the process, and with a thing that was not late in between.
    """

    def __init__(self, wait: timedelta, steady: Callable[[], float] = time.monotonic) -> None:
        """`steady` gives seconds that only go forward, as fast as time does."""
        self._wait = wait.total_seconds()
        self._steady = steady
        self._lock = threading.Lock()
        self._since: dict[Hashable, float] = {}

    def is_over(self, thing: Hashable) -> bool:
        """Whether a thing, late at this moment, has been late for the whole wait."""
        now = self._steady()
        with self._lock:
            return now - self._since.setdefault(thing, now) >= self._wait

    def forget_all_but(self, late: Collection[Hashable]) -> None:
        """Begin anew with what is not late any more."""
        with self._lock:
            self._since = {thing: since for thing, since in self._since.items() if thing in late}
