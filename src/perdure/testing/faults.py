"""Which call fails, and how: what the failing stores and the failing system of these tests are told.

A test first lets everything run under `FaultPlan()`, which only counts; then, for every number up to `count`, it runs
the same under `FaultPlan(at=number, fault=…)` and sees what becomes of it. Where there are too many numbers, it counts
by `call_site`, and lets the first, the last or any call of each site fail.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum


class Fault(StrEnum):
    """`failed`: the medium reports an error (EIO); `full`: there is no room (ENOSPC); `short`: half is written."""

    FAILED = "failed"
    FULL = "full"
    SHORT = "short"


class FaultPlan:
    """Counts calls and says which one fails. Safe to share between threads, stores and the system's calls.

    `at` is the number of the failing call, from 1; None lets every call pass. `counts` limits the plan to some calls,
    by their name or by the stack that they are made on (`call_site`): others pass uncounted. With `stays` every counted
    call from `at` on fails, as on a medium that died.
    """

    def __init__(
        self,
        *,
        at: int | None = None,
        fault: Fault = Fault.FAILED,
        counts: Callable[[str], bool] = lambda name: True,
        stays: bool = False,
    ) -> None:
        self._at = at
        self._fault = fault
        self._counts = counts
        self._stays = stays
        self._lock = threading.Lock()
        self._is_paused = False
        self.calls: list[str] = []
        self.injected: list[str] = []

    @property
    def count(self) -> int:
        """How many calls were counted so far."""
        return len(self.calls)

    def meet(self, name: str) -> Fault | None:
        """Count a call; what befalls it, or None."""
        with self._lock:
            if self._is_paused or not self._counts(name):
                return None
            self.calls.append(name)
            number = len(self.calls)
            is_hit = self._at is not None and (number == self._at or (self._stays and number > self._at))
            if is_hit:
                self.injected.append(name)
            return self._fault if is_hit else None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let every call inside the block pass uncounted: for looking at what came out."""
        before, self._is_paused = self._is_paused, True
        try:
            yield
        finally:
            self._is_paused = before

    def mend(self) -> None:
        """Let every call pass from here on; they are still counted."""
        self._at = None


def call_site() -> str:
    """Where the present call comes from: the product's functions on the way to it, outermost first."""
    names: list[str] = []
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("perdure.") and not module.startswith("perdure.testing."):
            names.append(f"{module.removeprefix('perdure.')}:{frame.f_code.co_name}")
    return " > ".join(reversed(names))
