"""Files: written in order or at an offset, read in blocks or past the page cache, folders made and removed."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
from collections import deque
from collections.abc import Iterator

from perdure.adapters.posix.direct import BlockWriter
from perdure.adapters.posix.syncing import Syncer
from perdure.adapters.posix.system import translated
from perdure.storage.errors import StoreUnavailableError
from perdure.storage.ports import Buffer

BLOCK = 1 << 20
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_MODE = 0o640
FOLDER_MODE = 0o750
_MEDIUM_BLOCK = 4 << 20
_TAKEN = (FileExistsError, NotADirectoryError, IsADirectoryError)


def create(path: bytes, top: bytes) -> int | None:
    """Open a new file for writing, making folders below `top`; None when the name or one above it is taken."""
    while True:
        try:
            return os.open(path, NEW_FILE, FILE_MODE)
        except FileNotFoundError:
            # folders are made when they are missed: asking first would cost each file a call
            try:
                make_folders(os.path.dirname(path), top)
            except _TAKEN:
                return None
        except _TAKEN:
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
                return None
            raise


def make_folders(folder: bytes, top: bytes) -> list[bytes]:
    """Make a folder and those above it, down from `top`, which must exist; returns what was made, topmost first.

    `top` is never made: if it is gone, the store is not mounted, and writing would go to another medium.
    """
    if len(folder) <= len(top):
        if not os.path.isdir(top):
            raise StoreUnavailableError(f"The folder {os.fsdecode(top)} is gone: is the store mounted?")
        return []
    try:
        os.mkdir(folder, FOLDER_MODE)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            raise
        return []
    except FileNotFoundError:
        made = make_folders(os.path.dirname(folder), top)
        return made + make_folders(folder, top)
    return [folder]


def write_all(fd: int, data: Buffer) -> int:
    """Write every byte at the file's position; returns their number."""
    done = os.write(fd, data)
    if done == len(data):
        return done
    view = memoryview(data)
    while done < len(view):
        done += os.write(fd, view[done:])
    return done


def put(path: bytes, top: bytes, data: Buffer, syncer: Syncer | None) -> bool:
    """Write a small new file; False when the name is taken. Removes what it wrote when it fails.

    Without a syncer somebody else sees to it that the whole file system is synced.
    """
    fd = create(path, top)
    if fd is None:
        return False
    try:
        try:
            write_all(fd, data)
            if syncer is not None and not syncer.batch:
                syncer.sync_file(fd)
        finally:
            os.close(fd)  # network file systems report a full disk here
    except BaseException:
        remove_file(path)
        raise
    if syncer is not None and not syncer.batch:
        syncer.note(os.path.dirname(path))
    return True


def remove_file(path: bytes) -> bool:
    """Remove a file; whether there was one."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


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


def read_blocks(path: bytes, offset: int, length: int | None) -> Iterator[bytes]:
    """Blocks of a regular file; raises FileNotFoundError."""
    fd = os.open(path, READ_FILE)
    try:
        left = length
        while left is None or left > 0:
            block = os.pread(fd, BLOCK if left is None else min(BLOCK, left), offset)
            if not block:
                return
            yield block
            offset += len(block)
            left = None if left is None else left - len(block)
    finally:
        os.close(fd)


class MediumReader:
    """Reads files as their medium gives them, into aligned buffers that are used again."""

    def __init__(self, method: str) -> None:
        self._flags = READ_FILE | (os.O_DIRECT if method == "direct" else 0)
        self._drops = method == "dropped"
        self._buffers: deque[mmap.mmap] = deque()

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
            buffer = mmap.mmap(-1, _MEDIUM_BLOCK)  # page-aligned, as O_DIRECT demands
        # no longer than the file: the system clears what a direct read asks for beyond the end
        wanted = max(mmap.PAGESIZE, min(_MEDIUM_BLOCK, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE))
        view = memoryview(buffer)[:wanted]
        try:
            while count := os.readv(fd, [view]):
                yield view[:count]
                if count < wanted and count % mmap.PAGESIZE:
                    return  # the end of the file; an unaligned offset could not be read on directly
        finally:
            self._buffers.append(buffer)


def walk(folder: bytes, prefix: bytes = b"", *, empty_folders: bool = False) -> Iterator[tuple[str, int]]:
    """Relative path and size of each file below a folder; size -1 for what is neither file nor folder."""
    with os.scandir(folder) as found:
        entries = list(found)
    if not entries and empty_folders:
        yield os.fsdecode(prefix), -1
    for entry in entries:
        path = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from walk(entry.path, path + b"/", empty_folders=empty_folders)
        elif entry.is_file(follow_symlinks=False):
            yield os.fsdecode(path), entry.stat(follow_symlinks=False).st_size
        else:
            yield os.fsdecode(path), -1


def remove_tree(folder: bytes) -> tuple[int, int]:
    """Remove a folder with everything in it; returns files and bytes. Goes on where another remover was faster."""
    files = size = 0
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except FileNotFoundError:
        return 0, 0
    except NotADirectoryError:
        size = os.lstat(folder).st_size
        return (1, size) if remove_file(folder) else (0, 0)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            below = remove_tree(entry.path)
            files, size = files + below[0], size + below[1]
        else:
            length = entry.stat(follow_symlinks=False).st_size
            if remove_file(entry.path):
                files, size = files + 1, size + length
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(folder)
    return files, size


def prune(folder: bytes) -> bool:
    """Remove the folders below this one that hold nothing; whether this one is empty then."""
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except FileNotFoundError:
        return True
    empty = True
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and prune(entry.path):
            os.rmdir(entry.path)
        else:
            empty = False
    return empty
