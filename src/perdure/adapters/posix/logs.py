"""Append-only lines, each with the CRC-32 of its bytes before it, so that a torn end is told from damage."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from isal.isal_zlib import crc32

from perdure.adapters.posix.files import FILE_MODE, make_folders, read_blocks, remove_file, write_all
from perdure.adapters.posix.syncing import Syncer
from perdure.storage.errors import JournalDamagedError
from perdure.storage.model import JournalRead

_CHECK = 9  # eight digits and a space


def encode_lines(lines: Iterable[bytes]) -> bytes:
    """The stored form of lines; raises ValueError if one has a newline."""
    stored = [b"%08x %s\n" % (crc32(line), line) for line in lines]
    data = b"".join(stored)
    if data.count(b"\n") != len(stored):
        raise ValueError("a line of a log has no newline in it")
    return data


def decode_log(data: bytes, name: str) -> JournalRead:
    """Whole lines, and what is torn after the last one; raises JournalDamagedError for damage further up."""
    lines: list[bytes] = []
    length = 0
    *whole, _ = data.split(b"\n")
    for stored in whole:
        line = stored[_CHECK:]
        if stored[: _CHECK - 1] != b"%08x" % crc32(line) or len(stored) < _CHECK:
            break
        lines.append(line)
        length += len(stored) + 1
    torn = data[length:]
    if any(_is_whole(rest) for rest in torn.split(b"\n")[1:]):
        raise JournalDamagedError(f"{name} is damaged after line {len(lines)}.", line=len(lines))
    return JournalRead(lines, torn)


def _is_whole(stored: bytes) -> bool:
    return len(stored) >= _CHECK and stored[: _CHECK - 1] == b"%08x" % crc32(stored[_CHECK:])


class Logs:
    """The logs of one store, by path. Several processes may append to one."""

    def __init__(self, syncer: Syncer, quarantine: bytes) -> None:
        self._syncer = syncer
        self._quarantine = quarantine
        self._sound: dict[bytes, tuple[int, int]] = {}  # inode and size up to which this process knows a log whole

    def append(self, path: bytes, top: bytes, lines: Iterable[bytes], *, durable: bool) -> None:
        """Append lines in one write; a torn end goes to quarantine first."""
        data = encode_lines(lines)
        if not data:
            return
        with self._locked(path, top) as fd:
            end = self._heal(fd, path)
            os.lseek(fd, end, os.SEEK_SET)
            write_all(fd, data)
            if durable or not self._syncer.batch:
                self._syncer.sync_file(fd)
                if not end:  # whoever made the file may have ended before its name was durable
                    self._syncer.sync_folder(os.path.dirname(path))
            self._sound[path] = os.fstat(fd).st_ino, end + len(data)

    def read(self, path: bytes) -> JournalRead:
        return decode_log(_read(path), os.fsdecode(path))

    def replace(self, path: bytes, top: bytes, lines: Iterable[bytes]) -> None:
        """Put other lines in place of all; none removes the log. A damaged one goes to quarantine."""
        data = encode_lines(lines)
        if not data and not os.path.lexists(path):
            return
        with self._locked(path, top):
            self._sound.pop(path, None)
            self._keep_damaged(path)
            if data:
                replace_file(path, data, self._syncer.sync_file)
            else:
                remove_file(path)
            self._syncer.sync_folder(os.path.dirname(path))

    def _keep_damaged(self, path: bytes) -> None:
        """Nobody knows what a damaged log held: it is kept aside before others take its place."""
        data = _read(path)
        try:
            decode_log(data, os.fsdecode(path))
        except JournalDamagedError:
            name = os.path.basename(path) + b".damaged-" + secrets.token_hex(6).encode()
            replace_file(os.path.join(self._quarantine, name), data, self._syncer.sync_file)

    def _heal(self, fd: int, path: bytes) -> int:
        """Where the next line begins. What a crash left half-written was never acknowledged; it is kept aside."""
        found = os.fstat(fd)
        if self._sound.get(path) == (found.st_ino, found.st_size):
            return found.st_size
        data = _read(path)
        torn = decode_log(data, os.fsdecode(path)).torn
        if torn:
            name = os.path.basename(path) + b".torn-" + secrets.token_hex(6).encode()
            replace_file(os.path.join(self._quarantine, name), torn, self._syncer.sync_file)
            os.ftruncate(fd, len(data) - len(torn))
        return len(data) - len(torn)

    @contextmanager
    def _locked(self, path: bytes, top: bytes) -> Iterator[int]:
        """Hold the log that has this name at this moment; another process may have replaced or removed it."""
        while True:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
            except FileNotFoundError:
                make_folders(os.path.dirname(path), top)
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if _is_named(fd, path):
                    yield fd
                    return
            finally:
                os.close(fd)


def replace_file(path: bytes, data: bytes, sync_file: Callable[[int], None]) -> None:
    """Write beside, sync, rename; the folder is synced by the caller."""
    beside = path + b".new-" + secrets.token_hex(6).encode()
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        try:
            write_all(fd, data)
            sync_file(fd)
        finally:
            os.close(fd)
        os.rename(beside, path)
    except BaseException:
        remove_file(beside)
        raise


def _read(path: bytes) -> bytes:
    try:
        return b"".join(read_blocks(path, 0, None))
    except FileNotFoundError:
        return b""


def _is_named(fd: int, path: bytes) -> bool:
    try:
        named = os.lstat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), named)
