"""The one door to permission: `require`, and the SQL form of the same rule for listings."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, and_, any_, bindparam, false, func, literal, or_, select, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text, Uuid

from perdure.identity.errors import NotLoggedInError, TokenTooNarrowError
from perdure.identity.model import (
    AccessClass,
    AccountThing,
    Action,
    ArchiveThing,
    InstanceThing,
    OnKind,
    Role,
    Thing,
    Verb,
    allowed_actions,
    has_administrator_powers,
    strongest,
    weakest_role_for,
)
from perdure.identity.tables import grants
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.clock import Clock
from perdure.kernel.errors import NotAllowedError, NotFoundError

_GROUPS = bindparam("role_groups", type_=ARRAY(Uuid))


class Rights:
    """Answers from the grants at this moment; nothing is cached, so a revoked grant ends with its commit."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def require(
        self, tx: Connection, actor: Actor, action: Action, thing: Thing, *, now: datetime | None = None
    ) -> None:
        """Return if the actor may do this; the first statement of every use case.

        Raises NotFoundError when the actor may do nothing at all with the thing (he is not told that it exists),
        NotLoggedInError when nobody is logged in, else NotAllowedError, with the role to ask for as `role`.
        """
        allowed = self.actions(tx, actor, thing, now=now)
        if action not in allowed:
            raise _refusal(actor, action, thing, allowed)

    def can(self, tx: Connection, actor: Actor, action: Action, thing: Thing, *, now: datetime | None = None) -> bool:
        """Whether `require` would return."""
        return action in self.actions(tx, actor, thing, now=now)

    def actions(self, tx: Connection, actor: Actor, thing: Thing, *, now: datetime | None = None) -> frozenset[Action]:
        """All that the actor may do with the thing."""
        moment = now or self._clock.now()
        role = self.find_role(tx, actor, thing, now=moment)
        return allowed_actions(actor, thing, role, today=moment.date())

    def require_with(
        self, actor: Actor, action: Action, thing: ArchiveThing, roles: Iterable[str], *, now: datetime
    ) -> frozenset[Action]:
        """As `require`, with the roles that `select_roles` found at `now`; returns all that the actor may do."""
        allowed = allowed_actions(actor, thing, strongest(map(Role, roles)), today=now.date())
        if action not in allowed:
            raise _refusal(actor, action, thing, allowed)
        return allowed

    def find_role(self, tx: Connection, actor: Actor, thing: Thing, *, now: datetime | None = None) -> Role | None:
        """The strongest role that grants give the actor here, by himself, a group, or the archive's account."""
        if actor.identity_id is None or isinstance(thing, InstanceThing):
            return None
        ids = [thing.id] if isinstance(thing, AccountThing) else [thing.id, thing.account_id]
        query = (
            select(grants.c.role)
            .distinct()
            .where(grants.c.on_id.in_(ids), is_grant_of(actor, now or self._clock.now()))
        )
        return strongest(Role(role) for role in tx.execute(query).scalars())

    def readable(
        self,
        actor: Actor,
        *,
        archive_id: ColumnElement[UUID],
        account_id: ColumnElement[UUID],
        access: ColumnElement[str],
        embargo_until: ColumnElement[date | None],
        is_closed: ColumnElement[bool],
    ) -> ColumnElement[bool]:
        """The rows of archives that the actor may read, as a condition for the listing's own query.

        Equal to `can(…, Action.READ, …)` row by row. It holds for the moment of the call: build it for each query.
        """
        if actor.kind is ActorKind.SYSTEM:
            return true()
        if actor.scope.verbs is not None and Verb.READ not in actor.scope.verbs:
            return false()
        now = self._clock.now()
        readable = (
            true()
            if has_administrator_powers(actor)
            else or_(
                and_(is_closed, _is_public(access, embargo_until, now.date())),
                archive_id.in_(things_granted(actor, "archive", now)),
                account_id.in_(things_granted(actor, "account", now)),
            )
        )
        return readable if actor.scope.archives is None else and_(readable, archive_id.in_(actor.scope.archives))


def select_roles(archive_id: ColumnElement[UUID], account_id: ColumnElement[UUID]) -> ColumnElement[list[str]]:
    """The roles in force of an actor on archives, an array, for the very query that finds them.

    The query is run with `role_parameters`. It does not fit a query that locks: one that waited for its lock would
    answer with the roles from before the wait.
    """
    grantee = or_(grants.c.identity_id == bindparam("role_identity"), grants.c.group_id == any_(_GROUPS))
    lasting = or_(grants.c.expires_at.is_(None), grants.c.expires_at > bindparam("role_moment"))
    found = select(grants.c.role).where(grants.c.on_id.in_([archive_id, account_id]), grantee, lasting)
    return func.array(found.scalar_subquery(), type_=ARRAY(Text))


def role_parameters(actor: Actor, now: datetime) -> dict[str, object]:
    """What a query with `select_roles` is to be told."""
    return {"role_identity": actor.identity_id, "role_groups": sorted(actor.group_ids), "role_moment": now}


def is_grant_of(actor: Actor, now: datetime) -> ColumnElement[bool]:
    """Grants in force at `now` that name the actor or one of his groups."""
    if actor.identity_id is None:
        return false()
    grantee = grants.c.identity_id == actor.identity_id
    if actor.group_ids:
        grantee = or_(grantee, grants.c.group_id == _any_of(actor.group_ids))
    return and_(grantee, or_(grants.c.expires_at.is_(None), grants.c.expires_at > now))


def things_granted(actor: Actor, on_kind: OnKind, now: datetime) -> Select[UUID]:
    """The ids of all things of one kind on which the actor has any role."""
    return select(grants.c.on_id).where(grants.c.on_kind == on_kind, is_grant_of(actor, now))


def _any_of(ids: frozenset[UUID]) -> ColumnElement[bool]:
    # One array parameter: the statement stays the same for one group and for ten thousand.
    return any_(literal(sorted(ids), ARRAY(Uuid)))


def _is_public(access: ColumnElement[str], until: ColumnElement[date | None], today: date) -> ColumnElement[bool]:
    return or_(
        access == AccessClass.PUBLIC.value,
        and_(access == AccessClass.EMBARGOED.value, until.is_not(None), until <= today),
    )


def _refusal(actor: Actor, action: Action, thing: Thing, allowed: frozenset[Action]) -> Exception:
    if not allowed and not isinstance(thing, InstanceThing):
        kind = "archive" if isinstance(thing, ArchiveThing) else "account"
        return NotFoundError(f"There is no such {kind}, or you may not see it.")
    if actor.kind is ActorKind.ANONYMOUS:
        return NotLoggedInError(f"To {_words(action)} you need to log in.")
    if isinstance(thing, InstanceThing):
        if actor.is_administrator:
            narrowed = "has not the verb admin" if actor.scope.archives is None else "is limited to some archives"
            told = f"You are an administrator, but the token you sent {narrowed}."
            return TokenTooNarrowError(told, action=action.value, verb=Verb.ADMIN.value)
        return NotAllowedError("This is for administrators of the instance.", action=action.value)
    role = weakest_role_for(action, thing)
    if role is None:
        return NotAllowedError(f"To {_words(action)} is not possible here.", action=action.value)
    return NotAllowedError(
        f"To {_words(action)} you need the role {role.value}, and a token that allows it.",
        action=action.value,
        role=role.value,
    )


def _words(action: Action) -> str:
    return action.value.replace("_", " ")
