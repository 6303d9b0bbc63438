"""Descriptors: passed to another process with a message, and closed many at once. Imports little; see `small_files`."""

from __future__ import annotations

import _socket  # what `socket` makes of it takes 10 ms
import marshal
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

MOST_PASSED = 250  # the system passes 253 at once; an order tells their places by bytes
_DESCRIPTOR = 4  # bytes
_LENGTH = 8  # bytes in front of each message that tell its length


def send(channel: _socket.socket, message: Any, descriptors: Sequence[int] = ()) -> None:  # Any: what marshal takes
    """Both ends are one program in one interpreter, whose own form is the fastest, and has bytes."""
    data = marshal.dumps(message)
    passed = (
        [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(descriptors)}i", *descriptors))]
        if descriptors
        else []
    )
    channel.sendmsg([len(data).to_bytes(_LENGTH, "big")], passed)
    channel.sendall(data)


def receive(channel: _socket.socket) -> tuple[Any, list[int]]:  # Any: what `send` was given
    """The next message with its descriptors; raises EOFError."""
    start, passed, _, _ = channel.recvmsg(_LENGTH, _socket.CMSG_SPACE(MOST_PASSED * _DESCRIPTOR))
    descriptors = [one for _, _, data in passed for one in memoryview(data).cast("i")]
    start += _receive_exactly(channel, _LENGTH - len(start)) if start else b""
    if not start:
        raise EOFError("the channel is closed")
    data = _receive_exactly(channel, int.from_bytes(start, "big"))
    return marshal.loads(data), descriptors  # noqa: S302  # from nobody else, see `send`


def _receive_exactly(channel: _socket.socket, length: int) -> bytes:
    pieces: list[bytes] = []
    while length:
        piece = channel.recv(min(length, 1 << 20))
        if not piece:
            raise EOFError("the channel is closed")
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def close_all(descriptors: Sequence[int]) -> None:
    """Close what was opened for reading, with one call where nothing else was opened in between."""
    if descriptors and list(descriptors) == list(range(descriptors[0], descriptors[-1] + 1)):
        os.closerange(descriptors[0], descriptors[-1] + 1)
        return
    for descriptor in descriptors:
        os.close(descriptor)
