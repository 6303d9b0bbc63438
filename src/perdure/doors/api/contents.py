"""What an archive holds: listings, one entry, the plan of an upload, removal and hiding."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from perdure.archives.items import PlanItem, RemoveReport, Verdict
from perdure.archives.model import Entry, EntryKind
from perdure.doors.api.fields import ArchiveId, CursorText
from perdure.doors.api.forms import PathsForm, PlanForm, PlanItemForm
from perdure.doors.api.views import EntryRecord, Page, answer_json, page_json, path_fields
from perdure.doors.http.auth import Caller, KnownCaller
from perdure.doors.http.cursors import HEXADECIMAL, decode_cursor, encode_cursor
from perdure.doors.http.openapi import ANYONE, problems
from perdure.doors.http.paths import TailPath, find_query_path
from perdure.doors.http.services import Given

router = APIRouter(tags=["content"])

Layers = Annotated[
    Literal["union", "own"], Query(description="`union`: with what is inherited; `own`: this layer only.")
]


class PlanAnswerView(BaseModel):
    """`index` is the item's place in the request; items that are present are not in the answer."""

    index: int
    path: str
    path_b64: str | None = None
    verdict: Literal["missing", "different", "refused"]
    reason: str | None = None


class PlanView(BaseModel):
    """What is to be sent, and how many items are there already."""

    items: list[PlanAnswerView]
    present: int


class RemovedView(BaseModel):
    """How many entries were removed, how many inherited paths are hidden, and which paths had nothing."""

    removed: int
    hidden: int
    missing: list[dict[str, str]]


@router.get(
    "/archives/{archive_id}/entries",
    operation_id="list_entries",
    summary="The entries of one folder, or of all below it, in the order of their bytes",
    response_model=Page[EntryRecord],
    responses=problems(403, 410),
    openapi_extra=ANYONE,
)
def list_entries(
    archive_id: ArchiveId,
    request: Request,
    caller: Caller,
    services: Given,
    folder: Annotated[
        str | None, Query(description="A path, percent-encoded once; the archive's top without it.")
    ] = None,
    recursive: bool = False,
    layers: Layers = "union",
    cursor: CursorText = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> Response:
    place = find_query_path(request, "folder") or b""
    page = services.archives.reading.list_entries(
        caller,
        archive_id,
        folder=place,
        recursive=recursive,
        cursor=decode_cursor("entries", cursor, HEXADECIMAL),
        limit=limit,
        layers=layers,
    )
    return page_json([entry_fields(entry) for entry in page.items], encode_cursor("entries", page.next_cursor))


@router.get(
    "/archives/{archive_id}/entry/{path}",
    operation_id="get_entry",
    summary="The record of one path",
    response_model=EntryRecord,
    responses=problems(403, 410),
    openapi_extra=ANYONE,
)
def get_entry(archive_id: ArchiveId, path: TailPath, caller: Caller, services: Given) -> Response:
    return answer_json(entry_fields(services.archives.reading.stat(caller, archive_id, path)))


@router.post(
    "/archives/{archive_id}/plan",
    operation_id="plan_upload",
    summary="Which of these files are missing or different",
    response_model=PlanView,
    responses=problems(403, 409, 410),
)
def plan_upload(archive_id: ArchiveId, form: PlanForm, caller: KnownCaller, services: Given) -> Response:
    answers = services.archives.filling.plan(caller, archive_id, [_plan_item(item) for item in form.items])
    wanted = [
        {"index": index, **path_fields(answer.path), "verdict": answer.verdict.value, "reason": answer.reason}
        for index, answer in enumerate(answers)
        if answer.verdict is not Verdict.PRESENT
    ]
    return answer_json({"items": wanted, "present": len(answers) - len(wanted)})


@router.post(
    "/archives/{archive_id}/remove",
    operation_id="remove_entries",
    summary="Remove files and folders from an open archive; inherited ones are hidden",
    responses=problems(403, 409, 410),
)
def remove_entries(archive_id: ArchiveId, form: PathsForm, caller: KnownCaller, services: Given) -> RemovedView:
    return _removed(services.archives.filling.remove(caller, archive_id, form.path_bytes()))


@router.post(
    "/archives/{archive_id}/hide",
    operation_id="hide_entries",
    summary="Hide inherited paths and all below them",
    responses=problems(403, 409, 410),
)
def hide_entries(archive_id: ArchiveId, form: PathsForm, caller: KnownCaller, services: Given) -> RemovedView:
    return _removed(services.archives.filling.hide(caller, archive_id, form.path_bytes()))


def entry_fields(entry: Entry) -> dict[str, Any]:  # Any: the JSON of an EntryRecord
    """An entry as JSON; a list of ten thousand is built without a model for each."""
    fields: dict[str, Any] = {**path_fields(entry.path), "kind": entry.kind.value, "size": entry.size}
    fields |= {"mtime_ns": entry.mtime_ns, "mode": entry.mode, "digests": dict(entry.digests)}
    if entry.target is not None:
        fields |= path_fields(entry.target, "target")
    fields |= {"archive_id": str(entry.archive_id), "metadata_digest": entry.metadata_digest}
    return fields


def _plan_item(item: PlanItemForm) -> PlanItem:
    return PlanItem(
        path=item.path_bytes(),
        size=item.size,
        mtime_ns=item.mtime_ns,
        digests=item.digests,
        kind=EntryKind(item.kind),
        target=item.target_bytes(),
    )


def _removed(report: RemoveReport) -> RemovedView:
    missing = [path_fields(path) for path in report.missing]
    return RemovedView(removed=report.removed, hidden=report.hidden, missing=missing)
