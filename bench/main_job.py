"""Each step of the main job against a single pass over the same files: `python bench/main_job.py [result.json]`.

Small files (10,000 × 1 KiB) and large ones (4 × 64 MiB), with the profile of a new installation: closing also writes a
second copy and reads both back from the medium, which the single pass does not. Nothing is claimed here: it is for
seeing where a change tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from harness import Cost, Finding, Options, Work, against, main, seconds, take_turns
from reference import SinglePass
from serving import Bench, serving
from sources import Shape, Source, scratch_folder

_PROFILE = "beamline"


class Fetch:
    """The work of fetching an archive that is filled once."""

    def __init__(self, bench: Bench, source: Source, options: Options) -> None:
        self._bench, self._folder, self._is_many = bench, options.folder, source.shape.is_many
        self._archive = bench.open()
        bench.client.ingest(self._archive, str(source.folder))

    def __call__(self) -> Cost:
        with scratch_folder(self._folder, is_many=self._is_many) as target:
            return self._bench.timed(lambda: self._bench.command("get", self._archive, "--to", str(target), "--json"))


def _measure(name: str, count: int, size: int, options: Options) -> Iterator[Finding]:
    shape = Shape(name, options.count(count), size)
    source = shape.make(options.folder)
    try:
        with serving(options.folder) as bench:
            works: dict[str, Work] = {
                "ingest and close, 2 copies": lambda: bench.ingest_and_close(source, _PROFILE),
                "put": lambda: bench.put(source),
                "get": Fetch(bench, source, options),
                "single pass": SinglePass(source, options.folder),
            }
            costs = take_turns(works, options.rounds)
    finally:
        source.remove()
    steps = {"ingest", "close"} & set(costs["ingest and close, 2 copies"][0].stages)
    found = {way: seconds(costs[way]) for way in ("put", "get")}
    found |= {step: [cost.stages[step] for cost in costs["ingest and close, 2 copies"]] for step in sorted(steps)}
    for way, took in found.items():
        yield against(f"{way}, {shape.described}", took, "single pass", seconds(costs["single pass"]))


SHAPES = {"small": (10_000, 1 << 10), "large": (4, 64 << 20)}

if __name__ == "__main__":
    main(__doc__, {name: partial(_measure, name, *shape) for name, shape in SHAPES.items()})
