"""Pages about oneself as a whole: all that is kept, two identities that become one, and erasure."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response

from perdure.doors.http.auth import GUESSABLE, Caller, KnownCaller, identity_of
from perdure.doors.http.cookies import (
    find_session,
    find_session_aside,
    forget_session,
    forget_session_aside,
    set_session_aside,
)
from perdure.doors.http.sending import attachment
from perdure.doors.http.services import Given, Services
from perdure.doors.ui.asking import Content, ask_to_log_in, choose, lead_to, refuse
from perdure.doors.ui.login import Form, Sent, enter, render_form
from perdure.doors.ui.routes import render
from perdure.identity.callers import require_fresh
from perdure.identity.errors import BadCredentialsError, ErasureRefusedError, TokenExpiredError
from perdure.identity.merging import MergePlan
from perdure.identity.model import fold_name
from perdure.kernel.actor import Actor
from perdure.kernel.errors import BadInputError, ConflictError, PerdureError
from perdure.kernel.ids import parse_id, short_form

router = APIRouter(include_in_schema=False)

_HERE = "/account"
_MERGE = f"{_HERE}/merge"
_ERASE = f"{_HERE}/erase"
_GONE = f"{_HERE}/gone"
_EXPORT_NAME = b"what-is-kept-of-me.json"


def open_pages_of_oneself(app: FastAPI) -> None:
    """Serve the pages."""
    app.include_router(router)


@router.get(f"{_HERE}/export")
def export(request: Request, caller: Caller, services: Given) -> Response:
    """All that is kept of the caller, as a file."""
    try:
        told = services.archives.persons.export_own(caller)
    except PerdureError as error:
        return refuse(request, services, error, caller=caller)
    headers = {"cache-control": "no-store", "content-disposition": attachment(_EXPORT_NAME)}
    return Response(json.dumps(told, ensure_ascii=False, indent=1), 200, headers, "application/json")


@router.get(_ERASE)
def show_erasure(request: Request, caller: Caller, services: Given) -> Response:
    if caller.identity_id is None:
        return ask_to_log_in(request)
    try:
        services.archives.persons.erase(caller, caller.identity_id, dry_run=True)
    except PerdureError as error:
        return _show_erasure(request, services, caller, error, 200)
    return _show_erasure(request, services, caller, None, 200)


@router.post(_ERASE, dependencies=[GUESSABLE])
def erase(request: Request, form: Sent, caller: KnownCaller, services: Given) -> Response:
    """Remove for ever what is personal of the caller, who types what he is called."""
    try:
        if fold_name(form.get("name", "")) != fold_name(_called(services, caller)):
            raise BadInputError("This is not what you are called here.", field="name")
        services.archives.persons.erase(caller, identity_of(caller))
    except PerdureError as error:
        return _show_erasure(request, services, caller, error, error.status)
    answer = lead_to(_GONE)
    forget_session(request, answer)
    return answer


@router.get(_GONE)
def show_gone(request: Request, services: Given) -> Response:
    said = "What was personal of you is removed. In history you are an identifier with a pseudonym."
    content = {"title": "You are erased", "said": said, "url": "/", "to": "To the archives"}
    return render(request, services, "done.html", content, 200)


@router.get(_MERGE)
def show_merge(request: Request, caller: Caller, services: Given) -> Response:
    kept = _find_kept(request, services)
    if kept is None and caller.identity_id is None:
        return ask_to_log_in(request)
    return _show_merge(request, services, caller, kept, None)


@router.post(_MERGE, dependencies=[GUESSABLE])
def merge(request: Request, form: Sent, caller: Caller, services: Given) -> Response:
    """Set this session aside to log in as the other, try another one, go back, or merge the two."""
    kept = _find_kept(request, services)
    try:
        act = choose(form, "act", ("begin", "again", "back", "merge"))
        if act == "begin":
            return _begin(request, services, caller)
        if kept is None:
            raise ConflictError("Nothing is begun, or it was too long ago: begin anew.")
        if act == "merge":
            return _merge(request, services, form, caller, kept)
    except PerdureError as error:
        if kept is None and caller.identity_id is None:
            return refuse(request, services, error, caller=caller)
        return _show_merge(request, services, caller, kept, error)
    current = find_session(request)
    if current and current != find_session_aside(request):
        services.identity.log_out(current)
    if act == "back":
        return _go_back(request, services)
    answer = lead_to(f"/login?return_to={_MERGE}")
    forget_session(request, answer)
    return answer


def _begin(request: Request, services: Services, caller: Actor) -> Response:
    """Only a session that showed just now who it is may be set aside: both have to in the end."""
    require_fresh(caller, services.clock.now())
    answer = lead_to(f"/login?return_to={_MERGE}")
    set_session_aside(request, answer, find_session(request) or "")
    return answer


def _merge(request: Request, services: Services, form: Form, caller: Actor, kept: Actor) -> Response:
    plan = services.archives.persons.plan_own_merge(kept, caller)
    if fold_name(form.get("name", "")) != fold_name(plan.gone_name):
        raise BadInputError("This is not the name of the identity that ends.", field="name")
    services.archives.persons.merge_own(kept, caller)
    return _go_back(request, services)


def _go_back(request: Request, services: Services) -> Response:
    """To one's page, in the session that was set aside."""
    answer = enter(request, services, find_session_aside(request) or "", _HERE)
    forget_session_aside(request, answer)
    return answer


def _find_kept(request: Request, services: Services) -> Actor | None:
    """Who set his session aside in this browser, if it still holds."""
    secret = find_session_aside(request)
    if secret is None:
        return None
    try:
        return services.identity.authenticate(secret)
    except (BadCredentialsError, TokenExpiredError):
        return None


def _show_merge(
    request: Request, services: Services, caller: Actor, kept: Actor | None, error: PerdureError | None
) -> Response:
    plan: MergePlan | None = None
    stage = "begin" if kept is None else "other" if caller.identity_id in (None, kept.identity_id) else "confirm"
    if kept is not None and stage == "confirm":
        try:
            plan = services.archives.persons.plan_own_merge(kept, caller)
        except PerdureError as problem:
            error = error or problem
    content: Content = {
        "error": error,
        "stage": stage,
        "plan": plan,
        "kept": kept.name if kept else caller.name,
        "is_twice": kept is not None and caller.identity_id == kept.identity_id,
        "me": caller.name,
    }
    return render_form(request, services, "merge.html", content, error.status if error else 200)


def _show_erasure(
    request: Request, services: Services, caller: Actor, error: PerdureError | None, status: int
) -> Response:
    is_refused = isinstance(error, ErasureRefusedError)
    content: Content = {
        "error": error,
        "me": caller.name,
        "called": _called(services, caller),
        "left": _left(error.extra) if isinstance(error, ErasureRefusedError) else [],
        "may": not is_refused and (error is None or error.code != "fresh_login_required"),
    }
    return render_form(request, services, "erase.html", content, status)


def _left(extra: dict[str, Any]) -> list[dict[str, str]]:  # Any: JSON-ready fields of the error
    """What somebody else would have to answer for first."""
    kinds = {"archives": "archive in your personal account", "accounts": "account", "services": "service account"}
    found = [(kind, one) for kind in kinds for one in extra.get(kind, ())]
    return [
        {
            "kind": kinds[kind],
            "name": str(one["name"]),
            "url": f"/archives/{short_form(parse_id(one['id']))}"
            if kind == "archives"
            else f"/services/{one['id']}"
            if kind == "services"
            else "",
        }
        for kind, one in found
    ]


def _called(services: Services, caller: Actor) -> str:
    """The login name, or, of who has none, the name that others see."""
    logins = services.identity.list_credentials(caller)
    return next((one.subject for one in logins if one.kind.value == "password"), caller.name)
