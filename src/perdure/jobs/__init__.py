"""Work that is retried until it is done: a durable queue in the database, behind our own interface."""

from perdure.jobs.errors import JobNotFoundError, JobStoppedError
from perdure.jobs.lifelines import Lifelines
from perdure.jobs.model import JobState, JobView, Json, Progress, RetryRule
from perdure.jobs.service import JobContext, Jobs
from perdure.jobs.worker import run_pending, run_worker

__all__ = [
    "JobContext",
    "JobNotFoundError",
    "JobState",
    "JobStoppedError",
    "JobView",
    "Jobs",
    "Json",
    "Lifelines",
    "Progress",
    "RetryRule",
    "run_pending",
    "run_worker",
]
