"""Connections that only ask: each query stands for itself, and a connection is lent without any ceremony.

A pool that serves transactions, too, has to know in which state each connection is, and to put it back into the usual
one: for a query of one row that costs as much as the query.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg

from perdure.db.errors import DatabaseUnavailableError
from perdure.db.questions import AskingConnection, Question

_PATIENCE = 30.0  # seconds


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

    def ask(self, question: Question, parameters: Mapping[str, object]) -> Any | None:  # Any: a named tuple
        """The first row of the answer, None without one; outside of any transaction.

        A server that ended the connections which rested costs nobody an answer: a question changes nothing, and is
        asked once more. Raises what `lend` raises, and the driver's errors.
        """
        lost: AskingConnection | None = None
        try:
            with self.lend() as connection:
                lost = connection
                return connection.ask(question, parameters)
        except psycopg.Error:
            if lost is None or not lost.is_lost:
                raise
        self._close_resting()
        with self.lend() as connection:
            return connection.ask(question, parameters)

    @contextmanager
    def lend(self) -> Iterator[AskingConnection]:
        """A connection inside the block, as it was when it was used last; one whose block raises is closed.

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
            self._age += 1
        self._close_resting()

    def _close_resting(self) -> None:
        with self._lock:
            resting, self._idle = self._idle, []
        for connection in resting:
            self._close(connection)

    def _take(self) -> tuple[AskingConnection, int]:
        with self._lock:
            if self._idle:
                return self._idle.pop(), self._age
            age = self._age
        connection = self._connect()
        with self._lock:
            self._opened += 1
        return connection, age

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


def is_living(connection: psycopg.Connection[Any]) -> bool:  # Any: rows are what the cursor makes of them
    """Whether the server has not ended a connection that rests: a restarted server costs nobody a request.

    Nothing is under way on a resting connection, so whatever stands in its socket is its end, or a word before it. To
    look there costs microseconds, where a query would cost each request a journey to the server.
    """
    return not (connection.closed or _has_input(connection.fileno()))


def _has_input(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
