"""How long the stages of a job took, for its result."""

from __future__ import annotations

import time
from collections.abc import Callable

from perdure.jobs import Json


class Stages:
    """Seconds by the name of the stage; a stage that comes again adds to the first. Belongs to one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self._seconds: dict[str, float] = {}

    def end(self, name: str) -> None:
        """What was done since the last end, or since the beginning, was this stage."""
        now = self._clock()
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._begun
        self._begun = now

    def as_json(self) -> dict[str, Json]:
        return {name: round(seconds, 3) for name, seconds in self._seconds.items()}
