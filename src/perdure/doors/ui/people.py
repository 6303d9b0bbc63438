"""Pages for those who manage organisations: their people, what each of them can reach, and who asks to be let in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from fastapi import APIRouter, FastAPI, Request, Response

from perdure.doors.http.auth import Caller, KnownCaller
from perdure.doors.http.cursors import A_SHORT_ID, AN_ID, decode_cursor, encode_cursor
from perdure.doors.http.services import Given, Services
from perdure.doors.ui.asking import (
    SIZE_UNITS,
    Content,
    choose,
    find_id,
    find_size,
    lead_to,
    read_form_id,
    read_id,
    refuse,
    with_query,
)
from perdure.doors.ui.login import Form, Sent, render_form
from perdure.identity import Application, ApplicationState, IdentityCard, IdentityState, Login
from perdure.identity.model import has_administrator_powers
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.errors import BadInputError, NotAllowedError, PerdureError
from perdure.kernel.ids import short_form

router = APIRouter(include_in_schema=False)

_SHOWN = 50
_REACH_SHOWN = 50
_LONGEST_TEXT = 200
_STATES = {"": "in any state", **{state.value: state.value for state in IdentityState}}
_TONES = {  # tone, shape
    "active": ("kept", "●"),
    "disabled": ("rest", "○"),
    "merged": ("rest", "○"),
    "erased": ("rest", "○"),
}
_WAYS = {
    "password": "password, login name",
    "oidc": "OpenID Connect, at",
    "saml": "SAML, at",
    "x509": "certificate",
    "orcid": "ORCID",
    "ldap": "directory",
    "totp": "second factor: codes of a device",
    "passkey": "passkey",
}


def open_people_pages(app: FastAPI) -> None:
    """Serve the pages."""
    app.include_router(router)


@router.get("/people")
def show_people(request: Request, caller: Caller, services: Given) -> Response:
    asked = dict(request.query_params)
    try:
        text, state = asked.get("text", "").strip()[:_LONGEST_TEXT], choose(asked, "state", _STATES)
        after = decode_cursor("people page", asked.get("cursor"), AN_ID)
        found = services.identity.list_identities(
            caller,
            text=text.replace("\0", "") or None,
            state=IdentityState(state) if state else None,
            after=UUID(after) if after else None,
            limit=_SHOWN,
        )
        pending = services.identity.list_applications(caller, state=ApplicationState.PENDING, limit=_SHOWN)
    except PerdureError as error:
        return refuse(request, services, error, caller=caller)
    following = encode_cursor("people page", str(found[-1].id) if len(found) == _SHOWN else None)
    homes = {one.id: one.name for one in services.identity.list_organisations(caller)}
    content: Content = {
        "error": None,
        "text": text,
        "state": state,
        "states": _STATES,
        "people": [_facts(one, homes) for one in found],
        "pending": len(pending),
        "has_more_pending": len(pending) == _SHOWN,
        "is_first": after is None,
        "first_url": with_query("/people", text=text, state=state),
        "next_url": with_query("/people", text=text, state=state, cursor=following) if following else None,
    }
    return render_form(request, services, "people.html", content, 200)


@router.get("/people/{person}")
def show_person(person: str, request: Request, caller: Caller, services: Given, cursor: str | None = None) -> Response:
    try:
        return _show_person(request, services, caller, read_id(person), cursor=cursor)
    except PerdureError as error:
        return refuse(request, services, error, caller=caller)


@router.post("/people/{person}")
def change_person(person: str, request: Request, form: Sent, caller: KnownCaller, services: Given) -> Response:
    """Rename, disable, enable, name or dismiss as administrator, or take the second factor of a lost device."""
    identity = services.identity

    def change(person_id: UUID) -> None:
        acts: dict[str, Callable[[], None]] = {
            "rename": lambda: identity.rename_identity(caller, person_id, form.get("display_name", "")),
            "disable": lambda: identity.disable_identity(caller, person_id),
            "enable": lambda: identity.enable_identity(caller, person_id),
            "name": lambda: identity.set_administrator(caller, person_id, is_administrator=True),
            "dismiss": lambda: identity.set_administrator(caller, person_id, is_administrator=False),
            "remove_factor": lambda: _remove_factor(person_id, caller, services),
        }
        acts[choose(form, "act", acts)]()

    try:
        person_id = read_id(person)
        change(person_id)
    except PerdureError as error:
        try:
            return _show_person(request, services, caller, read_id(person), error=error)
        except PerdureError:
            return refuse(request, services, error, caller=caller)
    return lead_to(f"/people/{person_id}")


@router.get("/applications")
def show_applications(request: Request, caller: Caller, services: Given, cursor: str | None = None) -> Response:
    try:
        return _show_applications(request, services, caller, cursor=cursor)
    except PerdureError as error:
        return refuse(request, services, error, caller=caller)


@router.post("/applications")
def decide(request: Request, form: Sent, caller: KnownCaller, services: Given) -> Response:
    """Let somebody in, or say no."""
    try:
        application_id = read_form_id(form, "application_id")
        if choose(form, "answer", ("approve", "refuse")) == "refuse":
            note = form.get("note", "").replace("\r\n", "\n")
            services.identity.refuse_application(caller, application_id, note=note)
        else:
            home = find_id(form, "organisation_id")
            quota = find_size(form, "size")
            services.identity.approve_application(caller, application_id, organisation_id=home, quota_bytes=quota)
    except PerdureError as error:
        try:
            return _show_applications(request, services, caller, form=form, error=error)
        except PerdureError:
            return refuse(request, services, error, caller=caller)
    return lead_to("/applications")


def _remove_factor(person_id: UUID, caller: Actor, services: Services) -> None:
    if person_id == caller.identity_id:
        raise NotAllowedError("Remove your own with a code: `perdure second-factor remove`.")
    services.identity.remove_second_factor(caller, person_id)


def _show_person(
    request: Request,
    services: Services,
    caller: Actor,
    person_id: UUID,
    *,
    cursor: str | None = None,
    error: PerdureError | None = None,
) -> Response:
    if not services.identity.manages_any(caller):
        raise NotAllowedError("Pages of people are for those who manage an organisation.")
    card = services.identity.get_identity(caller, person_id)
    is_living = card.merged_into is None and not card.is_erased
    logins = services.identity.list_logins_of(caller, person_id) if is_living else []
    homes = {one.id: one.name for one in services.identity.list_organisations(caller)}
    used = [one.last_used_at for one in logins if one.last_used_at is not None]
    content: Content = {
        "error": error,
        "one": _facts(card, homes),
        "is_me": person_id == caller.identity_id,
        "is_living": is_living,
        "merged_into": card.merged_into,
        "logins": [_login(one) for one in logins],
        "last_used_at": max(used, default=None),
        "has_factor": any(one.kind == "totp" for one in logins),
        "may_name": has_administrator_powers(caller) and card.kind is ActorKind.PERSON,
        **_reach(services, caller, card, cursor),
    }
    return render_form(request, services, "person.html", content, error.status if error else 200)


def _reach(services: Services, caller: Actor, card: IdentityCard, cursor: str | None) -> Content:
    """The archives that somebody sees, for administrators; nobody else is told of archives outside his organisation."""
    if not has_administrator_powers(caller):
        return {"reach": None, "next_url": None}
    position = decode_cursor("reach page", cursor, A_SHORT_ID)
    found = services.archives.life.list_reach(caller, card.id, cursor=position, limit=_REACH_SHOWN)
    following = encode_cursor("reach page", found.next_cursor)
    return {
        "reach": [
            {
                "short_id": short_form(view.archive.id),
                "title": view.archive.description.title or "Without a title",
                "may": ", ".join(sorted(action.value for action in view.actions)),
            }
            for view in found.items
        ],
        "next_url": with_query(f"/people/{card.id}", cursor=following) if following else None,
    }


def _show_applications(
    request: Request,
    services: Services,
    caller: Actor,
    *,
    cursor: str | None = None,
    form: Form | None = None,
    error: PerdureError | None = None,
) -> Response:
    after = decode_cursor("applications page", cursor, AN_ID)
    found = services.identity.list_applications(
        caller, state=ApplicationState.PENDING, after=UUID(after) if after else None, limit=_SHOWN
    )
    following = encode_cursor("applications page", str(found[-1].id) if len(found) == _SHOWN else None)
    homes = {str(one.id): one.name for one in services.identity.list_organisations(caller)}
    content: Content = {
        "error": error,
        "form": form or {},
        "units": {unit: unit for unit in SIZE_UNITS},
        "homes": homes,
        "items": [_application(one, homes) for one in found],
        "is_first": after is None,
        "next_url": with_query("/applications", cursor=following) if following else None,
    }
    return render_form(request, services, "applications.html", content, error.status if error else 200)


def _application(one: Application, homes: dict[str, str]) -> Content:
    return {
        "id": one.id,
        "name": one.display_name,
        "way": _WAYS.get(one.kind.value, one.kind.value),
        "subject": one.subject,
        "email": one.email,
        "orcid": one.orcid,
        "home_id": str(one.organisation_id or ""),
        "home": homes.get(str(one.organisation_id), "") if one.organisation_id else "",
        "reason": one.reason,
        "at": one.applied_at,
    }


def _login(one: Login) -> Content:
    return {"way": _WAYS.get(one.kind, one.kind), "subject": one.subject, "at": one.last_used_at}


def _facts(card: IdentityCard, homes: dict[UUID, str]) -> Content:
    state = "merged" if card.merged_into else "erased" if card.is_erased else "active" if card.is_active else "disabled"
    tone, shape = _TONES[state]
    is_machine = card.kind is ActorKind.SERVICE
    return {
        "id": card.id,
        "url": f"/services/{card.id}" if is_machine else f"/people/{card.id}",
        "name": card.display_name or "without a name",
        "kind": "service account" if is_machine else "person",
        "orcid": card.orcid,
        "home": homes.get(card.organisation_id, "another organisation"),
        "state": state,
        "tone": tone,
        "shape": shape,
        "is_administrator": bool(card.is_administrator),
    }


def find_person(services: Services, caller: Actor, text: str, *, field: str) -> UUID | None:
    """Whose login name or id a field holds, None for an empty one; raises BadInputError."""
    text = text.strip()
    if not text:
        return None
    card = services.identity.find_identity(caller, text)
    if card is not None:
        return card.id
    found = _find_id(text, field)
    if found is None:
        raise BadInputError("Nobody has this login name.", field=field)
    return found


def _find_id(text: str, field: str) -> UUID | None:
    try:
        return find_id({field: text}, field)
    except BadInputError:
        return None


def names_of(services: Services, caller: Actor, ids: Sequence[UUID | None]) -> dict[UUID, str]:
    """The present names of these people."""
    return services.identity.find_names(caller, {one for one in ids if one is not None})
