"""Accounts: the spaces that own archives, with their quota and profiles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import Enum
from uuid import UUID

from sqlalchemy import Connection, Row, Select, insert, or_, select, update

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity.callers import check_name, naming, require_identity, require_reader
from perdure.identity.grants import Grants
from perdure.identity.model import (
    Account,
    Action,
    Grantee,
    OrganisationThing,
    Role,
    fold_name,
    has_administrator_powers,
    strongest,
)
from perdure.identity.rights import Rights, select_grants, things_granted
from perdure.identity.tables import accounts, grants, identities
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.clock import Clock
from perdure.kernel.errors import BadInputError, NotFoundError
from perdure.kernel.ids import new_id

_KINDS = ("personal", "group", "beamline")


class Unchanged(Enum):
    """Stands for a value that a change leaves as it is, where None has a meaning."""

    VALUE = "unchanged"


UNCHANGED = Unchanged.VALUE


class Accounts:
    """Each identity has a personal account; groups and beamlines have accounts of their own."""

    def __init__(self, db: Database, clock: Clock, events: EventLog, rights: Rights, grants: Grants) -> None:
        self._db = db
        self._clock = clock
        self._events = events
        self._rights = rights
        self._grants = grants

    def create_account(
        self,
        actor: Actor,
        *,
        kind: str,
        name: str,
        owner_id: UUID,
        organisation_id: UUID,
        quota_bytes: int | None = None,
        allowed_profiles: Iterable[str] | None = None,
        quota_files: int | None = None,
    ) -> Account:
        """Make an account and its owner's grant; for administrators and those who manage the organisation."""
        with naming("account name"), self._db.begin() as tx:
            self._rights.require(tx, actor, Action.MANAGE_ORGANISATION, OrganisationThing(organisation_id))
            return self.create_account_in(
                tx,
                actor,
                Account(
                    id=new_id(),
                    organisation_id=organisation_id,
                    kind=kind,
                    name=name,
                    owner_id=owner_id,
                    quota_bytes=quota_bytes,
                    allowed_profiles=None if allowed_profiles is None else frozenset(allowed_profiles),
                    quota_files=quota_files,
                ),
            )

    def create_account_in(self, tx: Connection, actor: Actor, account: Account) -> Account:
        """As `create_account`, without asking who wants it."""
        if account.kind not in _KINDS:
            raise BadInputError(f"An account is one of {', '.join(_KINDS)}.", field="kind")
        account = replace(account, name=check_name(account.name, "account name"))
        check_quota(account.quota_bytes)
        check_quota(account.quota_files, field="quota_files")
        tx.execute(insert(accounts).values(_row(account)))
        told = {"account": str(account.id), "kind": account.kind, "owner": str(account.owner_id)}
        self._events.record(tx, facts.ACCOUNT_CREATED, None, actor, told)
        self._grants.give_first_owner_in(tx, actor, account.thing, account.owner_id)
        return account

    def get_account(self, actor: Actor, account_id: UUID) -> Account:
        """One account with the caller's role on it; raises NotFoundError when he has none."""
        with self._db.begin() as tx:
            account = self.get_account_in(tx, account_id)
            self._rights.require(tx, actor, Action.READ_ACCOUNT, account.thing)
            return replace(account, role=self._roles(tx, actor, [account.id]).get(account.id))

    def get_account_in(self, tx: Connection, account_id: UUID, *, lock: bool = False) -> Account:
        """One account, without asking who wants to know; raises NotFoundError. Locked, nobody else changes it."""
        query = select(accounts).where(accounts.c.id == account_id)
        return _one(tx, query.with_for_update(key_share=True) if lock else query)

    def get_personal_account(self, actor: Actor) -> Account:
        """The caller's own account, with his role on it."""
        identity_id = require_identity(actor)
        with self._db.begin() as tx:
            account = self.get_personal_account_in(tx, identity_id)
            self._rights.require(tx, actor, Action.READ_ACCOUNT, account.thing)
            return replace(account, role=self._roles(tx, actor, [account.id]).get(account.id))

    def get_personal_account_in(self, tx: Connection, identity_id: UUID) -> Account:
        """The personal account of an identity; raises NotFoundError."""
        return _one(tx, select(accounts).where(accounts.c.owner_id == identity_id, accounts.c.kind == "personal"))

    def list_accounts(self, actor: Actor, *, after: UUID | None = None, limit: int = 1000) -> list[Account]:
        """The accounts that the caller may see, oldest first, each with his role on it."""
        require_reader(actor)
        with self._db.begin() as tx:
            found = [_account(row) for row in tx.execute(self._visible(actor, after, limit))]
            roles = self._roles(tx, actor, [account.id for account in found])
        return [replace(account, role=roles.get(account.id)) for account in found]

    def change_account(
        self,
        actor: Actor,
        account_id: UUID,
        *,
        name: str | None = None,
        quota_bytes: int | Unchanged | None = UNCHANGED,
        allowed_profiles: Iterable[str] | Unchanged | None = UNCHANGED,
        quota_files: int | Unchanged | None = UNCHANGED,
    ) -> Account:
        """Change what is given: the name by those who manage the account, the rest by its organisation's."""
        with naming("account name"), self._db.begin() as tx:
            account = self.get_account_in(tx, account_id, lock=True)
            self._rights.require(tx, actor, Action.MANAGE_ACCOUNT, account.thing)
            if not (quota_bytes is UNCHANGED and allowed_profiles is UNCHANGED and quota_files is UNCHANGED):
                home = OrganisationThing(account.organisation_id)
                self._rights.require(tx, actor, Action.MANAGE_ORGANISATION, home)
            return self.save_account_in(
                tx, actor, account, _changed(account, name, quota_bytes, allowed_profiles, quota_files)
            )

    def transfer_account(self, actor: Actor, account_id: UUID, to_id: UUID) -> Account:
        """Make somebody the owner of an account of a group or beamline, in the place of who owned it.

        For its owner, and for those who manage its organisation. Raises BadInputError for a personal account.
        """
        with self._db.begin() as tx:
            account = self.get_account_in(tx, account_id, lock=True)
            self._rights.require(tx, actor, Action.MANAGE_ACCOUNT, account.thing)
            if account.kind == "personal":
                raise BadInputError("A personal account stays with its person; hand over its archives.", field="id")
            active = (identities.c.id == to_id) & (identities.c.state == "active")
            if tx.execute(select(identities.c.id).where(active)).first() is None:
                raise BadInputError("Nobody who can log in here has this identity.", field="to")
            to = Grantee(identity_id=to_id)
            pass_on = self._grants.require_giver_in(tx, actor, account.thing, to, Role.OWNER)
            before, after = account, replace(account, owner_id=to_id)
            tx.execute(update(accounts).where(accounts.c.id == account_id).values(owner_id=to_id))
            self._grants.hand_over_in(tx, actor, account.thing, {before.owner_id}, to_id, pass_on=pass_on)
            told = {"account": str(account_id), "from": str(before.owner_id), "to": str(to_id)}
            self._events.record(tx, facts.ACCOUNT_TRANSFERRED, None, actor, told)
            return replace(after, role=self._roles(tx, actor, [account_id]).get(account_id))

    def save_account_in(self, tx: Connection, actor: Actor, before: Account, after: Account) -> Account:
        """Write an account that was read with its lock, without asking who wants it."""
        check_quota(after.quota_bytes)
        check_quota(after.quota_files, field="quota_files")
        tx.execute(update(accounts).where(accounts.c.id == after.id).values(_row(after)))
        self._events.record(tx, facts.ACCOUNT_CHANGED, None, actor, _told(before, after))
        return after

    def _visible(self, actor: Actor, after: UUID | None, limit: int) -> Select[*tuple[object, ...]]:
        query = select(accounts).order_by(accounts.c.id).limit(limit)
        if actor.kind is not ActorKind.SYSTEM and not has_administrator_powers(actor):
            now = self._clock.now()
            managed = accounts.c.organisation_id.in_(things_granted(actor, "organisation", now, roles=[Role.MANAGER]))
            query = query.where(or_(accounts.c.id.in_(things_granted(actor, "account", now)), managed))
        return query if after is None else query.where(accounts.c.id > after)

    def _roles(self, tx: Connection, actor: Actor, ids: list[UUID]) -> dict[UUID, Role]:
        columns, there = [grants.c.on_id, grants.c.role], grants.c.on_id.in_(ids)
        found: dict[UUID, list[Role]] = {}
        for row in tx.execute(select_grants(actor, self._clock.now(), columns, there)):
            found.setdefault(row.on_id, []).append(Role(row.role))
        return {on_id: role for on_id, roles in found.items() if (role := strongest(roles))}


def _one(tx: Connection, query: Select[*tuple[object, ...]]) -> Account:
    row = tx.execute(query).first()
    if row is None:
        raise NotFoundError("There is no such account, or you may not see it.")
    return _account(row)


def _changed(
    account: Account,
    name: str | None,
    quota_bytes: int | Unchanged | None,
    allowed_profiles: Iterable[str] | Unchanged | None,
    quota_files: int | Unchanged | None,
) -> Account:
    if name is not None:
        account = replace(account, name=check_name(name, "account name"))
    if not isinstance(quota_bytes, Unchanged):
        account = replace(account, quota_bytes=quota_bytes)
    if not isinstance(quota_files, Unchanged):
        account = replace(account, quota_files=quota_files)
    if not isinstance(allowed_profiles, Unchanged):
        profiles = None if allowed_profiles is None else frozenset(allowed_profiles)
        account = replace(account, allowed_profiles=profiles)
    return account


def _told(before: Account, after: Account) -> dict[str, object]:
    profiles = after.allowed_profiles
    return {
        "account": str(after.id),
        "renamed": before.name != after.name,
        "quota_bytes": after.quota_bytes,
        "quota_files": after.quota_files,
        "allowed_profiles": None if profiles is None else sorted(profiles),
    }


def check_quota(quota: int | None, *, field: str = "quota_bytes") -> None:
    """Raises BadInputError for what is no quota."""
    if quota is not None and not 0 <= quota < 1 << 63:
        unit = field.removeprefix("quota_")
        raise BadInputError(f"A quota is a number of {unit}, or null for none.", field=field)


def _row(account: Account) -> dict[str, object]:
    profiles = account.allowed_profiles
    return {
        "id": account.id,
        "organisation_id": account.organisation_id,
        "kind": account.kind,
        "name": account.name,
        "name_folded": fold_name(account.name),
        "owner_id": account.owner_id,
        "quota_bytes": account.quota_bytes,
        "quota_files": account.quota_files,
        "allowed_profiles": None if profiles is None else sorted(profiles),
    }


def _account(row: Row[*tuple[object, ...]]) -> Account:
    return Account(
        id=row.id,
        organisation_id=row.organisation_id,
        kind=row.kind,
        name=row.name,
        owner_id=row.owner_id,
        quota_bytes=row.quota_bytes,
        quota_files=row.quota_files,
        allowed_profiles=None if row.allowed_profiles is None else frozenset(row.allowed_profiles),
    )
