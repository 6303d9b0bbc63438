"""Groups of identities, to which roles are granted as to one."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, delete, insert, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity.callers import check_name, naming, require_identity, require_reader, require_self_management
from perdure.identity.model import Group, fold_name, has_administrator_powers
from perdure.identity.rights import Rights, select_groups_of
from perdure.identity.tables import group_members, groups
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.errors import BadInputError, NotAllowedError, NotFoundError
from perdure.kernel.ids import new_id


class Groups:
    """Whoever makes a group manages it. Its members see it, and those who manage its organisation; nobody else."""

    def __init__(self, db: Database, events: EventLog, rights: Rights) -> None:
        self._db = db
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

    def add_member(self, actor: Actor, group_id: UUID, identity_id: UUID, *, is_manager: bool = False) -> None:
        """Take somebody into the group, or change whether he manages it; safe to call twice."""
        with naming("group member"), self._db.begin() as tx:
            self.require_manager_in(tx, actor, group_id)
            self._put_member(tx, actor, group_id, identity_id, is_manager=is_manager)

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
        query = select_groups_of(require_identity(actor)).order_by(group_members.c.group_id)
        with self._db.begin() as tx:
            return list(tx.execute(query).scalars())

    def _put_member(self, tx: Connection, actor: Actor, group_id: UUID, identity_id: UUID, *, is_manager: bool) -> None:
        row = upsert(group_members).values(group_id=group_id, identity_id=identity_id, is_manager=is_manager)
        change = {"is_manager": is_manager, "source": "local", "issuer": None}
        tx.execute(row.on_conflict_do_update(index_elements=["group_id", "identity_id"], set_=change))
        told = {"group": str(group_id), "identity": str(identity_id), "is_manager": is_manager}
        self._events.record(tx, facts.GROUP_MEMBER_ADDED, None, actor, told)

    def require_manager_in(self, tx: Connection, actor: Actor, group_id: UUID) -> None:
        """Return for who may say who is in the group; raises NotFoundError to who may not see it."""
        if actor.kind is not ActorKind.SYSTEM:
            require_self_management(actor)
        group = next(iter(self._load(tx, actor, [group_id])), None)
        if group is None:
            raise NotFoundError("There is no such group, or you may not see it.")
        is_above = _sees_all(actor) or group.organisation_id in self._rights.managed_organisations(tx, actor)
        if not is_above and actor.identity_id not in group.managers:
            raise NotAllowedError("Only those who manage a group change its members.")

    def _load(self, tx: Connection, actor: Actor, ids: list[UUID] | None) -> list[Group]:
        query = select(groups).order_by(groups.c.id)
        if ids is not None:
            query = query.where(groups.c.id.in_(ids))
        if not _sees_all(actor):
            mine = select_groups_of(require_identity(actor))
            managed = self._rights.managed_organisations(tx, actor)
            query = query.where(or_(groups.c.id.in_(mine), groups.c.organisation_id.in_(managed)))
        rows = tx.execute(query).all()
        members = load_members(tx, [row.id for row in rows])
        return [
            Group(
                id=row.id,
                organisation_id=row.organisation_id,
                name=row.name,
                members=frozenset(members.get(row.id, {})),
                managers=frozenset(one for one, manages in members.get(row.id, {}).items() if manages),
            )
            for row in rows
        ]


def load_members(tx: Connection, group_ids: list[UUID]) -> dict[UUID, dict[UUID, bool]]:
    """The members of each group, and whether they manage it."""
    found: dict[UUID, dict[UUID, bool]] = {}
    for row in tx.execute(select(group_members).where(group_members.c.group_id.in_(group_ids))):
        found.setdefault(row.group_id, {})[row.identity_id] = row.is_manager
    return found


def find_groups_among(tx: Connection, actor: Actor, group_ids: list[UUID]) -> frozenset[UUID]:
    """Which of these groups the actor is in."""
    if actor.identity_id is None:
        return frozenset()
    query = select_groups_of(actor.identity_id).where(group_members.c.group_id.in_(group_ids))
    return frozenset(tx.execute(query).scalars())


def _sees_all(actor: Actor) -> bool:
    return actor.kind is ActorKind.SYSTEM or has_administrator_powers(actor)
