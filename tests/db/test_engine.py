"""Transactions, bulk loading, and the errors that cross the border."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.pq import TransactionStatus
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    bindparam,
    cast,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, TIMESTAMP
from sqlalchemy.exc import DBAPIError, IntegrityError

from perdure.db import Database, DatabaseUnavailableError, Question, TransactionAbortedError
from perdure.db.engine import raw_connection
from perdure.kernel.errors import TryAgainError

samples = Table(
    "samples",
    MetaData(),
    Column("id", Uuid, primary_key=True),
    Column("path", LargeBinary, nullable=False),
    Column("size", BigInteger),
    Column("number", Integer),
    Column("name", Text),
    Column("is_kept", Boolean),
    Column("at", TIMESTAMP(timezone=True)),
    Column("document", JSONB),
)
rows = st.fixed_dictionaries(
    {
        "id": st.uuids(),
        "path": st.binary(max_size=20),
        "size": st.none() | st.integers(-(2**63), 2**63 - 1),
        "number": st.none() | st.integers(-(2**31), 2**31 - 1),
        "name": st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
        "is_kept": st.none() | st.booleans(),
        "at": st.none()
        | st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)),  # noqa: DTZ001  # hypothesis wants naive bounds
        "document": st.none() | st.dictionaries(st.just("k"), st.lists(st.integers(0, 9)) | st.text("ab")),
    }
)


@pytest.fixture(scope="module")
def samples_db(module_db: Database) -> Database:
    with module_db.begin() as tx:
        samples.create(tx)
    return module_db


def test_an_error_tells_no_parameter(samples_db: Database) -> None:
    with pytest.raises(DBAPIError) as caught, samples_db.begin() as tx:
        tx.execute(text("SELECT 1 / length(:given) FROM nowhere"), {"given": "digest of a password"})
    assert "digest of a password" not in str(caught.value)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(rows, max_size=5, unique_by=lambda row: row["id"]))
def test_copied_rows_come_back_as_they_went(samples_db: Database, given_rows: list[dict[str, object]]) -> None:
    columns = [column.name for column in samples.columns]
    with samples_db.begin() as tx:
        tx.execute(samples.delete())
        loaded = samples_db.copy_rows(tx, samples, columns, ([row[c] for c in columns] for row in given_rows))
        found = [dict(row._mapping) for row in tx.execute(select(samples))]
    assert loaded == len(given_rows)
    assert sorted(found, key=lambda row: row["id"]) == sorted(given_rows, key=lambda row: str(row["id"]))


def test_a_copy_belongs_to_the_transaction(samples_db: Database) -> None:
    def copy_and_fail() -> None:
        with samples_db.begin() as tx:
            samples_db.copy_rows(tx, samples, ["id", "path"], [(UUID(int=1), b"a")])
            raise RuntimeError("the use case failed")

    with samples_db.begin() as tx:
        tx.execute(samples.delete())
    with pytest.raises(RuntimeError):
        copy_and_fail()
    with samples_db.begin() as tx:
        assert tx.execute(select(samples)).all() == []


def test_a_copy_that_breaks_a_constraint_raises_as_an_insert_does(samples_db: Database) -> None:
    with pytest.raises(IntegrityError), samples_db.begin() as tx:
        samples_db.copy_rows(tx, samples, ["id", "path"], [(UUID(int=1), b"a"), (UUID(int=1), b"b")])


def test_sessions_run_in_utc_and_read_committed(samples_db: Database) -> None:
    with samples_db.begin() as tx:
        assert tx.execute(text("SHOW timezone")).scalar() == "UTC"
        assert tx.execute(text("SHOW jit")).scalar() == "off"
        assert tx.execute(text("SHOW transaction_isolation")).scalar() == "read committed"


def test_an_autocommit_connection_is_in_no_transaction(samples_db: Database) -> None:
    with samples_db.connect_autocommit() as connection:
        connection.execute(text("VACUUM samples"))
    with samples_db.begin() as tx:
        assert tx.execute(text("SELECT 1")).scalar() == 1


def test_a_server_that_is_away_is_worth_another_try() -> None:
    away = Database("postgresql://nobody@/nothing?host=/nonexistent")
    with pytest.raises(DatabaseUnavailableError) as caught, away.begin():
        pass
    assert isinstance(caught.value, TryAgainError)
    away.dispose()


def test_a_lost_connection_is_worth_another_try_and_the_next_one_succeeds(db: Database) -> None:
    with pytest.raises(DatabaseUnavailableError), db.begin() as tx:
        tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    with db.begin() as tx:
        assert tx.execute(text("SELECT 1")).scalar() == 1


def test_of_two_transactions_in_each_others_way_one_is_told_to_try_again(db: Database) -> None:
    with db.begin() as tx:
        tx.execute(text("CREATE TABLE pair AS SELECT generate_series(1, 2) AS n"))
    both = threading.Barrier(2)
    refusals: list[Exception] = []

    def lock(first: int, second: int) -> None:
        try:
            with db.begin() as tx:
                tx.execute(text("SET LOCAL deadlock_timeout = '50ms'"))
                tx.execute(text("SELECT n FROM pair WHERE n = :n FOR UPDATE"), {"n": first})
                both.wait(60)
                tx.execute(text("SELECT n FROM pair WHERE n = :n FOR UPDATE"), {"n": second})
        except TransactionAbortedError as error:
            refusals.append(error)

    threads = [threading.Thread(target=lock, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(refusals) == 1


def test_a_mistake_in_the_statement_stays_what_it_is(db: Database) -> None:
    with pytest.raises(Exception, match="does not exist") as caught, db.begin() as tx:
        tx.execute(text("SELECT * FROM nothing_there"))
    assert not isinstance(caught.value, TryAgainError)


def test_a_connection_for_reading_begins_no_transaction(db: Database) -> None:
    with db.begin() as tx:
        tx.execute(text("CREATE TABLE seen AS SELECT 1 AS n"))
    with db.read() as reading:
        assert reading.execute(text("SELECT n FROM seen")).scalar() == 1
        assert raw_connection(reading).info.transaction_status is TransactionStatus.IDLE
        with db.begin() as tx:
            tx.execute(text("UPDATE seen SET n = 2"))
        assert reading.execute(text("SELECT n FROM seen")).scalar() == 2


def test_a_connection_that_was_read_from_begins_transactions_again(db: Database) -> None:
    with db.read() as reading:
        reading.execute(text("SELECT 1"))
    with db.begin() as tx:
        tx.execute(text("SELECT 1"))
        assert raw_connection(tx).info.transaction_status is TransactionStatus.INTRANS


def test_connections_that_the_server_ends_while_they_rest_are_replaced_unseen(db: Database) -> None:
    with db.begin() as first, db.begin() as second:
        ids = [tx.execute(text("SELECT pg_backend_pid()")).scalar_one() for tx in (first, second)]
    with psycopg.connect(db.url, autocommit=True) as other:
        for one in ids:
            other.execute("SELECT pg_terminate_backend(%s)", [one])
            while other.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [one]).fetchone():
                time.sleep(0.01)
    with db.begin() as first, db.read() as second:
        fresh = {tx.execute(text("SELECT pg_backend_pid()")).scalar_one() for tx in (first, second)}
    assert fresh.isdisjoint(ids)


def test_a_question_is_answered_with_what_is_committed(db: Database) -> None:
    numbers = Table("numbers", MetaData(), Column("n", Integer), Column("at", TIMESTAMP(timezone=True)))
    wanted = select(numbers.c.n, numbers.c.at, literal("x").label("word")).where(numbers.c.n == bindparam("n"))
    question = Question(wanted)
    with db.begin() as tx:
        numbers.metadata.create_all(tx)
        tx.execute(numbers.insert(), {"n": 1, "at": datetime(2026, 11, 20, tzinfo=UTC)})
    row = db.ask(question, {"n": 1})
    assert row is not None
    assert (row.n, row.at, row.word) == (1, datetime(2026, 11, 20, tzinfo=UTC), "x")
    assert db.ask(question, {"n": 3}) is None


def test_a_question_that_fails_costs_its_connection_only(db: Database) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        db.ask(Question(select(literal(1) / bindparam("n", type_=Integer))), {"n": 0})
    row = db.ask(Question(select(literal(1).label("one"))), {})
    assert row is not None
    assert row.one == 1


class _Foreign(dict[str, object]):
    """What nobody can write as a value of PostgreSQL."""


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@given(st.lists(names, max_size=5), st.lists(st.uuids(), max_size=3), st.binary(max_size=9), st.none() | names)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_a_question_gives_back_what_it_was_told(
    db: Database, texts: list[str], ids: list[UUID], some: bytes, one: str | None
) -> None:
    told = {"texts": texts, "ids": ids, "some": some, "one": one}
    columns: list[ColumnElement[Any]] = [  # Any: each of its own type
        cast(bindparam("texts"), ARRAY(Text)).label("texts"),
        cast(bindparam("ids"), ARRAY(Uuid)).label("ids"),
        cast(bindparam("some"), BYTEA()).label("some"),
        cast(bindparam("one"), Text()).label("one"),
    ]
    row = db.ask(Question(select(*columns)), told)
    assert row is not None
    assert row._asdict() == told


def test_a_question_keeps_the_values_of_its_own_words(db: Database) -> None:
    odd = ["it's", "100%", 'a "quoted" \\ word', "%(n)s"]
    question = Question(select(literal(odd, ARRAY(Text)).label("odd"), literal("50 %").label("share")))
    row = db.ask(question, {})
    assert row is not None
    assert (row.odd, row.share, question.names) == (odd, "50 %", ())


@pytest.mark.parametrize("told", ["cut\0off", ["cut\0off"]], ids=["text", "list"])
def test_a_question_with_a_nul_is_refused_and_cut_nowhere(db: Database, told: object) -> None:
    kind = Text() if isinstance(told, str) else ARRAY(Text)
    with pytest.raises(psycopg.DataError):
        db.ask(Question(select(bindparam("told", type_=kind))), {"told": told})


@pytest.mark.parametrize("told", [_Foreign(), [_Foreign()], 1.5], ids=["object", "list", "fraction"])
def test_a_question_takes_nothing_that_it_does_not_know(db: Database, told: object) -> None:
    with pytest.raises(TypeError):
        db.ask(Question(select(bindparam("told", type_=Text()))), {"told": told})


def test_a_question_is_asked_again_when_the_server_ended_what_rested(db: Database) -> None:
    question = Question(select(func.pg_backend_pid().label("pid")))
    first = db.ask(question, {})
    assert first is not None
    with psycopg.connect(db.url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [first.pid])
        while other.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [first.pid]).fetchone():
            time.sleep(0.01)
    again = db.ask(question, {})
    assert again is not None
    assert again.pid != first.pid
    assert db.pool_use()[:2] == (0, 1)


def test_a_question_without_a_server_says_so(db: Database) -> None:
    lost = Question(select(func.pg_terminate_backend(func.pg_backend_pid()).label("ended")))
    with pytest.raises(DatabaseUnavailableError):
        db.ask(lost, {})
    assert db.pool_use()[:2] == (0, 0)


def test_questions_take_turns_at_few_connections_and_end_them_all(database_url: str) -> None:
    database = Database(database_url, asking=2)
    slow = Question(select(func.pg_sleep(0.05).cast(Text), func.pg_backend_pid().label("pid")))
    pids: list[int] = []

    def ask() -> None:
        answer = database.ask(slow, {})
        assert answer is not None
        pids.append(answer.pid)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(pids) == 6
    assert len(set(pids)) <= 2
    assert database.pool_use()[:2] == (0, len(set(pids)))
    database.dispose()
    assert database.pool_use()[:2] == (0, 0)


def test_a_question_in_use_when_all_are_closed_ends_its_connection_when_it_comes_back(database_url: str) -> None:
    database = Database(database_url, asking=1)
    asking = database._asking
    with asking.lend() as lent:
        database.dispose()
        states = [lent.closed]
    states.append(lent.closed)
    assert states == [False, True]
    assert asking.use() == (0, 0)
