"""Copying files of this machine into staging: small ones many at a time, by helpers where the store can have them.

A walk through many of them has a helper of its own: each name in a folder is a call of the system, and another for its
status, for which the thread that asks would give the interpreter's lock away and wait for it again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from perdure.storage.helpers import Helpers, Looked, SourceFile
from perdure.storage.model import PartRef, Received
from perdure.storage.ports import Store
from perdure.storage.staging import Staging, tree_of

_MOST_HELPERS = 8
_WORTH_A_WALKER = 1000  # names; fewer are met sooner than a process starts


class CopyIn:
    """Copies into the staging of one store for a while; `close` it. Safe to share between threads."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._helpers = Helpers(staging.store, min(_MOST_HELPERS, os.cpu_count() or 1))
        self.looking = Looking(staging.store)

    def copy(self, part: PartRef, sources: Sequence[SourceFile], digests: frozenset[str]) -> list[Received | Exception]:
        """Stage files, each read once; for each what was received, or what `Storage.copy_in` raises."""
        found = self._helpers.ask(len(sources), lambda helper: helper.copy(tree_of(part), sources, digests))
        return [
            self._copy_here(part, source, digests) if received is None else received
            for source, received in zip(sources, found, strict=True)
        ]

    def close(self) -> None:
        """End the helpers, after the last `copy`."""
        self._helpers.close()
        self.looking.close()

    def _copy_here(self, part: PartRef, source: SourceFile, digests: frozenset[str]) -> Received | Exception:
        try:
            return self._staging.copy_in(part, source.name, source.path, digests, source.dir_fd)
        except Exception as error:  # the caller tells those of the source from those of the store
            return error


class Looking:
    """Says what open folders hold, by a helper where there is much to see. For one thread at a time; `close` it."""

    def __init__(self, store: Store | None) -> None:
        self._helpers = None if store is None else Helpers(store, 1)
        self._seen = 0

    def list_names(self, folder: int) -> list[bytes]:
        """The names in an open folder, sorted; raises OSError."""
        if self._helpers is not None and self._seen >= _WORTH_A_WALKER:
            (found,) = self._helpers.ask(1, lambda helper: [helper.list_names(folder)], at_least=1)
            if found is not None:
                return found
        return sorted(os.fsencode(name) for name in os.listdir(folder))

    def look(self, folder: int, names: Sequence[bytes]) -> Sequence[Looked | OSError]:
        """What names in an open folder stand for, no link followed, or the system's error."""
        self._seen += len(names)
        if self._helpers is None or self._seen < _WORTH_A_WALKER:
            return [_look_here(folder, name) for name in names]
        found = self._helpers.ask(len(names), lambda helper: helper.look(folder, names), at_least=1)
        return [seen or _look_here(folder, name) for name, seen in zip(names, found, strict=True)]

    def close(self) -> None:
        """End the helper, if there is one."""
        if self._helpers is not None:
            self._helpers.close()


def _look_here(folder: int, name: bytes) -> Looked | OSError:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        return error
    return found.st_mode, found.st_size, found.st_mtime_ns
