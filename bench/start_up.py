"""CPU time of `perdure --help`, against a bare interpreter: `python bench/start_up.py [result.json]`.

Claim: under 0.15 s of CPU.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness import child_cpu_seconds, compare, report

_LIMIT = 0.15  # seconds of CPU


def main() -> None:
    """Measure, print, and end with 1 when the claim does not hold."""
    command = str(Path(sys.executable).with_name("perdure"))
    found = compare(
        "perdure --help (CPU)",
        lambda: child_cpu_seconds(lambda: _run(command, "--help")),
        "python -c pass",
        lambda: child_cpu_seconds(lambda: _run(sys.executable, "-c", "pass")),
        pairs=15,
    )
    report([found], Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    print(f"{found.ours:.3f} s of CPU, the limit is {_LIMIT} s")
    sys.exit(found.ours > _LIMIT)


def _run(*arguments: str) -> None:
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
