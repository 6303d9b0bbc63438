"""The log of slow statements: which, for whom, and how the database plans to carry them out.

A plan is asked for by EXPLAIN without ANALYZE, which carries nothing out, of the same statement with the same
parameters, on a connection of its own that may only read and gives up soon. What is told holds no values: those of
parameters are never logged, and every literal in a condition of a plan is blanked, for it may be one of them.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import psycopg
import structlog
from psycopg import sql
from psycopg.abc import Params

from perdure.db.questions import number_placeholders
from perdure.kernel.tally import find_tally

log = structlog.get_logger(__name__)

_PLANNED = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|VALUES|MERGE)\b", re.IGNORECASE)
_LITERAL = re.compile(r"'(?:[^']|'')*'", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w$.])\d+(?:\.\d+)?(?![\w.])")
_PLAN_AGAIN_AFTER = 600.0  # seconds between two plans of one statement
_PLAN_EVERY = 1.0  # seconds between two plans of any
_TOLD_A_SECOND = 10  # further slow statements of that second are only counted
_KEPT_STATEMENTS = 1_000
_LONGEST_STATEMENT = 4_000  # characters
_LARGEST_PARAMETER = 64 * 1024  # bytes or characters; larger ones are not sent twice
_GENERIC_PLANS_FROM = 160000
_PATIENCE = "-c default_transaction_read_only=on -c statement_timeout=2000 -c lock_timeout=500 -c jit=off"


@dataclass(frozen=True, slots=True)
class _Slow:
    statement: str
    params: object
    seconds: float
    told: dict[str, object]
    wants_plan: bool


class SlowStatements:
    """Logs what takes longer than `threshold` seconds; safe to share between threads, and never slows one down."""

    def __init__(self, url: str, threshold: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.threshold = threshold
        self._url = url
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: queue.Queue[_Slow] = queue.Queue(maxsize=32)
        self._thread: threading.Thread | None = None
        self._budget = _Budget()

    def tell(self, seconds: float, query: object, params: object) -> None:
        """Have a line logged for this statement; its plan comes with it, unless there were others just now."""
        statement = _text_of(query)
        with self._lock:
            may_tell, wants_plan, untold = self._budget.take(statement, self._clock())
            if may_tell:
                self._begin()
        if not may_tell:
            return
        told: dict[str, object] = dict(structlog.contextvars.get_contextvars())
        tally = find_tally()
        if tally is not None:
            told[tally.kind] = tally.name
        if untold:
            told["untold"] = untold
        try:
            self._waiting.put_nowait(_Slow(statement, params, seconds, told, wants_plan))
        except queue.Full:
            with self._lock:
                self._budget.untold += 1

    def flush(self) -> None:
        """Wait until everything that was told is logged."""
        self._waiting.join()

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._log_all, name="slow-statements", daemon=True)
            self._thread.start()

    def _log_all(self) -> None:
        while True:
            slow = self._waiting.get()
            try:
                self._log(slow)
            except Exception as error:
                log.warning("slow_query_untold", error=type(error).__name__)
            finally:
                self._waiting.task_done()

    def _log(self, slow: _Slow) -> None:
        plan = explain(self._url, slow.statement, slow.params) if slow.wants_plan else {}
        log.warning(
            "slow_query",
            milliseconds=round(slow.seconds * 1000, 1),
            statement=slow.statement[:_LONGEST_STATEMENT],
            **plan,
            **slow.told,
        )


@dataclass(slots=True)
class _Budget:
    """How much may be told: a storm of slow statements is worst when logging it takes the rest."""

    second: float = float("-inf")
    told: int = 0
    untold: int = 0
    planned: float = float("-inf")
    plans: dict[str, float] = field(default_factory=dict)

    def take(self, statement: str, now: float) -> tuple[bool, bool, int]:
        """Whether a line may be logged, whether with a plan, and how many lines were not since the last one."""
        if now - self.second >= 1.0:
            self.second, self.told = now, 0
        if self.told >= _TOLD_A_SECOND:
            self.untold += 1
            return False, False, 0
        self.told += 1
        untold, self.untold = self.untold, 0
        return True, self._take_plan(statement, now), untold

    def _take_plan(self, statement: str, now: float) -> bool:
        if now - self.planned < _PLAN_EVERY or now - self.plans.get(statement, float("-inf")) < _PLAN_AGAIN_AFTER:
            return False
        if len(self.plans) >= _KEPT_STATEMENTS:
            self.plans.clear()
        self.planned = self.plans[statement] = now
        return True


def explain(url: str, statement: str, params: object) -> dict[str, object]:
    """The plan of a statement without any value in it, or why there is none; nothing is carried out.

    Parameters that are too large to be sent again are left out: the plan is then the generic one (PostgreSQL 16).
    """
    if not _PLANNED.match(statement):
        return {"no_plan": "not a statement that is planned"}
    try:
        with psycopg.connect(url, options=_PATIENCE, connect_timeout=2, application_name="perdure plans") as connection:
            if not _may_be_sent_again(params):
                return _explain_generic(connection, statement)
            again = cast("Params | None", params)  # as they came to the driver
            return {"plan": _plan(connection.execute(f"EXPLAIN {statement}".encode(), again))}
    except psycopg.Error as error:
        return {"no_plan": type(error).__name__}  # its words may quote a value


def _explain_generic(connection: psycopg.Connection, statement: str) -> dict[str, object]:
    if connection.info.server_version < _GENERIC_PLANS_FROM:
        return {"no_plan": "the parameters are too large"}
    return {
        "plan": _plan(connection.execute(f"EXPLAIN (GENERIC_PLAN) {number_placeholders(statement)[0]}".encode())),
        "generic": True,
    }


def _plan(answer: psycopg.Cursor) -> list[str]:
    lines = blank_literals("\n".join(row[0] for row in answer.fetchall())).split("\n")
    return [line if "(cost=" in line else _NUMBER.sub("?", line) for line in lines]


def blank_literals(text: str) -> str:
    """The text with every quoted literal emptied."""
    return _LITERAL.sub("'?'", text)


def _may_be_sent_again(params: object) -> bool:
    values = params.values() if isinstance(params, dict) else params if isinstance(params, (list, tuple)) else ()
    return all(_size(value) <= _LARGEST_PARAMETER for value in values)


def _size(value: object) -> int:
    inner = getattr(value, "obj", value)  # the driver's wrapper of JSON
    if isinstance(inner, (str, bytes, bytearray, memoryview)):
        return len(inner)
    return len(str(inner)) if isinstance(inner, dict) else 100 * len(inner) if isinstance(inner, (list, tuple)) else 0


def _text_of(query: object) -> str:
    """The statement; what was put together with values in it loses them."""
    if isinstance(query, str):
        return query
    if isinstance(query, bytes):
        return blank_literals(query.decode(errors="replace"))
    return blank_literals(query.as_string()) if isinstance(query, sql.Composable) else type(query).__name__
