"""Every statement is watched on its way to the database: how long it took, and on whose behalf.

All statements pass the driver's cursor, but for questions, which tell of themselves. Rows that are fetched later, COPY
and what a named cursor fetches are not counted; the seconds are those until the database has answered.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter
from typing import Any, Protocol

import psycopg
from psycopg.abc import Params, QueryNoTemplate

from perdure.kernel.tally import find_tally


class StatementWatch(Protocol):
    """Is told of each statement and each commit, in the thread that waited for it; must return at once."""

    def statement(self, seconds: float, query: object, params: object) -> None: ...

    def commit(self, seconds: float) -> None: ...


def tell(watch: StatementWatch, started: float, query: object, params: object) -> None:
    """Tell the watch, and the work that it was for, of a statement that began at `started` and has been answered."""
    seconds = perf_counter() - started
    tally = find_tally()
    if tally is not None:
        tally.queries += 1
        tally.database_seconds += seconds
    watch.statement(seconds, query, params)


def watched_connection(watch: StatementWatch) -> type[psycopg.Connection[Any]]:
    """A class of connections that tell the watch; Any: rows are what SQLAlchemy makes of them."""

    class WatchedCursor(psycopg.Cursor[Any]):
        def execute(  # type: ignore[override]  # the driver's overloads for templates, which we do not use
            self, query: QueryNoTemplate, params: Params | None = None, **options: Any
        ) -> WatchedCursor:
            started = perf_counter()
            try:
                super().execute(query, params, **options)
            finally:
                tell(watch, started, query, params)
            return self

        def executemany(  # type: ignore[override]  # the same
            self, query: QueryNoTemplate, params_seq: Iterable[Params], **options: Any
        ) -> None:
            started = perf_counter()
            try:
                super().executemany(query, params_seq, **options)
            finally:
                tell(watch, started, query, _first(params_seq))

    class WatchedConnection(psycopg.Connection[Any]):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self.cursor_factory = WatchedCursor

        def commit(self) -> None:
            started = perf_counter()
            try:
                super().commit()
            finally:
                seconds = perf_counter() - started
                tally = find_tally()
                if tally is not None:
                    tally.database_seconds += seconds
                watch.commit(seconds)

    return WatchedConnection


def _first(params: object) -> object:
    """One set of parameters of many, to plan the statement with."""
    return params[0] if isinstance(params, (list, tuple)) and params else None
