"""Grants as they come in and go out, alike for accounts and archives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from perdure.doors.api.forms import GrantForm
from perdure.doors.api.views import AccessView, CredentialView, GrantView, NamedView, PassOnView
from perdure.doors.http.services import Services
from perdure.identity import Grant, Grantee, PassOn, PassOnLimit, Reach
from perdure.identity.names import name_of
from perdure.kernel.actor import Actor
from perdure.kernel.errors import BadInputError
from perdure.sharing.model import Invitation


def grantee_of(form: GrantForm, caller: Actor, services: Services) -> Grantee:
    """Whom the form names; raises BadInputError unless that is exactly one somebody who exists."""
    if sum(value is not None for value in (form.login, form.identity_id, form.group_id, form.credential)) != 1:
        raise BadInputError("Name exactly one of login, identity_id, group_id and credential.", field="login")
    if form.credential is not None:
        return Grantee(named=name_of(form.credential.kind, form.credential.subject))
    if form.login is None:
        return Grantee(identity_id=form.identity_id, group_id=form.group_id)
    card = services.identity.find_identity(caller, form.login)
    if card is None:
        raise BadInputError("Nobody has this login name.", field="login")
    return Grantee(identity_id=card.id)


def grant_views(grants: Sequence[Grant], caller: Actor, services: Services) -> list[GrantView]:
    """The grants with the names of those who have them: people, and the caller's own groups."""
    names = services.identity.find_names(caller, {grant.to.identity_id for grant in grants if grant.to.identity_id})
    if any(grant.to.group_id for grant in grants):
        names |= {group.id: group.name for group in services.identity.list_groups(caller)}
    return [grant_view(grant, names) for grant in grants]


def access_view(reach: Reach) -> AccessView:
    return AccessView(
        through=reach.through.value,
        identity_id=reach.to.identity_id if reach.to else None,
        group_id=reach.to.group_id if reach.to else None,
        credential=_credential_view(reach.to.named if reach.to else None),
        name=reach.name,
        role=reach.role.value if reach.role else None,
        actions=sorted(reach.actions),
        grant_id=reach.grant.id if reach.grant else None,
        expires_at=reach.grant.expires_at if reach.grant else None,
        requires=sorted(reach.grant.requires) if reach.grant else [],
        member_count=reach.member_count,
        members=[NamedView(identity_id=member.id, name=member.name) for member in reach.members],
    )


def pending_view(one: Invitation) -> AccessView:
    """An invitation that waits, among the ways into an archive."""
    return AccessView(
        through="invitation",
        identity_id=None,
        group_id=None,
        credential=None,
        name=one.address,
        role=one.role.value if one.role else None,
        actions=[],
        grant_id=None,
        expires_at=one.role_until,
        requires=sorted(one.requires),
        member_count=0,
        members=[],
        invitation_id=one.id,
    )


def grant_view(grant: Grant, names: Mapping[UUID, str]) -> GrantView:
    to = grant.to.identity_id or grant.to.group_id
    return GrantView(
        id=grant.id,
        identity_id=grant.to.identity_id,
        group_id=grant.to.group_id,
        credential=_credential_view(grant.to.named),
        name=names.get(to) if to else None,
        role=grant.role.value,
        granted_by=grant.granted_by,
        granted_at=grant.granted_at,
        expires_at=grant.expires_at,
        requires=sorted(grant.requires),
        pass_on=PassOnView(to=grant.pass_on.to.value, id=grant.pass_on.id) if grant.pass_on else None,
    )


def person_of(login: str | None, identity_id: UUID | None, caller: Actor, services: Services) -> UUID:
    """Whom a form names by one of these; raises BadInputError for a login name that nobody has."""
    if identity_id is not None:
        return identity_id
    card = services.identity.find_identity(caller, login or "")
    if card is None:
        raise BadInputError("Nobody has this login name.", field="login")
    return card.id


def pass_on_of(form: GrantForm) -> PassOnLimit | None:
    """The limit that the form sets."""
    return None if form.pass_on is None else PassOnLimit(PassOn(form.pass_on.to), form.pass_on.id)


def _credential_view(named: str | None) -> CredentialView | None:
    if named is None:
        return None
    kind, _, subject = named.partition(" ")
    return CredentialView(kind=kind, subject=subject)
