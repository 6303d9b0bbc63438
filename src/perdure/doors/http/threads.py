"""Threads for requests that are asked most: one way there and back, without the bookkeeping of threads for anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextvars import Context, copy_context
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

_T = TypeVar("_T")
_Work = tuple[Context, Callable[[], object], asyncio.Future[Any], asyncio.AbstractEventLoop]  # Any: of any result


class RequestThreads:
    """At most `count` threads, begun when one is missing; what is more waits. To be used by one event loop."""

    def __init__(self, count: int = 40) -> None:
        self._most = count
        self._count = self._busy = 0
        self._work: SimpleQueue[_Work | None] = SimpleQueue()

    async def run(self, work: Callable[[], _T]) -> _T:
        """Do `work` in a thread, in this context, and wait for it; when this task is cancelled it goes on by itself."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._busy += 1
        if self._busy > self._count < self._most:
            self._count += 1
            Thread(target=self._serve, name=f"requests {self._count}", daemon=True).start()
        self._work.put((copy_context(), work, future, loop))
        return await future

    def close(self) -> None:
        """Let the threads end when they have done what was asked of them."""
        for _ in range(self._count):
            self._work.put(None)
        self._count = 0

    def _serve(self) -> None:
        while (asked := self._work.get()) is not None:
            context, work, future, loop = asked
            result, error = None, None
            try:
                result = context.run(work)
            except BaseException as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
                loop.call_soon_threadsafe(self._settle, future, result, error, context=context)
            del asked, context, work, future, result, error  # nothing of a request is kept until the next one

    def _settle(self, future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
        self._busy -= 1
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
