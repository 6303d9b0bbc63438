"""Jobs as those who asked for them, and those who work on their archive, may see them.

What a job does and why it failed is the business of those who may fill or manage the archive, an administrator too;
the reader of a public archive does not see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection

from perdure.archives.model import Archive
from perdure.archives.records import Context, require_archive
from perdure.identity.model import Action, InstanceThing, actions_held
from perdure.jobs import JobNotFoundError, JobView
from perdure.kernel.actor import Actor
from perdure.kernel.errors import NotAllowedError, NotFoundError


class Work:
    """What is being done about archives."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def get_job(self, actor: Actor, job_id: UUID) -> JobView:
        """One job; raises JobNotFoundError also when it is none of the actor's business."""
        with self._ctx.db.begin() as tx:
            job = self._ctx.jobs.get(tx, job_id)
            if _is_own(actor, job) and actor.scope.archives is None:
                return job
            try:
                if job.thing is None:
                    self._ctx.identity.require(tx, actor, Action.ADMINISTER, InstanceThing())
                    return job
                archive = require_archive(tx, self._ctx, actor, Action.READ, job.thing)
            except (NotFoundError, NotAllowedError):
                raise JobNotFoundError(f"There is no job {job_id}.") from None
            if not (_is_own(actor, job) or self._works_on(tx, actor, archive)):
                raise JobNotFoundError(f"There is no job {job_id}.")
            return job

    def list_jobs(self, actor: Actor, archive_id: UUID) -> Sequence[JobView]:
        """The jobs about an archive, newest first: all for those who work on it, for other readers their own."""
        with self._ctx.db.begin() as tx:
            archive = require_archive(tx, self._ctx, actor, Action.READ, archive_id)
            jobs = self._ctx.jobs.find_for_thing(tx, archive_id)
            return jobs if self._works_on(tx, actor, archive) else [job for job in jobs if _is_own(actor, job)]

    def _works_on(self, tx: Connection, actor: Actor, archive: Archive) -> bool:
        """By role, not by token: one that only reads may watch the work of its owner."""
        identity, thing = self._ctx.identity, archive.thing()
        may_fill = Action.FILL in actions_held(identity.find_roles(tx, actor, thing), thing)
        return may_fill or identity.can(tx, actor, Action.MANAGE, thing)


def _is_own(actor: Actor, job: JobView) -> bool:
    return actor.identity_id is not None and job.requested_by == actor.identity_id
