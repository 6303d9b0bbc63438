"""Calls of the operating system that Python has no name for, and what a file system was found able to do."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perdure.kernel.errors import PerdureError
from perdure.storage.errors import StoreFailedError, StoreFullError, StoreUnavailableError
from perdure.storage.model import Abilities

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_NO_SUCH_FLAG = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})
_SYNC_FILE_RANGE_WRITE = 2
# Where syncfs(2) is known to wait for data and metadata. A file system in user space is not told of it.
_HONEST_SYNCFS = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "tmpfs", "overlay", "ceph", "nfs", "nfs4"}
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_AWAY = frozenset({errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.ENODEV, errno.ECONNREFUSED})
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # of descriptors or memory, which others give back
_REFUSED = frozenset({errno.EACCES, errno.EPERM})
_FAILED = frozenset({errno.EIO, errno.EROFS, errno.ENXIO, getattr(errno, "EUCLEAN", errno.EIO)})

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def has_syncfs() -> bool:
    return _libc is not None and hasattr(_libc, "syncfs")


def syncfs(fd: int) -> None:
    """Make the whole file system durable; since Linux 5.8 it reports errors of write-back since the last call on fd."""
    assert _libc is not None
    if _libc.syncfs(fd) != 0:
        _raise_errno("syncfs")


def exchange(first: bytes, second: bytes) -> None:
    """Swap two names in one step; raises OSError where the file system cannot."""
    _rename_with(first, second, _RENAME_EXCHANGE)


def move_new(source: bytes, target: bytes) -> None:
    """Give a file a name that is free; raises FileExistsError.

    One step where the system can; else a crash may leave the file under both names.
    """
    try:
        _rename_with(source, target, _RENAME_NOREPLACE)
    except OSError as error:
        if error.errno not in _NO_SUCH_FLAG:
            raise
        _link_new(source, target)


def _link_new(source: bytes, target: bytes) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "the name is taken", target) from None
        os.rename(source, target)
    else:
        os.unlink(source)


def _rename_with(source: bytes, target: bytes, flag: int) -> None:
    if _libc is None or not hasattr(_libc, "renameat2"):
        raise OSError(errno.ENOSYS, "renameat2")
    if _libc.renameat2(_AT_FDCWD, source, _AT_FDCWD, target, flag) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source, None, target)


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Ask the kernel to begin writing these bytes, so that a later sync finds little to do; never an error."""
    if _libc is not None and hasattr(_libc, "sync_file_range"):
        _libc.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE)


def translate(error: OSError, store: str) -> PerdureError | None:
    """The error of ours that an operating system's error means, or None."""
    if error.errno in _FULL:
        return StoreFullError(f"The store {store} is full: {error.strerror}.")
    if error.errno in _AWAY | _SHORT:
        return StoreUnavailableError(f"The store {store} cannot be reached: {error.strerror}.")
    if error.errno in _FAILED:
        return StoreFailedError(f"The medium of the store {store} failed: {error.strerror}.")
    if error.errno in _REFUSED:  # says nothing of the bytes, so that no copy is doubted for it
        return StoreUnavailableError(f"The store {store} may not be used by this service: {error.strerror}.")
    return None


@contextmanager
def translated(store: str) -> Iterator[None]:
    """Raise what `translate` knows in place of an OSError; others pass."""
    try:
        yield
    except OSError as error:
        known = translate(error, store)
        if known is None:
            raise
        raise known from error


def sync_path(path: bytes, flags: int = os.O_RDONLY) -> None:
    """fsync a file or folder by name."""
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def filesystem_of(folder: Path) -> str:
    """The type of the file system a folder lies on, or `unknown`."""
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return "unknown"
    for line in lines:
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            return after.split()[0]
    return "unknown"


def probe(folder: Path) -> Abilities:
    """Try on files of its own, in a folder of the store, what the file system can do."""
    place = folder / f"probe-{secrets.token_hex(6)}"
    place.mkdir()
    try:
        filesystem = filesystem_of(folder)
        batch_sync = has_syncfs() and filesystem in _HONEST_SYNCFS
        (place / "file").write_bytes(b"x" * 8192)
        return Abilities(filesystem, _probe_read(place), batch_sync, _probe_exchange(place), _probe_link(place))
    finally:
        _remove_probe(place)


def _probe_read(place: Path) -> str:
    with contextlib.suppress(OSError):
        os.close(os.open(place / "file", os.O_RDONLY | getattr(os, "O_DIRECT", os.O_DIRECTORY)))
        return "direct"
    return "dropped" if hasattr(os, "posix_fadvise") else "plain"


def _probe_exchange(place: Path) -> bool:
    (place / "a").mkdir()
    (place / "b").mkdir()
    try:
        exchange(os.fsencode(place / "a"), os.fsencode(place / "b"))
    except OSError:
        return False
    return True


def _probe_link(place: Path) -> bool:
    try:
        os.link(place / "file", place / "link")
    except OSError:
        return False
    return True


def _remove_probe(place: Path) -> None:
    for name in ("link", "file"):
        (place / name).unlink(missing_ok=True)
    for name in ("a", "b"):
        with contextlib.suppress(FileNotFoundError):
            (place / name).rmdir()
    place.rmdir()


def _raise_errno(call: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), call)
