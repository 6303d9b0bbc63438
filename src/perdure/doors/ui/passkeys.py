"""The page of one's passkeys, and logging in by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from perdure.doors.http.auth import GUESSABLE, Caller, client_of
from perdure.doors.http.cookies import find_session
from perdure.doors.http.services import Given, Services
from perdure.doors.ui.login import Form, Sent, begin_passkey, enter, read_version, render_form, show_choice
from perdure.doors.ui.routes import render
from perdure.identity.errors import (
    BadSealError,
    FreshLoginRequiredError,
    PasskeyRefusedError,
    PasskeysUnavailableError,
    TermsNotAcceptedError,
)
from perdure.identity.federation import check_return
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.errors import BadInputError, ConflictError, NotFoundError, PerdureError
from perdure.kernel.ids import parse_id

router = APIRouter(include_in_schema=False)

_DEVICES = (("iPhone", "Telephone"), ("iPad", "Tablet"), ("Android", "Telephone"))


def open_passkey_pages(app: FastAPI) -> None:
    """Serve the pages of passkeys. Before those for logging in, whose addresses name any way to do so."""
    app.include_router(router)


@router.post("/login/passkey", dependencies=[GUESSABLE])
def log_in_by_passkey(request: Request, form: Sent, caller: Caller, services: Given) -> Response:
    return_to = check_return(form.get("return_to", "/"))
    try:
        secret, _ = services.identity.log_in_by_passkey(
            form.get("ticket", ""),
            _read_answer(form),
            client_of(request),
            origin=services.place().api_url,
            accept_terms=read_version(form),
        )
    except (PasskeyRefusedError, BadSealError, TermsNotAcceptedError) as error:
        return show_choice(request, services, caller, {}, error, return_to=return_to)
    except PerdureError as error:
        return render(request, services, "problem.html", {"error": error}, error.status)
    return enter(request, services, secret, return_to)


@router.post("/passkeys/prove", dependencies=[GUESSABLE])
def prove(request: Request, form: Sent, caller: Caller, services: Given) -> Response:
    """Show once more that it is you, and go on with the passkeys or where one came from."""
    try:
        services.identity.prove_by_passkey(
            caller,
            find_session(request) or "",
            form.get("ticket", ""),
            _read_answer(form),
            origin=services.place().api_url,
        )
    except PerdureError as error:
        return render(request, services, "problem.html", {"error": error}, error.status)
    return RedirectResponse(check_return(form.get("return_to", "/")), 303, {"cache-control": "no-store"})


@router.get("/passkeys")
def show_passkeys(request: Request, caller: Caller, services: Given) -> Response:
    if caller.kind is not ActorKind.PERSON:
        return RedirectResponse("/login?return_to=/passkeys", 303, {"cache-control": "no-store"})
    return _show(request, services, caller, None)


@router.post("/passkeys")
def add_passkey(request: Request, form: Sent, caller: Caller, services: Given) -> Response:
    def add() -> None:
        services.identity.add_passkey(
            caller,
            form.get("ticket", ""),
            _read_answer(form),
            origin=services.place().api_url,
            name=form.get("name", ""),
        )

    return _change(request, services, caller, add)


@router.post("/passkeys/{passkey_id}/rename")
def rename_passkey(passkey_id: str, request: Request, form: Sent, caller: Caller, services: Given) -> Response:
    return _change(
        request,
        services,
        caller,
        lambda: services.identity.rename_passkey(caller, _id(passkey_id), form.get("name", "")),
    )


@router.post("/passkeys/{passkey_id}/remove")
def remove_passkey(passkey_id: str, request: Request, form: Sent, caller: Caller, services: Given) -> Response:
    def remove() -> None:
        names = {one.id: one.name for one in services.identity.list_passkeys(caller)}
        if names.get(_id(passkey_id), "") != form.get("name", "").strip():
            raise BadInputError("This is not the name of the passkey.", field="name")
        services.identity.remove_passkey(caller, _id(passkey_id))

    return _change(request, services, caller, remove)


def _change(request: Request, services: Services, caller: Actor, change: Callable[[], object]) -> Response:
    """Do it and show the passkeys; or say on the same page why not."""
    try:
        change()
    except (BadInputError, ConflictError, NotFoundError, PasskeyRefusedError, FreshLoginRequiredError) as error:
        return _show(request, services, caller, error)
    except PerdureError as error:
        return render(request, services, "problem.html", {"error": error}, error.status)
    return RedirectResponse("/passkeys", 303, {"cache-control": "no-store"})


def _show(request: Request, services: Services, caller: Actor, error: PerdureError | None) -> Response:
    try:
        content: dict[str, Any] = {  # Any: what the template is given
            "error": error,
            "passkeys": services.identity.list_passkeys(caller),
            "suggested": _suggest(request),
            **_begin(services, caller),
        }
    except PerdureError as problem:
        return render(request, services, "problem.html", {"error": problem}, problem.status)
    return render_form(request, services, "passkeys.html", content, error.status if error else 200)


def _begin(services: Services, caller: Actor) -> dict[str, Any]:  # Any: as above
    """What a new passkey is made by, or why none can be made now."""
    nothing = {"options": None, "ticket": "", "is_stale": False, "unavailable": "", "proof": None}
    place = services.place()
    try:
        options, ticket = services.identity.begin_passkey(caller, origin=place.api_url, site=place.name)
    except FreshLoginRequiredError:
        return {**nothing, "is_stale": True, "proof": begin_passkey(services)}
    except PasskeysUnavailableError as error:
        return {**nothing, "unavailable": f"{error.detail} {error.next_step}"}
    return {**nothing, "options": json.dumps(dict(options)), "ticket": ticket}


def _suggest(request: Request) -> str:
    agent = request.headers.get("user-agent", "")
    return next((name for mark, name in _DEVICES if mark in agent), "Computer")


def _read_answer(form: Form) -> dict[str, Any]:  # Any: JSON of a browser
    try:
        answer = json.loads(form.get("answer", ""))
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise PasskeyRefusedError("The browser sent no passkey.")
    return answer


def _id(text: str) -> UUID:
    try:
        return parse_id(text)
    except ValueError:
        raise NotFoundError("You have no such passkey.") from None
