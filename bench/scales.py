"""The shapes of the three scales, each of 10 GB: `python bench/scales.py [result.json]`.

Server-side from nothing to a closed archive of one copy (read-back included), and by HTTP with the command, both
against a single pass over the same files. The sources are in the page cache for all. The claim is one of HTTP, for the
personal scale: 300 MB/s.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from harness import GB, Finding, Options, Work, against, alone, main, seconds, take_turns
from reference import SinglePass
from serving import serving
from sources import Shape

_MB = 10**6
_PERSONAL_RATE = 300.0  # MB/s by HTTP


def _measure(name: str, count: int, size: int, options: Options) -> Iterator[Finding]:
    shape = Shape(name, options.count(count), size if count > 1 else options.size(size))
    source = shape.make(options.folder)
    try:
        with serving(options.folder) as bench:
            works: dict[str, Work] = {
                "ingest and close": lambda: bench.ingest_and_close(source),
                "put": lambda: bench.put(source),
                "single pass": SinglePass(source, options.folder),
            }
            costs = take_turns(works, options.rounds)
    finally:
        source.remove()
    reference = seconds(costs["single pass"])
    for way in works:
        told = f"{name}, {shape.described}, {way}"
        if way != "single pass":
            yield against(told, seconds(costs[way]), "single pass", reference)
        rates = [shape.total / _MB / cost.seconds for cost in costs[way]]
        least = _PERSONAL_RATE if (name, way) == ("personal", "put") else None
        yield alone(f"{told}, rate", rates, unit="MB/s", at_least=least)
        yield alone(f"{told}, CPU", [cost.cpu / shape.total * GB for cost in costs[way]], unit="s/GB")


SHAPES = {"personal": (2000, 5 * _MB), "beamline": (300, 33 * _MB), "facility": (1, 10 * GB)}

if __name__ == "__main__":
    main(__doc__, {name: partial(_measure, name, *shape) for name, shape in SHAPES.items()})
