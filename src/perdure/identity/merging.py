"""Two identities of one person become one. What is the person's in force moves; who did what stays as it was told.

The identity that ends is an alias of the kept one for ever: its id stays in journals, statements and the log, and leads
to the kept one. What archives know of roles is moved by them, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection, Row, and_, delete, func, select, update

from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity.arrivals import MOST_CREDENTIALS
from perdure.identity.erasing import NO_ADDRESS, forget_mail_of
from perdure.identity.errors import MergeRefusedError
from perdure.identity.grants import Grants
from perdure.identity.model import WAYS, CredentialKind, IdentityState
from perdure.identity.rights import require_living
from perdure.identity.sessions import end_sessions
from perdure.identity.tables import (
    accounts,
    credentials,
    grants,
    group_members,
    identities,
    passkeys,
    service_accounts,
    sessions,
    tokens,
)
from perdure.identity.tokens import revoke_tokens_of
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.clock import Clock
from perdure.kernel.errors import NotFoundError

_FACTORS = (CredentialKind.TOTP.value, CredentialKind.RECOVERY.value)
_IS_BEGUN = and_(credentials.c.kind == CredentialKind.TOTP.value, credentials.c.last_step.is_(None))


@dataclass(frozen=True, slots=True)
class MergePlan:
    """What a merge does: what moves to the kept identity, and what ends. Nothing has been done yet.

    `ending_logins` are login names whose password ends, because the kept identity has one; `second_factor` says which
    of the two stays: `kept`, `moved`, or None where there is none.
    """

    kept_id: UUID
    kept_name: str
    gone_id: UUID
    gone_name: str
    logins: tuple[str, ...]
    ending_logins: tuple[str, ...]
    second_factor: Literal["kept", "moved"] | None
    groups: int
    accounts: tuple[tuple[UUID, str], ...]
    roles: int
    sessions: int
    tokens: int
    passkeys: int


class Merging:
    """Functions take part in the transaction of who asked whether it may be; they refuse what cannot be."""

    def __init__(self, clock: Clock, events: EventLog, grants: Grants) -> None:
        self._clock = clock
        self._events = events
        self._grants = grants

    def lock_in(self, tx: Connection, identity_ids: Collection[UUID]) -> None:
        """Hold these identities until the transaction ends: nothing new is given to them meanwhile."""
        query = select(identities.c.id).where(identities.c.id.in_(identity_ids))
        tx.execute(query.order_by(identities.c.id).with_for_update())

    def plan_merge_in(self, tx: Connection, kept_id: UUID, gone_id: UUID) -> MergePlan:
        """What merging these two would do; raises MergeRefusedError when it cannot be done."""
        kept, gone = self._require_both(tx, kept_id, gone_id)
        ways = _credentials_of(tx, gone_id)
        ending = _ending_kinds(tx, kept_id)
        has_factor = {owner: CredentialKind.TOTP.value in _kinds_of(tx, owner) for owner in (kept_id, gone_id)}
        now = self._clock.now()
        living = (tokens.c.identity_id == gone_id) & tokens.c.revoked_at.is_(None) & (tokens.c.expires_at > now)
        named = [(one.kind, f"{one.kind} {one.subject}") for one in ways if one.kind in WAYS]
        owned = select(accounts.c.id, accounts.c.name).where(accounts.c.owner_id == gone_id).order_by(accounts.c.id)
        return MergePlan(
            kept_id=kept_id,
            kept_name=kept.display_name,
            gone_id=gone_id,
            gone_name=gone.display_name,
            logins=tuple(text for kind, text in named if kind not in ending),
            ending_logins=tuple(text for kind, text in named if kind in ending),
            second_factor="kept" if has_factor[kept_id] else "moved" if has_factor[gone_id] else None,
            groups=_count(tx, select(func.count()).where(group_members.c.identity_id == gone_id)),
            accounts=tuple((row.id, row.name) for row in tx.execute(owned)),
            roles=_count(tx, select(func.count()).where(grants.c.identity_id == gone_id)),
            sessions=_count(
                tx, select(func.count()).where(sessions.c.identity_id == gone_id, sessions.c.expires_at > now)
            ),
            tokens=_count(tx, select(func.count()).where(living)),
            passkeys=_count(tx, select(func.count()).where(passkeys.c.identity_id == gone_id)),
        )

    def find_granted_archives_in(self, tx: Connection, identity_id: UUID) -> list[UUID]:
        """The archives on which somebody himself has a role, ended ones too, in the order of their ids."""
        query = select(grants.c.on_id).distinct().where(grants.c.identity_id == identity_id)
        return sorted(tx.execute(query.where(grants.c.on_kind == "archive")).scalars())

    def merge_in(self, tx: Connection, actor: Actor, plan: MergePlan, reason: str) -> None:
        """Merge what this domain has of them, by a plan of this transaction, in which both are locked.

        Roles on archives have been moved by the caller.
        """
        kept_id, gone_id = plan.kept_id, plan.gone_id
        self._move_credentials(tx, kept_id, gone_id)
        tx.execute(delete(passkeys).where(passkeys.c.identity_id == gone_id))  # each is bound to the id of its owner
        end_sessions(tx, gone_id)
        for token_id in revoke_tokens_of(tx, gone_id, self._clock.now()):
            self._events.record(tx, facts.TOKEN_REVOKED, None, actor, {"token": str(token_id)})
        self._move_memberships(tx, kept_id, gone_id)
        self._move_accounts(tx, kept_id, gone_id)
        responsible = update(service_accounts).where(service_accounts.c.responsible_id == gone_id)
        tx.execute(responsible.values(responsible_id=kept_id))
        self._grants.move_grants_in(tx, gone_id, kept_id)
        tx.execute(update(identities).where(identities.c.merged_into == gone_id).values(merged_into=kept_id))
        orcid = select(identities.c.orcid).where(identities.c.id == gone_id).scalar_subquery()
        own = update(identities).where(identities.c.id == kept_id)
        tx.execute(own.values(orcid=func.coalesce(identities.c.orcid, orcid)))
        ended = {"state": IdentityState.MERGED.value, "merged_into": kept_id, "ended_at": self._clock.now()}
        ended |= {"ended_by": actor.identity_id, "ended_reason": reason, "is_administrator": False, **NO_ADDRESS}
        forget_mail_of(tx, gone_id)
        tx.execute(update(identities).where(identities.c.id == gone_id).values(**ended))
        told = {"identity": str(kept_id), "merged": str(gone_id), "roles": plan.roles, "tokens": plan.tokens}
        told |= {"groups": plan.groups, "accounts": [str(one) for one, _ in plan.accounts]}
        self._events.record(tx, facts.IDENTITY_MERGED, None, actor, told)

    def list_aliases_in(self, tx: Connection, identity_id: UUID) -> frozenset[UUID]:
        """The identities that were merged into this one."""
        return frozenset(tx.execute(select(identities.c.id).where(identities.c.merged_into == identity_id)).scalars())

    @staticmethod
    def _require_both(tx: Connection, kept_id: UUID, gone_id: UUID) -> tuple[Row[Any], Row[Any]]:  # Any: all columns
        found = {row.id: row for row in tx.execute(select(identities).where(identities.c.id.in_([kept_id, gone_id])))}
        if kept_id == gone_id:
            raise MergeRefusedError("These are one and the same identity.")
        if len(found) < 2:
            raise NotFoundError("There is no such identity.")
        kept, gone = found[kept_id], found[gone_id]
        for row in (kept, gone):
            require_living(row)
            if row.state != IdentityState.ACTIVE.value:
                raise MergeRefusedError(f"{row.display_name} is disabled: enable it first, if that is right.")
        if (kept.kind, gone.kind) != (ActorKind.PERSON.value, ActorKind.PERSON.value):
            raise MergeRefusedError("Only persons are merged: hand what a service account has to another one.")
        foreign = _find_service_elsewhere(tx, gone_id, kept.organisation_id)
        if foreign is not None:
            raise MergeRefusedError(
                f"The identity that ends is responsible for {foreign}, a service account of another organisation than "
                "that of the kept one: hand it over first."
            )
        if gone.is_administrator and not kept.is_administrator:
            raise MergeRefusedError(
                "The identity that ends is an administrator and the kept one is not: merge the other way round, or "
                "make the kept one an administrator first."
            )
        together = select(func.count()).where(credentials.c.identity_id.in_([kept_id, gone_id]))
        if _count(tx, together.where(credentials.c.kind.in_(sorted(WAYS)))) > MOST_CREDENTIALS:
            raise MergeRefusedError(f"An identity has at most {MOST_CREDENTIALS} logins: unlink some first.")
        return kept, gone

    @staticmethod
    def _move_credentials(tx: Connection, kept_id: UUID, gone_id: UUID) -> None:
        mine = credentials.c.identity_id == gone_id
        # One that was begun protects nothing: it neither comes along, nor takes the place of one that does.
        tx.execute(delete(credentials).where(credentials.c.identity_id.in_([kept_id, gone_id]), _IS_BEGUN))
        tx.execute(delete(credentials).where(mine, credentials.c.kind.in_(sorted(_ending_kinds(tx, kept_id)))))
        tx.execute(update(credentials).where(mine).values(identity_id=kept_id))

    @staticmethod
    def _move_memberships(tx: Connection, kept_id: UUID, gone_id: UUID) -> None:
        """A place that lasts longer, or manages, takes the place of one that does less."""
        c = group_members.c
        held = {row.group_id: row for row in tx.execute(select(group_members).where(c.identity_id == kept_id))}
        for row in tx.execute(select(group_members).where(c.identity_id == gone_id)).all():
            other = held.get(row.group_id)
            own = (c.group_id == row.group_id) & (c.identity_id == gone_id)
            if other is not None and not _is_wider_place(row, other):
                tx.execute(delete(group_members).where(own))
                continue
            if other is not None:
                tx.execute(delete(group_members).where(c.group_id == row.group_id, c.identity_id == kept_id))
            tx.execute(update(group_members).where(own).values(identity_id=kept_id))

    @staticmethod
    def _move_accounts(tx: Connection, kept_id: UUID, gone_id: UUID) -> None:
        """A second personal account becomes one of a group: its archives, quota and organisation stay as they are."""
        personal = accounts.c.kind == "personal"
        if tx.execute(select(accounts.c.id).where(accounts.c.owner_id == kept_id, personal)).first() is not None:
            tx.execute(update(accounts).where(accounts.c.owner_id == gone_id, personal).values(kind="group"))
        tx.execute(update(accounts).where(accounts.c.owner_id == gone_id).values(owner_id=kept_id))


def _find_service_elsewhere(tx: Connection, responsible_id: UUID, organisation_id: UUID) -> str | None:
    """The name of a service account that somebody is responsible for in another organisation than this one."""
    query = (
        select(identities.c.display_name)
        .join(service_accounts, service_accounts.c.identity_id == identities.c.id)
        .where(service_accounts.c.responsible_id == responsible_id, identities.c.organisation_id != organisation_id)
    )
    found: str | None = tx.execute(query.limit(1)).scalar()
    return found


def _credentials_of(tx: Connection, identity_id: UUID) -> list[Row[Any]]:  # Any: all columns
    query = select(credentials).where(credentials.c.identity_id == identity_id).order_by(credentials.c.id)
    return list(tx.execute(query))


def _kinds_of(tx: Connection, identity_id: UUID) -> set[str]:
    """Without a second factor that was begun and is not in force."""
    query = select(credentials.c.kind).where(credentials.c.identity_id == identity_id, ~_IS_BEGUN)
    return set(tx.execute(query).scalars())


def _ending_kinds(tx: Connection, kept_id: UUID) -> set[str]:
    """Of what one can have only one of, the kept identity keeps its own."""
    held = _kinds_of(tx, kept_id)
    ending = held & {CredentialKind.PASSWORD.value}
    return ending | (set(_FACTORS) if CredentialKind.TOTP.value in held else set())


def _is_wider_place(one: Row[Any], other: Row[Any]) -> bool:  # Any: rows of group_members
    """Whether a place gives all that the other does: so long, and as a manager."""
    starts = one.starts_at is None or (other.starts_at is not None and one.starts_at <= other.starts_at)
    ends = one.ends_at is None or (other.ends_at is not None and one.ends_at >= other.ends_at)
    is_local = one.source == "local" or other.source != "local"
    return bool(starts and ends and is_local and (one.is_manager or not other.is_manager))


def _count(tx: Connection, query: Any) -> int:  # Any: a select of one number
    return int(tx.execute(query).scalar_one())
