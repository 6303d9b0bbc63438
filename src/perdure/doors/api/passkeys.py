"""Passkeys: logging in by one, and those that one has."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel

from perdure.doors.api.fields import Id
from perdure.doors.api.forms import NewPasskeyForm, PasskeyLoginForm, PasskeyPatch, PasskeyProofForm
from perdure.doors.api.session import ProofView, SessionView, session_view
from perdure.doors.api.views import Page
from perdure.doors.http.auth import GUESSABLE, KnownCaller, client_of, find_secret
from perdure.doors.http.openapi import ANYONE, problems
from perdure.doors.http.repeats import ONCE, CreatingRoute
from perdure.doors.http.services import Given
from perdure.identity import Passkey
from perdure.identity.callers import FRESH_FOR

router = APIRouter(tags=["session"], route_class=CreatingRoute)

PasskeyId = Annotated[Id, Path()]


class PasskeyView(BaseModel):
    """A passkey; a synced one is on others of one's devices, too."""

    id: UUID
    name: str
    is_synced: bool
    created_at: datetime
    last_used_at: datetime | None


class ChallengeView(BaseModel):
    """`options` are what `navigator.credentials` takes as `publicKey`, bytes as base64url; bring the ticket back."""

    options: dict[str, Any]  # Any: JSON, as Web Authentication has it
    ticket: str


@router.post(
    "/login/passkey",
    operation_id="begin_passkey_login",
    dependencies=[GUESSABLE],
    summary="Begin a login by a passkey",
    responses=problems(409),
    openapi_extra=ANYONE,
)
def begin_passkey_login(response: Response, services: Given) -> ChallengeView:
    options, ticket = services.identity.begin_passkey_login(origin=services.place().api_url)
    response.headers["cache-control"] = "no-store"
    return ChallengeView(options=dict(options), ticket=ticket)


@router.post(
    "/login/passkey/finish",
    operation_id="log_in_by_passkey",
    dependencies=[GUESSABLE],
    summary="Open a session with what the passkey has signed",
    responses=problems(401, 403, 409),
    openapi_extra=ANYONE,
)
def log_in_by_passkey(form: PasskeyLoginForm, request: Request, response: Response, services: Given) -> SessionView:
    secret, actor = services.identity.log_in_by_passkey(
        form.ticket,
        form.answer,
        client_of(request),
        origin=services.place().api_url,
        accept_terms=form.accept_terms,
    )
    response.headers["cache-control"] = "no-store"
    return session_view(secret, actor, services)


@router.post(
    "/me/proof/passkey",
    operation_id="prove_by_passkey",
    dependencies=[GUESSABLE],
    summary="Show once more that it is you: by a passkey, with the challenge for a login",
    responses=problems(401, 403, 409),
)
def prove_by_passkey(form: PasskeyProofForm, request: Request, caller: KnownCaller, services: Given) -> ProofView:
    at = services.identity.prove_by_passkey(
        caller, find_secret(request) or "", form.ticket, form.answer, origin=services.place().api_url
    )
    return ProofView(until=at + FRESH_FOR)


@router.get(
    "/me/passkeys", operation_id="list_passkeys", summary="One's passkeys, oldest first", responses=problems(403)
)
def list_passkeys(caller: KnownCaller, services: Given) -> Page[PasskeyView]:
    return Page(items=[_view(one) for one in services.identity.list_passkeys(caller)])


@router.post(
    "/me/passkeys/challenge",
    operation_id="begin_passkey",
    summary="Begin a new passkey; needs a fresh proof",
    responses=problems(403, 409),
)
def begin_passkey(response: Response, caller: KnownCaller, services: Given) -> ChallengeView:
    place = services.place()
    options, ticket = services.identity.begin_passkey(caller, origin=place.api_url, site=place.name)
    response.headers["cache-control"] = "no-store"
    return ChallengeView(options=dict(options), ticket=ticket)


@router.post(
    "/me/passkeys",
    operation_id="add_passkey",
    summary="Take the passkey that the browser made; needs a fresh proof",
    status_code=201,
    dependencies=ONCE,
    responses=problems(401, 403, 409),
)
def add_passkey(form: NewPasskeyForm, caller: KnownCaller, services: Given) -> PasskeyView:
    made = services.identity.add_passkey(
        caller,
        form.ticket,
        form.answer,
        origin=services.place().api_url,
        name=form.name,
    )
    return _view(made)


@router.patch(
    "/me/passkeys/{passkey_id}",
    operation_id="rename_passkey",
    summary="Call a passkey otherwise",
    responses=problems(403, 409),
)
def rename_passkey(passkey_id: PasskeyId, form: PasskeyPatch, caller: KnownCaller, services: Given) -> PasskeyView:
    return _view(services.identity.rename_passkey(caller, passkey_id, form.name))


@router.delete(
    "/me/passkeys/{passkey_id}",
    operation_id="remove_passkey",
    summary="Take a passkey away; needs a fresh proof",
    status_code=204,
    responses=problems(403),
)
def remove_passkey(passkey_id: PasskeyId, caller: KnownCaller, services: Given) -> None:
    services.identity.remove_passkey(caller, passkey_id)


def _view(one: Passkey) -> PasskeyView:
    return PasskeyView.model_validate(one, from_attributes=True)
