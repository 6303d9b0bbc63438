"""Transactions and bulk loading on PostgreSQL; the border where the driver's errors become ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import psycopg.errors
from psycopg import sql
from psycopg.types.json import Json, Jsonb
from sqlalchemy import Connection, MetaData, Table, create_engine, event, exc, make_url, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import URL
from sqlalchemy.pool import QueuePool
from sqlalchemy.types import JSON

from perdure.db.asking import AskingConnections, is_living
from perdure.db.errors import DatabaseFullError, DatabaseUnavailableError, TransactionAbortedError
from perdure.db.questions import AskingConnection, Question
from perdure.db.watching import StatementWatch, watched_connection
from perdure.kernel.errors import TryAgainError

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4
_COPY_BEGIN = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END = b"\xff\xff"
_STOOD_IN_THE_WAY = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.QueryCanceled,
)


class Database:
    """One PostgreSQL database (15 or newer); safe to share between threads, not between processes.

    `url` is a libpq URL (`postgresql://…`). Nothing is connected before the first transaction. `watch` is told of
    every statement.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        overflow: int = 10,
        asking: int = 10,
        application_name: str = "perdure",
        watch: StatementWatch | None = None,
    ) -> None:
        self.url = url
        named: dict[str, Any] = {  # Any: as the driver takes it
            "application_name": application_name,
            "connect_timeout": 10,
            "options": "-c jit=off -c timezone=UTC",
        }
        connections: type[psycopg.Connection[Any]] = psycopg.Connection if watch is None else watched_connection(watch)
        self._engine = create_engine(
            driver_url(url),
            pool_size=pool_size,
            max_overflow=overflow,
            isolation_level="READ COMMITTED",
            hide_parameters=True,  # an error in a log holds no digest of a password, no text of a user
            connect_args=named,
        )
        event.listen(self._engine, "checkout", _require_living)
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._asking = AskingConnections(
            lambda: AskingConnection(psycopg.Connection.connect(url, autocommit=True, **named), watch), asking
        )
        self._pool_limit = pool_size + overflow + asking
        if watch is not None:
            event.listen(
                self._engine, "do_connect", lambda _dialect, _record, given, named: connections.connect(*given, **named)
            )

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, rolled back when it raises.

        Raises DatabaseUnavailableError and TransactionAbortedError, both worth another try, in place of the driver's
        errors; broken constraints stay `sqlalchemy.exc.IntegrityError` for the domain to name.
        """
        with _translated(), self._engine.begin() as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for queries that each stand for themselves: no transaction is begun or ended around them.

        A query sees what is committed when it begins, as it does inside `begin`; what needs a lock, a cursor on the
        server or a write needs `begin`. Raises what `begin` raises.
        """
        with _translated(), self._reading.connect() as connection:
            yield connection

    def ask(self, question: Question, parameters: Mapping[str, object]) -> Any | None:  # Any: a named tuple
        """The one row that answers a question, None without one; outside of any transaction.

        Raises what `begin` raises.
        """
        with _translated():
            return self._asking.ask(question, parameters)

    @contextmanager
    def connect_autocommit(self) -> Iterator[Connection]:
        """A connection outside any transaction, for session locks and statements that refuse one."""
        with _translated(), self._engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    def copy_rows(
        self,
        tx: Connection,
        table: Table,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        encoded: bytes = b"",
    ) -> int:
        """Load rows by binary COPY inside the transaction and return their number; the fast way past a few hundred.

        Values are in the order of `columns` and of the columns' Python types; dicts and lists become JSON where the
        column is JSON. Defaults of Python are not applied. `encoded` are further rows, which are not counted, as COPY
        has them in its binary form: tuples, one after the other. Raises IntegrityError for a broken constraint.
        """
        kinds = [table.c[name].type for name in columns]
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
            sql.Identifier(*table.fullname.split(".")), sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        wrappers = [
            (number, Jsonb if isinstance(kind, JSONB) else Json)
            for number, kind in enumerate(kinds)
            if isinstance(kind, JSON)
        ]
        try:
            with raw_connection(tx).cursor() as cursor, cursor.copy(statement) as copy:
                copy.set_types([_type_name(kind.compile(tx.dialect)) for kind in kinds])
                if encoded:
                    copy.write(_COPY_BEGIN + encoded)
                number = 0
                for row in rows:
                    copy.write_row(_wrap_json(row, wrappers))
                    number += 1
                if encoded and not number:  # behind a row the driver writes it
                    copy.write(_COPY_END)
                return number
        except psycopg.IntegrityError as error:
            raise exc.IntegrityError(f"COPY {table.name}", None, error) from error

    def clock(self) -> float:
        """The present time of the database's clock, in seconds since 1970."""
        with self.begin() as tx:
            return float(tx.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def pool_use(self) -> tuple[int, int, int]:
        """Connections in use, connections that are open and idle, and how many there may be."""
        pool = self._engine.pool
        assert isinstance(pool, QueuePool)
        in_use, idle = self._asking.use()
        return pool.checkedout() + in_use, pool.checkedin() + idle, self._pool_limit

    def dispose(self) -> None:
        """Close every pooled connection; the next transaction opens new ones."""
        self._engine.dispose()
        self._asking.dispose()


def driver_url(url: str) -> URL:
    """The libpq URL as SQLAlchemy wants it, with the driver named."""
    return make_url(url).set(drivername="postgresql+psycopg")


def raw_connection(tx: Connection) -> psycopg.Connection:
    """The driver's connection under a transaction of ours."""
    connection = tx.connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    return connection


def run_script(tx: Connection, script: str) -> None:
    """Run several SQL statements without parameters, such as the schema of a library, inside the transaction."""
    raw_connection(tx).execute(script.encode())


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except exc.DBAPIError as error:
        translation = _find_translation(error.orig, connection_lost=error.connection_invalidated)
        if translation is None:
            raise
        raise translation from error
    except psycopg.Error as error:
        translation = _find_translation(error, connection_lost=False)
        if translation is None:
            raise
        raise translation from error
    except exc.TimeoutError as error:  # every pooled connection is in use
        raise DatabaseUnavailableError("Too many requests wait for the database.") from error


def _require_living(connection: psycopg.Connection, *_: object) -> None:
    """Let the pool replace a connection that its server has ended."""
    if not is_living(connection):
        raise exc.DisconnectionError("the server has ended the connection")


def _find_translation(driver_error: BaseException | None, *, connection_lost: bool) -> TryAgainError | None:
    if isinstance(driver_error, _STOOD_IN_THE_WAY):
        return TransactionAbortedError("The database ended the transaction in favour of another one.")
    if isinstance(driver_error, psycopg.errors.DiskFull):
        return DatabaseFullError("The database has no room on its disk.")
    if connection_lost or isinstance(driver_error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return DatabaseUnavailableError("The connection to the database failed.")
    return None


def _type_name(compiled: str) -> str:
    return compiled.lower().split("(")[0] if "[" not in compiled else compiled.lower()


def _wrap_json(row: Sequence[object], wrappers: Sequence[tuple[int, type[Json] | type[Jsonb]]]) -> Sequence[object]:
    for number, wrap in wrappers:
        if row[number] is not None:
            row = [*row[:number], wrap(row[number]), *row[number + 1 :]]
    return row
