"""The helper process: finds, copies and digests small files at its parent's order, one order and one answer at a time.

It starts anew for a few files' sake, so it imports little.
"""

from __future__ import annotations

import contextlib
import gc
import marshal
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from perdure.adapters.posix import files
from perdure.adapters.posix.medium import ManyReader, MediumReader
from perdure.kernel.digests import make_digester
from perdure.storage.source_files import OPEN_SOURCE, SMALL, iter_content_names, mark_of

MOST_FOLDERS = 250  # the system passes 253 descriptors at once
_LENGTH = struct.Struct("!Q")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

Copied = tuple[str, int, dict[str, str], int, int]  # the fields of Received
Digested = tuple[str, int]  # digest (hex) and size
Seen = tuple[int, int, int]  # the fields of the seen name: mode, size, time of change (ns)


def serve_parent(fd: int, parent: int) -> None:
    """The child's side: carry out orders until the parent closes the socket, or is gone."""
    gc.freeze()  # what was imported stays
    digesting = Digesting()
    acts: dict[str, Callable[..., Iterator[Any]]] = {  # Any: what marshal takes
        "copy": iter_copies,
        "digest": lambda _, *order: digesting.iter_digests(*order),
        "names": iter_names,
        "look": iter_looks,
    }
    with socket.socket(fileno=fd) as channel, contextlib.suppress(EOFError, ConnectionError):
        while True:
            (act, *order), folders = receive(channel)
            results = acts[act](folders, *order)
            answer = []
            try:
                # nobody waits for the rest when the parent is gone, and the part may soon be another's
                while os.getppid() == parent and (result := next(results, results)) is not results:
                    answer.append(result)
            finally:
                for folder in folders:
                    os.close(folder)
            if os.getppid() != parent:
                return
            send(channel, answer, [])


def iter_names(folders: Sequence[int]) -> Iterator[list[bytes] | None]:
    """The names in an open folder, sorted; None where they are not given."""
    try:
        yield sorted(os.fsencode(name) for name in os.listdir(folders[0]))
    except OSError:
        yield None


def iter_looks(folders: Sequence[int], names: Sequence[bytes]) -> Iterator[Seen | None]:
    """Mode, size and time of each name in an open folder, no link followed; None where that is not given."""
    (folder,) = folders
    for name in names:
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            yield None
        else:
            yield found.st_mode, found.st_size, found.st_mtime_ns


def iter_copies(
    folders: Sequence[int],
    staging: bytes,
    data: bytes,
    digests: Sequence[str],
    wanted: Sequence[tuple[bytes, int, bytes]],
) -> Iterator[Copied | None]:
    """What `try_copy` gives for each name in one of the open folders, with its logical path."""
    for name, index, path in wanted:
        yield try_copy(staging, data, folders[index], name, path, digests)


def try_copy(
    staging: bytes, data: bytes, folder: int, name: bytes, path: bytes, digests: Sequence[str]
) -> Copied | None:
    """Copy a file into the folder `data` below `staging`.

    None, leaving nothing, for all that is not a small file at rest with a free name.
    """
    try:
        source = os.open(name, OPEN_SOURCE, dir_fd=folder)
    except OSError:
        return None
    try:
        before = os.fstat(source)
        size = before.st_size
        if not stat.S_ISREG(before.st_mode) or size > SMALL:
            return None
        found = os.read(source, size + 1)
        content = next(iter_content_names(path))
        target = data + content.encode()
        if len(found) != size or not files.put(target, staging, found, None):
            return None
        if not _is_unchanged(folder, name, before):
            files.remove_file(target)
            return None
    except OSError:
        return None
    finally:
        os.close(source)
    return content, size, _digests_of(found, digests), before.st_mtime_ns, stat.S_IMODE(before.st_mode)


def _digests_of(data: bytes, names: Sequence[str]) -> dict[str, str]:
    digests = {}
    for name in names:
        digester = make_digester(name)
        digester.update(data)
        digests[name] = digester.hexdigest()
    return digests


def _is_unchanged(folder: int, name: bytes, before: os.stat_result) -> bool:
    try:
        return mark_of(os.stat(name, dir_fd=folder, follow_symlinks=False)) == mark_of(before)
    except OSError:
        return False


class Digesting:
    """Digests files, with readers that are kept from one order to the next."""

    def __init__(self) -> None:
        self._many: ManyReader | None = None
        self._readers: dict[str, MediumReader] = {}

    def iter_digests(
        self, folder: bytes, medium_read: str, algorithm: str, wanted: Sequence[bytes]
    ) -> Iterator[Digested | None]:
        """What the medium gives for each path below a folder; None where it does not."""
        reader = self._readers.setdefault(medium_read, MediumReader(medium_read))
        many = self._reader_of_many(medium_read)
        with _opened(folder) as opened:
            found = many.read(opened, wanted) if many is not None and opened is not None else iter([None] * len(wanted))
            for path, data in zip(wanted, found, strict=True):
                if data is None:
                    yield try_digest(reader, folder + b"/" + path, algorithm)
                    continue
                digester = make_digester(algorithm)
                digester.update(data)
                yield digester.hexdigest(), len(data)

    def _reader_of_many(self, medium_read: str) -> ManyReader | None:
        if medium_read != "direct":
            return None
        if self._many is None:
            with contextlib.suppress(OSError):
                self._many = ManyReader()
        return self._many


def try_digest(reader: MediumReader, path: bytes, algorithm: str) -> Digested | None:
    """Digest and size of one file on its medium; None where it is not given."""
    digester, size = make_digester(algorithm), 0
    try:
        for block in reader.read(path):
            digester.update(block)
            size += len(block)
    except OSError:
        return None
    return digester.hexdigest(), size


@contextlib.contextmanager
def _opened(folder: bytes) -> Iterator[int | None]:
    try:
        descriptor = os.open(folder, _FOLDER)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def send(channel: socket.socket, message: Any, descriptors: Sequence[int]) -> None:  # Any: what marshal takes
    """Both ends are one program in one interpreter, whose own form is the fastest, and has bytes."""
    data = marshal.dumps(message)
    socket.send_fds(channel, [_LENGTH.pack(len(data))], descriptors)
    channel.sendall(data)


def receive(channel: socket.socket) -> tuple[Any, list[int]]:  # Any: what `send` was given
    """The next message with its descriptors; raises EOFError."""
    start, descriptors, _, _ = socket.recv_fds(channel, _LENGTH.size, MOST_FOLDERS)
    start += _receive_exactly(channel, _LENGTH.size - len(start)) if start else b""
    if not start:
        raise EOFError("the channel is closed")
    (length,) = _LENGTH.unpack(start)
    return marshal.loads(_receive_exactly(channel, length)), descriptors  # noqa: S302  # from nobody else, see `send`


def _receive_exactly(channel: socket.socket, length: int) -> bytes:
    pieces: list[bytes] = []
    while length:
        piece = channel.recv(min(length, 1 << 20))
        if not piece:
            raise EOFError("the channel is closed")
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)
