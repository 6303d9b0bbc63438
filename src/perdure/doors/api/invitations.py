"""Invitations by mail: to a login here, and to roles."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from perdure.doors.api.fields import CursorText, Id, PageSize
from perdure.doors.api.forms import InvitationForm, JoinForm, KeyForm
from perdure.doors.api.session import SessionView, session_view
from perdure.doors.api.views import Page
from perdure.doors.http.auth import GUESSABLE, KnownCaller, client_of
from perdure.doors.http.cursors import AN_ID, decode_cursor, encode_cursor
from perdure.doors.http.openapi import ANYONE, problems
from perdure.doors.http.repeats import ONCE, CreatingRoute
from perdure.doors.http.services import Given, Services
from perdure.identity import Role
from perdure.identity.model import OnKind
from perdure.kernel.errors import BadInputError
from perdure.sharing.invitations import InvitationRequest
from perdure.sharing.model import Invitation, InvitationState

router = APIRouter(tags=["invitations"], route_class=CreatingRoute)

InvitationId = Annotated[Id, Path()]


class InvitationView(BaseModel):
    """Somebody who was invited; `state` is pending, accepted, revoked or ended."""

    id: UUID
    email: str
    state: str
    organisation_id: UUID
    on_kind: str | None
    on_id: UUID | None
    label: str = Field(description="What the role is on, as it was called then; else the organisation.")
    role: str | None
    role_until: datetime | None
    requires: list[str]
    note: str
    invited_by: UUID
    invited_at: datetime
    sent_at: datetime
    expires_at: datetime
    accepted_at: datetime | None
    accepted_by: UUID | None
    trouble: str | None = Field(description="Of the mail: `waiting`, or why it was given up; null: it was sent.")


class InvitationCardView(BaseModel):
    """What whoever has the key is shown; `may_join`: who has no login here may make one by it."""

    email: str
    organisation: str
    inviter: str
    on_kind: str | None
    label: str
    role: str | None
    role_until: datetime | None
    note: str
    expires_at: datetime
    may_join: bool


@router.post(
    "/invitations",
    operation_id="invite",
    summary="Invite an address to a login here (managers of the organisation), or to a role (who may give it)",
    status_code=201,
    dependencies=ONCE,
    responses=problems(403, 409, 410),
)
def invite(form: InvitationForm, response: Response, caller: KnownCaller, services: Given) -> InvitationView:
    on_kind, on_id = _thing_of(form)
    wanted = InvitationRequest(
        address=form.email,
        organisation_id=form.organisation_id,
        on_kind=on_kind,
        on_id=on_id,
        role=Role(form.role) if form.role else None,
        role_until=form.role_until,
        requires=tuple(form.requires),
        note=form.note,
    )
    made = services.sharing.invitations.invite(caller, wanted)
    response.headers["location"] = f"/api/v1/invitations/{made.id}"
    return _view(made, services)


@router.get(
    "/invitations",
    operation_id="list_invitations",
    summary="One's own and those of organisations that one manages, or those on one thing (who manages it)",
    responses=problems(403),
)
def list_invitations(
    caller: KnownCaller,
    services: Given,
    archive_id: Annotated[Id | None, Query()] = None,
    account_id: Annotated[Id | None, Query()] = None,
    organisation_id: Annotated[Id | None, Query()] = None,
    home_id: Annotated[Id | None, Query(description="The organisation whose they are, whatever they are to.")] = None,
    state: Literal["pending", "accepted", "revoked", "ended"] | None = None,
    cursor: CursorText = None,
    limit: PageSize = 100,
) -> Page[InvitationView]:
    after = decode_cursor("invitations", cursor, AN_ID)
    on_kind, on_id = _only(archive_id, account_id, organisation_id)
    found = services.sharing.invitations.list_invitations(
        caller,
        on_kind=on_kind,
        on_id=on_id,
        home_id=home_id,
        state=None if state is None else InvitationState(state),
        after=UUID(after) if after else None,
        limit=limit,
    )
    following = encode_cursor("invitations", str(found[-1].id) if len(found) == limit else None)
    return Page(items=[_view(one, services) for one in found], next_cursor=following)


@router.post(
    "/invitations/{invitation_id}/resend",
    operation_id="resend_invitation",
    summary="Send a new mail; the one before it ends",
    responses=problems(403, 409),
)
def resend_invitation(invitation_id: InvitationId, caller: KnownCaller, services: Given) -> InvitationView:
    return _view(services.sharing.invitations.resend(caller, invitation_id), services)


@router.delete(
    "/invitations/{invitation_id}",
    operation_id="revoke_invitation",
    summary="End an invitation that was not accepted",
    status_code=204,
    responses=problems(403, 409),
)
def revoke_invitation(invitation_id: InvitationId, caller: KnownCaller, services: Given) -> None:
    services.sharing.invitations.revoke(caller, invitation_id)


@router.post(
    "/invitations/look",
    operation_id="look_at_invitation",
    summary="What an invitation is about, for whoever has its key",
    dependencies=[GUESSABLE],
    responses=problems(),
    openapi_extra=ANYONE,
)
def look_at_invitation(form: KeyForm, response: Response, services: Given) -> InvitationCardView:
    response.headers["cache-control"] = "no-store"
    card = services.sharing.invitations.look(form.key)
    one = card.invitation
    return InvitationCardView(
        email=one.address,
        organisation=card.organisation,
        inviter=card.inviter,
        on_kind=one.on_kind,
        label=one.label,
        role=one.role.value if one.role else None,
        role_until=one.role_until,
        note=one.note,
        expires_at=one.expires_at,
        may_join=card.may_join,
    )


@router.post(
    "/invitations/accept",
    operation_id="accept_invitation",
    summary="Take the role as who one is here; safe to repeat",
    dependencies=[GUESSABLE],
    responses=problems(403, 409),
)
def accept_invitation(form: KeyForm, caller: KnownCaller, services: Given) -> InvitationView:
    return _view(services.sharing.invitations.accept(caller, form.key), services)


@router.post(
    "/invitations/join",
    operation_id="join_by_invitation",
    summary="Make a login here by the key of an invitation, take the role, and open a session",
    dependencies=[GUESSABLE],
    responses=problems(403, 409),
    openapi_extra=ANYONE,
)
def join_by_invitation(form: JoinForm, request: Request, response: Response, services: Given) -> SessionView:
    invitations, client = services.sharing.invitations, client_of(request)
    if form.ticket is not None:
        arrival = services.identity.open_arrival(form.ticket)
        secret, actor = invitations.join_from_outside(
            form.key, arrival, client=client, display_name=form.display_name, accept_terms=form.accept_terms
        )
    elif form.login is None or form.password is None or form.display_name is None:
        raise BadInputError("Give login, password and display_name, or a ticket.", field="login")
    else:
        secret, actor = invitations.join_with_password(
            form.key,
            login=form.login,
            password=form.password,
            display_name=form.display_name,
            client=client,
            accept_terms=form.accept_terms,
        )
    response.headers["cache-control"] = "no-store"
    return session_view(secret, actor, services)


def _thing_of(form: InvitationForm) -> tuple[OnKind | None, UUID | None]:
    """What the role is on; without a role the organisation is only where somebody is invited to."""
    if form.role is None and form.archive_id is None and form.account_id is None:
        return None, None
    if form.role is None:
        raise BadInputError("Say which role on it.", field="role")
    on_kind, on_id = _only(form.archive_id, form.account_id, form.organisation_id)
    if on_kind is None:
        raise BadInputError("Say what the role is on: an archive, an account or an organisation.", field="role")
    return on_kind, on_id


def _only(
    archive_id: UUID | None, account_id: UUID | None, organisation_id: UUID | None
) -> tuple[OnKind | None, UUID | None]:
    kinds: dict[OnKind, UUID | None] = {"archive": archive_id, "account": account_id, "organisation": organisation_id}
    named = [(kind, value) for kind, value in kinds.items() if value is not None]
    if len(named) > 1:
        raise BadInputError("Name one of archive_id, account_id and organisation_id.", field="archive_id")
    return named[0] if named else (None, None)


def _view(one: Invitation, services: Services) -> InvitationView:
    return InvitationView(
        id=one.id,
        email=one.address,
        state=one.state(services.clock.now()).value,
        organisation_id=one.organisation_id,
        on_kind=one.on_kind,
        on_id=one.on_id,
        label=one.label,
        role=one.role.value if one.role else None,
        role_until=one.role_until,
        requires=sorted(one.requires),
        note=one.note,
        invited_by=one.invited_by,
        invited_at=one.invited_at,
        sent_at=one.sent_at,
        expires_at=one.expires_at,
        accepted_at=one.accepted_at,
        accepted_by=one.accepted_by,
        trouble=one.trouble,
    )
