"""Requests for other quotas, and reports of what is used."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from perdure.archives.reporting import By, Line
from perdure.doors.api.fields import CursorText, Day, Id, PageSize
from perdure.doors.api.forms import QuotaApprovalForm, QuotaRefusalForm, QuotaRequestForm
from perdure.doors.api.views import Page
from perdure.doors.http.auth import KnownCaller
from perdure.doors.http.cursors import AN_ID, decode_cursor, encode_cursor
from perdure.doors.http.openapi import problems
from perdure.doors.http.repeats import ONCE, CreatingRoute
from perdure.doors.http.sending import attachment, send_stream
from perdure.doors.http.services import Given
from perdure.identity.model import QuotaRequest, RequestState

router = APIRouter(tags=["quotas"], route_class=CreatingRoute)

AccountId = Annotated[Id, Path()]
RequestId = Annotated[Id, Path()]
_LINES_AT_ONCE = 500
_COLUMNS = (
    "day", "by", "id", "name", "organisation_id", "bytes", "files", "archives_open", "archives_closed", "copy_bytes",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


class QuotaRequestView(BaseModel):
    """A wish for another quota; `given_bytes` is what was given when it was approved."""

    id: UUID
    account_id: UUID
    asked_bytes: int
    reason: str
    state: Literal["pending", "approved", "refused"]
    asked_by: UUID | None
    asked_at: datetime
    given_bytes: int | None
    decided_by: UUID | None
    decided_at: datetime | None
    note: str


class UsageLine(BaseModel):
    """What was held on a day (UTC): bytes and files of archives, numbers of archives, bytes of all copies."""

    day: date
    by: Literal["account", "beamline", "group", "organisation", "kind", "total"]
    id: UUID | None = Field(description="Of the account, group or organisation; null for a kind and in a total.")
    name: str
    organisation_id: UUID | None
    bytes: int
    files: int
    archives_open: int
    archives_closed: int
    copy_bytes: int


class UsageReport(BaseModel):
    """The lines of each day in order, and one total for each day, in which every account counts once."""

    by: Literal["account", "beamline", "group", "organisation", "kind"]
    items: list[UsageLine]
    totals: list[UsageLine]


@router.post(
    "/accounts/{account_id}/quota-requests",
    operation_id="request_quota",
    summary="Ask for another quota of the account",
    status_code=201,
    dependencies=ONCE,
    responses=problems(403, 409),
)
def request_quota(
    account_id: AccountId, form: QuotaRequestForm, caller: KnownCaller, services: Given
) -> QuotaRequestView:
    made = services.identity.request_quota(caller, account_id, asked_bytes=form.asked_bytes, reason=form.reason)
    return _view(made)


@router.get(
    "/accounts/{account_id}/quota-requests",
    operation_id="list_account_quota_requests",
    summary="What was asked for the account, and what became of it",
    responses=problems(403),
)
def list_account_requests(
    account_id: AccountId, caller: KnownCaller, services: Given, cursor: CursorText = None, limit: PageSize = 100
) -> Page[QuotaRequestView]:
    name = f"quota requests {account_id}"
    after = decode_cursor(name, cursor, AN_ID)
    found = services.identity.list_quota_requests_of(
        caller, account_id, after=UUID(after) if after else None, limit=limit
    )
    return _page(name, found, limit)


@router.get(
    "/quota-requests",
    operation_id="list_quota_requests",
    summary="The requests that one may decide",
    responses=problems(403),
)
def list_requests(
    caller: KnownCaller,
    services: Given,
    state: Literal["pending", "approved", "refused"] | None = None,
    cursor: CursorText = None,
    limit: PageSize = 100,
) -> Page[QuotaRequestView]:
    after = decode_cursor("quota requests", cursor, AN_ID)
    wanted = None if state is None else RequestState(state)
    found = services.identity.list_quota_requests(
        caller, state=wanted, after=UUID(after) if after else None, limit=limit
    )
    return _page("quota requests", found, limit)


@router.post(
    "/quota-requests/{request_id}/approve",
    operation_id="approve_quota_request",
    summary="Give what was asked for, or another quota",
    responses=problems(403, 409),
)
def approve(request_id: RequestId, form: QuotaApprovalForm, caller: KnownCaller, services: Given) -> QuotaRequestView:
    decided = services.identity.approve_quota_request(caller, request_id, given_bytes=form.quota_bytes, note=form.note)
    return _view(decided)


@router.post(
    "/quota-requests/{request_id}/refuse",
    operation_id="refuse_quota_request",
    summary="Leave the quota as it is, and say why",
    responses=problems(403, 409),
)
def refuse(request_id: RequestId, form: QuotaRefusalForm, caller: KnownCaller, services: Given) -> QuotaRequestView:
    return _view(services.identity.refuse_quota_request(caller, request_id, note=form.note))


@router.get(
    "/reports/usage",
    operation_id="report_usage",
    summary="What accounts, groups or organisations use, now or day by day (those who manage them)",
    response_class=Response,
    responses=problems(
        403,
        beside={
            200: {
                "description": "Without days this moment, with days what was counted on them.",
                "model": UsageReport,
                "content": {
                    "text/csv": {"schema": {"type": "string"}},
                },
            }
        },
    ),
)
def report_usage(
    request: Request,
    caller: KnownCaller,
    services: Given,
    by: Literal["account", "beamline", "group", "organisation", "kind"] = "account",
    first: Annotated[Day | None, Query(alias="from", description="The first day (UTC).")] = None,
    last: Annotated[Day | None, Query(alias="to", description="The last day; without: today.")] = None,
    form: Annotated[
        Literal["json", "csv"] | None, Query(alias="format", description="Before what Accept says.")
    ] = None,
) -> Response:
    lines = services.archives.reports.report_usage(caller, By(by), first=first, last=last)
    is_csv = form == "csv" if form else prefers_csv(request.headers.get("accept", ""))
    render: Callable[[], Iterator[bytes]] = lambda: _iter_csv(by, lines) if is_csv else _iter_json(by, lines)  # noqa: E731
    headers = {"cache-control": "private, no-cache", "vary": "Accept"}
    if is_csv:
        headers["content-type"] = "text/csv; charset=utf-8; header=present"
        headers["content-disposition"] = attachment(f"usage-by-{by}.csv".encode())
    else:
        headers["content-type"] = "application/json"
    return send_stream(request, services.threads, render, headers)


def prefers_csv(accept: str) -> bool:
    """Whether an Accept header (RFC 9110, 12.5.1) names text/csv, and nothing that JSON is, with more weight."""
    weights: dict[str, float] = {}
    for one in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in one.split(";"))
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            weights[kind] = float(weight)
        except ValueError:
            weights[kind] = 0.0
    return weights.get("text/csv", 0.0) > weights.get("application/json", 0.0)


def safe_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula (CWE-1236)."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _iter_csv(by: str, lines: Iterable[Line]) -> Iterator[bytes]:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(_COLUMNS)
    for number, line in enumerate(lines, start=1):
        cells = _cells(by, line)
        writer.writerow([safe_cell(cell) if isinstance(cell, str) else cell for cell in cells.values()])
        if number % _LINES_AT_ONCE == 0:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def _iter_json(by: str, lines: Iterable[Line]) -> Iterator[bytes]:
    """A UsageReport, whose lines leave before the last one is known."""
    totals: list[dict[str, object]] = []
    gathered = bytearray(b'{"by":' + orjson.dumps(by) + b',"items":[')
    separator = b""
    for line in lines:
        if line.is_total:
            totals.append(_cells(by, line))
            continue
        gathered += separator + orjson.dumps(_cells(by, line))
        separator = b","
        if len(gathered) > 1 << 16:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered) + b'],"totals":' + orjson.dumps(totals) + b"}"


def _cells(by: str, line: Line) -> dict[str, object]:
    use = line.use
    values = (
        line.day, "total" if line.is_total else by, line.id, line.name, line.organisation_id,
        use.bytes, use.files, use.archives_open, use.archives_closed, use.copy_bytes,
    )  # fmt: skip
    return dict(zip(_COLUMNS, values, strict=True))


def _page(name: str, found: list[QuotaRequest], limit: int) -> Page[QuotaRequestView]:
    following = encode_cursor(name, str(found[-1].id) if len(found) == limit else None)
    return Page(items=[_view(one) for one in found], next_cursor=following)


def _view(one: QuotaRequest) -> QuotaRequestView:
    return QuotaRequestView.model_validate({**{n: getattr(one, n) for n in one.__slots__}, "state": one.state.value})
