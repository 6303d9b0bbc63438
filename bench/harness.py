"""Measure ways of doing the same in one run, turn by turn, and say their ratio with its spread.

A *finding* is a ratio of ours to a peer, or a number of ours, with the limit that a claim sets. The ratio is the median
over interleaved pairs; it is undecided when the spread (half the distance between the quartiles, relative to the
median) exceeds the margin that the claim leaves.

A benchmark is a list of sections. One that fails is reported and does not stop the others; what was found so far is
written after each section.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

PAIRS = 5
GB = 10**9
_MIB = 1 << 20
_HEADING = ("what", "ours", "peer", "ratio", "± spread", "limit", "verdict")


@dataclass(frozen=True)
class Finding:
    """What was measured, in `unit`, and the limit it is held against.

    With a peer, `theirs` and `ratio` (ours to theirs) are there, and the limit is one of the ratio; without one it is a
    limit of `ours`. `spread` is relative, and None where there was a single turn.
    """

    name: str
    unit: str
    ours: float
    peer: str | None = None
    theirs: float | None = None
    ratio: float | None = None
    spread: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    turns: int = 1
    note: str = ""

    @property
    def verdict(self) -> str:
        """`within` or `exceeded` the limit, `undecided` when the spread reaches over it, `shown` without a limit."""
        limit = self.at_most if self.at_most is not None else self.at_least
        if limit is None:
            return "shown"
        found = self.ours if self.ratio is None else self.ratio
        if self.spread is not None and abs(found - limit) < self.spread * found:
            return "undecided"
        return "within" if (found <= limit if self.at_most is not None else found >= limit) else "exceeded"

    @property
    def cells(self) -> tuple[str, ...]:
        """The columns of a table."""
        sign, limit = ("≤", self.at_most) if self.at_most is not None else ("≥", self.at_least)
        return (
            self.name,
            f"{number(self.ours)} {self.unit}",
            "" if self.theirs is None else f"{number(self.theirs)} {self.unit} ({self.peer})",
            "" if self.ratio is None else f"{self.ratio:.2f}" if self.ratio >= 0.1 else number(self.ratio),
            "once" if self.spread is None else f"{self.spread:.0%}",
            "" if limit is None else f"{sign} {number(limit)}",
            self.verdict,
        )


@dataclass(frozen=True)
class Cost:
    """What a work took: seconds by the clock, seconds of CPU of every process that had a part in it."""

    seconds: float
    cpu: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)


Work = Callable[[], Cost]


@dataclass(frozen=True)
class Options:
    """How a benchmark was called: `scale` shrinks counts and sizes, `folder` is on the file system to measure."""

    folder: Path
    scale: float
    rounds: int

    def count(self, full: int, *, least: int = 1) -> int:
        """So many of what is `full` at scale 1."""
        return max(least, round(full * self.scale))

    def size(self, full: int) -> int:
        """A size in bytes that is `full` at scale 1, of whole MiB where it is shrunk."""
        return full if self.scale == 1 else max(1, round(full * self.scale / _MIB)) * _MIB


Section = Callable[[Options], Iterator[Finding]]


class SkippedError(Exception):
    """What a section needs is not on this machine; says what."""


def take_turns(works: Mapping[str, Work], rounds: int, *, warm_up: bool = False) -> dict[str, list[Cost]]:
    """Do each work once a round, another one first each time; a warm-up round is not counted."""
    if warm_up:
        for work in works.values():
            work()
    costs: dict[str, list[Cost]] = {name: [] for name in works}
    names = list(works)
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            costs[name].append(works[name]())
            print(f"  turn {turn + 1}: {name} {costs[name][-1].seconds:.2f} s", file=sys.stderr, flush=True)
    return costs


def against(
    name: str,
    ours: Sequence[float],
    peer: str,
    theirs: Sequence[float],
    *,
    unit: str = "s",
    at_most: float | None = None,
    at_least: float | None = None,
    note: str = "",
) -> Finding:
    """The ratio of ours to theirs, pair by pair."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return Finding(
        name=name,
        unit=unit,
        ours=statistics.median(ours),
        peer=peer,
        theirs=statistics.median(theirs),
        ratio=statistics.median(ratios),
        spread=spread(ratios),
        at_most=at_most,
        at_least=at_least,
        turns=len(ratios),
        note=note,
    )


def alone(
    name: str,
    ours: Sequence[float],
    *,
    unit: str,
    at_most: float | None = None,
    at_least: float | None = None,
    note: str = "",
) -> Finding:
    """A number of ours, held against a limit of its own."""
    return Finding(
        name=name,
        unit=unit,
        ours=statistics.median(ours),
        spread=spread(ours),
        at_most=at_most,
        at_least=at_least,
        turns=len(ours),
        note=note,
    )


def seconds(costs: Sequence[Cost]) -> list[float]:
    return [cost.seconds for cost in costs]


def spread(values: Sequence[float]) -> float | None:
    """Half the distance between the quartiles, relative to the median; of fewer than five values, of the extremes."""
    if len(values) < 2:
        return None
    median = statistics.median(values)
    quartiles = statistics.quantiles(values, n=4) if len(values) >= PAIRS else [min(values), median, max(values)]
    return (quartiles[2] - quartiles[0]) / 2 / median if median else 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def wall_seconds(work: Callable[[], object]) -> float:
    """How long the work takes by the clock."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def own_cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measured(work: Callable[[], object]) -> Cost:
    """The cost of a work of this process and of programs that it runs and waits for."""
    before = own_cpu()
    took = wall_seconds(work)
    return Cost(took, own_cpu() - before)


def run_program(*words: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
    """Run a program quietly; raises SkippedError when it is not installed and RuntimeError with its last words."""
    require_program(str(words[0]))
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        last = " ".join(done.stderr.strip().splitlines()[-3:])
        raise RuntimeError(f"{words[0]} ended with exit code {done.returncode}: {last}")


def require_program(name: str) -> str:
    """Where a program is; raises SkippedError."""
    found = shutil.which(name)
    if found is None:
        raise SkippedError(f"{name} is not installed")
    return found


def number(value: float) -> str:
    """A number with three digits that count."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.{2 if abs(value) < 10 else 1}f}".rstrip("0").rstrip(".")


def main(document: str | None, sections: Mapping[str, Section]) -> None:
    """Parse the command line, run the sections, print the table, write JSON; exit code 1 if a section failed."""
    chosen = _parse(document or "", sections)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that servers are stopped
    found: list[Finding] = []
    problems: dict[str, str] = {}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=chosen.folder, prefix="bench-", ignore_cleanup_errors=True) as name:
        options = Options(Path(name), chosen.scale, chosen.rounds)
        names = chosen.only or list(sections)
        for section in names:
            print(f"{section}:", file=sys.stderr, flush=True)
            problem = _run(sections[section], options, found)
            if problem:
                problems[section] = problem
            if chosen.result is not None:
                is_complete = section == list(sections)[-1] and names == list(sections)
                told = {"took_seconds": round(time.monotonic() - started, 1), "is_complete": is_complete}
                _write(chosen.result, options, found, problems, told)
    print_table([one.cells for one in found])
    for section, problem in problems.items():
        print(f"{section}: {problem}")
    sys.exit(any(not problem.startswith("skipped") for problem in problems.values()))


def _parse(document: str, sections: Mapping[str, Section]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", nargs="?", type=Path, help="a file for the result as JSON")
    parser.add_argument("--scale", type=float, default=1.0, help="shrink counts and sizes by this factor")
    parser.add_argument("--rounds", type=int, default=PAIRS, help="how many turns of each")
    parser.add_argument("--folder", type=Path, help="on which file system to measure; that of temporary files without")
    parser.add_argument("--only", action="append", choices=list(sections), help="only this section; may be repeated")
    return parser.parse_args()


def _run(section: Section, options: Options, found: list[Finding]) -> str | None:
    """Collect what a section finds; what stopped it, if anything did."""
    try:
        for one in section(options):
            found.append(one)
            print(f"  {one.name}: {one.verdict}", file=sys.stderr, flush=True)
    except SkippedError as error:
        return f"skipped: {error}"
    except Exception as error:
        traceback.print_exc()
        return f"failed: {type(error).__name__}: {error}"
    return None


def _write(to: Path, options: Options, found: list[Finding], problems: dict[str, str], told: dict[str, object]) -> None:
    document = {
        "benchmark": Path(sys.argv[0]).stem,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        **told,
        "scale": options.scale,
        "code": code_digest(),
        "machine": machine(options.folder),
        "findings": [{**asdict(one), "verdict": one.verdict} for one in found],
        "problems": problems,
    }
    to.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_findings(document: Mapping[str, object]) -> list[Finding]:
    """The findings of a result that was written as JSON."""
    found = document["findings"]
    assert isinstance(found, list)
    return [Finding(**{name: value for name, value in one.items() if name != "verdict"}) for one in found]


@cache
def code_digest() -> str:
    """The tree of the product's code as git names it, so that results of the same code are told; empty without git."""
    words = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD:src", "HEAD:client"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return "-".join(line[:12] for line in done.stdout.split()) if done.returncode == 0 else ""


def machine(folder: Path) -> dict[str, object]:
    """What was measured on."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "processors": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB),
        "file_system": _file_system(folder),
        "python": platform.python_version(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    words = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(folder)]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Rows in columns, under their heading."""
    widths = [max(len(row[column]) for row in [_HEADING, *rows]) for column in range(len(_HEADING))]
    for row in [_HEADING, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def markdown_table(findings: Sequence[Finding]) -> str:
    """The same as a table of a page."""
    lines = ["| " + " | ".join(_HEADING) + " |", "|" + "---|" * len(_HEADING)]
    lines += ["| " + " | ".join(one.cells) + " |" for one in findings]
    return "\n".join(lines) + "\n"
