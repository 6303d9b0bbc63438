"""Named steps at which a test ends the process as a power cut would; in production they do nothing.

`PERDURE_CRASH_AT` holds the name of a step, at which every process that has the variable ends each time; or a folder,
in which a file with the name of a step is a trap that springs once: whoever comes to the step first takes the file
away and ends. So a whole process tree can be started with the folder and struck at one step after another.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "PERDURE_CRASH_AT"
EXIT_STATUS = 137  # what a shell shows for a process ended by SIGKILL
SPRUNG = ".sprung"  # the ending of a trap's name once somebody has ended at it


def crash_point(name: str) -> None:
    """End the process at once, without flushing or cleaning up, if the environment names this step."""
    told = os.environ.get(VARIABLE)
    if told is not None and (told == name or _springs(f"{told}/{name}")):
        os._exit(EXIT_STATUS)


def _springs(trap: str) -> bool:
    try:
        Path(trap).rename(trap + SPRUNG)  # of two that come at once one gets it
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
