"""Who reaches an archive, as what and why."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, Select, func, or_, select

from perdure.identity.grants import to_grant
from perdure.identity.groups import find_groups_among
from perdure.identity.memberships import is_member_at
from perdure.identity.model import (
    ADMINISTRATOR_ACTIONS,
    PUBLIC_ACTIONS,
    ArchiveThing,
    Held,
    Member,
    Reach,
    Role,
    Through,
    actions_held,
    actions_on,
    has_administrator_powers,
    is_readable_by_all,
    places_of,
)
from perdure.identity.rights import Rights
from perdure.identity.tables import grants, group_members, groups, identities
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.clock import Clock

MOST_MEMBERS_NAMED = 100
_IS_ACTIVE = identities.c.state == "active"


class Access:
    """Explains what `Rights` decides; whether the actor may know is for the caller to ask."""

    def __init__(self, clock: Clock, rights: Rights) -> None:
        self._clock = clock
        self._rights = rights

    def explain_in(
        self, tx: Connection, actor: Actor, on: ArchiveThing, *, after: UUID | None = None, limit: int = 1000
    ) -> list[Reach]:
        """Every way into an archive at this moment: first those of everybody and of administrators, then grants.

        The grants are those on the archive, on its account and on the organisation, oldest first, `after` one of them;
        who is disabled is left out. Members of a group are named to who may see the group, administrators to
        administrators.
        """
        now = self._clock.now()
        found = [] if after is not None else [*_open_ways(on, now), _administrators(tx, actor, on)]
        managed = self._rights.managed_organisations(tx, actor)
        rows = tx.execute(_grants_on(on, now, after).limit(limit)).all()
        named = [row.group_id for row in rows if row.group_id is not None]
        mine = find_groups_among(tx, actor, named, now)
        return found + [self._explain(tx, actor, on, row, managed, mine, now) for row in rows]

    @staticmethod
    def _explain(
        tx: Connection,
        actor: Actor,
        on: ArchiveThing,
        row: Row[Any],  # Any: see `_grants_on`
        managed: frozenset[UUID],
        mine: frozenset[UUID],
        now: datetime,
    ) -> Reach:
        grant, count, members = to_grant(row), 0, tuple[Member, ...]()
        if grant.to.group_id is not None:
            may_name = _sees_all(actor) or grant.to.group_id in mine or row.home in managed
            count, members = _members_of(tx, grant.to.group_id, now, may_name=may_name)
        return Reach(
            through=Through(grant.on_kind),
            to=grant.to,
            name=row.name,
            role=grant.role,
            actions=actions_held([Held(grant.on_kind, grant.role)], on),
            grant=grant,
            member_count=count,
            members=members,
        )


def _open_ways(on: ArchiveThing, now: datetime) -> list[Reach]:
    if not is_readable_by_all(on.access, on.embargo_until, is_closed=on.is_closed, today=now.date()):
        return []
    return [Reach(Through.ACCESS_CLASS, None, None, Role.READER, PUBLIC_ACTIONS)]


def _administrators(tx: Connection, actor: Actor, on: ArchiveThing) -> Reach:
    people = select(identities.c.id, identities.c.display_name).where(identities.c.is_administrator, _IS_ACTIVE)
    count, members = _first_of(tx, people, may_name=_sees_all(actor))
    may = ADMINISTRATOR_ACTIONS & actions_on(on)
    return Reach(Through.ADMINISTRATOR, None, None, None, may, member_count=count, members=members)


def _grants_on(on: ArchiveThing, now: datetime, after: UUID | None) -> Select[Any]:  # Any: a grant and a name
    """The grants in force that count for an archive, each with the name of whom it names."""
    name = func.coalesce(identities.c.display_name, groups.c.name, grants.c.named).label("name")
    query = (
        select(grants, name, groups.c.organisation_id.label("home"))
        .outerjoin(identities, identities.c.id == grants.c.identity_id)
        .outerjoin(groups, groups.c.id == grants.c.group_id)
        .where(
            grants.c.on_id.in_(places_of(on)),
            or_(grants.c.expires_at.is_(None), grants.c.expires_at > now),
            or_(grants.c.identity_id.is_(None), _IS_ACTIVE),
        )
        .order_by(grants.c.id)
    )
    return query if after is None else query.where(grants.c.id > after)


def _members_of(tx: Connection, group_id: UUID, now: datetime, *, may_name: bool) -> tuple[int, tuple[Member, ...]]:
    people = (
        select(identities.c.id, identities.c.display_name)
        .join_from(group_members, identities, identities.c.id == group_members.c.identity_id)
        .where(group_members.c.group_id == group_id, is_member_at(now), _IS_ACTIVE)
    )
    return _first_of(tx, people, may_name=may_name)


def _first_of(tx: Connection, people: Select[Any], *, may_name: bool) -> tuple[int, tuple[Member, ...]]:  # Any: as read
    """How many they are, and the first of them by name where the actor may know them."""
    counted = people.add_columns(func.count().over().label("total"))
    rows = tx.execute(counted.order_by(identities.c.display_name, identities.c.id).limit(MOST_MEMBERS_NAMED)).all()
    named = tuple(Member(row.id, row.display_name) for row in rows) if may_name else ()
    return rows[0].total if rows else 0, named


def _sees_all(actor: Actor) -> bool:
    return actor.kind is ActorKind.SYSTEM or has_administrator_powers(actor)
