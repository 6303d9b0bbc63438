"""Logging in, oneself, and API tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from perdure.doors.api.fields import Id
from perdure.doors.api.forms import CodeForm, LoginForm, PasswordForm, ProofForm, TokenForm
from perdure.doors.api.people import IdentityView, identity_view
from perdure.doors.api.views import Page
from perdure.doors.http.auth import GUESSABLE, KnownCaller, client_of, find_secret, identity_of
from perdure.doors.http.openapi import ANYONE, Answers, problems
from perdure.doors.http.repeats import ONCE, CreatingRoute
from perdure.doors.http.services import Given, Services
from perdure.identity import Arrival, Token
from perdure.identity.callers import FRESH_FOR
from perdure.identity.errors import ApplicationPendingError, TermsNotAcceptedError, UnknownPersonError
from perdure.kernel.actor import Actor
from perdure.kernel.errors import PerdureError

router = APIRouter(tags=["session"], route_class=CreatingRoute)


class SessionView(BaseModel):
    """A session that was just opened; `secret` is shown this once."""

    secret: str
    expires_at: datetime
    identity: IdentityView


class OpenSessionView(BaseModel):
    """A session that is open: from where and by what proofs, and when it was last used (to the minute).

    `proven_at` is when its owner last showed who he is, null where nobody can tell. `provider` is where it began, if
    it ends when that says so.
    """

    id: UUID
    address: str
    agent: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    proofs: list[str]
    proven_at: datetime | None
    provider: str | None


class LoggedOutView(BaseModel):
    """The session here has ended; at the provider where it began there may be one still. A browser ends it at `url`."""

    provider: str
    url: str


class ProofView(BaseModel):
    """Until when this session may change who acts as you."""

    until: datetime


class DeviceKeyView(BaseModel):
    """`address` is what the device reads from a picture; both are shown this once."""

    key: str
    address: str


class RecoveryCodesView(BaseModel):
    """Each is good once in place of a code of the device."""

    codes: list[str]


class TokenView(BaseModel):
    """A token without its secret; `prefix` is what its owner recognises it by, null `archives` means all.

    `last_used_from` is the address of its last use (to the minute), `replaces` the token that it takes over from.
    """

    id: UUID
    name: str
    prefix: str
    verbs: list[str] | None
    archives: list[UUID] | None
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None
    last_used_from: str
    replaces: UUID | None


class NewTokenView(TokenView):
    """`secret` is shown this once."""

    secret: str


class MeView(BaseModel):
    """Who asks, and what his credential is narrowed to (null: nothing)."""

    identity: IdentityView
    groups: list[UUID]
    verbs: list[str] | None
    archives: list[UUID] | None
    personal_account_id: UUID | None


_LOGGED_OUT: Answers = {200: {"model": LoggedOutView, "description": "Likewise, and a provider may know him still"}}


@router.post(
    "/login",
    operation_id="log_in",
    summary="Open a session by a name and a password, of a local account or of a directory",
    responses=problems(403, 429),
    openapi_extra=ANYONE,
    dependencies=[GUESSABLE],
)
def log_in(form: LoginForm, request: Request, response: Response, services: Given) -> SessionView:
    response.headers["cache-control"] = "no-store"
    if form.provider is not None:
        arrival = services.identity.check_password_at(form.provider, form.login, form.password, client_of(request))
        return enter(arrival, request, services, form.accept_terms, form.code)
    secret, actor = services.identity.log_in(
        form.login, form.password, client_of(request), code=form.code, accept_terms=form.accept_terms
    )
    return session_view(secret, actor, services)


def enter(
    arrival: Arrival, request: Request, services: Services, accept_terms: int | None, code: str | None = None
) -> SessionView:
    """Open a session; who is not known, or has to accept the terms, is given a ticket to go on with."""
    try:
        secret, actor = services.identity.arrive(arrival, client_of(request), accept_terms=accept_terms, code=code)
    except (UnknownPersonError, ApplicationPendingError, TermsNotAcceptedError) as error:
        raise with_ticket(error, arrival, services) from None
    return session_view(secret, actor, services)


def with_ticket(error: PerdureError, arrival: Arrival, services: Services) -> PerdureError:
    """The error with what is needed to go on."""
    return type(error)(error.detail, **{**error.extra, "ticket": services.identity.seal_arrival(arrival)})


def session_view(secret: str, actor: Actor, services: Services) -> SessionView:
    """The session that was opened last."""
    newest = services.identity.list_sessions(actor)[0]
    card = services.identity.get_identity(actor, identity_of(actor))
    return SessionView(secret=secret, expires_at=newest.expires_at, identity=identity_view(card))


@router.post(
    "/logout",
    operation_id="log_out",
    summary="End the session, or revoke the token, of this request",
    status_code=204,
    responses=_LOGGED_OUT | problems(),
)
def log_out(request: Request, caller: KnownCaller, services: Given) -> Response:
    return _tell_logout(services, services.identity.log_out(find_secret(request) or ""))


def _tell_logout(services: Services, provider: str | None) -> Response:
    """Nothing more, or where a browser goes on to log out."""
    url = None if provider is None else services.identity.find_logout(provider)
    if provider is None or url is None:
        return Response(status_code=204)
    view = LoggedOutView(provider=provider, url=url)
    return JSONResponse(view.model_dump(), headers={"cache-control": "no-store"})


@router.get("/me", operation_id="get_me", summary="Who this request acts as", responses=problems())
def get_me(caller: KnownCaller, services: Given) -> MeView:
    scope = caller.scope
    return MeView(
        identity=identity_view(services.identity.get_identity(caller, identity_of(caller))),
        groups=services.identity.list_own_groups(caller),
        verbs=None if scope.verbs is None else sorted(scope.verbs),
        archives=None if scope.archives is None else sorted(scope.archives),
        personal_account_id=next(
            (
                a.id
                for a in services.identity.list_accounts(caller)
                if a.kind == "personal" and a.owner_id == caller.identity_id
            ),
            None,
        ),
    )


@router.post(
    "/me/proof",
    operation_id="prove",
    dependencies=[GUESSABLE],
    summary="Show once more that it is you: by the password, or a code of your device",
    responses=problems(403, 429),
)
def prove(form: ProofForm, request: Request, caller: KnownCaller, services: Given) -> ProofView:
    secret = find_secret(request) or ""
    if form.provider is None or form.login is None:
        at = services.identity.prove(caller, secret, password=form.password, code=form.code)
        return ProofView(until=at + FRESH_FOR)
    arrival = services.identity.check_password_at(form.provider, form.login, form.password or "", client_of(request))
    return ProofView(until=services.identity.prove_by(caller, secret, arrival) + FRESH_FOR)


@router.put(
    "/me/password",
    operation_id="set_password",
    summary="Replace one's password; ends all other sessions",
    status_code=204,
    responses=problems(403, 429),
)
def set_password(form: PasswordForm, request: Request, caller: KnownCaller, services: Given) -> None:
    services.identity.set_password(
        caller,
        identity_of(caller),
        form.new_password,
        current=form.old_password,
        kept_session=find_secret(request),
        revoke_tokens=form.revoke_tokens,
    )


@router.post(
    "/me/second-factor",
    operation_id="begin_second_factor",
    summary="A fresh key for one's device; it is in force once it is confirmed with a code",
    responses=problems(403, 409),
)
def begin_second_factor(response: Response, caller: KnownCaller, services: Given) -> DeviceKeyView:
    key, address = services.identity.begin_second_factor(caller, issuer=services.place().name)
    response.headers["cache-control"] = "no-store"
    return DeviceKeyView(key=key, address=address)


@router.put(
    "/me/second-factor",
    operation_id="confirm_second_factor",
    summary="Put the key in force with a first code; answers recovery codes, shown this once",
    responses=problems(403),
)
def confirm_second_factor(
    form: CodeForm, response: Response, caller: KnownCaller, services: Given
) -> RecoveryCodesView:
    response.headers["cache-control"] = "no-store"
    return RecoveryCodesView(codes=services.identity.confirm_second_factor(caller, form.code))


@router.post(
    "/me/second-factor/recovery-codes",
    operation_id="renew_recovery_codes",
    summary="Replace one's recovery codes",
    responses=problems(403, 429),
)
def renew_recovery_codes(form: CodeForm, response: Response, caller: KnownCaller, services: Given) -> RecoveryCodesView:
    response.headers["cache-control"] = "no-store"
    return RecoveryCodesView(codes=services.identity.renew_recovery_codes(caller, form.code))


@router.post(
    "/me/second-factor/remove",
    operation_id="remove_second_factor",
    summary="Take one's second factor away, with a code",
    status_code=204,
    responses=problems(403, 429),
)
def remove_second_factor(form: CodeForm, caller: KnownCaller, services: Given) -> None:
    services.identity.remove_second_factor(caller, identity_of(caller), code=form.code)


@router.get(
    "/sessions", operation_id="list_sessions", summary="One's own open sessions, newest first", responses=problems(403)
)
def list_sessions(caller: KnownCaller, services: Given) -> Page[OpenSessionView]:
    return Page(
        items=[
            OpenSessionView(
                id=session.id,
                address=session.client.address,
                agent=session.client.agent,
                created_at=session.created_at,
                last_used_at=session.last_used_at,
                expires_at=session.expires_at,
                proofs=sorted(session.proofs),
                proven_at=session.proven_at,
                provider=session.provider,
            )
            for session in services.identity.list_sessions(caller)
        ]
    )


@router.delete(
    "/sessions/{session_id}",
    operation_id="end_session",
    summary="End one of one's own sessions",
    status_code=204,
    responses=_LOGGED_OUT | problems(403),
)
def end_session(session_id: Annotated[Id, Path()], request: Request, caller: KnownCaller, services: Given) -> Response:
    return _tell_logout(services, services.identity.revoke_session(caller, session_id, present=find_secret(request)))


@router.get("/tokens", operation_id="list_tokens", summary="One's own tokens, newest first", responses=problems(403))
def list_tokens(caller: KnownCaller, services: Given) -> Page[TokenView]:
    return Page(items=[TokenView(**token_fields(token)) for token in services.identity.list_tokens(caller)])


@router.post(
    "/tokens",
    operation_id="create_token",
    summary="Make a token; its secret is shown once",
    status_code=201,
    dependencies=ONCE,
    responses=problems(403, 409),
)
def create_token(
    form: TokenForm, request: Request, response: Response, caller: KnownCaller, services: Given
) -> NewTokenView:
    secret, token = services.identity.create_token(
        caller,
        form.name,
        verbs=form.verbs or ["read", "write"],
        archives=form.archives,
        expires_at=form.expires_at,
        in_place_of=find_secret(request) if form.in_place_of_session else None,
    )
    response.headers["location"] = f"/api/v1/tokens/{token.id}"
    response.headers["cache-control"] = "no-store"
    return NewTokenView(secret=secret, **token_fields(token))


@router.delete(
    "/tokens/{token_id}",
    operation_id="revoke_token",
    summary="End a token for ever",
    status_code=204,
    responses=problems(403),
)
def revoke_token(token_id: Annotated[Id, Path()], caller: KnownCaller, services: Given) -> None:
    services.identity.revoke_token(caller, token_id)


def token_fields(token: Token) -> dict[str, Any]:  # Any: fields of the view, each with its own type
    """What `TokenView` tells of a token."""
    scope = token.scope
    return {
        "id": token.id,
        "name": token.name,
        "prefix": token.prefix,
        "verbs": None if scope.verbs is None else sorted(scope.verbs),
        "archives": None if scope.archives is None else sorted(scope.archives),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
        "last_used_at": token.last_used_at,
        "last_used_from": token.last_used_from,
        "replaces": token.replaces,
    }
