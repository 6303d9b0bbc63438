"""Logging in from outside: providers, devices, tokens of machines, applications, terms of use, linked logins."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel

from perdure.doors.api.fields import CursorText, Id, PageSize
from perdure.doors.api.forms import (
    ApplicationForm,
    ApprovalForm,
    DeviceForm,
    HopForm,
    LocalApplicationForm,
    RefusalForm,
    TermsForm,
    TicketForm,
    TokenLoginForm,
)
from perdure.doors.api.people import IdentityView, identity_view
from perdure.doors.api.session import SessionView, enter
from perdure.doors.api.views import Page
from perdure.doors.http.auth import GUESSABLE, KnownCaller
from perdure.doors.http.cursors import AN_ID, decode_cursor, encode_cursor
from perdure.doors.http.hops import HeaderLogin
from perdure.doors.http.openapi import ANYONE, problems
from perdure.doors.http.repeats import ONCE, CreatingRoute
from perdure.doors.http.services import Given, Services
from perdure.identity import Application, ApplicationState, Credential, CredentialKind
from perdure.identity.errors import LogoutRefusedError, NoSuchProviderError

router = APIRouter(tags=["logging in"], route_class=CreatingRoute)

ApplicationId = Annotated[Id, Path()]
CredentialId = Annotated[Id, Path()]
_LARGEST_LOGOUT = 64 * 1024
_MOST_LOGOUT_FIELDS = 20
_LOGOUT_FORM: dict[str, Any] = {  # Any: OpenAPI's own free form
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["logout_token"],
                    "properties": {"logout_token": {"type": "string", "description": "A JWT of the provider."}},
                }
            }
        },
    }
}


class ProviderView(BaseModel):
    """A way to log in beside a local password; in a browser at `/login/{name}`.

    One of the kind `ldap` takes a name and a password: `POST /login` with it as the `provider`.
    """

    name: str
    label: str
    kind: str


class DeviceView(BaseModel):
    """Show the code and the address; ask with the ticket every `interval` seconds."""

    user_code: str
    verification_uri: str
    complete_uri: str
    interval: int
    expires_in: int
    ticket: str


class PendingView(BaseModel):
    """Nobody has confirmed the login yet."""

    state: Literal["pending"] = "pending"


class TermsView(BaseModel):
    version: int
    text: str
    published_at: datetime


class ApplicationView(BaseModel):
    """Somebody who asks to be let in; what he said of himself is forgotten when he is refused."""

    id: UUID
    kind: str
    subject: str
    display_name: str
    email: str | None
    orcid: str | None
    organisation_id: UUID | None
    reason: str
    state: str
    applied_at: datetime
    decided_at: datetime | None
    note: str | None
    identity_id: UUID | None


class AppliedView(BaseModel):
    """What became of one's own application so far."""

    id: UUID
    state: str
    applied_at: datetime


class CredentialView(BaseModel):
    """One way in which one logs in."""

    id: UUID
    kind: str
    subject: str
    created_at: datetime
    last_used_at: datetime | None


@router.get(
    "/login/providers",
    operation_id="list_providers",
    summary="The ways to log in beside a local password",
    responses=problems(),
    openapi_extra=ANYONE,
)
def list_providers(services: Given) -> Page[ProviderView]:
    found = [(one.name, one.label, one.kind.value) for one in services.identity.list_providers()]
    found += [(one.name, one.label, one.kind.value) for one in services.identity.list_directories()]
    found += [(one.name, one.label, one.kind.value) for one in services.header_logins.values()]
    return Page(items=[ProviderView(name=name, label=label, kind=kind) for name, label, kind in found])


@router.post(
    "/login/device",
    operation_id="begin_device_login",
    dependencies=[GUESSABLE],
    summary="Begin a login that is confirmed in a browser elsewhere",
    responses=problems(401),
    openapi_extra=ANYONE,
)
def begin_device_login(form: DeviceForm, response: Response, services: Given) -> DeviceView:
    begun, ticket = services.identity.begin_device(form.provider)
    response.headers["cache-control"] = "no-store"
    return DeviceView(
        user_code=begun.user_code,
        verification_uri=begun.verification_uri,
        complete_uri=begun.complete_uri,
        interval=begun.interval,
        expires_in=begun.expires_in,
        ticket=ticket,
    )


@router.post(
    "/login/device/poll",
    operation_id="poll_device_login",
    dependencies=[GUESSABLE],
    summary="Ask whether the login was confirmed; answers a session, or 202 while it was not",
    responses={202: {"model": PendingView}, **problems(401, 403)},
    openapi_extra=ANYONE,
)
def poll_device_login(
    form: TicketForm, request: Request, response: Response, services: Given
) -> SessionView | PendingView:
    arrival = services.identity.poll_device(form.ticket)
    response.headers["cache-control"] = "no-store"
    if arrival is None:
        response.status_code = 202
        return PendingView()
    return enter(arrival, request, services, form.accept_terms)


@router.post(
    "/login/token",
    operation_id="log_in_with_token",
    dependencies=[GUESSABLE],
    summary="Exchange a provider's token, which a machine has, for a session",
    responses=problems(401, 403),
    openapi_extra=ANYONE,
)
def log_in_with_token(form: TokenLoginForm, request: Request, response: Response, services: Given) -> SessionView:
    arrival = services.identity.accept_token(form.provider, form.subject_token)
    response.headers["cache-control"] = "no-store"
    return enter(arrival, request, services, form.accept_terms)


@router.post(
    "/login/ticket",
    operation_id="log_in_with_ticket",
    dependencies=[GUESSABLE],
    summary="Go on with a login that had to be interrupted, as to accept the terms of use",
    responses=problems(401, 403, 409),
    openapi_extra=ANYONE,
)
def log_in_with_ticket(form: TicketForm, request: Request, response: Response, services: Given) -> SessionView:
    arrival = services.identity.open_arrival(form.ticket)
    response.headers["cache-control"] = "no-store"
    return enter(arrival, request, services, form.accept_terms)


@router.post(
    "/login/hop",
    operation_id="log_in_by_hop",
    dependencies=[GUESSABLE],
    summary="Log in by a certificate, which our own TLS or a trusted server in front of us has verified",
    responses=problems(401, 403),
    openapi_extra=ANYONE,
)
def log_in_by_hop(form: HopForm, request: Request, response: Response, services: Given) -> SessionView:
    way = find_header_login(services, form.provider)
    if way.kind is not CredentialKind.X509:
        raise NoSuchProviderError("This way to log in is one for browsers, at /login/ and its name.")
    arrival = way.read(request, services.clock)
    response.headers["cache-control"] = "no-store"
    return enter(arrival, request, services, form.accept_terms)


async def _read_logout_token(request: Request) -> str:
    """The token in the form that a provider sends; empty where there is none, or more than one."""
    body = await request.body()
    if len(body) > _LARGEST_LOGOUT:
        return ""
    try:
        found = parse_qs(body.decode("ascii"), max_num_fields=_MOST_LOGOUT_FIELDS).get("logout_token", [])
    except ValueError:
        return ""
    return found[0] if len(found) == 1 else ""


@router.post(
    "/login/providers/{provider}/logout",
    operation_id="end_at_provider",
    summary="A provider tells that somebody logged out there (OpenID Connect Back-Channel Logout 1.0)",
    responses=problems(),
    openapi_extra=ANYONE | _LOGOUT_FORM,
)
def end_at_provider(
    provider: Annotated[str, Path(max_length=40)],
    request: Request,
    token: Annotated[str, Depends(_read_logout_token)],
    services: Given,
) -> Response:
    # Only what is refused counts: of a provider that logs out hundreds at once nothing may be lost
    services.limits.require_attempts_left(request.scope)
    try:
        services.identity.end_at_provider(provider, token)
    except LogoutRefusedError as error:
        services.limits.count_attempt(request.scope)
        told = {"error": "invalid_request", "error_description": error.detail}  # as section 2.8 has it
        raise LogoutRefusedError(error.detail, **told) from None
    return Response(status_code=200, headers={"cache-control": "no-store"})


@router.get(
    "/terms",
    operation_id="get_terms",
    summary="The terms of use that are in force",
    responses=problems(),
    openapi_extra=ANYONE,
)
def get_terms(services: Given) -> TermsView:
    return TermsView.model_validate(services.identity.get_terms(), from_attributes=True)


@router.get(
    "/terms/{version}",
    operation_id="get_terms_version",
    summary="One version of the terms of use",
    responses=problems(),
    openapi_extra=ANYONE,
)
def get_terms_version(version: Annotated[int, Path(ge=1, le=1 << 30)], services: Given) -> TermsView:
    return TermsView.model_validate(services.identity.get_terms(version), from_attributes=True)


@router.post(
    "/terms",
    operation_id="publish_terms",
    summary="Put new terms of use in force (administrators)",
    status_code=201,
    dependencies=ONCE,
    responses=problems(403),
)
def publish_terms(form: TermsForm, caller: KnownCaller, services: Given) -> TermsView:
    return TermsView.model_validate(services.identity.publish_terms(caller, form.text), from_attributes=True)


@router.post(
    "/applications",
    operation_id="apply",
    dependencies=[GUESSABLE],
    summary="Ask to be let in, with the ticket of a login that is not known here yet",
    status_code=202,
    responses=problems(403, 409),
    openapi_extra=ANYONE,
)
def apply(form: ApplicationForm, services: Given) -> AppliedView:
    made = services.identity.apply(
        services.identity.open_arrival(form.ticket),
        reason=form.reason,
        display_name=form.display_name,
        organisation_id=form.organisation_id,
        accept_terms=form.accept_terms,
    )
    return AppliedView(id=made.id, state=made.state.value, applied_at=made.applied_at)


@router.post(
    "/applications/local",
    operation_id="apply_with_password",
    dependencies=[GUESSABLE],
    summary="Ask for a local account",
    status_code=202,
    responses=problems(403, 409),
    openapi_extra=ANYONE,
)
def apply_with_password(form: LocalApplicationForm, services: Given) -> AppliedView:
    made = services.identity.apply_with_password(
        login=form.login,
        password=form.password,
        display_name=form.display_name,
        email=form.email,
        reason=form.reason,
        organisation_id=form.organisation_id,
        accept_terms=form.accept_terms,
    )
    return AppliedView(id=made.id, state=made.state.value, applied_at=made.applied_at)


@router.get(
    "/applications",
    operation_id="list_applications",
    summary="Who asks to be let in (managers of the organisation; administrators: all)",
    responses=problems(403),
)
def list_applications(
    caller: KnownCaller,
    services: Given,
    state: Annotated[Literal["pending", "approved", "refused"] | None, Query()] = None,
    cursor: CursorText = None,
    limit: PageSize = 100,
) -> Page[ApplicationView]:
    after = decode_cursor("applications", cursor, AN_ID)
    wanted = None if state is None else ApplicationState(state)
    found = services.identity.list_applications(caller, state=wanted, after=UUID(after) if after else None, limit=limit)
    following = encode_cursor("applications", str(found[-1].id) if len(found) == limit else None)
    return Page(items=[_application_view(one) for one in found], next_cursor=following)


@router.post(
    "/applications/{application_id}/approve",
    operation_id="approve_application",
    summary="Let somebody in: an identity with a personal account",
    responses=problems(403, 409),
)
def approve_application(
    application_id: ApplicationId, form: ApprovalForm, caller: KnownCaller, services: Given
) -> IdentityView:
    card = services.identity.approve_application(
        caller, application_id, organisation_id=form.organisation_id, quota_bytes=form.quota_bytes
    )
    return identity_view(card)


@router.post(
    "/applications/{application_id}/refuse",
    operation_id="refuse_application",
    summary="Say no, with a note that the applicant is told",
    status_code=204,
    responses=problems(403, 409),
)
def refuse_application(application_id: ApplicationId, form: RefusalForm, caller: KnownCaller, services: Given) -> None:
    services.identity.refuse_application(caller, application_id, note=form.note)


@router.get(
    "/me/logins",
    operation_id="list_logins",
    summary="The ways in which one logs in",
    responses=problems(403),
)
def list_logins(caller: KnownCaller, services: Given) -> Page[CredentialView]:
    return Page(items=[_credential_view(one) for one in services.identity.list_credentials(caller)])


@router.post(
    "/me/logins",
    operation_id="link_login",
    summary="Link the login of a ticket to the identity of this session",
    status_code=201,
    dependencies=ONCE,
    responses=problems(403, 409),
)
def link_login(form: TicketForm, caller: KnownCaller, services: Given) -> CredentialView:
    arrival = services.identity.open_arrival(form.ticket)
    return _credential_view(services.identity.link(caller, arrival))


@router.delete(
    "/me/logins/{credential_id}",
    operation_id="unlink_login",
    summary="Unlink a login; one has to stay",
    status_code=204,
    responses=problems(403, 409),
)
def unlink_login(credential_id: CredentialId, caller: KnownCaller, services: Given) -> None:
    services.identity.unlink(caller, credential_id)


def find_header_login(services: Services, name: str) -> HeaderLogin:
    """The way of this name that a server in front of us, or TLS, sees to; raises NoSuchProviderError."""
    found = services.header_logins.get(name)
    if found is None:
        raise NoSuchProviderError("There is no such way to log in here.")
    return found


def _application_view(one: Application) -> ApplicationView:
    return ApplicationView(
        id=one.id,
        kind=one.kind.value,
        subject=one.subject,
        display_name=one.display_name,
        email=one.email,
        orcid=one.orcid,
        organisation_id=one.organisation_id,
        reason=one.reason,
        state=one.state.value,
        applied_at=one.applied_at,
        decided_at=one.decided_at,
        note=one.note,
        identity_id=one.identity_id,
    )


def _credential_view(one: Credential) -> CredentialView:
    return CredentialView(
        id=one.id,
        kind=one.kind.value,
        subject=one.subject,
        created_at=one.created_at,
        last_used_at=one.last_used_at,
    )
