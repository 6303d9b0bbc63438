"""Reading files as their medium gives them; many small ones with one call of the system, where it has such a call.

Imports little, for the sake of helper processes; see `small_files`.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
import struct
import sys

from perdure.adapters.posix.descriptors import close_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_DIRECT = READ_FILE | getattr(os, "O_DIRECT", 0)
_BLOCK = 4 << 20
_MOST_FILES = 128  # read at one time by one reader

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
# The numbers of io_setup, io_submit, io_getevents and io_destroy, for which the C library has no names.
_CALLS = {"x86_64": (206, 209, 208, 207), "aarch64": (0, 2, 4, 1), "riscv64": (0, 2, 4, 1)}
_REQUEST = struct.Struct("=QQHhIQQqQQ")  # struct iocb: number, 0, what, priority, file, memory, length, offset, 0, 0
_VARYING, _VARYING_START = struct.Struct("=IQQ"), 20  # of an iocb: file, memory, length
_ANSWER = struct.Struct("=QQqq")  # struct io_event: the request's number, its address, bytes or error, 0
_READ = 0  # IOCB_CMD_PREAD


class MediumReader:
    """Reads files as their medium gives them, into aligned buffers that are used again."""

    def __init__(self, method: str) -> None:
        """`method` is the `medium_read` of a store's abilities."""
        self._flags = READ_FILE | (os.O_DIRECT if method == "direct" else 0)
        self._drops = method == "dropped"
        self._buffers: list[mmap.mmap] = []

    def read(self, path: bytes) -> Iterator[memoryview]:
        """Blocks of a file, each valid until the next one is asked for."""
        fd = os.open(path, self._flags)
        try:
            if self._drops:
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            yield from self._read(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)

    def _read(self, fd: int, size: int) -> Iterator[memoryview]:
        try:
            buffer = self._buffers.pop()
        except IndexError:
            buffer = mmap.mmap(-1, _BLOCK)  # page-aligned, as O_DIRECT demands
        # no longer than the file: the system clears what a direct read asks for beyond the end
        wanted = max(mmap.PAGESIZE, min(_BLOCK, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE))
        view = memoryview(buffer)[:wanted]
        try:
            while count := os.readv(fd, [view]):
                yield view[:count]
                if count < wanted and count % mmap.PAGESIZE:
                    return  # the end of the file; an unaligned offset could not be read on directly
        finally:
            self._buffers.append(buffer)


class ManyReader:
    """Reads small files past the page cache, up to 128 of them with one call and one wait. For one thread.

    The system orders and joins the reads, and the processor is asked once for many of them: for files of 1 KiB that is
    a quarter of the work.
    """

    _context: ctypes.c_ulong | None = None

    def __init__(self) -> None:
        """Raises OSError where the system, or whoever confines this process, does not offer it."""
        calls = _CALLS.get(os.uname().machine)
        if _libc is None or calls is None or sys.maxsize < 1 << 32:
            raise OSError(errno.ENOSYS, "no reading of many files")
        setup, self._submit, self._get, self._destroy = calls
        context = ctypes.c_ulong(0)
        _call(setup, _MOST_FILES, ctypes.byref(context))
        self._context = context
        self._memory = mmap.mmap(-1, _BLOCK)  # page-aligned, as O_DIRECT demands
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._requests = ctypes.create_string_buffer(_REQUEST.size * _MOST_FILES)
        for number in range(_MOST_FILES):
            _REQUEST.pack_into(self._requests, _REQUEST.size * number, number, 0, _READ, 0, 0, 0, 0, 0, 0, 0)
        first = ctypes.addressof(self._requests)
        self._places = (ctypes.c_void_p * _MOST_FILES)(*range(first, first + len(self._requests), _REQUEST.size))
        self._answers = ctypes.create_string_buffer(_ANSWER.size * _MOST_FILES)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Wait for what is still being read, before the memory is given back; safe to call twice."""
        context, self._context = self._context, None
        if context is not None:
            _call(self._destroy, context)

    def iter_read(self, folder: int, paths: Sequence[bytes]) -> Iterator[list[memoryview | None]]:
        """The bytes of each file below an open folder, in order; those of a list are valid until the next list.

        None for what is no ordinary small file at rest, or is not given in one go: another reader may tell why.
        """
        done = 0
        while done < len(paths):
            found = self._read_some(folder, paths[done : done + _MOST_FILES])
            yield found
            done += len(found)

    def _read_some(self, folder: int, paths: Sequence[bytes]) -> list[memoryview | None]:
        """As many as there is memory for."""
        descriptors: list[int] = []
        asked: list[tuple[int, int, int]] = []  # which file, where in memory, how many bytes it should have
        found: list[memoryview | None] = []
        end = 0
        try:
            for path in paths:
                try:
                    descriptor = os.open(path, _READ_DIRECT, dir_fd=folder)
                except OSError:
                    found.append(None)
                    continue
                descriptors.append(descriptor)
                status = os.fstat(descriptor)
                size = status.st_size
                if stat.S_ISREG(status.st_mode) and size <= _BLOCK - mmap.PAGESIZE:
                    # the page beyond the end: a file that is longer than it said gives more
                    length = (size // mmap.PAGESIZE + 1) * mmap.PAGESIZE
                    if end + length > _BLOCK:
                        break
                    place = _REQUEST.size * len(asked) + _VARYING_START
                    _VARYING.pack_into(self._requests, place, descriptor, self._address + end, length)
                    asked.append((len(found), end, size))
                    end += length
                found.append(None)
            memory = memoryview(self._memory)
            for number, count in self._carry_out(len(asked)):
                index, start, size = asked[number]
                if count == size:
                    found[index] = memory[start : start + size]
        finally:
            close_all(descriptors)
        return found

    def _carry_out(self, asked: int) -> Iterator[tuple[int, int]]:
        """Number and result of each request that the system took; all of these have ended after the last."""
        if not asked:
            return
        try:
            left = _call(self._submit, self._context, ctypes.c_long(asked), self._places)
        except OSError:
            return
        while left:
            count = self._wait(left)
            for number, _, result, _ in _ANSWER.iter_unpack(self._answers.raw[: count * _ANSWER.size]):
                yield number, result
            left -= count

    def _wait(self, left: int) -> int:
        while True:
            try:
                return _call(self._get, self._context, ctypes.c_long(left), ctypes.c_long(left), self._answers, None)
            except InterruptedError:
                continue


def _call(number: int, *arguments: object) -> int:
    assert _libc is not None
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
