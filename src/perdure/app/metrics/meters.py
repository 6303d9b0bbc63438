"""What each process counts: requests, statements, attempts at jobs. Rooms tell; here it becomes numbers and lines."""

from __future__ import annotations

import platform
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from importlib.metadata import version

import structlog
from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import CollectorRegistry

from perdure.app.metrics.instruments import Counts, Distribution, bucketed
from perdure.db import Database
from perdure.db.slow import SlowStatements
from perdure.doors.http.limiting import LIMITS
from perdure.doors.http.watching import FinishedRequest
from perdure.settings import Settings

log = structlog.get_logger(__name__)

_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STATEMENT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_JOB_SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 28800.0)
_SLOWEST_BYTES = 20e6  # a second; a request that brings content may take that much longer
_NOWHERE = "none"  # the operation of a request that no route takes: its path may be anything
_NO_ANSWER = "none"
_STATUSES = ("", "1xx", "2xx", "3xx", "4xx", "5xx")
_OUTCOMES = ("succeeded", "failed", "retried")


class _Route:
    """What is known of the requests of one operation."""

    __slots__ = ("placed", "received", "seconds", "sent", "slow", "statuses")

    def __init__(self) -> None:
        self.statuses = {"5xx": 0}  # what appears with a one is no increase to Prometheus
        self.placed = [0] * (len(_REQUEST_SECONDS) + 1)
        self.seconds = 0.0
        self.received = self.sent = self.slow = 0


class RequestMeter:
    """Counts requests and logs the slow ones; one lock and one look-up a request."""

    def __init__(self, slow_seconds: float) -> None:
        self._slow = slow_seconds or float("inf")
        self._lock = threading.Lock()
        self._routes: dict[str, _Route] = {}
        self._under_way = 0
        self._refused = Counts("perdure_http_refused_requests", "Requests beyond a limit of their rate.", ("limit",))
        for limit in LIMITS:
            self._refused.add(0, limit)

    def began(self) -> None:
        with self._lock:
            self._under_way += 1

    def ended(self, request: FinishedRequest) -> None:
        operation, busy, received = request.operation or _NOWHERE, request.busy, request.tally.received
        status = _NO_ANSWER if request.status is None else _STATUSES[request.status // 100]
        is_slow = busy > self._slow and busy > self._slow + received / _SLOWEST_BYTES
        with self._lock:
            self._under_way -= 1
            route = self._routes.get(operation) or self._routes.setdefault(operation, _Route())
            route.statuses[status] = route.statuses.get(status, 0) + 1
            route.placed[bisect_left(_REQUEST_SECONDS, busy)] += 1
            route.seconds += busy
            route.received += received
            route.sent += request.sent
            route.slow += is_slow
        if is_slow:
            _tell_slow(request, operation)

    def refused(self, limit: str) -> None:
        self._refused.add(1, limit)

    def collect(self) -> Iterator[Metric]:
        by_operation = ("operation",)
        told = "Requests by operation and class of the answer's status."
        requests = CounterMetricFamily("perdure_http_requests", told, labels=("operation", "status"))
        told = "Seconds until the answer begins, without those of waiting for the client."
        seconds = HistogramMetricFamily("perdure_http_request_seconds", told, labels=by_operation)
        told = "Bytes of the bodies of requests."
        received = CounterMetricFamily("perdure_http_received_bytes", told, labels=by_operation)
        sent = CounterMetricFamily("perdure_http_sent_bytes", "Bytes of the bodies of answers.", labels=by_operation)
        told = "Requests that the slow log tells of."
        slow = CounterMetricFamily("perdure_http_slow_requests", told, labels=by_operation)
        with self._lock:
            under_way = GaugeMetricFamily("perdure_http_requests_in_flight", "Requests under way.", self._under_way)
            for operation, route in self._routes.items():
                for status, count in route.statuses.items():
                    requests.add_metric((operation, status), count)
                seconds.add_metric((operation,), bucketed(_REQUEST_SECONDS, route.placed), sum_value=route.seconds)
                received.add_metric((operation,), route.received)
                sent.add_metric((operation,), route.sent)
                slow.add_metric((operation,), route.slow)
        yield from (requests, under_way, seconds, received, sent, slow)
        yield from self._refused.collect()


def _tell_slow(request: FinishedRequest, operation: str) -> None:
    log.warning(
        "slow_request",
        request_id=request.request_id,
        method=request.method,
        operation=operation,
        status=request.status,
        milliseconds=round(request.busy * 1000, 1),
        database_milliseconds=round(request.tally.database_seconds * 1000, 1),
        queries=request.tally.queries,
        received_bytes=request.tally.received,
        sent_bytes=request.sent,
    )


class StatementMeter:
    """Counts statements and commits, and hands the slow ones to their log."""

    def __init__(self, slow: SlowStatements | None) -> None:
        self._slow = slow
        self._threshold = float("inf") if slow is None else slow.threshold
        self._statements = Distribution(
            "perdure_database_query_seconds", "Seconds until a statement was answered.", bounds=_STATEMENT_SECONDS
        )
        self._commits = Distribution(
            "perdure_database_commit_seconds", "Seconds until a commit was durable.", bounds=_STATEMENT_SECONDS
        )
        self._slow_statements = Counts("perdure_database_slow_queries", "Statements slower than the slow log's limit.")
        self._slow_statements.add(0)

    def statement(self, seconds: float, query: object, params: object) -> None:
        self._statements.observe(seconds)
        if seconds >= self._threshold and self._slow is not None:
            self._slow_statements.add(1)
            self._slow.tell(seconds, query, params)

    def commit(self, seconds: float) -> None:
        self._commits.observe(seconds)

    def collect(self) -> Iterator[Metric]:
        for part in (self._statements, self._commits, self._slow_statements):
            yield from part.collect()


class JobMeter:
    """Counts attempts at jobs by how they ended: succeeded, failed, retried, or gave_way to another worker."""

    def __init__(self) -> None:
        self._started = Counts("perdure_jobs_started", "Attempts that began.", ("kind",))
        self._running = Counts("perdure_jobs_running", "Attempts under way in this process.", ("kind",), is_level=True)
        self._ended = Counts("perdure_jobs_ended", "Attempts that ended, by outcome.", ("kind", "outcome"))
        told = "Bytes that jobs took in from outside, as from a folder of the server."
        self._received = Counts("perdure_jobs_received_bytes", told, ("kind",))
        self._seconds = Distribution("perdure_job_seconds", "Seconds of an attempt.", ("kind",), bounds=_JOB_SECONDS)

    def know(self, kinds: Iterable[str], *, receiving: Iterable[str] = ()) -> None:
        """Tell zeros for these kinds, and for those that take in bytes: what appears with a one is no increase."""
        for kind in kinds:
            for outcome in _OUTCOMES:
                self._ended.add(0, kind, outcome)
        for kind in receiving:
            self._received.add(0, kind)

    def began(self, kind: str) -> None:
        self._started.add(1, kind)
        self._running.add(1, kind)

    def received(self, kind: str, byte_count: int) -> None:
        self._received.add(byte_count, kind)

    def ended(self, kind: str, outcome: str, seconds: float) -> None:
        self._running.add(-1, kind)
        self._ended.add(1, kind, outcome)
        self._seconds.observe(seconds, kind)

    def collect(self) -> Iterator[Metric]:
        for part in (self._started, self._running, self._received, self._ended, self._seconds):
            yield from part.collect()


class Meters:
    """All that one process counts; where nobody wants it, requests and statements are not watched at all."""

    def __init__(self, settings: Settings, database_url: str) -> None:
        slow_query = settings.slow_query_ms / 1000
        self.are_wanted = bool(settings.metrics_port or settings.slow_request_ms or settings.slow_query_ms)
        self.requests = RequestMeter(settings.slow_request_ms / 1000)
        self.statements = StatementMeter(SlowStatements(database_url, slow_query) if slow_query else None)
        self.jobs = JobMeter()
        self._process = ProcessCollector(registry=CollectorRegistry(auto_describe=False))

    def collect(self, db: Database) -> Iterator[Metric]:
        """Everything at this moment; what the database alone knows is told elsewhere."""
        for part in (self.requests, self.statements, self.jobs, self._process):
            yield from part.collect()
        yield _build()
        yield _pool(db)


def _build() -> Metric:
    family = GaugeMetricFamily("perdure_build_info", "The release that runs; always 1.", labels=("version", "python"))
    family.add_metric((version("perdure"), platform.python_version()), 1)
    return family


def _pool(db: Database) -> Metric:
    family = GaugeMetricFamily(
        "perdure_database_pool_connections",
        "Pooled connections: in_use, idle, and the limit of both.",
        labels=("state",),
    )
    for state, number in zip(("in_use", "idle", "limit"), db.pool_use(), strict=True):
        family.add_metric((state,), number)
    return family
