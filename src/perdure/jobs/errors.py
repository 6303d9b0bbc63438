"""What can go wrong with a job itself."""

from __future__ import annotations

from perdure.kernel.errors import ErrorKind, NotFoundError, PerdureError, TryAgainError


class JobNotFoundError(NotFoundError):
    code = "job_not_found"
    title = "There is no such job"
    next_step = "Check the identifier; finished jobs are forgotten after a while."


class JobStoppedError(TryAgainError):
    """Raised inside a handler when its worker stops or another worker has taken the job over."""

    code = "job_stopped"
    title = "The job was interrupted"
    next_step = "Nothing: the job goes on by itself with the next free worker."


class JobUnknownError(TryAgainError):
    """Two releases may run side by side: the newer one's workers carry out what the older one does not know."""

    code = "job_kind_unknown"
    title = "No handler is registered for this kind of job"
    next_step = "Start a worker of the release that queued the job."


class JobAbandonedError(PerdureError):
    code = "job_abandoned"
    kind = ErrorKind.CONFLICT
    title = "The job was given up"
    next_step = "Read the worker's log of the time it ended; ask for the work again when the cause is mended."
