"""A store whose N-th call fails, and one that takes its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

from perdure.kernel.errors import PerdureError
from perdure.storage.errors import StoreFailedError, StoreFullError
from perdure.storage.ports import Buffer, Store
from perdure.testing.faults import Fault, FaultPlan
from perdure.testing.wrapping import WrappedStore

Result = TypeVar("Result")


class FailingStore(WrappedStore):
    """Any store, some of whose calls fail as a plan says: before they did anything, or after half of a write.

    With `acts_first` a failing call does its work and the error comes in place of its answer, as when a connection
    breaks at the wrong moment.
    """

    def __init__(self, inner: Store, plan: FaultPlan, *, acts_first: bool = False) -> None:
        super().__init__(inner)
        self.plan = plan
        self._acts_first = acts_first

    def around(self, call: str, act: Callable[[], Result]) -> Result:
        error = self._meet(call)
        if error is None:
            return act()
        if self._acts_first or call == "sink.abort":  # nobody could clear up after that one
            act()
        raise error

    def around_write(self, call: str, data: Buffer, write: Callable[[Buffer], Result]) -> Result:
        fault = self.plan.meet(call)
        if fault is None:
            return write(data)
        if self._acts_first:
            write(data)
        elif fault is Fault.SHORT and call != "put_file":  # a file put in one step is there whole or not at all
            with suppress(PerdureError):
                write(memoryview(data)[: len(data) // 2])
        raise self._error_of(fault, call)

    def around_blocks(self, call: str, place: str, blocks: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
        return self.around_names(call, blocks)

    def around_names(self, call: str, names: Callable[[], Iterator[Result]]) -> Iterator[Result]:
        """Each item counts as a call, and the end of the listing does."""
        for item in names():
            self._raise_if_met(call)
            yield item
        self._raise_if_met(call)

    def _raise_if_met(self, call: str) -> None:
        error = self._meet(call)
        if error is not None:
            raise error

    def _meet(self, call: str) -> PerdureError | None:
        fault = self.plan.meet(call)
        return None if fault is None else self._error_of(fault, call)

    def _error_of(self, fault: Fault, call: str) -> PerdureError:
        if fault is Fault.FAILED:
            return StoreFailedError(f"The medium of the store {self.name} failed in {call}.")
        return StoreFullError(f"The store {self.name} is full, says {call}.")


class SlowStore(WrappedStore):
    """Any store behind a long line: `latency` seconds a call, `bandwidth` bytes a second for what goes through it."""

    def __init__(
        self,
        inner: Store,
        *,
        latency: float,
        bandwidth: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(inner)
        self._latency = latency
        self._bandwidth = bandwidth
        self._sleep = sleep

    def around(self, call: str, act: Callable[[], Result]) -> Result:
        self._wait(0)
        return act()

    def around_write(self, call: str, data: Buffer, write: Callable[[Buffer], Result]) -> Result:
        self._wait(len(data))
        return write(data)

    def around_blocks(self, call: str, place: str, blocks: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
        self._wait(0)
        for block in blocks():
            self._wait(len(block))
            yield block

    def around_names(self, call: str, names: Callable[[], Iterator[Result]]) -> Iterator[Result]:
        self._wait(0)
        yield from names()

    def _wait(self, size: int) -> None:
        flow = size / self._bandwidth if self._bandwidth else 0.0
        self._sleep(flow if size else self._latency)
