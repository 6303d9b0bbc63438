"""Requests for an archive's record with a token: `python bench/api_requests.py [result.json]`.

`rate`: wrk over eight connections that are kept, against the bare framework that answers with the same bytes: at least
1,000 requests a second with p99 under 50 ms, on the processors that wrk takes, too. `stall`: requests one after the
other over one connection, with and without a body in a packet of its own: nine of ten do not take the 40 ms that an
answer waits which is held back until the other side acknowledges its first half.
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

_CONNECTIONS = 8
_SECONDS = 8  # of each turn at scale 1
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
    length = f"-d{options.count(_SECONDS, least=2)}s"
    words = ["wrk", "-t1", f"-c{_CONNECTIONS}", length, "--latency", "-H", f"Authorization: Bearer {token}", url]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if rate is None or "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"wrk: {said}")
    found = re.findall(r"^\s+(\d+%)\s+([\d.]+)(us|ms|s)$", said, re.MULTILINE)
    return float(rate[1]), {share: float(value) * _UNITS[unit] for share, value, unit in found}


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
    main(__doc__, {"rate": _rate, "stall": _stall})
