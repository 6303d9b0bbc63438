"""Files: small ones written at once, read in blocks, folders made and removed. Imports little."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from perdure.adapters.posix.medium import READ_FILE
from perdure.storage.errors import StoreUnavailableError

if TYPE_CHECKING:  # they bring much that a helper process does not need
    from perdure.adapters.posix.syncing import Syncer
    from perdure.storage.ports import Buffer

BLOCK = 1 << 20
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_MODE = 0o640
FOLDER_MODE = 0o750
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


def walk(folder: bytes, prefix: str = "", *, empty_folders: bool = False) -> Iterator[tuple[str, int]]:
    """Relative path and size of each file below a folder; size -1 for what is neither file nor folder."""
    files, folders = _list_sizes(folder, prefix)
    yield from files
    for name in folders:
        yield from walk(folder + b"/" + os.fsencode(name), f"{prefix}{name}/", empty_folders=empty_folders)
    if empty_folders and not files and not folders:
        yield prefix, -1


def _list_sizes(folder: bytes, prefix: str) -> tuple[list[tuple[str, int]], list[str]]:
    """What lies in a folder, as `walk` gives it, and the names of the folders in it."""
    files, folders = [], []
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with os.scandir(fd) as found:  # so that the system does not resolve the folder's path anew for each file
            for entry in found:
                if entry.is_file(follow_symlinks=False):
                    files.append((prefix + entry.name, entry.stat(follow_symlinks=False).st_size))
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                else:
                    files.append((prefix + entry.name, -1))
    finally:
        os.close(fd)
    return files, folders


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
