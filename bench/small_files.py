"""150,000 files of 1 KiB, and 10,000 of 10 KiB by HTTP: `python bench/small_files.py [result.json]`.

`closed`: server-side from nothing to a closed archive of one copy, read-back included, against the single pass by
processes (at most 2.5) and by threads, and `rclone copy` with `sync` and `rclone check` (less), and the memory of every
process (PSS, at most 400 MB).
`beside`: borg, restic and bagit-python over the same files, `annex`: git-annex over 5,000 of them; what each does is
told with it.
`put`: by HTTP with the command (at least 2,000 files a second).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from harness import Finding, Options, Work, against, alone, main, seconds, take_turns
from peers import DOES, is_installed, peer
from processes import PeakMemory
from reference import SinglePass
from serving import serving
from sources import Shape

_MB = 10**6
_RCLONE = "rclone copy + sync + check"
_BY_THREADS = "single pass by threads"
_PACKERS = ("borg create", "restic backup", "bagit-python")
_BESIDE_ROUNDS = 2  # nothing is claimed


def _closed(options: Options) -> Iterator[Finding]:
    source = Shape("small", options.count(150_000), 1 << 10).make(options.folder)
    with serving(options.folder) as bench:
        with PeakMemory(bench.server.tree).watching() as memory:  # in a turn of its own: looking takes time
            bench.ingest_and_close(source)
        works: dict[str, Work] = {
            "ours": lambda: bench.ingest_and_close(source),
            "single pass": SinglePass(source, options.folder),
            _BY_THREADS: SinglePass(source, options.folder, processes=False),
        }
        if is_installed(_RCLONE):
            works[_RCLONE] = peer(_RCLONE, source, options.folder)
        costs = take_turns(works, options.rounds)
    source.remove()
    name, ours = f"{source.shape.described}, ingest and close", seconds(costs["ours"])
    yield against(name, ours, "single pass", seconds(costs["single pass"]), at_most=2.5)
    yield against(name, ours, _BY_THREADS, seconds(costs[_BY_THREADS]))
    if _RCLONE in costs:
        yield against(name, ours, _RCLONE, seconds(costs[_RCLONE]), at_most=1.0, note=DOES[_RCLONE])
    for stage in costs["ours"][0].stages:
        yield alone(f"{name}: {stage}", [cost.stages[stage] for cost in costs["ours"]], unit="s")
    for way, found in costs.items():
        cpu = [cost.cpu * 1000 / source.shape.count for cost in found]
        yield alone(f"{source.shape.described}, {way}, CPU", cpu, unit="ms/file")
    for role, peak in sorted(memory.peaks.items(), key=lambda item: -item[1])[:4]:
        yield alone(f"{name}, peak PSS of {role}", [peak / _MB], unit="MB", at_most=400)


def _beside(options: Options) -> Iterator[Finding]:
    yield from _compare(options, options.count(150_000), _PACKERS, _BESIDE_ROUNDS)


def _annex(options: Options) -> Iterator[Finding]:
    yield from _compare(options, options.count(5_000), ("git-annex add",), 1)


def _compare(options: Options, count: int, names: Sequence[str], rounds: int) -> Iterator[Finding]:
    """Ours against each of these tools that is installed; nothing is claimed."""
    source = Shape("beside", count, 1 << 10).make(options.folder)
    with serving(options.folder) as bench:
        works: dict[str, Work] = {"ours": lambda: bench.ingest_and_close(source)}
        works |= {name: peer(name, source, options.folder) for name in names if is_installed(name)}
        costs = take_turns(works, min(options.rounds, rounds))
    source.remove()
    if missing := set(names) - set(costs):
        print(f"  not installed: {', '.join(sorted(missing))}", file=sys.stderr)
    told = f"{source.shape.described}, ingest and close"
    for name in [name for name in names if name in costs]:
        yield against(told, seconds(costs["ours"]), name, seconds(costs[name]), note=DOES[name])


def _put(options: Options) -> Iterator[Finding]:
    source = Shape("put", options.count(10_000), 10 << 10).make(options.folder)
    with serving(options.folder) as bench:
        works: dict[str, Work] = {
            "ours": lambda: bench.put(source),
            "single pass": SinglePass(source, options.folder),
            _BY_THREADS: SinglePass(source, options.folder, processes=False),
        }
        costs = take_turns(works, options.rounds)
    source.remove()
    name = f"{source.shape.described}, put by HTTP"
    yield alone(name, [source.shape.count / took for took in seconds(costs["ours"])], unit="files/s", at_least=2000)
    yield against(name, seconds(costs["ours"]), "single pass", seconds(costs["single pass"]))


if __name__ == "__main__":
    main(__doc__, {"closed": _closed, "beside": _beside, "annex": _annex, "put": _put})
