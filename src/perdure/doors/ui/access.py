"""Who has access to an archive, and why; and giving and taking roles on it."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from fastapi import APIRouter, FastAPI, Request, Response

from perdure.archives.model import Access, ArchiveState
from perdure.doors.http.auth import Caller, KnownCaller
from perdure.doors.http.cursors import AN_ID, decode_cursor, encode_cursor
from perdure.doors.http.services import Given, Services
from perdure.doors.ui.asking import (
    Content,
    choose,
    end_of,
    find_day,
    lead_to,
    read_form_id,
    read_id,
    refuse,
    with_query,
)
from perdure.doors.ui.login import Form, Sent, render_form
from perdure.identity import Grantee, PassOn, PassOnLimit, Reach, Role
from perdure.identity.model import Through
from perdure.identity.names import name_of
from perdure.kernel.actor import Actor
from perdure.kernel.errors import BadInputError, PerdureError
from perdure.kernel.ids import short_form
from perdure.sharing.invitations import InvitationRequest

router = APIRouter(include_in_schema=False)

_SHOWN = 100
_LONGEST_REQUIREMENTS = 10
ROLES = {  # the words beside each choice, the weakest first
    Role.READER: "sees and reads everything in it",
    Role.CURATOR: "sees and mends what is said of it, reads no content",
    Role.CONTRIBUTOR: "reads, adds files while it is open, describes, closes",
    Role.MANAGER: "all that, and gives and takes roles",
    Role.OWNER: "all that, and may withdraw it",
}
GRANTEES = {
    "login": "who has this login name here",
    "group": "the group with this name",
    "email": "who reads mail at this address: an invitation goes there",
    "oidc": "issuer and subject of OpenID Connect, a blank between them",
    "saml": "institution and identifier of SAML, a blank between them",
    "orcid": "an ORCID iD",
    "x509": "the distinguished name of a certificate",
    "ldap": "directory and name in it, a blank between them",
    "entitlement": "an entitlement; its issuer is demanded below",
}
_WHY = {
    Through.ARCHIVE: "a role on this archive",
    Through.ACCOUNT: "a role on the account that it belongs to",
    Through.ORGANISATION: "a role on the organisation of its account",
    Through.ACCESS_CLASS: "it is public",
    Through.ADMINISTRATOR: "administrators may, without a role",
}
_PASS_ON = ("", "nobody", "organisation")


def open_access_page(app: FastAPI) -> None:
    """Serve the page."""
    app.include_router(router)


@router.get("/archives/{archive}/access")
def show_access(archive: str, request: Request, caller: Caller, services: Given, cursor: str | None = None) -> Response:
    try:
        archive_id = read_id(archive)
        after = decode_cursor("access page", cursor, AN_ID)
        return _show(request, services, caller, archive_id, after=UUID(after) if after else None)
    except PerdureError as error:
        return refuse(request, services, error, caller=caller)


@router.post("/archives/{archive}/access")
def give(archive: str, request: Request, form: Sent, caller: KnownCaller, services: Given) -> Response:
    """Give a role to a person, a group or a credential, or invite an address to it."""
    return _change(
        archive, request, form, caller, services, lambda archive_id: _give(archive_id, form, caller, services)
    )


@router.post("/archives/{archive}/access/revoke")
def revoke(archive: str, request: Request, form: Sent, caller: KnownCaller, services: Given) -> Response:
    def revoke(archive_id: UUID) -> None:
        services.archives.life.revoke(caller, archive_id, read_form_id(form, "grant_id"))

    return _change(archive, request, {}, caller, services, revoke)


@router.post("/archives/{archive}/access/withdraw")
def withdraw(archive: str, request: Request, form: Sent, caller: KnownCaller, services: Given) -> Response:
    """End an invitation that waits."""

    def withdraw(_: UUID) -> None:
        services.sharing.invitations.revoke(caller, read_form_id(form, "invitation_id"))

    return _change(archive, request, {}, caller, services, withdraw)


@router.post("/archives/{archive}/access/class")
def set_class(archive: str, request: Request, form: Sent, caller: KnownCaller, services: Given) -> Response:
    """Say who may read it without a role."""

    def set_class(archive_id: UUID) -> None:
        access = Access(choose(form, "access", [one.value for one in Access]))
        until = find_day(form, "embargo_until") if access is Access.EMBARGOED else None
        services.archives.life.set_access(caller, archive_id, access, until)

    return _change(archive, request, {}, caller, services, set_class)


def _change(
    archive: str, request: Request, form: Form, caller: Actor, services: Services, change: Callable[[UUID], object]
) -> Response:
    """Do it and show who has access then; or say on the same page why not. Who laid his own role down sees neither."""
    try:
        archive_id = read_id(archive)
        change(archive_id)
    except PerdureError as error:
        return _refuse(archive, request, form, caller, services, error)
    return lead_to(f"/archives/{short_form(archive_id)}/access")


def _refuse(
    archive: str, request: Request, form: Form, caller: Actor, services: Services, error: PerdureError
) -> Response:
    try:
        return _show(request, services, caller, read_id(archive), form=form, error=error)
    except PerdureError:  # who may not see the page is told of the first error only
        return refuse(request, services, error, caller=caller)


def _give(archive_id: UUID, form: Form, caller: Actor, services: Services) -> None:
    role = Role(choose(form, "role", [role.value for role in ROLES]))
    kind, name = choose(form, "to", GRANTEES), form.get("name", "").strip()
    ends_at = end_of(find_day(form, "until"))
    requires = [line.strip() for line in form.get("requires", "").splitlines() if line.strip()]
    if not name:
        raise BadInputError("Say who shall have the role.", field="name")
    if len(requires) > _LONGEST_REQUIREMENTS:
        raise BadInputError("These are too many demands on a login.", field="requires")
    if kind == "email":
        wanted = InvitationRequest(
            address=name,
            on_kind="archive",
            on_id=archive_id,
            role=role,
            role_until=ends_at,
            requires=tuple(requires),
            note=form.get("note", "").strip(),
        )
        services.sharing.invitations.invite(caller, wanted)
        return
    services.archives.life.grant(
        caller,
        archive_id,
        _find_grantee(kind, name, caller, services),
        role,
        expires_at=ends_at,
        requires=requires,
        pass_on=_read_limit(form, caller),
    )


def _find_grantee(kind: str, name: str, caller: Actor, services: Services) -> Grantee:
    if kind == "login":
        card = services.identity.find_identity(caller, name)
        if card is None:
            raise BadInputError("Nobody has this login name.", field="name")
        return Grantee(identity_id=card.id)
    if kind != "group":
        return Grantee(named=name_of(kind, name))
    folded = name.casefold()
    found = [one for one in services.identity.list_groups(caller) if folded in (one.name.casefold(), str(one.id))]
    if len(found) != 1:
        said = "Several groups have this name: give the id." if found else "You see no group with this name."
        raise BadInputError(said, field="name")
    return Grantee(group_id=found[0].id)


def _read_limit(form: Form, caller: Actor) -> PassOnLimit | None:
    word = choose(form, "pass_on", _PASS_ON)
    if not word:
        return None
    return PassOnLimit(PassOn(word), caller.organisation_id if word == PassOn.ORGANISATION.value else None)


def _show(
    request: Request,
    services: Services,
    caller: Actor,
    archive_id: UUID,
    *,
    after: UUID | None = None,
    form: Form | None = None,
    error: PerdureError | None = None,
) -> Response:
    found = services.archives.life.explain_access(caller, archive_id, after=after, limit=_SHOWN)
    archive = services.archives.life.get_record(caller, archive_id).archive
    given = [one.grant for one in found if one.grant is not None]
    following = encode_cursor("access page", str(given[-1].id) if len(given) == _SHOWN else None)
    waiting = [] if following else services.sharing.invitations.list_pending(caller, archive_id)
    givers = services.identity.find_names(caller, {one.granted_by for one in given if one.granted_by})
    here = f"/archives/{short_form(archive_id)}"
    content: Content = {
        "error": error,
        "form": form or {},
        "here": here,
        "title": archive.description.title or "Without a title",
        "access": archive.access.value,
        "embargo_until": archive.embargo_until,
        "is_changeable": archive.state in (ArchiveState.OPEN, ArchiveState.CLOSING, ArchiveState.CLOSED),
        "ways": [_way(one, givers, caller) for one in found],
        "waiting": [
            {
                "id": one.id,
                "address": one.address,
                "role": one.role.value if one.role else "",
                "expires_at": one.expires_at,
                "until": one.role_until,
                "is_here": one.on_id == archive_id,
                "label": one.label,
                "trouble": one.trouble,
            }
            for one in waiting
        ],
        "is_first": after is None,
        "next_url": with_query(f"{here}/access", cursor=following) if following else None,
        "roles": {role.value: words for role, words in ROLES.items()},
        "grantees": GRANTEES,
        "has_organisation": caller.organisation_id is not None,
    }
    return render_form(request, services, "access.html", content, error.status if error else 200)


def _way(one: Reach, givers: dict[UUID, str], caller: Actor) -> Content:
    grant, kind = one.grant, ""
    if one.to is None:
        name = "Everybody" if one.through is Through.ACCESS_CLASS else "Administrators"
    else:
        name = one.name or "somebody who is not there any more"
        kind = "group" if one.to.group_id else ""
    if one.to is not None and one.to.named is not None:
        kind, _, name = one.to.named.partition(" ")
    return {
        "name": name,
        "kind": kind,
        "is_me": one.to is not None and one.to.identity_id is not None and one.to.identity_id == caller.identity_id,
        "role": one.role.value if one.role else "",
        "why": _WHY[one.through],
        "may": ", ".join(sorted(action.value for action in one.actions)),
        "until": grant.expires_at if grant else None,
        "requires": ", ".join(sorted(grant.requires)) if grant else "",
        "passed_on": grant.pass_on.to.value if grant and grant.pass_on else "",
        "given_at": grant.granted_at if grant else None,
        "given_by": givers.get(grant.granted_by, "") if grant and grant.granted_by else "",
        "grant_id": grant.id if grant and one.through is Through.ARCHIVE else None,
        "member_count": one.member_count,
        "members": [member.name for member in one.members],
    }
