"""A worker process: jobs until SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType


def work(run: Callable[[threading.Event], None]) -> None:
    """Run jobs until the process is asked to end: `run` returns soon after its event is set."""
    stop_event = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stop_event.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    run(stop_event)
