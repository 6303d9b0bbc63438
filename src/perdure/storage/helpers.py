"""Processes beside this one that do the system's calls for many small files, where the store can have them.

Here each call would hand the interpreter's lock around, which costs more than the call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import LifoQueue
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import structlog

from perdure.storage.model import Received
from perdure.storage.ports import Store

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

_WORTH_A_HELPER = 32  # files; fewer are done sooner than a process starts


class SourceFile(NamedTuple):
    """A file of this machine: its name in the open folder `dir_fd`, and the logical path that it gets."""

    name: bytes
    dir_fd: int
    path: bytes


# What a name in a folder stands for, no link followed: its mode, size, and time of change (ns).
Looked = tuple[int, int, int]


class HelperLostError(Exception):
    """The helper has ended; what it had begun to write lies in the part and is nobody's."""


class Helper(Protocol):
    """Does small files one after the other in a process of its own. For one thread at a time.

    It knows ordinary cases only: for any other the answer is None, and the caller does it.
    """

    def copy(self, tree: str, sources: Sequence[SourceFile], digests: frozenset[str]) -> list[Received | None]:
        """Stage ordinary files as `Staging.copy_in` does; None for each that is not, of which nothing is left.

        They are durable after the tree's next sync. Raises HelperLostError.
        """
        ...

    def digest(self, object_id: str, paths: Sequence[str], algorithm: str) -> list[tuple[str, int] | None]:
        """Digest (hex) and size of files of an object, as the medium gives them; None for what it does not give.

        Raises HelperLostError.
        """
        ...

    def list_names(self, folder: int) -> list[bytes] | None:
        """The names in an open folder, sorted; None where they are not given. Raises HelperLostError."""
        ...

    def look(self, folder: int, names: Sequence[bytes]) -> list[Looked | None]:
        """What names in an open folder stand for; None for each that is not given. Raises HelperLostError."""
        ...

    def dismiss(self) -> None:
        """Let the process end; safe to call twice."""
        ...

    def close(self) -> None:
        """Let the process end and wait for it; safe to call twice."""
        ...


@runtime_checkable
class StartsHelpers(Protocol):
    """A store that can have helpers."""

    def start_helper(self) -> Helper | None:
        """A new helper, or None where the medium does not allow it."""
        ...


class Helpers:
    """At most `count` helpers of a store, started when they are first needed; `close` them. Safe to share."""

    def __init__(self, store: Store, count: int) -> None:
        self._store, self.count = store, count
        self._free: LifoQueue[Helper | None] = LifoQueue()  # as many may run; one not started is None
        for _ in range(count):
            self._free.put(None)

    def ask(
        self, things: int, act: Callable[[Helper], list[Result | None]], *, at_least: int = _WORTH_A_HELPER
    ) -> Sequence[Result | None]:
        """What a helper answers for so many things; None for each where there is none, or it was lost."""
        store = self._store
        if not self.count or things < at_least or not isinstance(store, StartsHelpers):
            return [None] * things
        helper = self._free.get()
        try:
            helper = helper or store.start_helper()
            return act(helper) if helper else [None] * things
        except HelperLostError as error:
            log.warning("helper_lost", store=self._store.name, error=str(error))
            if helper is not None:
                helper.close()
            helper = None
            return [None] * things
        finally:
            self._free.put(helper)

    def close(self) -> None:
        """End them, after the last `ask`."""
        helpers = [helper for _ in range(self._free.qsize()) if (helper := self._free.get()) is not None]
        for helper in helpers:
            helper.dismiss()  # all at once, before the first is waited for
        for helper in helpers:
            helper.close()
