"""Measure two ways of doing the same in one run, turn by turn, and say their ratio with its spread.

A ratio is the median over at least five interleaved pairs. It is undecided when the spread (half the distance between
the quartiles, relative to the median) exceeds the margin that the claim leaves.
"""

from __future__ import annotations

import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

PAIRS = 5
Work = Callable[[], float]  # does the work once and returns what it cost (seconds)


@dataclass(frozen=True)
class Comparison:
    """What was measured: costs in `unit`, the ratio ours to peer, and the limit it is held against."""

    name: str
    peer: str
    unit: str
    ours: float
    theirs: float
    ratio: float
    spread: float
    limit: float | None
    pairs: int

    @property
    def verdict(self) -> str:
        if self.limit is None:
            return "shown"
        if abs(self.ratio - self.limit) < self.spread * self.ratio:
            return "undecided"
        return "within" if self.ratio <= self.limit else "exceeded"


def compare(
    name: str, ours: Work, peer: str, theirs: Work, *, unit: str = "s", limit: float | None = None, pairs: int = PAIRS
) -> Comparison:
    """Run both by turns, the first one changing from pair to pair, after one unmeasured warm-up of each."""
    ours()
    theirs()
    measured: list[tuple[float, float]] = []
    for turn in range(pairs):
        if turn % 2:
            second = theirs()
            measured.append((ours(), second))
        else:
            measured.append((ours(), theirs()))
    ratios = sorted(mine / other for mine, other in measured)
    quartiles = statistics.quantiles(ratios, n=4)
    median = statistics.median(ratios)
    return Comparison(
        name=name,
        peer=peer,
        unit=unit,
        ours=statistics.median(mine for mine, _ in measured),
        theirs=statistics.median(other for _, other in measured),
        ratio=median,
        spread=(quartiles[2] - quartiles[0]) / 2 / median,
        limit=limit,
        pairs=pairs,
    )


def wall_seconds(work: Callable[[], object]) -> float:
    """How long the work takes by the clock."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def child_cpu_seconds(work: Callable[[], object]) -> float:
    """The CPU time of the processes that the work starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report(comparisons: list[Comparison], to: Path | None = None) -> None:
    """Print a table, and write JSON when a file is named."""
    heading = ("what", "ours", "peer", "ratio", "± spread", "limit", "verdict")
    rows = [
        (
            one.name,
            f"{one.ours:.3f} {one.unit}",
            f"{one.theirs:.3f} {one.unit} ({one.peer})",
            f"{one.ratio:.2f}",
            f"{one.spread:.0%}",
            f"{one.limit:.2f}" if one.limit else "",
            one.verdict,
        )
        for one in comparisons
    ]
    widths = [max(len(row[column]) for row in [heading, *rows]) for column in range(len(heading))]
    for row in [heading, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if to is not None:
        document = {
            "at": datetime.now(UTC).isoformat(),
            "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
            "comparisons": [{**asdict(one), "verdict": one.verdict} for one in comparisons],
        }
        to.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
