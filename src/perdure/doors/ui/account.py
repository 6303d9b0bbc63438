"""The page of who is logged in: his ways in, and showing once more that it is him."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from perdure.doors.http.auth import GUESSABLE, Caller, KnownCaller
from perdure.doors.http.cookies import find_session
from perdure.doors.http.services import Given, Services
from perdure.doors.ui.login import Sent, begin_passkey, list_ways, render_form
from perdure.doors.ui.routes import render
from perdure.identity.callers import require_fresh
from perdure.identity.errors import BadCodeError, BadCredentialsError, FreshLoginRequiredError, LoginThrottledError
from perdure.kernel.actor import Actor
from perdure.kernel.errors import PerdureError
from perdure.kernel.ids import short_form

router = APIRouter(include_in_schema=False)
_HERE = "/account"


def open_account_page(app: FastAPI) -> None:
    """Serve the page of who is logged in."""
    app.include_router(router)


@router.get(_HERE)
def show_account(request: Request, caller: Caller, services: Given) -> Response:
    if caller.identity_id is None:
        return RedirectResponse(f"/login?{urlencode({'return_to': _HERE})}", 303, {"cache-control": "no-store"})
    return _show(request, services, caller, None)


@router.post(f"{_HERE}/prove", dependencies=[GUESSABLE])
def prove(request: Request, form: Sent, caller: KnownCaller, services: Given) -> Response:
    """Show once more that it is you, by the password or a code."""
    password, code = form.get("password") or None, form.get("code") or None
    try:
        services.identity.prove(
            caller, find_session(request) or "", password=None if code else password or "", code=code
        )
    except (BadCredentialsError, BadCodeError, LoginThrottledError) as error:
        return _show(request, services, caller, error)
    except PerdureError as error:
        return render(request, services, "problem.html", {"error": error}, error.status)
    return RedirectResponse(_HERE, 303, {"cache-control": "no-store"})


@router.post(f"{_HERE}/unlink")
def unlink(request: Request, form: Sent, caller: KnownCaller, services: Given) -> Response:
    try:
        mine = {str(one.id): one.id for one in services.identity.list_credentials(caller)}
        if form.get("login_id") in mine:
            services.identity.unlink(caller, mine[form["login_id"]])
    except PerdureError as error:
        return _show(request, services, caller, error)
    return RedirectResponse(_HERE, 303, {"cache-control": "no-store"})


@router.post(f"{_HERE}/transfer")
def answer_offer(request: Request, form: Sent, caller: KnownCaller, services: Given) -> Response:
    """Take over an archive that was offered, into one's personal account, or decline it."""
    transferring = services.archives.transferring
    try:
        waiting = {str(one.id): one.id for one in transferring.list_offers(caller)}
        found = waiting.get(form.get("transfer_id", ""))
        if found is not None and form.get("answer") == "accept":
            transferring.accept(caller, found)
        elif found is not None:
            transferring.decline(caller, found)
    except PerdureError as error:
        return _show(request, services, caller, error)
    return RedirectResponse(_HERE, 303, {"cache-control": "no-store"})


def _show(request: Request, services: Services, caller: Actor, error: PerdureError | None) -> Response:
    logins = services.identity.list_credentials(caller)
    kinds = {one.kind.value for one in logins}
    is_fresh = _is_fresh(caller, services)
    offers = services.archives.transferring.list_offers(caller)
    names = services.identity.find_names(caller, {person for one in offers for person in (one.from_id, one.to_id)})
    content: dict[str, Any] = {  # Any: what the template is given
        "offers": [
            {
                "id": one.id,
                "short_id": short_form(one.archive_id),
                "title": one.title,
                "size": one.size,
                "is_own": one.from_id == caller.identity_id,
                "other": names.get(one.to_id if one.from_id == caller.identity_id else one.from_id, ""),
                "keeps_account": one.keeps_account,
                "expires_at": one.expires_at,
            }
            for one in offers
        ],
        "error": error,
        "me": caller.name,
        "is_manager": services.identity.manages_any(caller),
        "logins": logins,
        "is_fresh": is_fresh,
        "has_password": "password" in kinds,
        "links": _ways(services, "link") if is_fresh else [],
        "proof": begin_passkey(services) if not is_fresh and services.identity.list_passkeys(caller) else None,
        "proofs": [] if is_fresh else _ways(services, "prove"),
    }
    return render_form(request, services, "account.html", content, error.status if error else 200)


def _is_fresh(caller: Actor, services: Services) -> bool:
    try:
        require_fresh(caller, services.clock.now())
    except FreshLoginRequiredError:
        return False
    return True


def _ways(services: Services, purpose: str) -> list[dict[str, str]]:
    asked = urlencode({purpose: "true", "return_to": _HERE})
    return [{"label": label, "url": f"/login/{name}?{asked}"} for name, label in list_ways(services)]
