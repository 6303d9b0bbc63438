"""The door through which jobs come: a worker that runs until it is told to stop."""

from perdure.doors.worker.loop import work

__all__ = ["work"]
