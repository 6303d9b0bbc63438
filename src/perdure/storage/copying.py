"""Copying files of this machine into staging: small ones many at a time, beside this process where the store can."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from queue import LifoQueue
from typing import Protocol, runtime_checkable

import structlog

from perdure.storage.model import PartRef, Received
from perdure.storage.staging import Staging, tree_of

log = structlog.get_logger(__name__)

_MOST_COPIERS = 8
_WORTH_A_COPIER = 32  # files; fewer are copied sooner than a process starts


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of this machine: its name in the open folder `dir_fd`, and the logical path that it gets."""

    name: bytes
    dir_fd: int
    path: bytes


class CopierLostError(Exception):
    """The copier has ended; what it had begun lies in the part and is nobody's."""


class Copier(Protocol):
    """Copies small files in a process of its own. For one thread at a time."""

    def copy(self, tree: str, sources: Sequence[SourceFile], digests: frozenset[str]) -> list[Received | None]:
        """Stage ordinary files as `Staging.copy_in` does; None for each that is not, of which nothing is left.

        They are durable after the tree's next sync. Raises CopierLostError.
        """
        ...

    def close(self) -> None:
        """End the process; safe to call twice."""
        ...


@runtime_checkable
class StartsCopiers(Protocol):
    """A store that can have copiers."""

    def start_copier(self) -> Copier | None:
        """A new copier, or None where the medium does not allow it."""
        ...


class CopyIn:
    """Copies into the staging of one store for a while; `close` it. Safe to share between threads."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._copiers: LifoQueue[Copier | None] = LifoQueue()  # as many may run; one not started is None
        for _ in range(min(_MOST_COPIERS, os.cpu_count() or 1)):
            self._copiers.put(None)

    def copy(self, part: PartRef, sources: Sequence[SourceFile], digests: frozenset[str]) -> list[Received | Exception]:
        """Stage files, each read once; for each what was received, or what `Storage.copy_in` raises."""
        found = self._copy_beside(part, sources, digests)
        return [
            self._copy_here(part, source, digests) if received is None else received
            for source, received in zip(sources, found, strict=True)
        ]

    def close(self) -> None:
        """End the copiers, after the last `copy`."""
        while not self._copiers.empty():
            copier = self._copiers.get()
            if copier is not None:
                copier.close()

    def _copy_beside(
        self, part: PartRef, sources: Sequence[SourceFile], digests: frozenset[str]
    ) -> Sequence[Received | None]:
        """What a copier could do, which knows ordinary cases only: whatever else there is has to be done here."""
        store = self._staging.store
        if len(sources) < _WORTH_A_COPIER or not isinstance(store, StartsCopiers):
            return [None] * len(sources)
        copier = self._copiers.get()
        try:
            copier = copier or store.start_copier()
            return copier.copy(tree_of(part), sources, digests) if copier else [None] * len(sources)
        except CopierLostError as error:
            log.warning("copier_lost", store=store.name, error=str(error))
            if copier is not None:
                copier.close()
            copier = None
            return [None] * len(sources)
        finally:
            self._copiers.put(copier)

    def _copy_here(self, part: PartRef, source: SourceFile, digests: frozenset[str]) -> Received | Exception:
        try:
            return self._staging.copy_in(part, source.name, source.path, digests, source.dir_fd)
        except Exception as error:  # the caller tells those of the source from those of the store
            return error
