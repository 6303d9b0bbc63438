"""Writing large files past the page cache.

A page that is new to the cache is found, cleared, filled and written back, which can cost more than to digest what is
in it; and nothing reads it soon, since a verification reads the medium.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys

from perdure.adapters.posix.system import start_writeback
from perdure.storage.ports import Buffer

DIRECT_BLOCK = 1 << 20
_ALIGNED = 4096  # no medium at hand wants larger shares; where one does, the rest goes through the cache
_KEPT_BLOCKS = 16
_WRITEBACK = 16 << 20
# f_type of statfs(2) where a write past the cache waits for the medium and for nothing else
_LOCAL = frozenset({0xEF53, 0x58465342})  # ext4, xfs
_STATFS_BYTES = 256

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class BlockWriter:
    """Writes an open file from an offset on: past the page cache but for its end, where the file system allows it.

    What was written is in the file after `flush`, and durable after a sync of the file or of its file system. `close`
    leaves the file itself open.
    """

    def __init__(self, fd: int, offset: int = 0) -> None:
        self._fd = fd
        self._offset = offset  # up to here the file is written
        self._started = offset  # and up to here the system was asked to write it back
        self._direct = open_direct(fd)
        self._block = None if self._direct is None else _take_block()
        self._filled = 0

    def write(self, data: Buffer) -> None:
        view = memoryview(data)
        if self._block is None:
            self._write_through(view)
            return
        while len(view):
            room = DIRECT_BLOCK - self._offset % DIRECT_BLOCK - self._filled
            piece, view = view[:room], view[room:]
            self._block[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            if len(piece) == room:
                self.flush()

    def flush(self) -> None:
        """Write what is gathered."""
        if self._block is None or not self._filled:
            return
        with memoryview(self._block) as block, block[: self._filled] as gathered:
            aligned = 0 if self._offset % _ALIGNED else self._filled - self._filled % _ALIGNED
            done = self._write_direct(gathered[:aligned]) if aligned else 0
            while done < self._filled:
                done += os.pwrite(self._fd, gathered[done:], self._offset + done)
        self._offset += self._filled
        self._filled = 0

    def close(self) -> None:
        """Let go of the memory and of what was not flushed; safe to call twice."""
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None
        if self._block is not None:
            _keep_block(self._block)
            self._block = None

    def _write_direct(self, block: memoryview) -> int:
        """Write pages, or the first of them, and tell how much: a medium may want other shares than we think."""
        assert self._direct is not None
        try:
            return os.pwrite(self._direct, block, self._offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return 0

    def _write_through(self, view: memoryview) -> None:
        while len(view):
            done = os.pwrite(self._fd, view, self._offset)
            self._offset, view = self._offset + done, view[done:]
        if self._offset - self._started >= _WRITEBACK:
            start_writeback(self._fd, self._started, self._offset - self._started)
            self._started = self._offset


_kept_blocks: list[mmap.mmap] = []  # of all writers: pages that are new to a process cost as much as a copy into them


def _take_block() -> mmap.mmap:
    """A block of memory at the beginning of a page, as O_DIRECT demands."""
    try:
        return _kept_blocks.pop()
    except IndexError:
        return mmap.mmap(-1, DIRECT_BLOCK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _keep_block(block: mmap.mmap) -> None:
    if len(_kept_blocks) < _KEPT_BLOCKS:  # others go with their last view, which the traceback of a failure may hold
        _kept_blocks.append(block)


def open_direct(fd: int) -> int | None:
    """Another descriptor of an open file, which writes past the page cache; None where that is not known to be good."""
    if not hasattr(os, "O_DIRECT") or _filesystem_type(fd) not in _LOCAL:
        return None
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return None


def _filesystem_type(fd: int) -> int:
    if _libc is None or not hasattr(_libc, "fstatfs"):
        return 0
    found = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.fstatfs(fd, found) != 0:
        return 0
    return ctypes.c_long.from_buffer(found).value & 0xFFFFFFFF
