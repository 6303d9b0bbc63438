"""What one piece of work costs: counted along its way by whoever does a part of it, read by whoever began it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Tally:
    """The costs of one request or of one attempt at a job; logs name it in the field `kind` (`request_id`, `job_id`).

    `received` are bytes of the client, `waited` the seconds in which the work wanted to wait: for those bytes, or for
    an event that was asked for. Threads of the same piece of work follow each other, so nothing is locked.
    """

    __slots__ = ("database_seconds", "kind", "name", "queries", "received", "waited")

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        self.received = 0
        self.queries = 0
        self.database_seconds = 0.0
        self.waited = 0.0


_current: ContextVar[Tally | None] = ContextVar("tally", default=None)
find_tally = _current.get  # the tally of the work that this thread or task belongs to, or None


start_counting = _current.set  # returns what stop_counting wants: for places too hot for a block
stop_counting = _current.reset


@contextmanager
def counting(tally: Tally) -> Iterator[Tally]:
    """Count into this tally inside the block, also in threads that are given a copy of this context."""
    token = start_counting(tally)
    try:
        yield tally
    finally:
        stop_counting(token)
