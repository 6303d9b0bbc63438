"""How costs grow with an archive: `python bench/growth.py [result.json]`.

`linear`: ingest, close, verify and rebuild of 10,000 to 160,000 files of 1 KiB: twice the files take at most 2.3 times
as long; a page of a list (1,000 entries, recursive) takes under 100 ms and a metadata patch under 50 ms, p95, at both
ends; 25 edits of metadata of the largest archive, each folded into a version of its own, write under 50 MB in all.
`rows`: the same pages and patches at 1,000,000 entries, whose rows are made without files.
`million`: 1,000,000 files of 100 bytes are closed with peak memory under 1 GB and no inventory above 100 MB.
`metadata`: one edit in an archive with 400 MB of metadata writes under 2 MB.

Bytes written are those that all processes write, the database's and the command's among them, to files and to each
other; beside them stand the pages that were changed by it, with those of the file system (its directories and tables,
each time anew), the database's log, and what the stores grow by.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import psycopg
from harness import Finding, Options, against, alone, main, percentile, run_program, wall_seconds
from processes import PeakMemory, Tree
from serving import PROGRAM, Bench, Server, job_seconds, serving
from sources import Shape, Source

from perdure.app.composition import opened
from perdure.settings import load_settings

_MB = 10**6
_SIZES = (10_000, 20_000, 40_000, 80_000, 160_000)
_STEPS = ("ingest", "close", "verify", "rebuild")
_TWICE = 2.3
_TURNS = 3  # of all sizes: a turn takes minutes, and has four doublings
_PAGE_MS, _PATCH_MS = 100.0, 50.0
_ASKED = 200  # requests of each kind: the first ones of a process that has just begun are not what p95 tells of
_EDITS = 25
_ROWS = """
INSERT INTO files (archive_id, path, kind, size, mtime_ns, mode, digest, crc32, part, added_at)
SELECT %s, convert_to('d' || lpad((n / 1000)::text, 4, '0') || '/f' || lpad(n::text, 7, '0'), 'UTF8'),
       0, 1024, 1, 420, sha512(n::text::bytea), n, 1, now()
FROM generate_series(0, %s) AS n
"""

_ROOM = "SELECT pg_total_relation_size(relid) FROM pg_partition_tree('files') WHERE isleaf"


@dataclass
class Series:
    """Seconds of each step by the number of files, one for each turn."""

    seconds: dict[str, dict[int, list[float]]] = field(default_factory=dict)

    def add(self, step: str, count: int, took: float) -> None:
        self.seconds.setdefault(step, {}).setdefault(count, []).append(took)

    def findings(self) -> Iterator[Finding]:
        """For each step and each doubling the ratio of the seconds, turn by turn."""
        for step in _STEPS:
            found = self.seconds[step]
            doublings = list(pairwise(sorted(found)))
            for half, whole in doublings:
                yield against(f"{step}, {whole:,} files", found[whole], f"{half:,} files", found[half], at_most=_TWICE)
            once = [took for half, _ in doublings for took in found[half]]
            twice = [took for _, whole in doublings for took in found[whole]]
            yield against(f"{step}, all doublings", twice, "half as many files", once, at_most=_TWICE)


def _linear(options: Options) -> Iterator[Finding]:
    sizes = [options.count(size) for size in _SIZES]
    series = Series()
    for turn in range(min(options.rounds, _TURNS)):
        start = _rebuild_nothing(options.folder)
        for size in sizes:
            source = Shape(f"linear-{size}", size, 1 << 10).make(options.folder)
            with serving(options.folder) as bench:
                archive = _grow(bench, source, series)
                if not turn and size in (sizes[0], sizes[-1]):
                    yield from _answers(bench, archive, f"{size:,} entries")
                if not turn and size == sizes[-1]:
                    yield from _edits(bench, archive, f"{size:,} files")
                bench.server.stop()
                shutil.rmtree(bench.server.data / "postgres")
                series.add("rebuild", size, _rebuild(bench.server.data) - start)
            source.remove()
    yield from series.findings()


def _grow(bench: Bench, source: Source, series: Series) -> str:
    """Take in, close and verify; the archive."""
    source.warm()
    archive, size = bench.open(), source.shape.count
    bench.server.settle()
    series.add("ingest", size, job_seconds(bench.client.ingest(archive, str(source.folder))))
    series.add("close", size, job_seconds(bench.client.close(archive)))
    bench.client.receipt(archive, wait_seconds=300)
    bench.server.settle()
    job = bench.client.verify(archive)
    if not job.result.get("good"):
        raise RuntimeError(f"the copies were found damaged: {job.result}")
    series.add("verify", size, job_seconds(job))
    bench.server.settle()
    return archive


def _rebuild_nothing(folder: Path) -> float:
    """Seconds that the command takes without anything to rebuild."""
    bare = folder / "bare"
    try:
        return _rebuild(bare)
    finally:
        shutil.rmtree(bare, ignore_errors=True)


def _rebuild(data: Path) -> float:
    """Seconds of the command with a new database."""
    run_program(PROGRAM, "admin", "migrate", "--data-dir", data)
    os.sync()
    return wall_seconds(lambda: run_program(PROGRAM, "admin", "rebuild", "--data-dir", data))


def _answers(bench: Bench, archive: str, described: str) -> Iterator[Finding]:
    """Pages all over the list, and patches of the archive's metadata."""
    pages = [percentile(found, 0.95) for found in (_pages(bench, archive), _patches(bench, archive))]
    for name, found, limit in zip(("list page", "metadata patch"), pages, (_PAGE_MS, _PATCH_MS), strict=True):
        yield alone(f"{name}, p95, {described}", [found], unit="ms", at_most=limit)


def _pages(bench: Bench, archive: str) -> list[float]:
    delays: list[float] = []
    cursor: str | None = None
    for _ in range(_ASKED):
        params = {"recursive": "true", "limit": 1000, "cursor": cursor}
        started = time.perf_counter()
        page = bench.request("GET", f"/archives/{archive}/entries", params=params)
        delays.append((time.perf_counter() - started) * 1000)
        cursor = page.get("next_cursor")
    return delays


def _patches(bench: Bench, archive: str) -> list[float]:
    delays: list[float] = []
    for number in range(_ASKED):
        started = time.perf_counter()
        bench.client.patch_metadata(archive, {f"measured-{number % 7}": number})
        delays.append((time.perf_counter() - started) * 1000)
    return delays


def _edits(bench: Bench, archive: str, described: str) -> Iterator[Finding]:
    """Edits of which each is folded into a version of the head by itself: the dearest way."""
    with _folding(bench.server) as fold, Written(bench) as written:
        for number in range(_EDITS):
            bench.client.patch_metadata(archive, {"edited": number})
            fold(archive)
    yield from written.findings(f"{_EDITS} metadata edits, {described}", at_most=50)


@contextmanager
def _folding(server: Server) -> Iterator[Callable[[str], object]]:
    """Write what changed as a version at once, as the worker does when nobody has changed anything for a while."""
    settings = load_settings(server.environment)
    with opened(settings, server.database_url, process="benchmark") as application:
        yield lambda archive: application.archives.heads.fold(UUID(archive))


class Written:
    """Bytes that were written while the block ran: in all, in pages, for the database's log, and in the stores."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._counts: list[tuple[int, int, int, int]] = []

    def __enter__(self) -> Written:
        self._bench.server.settle()
        self._bench.server.ask_database("CHECKPOINT")  # or what others changed before is written in our time
        self._count()
        return self

    def __exit__(self, *_: object) -> None:
        self._count()

    def _count(self) -> None:
        self._bench.server.settle()
        log = int(str(self._bench.server.ask_database("SELECT pg_current_wal_lsn() - '0/0'")[0]))
        self._counts.append((*Tree(os.getpid()).written_bytes(), log, _size_below(self._bench.server.stores)))

    def findings(self, name: str, *, at_most: float) -> Iterator[Finding]:
        """The claim is of all that was written."""
        written, changed, log, stores = (after - before for before, after in zip(*self._counts, strict=True))
        yield alone(f"{name}, written", [written / _MB], unit="MB", at_most=at_most)
        yield alone(f"{name}, pages changed", [changed / _MB], unit="MB")
        yield alone(f"{name}, the database's log", [log / _MB], unit="MB")
        yield alone(f"{name}, stores grew", [stores / _MB], unit="MB")


def _size_below(folder: Path) -> int:
    return sum(place.lstat().st_blocks * 512 for place in folder.rglob("*"))


def _rows(options: Options) -> Iterator[Finding]:
    count = options.count(1_000_000)
    with serving(options.folder) as bench:
        archive = bench.open("facility")
        with closing(psycopg.connect(bench.server.database_url, autocommit=True)) as database:
            database.execute(_ROWS, (archive, count - 1))
            database.execute("ANALYZE files")
            held = sum(row[0] for row in database.execute(_ROOM))
        yield alone(f"the database's room for an entry, of {count:,}", [held / count], unit="bytes")
        yield from _answers(bench, archive, f"{count:,} entries")


def _million(options: Options) -> Iterator[Finding]:
    source = Shape("million", options.count(1_000_000), 100).make(options.folder)
    with serving(options.folder) as bench, PeakMemory(bench.server.tree).watching() as memory:
        archive = bench.open()
        for step in ("ingest", "close"):
            job = bench.client.ingest(archive, str(source.folder)) if step == "ingest" else bench.client.close(archive)
            yield alone(f"{step} of {source.shape.described}", [job_seconds(job)], unit="s")
        largest = max(place.stat().st_size for place in bench.server.stores.rglob("inventory.json"))
    source.remove()
    for role, peak in sorted(memory.peaks.items(), key=lambda item: -item[1])[:3]:
        yield alone(f"{source.shape.described}, peak PSS of {role}", [peak / _MB], unit="MB", at_most=1000)
    yield alone(f"{source.shape.described}, largest inventory", [largest / _MB], unit="MB", at_most=100)


def _metadata(options: Options) -> Iterator[Finding]:
    size = options.size(400 * _MB)
    text, each = "x" * 90_000, 100
    source = Shape("one", 1, 1024).make(options.folder)
    with serving(options.folder) as bench:
        archive = bench.open()
        bench.client.ingest(archive, str(source.folder))
        for number in range(max(1, size // (len(text) * each))):
            values = {f"value-{number * each + n}": _told(number * each + n, text) for n in range(each)}
            bench.client.patch_metadata(archive, values)
        bench.client.close(archive)
        bench.client.receipt(archive, wait_seconds=300)
        with _folding(bench.server) as fold, Written(bench) as written:
            took = wall_seconds(lambda: bench.client.patch_metadata(archive, {"value-0": "changed"}))
            fold(archive)
    described = f"one edit beside {size / _MB:,.0f} MB of metadata"
    yield from written.findings(described, at_most=2)
    yield alone(f"{described}, answered", [took * 1000], unit="ms")


def _told(number: int, text: str) -> str:
    """A text that is like no other."""
    return f"{number:08d}{text}"


SECTIONS = {"linear": _linear, "rows": _rows, "million": _million, "metadata": _metadata}

if __name__ == "__main__":
    main(__doc__, SECTIONS)
