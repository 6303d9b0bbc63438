"""What accounts use of their quotas, requests for other quotas, and reports of it all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappush, heappushpop
from uuid import UUID

from fastapi import APIRouter, FastAPI, Request, Response

from perdure.archives.reporting import By, Line
from perdure.doors.http.auth import Caller, KnownCaller
from perdure.doors.http.cursors import AN_ID, decode_cursor, encode_cursor
from perdure.doors.http.services import Given, Services
from perdure.doors.ui.asking import (
    SIZE_UNITS,
    Content,
    choose,
    find_day,
    find_size,
    lead_to,
    read_form_id,
    refuse,
    with_query,
)
from perdure.doors.ui.login import Form, Sent, render_form
from perdure.doors.ui.words import say_size
from perdure.identity import Account, Role
from perdure.identity.model import QuotaRequest, RequestState
from perdure.kernel.actor import Actor
from perdure.kernel.errors import BadInputError, PerdureError

router = APIRouter(include_in_schema=False)

_SHOWN = 25
_SHOWN_REQUESTS = 50
_SHOWN_LINES = 200
_HERE = "/usage"
_REPORT = "/usage/report"
_ASKING = (Role.CONTRIBUTOR, Role.MANAGER, Role.OWNER)
BYS = {
    By.ACCOUNT.value: "account",
    By.BEAMLINE.value: "beamline",
    By.GROUP.value: "group",
    By.ORGANISATION.value: "organisation",
    By.KIND.value: "kind of account",
}


def open_usage_pages(app: FastAPI) -> None:
    """Serve the pages."""
    app.include_router(router)


@router.get(_HERE)
def show_usage(request: Request, caller: Caller, services: Given, cursor: str | None = None) -> Response:
    try:
        after = decode_cursor("usage page", cursor, AN_ID)
        return _show(request, services, caller, after=UUID(after) if after else None)
    except PerdureError as error:
        return refuse(request, services, error, caller=caller)


@router.post(f"{_HERE}/ask")
def ask(request: Request, form: Sent, caller: KnownCaller, services: Given) -> Response:
    """Ask for another quota of an account."""

    def ask() -> None:
        wanted = find_size(form, "size")
        if wanted is None:
            raise BadInputError("Say how much the account shall hold.", field="size")
        reason = form.get("reason", "").replace("\r\n", "\n")
        services.identity.request_quota(caller, read_form_id(form, "account_id"), asked_bytes=wanted, reason=reason)

    return _change(request, form, caller, services, ask)


@router.post(f"{_HERE}/decide")
def decide(request: Request, form: Sent, caller: KnownCaller, services: Given) -> Response:
    """Give what was asked for or another quota, or leave it as it is."""

    def decide() -> None:
        request_id, note = read_form_id(form, "request_id"), form.get("note", "").replace("\r\n", "\n")
        if choose(form, "answer", ("approve", "refuse")) == "approve":
            services.identity.approve_quota_request(caller, request_id, given_bytes=find_size(form, "size"), note=note)
        elif not note.strip():
            raise BadInputError("Say why not: who asked is told.", field="note")
        else:
            services.identity.refuse_quota_request(caller, request_id, note=note)

    return _change(request, form, caller, services, decide)


@router.get(_REPORT)
def show_report(request: Request, caller: Caller, services: Given) -> Response:
    asked = dict(request.query_params)
    try:
        by = choose(asked, "by", BYS, By.ACCOUNT.value)
        first, last = find_day(asked, "from"), find_day(asked, "to")
        lines = services.archives.reports.report_usage(caller, By(by), first=first, last=last)
    except PerdureError as error:
        return refuse(request, services, error, caller=caller)
    totals, largest, count = _digest_lines(lines)
    days = {"from": first, "to": last}
    content: Content = {
        "error": None,
        "by": by,
        "bys": BYS,
        "days": {name: day or "" for name, day in days.items()},
        "totals": [_facts(one, totals) for one in totals],
        "lines": [_facts(one, largest) for one in largest],
        "count": count,
        "is_past": first is not None or last is not None,
        "csv_url": with_query("/api/v1/reports/usage", by=by, **days, format="csv"),
    }
    return render_form(request, services, "report.html", content, 200)


def _digest_lines(lines: Iterable[Line]) -> tuple[list[Line], list[Line], int]:
    """The total of each day, the largest lines of the last one, and how many lines that day has.

    However many lines there are, only the largest of them are held.
    """
    totals: list[Line] = []
    largest: list[tuple[int, int, Line]] = []  # with a number that is unlike all others, so that no lines are compared
    of_last, counted, count = largest, 0, 0
    for line in lines:
        if line.is_total:
            totals.append(line)
            of_last, counted, largest, count = largest, count, [], 0
            continue
        count += 1
        one = (line.use.bytes, -count, line)
        if len(largest) < _SHOWN_LINES:
            heappush(largest, one)
        else:
            heappushpop(largest, one)
    return totals, [line for _, _, line in sorted(of_last, reverse=True)], counted


def _facts(line: Line, beside: list[Line]) -> Content:
    use = line.use
    most = max((one.use.bytes for one in beside), default=0)
    return {
        "day": line.day,
        "name": line.name or "without a name",
        "bytes": use.bytes,
        "files": use.files,
        "open": use.archives_open,
        "closed": use.archives_closed,
        "copies": use.copy_bytes,
        "percent": _percent(use.bytes, most),
    }


def _change(request: Request, form: Form, caller: Actor, services: Services, change: Callable[[], object]) -> Response:
    """Do it and show what is used; or say on the same page why not."""
    try:
        change()
    except PerdureError as error:
        try:
            return _show(request, services, caller, form=form, error=error)
        except PerdureError:
            return refuse(request, services, error, caller=caller)
    return lead_to(_HERE)


def _show(
    request: Request,
    services: Services,
    caller: Actor,
    *,
    after: UUID | None = None,
    form: Form | None = None,
    error: PerdureError | None = None,
) -> Response:
    found = services.identity.list_accounts(caller, after=after, limit=_SHOWN)
    is_manager = services.identity.manages_any(caller)
    pending, managed = _requests(services, caller) if is_manager else ([], [])
    following = encode_cursor("usage page", str(found[-1].id) if len(found) == _SHOWN else None)
    content: Content = {
        "error": error,
        "form": form or {},
        "units": {unit: unit for unit in SIZE_UNITS},
        "accounts": [_account(services, caller, one) for one in found],
        "requests": pending,
        "organisations": managed,
        "is_manager": is_manager,
        "is_first": after is None,
        "next_url": with_query(_HERE, cursor=following) if following else None,
    }
    return render_form(request, services, "usage.html", content, error.status if error else 200)


def _account(services: Services, caller: Actor, account: Account) -> Content:
    use = services.archives.life.use_of(caller, account.id)
    asked = services.identity.list_quota_requests_of(caller, account.id)
    held = use.bytes + use.reserved_bytes
    return {
        "id": account.id,
        "name": account.name,
        "kind": account.kind,
        "role": account.role.value if account.role else "",
        "bytes": use.bytes,
        "reserved": use.reserved_bytes,
        "files": use.files,
        "quota": use.quota_bytes,
        "quota_files": use.quota_files,
        "percent": None if use.quota_bytes is None else _percent(held, use.quota_bytes),
        "asked": [_request(one) for one in asked[-3:]],
        "may_ask": account.role in _ASKING and not any(one.state is RequestState.PENDING for one in asked),
    }


def _requests(services: Services, caller: Actor) -> tuple[list[Content], list[Content]]:
    """What waits to be decided, the oldest first, and what organisations with a quota use of it."""
    found = services.identity.list_quota_requests(caller, state=RequestState.PENDING, limit=_SHOWN_REQUESTS)
    people = services.identity.find_names(caller, {one.asked_by for one in found if one.asked_by})
    waiting = []
    for one in found:
        account = services.identity.get_account(caller, one.account_id)
        quota = "no limit" if account.quota_bytes is None else say_size(account.quota_bytes)
        who = people.get(one.asked_by, "") if one.asked_by else ""
        waiting.append({**_request(one), "account": account.name, "quota": quota, "who": who})
    limited = [one for one in services.identity.list_organisations(caller) if one.quota_bytes is not None]
    used = [(one, services.archives.life.use_of_all(caller, one.id)) for one in limited]
    return waiting, [
        {
            "name": one.name,
            "bytes": use.bytes,
            "quota": one.quota_bytes,
            "percent": _percent(use.bytes + use.reserved_bytes, one.quota_bytes or 0),
        }
        for one, use in used
    ]


def _request(one: QuotaRequest) -> Content:
    return {
        "id": one.id,
        "state": one.state.value,
        "bytes": one.asked_bytes,
        "given": one.given_bytes,
        "reason": one.reason,
        "note": one.note,
        "at": one.asked_at,
    }


def _percent(part: int, whole: int) -> float:
    """What a bar shows, 0 to 100."""
    return 100.0 if part > whole else round(100 * part / whole, 1) if whole else 0.0
