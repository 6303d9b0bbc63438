"""Eight files of 1 GiB and their ways in and out: `python bench/large_files.py [result.json]`.

`closed`: server-side from nothing to a closed archive of one copy, without the read-back that closing adds, against
the single pass (at most 1.15) and `cp` with `sha512sum` (less); by HTTP with the command against the single pass (at
most 1.5). `download`: one file by curl from us and from nginx (at least 0.9 as rate), both from the page cache.
`parallel`: four uploads against one (at least 1.3 as rate), and small requests meanwhile (p99 under 20 ms).
"""

from __future__ import annotations

import http.client
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from harness import GB, Cost, Finding, Options, Work, against, alone, main, percentile, run_program, seconds, take_turns
from peers import nginx, peer
from processes import PeakMemory
from reference import SinglePass
from serving import PROGRAM, Bench, serving
from sources import Shape, Source

_MB = 10**6
_READ_BACK = "close.copies"  # with one copy this stage of closing reads it back, and nothing else
_SMALL_EVERY = 0.02  # seconds between two small requests
_CP = "cp + sha512sum"


def _shape(options: Options, name: str, count: int) -> Shape:
    return Shape(name, count, options.size(1 << 30))


def _closed(options: Options) -> Iterator[Finding]:
    source = _shape(options, "large", 8).make(options.folder)
    with serving(options.folder) as bench:
        with PeakMemory(bench.server.tree).watching() as memory:  # in turns of their own: looking takes time
            bench.ingest_and_close(source)
            bench.put(source)
        works: dict[str, Work] = {
            "ours": lambda: bench.ingest_and_close(source),
            "put": lambda: bench.put(source),
            "single pass": SinglePass(source, options.folder),
            _CP: peer(_CP, source, options.folder),
        }
        costs = take_turns(works, options.rounds)
    source.remove()
    described, ours = source.shape.described, costs["ours"]
    reference = seconds(costs["single pass"])
    pure = [cost.seconds - cost.stages.get(_READ_BACK, 0.0) for cost in ours]
    note = "" if _READ_BACK in ours[0].stages else "read-back is included: the job does not tell it apart"
    name = f"{described}, ingest and close without read-back"
    yield against(name, pure, "single pass", reference, at_most=1.15, note=note)
    yield against(name, pure, _CP, seconds(costs[_CP]), at_most=1.0, note=note)
    yield against(f"{described}, ingest and close", seconds(ours), "single pass", reference)
    yield against(f"{described}, put by HTTP", seconds(costs["put"]), "single pass", reference, at_most=1.5)
    for way in works:
        cpu = [cost.cpu / source.shape.total * GB for cost in costs[way]]
        yield alone(f"{described}, {'ingest and close' if way == 'ours' else way}, CPU", cpu, unit="s/GB")
    role, peak = memory.largest
    yield alone(f"{described}, peak PSS of a process ({role})", [peak / _MB], unit="MB")


def _download(options: Options) -> Iterator[Finding]:
    source = _shape(options, "download", 1).make(options.folder)
    (name,) = source.names
    with serving(options.folder) as bench, nginx(source.folder, options.folder) as url:
        archive = bench.open()
        bench.client.ingest(archive, str(source.folder))
        data = f"{bench.client.information()['data_url']}/api/v1/archives/{archive}/files/{name}"
        works = {
            "ours": lambda: bench.timed(lambda: _curl(data, bench.token)),
            "nginx": lambda: bench.timed(lambda: _curl(f"{url}/{name}")),
        }
        costs = take_turns(works, max(options.rounds, 9), warm_up=True)
    source.remove()
    rates = {way: [source.shape.total / _MB / took for took in seconds(costs[way])] for way in works}
    told = f"{source.shape.described}, download"
    yield against(told, rates["ours"], "nginx", rates["nginx"], unit="MB/s", at_least=0.9)
    yield alone(f"{told}, CPU", [cost.cpu / source.shape.total * GB for cost in costs["ours"]], unit="s/GB")


def _curl(url: str, token: str | None = None) -> None:
    headers = ("--header", f"Authorization: Bearer {token}") if token else ()
    run_program("curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--output", os.devnull, *headers, url)


def _parallel(options: Options) -> Iterator[Finding]:
    sources = [_shape(options, f"parallel-{number}", 1).make(options.folder) for number in range(4)]
    delays: list[float] = []
    with serving(options.folder) as bench:
        asked = bench.open()
        works = {"one": lambda: _put(bench, sources[:1]), "four": lambda: _put_watched(bench, sources, asked, delays)}
        costs = take_turns(works, options.rounds)
    size = sources[0].shape.total / _MB
    for source in sources:
        source.remove()
    one, four = [size / took for took in seconds(costs["one"])], [4 * size / took for took in seconds(costs["four"])]
    told = f"{sources[0].shape.described} by HTTP"
    yield against(f"{told}, four uploads at once", four, "one upload", one, unit="MB/s", at_least=1.3)
    slowest = percentile(delays, 0.99) * 1000
    yield alone("small requests during four uploads, p99", [slowest], unit="ms", at_most=20)
    yield alone("small requests during four uploads, p50", [percentile(delays, 0.5) * 1000], unit="ms")


def _put_watched(bench: Bench, sources: list[Source], asked: str, delays: list[float]) -> Cost:
    with _small_requests(bench, asked, delays):
        return _put(bench, sources)


def _put(bench: Bench, sources: list[Source]) -> Cost:
    """Each source by a command of its own into an archive of its own, all at once."""
    for source in sources:
        source.warm()
    archives = [bench.open() for _ in sources]
    bench.server.settle()
    own = {"PERDURE_URL": bench.server.url, "PERDURE_TOKEN": bench.token}

    def work() -> None:
        commands = [
            subprocess.Popen([PROGRAM, "put", archive, source.folder, "--json"], env=os.environ | own, stdout=out)
            for archive, source in zip(archives, sources, strict=True)
        ]
        if codes := [command.wait() for command in commands if command.wait()]:
            raise RuntimeError(f"uploads ended with exit codes {codes}")

    with open(os.devnull, "wb") as out:
        cost = bench.timed(work)
    for archive in archives:
        bench.remove(archive)
    return cost


@contextmanager
def _small_requests(bench: Bench, archive: str, delays: list[float]) -> Iterator[None]:
    """Ask for one record again and again over one connection while the block runs."""
    stop = threading.Event()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", bench.server.port, timeout=60)
        while not stop.wait(_SMALL_EVERY):
            started = time.perf_counter()
            connection.request("GET", f"/api/v1/archives/{archive}", headers={"Authorization": f"Bearer {bench.token}"})
            connection.getresponse().read()
            delays.append(time.perf_counter() - started)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    main(__doc__, {"closed": _closed, "download": _download, "parallel": _parallel})
