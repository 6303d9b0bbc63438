"""What pages with forms share: who is not logged in is led to it, fields become values, and errors stay on the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from perdure.doors.http.errors import NoSuchAddressError
from perdure.doors.http.services import Services
from perdure.doors.ui.login import Form, render_form
from perdure.kernel.actor import Actor
from perdure.kernel.errors import BadInputError, PerdureError
from perdure.kernel.ids import parse_id

Content = dict[str, Any]  # Any: what a template is given
SIZE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def refuse(request: Request, services: Services, error: PerdureError, *, caller: Actor) -> Response:
    """A page that says why; who only looks and is not logged in is led to that first, whatever is there or is not."""
    if caller.identity_id is None and request.method == "GET":
        return ask_to_log_in(request)
    return render_form(request, services, "problem.html", {"error": error}, error.status)


def ask_to_log_in(request: Request) -> Response:
    """To the login, and from there back to this page."""
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"/login?{urlencode({'return_to': here})}", 303, {"cache-control": "no-store"})


def lead_to(url: str) -> Response:
    """After a form did what it is for: a page that may be loaded again."""
    return RedirectResponse(url, 303, {"cache-control": "no-store"})


def with_query(path: str, **parameters: object) -> str:
    """An address with those parameters that have a value."""
    given = {name: str(value) for name, value in parameters.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def read_id(text: str) -> UUID:
    """An id in an address of ours, in either form; raises NoSuchAddressError."""
    try:
        return parse_id(text)
    except ValueError:
        raise NoSuchAddressError("There is nothing at this address.") from None


def find_id(fields: Mapping[str, str], name: str) -> UUID | None:
    """An id in a form or query, None when nothing is there; raises BadInputError."""
    text = fields.get(name, "").strip()
    if not text:
        return None
    try:
        return parse_id(text)
    except ValueError:
        raise BadInputError("This is not an id.", field=name) from None


def read_form_id(form: Form, name: str) -> UUID:
    """The id that a form of ours sent; raises BadInputError."""
    found = find_id(form, name)
    if found is None:
        raise BadInputError("The form names nothing.", field=name)
    return found


def find_day(fields: Mapping[str, str], name: str) -> date | None:
    """A day as `<input type="date">` sends it; raises BadInputError."""
    text = fields.get(name, "").strip()
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadInputError("A day is written as 2026-03-08.", field=name) from None


def beginning_of(day: date | None) -> datetime | None:
    """The first moment of a day (UTC)."""
    return None if day is None else datetime.combine(day, time(), UTC)


def end_of(day: date | None) -> datetime | None:
    """The first moment after a day (UTC); raises BadInputError for the last day that there is."""
    try:
        return beginning_of(None if day is None else day + timedelta(days=1))
    except OverflowError:
        raise BadInputError("This day is too far away.", field="until") from None


def choose(fields: Mapping[str, str], name: str, known: Iterable[str], default: str = "") -> str:
    """One of the words that a choice has; raises BadInputError for any other."""
    text = fields.get(name, "") or default
    if text not in known:
        raise BadInputError("Choose one of those that are offered.", field=name)
    return text


def find_size(fields: Mapping[str, str], name: str) -> int | None:
    """Bytes from a number and the unit beside it (`name_unit`), None when nothing is there; raises BadInputError."""
    text = fields.get(name, "").strip().replace(",", "")
    if not text:
        return None
    unit = choose(fields, f"{name}_unit", SIZE_UNITS, "GB")
    try:
        size = Decimal(text) * 1000 ** SIZE_UNITS.index(unit)
    except InvalidOperation:
        size = Decimal("NaN")
    if not size.is_finite() or not 0 <= size < 1 << 63:
        raise BadInputError("A size is a number, such as 2.5, and not beyond 9 EB.", field=name)
    return int(size)
