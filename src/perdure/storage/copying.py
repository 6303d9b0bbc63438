"""Copying files of this machine into staging: small ones many at a time, by helpers where the store can have them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from perdure.storage.helpers import Helpers, SourceFile
from perdure.storage.model import PartRef, Received
from perdure.storage.staging import Staging, tree_of

_MOST_HELPERS = 8


class CopyIn:
    """Copies into the staging of one store for a while; `close` it. Safe to share between threads."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._helpers = Helpers(staging.store, min(_MOST_HELPERS, os.cpu_count() or 1))

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

    def _copy_here(self, part: PartRef, source: SourceFile, digests: frozenset[str]) -> Received | Exception:
        try:
            return self._staging.copy_in(part, source.name, source.path, digests, source.dir_fd)
        except Exception as error:  # the caller tells those of the source from those of the store
            return error
