"""Long acts: they answer 202 with the job that does the work, and the job tells how far it is."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel

from perdure.doors.api.fields import ArchiveId, Id, PageSize
from perdure.doors.api.forms import CloseForm, IngestForm, ReasonForm
from perdure.doors.api.views import JobRecord, Page, ProgressView, answer_json
from perdure.doors.http.auth import KnownCaller
from perdure.doors.http.openapi import problems
from perdure.doors.http.preconditions import expected_revision
from perdure.doors.http.services import Given, Services
from perdure.jobs import JobView
from perdure.kernel.actor import Actor
from perdure.kernel.paths import check_path

router = APIRouter(tags=["jobs"])


class WithdrawalRecord(BaseModel):
    """A withdrawal that still needs approvals by other persons."""

    archive_id: UUID
    approvals: int
    needed: int


class ApprovalView(BaseModel):
    """One person's word that the archive shall be withdrawn."""

    identity_id: UUID
    reason: str


class WithdrawalProgress(WithdrawalRecord):
    """How far a withdrawal is; `job_id` is there when enough persons have agreed."""

    approved_by: list[ApprovalView]
    job_id: UUID | None


@router.get(
    "/jobs/{job_id}", operation_id="get_job", summary="How far a job is, and what came of it", responses=problems(403)
)
def get_job(job_id: Annotated[Id, Path()], caller: KnownCaller, services: Given) -> JobRecord:
    return _record(services.archives.work.get_job(caller, job_id))


@router.get(
    "/jobs", operation_id="list_jobs", summary="The jobs about an archive, newest first", responses=problems(403)
)
def list_jobs(
    archive: Annotated[Id, Query()], caller: KnownCaller, services: Given, limit: PageSize = 50
) -> Page[JobRecord]:
    return Page(items=[_record(job) for job in services.archives.work.list_jobs(caller, archive)[:limit]])


@router.post(
    "/archives/{archive_id}/close",
    operation_id="close_archive",
    summary="Close the archive; asked again, the same closing goes on",
    status_code=202,
    response_model=JobRecord,
    responses=problems(403, 409, 410, 412),
)
def close_archive(
    archive_id: ArchiveId, request: Request, caller: KnownCaller, services: Given, form: CloseForm | None = None
) -> Response:
    """The job's result counts the files and bytes, names the identifier and the root of the tree over all lines of
    the manifest, and tells in `seconds` how long its last attempt took to `seal` the parts, to write and read back
    their `copies`, to build the `statement`, and to `commit` it.
    """
    expected = expected_revision(request.headers, "r")
    return _accepted(
        services.archives.closing.close(
            caller, archive_id, discard_uploads=form.discard_uploads if form else False, expected_revision=expected
        ),
        caller,
        services,
    )


@router.post(
    "/archives/{archive_id}/verify",
    operation_id="verify_archive",
    summary="Read every copy again and compare it",
    status_code=202,
    response_model=JobRecord,
    responses=problems(403, 409, 410),
)
def verify_archive(archive_id: ArchiveId, caller: KnownCaller, services: Given) -> Response:
    return _accepted(services.archives.verifying.start_verify(caller, archive_id), caller, services)


@router.post(
    "/archives/{archive_id}/ingest",
    operation_id="ingest_folder",
    summary="Take in a folder that the server may read",
    status_code=202,
    response_model=JobRecord,
    responses=problems(403, 409, 410),
)
def ingest_folder(archive_id: ArchiveId, form: IngestForm, caller: KnownCaller, services: Given) -> Response:
    into = check_path(form.into.encode()) if form.into else b""
    return _accepted(
        services.archives.filling.start_ingest(caller, archive_id, form.folder, into=into, exclude=tuple(form.exclude)),
        caller,
        services,
    )


@router.get(
    "/archives/{archive_id}/withdrawal",
    operation_id="get_withdrawal",
    summary="Who has agreed to a withdrawal so far",
    responses=problems(403),
)
def get_withdrawal(archive_id: ArchiveId, caller: KnownCaller, services: Given) -> WithdrawalProgress:
    asked = services.archives.life.get_withdrawal(caller, archive_id)
    return WithdrawalProgress(
        archive_id=archive_id,
        approvals=len(asked.approvals),
        needed=asked.needed,
        approved_by=[ApprovalView.model_validate(one, from_attributes=True) for one in asked.approvals],
        job_id=asked.job_id,
    )


@router.post(
    "/archives/{archive_id}/withdraw",
    operation_id="withdraw_archive",
    summary="Ask for, or approve, the withdrawal of a closed archive",
    response_model=WithdrawalRecord,
    responses=problems(
        403,
        409,
        410,
        beside={202: {"model": JobRecord, "description": "Approved by enough persons; the job removes every copy"}},
    ),
)
def withdraw_archive(archive_id: ArchiveId, form: ReasonForm, caller: KnownCaller, services: Given) -> Response:
    asked = services.archives.life.request_withdrawal(caller, archive_id, form.reason)
    if asked.job_id is not None:
        return _accepted(asked.job_id, caller, services)
    return answer_json({"archive_id": archive_id, "approvals": len(asked.approvals), "needed": asked.needed})


def _accepted(job_id: UUID, caller: Actor, services: Services) -> Response:
    record = _record(services.archives.work.get_job(caller, job_id))
    return answer_json(record.model_dump(mode="json"), 202, {"location": f"/api/v1/jobs/{job_id}"})


def _record(job: JobView) -> JobRecord:
    return JobRecord(
        id=job.id,
        kind=job.kind,
        archive_id=job.thing,
        state=job.state.value,
        progress=ProgressView.model_validate(job.progress, from_attributes=True),
        result=None if job.result is None else dict(job.result),
        error=None if job.error is None else dict(job.error),
        attempts=job.attempts,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )
