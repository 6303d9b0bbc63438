"""Who has which role on what: giving, taking back, listing, copying."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, NoReturn
from uuid import UUID

from sqlalchemy import Connection, Row, delete, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity.callers import naming
from perdure.identity.errors import LastOwnerError, PassingOnError
from perdure.identity.memberships import is_member_at
from perdure.identity.model import (
    ENTITLEMENT,
    AccountThing,
    ArchiveThing,
    Grant,
    GrantedThing,
    Grantee,
    Held,
    PassOn,
    PassOnLimit,
    Role,
    Source,
    find_sources,
    has_administrator_powers,
    is_role_grantable,
    kind_of,
    lasts_as_long,
    manage_action,
    places_of,
    roles_on,
)
from perdure.identity.names import check_named, check_requirement
from perdure.identity.rights import Rights, require_living_in, select_grants
from perdure.identity.tables import accounts, grants, group_members, groups, identities, organisations
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.clock import Clock, format_time
from perdure.kernel.errors import BadInputError, NotAllowedError, NotFoundError
from perdure.kernel.ids import new_id

_STRANGER = "email somebody"  # no credential: nobody is known by it


class Grants:
    """Grants add up: the strongest one in force counts. Functions with `_in` take part in the caller's transaction."""

    def __init__(self, db: Database, clock: Clock, events: EventLog, rights: Rights) -> None:
        self._db = db
        self._clock = clock
        self._events = events
        self._rights = rights

    def grant(
        self,
        actor: Actor,
        on: GrantedThing,
        to: Grantee,
        role: Role,
        *,
        expires_at: datetime | None = None,
        requires: Iterable[str] = (),
        pass_on: PassOnLimit | None = None,
    ) -> Grant:
        """Give a role on an archive, an account or an organisation.

        Giving the same role again sets its end, what it `requires` of the login and its limit anew.
        """
        with naming("grant"), self._db.begin() as tx:
            return self.grant_in(tx, actor, on, to, role, expires_at=expires_at, requires=requires, pass_on=pass_on)

    def grant_in(
        self,
        tx: Connection,
        actor: Actor,
        on: GrantedThing,
        to: Grantee,
        role: Role,
        *,
        expires_at: datetime | None = None,
        requires: Iterable[str] = (),
        pass_on: PassOnLimit | None = None,
    ) -> Grant:
        """As `grant`; nobody gives a role above his own, for longer than he has it, or to whom he may not.

        `pass_on` limits to whom the bearer may give roles by it. Raises PassingOnError.
        """
        self._require_giver(tx, actor, on, role)
        if to.named is not None:
            kind, _, subject = to.named.partition(" ")
            to = Grantee(named=check_named(kind, subject))
        demands = self._check_terms(on, role, expires_at, requires)
        if (to.named or "").startswith(f"{ENTITLEMENT} ") and not any(one.startswith("issuer ") for one in demands):
            told = "Every provider may say this of anybody: require its issuer, as 'issuer https://login.example.org'."
            raise BadInputError(told, field="requires")
        if pass_on is not None:
            self._require_place(tx, pass_on)
        if to.identity_id is not None:
            require_living_in(tx, to.identity_id)
        source = self._require_source(tx, actor, on, role, expires_at, demands, to)
        if source is not None and source.limit is not None:
            self._require_not_anothers(tx, actor, on, to, role)
            pass_on = PassOnLimit(PassOn.NOBODY)
        grant = self._give(tx, actor, on, to, role, expires_at, demands, pass_on)
        if expires_at is not None or demands:
            _require_lasting_owner(tx, on)
        return grant

    def require_passing_on_in(self, tx: Connection, actor: Actor, on: GrantedThing, *, until: datetime | None) -> None:
        """Return for who may let strangers in until then, as by a link; raises PassingOnError.

        Whether he may manage the thing is for the caller to ask.
        """
        if self._is_unlimited(actor):
            return
        sources = find_sources(self._list_sources(tx, actor, on), Role.READER)
        free = [one for one in sources if one.limit is None]
        if sources and not free:
            raise PassingOnError("Your role here may be passed on to some only, and a link opens to everybody.")
        if free and not any(lasts_as_long(one, until) for one in free):
            _raise_too_long(free)

    def check_grant_in(
        self,
        tx: Connection,
        actor: Actor,
        on: GrantedThing,
        role: Role,
        *,
        expires_at: datetime | None = None,
        requires: Iterable[str] = (),
    ) -> frozenset[str]:
        """Return what is demanded of logins when the actor may give this role to a stranger; gives none.

        Raises as `grant_in`.
        """
        self._require_giver(tx, actor, on, role)
        demands = self._check_terms(on, role, expires_at, requires)
        self._require_source(tx, actor, on, role, expires_at, demands, Grantee(named=_STRANGER))
        return demands

    def give_first_owner_in(self, tx: Connection, actor: Actor, on: GrantedThing, owner_id: UUID) -> Grant:
        """The owner of a thing that the calling domain just made; the only grant given without a right to give.

        Raises IdentityEndedError.
        """
        require_living_in(tx, owner_id)
        return self._give(tx, actor, on, Grantee(identity_id=owner_id), Role.OWNER, None, frozenset(), None)

    def move_grants_in(self, tx: Connection, from_id: UUID, to_id: UUID, on_ids: Collection[UUID] | None = None) -> int:
        """Make the roles of one identity another's, on these things or on all; returns how many were there.

        Where both hold the same role, the one that lasts as long and demands as little stays, and of two that are alike
        the one that is passed on more widely. Nothing is recorded.
        """
        mine = grants.c.identity_id == from_id
        query = select(grants).where(mine if on_ids is None else mine & grants.c.on_id.in_(on_ids))
        rows = tx.execute(query.with_for_update()).all()
        for row in rows:
            same = (grants.c.on_id == row.on_id) & (grants.c.role == row.role) & (grants.c.identity_id == to_id)
            held = tx.execute(select(grants).where(same)).first()
            if held is not None and not _is_wider(row, held):
                tx.execute(delete(grants).where(grants.c.id == row.id))
                continue
            if held is not None:
                tx.execute(delete(grants).where(grants.c.id == held.id))
            tx.execute(update(grants).where(grants.c.id == row.id).values(identity_id=to_id))
        return len(rows)

    def drop_grants_of_in(self, tx: Connection, identity_id: UUID, on_id: UUID) -> int:
        """Take away every role that somebody himself has on a thing; the caller records why."""
        mine = (grants.c.identity_id == identity_id) & (grants.c.on_id == on_id)
        return tx.execute(delete(grants).where(mine)).rowcount

    def require_giver_in(
        self, tx: Connection, actor: Actor, on: GrantedThing, to: Grantee, role: Role
    ) -> PassOnLimit | None:
        """To whom the role may be passed on, for who may give it without an end to this somebody.

        Raises what `grant_in` raises.
        """
        self._require_giver(tx, actor, on, role)
        source = self._require_source(tx, actor, on, role, None, frozenset(), to)
        if source is None or source.limit is None:
            return None
        self._require_not_anothers(tx, actor, on, to, role)
        return PassOnLimit(PassOn.NOBODY)

    def hand_over_in(
        self,
        tx: Connection,
        actor: Actor,
        on: GrantedThing,
        from_ids: Collection[UUID],
        to_id: UUID,
        *,
        pass_on: PassOnLimit | None,
    ) -> None:
        """Take the owner's role from these people, and give it to another without an end, passed on as
        `require_giver_in` says; the caller asked who may."""
        require_living_in(tx, to_id)
        own = (grants.c.on_id == on.id) & (grants.c.role == Role.OWNER.value)
        gone = delete(grants).where(own, grants.c.identity_id.in_(set(from_ids) - {to_id})).returning(grants)
        for row in tx.execute(gone).all():
            self._record(tx, facts.GRANT_REVOKED, actor, on, to_grant(row))
        self._give(tx, actor, on, Grantee(identity_id=to_id), Role.OWNER, None, frozenset(), pass_on)

    def revoke_grant(self, actor: Actor, on: GrantedThing, grant_id: UUID) -> None:
        """Take a grant back; who holds one himself may always lay it down."""
        with self._db.begin() as tx:
            self.revoke_grant_in(tx, actor, on, grant_id)

    def revoke_grant_in(self, tx: Connection, actor: Actor, on: GrantedThing, grant_id: UUID) -> None:
        """As `revoke_grant`; raises LastOwnerError when an account would be left without a lasting owner."""
        row = tx.execute(select(grants).where(grants.c.id == grant_id, grants.c.on_id == on.id)).first()
        is_own = row is not None and actor.scope.verbs is None and row.identity_id == actor.identity_id is not None
        if not is_own:
            self._require_giver(tx, actor, on, Role(row.role) if row else Role.READER)
        if row is None:
            raise NotFoundError("There is no such grant.")
        if not is_own and row.granted_by != actor.identity_id:
            self._require_free(tx, actor, on, Role(row.role))
        tx.execute(delete(grants).where(grants.c.id == grant_id))
        _require_lasting_owner(tx, on)
        self._record(tx, facts.GRANT_REVOKED, actor, on, to_grant(row))

    def list_grants(
        self, actor: Actor, on: GrantedThing, *, after: UUID | None = None, limit: int = 1000
    ) -> list[Grant]:
        """Who has a role here, ended grants too; for those who may manage it."""
        with self._db.begin() as tx:
            self._rights.require(tx, actor, manage_action(on), on)
            return self.list_grants_in(tx, on.id, after=after, limit=limit)

    def list_grants_in(
        self, tx: Connection, on_id: UUID, *, after: UUID | None = None, limit: int | None = None
    ) -> list[Grant]:
        """The grants on one thing, oldest first, without asking who wants to know."""
        query = select(grants).where(grants.c.on_id == on_id).order_by(grants.c.id).limit(limit)
        return [to_grant(row) for row in tx.execute(query if after is None else query.where(grants.c.id > after))]

    def copy_grants(self, tx: Connection, from_archive: UUID, to_archive: UUID) -> int:
        """Give a child the grants in force on its parent, by value; the caller records why. Returns their number."""
        now = self._clock.now()
        copies = [
            {**_row(grant), "id": new_id(), "on_id": to_archive}
            for grant in self.list_grants_in(tx, from_archive)
            if grant.expires_at is None or grant.expires_at > now
        ]
        if copies:
            tx.execute(insert(grants).on_conflict_do_nothing(), copies)
        return len(copies)

    def drop_grants_in(self, tx: Connection, archive_id: UUID) -> int:
        """Remove every grant on an archive that is discarded; the caller records why."""
        return tx.execute(delete(grants).where(grants.c.on_kind == "archive", grants.c.on_id == archive_id)).rowcount

    def _require_giver(self, tx: Connection, actor: Actor, on: GrantedThing, role: Role) -> None:
        self._rights.require(tx, actor, manage_action(on), on)
        is_administrator = actor.kind is ActorKind.SYSTEM or has_administrator_powers(actor)
        own = self._rights.find_roles(tx, actor, on)
        if not is_role_grantable(own, role, is_administrator=is_administrator):
            raise NotAllowedError(f"Only who is {role.value} gives or takes this role.", role=role.value)

    def _check_terms(
        self, on: GrantedThing, role: Role, expires_at: datetime | None, requires: Iterable[str]
    ) -> frozenset[str]:
        """What is demanded of logins; raises BadInputError for a role, an end or a demand that cannot be."""
        if role not in roles_on(kind_of(on)):
            known = ", ".join(one.value for one in roles_on(kind_of(on)))
            raise BadInputError(f"A role on an {kind_of(on)} is one of {known}.", field="role")
        if expires_at is not None and (expires_at.tzinfo is None or expires_at <= self._clock.now()):
            raise BadInputError("The grant's end needs a time zone and lies in the future.", field="expires_at")
        return frozenset(map(check_requirement, requires))

    @staticmethod
    def _is_unlimited(actor: Actor) -> bool:
        return actor.kind is ActorKind.SYSTEM or has_administrator_powers(actor)

    def _require_free(self, tx: Connection, actor: Actor, on: GrantedThing, role: Role) -> None:
        """Who may pass a role on to some only takes back what he gave himself."""
        sources = [] if self._is_unlimited(actor) else find_sources(self._list_sources(tx, actor, on), role)
        if sources and all(one.limit is not None for one in sources):
            raise PassingOnError("By your role you take back only what you gave yourself.")

    @staticmethod
    def _require_not_anothers(tx: Connection, actor: Actor, on: GrantedThing, to: Grantee, role: Role) -> None:
        """Giving a role anew changes it, which is as good as taking it back."""
        grantee = grants.c.identity_id if to.identity_id else grants.c.group_id if to.group_id else grants.c.named
        same = (grants.c.on_id == on.id) & (grants.c.role == role.value)
        held = select(grants.c.granted_by).where(same, grantee == (to.identity_id or to.group_id or to.named))
        row = tx.execute(held).first()
        if row is not None and row.granted_by != actor.identity_id:
            raise PassingOnError("Somebody else gave this role already; by yours you change only what you gave.")

    def _require_source(
        self,
        tx: Connection,
        actor: Actor,
        on: GrantedThing,
        role: Role,
        expires_at: datetime | None,
        requires: frozenset[str],
        to: Grantee,
    ) -> Source | None:
        """The role of the actor by which he gives this one, the least limited; None for who needs none."""
        if self._is_unlimited(actor):
            return None
        sources = find_sources(self._list_sources(tx, actor, on), role)
        fitting = [one for one in sources if self._is_within(tx, to, one.limit, self._clock.now())]
        if sources and not fitting:
            raise PassingOnError("Your role here may be passed on to some only, and this is none of them.")
        proven = [one for one in fitting if one.requires <= requires]
        if fitting and not proven:
            demanded = min((sorted(one.requires) for one in fitting), key=len)
            raise PassingOnError(
                f"Your role demands a login by {' and '.join(demanded)}: demand it of this one, too.", requires=demanded
            )
        lasting = [one for one in proven if lasts_as_long(one, expires_at)]
        if proven and not lasting:
            _raise_too_long(proven)
        return next((one for one in lasting if one.limit is None), lasting[0] if lasting else None)

    def _list_sources(self, tx: Connection, actor: Actor, on: GrantedThing) -> list[Source]:
        """The roles in force of the actor on the thing and what it belongs to, each until when."""
        now = self._clock.now()
        mine = (group_members.c.group_id == grants.c.group_id) & (group_members.c.identity_id == actor.identity_id)
        leaves_at = select(group_members.c.ends_at).where(mine).scalar_subquery().label("leaves_at")
        columns = [grants.c.on_kind, grants.c.role, grants.c.expires_at, grants.c.requires, grants.c.pass_on, leaves_at]
        query = select_grants(actor, now, columns, grants.c.on_id.in_(places_of(on)))
        return [
            Source(
                Held(row.on_kind, Role(row.role)),
                min((one for one in (row.expires_at, row.leaves_at) if one is not None), default=None),
                frozenset(row.requires),
                parse_pass_on(row.pass_on),
            )
            for row in tx.execute(query)
        ]

    @staticmethod
    def _is_within(tx: Connection, to: Grantee, limit: PassOnLimit | None, now: datetime) -> bool:
        if limit is None:
            return True
        if limit.to is PassOn.NOBODY or to.named is not None:
            return False
        if limit.to is PassOn.GROUP:
            inside = select(group_members.c.group_id).where(
                group_members.c.group_id == limit.id,
                group_members.c.identity_id == to.identity_id,
                is_member_at(now),
            )
            return to.group_id == limit.id or tx.execute(inside).first() is not None
        table = groups if to.group_id is not None else identities
        home = select(table.c.organisation_id).where(table.c.id == (to.group_id or to.identity_id))
        return bool(tx.execute(home).scalar() == limit.id)

    @staticmethod
    def _require_place(tx: Connection, limit: PassOnLimit) -> None:
        if limit.to is PassOn.NOBODY:
            return
        table = groups if limit.to is PassOn.GROUP else organisations
        if tx.execute(select(table.c.id).where(table.c.id == limit.id)).first() is None:
            raise BadInputError(f"There is no such {limit.to.value}.", field="pass_on")

    def _give(
        self,
        tx: Connection,
        actor: Actor,
        on: GrantedThing,
        to: Grantee,
        role: Role,
        expires_at: datetime | None,
        requires: frozenset[str],
        pass_on: PassOnLimit | None,
    ) -> Grant:
        wanted = Grant(
            id=new_id(),
            on_kind=kind_of(on),
            on_id=on.id,
            to=to,
            role=role,
            granted_by=actor.identity_id,
            granted_at=self._clock.now(),
            expires_at=expires_at,
            requires=requires,
            pass_on=pass_on,
        )
        grantee = grants.c.identity_id if to.identity_id else grants.c.group_id if to.group_id else grants.c.named
        target = [grants.c.on_id, grantee, grants.c.role]
        fresh = insert(grants).values(_row(wanted))
        names = ("granted_by", "granted_at", "expires_at", "requires", "pass_on")
        renewed = {name: fresh.excluded[name] for name in names}
        statement = fresh.on_conflict_do_update(index_elements=target, set_=renewed).returning(grants)
        with naming("grant"):
            grant = to_grant(tx.execute(statement).one())
        self._record(tx, facts.GRANT_GIVEN, actor, on, grant)
        return grant

    def _record(self, tx: Connection, event_type: str, actor: Actor, on: GrantedThing, grant: Grant) -> None:
        subject = on.id if isinstance(on, ArchiveThing) else None
        told = render_grant(grant)
        if grant.to.named is not None:  # the log only grows: what somebody is called elsewhere is not fixed in it
            told["named"] = grant.to.named.partition(" ")[0]
        self._events.record(tx, event_type, subject, actor, told)


def render_grant(grant: Grant) -> dict[str, object]:
    """The grant as JSON, for events and for the stores."""
    return {
        "id": str(grant.id),
        "on_kind": grant.on_kind,
        "on_id": str(grant.on_id),
        "identity_id": _text(grant.to.identity_id),
        "group_id": _text(grant.to.group_id),
        "role": grant.role.value,
        "granted_by": _text(grant.granted_by),
        "granted_at": format_time(grant.granted_at),
        "expires_at": format_time(grant.expires_at) if grant.expires_at else None,
        "named": grant.to.named,
        "requires": sorted(grant.requires),
        "pass_on": render_pass_on(grant.pass_on),
    }


def render_pass_on(limit: PassOnLimit | None) -> str | None:
    """The limit as text; `parse_pass_on` reads it back."""
    if limit is None:
        return None
    return limit.to.value if limit.id is None else f"{limit.to.value} {limit.id}"


def parse_pass_on(text: str | None) -> PassOnLimit | None:
    """Read what `render_pass_on` wrote."""
    if text is None:
        return None
    to, _, place = text.partition(" ")
    return PassOnLimit(PassOn(to), UUID(place) if place else None)


def _is_wider(one: Row[Any], other: Row[Any]) -> bool:  # Any: rows of grants
    """Whether a role lasts as long as the other and demands no more; of two that are alike in this, whether it is
    passed on as widely: to hold a role counts before giving it, and an account keeps its lasting owner.
    """
    if not _is_as_lasting(one, other):
        return False
    return not _is_as_lasting(other, one) or one.pass_on is None or other.pass_on in (one.pass_on, PassOn.NOBODY.value)


def _is_as_lasting(one: Row[Any], other: Row[Any]) -> bool:  # Any: rows of grants
    lasts = one.expires_at is None or (other.expires_at is not None and one.expires_at >= other.expires_at)
    return bool(lasts and set(one.requires) <= set(other.requires))


def _raise_too_long(sources: list[Source]) -> NoReturn:
    latest = max(one.ends_at for one in sources if one.ends_at is not None)
    raise PassingOnError(
        f"Your own role ends at {format_time(latest)}; what you give by it ends then at the latest.",
        until=format_time(latest),
    )


def _require_lasting_owner(tx: Connection, on: GrantedThing) -> None:
    if not isinstance(on, AccountThing):
        return  # an archive's account has one, and an organisation has administrators above it
    # The account's row is the lock: of two owners who leave at once, the second sees the first gone.
    tx.execute(select(accounts.c.id).where(accounts.c.id == on.id).with_for_update())
    lasting = exists().where(
        grants.c.on_id == on.id,
        grants.c.role == Role.OWNER.value,
        grants.c.expires_at.is_(None),
        grants.c.named.is_(None),  # nobody may ever come who is called so
        func.cardinality(grants.c.requires) == 0,
    )
    if not tx.execute(select(lasting)).scalar():
        raise LastOwnerError("This would leave the account without a lasting owner.")


def _row(grant: Grant) -> dict[str, object]:
    return {
        "id": grant.id,
        "on_kind": grant.on_kind,
        "on_id": grant.on_id,
        "identity_id": grant.to.identity_id,
        "group_id": grant.to.group_id,
        "named": grant.to.named,
        "role": grant.role.value,
        "granted_by": grant.granted_by,
        "granted_at": grant.granted_at,
        "expires_at": grant.expires_at,
        "requires": sorted(grant.requires),
        "pass_on": render_pass_on(grant.pass_on),
    }


def to_grant(row: Row[Any]) -> Grant:  # Any: a row with all columns of a grant
    """The grant of a row."""
    return Grant(
        id=row.id,
        on_kind=row.on_kind,
        on_id=row.on_id,
        to=Grantee(row.identity_id, row.group_id, row.named),
        role=Role(row.role),
        granted_by=row.granted_by,
        granted_at=row.granted_at,
        expires_at=row.expires_at,
        requires=frozenset(row.requires),
        pass_on=parse_pass_on(row.pass_on),
    )


def _text(identifier: UUID | None) -> str | None:
    return None if identifier is None else str(identifier)
