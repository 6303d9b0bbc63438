"""Named steps at which a test ends the process as a power cut would; in production they do nothing."""

from __future__ import annotations

import os

VARIABLE = "PERDURE_CRASH_AT"
EXIT_STATUS = 137  # what a shell shows for a process ended by SIGKILL


def crash_point(name: str) -> None:
    """End the process at once, without flushing or cleaning up, if the environment names this step."""
    if os.environ.get(VARIABLE) == name:
        os._exit(EXIT_STATUS)
