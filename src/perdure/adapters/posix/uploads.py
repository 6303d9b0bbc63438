"""A file that grows over several requests, and the durable record of how far it is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from collections.abc import Iterator

from perdure.adapters.posix.direct import BlockWriter
from perdure.adapters.posix.files import BLOCK
from perdure.adapters.posix.logs import Logs
from perdure.adapters.posix.syncing import Syncer
from perdure.adapters.posix.system import translated
from perdure.storage.errors import StoreFailedError, UploadBusyError
from perdure.storage.ports import Buffer

ATTRIBUTES, OFFSET, NOTE = b"a", b"o", b"n"  # first byte of a line of the record


class FileUpload:
    """One upload in the hands of one holder; bytes are written at the offset, never appended by the system."""

    def __init__(self, path: bytes, record: bytes, top: bytes, store: str, syncer: Syncer, logs: Logs) -> None:
        self._record = record
        self._top = top
        self._store = store
        self._syncer = syncer
        self._logs = logs
        self._fd: int | None = None
        self._writer: BlockWriter | None = None
        self.attributes, self.durable, self.note = read_record(logs, record)
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            # also when whoever asked for it fails before he has it: a hold that nobody can end ends with the process
            self._let_go = weakref.finalize(self, os.close, self._fd)
        except FileNotFoundError:
            if self.note is None:
                raise
            self.durable = 0  # its bytes were moved to where the note says
        else:
            self._take_hold(path)
        self.size = self.durable

    def write(self, data: Buffer) -> None:
        assert self._fd is not None
        if self._writer is None:
            self._writer = BlockWriter(self._fd, self.size)
        with translated(self._store):
            self._writer.write(data)
        self.size += len(data)

    def checkpoint(self) -> int:
        assert self._fd is not None
        if self.size > self.durable:
            self._flush()
            self._syncer.sync_file(self._fd)
            with translated(self._store):
                self._logs.append(self._record, self._top, [OFFSET + str(self.size).encode()], durable=True)
            self.durable = self.size
        return self.durable

    def read(self, offset: int, length: int) -> Iterator[bytes]:
        assert self._fd is not None
        self._flush()
        end = offset + length
        while offset < end:
            block = os.pread(self._fd, min(BLOCK, end - offset), offset)
            if not block:
                raise StoreFailedError(f"An upload in the store {self._store} lost bytes that were written.")
            yield block
            offset += len(block)

    def _flush(self) -> None:
        if self._writer is not None:
            with translated(self._store):
                self._writer.flush()

    def keep_note(self, note: bytes) -> None:
        with translated(self._store):
            self._logs.append(self._record, self._top, [NOTE + note], durable=True)
        self.note = note

    def close(self) -> None:
        # no error: what was promised is synced, and a rest that is lost is cut at the next opening
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with contextlib.suppress(OSError):
                writer.close()
        if self._fd is not None:
            self._fd = None
            with contextlib.suppress(OSError):
                self._let_go()

    def _take_hold(self, path: bytes) -> None:
        assert self._fd is not None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # the record is read again under the lock: the holder before us may have gone further
            _, self.durable, self.note = read_record(self._logs, self._record)
            length = os.fstat(self._fd).st_size
            if length < self.durable:
                raise StoreFailedError(f"An upload in the store {self._store} lost bytes that were durable.")
            if length > self.durable:
                os.ftruncate(self._fd, self.durable)
        except BlockingIOError:
            self.close()
            raise UploadBusyError("Another request holds this upload.") from None
        except BaseException:
            self.close()
            raise


def read_record(logs: Logs, record: bytes) -> tuple[bytes, int, bytes | None]:
    """Attributes, durable length and note of an upload; raises FileNotFoundError."""
    attributes: bytes | None = None
    offset, note = 0, None
    for line in logs.read(record).lines:
        if line[:1] == ATTRIBUTES:
            attributes = line[1:]
        elif line[:1] == OFFSET:
            offset = int(line[1:])
        elif line[:1] == NOTE:
            note = line[1:]
    if attributes is None:
        raise FileNotFoundError(record)
    return attributes, offset, note
