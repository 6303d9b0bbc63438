"""The helper process: copies and digests small files at its parent's order, one order and one answer at a time.

It starts anew for a few files' sake, so it imports little.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import orjson

from perdure.adapters.posix import files
from perdure.adapters.posix.files import MediumReader
from perdure.kernel.digests import digest_bytes, make_digester
from perdure.storage.model import DATA_PREFIX
from perdure.storage.staging import OPEN_SOURCE, SMALL, iter_content_names, mark_of

MOST_FOLDERS = 250  # the system passes 253 descriptors at once
_LENGTH = struct.Struct("!Q")


def serve_parent(fd: int, parent: int) -> None:
    """The child's side: carry out orders until the parent closes the socket, or is gone."""
    with socket.socket(fileno=fd) as channel, contextlib.suppress(EOFError, ConnectionError):
        while True:
            (act, *order), folders = receive(channel)
            try:
                answer = []
                for step in _iter_copies(folders, *order) if act == "copy" else _iter_digests(*order):
                    if os.getppid() != parent:
                        return  # nobody waits for the rest, and the part may soon be another's
                    answer.append(step())
            finally:
                for folder in folders:
                    os.close(folder)
            send(channel, answer, [])


def _iter_copies(
    folders: Sequence[int], staging: str, tree: str, digests: Sequence[str], wanted: Sequence[tuple[str, int, str]]
) -> Iterator[Callable[[], object]]:
    top = as_bytes(staging)
    for name, index, path in wanted:
        yield partial(try_copy, top, tree, folders[index], as_bytes(name), as_bytes(path), digests)


def _iter_digests(
    folder: str, medium_read: str, algorithm: str, wanted: Sequence[str]
) -> Iterator[Callable[[], object]]:
    reader, top = MediumReader(medium_read), as_bytes(folder)
    for path in wanted:
        yield partial(try_digest, reader, top + b"/" + as_bytes(path), algorithm)


def try_copy(
    top: bytes, tree: str, folder: int, name: bytes, path: bytes, digests: Sequence[str]
) -> tuple[str, int, dict[str, str], int, int] | None:
    """The fields of Received; None, leaving nothing, for all that is not a small file at rest with a free name."""
    try:
        source = os.open(name, OPEN_SOURCE, dir_fd=folder)
    except OSError:
        return None
    try:
        before = os.fstat(source)
        if not stat.S_ISREG(before.st_mode) or before.st_size > SMALL:
            return None
        data = os.read(source, before.st_size + 1)
        content = next(iter_content_names(path))
        target = top + f"/{tree}/{DATA_PREFIX}{content}".encode()
        if len(data) != before.st_size or not files.put(target, top, data, None):
            return None
        if not _is_unchanged(folder, name, before):
            files.remove_file(target)
            return None
    except OSError:
        return None
    finally:
        os.close(source)
    return content, len(data), digest_bytes(data, digests), before.st_mtime_ns, stat.S_IMODE(before.st_mode)


def try_digest(reader: MediumReader, path: bytes, algorithm: str) -> tuple[str, int] | None:
    """Digest (hex) and size of a file on its medium; None where it is not given."""
    digester, size = make_digester(algorithm), 0
    try:
        for block in reader.read(path):
            digester.update(block)
            size += len(block)
    except OSError:
        return None
    return digester.hexdigest(), size


def _is_unchanged(folder: int, name: bytes, before: os.stat_result) -> bool:
    try:
        return mark_of(os.stat(name, dir_fd=folder, follow_symlinks=False)) == mark_of(before)
    except OSError:
        return False


def as_text(name: bytes) -> str:
    return name.decode("latin-1")  # each byte is a character, so that any name goes through JSON


def as_bytes(text: str) -> bytes:
    return text.encode("latin-1")


def send(channel: socket.socket, message: object, descriptors: Sequence[int]) -> None:
    data = orjson.dumps(message)
    socket.send_fds(channel, [_LENGTH.pack(len(data))], descriptors)
    channel.sendall(data)


def receive(channel: socket.socket) -> tuple[Any, list[int]]:  # Any: what `send` was given
    """The next message with its descriptors; raises EOFError."""
    start, descriptors, _, _ = socket.recv_fds(channel, _LENGTH.size, MOST_FOLDERS)
    start += _receive_exactly(channel, _LENGTH.size - len(start)) if start else b""
    if not start:
        raise EOFError("the channel is closed")
    (length,) = _LENGTH.unpack(start)
    return orjson.loads(_receive_exactly(channel, length)), descriptors


def _receive_exactly(channel: socket.socket, length: int) -> bytes:
    pieces: list[bytes] = []
    while length:
        piece = channel.recv(min(length, 1 << 20))
        if not piece:
            raise EOFError("the channel is closed")
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)
