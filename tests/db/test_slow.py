"""Slow statements are told with their plan, for whom they ran, and without any value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import structlog
from sqlalchemy import insert, select, text
from structlog.testing import capture_logs

from perdure.db import Database
from perdure.db.slow import SlowStatements, explain
from perdure.db.tables import instance
from perdure.kernel.tally import Tally, counting

SECRET = "o'hidden \\ word"


class Watch:
    """Tells every statement, and keeps what it was told."""

    def __init__(self, slow: SlowStatements) -> None:
        self.slow = slow
        self.seen: list[str] = []
        self.commits = 0

    def statement(self, seconds: float, query: object, params: object) -> None:
        self.seen.append(str(query))
        self.slow.tell(seconds, query, params)

    def commit(self, seconds: float) -> None:
        self.commits += 1


@pytest.fixture
def hour() -> list[float]:
    """The time of the log, which a test turns forward."""
    return [0.0]


@pytest.fixture
def watch(database_url: str, hour: list[float]) -> Watch:
    return Watch(SlowStatements(database_url, 0.0, clock=lambda: hour[0]))


@pytest.fixture
def watched(database_url: str, watch: Watch) -> Iterator[Database]:
    database = Database(database_url, watch=watch)
    with database.begin():
        pass  # what a first connection asks is no part of the tests
    watch.slow.flush()
    yield database
    watch.slow.flush()
    database.dispose()


def told(watch: Watch, logs: list[Any]) -> list[Any]:
    watch.slow.flush()
    return [line for line in logs if line["event"] == "slow_query"]


def test_a_line_has_the_plan_and_the_request_and_no_value(watched: Database, watch: Watch, hour: list[float]) -> None:
    hour[0] += 100
    statement = text("SELECT number, chain FROM events WHERE type = :secret AND position > 1234567")
    with capture_logs() as logs, counting(Tally("request_id", "r-1")) as tally, watched.begin() as tx:
        tx.execute(statement, {"secret": SECRET})
        (line,) = told(watch, logs)
    assert line["request_id"] == "r-1"
    assert "events" in line["statement"]
    assert any("Scan" in step for step in line["plan"])
    assert "type = '?'" in " ".join(line["plan"])
    assert "hidden" not in str(line)
    assert "1234567" not in str(line["plan"])
    assert tally.queries == 1
    assert 0 < tally.database_seconds < line["milliseconds"] + 1


def test_a_plan_carries_nothing_out(watched: Database, database_url: str) -> None:
    with watched.begin() as tx:
        before = tx.execute(select(instance)).all()
    made = explain(database_url, "INSERT INTO instance (is_only, id) VALUES (true, %(id)s::uuid)", {"id": uuid4()})
    assert made["plan"]
    assert explain(database_url, "DELETE FROM events", None)["plan"]
    with watched.begin() as tx:
        assert tx.execute(select(instance)).all() == before


@pytest.mark.parametrize(
    ("statement", "params", "key"),
    [
        ("LOCK TABLE events", None, "no_plan"),
        ("SELECT no_such_column", None, "no_plan"),
        ("SELECT 1 WHERE %(a)s = %(b)s || '%%'", {"a": "x" * 100_000, "b": ""}, "generic"),
        ("SELECT id FROM events WHERE type = %(a)s", {"a": SECRET}, "plan"),
    ],
)
def test_why_there_is_no_plan_is_told(database_url: str, statement: str, params: object, key: str) -> None:
    found = explain(database_url, statement, params)
    assert key in found, found
    assert "hidden" not in str(found)


def test_a_storm_of_slow_statements_is_told_in_part(watched: Database, watch: Watch, hour: list[float]) -> None:
    hour[0] += 100
    with capture_logs() as logs, watched.begin() as tx:
        for _ in range(25):
            tx.execute(text("SELECT 1"))
        first = told(watch, logs)
        hour[0] += 2
        tx.execute(text("SELECT 2"))
        lines = told(watch, logs)
    assert len(first) == 10
    assert sum("plan" in line for line in first) == 1  # the same statement is planned once
    assert lines[-1]["untold"] == 15
    assert "plan" in lines[-1]


def test_many_sets_of_parameters_are_one_statement(watched: Database, watch: Watch, hour: list[float]) -> None:
    hour[0] += 100
    values = [{"number": number} for number in range(3)]
    with capture_logs() as logs, watched.begin() as tx:
        watch.seen.clear()
        tx.execute(text("UPDATE export_state SET position = :number WHERE name = 'none'"), values)
        lines = told(watch, logs)
    assert len(watch.seen) == 1
    assert lines
    assert watch.commits == 2


def test_lines_outside_any_request_are_told_too(watched: Database, watch: Watch, hour: list[float]) -> None:
    hour[0] += 100
    with capture_logs() as logs, structlog.contextvars.bound_contextvars(job_kind="kind"), watched.begin() as tx:
        tx.execute(insert(instance).from_select(["is_only", "id"], select(instance)))
        (line,) = told(watch, logs)
    assert line["job_kind"] == "kind"
    assert "request_id" not in line
