"""Queries that are put into words once, for what is asked with every request, and sent past the driver's cursors.

Building a statement anew, comparing its key and making its result presentable costs several times what the database
needs; so does what a cursor does for any statement: finding its placeholders, the types of values and their order. Here
all that is known beforehand is done beforehand.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from time import perf_counter
from typing import Any
from uuid import UUID

import orjson
import psycopg
import psycopg.errors
from psycopg import abc, sql
from psycopg.adapt import Transformer
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGresult
from psycopg.types.json import set_json_loads
from sqlalchemy import Compiled, Select, SelectBase
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect

from perdure.db.watching import StatementWatch, tell

_DIALECT = psycopg_dialect.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy does not type it
_PLACEHOLDER = re.compile(r"%(?:\((\w+)\)s|%)")
_SPECIAL = re.compile(r'(["\\])')


def put_in_words(statement: SelectBase) -> Compiled:
    """The query as the driver takes it, and its constants as `params`, for one that is asked often in transactions."""
    return statement.compile(dialect=_DIALECT)


class Question:
    """A query of one row; names of columns become those of the answer.

    Parameters are named: ids, texts, numbers, bytes, times with a zone, or lists of ids or texts. Lists are arrays
    there: `in_` with values has other words for each length.
    """

    def __init__(self, statement: Select[*tuple[Any, ...]]) -> None:  # Any: whatever columns
        compiled = put_in_words(statement)
        constants = {name: value for name, value in compiled.params.items() if value is not None}
        self.sql = _put_in(str(compiled), constants)
        numbered, self.names = number_placeholders(self.sql)
        self.numbered = numbered.encode()
        answer = namedtuple("Answer", statement.selected_columns.keys(), rename=True)  # type: ignore[misc]  # not literal
        self.make_row: Callable[[Sequence[Any]], Any] = answer._make  # Any: a named tuple


class AskingConnection:
    """A connection in autocommit that is asked questions, by one thread at a time; it takes over the driver's."""

    def __init__(
        self, connection: psycopg.Connection[Any], watch: StatementWatch | None
    ) -> None:  # Any: it makes no row
        set_json_loads(orjson.loads, connection)
        self._connection = connection
        self._watch = watch
        self._prepared: dict[Question, tuple[bytes, abc.Transformer]] = {}

    def ask(self, question: Question, parameters: Mapping[str, object]) -> Any | None:  # Any: a named tuple
        """The first row of the answer, None without one; raises the driver's errors."""
        values = [_write(parameters[name]) for name in question.names]
        started = perf_counter()
        try:
            statement, reader = self._prepared.get(question) or self._prepare(question)
            answer = self._connection.pgconn.exec_prepared(statement, values)  # type: ignore[arg-type]  # None is NULL
        finally:
            if self._watch is not None:
                tell(self._watch, started, question.sql, parameters)
        if answer.status != ExecStatus.TUPLES_OK:
            raise _error(answer)
        if not answer.ntuples:
            return None
        reader.set_pgresult(answer)
        return reader.load_row(0, question.make_row)

    def _prepare(self, question: Question) -> tuple[bytes, abc.Transformer]:
        name = b"question_%d" % len(self._prepared)
        answer = self._connection.pgconn.prepare(name, question.numbered)
        if answer.status != ExecStatus.COMMAND_OK:
            raise _error(answer)
        self._prepared[question] = name, Transformer(self._connection)
        return self._prepared[question]

    @property
    def is_lost(self) -> bool:
        """Whether the server, or the way to it, has gone."""
        return self._connection.pgconn.status != ConnStatus.OK

    @property
    def closed(self) -> bool:
        return self._connection.closed

    def close(self) -> None:
        self._connection.close()


def number_placeholders(statement: str) -> tuple[str, tuple[str, ...]]:
    """The driver's named placeholders as PostgreSQL numbers them, and the names in that order."""
    numbers: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        name = found.group(1)
        return "%" if name is None else f"${numbers.setdefault(name, len(numbers) + 1)}"

    return _PLACEHOLDER.sub(number, statement), tuple(numbers)


def _put_in(statement: str, constants: Mapping[str, object]) -> str:
    """The statement with the constants of our own code in their places, so that nobody has to send them each time."""

    def put(found: re.Match[str]) -> str:
        name = found.group(1)
        return found.group() if name not in constants else sql.Literal(constants[name]).as_string().replace("%", "%%")

    return _PLACEHOLDER.sub(put, statement)


def _write(value: object) -> bytes | None:
    """A value as PostgreSQL reads it; raises psycopg.DataError for what no text can hold there."""
    if value is None:
        return None
    if isinstance(value, UUID):
        return value.hex.encode()
    if isinstance(value, str):
        return _checked(value)
    if isinstance(value, datetime):
        return value.isoformat().encode()
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    if isinstance(value, (list, tuple)):
        return b"{" + b",".join(map(_write_member, value)) + b"}" if value else b"{}"
    if isinstance(value, int):
        return str(value).encode()
    raise TypeError(f"a question takes no {type(value).__name__}")


def _write_member(value: object) -> bytes:
    if isinstance(value, UUID):
        return value.hex.encode()
    if isinstance(value, str):
        return b'"' + _SPECIAL.sub(r"\\\1", value).encode() + b'"' if "\0" not in value else _checked(value)
    raise TypeError(f"a list of a question takes no {type(value).__name__}")


def _checked(value: str) -> bytes:
    if "\0" in value:  # the rest of the text would be cut off
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    return value.encode()


def _error(answer: PGresult) -> psycopg.Error:
    found = psycopg.errors.error_from_result(answer)
    is_named = found.sqlstate is not None
    return found if is_named else psycopg.OperationalError(str(found))  # libpq's own words: the connection was lost
