"""Grants as they come in and go out, alike for accounts and archives."""

from __future__ import annotations

from perdure.doors.api.forms import GrantForm
from perdure.doors.api.views import GrantView
from perdure.doors.http.services import Services
from perdure.identity import Grant, Grantee
from perdure.kernel.actor import Actor
from perdure.kernel.errors import BadInputError


def grantee_of(form: GrantForm, caller: Actor, services: Services) -> Grantee:
    """Whom the form names; raises BadInputError unless that is exactly one somebody who exists."""
    if sum(value is not None for value in (form.login, form.identity_id, form.group_id)) != 1:
        raise BadInputError("Name exactly one of login, identity_id and group_id.", field="login")
    if form.login is None:
        return Grantee(identity_id=form.identity_id, group_id=form.group_id)
    card = services.identity.find_identity(caller, form.login)
    if card is None:
        raise BadInputError("Nobody has this login name.", field="login")
    return Grantee(identity_id=card.id)


def grant_view(grant: Grant) -> GrantView:
    return GrantView(
        id=grant.id,
        identity_id=grant.to.identity_id,
        group_id=grant.to.group_id,
        role=grant.role.value,
        granted_by=grant.granted_by,
        granted_at=grant.granted_at,
        expires_at=grant.expires_at,
    )
