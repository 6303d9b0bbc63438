"""The pages that mails lead to, and the one for a forgotten password.

Opening such a page changes nothing: programs that look at mail open every link. Its button does.
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, FastAPI, Path, Request, Response
from fastapi.responses import RedirectResponse

from perdure.doors.http.auth import GUESSABLE, Caller, client_of
from perdure.doors.http.services import Given, Services
from perdure.doors.ui.login import (
    INVITATIONS,
    Form,
    Sent,
    enter,
    find_terms,
    list_ways,
    read_version,
    render_form,
)
from perdure.identity.errors import MailKeyEndedError, NoAddressError, NotLoggedInError, TermsNotAcceptedError
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.errors import PerdureError
from perdure.kernel.ids import short_form
from perdure.sharing.errors import InvitationEndedError
from perdure.sharing.model import Invitation, InvitationCard

router = APIRouter(include_in_schema=False)

Key = Annotated[str, Path(max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]


def open_mail_pages(app: FastAPI) -> None:
    """Serve the pages."""
    app.include_router(router)


@router.get("/password/forgotten")
def show_forgotten(request: Request, services: Given) -> Response:
    return render_form(request, services, "forgotten.html", {"error": None, "asked": False}, 200)


@router.post("/password/forgotten", dependencies=[GUESSABLE])
def ask_for_reset(request: Request, form: Sent, services: Given) -> Response:
    try:
        services.identity.ask_for_reset(form.get("name", ""))
    except PerdureError as error:
        return render_form(request, services, "forgotten.html", {"error": error, "asked": False}, error.status)
    return render_form(request, services, "forgotten.html", {"error": None, "asked": True}, 202)


@router.get("/mail/reset/{key}", dependencies=[GUESSABLE])
def show_reset(key: Key, request: Request, services: Given) -> Response:
    try:
        services.identity.require_reset_key(key)
    except PerdureError as error:
        return _refuse(request, services, error)
    return render_form(request, services, "reset.html", {"error": None}, 200)


@router.post("/mail/reset/{key}", dependencies=[GUESSABLE])
def reset_password(key: Key, request: Request, form: Sent, services: Given) -> Response:
    try:
        services.identity.reset_password(key, form.get("password", ""), revoke_tokens="revoke_tokens" in form)
    except MailKeyEndedError as error:
        return _refuse(request, services, error)
    except PerdureError as error:
        return render_form(request, services, "reset.html", {"error": error}, error.status)
    said = "Your password is set, and all sessions are ended."
    content = {"title": "A new password", "said": said, "url": "/login", "to": "Log in"}
    return render_form(request, services, "done.html", content, 200)


@router.get("/address")
def show_own_address(request: Request, caller: Caller, services: Given) -> Response:
    if caller.identity_id is None:
        return RedirectResponse("/login?return_to=/address", 303, {"cache-control": "no-store"})
    return _show_own_address(request, services, caller)


@router.post("/address", dependencies=[GUESSABLE])
def change_address(request: Request, form: Sent, caller: Caller, services: Given) -> Response:
    email = form.get("email", "")
    try:
        services.identity.change_address(caller, email)
    except NotLoggedInError as error:
        return _refuse(request, services, error)
    except PerdureError as error:
        return _show_own_address(request, services, caller, email=email, error=error)
    return _show_own_address(request, services, caller, asked=email)


@router.get("/mail/address/{key}", dependencies=[GUESSABLE])
def show_address(key: Key, request: Request, services: Given) -> Response:
    try:
        address = services.identity.require_address_key(key)
    except PerdureError as error:
        return _refuse(request, services, error)
    return render_form(request, services, "confirm_address.html", {"error": None, "address": address}, 200)


@router.post("/mail/address/{key}", dependencies=[GUESSABLE])
def confirm_address(key: Key, request: Request, form: Sent, services: Given) -> Response:
    try:
        found = services.identity.confirm_address(key)
    except PerdureError as error:
        return _refuse(request, services, error)
    content = {"title": "Your address", "said": f"{found.address} is confirmed.", "url": "/", "to": "To the archives"}
    return render_form(request, services, "done.html", content, 200)


@router.get("/mail/invitation/{key}", dependencies=[GUESSABLE])
def show_invitation(key: Key, request: Request, caller: Caller, services: Given) -> Response:
    try:
        card = services.sharing.invitations.look(key)
    except PerdureError as error:
        return _refuse(request, services, error)
    return _show(request, services, caller, key, card, {}, None)


@router.post("/mail/invitation/{key}", dependencies=[GUESSABLE])
def accept_invitation(key: Key, request: Request, form: Sent, caller: Caller, services: Given) -> Response:
    try:
        accepted = services.sharing.invitations.accept(caller, key)
    except PerdureError as error:
        return _refuse(request, services, error)
    return RedirectResponse(_place_of(accepted), 303, {"cache-control": "no-store"})


@router.post("/mail/invitation/{key}/join", dependencies=[GUESSABLE])
def join_by_invitation(key: Key, request: Request, form: Sent, caller: Caller, services: Given) -> Response:
    invitations, client, accepted = services.sharing.invitations, client_of(request), read_version(form)
    name = form.get("display_name", "")
    card: InvitationCard | None = None
    try:
        card = invitations.look(key)
        if "ticket" in form:
            arrival = services.identity.open_arrival(form["ticket"])
            secret, _ = invitations.join_from_outside(
                key, arrival, client=client, display_name=name, accept_terms=accepted
            )
        else:
            login, password = form.get("login", ""), form.get("password", "")
            secret, _ = invitations.join_with_password(
                key, login=login, password=password, display_name=name, client=client, accept_terms=accepted
            )
    except InvitationEndedError as error:
        return _refuse(request, services, error)
    except PerdureError as error:
        if card is None or ("ticket" in form and not isinstance(error, TermsNotAcceptedError)):
            return _refuse(request, services, error)
        return _show(request, services, caller, key, card, form, error)
    return enter(request, services, secret, _place_of(card.invitation))


def _show_own_address(
    request: Request,
    services: Services,
    caller: Actor,
    *,
    email: str | None = None,
    asked: str | None = None,
    error: PerdureError | None = None,
) -> Response:
    try:
        present = services.identity.get_address(caller)
    except NoAddressError:
        present = None
    shown = email if email is not None else present.address if present else ""
    content = {"error": error, "asked": asked, "present": present, "email": shown}
    return render_form(request, services, "address.html", content, error.status if error else 200)


def _show(
    request: Request,
    services: Services,
    caller: Actor,
    key: str,
    card: InvitationCard,
    form: Form,
    error: PerdureError | None,
) -> Response:
    here = f"{INVITATIONS}{key}"
    back = urlencode({"return_to": here})
    content: dict[str, Any] = {  # Any: what the template is given
        "error": error,
        "card": card,
        "here": here,
        "me": caller.name if caller.kind is ActorKind.PERSON else None,
        "login_url": f"/login?{back}",
        "providers": [{"label": label, "url": f"/login/{name}?{back}"} for name, label in list_ways(services)],
        "terms": find_terms(services),
        "form": {"login": form.get("login", ""), "display_name": form.get("display_name", "")},
    }
    return render_form(request, services, "invitation.html", content, error.status if error else 200)


def _place_of(one: Invitation) -> str:
    return f"/archives/{short_form(one.on_id)}" if one.on_kind == "archive" and one.on_id else "/"


def _refuse(request: Request, services: Services, error: PerdureError) -> Response:
    return render_form(request, services, "problem.html", {"error": error}, error.status)
