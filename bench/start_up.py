"""CPU time of `perdure --help`, against a bare interpreter: `python bench/start_up.py [result.json]`.

Claim: under 0.15 s of CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from harness import Cost, Finding, Options, against, alone, main, measured, run_program, take_turns

_LIMIT = 0.15  # seconds of CPU
_TURNS = 15


def _measure(options: Options) -> Iterator[Finding]:
    command = Path(sys.executable).with_name("perdure")
    works = {"ours": lambda: _run(command, "--help"), "bare": lambda: _run(sys.executable, "-c", "pass")}
    costs = take_turns(works, max(_TURNS, options.rounds), warm_up=True)
    ours, bare = ([cost.cpu for cost in costs[name]] for name in ("ours", "bare"))
    yield against("perdure --help, CPU", ours, "python -c pass", bare)
    yield alone("perdure --help, CPU", ours, unit="s", at_most=_LIMIT)


def _run(*words: str | Path) -> Cost:
    return measured(lambda: run_program(*words))


if __name__ == "__main__":
    main(__doc__, {"start": _measure})
