"""How a supervisor asks its children for their numbers: a pair of sockets, a number as question, JSON as answer."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import structlog

log = structlog.get_logger(__name__)

_FRAME = struct.Struct("!IQ")  # bytes that follow, and the number of the question
_QUESTION = struct.Struct("!Q")

# Families as JSON has them: name, help, type, and samples of name, labels and value
Plain: TypeAlias = Sequence[tuple[str, str, str, Sequence[tuple[str, dict[str, str], float]]]]


def answer_on(channel: socket.socket, collect: Callable[[], Plain]) -> None:
    """Answer questions in a thread until the other end is closed."""

    def run() -> None:
        with suppress(OSError), channel:
            while question := _receive(channel, _QUESTION.size):
                channel.sendall(_frame(question, _collected(collect)))

    threading.Thread(target=run, name="metrics", daemon=True).start()


class Asker:
    """The supervisor's end of the pair; one scrape at a time uses it."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._number = 0
        self._come = bytearray()

    def ask(self) -> None:
        """Send the next question."""
        self._number += 1
        with suppress(OSError):
            self._channel.settimeout(0.1)
            self._channel.sendall(_QUESTION.pack(self._number))

    def answer(self, until: float) -> Plain | None:
        """The answer to the last question, None from a process that is dead, hangs, or has not begun to answer.

        Answers to earlier questions, which came too late, are passed over.
        """
        try:
            while True:
                size, number = _FRAME.unpack(self._take(_FRAME.size, until, keep=True))
                body = self._take(_FRAME.size + size, until)[_FRAME.size :]
                if number == self._number:
                    found: Plain | None = json.loads(body) if body else None
                    return found
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        self._channel.close()

    def _take(self, size: int, until: float, *, keep: bool = False) -> bytes:
        """The next bytes that came; those of a broken off reading stay for the next one."""
        while len(self._come) < size:
            self._channel.settimeout(max(0.001, until - time.monotonic()))
            piece = self._channel.recv(1 << 18)
            if not piece:
                raise ConnectionResetError
            self._come += piece
        taken = bytes(self._come[:size])
        if not keep:
            del self._come[:size]
        return taken


def _collected(collect: Callable[[], Plain]) -> bytes:
    try:
        return json.dumps(collect()).encode()
    except Exception:
        log.exception("metrics_failed")
        return b""


def _frame(question: bytes, body: bytes) -> bytes:
    return _FRAME.pack(len(body), *_QUESTION.unpack(question)) + body


def _receive(channel: socket.socket, size: int) -> bytes:
    """So many bytes, or none at the end of the connection."""
    received = b""
    while len(received) < size:
        piece = channel.recv(size - len(received))
        if not piece:
            return b""
        received += piece
    return received
