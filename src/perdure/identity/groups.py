"""Groups of identities, to which roles are granted as to one."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, delete, insert, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity.callers import check_name, naming, require_identity, require_reader, require_self_management
from perdure.identity.memberships import check_dates
from perdure.identity.model import Group, Membership, fold_name, has_administrator_powers
from perdure.identity.rights import Rights, require_living_in, select_groups_of
from perdure.identity.tables import group_members, groups
from perdure.kernel.actor import SYSTEM, Actor, ActorKind
from perdure.kernel.clock import Clock, format_time
from perdure.kernel.errors import BadInputError, NotAllowedError, NotFoundError
from perdure.kernel.ids import new_id


class Groups:
    """Whoever makes a group manages it. Its members see it, and those who manage its organisation; nobody else."""

    def __init__(self, db: Database, clock: Clock, events: EventLog, rights: Rights) -> None:
        self._db = db
        self._clock = clock
        self._events = events
        self._rights = rights

    def create_group(self, actor: Actor, name: str) -> Group:
        """Make a group in the caller's organisation with him as its first member and manager."""
        identity_id = require_self_management(actor)
        if actor.organisation_id is None:
            raise BadInputError("A group belongs to the organisation of its maker, and you have none.")
        group = Group(
            id=new_id(),
            organisation_id=actor.organisation_id,
            name=check_name(name, "group name"),
            members=frozenset({identity_id}),
            managers=frozenset({identity_id}),
            memberships=(Membership(identity_id, True, "local"),),
        )
        with naming("group name"), self._db.begin() as tx:
            tx.execute(
                insert(groups).values(
                    id=group.id,
                    organisation_id=group.organisation_id,
                    name=group.name,
                    name_folded=fold_name(group.name),
                )
            )
            self._events.record(tx, facts.GROUP_CREATED, None, actor, {"group": str(group.id)})
            self._put_member(tx, actor, group.id, identity_id, is_manager=True)
        return group

    def add_member(
        self,
        actor: Actor,
        group_id: UUID,
        identity_id: UUID,
        *,
        is_manager: bool = False,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
    ) -> None:
        """Take somebody into the group, from and until a moment where they are said; or change these and whether he
        manages it. Safe to call twice."""
        with naming("group member"), self._db.begin() as tx:
            until = self.require_manager_in(tx, actor, group_id)
            check_dates(starts_at, ends_at, self._clock.now())
            manages = is_manager or identity_id == actor.identity_id
            if manages and until is not None and (ends_at is None or ends_at > until):
                raise NotAllowedError(
                    f"Your own place in the group ends at {format_time(until)}: neither it nor that of another manager "
                    "whom you name lasts longer."
                )
            require_living_in(tx, identity_id)
            self._put_member(
                tx, actor, group_id, identity_id, is_manager=is_manager, starts_at=starts_at, ends_at=ends_at
            )

    def remove_member(self, actor: Actor, group_id: UUID, identity_id: UUID) -> None:
        """Take somebody out of the group; everybody may leave by himself. Safe to call twice."""
        with self._db.begin() as tx:
            if identity_id != actor.identity_id:
                self.require_manager_in(tx, actor, group_id)
            else:
                require_self_management(actor)
            gone = tx.execute(
                delete(group_members).where(
                    group_members.c.group_id == group_id, group_members.c.identity_id == identity_id
                )
            ).rowcount
            if gone:
                told = {"group": str(group_id), "identity": str(identity_id)}
                self._events.record(tx, facts.GROUP_MEMBER_REMOVED, None, actor, told)

    def get_group(self, actor: Actor, group_id: UUID) -> Group:
        """One group with its members; raises NotFoundError to everybody outside it."""
        require_reader(actor)
        with self._db.begin() as tx:
            found = self._load(tx, actor, [group_id])
        if not found:
            raise NotFoundError("There is no such group, or you may not see it.")
        return found[0]

    def list_groups(self, actor: Actor) -> list[Group]:
        """The caller's groups and those of organisations that he manages, for an administrator all; oldest first."""
        require_reader(actor)
        with self._db.begin() as tx:
            return self._load(tx, actor, None)

    def list_own_groups(self, actor: Actor) -> list[UUID]:
        """The groups that the caller is in, oldest first: what he is, so that every token may know it."""
        query = select_groups_of(require_identity(actor), self._clock.now()).order_by(group_members.c.group_id)
        with self._db.begin() as tx:
            return list(tx.execute(query).scalars())

    def forget_ended(self) -> int:
        """Remove memberships that are over, which count no more; for a daily job."""
        over = delete(group_members).where(group_members.c.ends_at <= self._clock.now())
        with self._db.begin() as tx:
            gone = tx.execute(over.returning(group_members.c.group_id, group_members.c.identity_id)).all()
            for group_id, identity_id in gone:
                told = {"group": str(group_id), "identity": str(identity_id), "by": "end"}
                self._events.record(tx, facts.GROUP_MEMBER_REMOVED, None, SYSTEM, told)
        return len(gone)

    def _put_member(
        self,
        tx: Connection,
        actor: Actor,
        group_id: UUID,
        identity_id: UUID,
        *,
        is_manager: bool,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
    ) -> None:
        change = {
            "is_manager": is_manager,
            "source": "local",
            "issuer": None,
            "starts_at": starts_at,
            "ends_at": ends_at,
        }
        row = upsert(group_members).values(group_id=group_id, identity_id=identity_id, **change)
        tx.execute(row.on_conflict_do_update(index_elements=["group_id", "identity_id"], set_=change))
        told = {"group": str(group_id), "identity": str(identity_id), "is_manager": is_manager}
        self._events.record(tx, facts.GROUP_MEMBER_ADDED, None, actor, {**told, **tell_dates(starts_at, ends_at)})

    def require_manager_in(self, tx: Connection, actor: Actor, group_id: UUID) -> datetime | None:
        """Until when somebody may say who is in the group, None: without an end; for who may.

        Raises NotFoundError to who may not see it.
        """
        if actor.kind is not ActorKind.SYSTEM:
            require_self_management(actor)
        group = next(iter(self._load(tx, actor, [group_id])), None)
        if group is None:
            raise NotFoundError("There is no such group, or you may not see it.")
        is_above = _sees_all(actor) or group.organisation_id in self._rights.managed_organisations(tx, actor)
        if is_above:
            return None
        if actor.identity_id not in group.managers:
            raise NotAllowedError("Only those who manage a group change its members.")
        return next(one.ends_at for one in group.memberships if one.identity_id == actor.identity_id)

    def _load(self, tx: Connection, actor: Actor, ids: list[UUID] | None) -> list[Group]:
        query = select(groups).order_by(groups.c.id)
        if ids is not None:
            query = query.where(groups.c.id.in_(ids))
        if not _sees_all(actor):
            mine = select_groups_of(require_identity(actor), self._clock.now())
            managed = self._rights.managed_organisations(tx, actor)
            query = query.where(or_(groups.c.id.in_(mine), groups.c.organisation_id.in_(managed)))
        rows = tx.execute(query).all()
        members, now = _load_members(tx, [row.id for row in rows]), self._clock.now()
        return [_group(row.id, row.organisation_id, row.name, members.get(row.id, []), now) for row in rows]


def tell_dates(starts_at: datetime | None, ends_at: datetime | None) -> dict[str, object]:
    """Beginning and end for an event, where there are any."""
    named = {"starts_at": starts_at, "ends_at": ends_at}
    return {name: format_time(moment) for name, moment in named.items() if moment is not None}


def _group(group_id: UUID, organisation_id: UUID, name: str, all_of_it: list[Membership], now: datetime) -> Group:
    present = [one for one in all_of_it if one.holds_at(now)]
    return Group(
        id=group_id,
        organisation_id=organisation_id,
        name=name,
        members=frozenset(one.identity_id for one in present),
        managers=frozenset(one.identity_id for one in present if one.is_manager),
        memberships=tuple(all_of_it),
    )


def _load_members(tx: Connection, group_ids: list[UUID]) -> dict[UUID, list[Membership]]:
    """The memberships of each group, in the order of their people."""
    found: dict[UUID, list[Membership]] = {}
    query = select(group_members).where(group_members.c.group_id.in_(group_ids)).order_by(group_members.c.identity_id)
    for row in tx.execute(query):
        one = Membership(row.identity_id, row.is_manager, row.source, row.starts_at, row.ends_at)
        found.setdefault(row.group_id, []).append(one)
    return found


def find_groups_among(tx: Connection, actor: Actor, group_ids: list[UUID], now: datetime) -> frozenset[UUID]:
    """Which of these groups the actor is in at this moment."""
    if actor.identity_id is None:
        return frozenset()
    query = select_groups_of(actor.identity_id, now).where(group_members.c.group_id.in_(group_ids))
    return frozenset(tx.execute(query).scalars())


def _sees_all(actor: Actor) -> bool:
    return actor.kind is ActorKind.SYSTEM or has_administrator_powers(actor)
