"""The one door to permission: `require`, and the SQL form of the same rule for listings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    CompoundSelect,
    Connection,
    Dialect,
    Row,
    Select,
    and_,
    any_,
    bindparam,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.types import Text, UserDefinedType, Uuid

from perdure.db import put_in_words
from perdure.identity.errors import IdentityEndedError, NotLoggedInError, TokenTooNarrowError
from perdure.identity.memberships import is_member_at
from perdure.identity.model import (
    ORGANISATION_ROLE_ACTIONS,
    PUBLIC_ACTIONS,
    ROLE_ACTIONS,
    AccessClass,
    Action,
    ArchiveThing,
    Held,
    IdentityState,
    InstanceThing,
    OnKind,
    OrganisationThing,
    Role,
    Thing,
    Verb,
    allowed_actions,
    has_administrator_powers,
    kind_of,
    places_of,
    roles_on,
    scope_actions,
    weakest_role_for,
)
from perdure.identity.tables import grants, group_members, identities
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.clock import Clock
from perdure.kernel.errors import NotAllowedError, NotFoundError

_NAMES = bindparam("role_names", type_=ARRAY(Text))
_BROUGHT = bindparam("role_brought", type_=ARRAY(Uuid))
_PROOFS = bindparam("role_proofs", type_=ARRAY(Text))
_FEW_GROUPS = 100
_FEW_GRANTS = 1000
_NO_ROLES: frozenset[tuple[str, str]] = frozenset()
_Roles = Mapping[UUID, frozenset[tuple[str, str]]]  # by the thing: on what kind it is, and which


class _IdArray(UserDefinedType[Sequence[UUID]]):
    """Ids as the text of an array: the driver takes ten times as long to write one of its own."""

    cache_ok = True
    render_bind_cast = True

    def get_col_spec(self, **_options: object) -> str:
        return "UUID[]"

    def bind_processor(self, dialect: Dialect) -> Callable[[Sequence[UUID] | None], str | None]:
        return lambda ids: None if ids is None else "{" + ",".join([one.hex for one in ids]) + "}"


@dataclass(frozen=True, slots=True)
class Survey:
    """The roles that an actor has at a moment on all that he has any on; None where they are too many to carry."""

    actor: Actor
    now: datetime
    roles: _Roles | None

    def things(self, on_kind: OnKind, roles: Collection[Role]) -> list[UUID]:
        """What of this kind he has any of these roles on."""
        wanted = {(on_kind, role.value) for role in roles}
        return [on_id for on_id, held in (self.roles or {}).items() if not wanted.isdisjoint(held)]


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
        held = self.find_roles(tx, actor, thing, now=moment)
        return allowed_actions(actor, thing, held, today=moment.date())

    def require_with(
        self, actor: Actor, action: Action, thing: ArchiveThing, roles: Iterable[str], *, now: datetime
    ) -> frozenset[Action]:
        """As `require`, with the roles that `select_roles` found at `now`; returns all that the actor may do."""
        allowed = allowed_actions(actor, thing, map(_held, roles), today=now.date())
        if action not in allowed:
            raise _refusal(actor, action, thing, allowed)
        return allowed

    def survey(self, tx: Connection, actor: Actor) -> Survey:
        """What a listing asks of the grants, asked once for the whole of it."""
        now = self._clock.now()
        if actor.identity_id is None:
            return Survey(actor, now, {})
        # to work out whether the statement is a known one takes as long as the question
        found = tx.exec_driver_sql(_ALL_ROLES.string, {**_ALL_ROLES.params, **role_parameters(actor, now)}).all()
        return Survey(actor, now, _by_thing(found) if len(found) <= _FEW_GRANTS else None)

    def actions_on_each(
        self, tx: Connection, survey: Survey, things: Sequence[ArchiveThing]
    ) -> list[frozenset[Action]]:
        """All that the actor may do with each of these archives, by one query at most."""
        actor, now = survey.actor, survey.now
        roles = survey.roles
        if roles is None:
            places = {place for thing in things for place in places_of(thing)}
            there = grants.c.on_id == any_(literal(list(places), ARRAY(Uuid())))
            roles = _by_thing(tx.execute(select_grants(actor, now, _ROLE_ON, there)).all())
        known: dict[object, frozenset[Action]] = {}  # many archives of a listing are alike
        is_limited = actor.scope.archives is not None or actor.paths is not None or actor.kind is ActorKind.LINK

        def find(thing: ArchiveThing) -> frozenset[Action]:
            there = tuple(map(roles.get, places_of(thing)))
            alike = (there, thing.access, thing.embargo_until, thing.is_closed, thing.id if is_limited else None)
            found = known.get(alike)
            if found is None:
                held = _NO_ROLES.union(*(one for one in there if one))
                given = {Held(cast("OnKind", on_kind), Role(role)) for on_kind, role in held}
                found = known[alike] = allowed_actions(actor, thing, given, today=now.date())
            return found

        return [find(thing) for thing in things]

    def find_roles(self, tx: Connection, actor: Actor, thing: Thing, *, now: datetime | None = None) -> frozenset[Held]:
        """The roles that grants give the actor here: by himself or a group, on the thing or what it belongs to."""
        if actor.identity_id is None or isinstance(thing, InstanceThing):
            return frozenset()
        there, columns = grants.c.on_id.in_(places_of(thing)), [grants.c.on_kind, grants.c.role]
        found = select_grants(actor, now or self._clock.now(), columns, there)
        return frozenset(Held(row.on_kind, Role(row.role)) for row in tx.execute(found))

    def require_over(self, tx: Connection, actor: Actor, identity_id: UUID) -> None:
        """Return for who manages the identity's organisation; over an administrator stand administrators only.

        Raises NotFoundError when there is no such identity, and IdentityEndedError when it is there in history only.
        """
        row = tx.execute(select(identities).where(identities.c.id == identity_id)).first()
        if row is None or row.is_administrator:
            self.require(tx, actor, Action.ADMINISTER, InstanceThing())
        if row is None:
            raise NotFoundError("There is no such identity.")
        self.require(tx, actor, Action.MANAGE_ORGANISATION, OrganisationThing(row.organisation_id))
        require_living(row)

    def managed_organisations(self, tx: Connection, actor: Actor) -> frozenset[UUID]:
        """The organisations that the actor manages by a role."""
        found = tx.execute(things_granted(actor, "organisation", self._clock.now(), roles=[Role.MANAGER])).scalars()
        manage = Action.MANAGE_ORGANISATION
        return frozenset(one for one in found if manage in scope_actions(actor.scope, OrganisationThing(one)))

    def select_people_of(self, organisations: Collection[UUID]) -> Select[UUID]:
        """The identities of organisations, for a condition of another's query; who asks has looked at the rights."""
        return select(identities.c.id).where(identities.c.organisation_id.in_(organisations))

    def visible(
        self,
        actor: Actor,
        *,
        archive_id: ColumnElement[UUID],
        account_id: ColumnElement[UUID],
        organisation_id: ColumnElement[UUID],
        access: ColumnElement[str],
        embargo_until: ColumnElement[date | None],
        is_closed: ColumnElement[bool],
        action: Action = Action.SEE,
        survey: Survey | None = None,
    ) -> ColumnElement[bool]:
        """The rows of archives that the actor may see, or may read, as a condition for the listing's own query.

        Equal to `can(…, action, …)` row by row, but for links, which list nothing. It holds for the moment of the call:
        build it for each query. With a `survey` of the actor's roles it asks for them no more.
        """
        assert action in PUBLIC_ACTIONS
        if actor.kind is ActorKind.SYSTEM:
            return true()
        if actor.kind is ActorKind.LINK:  # it opens one archive to who has its address, and lists none
            return false()
        if actor.paths is not None:  # nor do scopes of paths
            return false()
        if actor.scope.verbs is not None and Verb.READ not in actor.scope.verbs:
            return false()
        now = self._clock.now()
        places: dict[OnKind, ColumnElement[UUID]] = {
            "archive": archive_id,
            "account": account_id,
            "organisation": organisation_id,
        }
        giving = {kind: roles for kind in places if (roles := _roles_giving(action, kind))}
        ways: list[ColumnElement[bool]]
        if survey is None or survey.roles is None:
            ways = [places[kind].in_(things_granted(actor, kind, now, roles=roles)) for kind, roles in giving.items()]
        else:
            known = {kind: survey.things(kind, roles) for kind, roles in giving.items()}
            ways = [places[kind] == any_(literal(ids, _IdArray())) for kind, ids in known.items() if ids]
        is_open = and_(is_closed, _is_public(access, embargo_until, now.date()))
        visible = true() if has_administrator_powers(actor) else or_(is_open, *ways)
        return visible if actor.scope.archives is None else and_(visible, archive_id.in_(actor.scope.archives))


def require_living(row: Row[Any]) -> None:  # Any: a row of identities
    """Raises IdentityEndedError for who was merged into another, or erased."""
    if row.state == IdentityState.MERGED.value:
        raise IdentityEndedError("This identity was merged into another.", merged_into=str(row.merged_into))
    if row.state == IdentityState.ERASED.value:
        raise IdentityEndedError("This identity was erased.")


def require_living_in(tx: Connection, identity_id: UUID) -> None:
    """As `require_living`, and from here to the transaction's end nobody merges or erases it; an unknown one passes."""
    found = hold_in(tx, identity_id)
    if found is not None:
        require_living(found)


def hold_in(tx: Connection, identity_id: UUID) -> Row[Any] | None:  # Any: a row of identities
    """The identity as it is, once those who merge or erase it are done; nobody does so until the transaction's end."""
    query = select(identities).where(identities.c.id == identity_id)
    return tx.execute(query.with_for_update(read=True, key_share=True)).first()


def select_roles(
    archive_id: ColumnElement[UUID], account_id: ColumnElement[UUID], organisation_id: ColumnElement[UUID]
) -> ColumnElement[list[str]]:
    """The roles in force of an actor on archives, an array for `require_with`, for the very query that finds them.

    The query is run with `role_parameters`. It does not fit a query that locks: one that waited for its lock would
    answer with the roles from before the wait.
    """
    places = [archive_id, account_id, organisation_id]
    found = select(grants.c.on_kind + literal(" ") + grants.c.role).where(grants.c.on_id.in_(places))
    found = found.correlate(*(place.table for place in places if isinstance(place, Column)))
    return func.array(_of_parameters(found).scalar_subquery(), type_=ARRAY(Text))


def _of_parameters(found: Select[Any]) -> CompoundSelect[Any]:  # Any: the columns that were selected
    """Those of the grants in force that name who `role_parameters` tells of."""
    me, now = bindparam("role_identity", type_=Uuid()), bindparam("role_moment", type_=TIMESTAMP(timezone=True))
    lasting = or_(grants.c.expires_at.is_(None), grants.c.expires_at > now)
    found = found.where(lasting, grants.c.requires.contained_by(_PROOFS))
    by_name = or_(grants.c.named == any_(_NAMES), grants.c.group_id == any_(_BROUGHT))
    return union_all(found.where(or_(_names(me, now), by_name)), found.where(_names_one_of_many_groups(me, now)))


def role_parameters(actor: Actor, now: datetime) -> dict[str, object]:
    """What a query with `select_roles` is to be told."""
    return {
        "role_identity": actor.identity_id,
        "role_names": sorted(actor.known_as),
        "role_brought": sorted(actor.brought_groups),
        "role_proofs": sorted(actor.proofs),
        "role_moment": now,
    }


def select_grants(
    actor: Actor, now: datetime, columns: Sequence[ColumnElement[Any]], *conditions: ColumnElement[bool]
) -> CompoundSelect[Any]:  # Any: the columns asked for
    """Grants in force at `now` that name the actor, one of his groups or credentials, and demand no other login.

    One may come twice.
    """
    if actor.identity_id is None:
        return union_all(select(*columns).where(false()))
    me = literal(actor.identity_id, Uuid())
    is_proven = grants.c.requires.contained_by(literal(sorted(actor.proofs), ARRAY(Text)))
    lasting = or_(grants.c.expires_at.is_(None), grants.c.expires_at > now)
    found = select(*columns).where(*conditions, lasting, is_proven)
    by_name = grants.c.named == any_(literal(sorted(actor.known_as), ARRAY(Text)))
    named = or_(_names(me, now), by_name) if actor.known_as else _names(me, now)
    if actor.brought_groups:
        named = or_(named, grants.c.group_id == any_(literal(sorted(actor.brought_groups), ARRAY(Uuid()))))
    return union_all(found.where(named), found.where(_names_one_of_many_groups(me, now)))


def things_granted(
    actor: Actor, on_kind: OnKind, now: datetime, *, roles: Collection[Role] = tuple(Role)
) -> CompoundSelect[UUID]:
    """The ids of all things of one kind on which the actor has any of these roles."""
    conditions = [grants.c.on_kind == on_kind]
    if not set(roles) >= set(roles_on(on_kind)):
        conditions.append(grants.c.role.in_([role.value for role in roles]))
    return select_grants(actor, now, [grants.c.on_id], *conditions)


def select_groups_of(identity_id: ColumnElement[UUID] | UUID, now: ColumnElement[datetime] | datetime) -> Select[UUID]:
    """The groups that somebody is in at this moment."""
    return select(group_members.c.group_id).where(group_members.c.identity_id == identity_id, is_member_at(now))


# The groups of one person are asked for in two ways, so that neither many grants on a thing nor many groups of a person
# cost much: up to a hundred groups are probed in an index; of who is in more, each grant's group is looked up.


def _names(me: ColumnElement[UUID], now: ColumnElement[datetime] | datetime) -> ColumnElement[bool]:
    """A grant to somebody himself or to one of the first groups that he is in."""
    first = select_groups_of(me, now).limit(_FEW_GROUPS).scalar_subquery()
    return or_(grants.c.identity_id == me, grants.c.group_id == any_(func.array(first, type_=ARRAY(Uuid))))


def _names_one_of_many_groups(me: ColumnElement[UUID], now: ColumnElement[datetime] | datetime) -> ColumnElement[bool]:
    """A grant to a group of somebody who is in more groups than `_names` looks at; costs nothing for others."""
    first = select_groups_of(me, now).limit(_FEW_GROUPS + 1).subquery()
    are_many = select(func.count()).select_from(first).scalar_subquery() > _FEW_GROUPS
    member = group_members.alias()
    mine = and_(member.c.group_id == grants.c.group_id, member.c.identity_id == me, is_member_at(now, member))
    return and_(are_many, exists().where(mine))


def _by_thing(found: Iterable[Any]) -> _Roles:  # Any: rows of _ROLE_ON
    roles: dict[UUID, frozenset[tuple[str, str]]] = {}
    alone: dict[tuple[str, str], frozenset[tuple[str, str]]] = {}  # most things give one role, and many the same
    for on_id, on_kind, role in found:
        one = alone.get((on_kind, role)) or alone.setdefault((on_kind, role), frozenset(((on_kind, role),)))
        held = roles.get(on_id)
        roles[on_id] = one if held is None else held | one
    return roles


def _roles_giving(action: Action, on_kind: OnKind) -> list[Role]:
    """The roles that let their bearer do this with archives, when granted on a thing of this kind."""
    table = ORGANISATION_ROLE_ACTIONS if on_kind == "organisation" else ROLE_ACTIONS
    return [role for role, actions in table.items() if action in actions]


def _held(text: str) -> Held:
    on_kind, _, role = text.partition(" ")
    return Held(cast("OnKind", on_kind), Role(role))


def _is_public(access: ColumnElement[str], until: ColumnElement[date | None], today: date) -> ColumnElement[bool]:
    return or_(
        access == AccessClass.PUBLIC.value,
        and_(access == AccessClass.EMBARGOED.value, until.is_not(None), until <= today),
    )


def _refusal(actor: Actor, action: Action, thing: Thing, allowed: frozenset[Action]) -> Exception:
    if actor.kind is ActorKind.LINK:
        return NotFoundError("There is nothing here, or this link does not lead to it.")
    if not allowed and not isinstance(thing, InstanceThing) and not _is_own_home(actor, thing):
        return NotFoundError(f"There is no such {kind_of(thing)}, or you may not see it.")
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


def _is_own_home(actor: Actor, thing: Thing) -> bool:
    """Everybody knows his own organisation."""
    return isinstance(thing, OrganisationThing) and thing.id == actor.organisation_id


def _words(action: Action) -> str:
    return action.value.replace("_", " ")


_ROLE_ON = (grants.c.on_id, grants.c.on_kind, grants.c.role)
_ALL_ROLES = put_in_words(_of_parameters(select(*_ROLE_ON)).limit(_FEW_GRANTS + 1))
