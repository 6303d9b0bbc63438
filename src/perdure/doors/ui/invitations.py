"""The page of invitations: whom one invited to what, and how that stands; for managers all of their organisations."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from fastapi import APIRouter, FastAPI, Request, Response

from perdure.doors.http.auth import Caller, KnownCaller
from perdure.doors.http.cursors import AN_ID, decode_cursor, encode_cursor
from perdure.doors.http.services import Given, Services
from perdure.doors.ui.asking import (
    Content,
    choose,
    find_id,
    lead_to,
    read_form_id,
    refuse,
    with_query,
)
from perdure.doors.ui.login import Form, Sent, render_form
from perdure.doors.ui.words import say_moment
from perdure.kernel.actor import Actor
from perdure.kernel.errors import PerdureError
from perdure.kernel.ids import short_form
from perdure.sharing.invitations import InvitationRequest
from perdure.sharing.model import Invitation, InvitationState

router = APIRouter(include_in_schema=False)

_SHOWN = 50
_HERE = "/invitations"
_STATES = {"": "in any state", "pending": "waiting", "accepted": "accepted", "revoked": "withdrawn", "ended": "expired"}
_TONES = {  # tone, shape
    InvitationState.PENDING: ("moving", "◐"),
    InvitationState.ACCEPTED: ("kept", "●"),
    InvitationState.REVOKED: ("rest", "○"),
    InvitationState.ENDED: ("rest", "✕"),
}


def open_invitations_page(app: FastAPI) -> None:
    """Serve the page."""
    app.include_router(router)


@router.get(_HERE)
def show_invitations(request: Request, caller: Caller, services: Given) -> Response:
    try:
        return _show(request, services, caller, dict(request.query_params))
    except PerdureError as error:
        return refuse(request, services, error, caller=caller)


@router.post(_HERE)
def change_invitation(request: Request, form: Sent, caller: KnownCaller, services: Given) -> Response:
    """Invite somebody to a login here, invite again, or withdraw; afterwards the list is as it was filtered."""
    invitations = services.sharing.invitations
    kept = {name: form.get(name, "") for name in ("state", "home")}
    try:
        act = choose(form, "act", ("invite", "resend", "withdraw"))
        if act == "invite":
            home, note = find_id(form, "organisation_id"), form.get("note", "").strip()
            invitations.invite(caller, InvitationRequest(form.get("email", ""), organisation_id=home, note=note))
        elif act == "resend":
            invitations.resend(caller, read_form_id(form, "invitation_id"))
        else:
            invitations.revoke(caller, read_form_id(form, "invitation_id"))
    except PerdureError as error:
        try:
            return _show(request, services, caller, kept, form=form, error=error)
        except PerdureError:
            return refuse(request, services, error, caller=caller)
    return lead_to(with_query(_HERE, **kept))


def _show(
    request: Request,
    services: Services,
    caller: Actor,
    asked: Mapping[str, str],
    *,
    form: Form | None = None,
    error: PerdureError | None = None,
) -> Response:
    state, home = choose(asked, "state", _STATES), find_id(asked, "home")
    after = decode_cursor("invitations page", asked.get("cursor"), AN_ID)
    found = services.sharing.invitations.list_invitations(
        caller,
        home_id=home,
        state=InvitationState(state) if state else None,
        is_newest_first=True,
        after=UUID(after) if after else None,
        limit=_SHOWN,
    )
    following = encode_cursor("invitations page", str(found[-1].id) if len(found) == _SHOWN else None)
    is_manager = services.identity.manages_any(caller)
    homes = {str(one.id): one.name for one in services.identity.list_organisations(caller)} if is_manager else {}
    people = {one for item in found for one in (item.invited_by, item.accepted_by) if one is not None}
    names = services.identity.find_names(caller, people)
    kept = {"state": state, "home": str(home or "")}
    content: Content = {
        "error": error,
        "form": form or {},
        "asked": kept,
        "states": _STATES,
        "homes": homes,
        "items": [_facts(one, services, caller, names) for one in found],
        "is_manager": is_manager,
        "is_first": after is None,
        "first_url": with_query(_HERE, **kept),
        "next_url": with_query(_HERE, **kept, cursor=following) if following else None,
    }
    return render_form(request, services, "invitations.html", content, error.status if error else 200)


def _facts(one: Invitation, services: Services, caller: Actor, names: Mapping[UUID, str]) -> Content:
    state = one.state(services.clock.now())
    tone, shape = _TONES[state]
    return {
        "id": one.id,
        "address": one.address,
        "role": one.role.value if one.role else "",
        "on_kind": one.on_kind or "organisation",
        "label": one.label,
        "url": f"/archives/{short_form(one.on_id)}" if one.on_kind == "archive" and one.on_id else None,
        "state": _STATES[state.value],
        "tone": tone,
        "shape": shape,
        "when": _say_when(one, state, names),
        "trouble": one.trouble if state is InvitationState.PENDING else None,
        "by": "you" if one.invited_by == caller.identity_id else names.get(one.invited_by, ""),
        "sent_at": one.sent_at,
        "may_withdraw": state in (InvitationState.PENDING, InvitationState.ENDED),
    }


def _say_when(one: Invitation, state: InvitationState, names: Mapping[UUID, str]) -> str:
    if state is InvitationState.ACCEPTED and one.accepted_at is not None:
        who = names.get(one.accepted_by, "") if one.accepted_by else ""
        return f"{say_moment(one.accepted_at)}{f' by {who}' if who else ''}"
    if state is InvitationState.REVOKED and one.revoked_at is not None:
        return say_moment(one.revoked_at)
    end = min(one.expires_at, one.role_until) if one.role_until else one.expires_at
    return f"{'until' if state is InvitationState.PENDING else 'since'} {say_moment(end)}"
