"""Who may decide what concerns an organisation, and can be told of it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, literal, or_, select

from perdure.identity.memberships import is_member_at
from perdure.identity.model import Role
from perdure.identity.tables import credentials, grants, group_members, identities


def find_managers_in(tx: Connection, organisation_id: UUID | None, now: datetime) -> list[str]:
    """The confirmed addresses of those who manage an organisation by a role, for None of the administrators."""
    if organisation_id is None:
        meant: ColumnElement[bool] = identities.c.is_administrator
    else:
        given = (
            select(grants.c.identity_id, grants.c.group_id, grants.c.named)
            .where(
                grants.c.on_kind == "organisation",
                grants.c.on_id == organisation_id,
                grants.c.role == Role.MANAGER.value,
                or_(grants.c.expires_at.is_(None), grants.c.expires_at > now),
            )
            .cte("given")
        )
        present = given.c.group_id == group_members.c.group_id
        in_group = select(group_members.c.identity_id).join(given, present).where(is_member_at(now))
        name = credentials.c.kind + literal(" ") + credentials.c.subject
        named = select(credentials.c.identity_id).join(given, given.c.named == name)
        meant = or_(*(identities.c.id.in_(found) for found in (select(given.c.identity_id), in_group, named)))
    reachable = (identities.c.state == "active", identities.c.email_confirmed_at.is_not(None))
    query = select(identities.c.email).distinct().where(meant, *reachable).order_by(identities.c.email)
    return list(tx.execute(query).scalars())
