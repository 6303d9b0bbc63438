"""A worker process: jobs until SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from types import FrameType

from perdure.jobs import Jobs, run_worker


def work(jobs: Jobs, *, queues: Sequence[str], concurrency: int, grace: float) -> None:
    """Run jobs of these queues (none named: of all) until the process is asked to end, then hand on what runs."""
    stop_event = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stop_event.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    run_worker(jobs, queues=list(queues) or None, concurrency=concurrency, stop_event=stop_event, grace=grace)
