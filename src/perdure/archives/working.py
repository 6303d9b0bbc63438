"""Jobs as those who asked for them, and the readers of their archive, may see them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from perdure.archives.records import Context, load, require_archive
from perdure.identity.model import Action, InstanceThing
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
            is_own = actor.identity_id is not None and job.requested_by == actor.identity_id
            if is_own and actor.scope.archives is None:
                return job
            try:
                if job.thing is None:
                    self._ctx.identity.require(tx, actor, Action.ADMINISTER, InstanceThing())
                else:
                    self._ctx.identity.require(tx, actor, Action.READ, load(tx, job.thing).thing())
            except (NotFoundError, NotAllowedError):
                raise JobNotFoundError(f"There is no job {job_id}.") from None
            return job

    def list_jobs(self, actor: Actor, archive_id: UUID) -> Sequence[JobView]:
        """The jobs about an archive, newest first."""
        with self._ctx.db.begin() as tx:
            require_archive(tx, self._ctx, actor, Action.READ, archive_id)
            return self._ctx.jobs.find_for_thing(tx, archive_id)
