"""Connections that only ask: each query stands for itself, and a connection is lent without any ceremony.

A pool that serves transactions, too, has to know in which state each connection is, and to put it back into the usual
one: for a query of one row that costs as much as the query.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from perdure.db.errors import DatabaseUnavailableError

_PATIENCE = 30.0  # seconds

AskingConnection = psycopg.Connection[Any]  # Any: rows are what the cursor makes of them


class AskingConnections:
    """At most `limit` connections in autocommit, opened when one is missing; safe to share between threads."""

    def __init__(self, connect: Callable[[], AskingConnection], limit: int) -> None:
        self.limit = limit
        self._connect = connect
        self._turns = threading.BoundedSemaphore(limit)
        self._lock = threading.Lock()
        self._idle: list[AskingConnection] = []  # the last one that was used is lent first
        self._opened = 0
        self._age = 0

    @contextmanager
    def lend(self) -> Iterator[AskingConnection]:
        """A living connection inside the block; one whose block raises is closed.

        Raises DatabaseUnavailableError when all were in use for half a minute, and what connecting raises.
        """
        if not self._turns.acquire(timeout=_PATIENCE):
            raise DatabaseUnavailableError("Too many requests wait for the database.")
        try:
            connection, age = self._take()
            try:
                yield connection
            except BaseException:
                self._close(connection)
                raise
            self._give_back(connection, age)
        finally:
            self._turns.release()

    def use(self) -> tuple[int, int]:
        """How many connections are in use, and how many are open and idle."""
        with self._lock:
            return self._opened - len(self._idle), len(self._idle)

    def dispose(self) -> None:
        """Close what is idle, and what is in use when it comes back; whoever asks next gets a new one."""
        with self._lock:
            resting, self._idle = self._idle, []
            self._age += 1
        for connection in resting:
            self._close(connection)

    def _take(self) -> tuple[AskingConnection, int]:
        while True:
            with self._lock:
                age = self._age
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                connection = self._connect()
                with self._lock:
                    self._opened += 1
                return connection, age
            if is_living(connection):
                return connection, age
            self._close(connection)

    def _give_back(self, connection: AskingConnection, age: int) -> None:
        with self._lock:
            if age == self._age:
                self._idle.append(connection)
                return
        self._close(connection)

    def _close(self, connection: AskingConnection) -> None:
        with self._lock:
            self._opened -= 1
        connection.close()


def is_living(connection: AskingConnection) -> bool:
    """Whether the server has not ended a connection that rests: a restarted server costs nobody a request.

    Nothing is under way on a resting connection, so whatever stands in its socket is its end, or a word before it. To
    look there costs microseconds, where a query would cost each request a journey to the server.
    """
    return not (connection.closed or _has_input(connection.fileno()))


def _has_input(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
