"""Requests for an archive's record with a token: `python bench/api_requests.py [result.json]`.

`rate`: wrk over eight connections that are kept, against the bare framework that answers with the same bytes: at least
1,000 requests a second with p99 under 50 ms, on the processors that wrk takes, too. `stall`: requests one after the
other over one connection, with and without a body in a packet of its own: nine of ten do not take the 40 ms that an
answer waits which is held back until the other side acknowledges its first half. `counting`: what the metrics of such a
request take, by themselves and over and over in this process, against all CPU time of the web processes for it: at most
1 %. (Two installations that count the same differ by more than that.)
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import time
from collections.abc import Iterator

from harness import Finding, Options, against, alone, main, percentile, require_program
from peers import bare_framework
from serving import Bench, serving

from perdure.app.metrics.meters import RequestMeter, StatementMeter
from perdure.db.watching import tell
from perdure.doors.http.watching import FinishedRequest
from perdure.kernel.tally import Tally, start_counting, stop_counting

_CONNECTIONS = 8
_SECONDS = 8  # of each turn at scale 1
_COUNTED_REQUESTS = 50_000
_STATEMENTS = 2  # of a GET of a record; see tests/doors/test_cost.py
_MICROSECONDS = 1e6
_STALL_REQUESTS = 200
_STALL = 40.0  # ms
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


def _rate(options: Options) -> Iterator[Finding]:
    require_program("wrk")
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    delays: dict[str, list[float]] = {"50%": [], "99%": []}
    with serving(options.folder) as bench, bare_framework("bare:app") as bare:
        record = f"{bench.server.url}/api/v1/archives/{bench.open()}"
        for turn in range(options.rounds + 1):  # the first one warms up
            rate, told = _wrk(record, bench.token, options)
            bare_rate, _ = _wrk(bare, bench.token, options)
            if turn:
                rates["ours"].append(rate)
                rates["bare"].append(bare_rate)
                for share, found in delays.items():
                    found.append(told[share])
    yield alone("GET record with a token", rates["ours"], unit="requests/s", at_least=1000)
    yield against("GET record with a token", rates["ours"], "bare framework", rates["bare"], unit="requests/s")
    yield alone("GET record with a token, p50", delays["50%"], unit="ms")
    yield alone("GET record with a token, p99", delays["99%"], unit="ms", at_most=50)


def _wrk(url: str, token: str, options: Options) -> tuple[float, dict[str, float]]:
    """Requests a second, and the delays in ms by their share; raises RuntimeError when an answer was no success."""
    length = _length(options)
    words = [
        "wrk",
        "-t1",
        f"-c{_CONNECTIONS}",
        f"-d{length}s",
        "--latency",
        "-H",
        f"Authorization: Bearer {token}",
        url,
    ]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if rate is None or "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"wrk: {said}")
    found = re.findall(r"^\s+(\d+%)\s+([\d.]+)(us|ms|s)$", said, re.MULTILINE)
    return float(rate[1]), {share: float(value) * _UNITS[unit] for share, value, unit in found}


def _length(options: Options) -> int:
    """Seconds of a turn."""
    return options.count(_SECONDS, least=2)


def _stall(options: Options) -> Iterator[Finding]:
    with serving(options.folder) as bench:
        archive = bench.open()
        found = {
            "GET record": _ask(bench, "GET", f"/api/v1/archives/{archive}", None),
            "PATCH metadata": _ask(bench, "PATCH", f"/api/v1/archives/{archive}/metadata", {"note": "x"}),
        }
    for name, delays in found.items():
        yield alone(f"{name} over one connection, p50", [percentile(delays, 0.5)], unit="ms")
        yield alone(f"{name} over one connection, p90", [percentile(delays, 0.9)], unit="ms", at_most=_STALL)


def _counting(options: Options) -> Iterator[Finding]:
    require_program("wrk")
    counted: list[float] = []
    whole: list[float] = []
    with serving(options.folder) as bench:
        record = f"{bench.server.url}/api/v1/archives/{bench.open()}"
        for turn in range(options.rounds + 1):  # the first one warms up
            before = bench.server.tree.cpu_seconds("web")
            rate, _ = _wrk(record, bench.token, options)
            took = bench.server.tree.cpu_seconds("web") - before
            if turn:
                whole.append(took / (rate * _length(options)) * _MICROSECONDS)
                counted.append(_count_over_and_over() * _MICROSECONDS)
    name = "GET record with a token, its metrics"
    yield against(name, counted, "web processes' CPU for it", whole, unit="µs", at_most=0.01)


def _count_over_and_over() -> float:
    """Seconds for what is counted of one request with two statements."""
    requests, statements = RequestMeter(1.0), StatementMeter(None)
    started = time.process_time()
    for _ in range(_COUNTED_REQUESTS):
        tally = Tally("request_id", "one")
        counting = start_counting(tally)
        requests.began()
        for _ in range(_STATEMENTS):
            tell(statements, time.perf_counter(), "SELECT 1", None)
        stop_counting(counting)
        requests.ended(FinishedRequest("one", "GET", "get_archive", 200, 0.001, 1000, tally))
    return (time.process_time() - started) / _COUNTED_REQUESTS


def _ask(bench: Bench, method: str, place: str, body: object) -> list[float]:
    """The delays in ms of requests whose body is sent after their head."""
    connection = http.client.HTTPConnection("127.0.0.1", bench.server.port, timeout=60)
    content = b"" if body is None else json.dumps(body).encode()
    delays = []
    for _ in range(_STALL_REQUESTS):
        started = time.perf_counter()
        connection.putrequest(method, place)
        connection.putheader("Authorization", f"Bearer {bench.token}")
        if content:
            connection.putheader("Content-Type", "application/merge-patch+json")
            connection.putheader("Content-Length", str(len(content)))
        connection.endheaders()
        if content:
            connection.send(content)
        answer = connection.getresponse()
        answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {place} was answered with {answer.status}")
        delays.append((time.perf_counter() - started) * 1000)
    connection.close()
    return delays


if __name__ == "__main__":
    main(__doc__, {"rate": _rate, "stall": _stall, "counting": _counting})
