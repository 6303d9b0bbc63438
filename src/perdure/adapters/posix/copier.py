"""A process that copies small files: calls of the operating system, which would hand the interpreter's lock around.

Parent and child talk over a pair of sockets, one order and one answer at a time. An order carries the open folders of
its files, so that the child resolves no path of the source by itself.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Self

import orjson

from perdure.adapters.posix import files
from perdure.kernel.digests import digest_bytes
from perdure.storage.copying import CopierLostError, SourceFile
from perdure.storage.model import DATA_PREFIX, Received
from perdure.storage.staging import OPEN_SOURCE, SMALL, iter_content_names, mark_of

_LENGTH = struct.Struct("!Q")
_MOST_FOLDERS = 250  # the system passes 253 descriptors at once
_PROGRAM = "from perdure.adapters.posix.copier import serve_parent; serve_parent({fd}, {parent})"
_END_TIMEOUT = 5.0  # seconds


class CopierProcess:
    """The parent's side. The child ends when the socket is closed, however that happened."""

    def __init__(self, staging: bytes) -> None:
        self._staging = staging
        self._channel, theirs = socket.socketpair()
        with theirs:
            program = _PROGRAM.format(fd=theirs.fileno(), parent=os.getpid())
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", program],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C at the terminal is for the parent, which ends us last
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def copy(self, tree: str, sources: Sequence[SourceFile], digests: frozenset[str]) -> list[Received | None]:
        folders = {descriptor: index for index, descriptor in enumerate({source.dir_fd for source in sources})}
        if len(folders) > _MOST_FOLDERS:
            return [None] * len(sources)
        wanted = [[_as_text(source.name), folders[source.dir_fd], _as_text(source.path)] for source in sources]
        order = [_as_text(self._staging), tree, sorted(digests), wanted]
        try:
            _send(self._channel, order, list(folders))
            answer, _ = _receive(self._channel)
        except (OSError, EOFError) as error:
            raise CopierLostError(f"a process that copies files has ended: {error}") from error
        return [Received(*one) if one is not None else None for one in answer]

    def close(self) -> None:
        self._channel.close()
        try:
            self._process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve_parent(fd: int, parent: int) -> None:
    """The child's side: carry out orders until the parent closes the socket, or is gone."""
    with socket.socket(fileno=fd) as channel, contextlib.suppress(EOFError, ConnectionError):
        while True:
            (staging, tree, digests, wanted), folders = _receive(channel)
            top = _as_bytes(staging)
            try:
                answer = []
                for name, index, path in wanted:
                    if os.getppid() != parent:
                        return  # nobody waits for the rest, and the part may soon be another's
                    answer.append(try_copy(top, tree, folders[index], _as_bytes(name), _as_bytes(path), digests))
            finally:
                for folder in folders:
                    os.close(folder)
            _send(channel, answer, [])


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


def _is_unchanged(folder: int, name: bytes, before: os.stat_result) -> bool:
    try:
        return mark_of(os.stat(name, dir_fd=folder, follow_symlinks=False)) == mark_of(before)
    except OSError:
        return False


def _as_text(name: bytes) -> str:
    return name.decode("latin-1")  # each byte is a character, so that any name goes through JSON


def _as_bytes(text: str) -> bytes:
    return text.encode("latin-1")


def _send(channel: socket.socket, message: object, descriptors: Sequence[int]) -> None:
    data = orjson.dumps(message)
    socket.send_fds(channel, [_LENGTH.pack(len(data))], descriptors)
    channel.sendall(data)


def _receive(channel: socket.socket) -> tuple[Any, list[int]]:  # Any: what `_send` was given
    """The next message with its descriptors; raises EOFError."""
    start, descriptors, _, _ = socket.recv_fds(channel, _LENGTH.size, _MOST_FOLDERS)
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
