"""Files that come in order, block by block."""

from __future__ import annotations

import contextlib
import os

from perdure.adapters.posix.direct import BlockWriter
from perdure.adapters.posix.files import remove_file
from perdure.adapters.posix.syncing import Syncer
from perdure.adapters.posix.system import translated
from perdure.storage.ports import Buffer


class FileSink:
    """A new file that takes bytes in order."""

    def __init__(self, fd: int, path: bytes, store: str, syncer: Syncer) -> None:
        self._fd: int | None = fd
        self._path = path
        self._store = store
        self._syncer = syncer
        self._writer = BlockWriter(fd)

    def write(self, data: Buffer) -> None:
        with translated(self._store):
            self._writer.write(data)

    def close(self) -> None:
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        with translated(self._store):
            try:
                self._writer.flush()
                if not self._syncer.batch:
                    self._syncer.sync_file(fd)
            finally:
                self._writer.close()
                os.close(fd)
        self._syncer.note(os.path.dirname(self._path))

    def abort(self) -> None:
        if self._fd is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = None
        remove_file(self._path)
