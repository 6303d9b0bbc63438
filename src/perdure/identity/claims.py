"""Membership in groups that follows from what a login brings: rules from entitlements to groups."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, delete, func, insert, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity.callers import naming
from perdure.identity.groups import Groups, tell_dates
from perdure.identity.memberships import check_dates
from perdure.identity.model import Action, ClaimRule, Interval, OrganisationThing, find_interval
from perdure.identity.names import check_institution
from perdure.identity.rights import Rights
from perdure.identity.tables import claim_rules, group_members, groups
from perdure.kernel.actor import SYSTEM, Actor
from perdure.kernel.clock import Clock
from perdure.kernel.errors import BadInputError, NotFoundError
from perdure.kernel.ids import new_id

_LONGEST_PATTERN = 1000
_MOST_RULES = 100
FROM_CLAIM = "claim"


class Claims:
    """Those who manage a group's organisation say which entitlements lead into it: a rule shows who has them."""

    def __init__(self, db: Database, clock: Clock, events: EventLog, rights: Rights, groups: Groups) -> None:
        self._db = db
        self._clock = clock
        self._events = events
        self._rights = rights
        self._groups = groups

    def add_claim_rule(
        self,
        actor: Actor,
        group_id: UUID,
        *,
        entitlement: str,
        issuer: str,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
    ) -> ClaimRule:
        """Let into the group who logs in from `issuer` with the entitlement; one that ends with `*` is a beginning.

        With dates he is in the group between them only, whenever he logged in.
        """
        entitlement = entitlement.strip()
        body = entitlement.removesuffix("*")
        if not body or "*" in body or len(entitlement) > _LONGEST_PATTERN or not entitlement.isprintable():
            raise BadInputError("An entitlement is printable text, with `*` at most at its end.", field="entitlement")
        check_dates(starts_at, ends_at, self._clock.now())
        rule = ClaimRule(new_id(), group_id, check_institution(issuer), entitlement, starts_at, ends_at)
        with naming("rule"), self._db.begin() as tx:
            self._require_above(tx, actor, group_id)
            mine = select(func.count()).where(claim_rules.c.group_id == group_id)
            if tx.execute(mine).scalar_one() >= _MOST_RULES:
                raise BadInputError(f"A group has at most {_MOST_RULES} rules.", field="entitlement")
            tx.execute(insert(claim_rules).values(asdict(rule)))
            told = {"rule": str(rule.id), "group": str(group_id), **tell_dates(starts_at, ends_at)}
            self._events.record(tx, facts.CLAIM_RULE_ADDED, None, actor, told)
        return rule

    def remove_claim_rule(self, actor: Actor, group_id: UUID, rule_id: UUID) -> None:
        """Take a rule back; who came by it leaves at his next login, or at once when its issuer has no other here."""
        with self._db.begin() as tx:
            self._require_above(tx, actor, group_id)
            of_group = claim_rules.c.group_id == group_id
            if not tx.execute(delete(claim_rules).where(of_group, claim_rules.c.id == rule_id)).rowcount:
                raise NotFoundError("The group has no such rule.")
            gone = delete(group_members).where(
                group_members.c.group_id == group_id,
                group_members.c.source == FROM_CLAIM,
                group_members.c.issuer.not_in(select(claim_rules.c.issuer).where(of_group)),
            )
            for identity_id in tx.execute(gone.returning(group_members.c.identity_id)).scalars().all():
                self._tell(tx, facts.GROUP_MEMBER_REMOVED, group_id, identity_id)
            told = {"rule": str(rule_id), "group": str(group_id)}
            self._events.record(tx, facts.CLAIM_RULE_REMOVED, None, actor, told)

    def _require_above(self, tx: Connection, actor: Actor, group_id: UUID) -> None:
        self._groups.require_manager_in(tx, actor, group_id)
        home = tx.execute(select(groups.c.organisation_id).where(groups.c.id == group_id)).scalar_one()
        self._rights.require(tx, actor, Action.MANAGE_ORGANISATION, OrganisationThing(home))

    def list_claim_rules(self, actor: Actor, group_id: UUID) -> list[ClaimRule]:
        """The rules of a group, oldest first, for those who may see it."""
        self._groups.get_group(actor, group_id)
        query = select(claim_rules).where(claim_rules.c.group_id == group_id).order_by(claim_rules.c.id)
        with self._db.begin() as tx:
            return [_rule(row) for row in tx.execute(query)]

    def follow_in(self, tx: Connection, identity_id: UUID, issuer: str, entitlements: frozenset[str]) -> None:
        """Put the identity into the groups that the login leads to, and out of those that it came to by one like it."""
        wanted = self._find_wanted(tx, issuer, entitlements)
        mine = group_members.c.identity_id == identity_id
        came = (group_members.c.source == FROM_CLAIM) & (group_members.c.issuer == issuer)
        is_over = group_members.c.ends_at <= self._clock.now()
        brought = {
            row.group_id: (row.starts_at, row.ends_at) for row in tx.execute(select(group_members).where(mine, came))
        }
        for group_id in sorted(group_id for group_id, when in wanted.items() if brought.get(group_id) != when):
            starts_at, ends_at = wanted[group_id]
            fresh = {"source": FROM_CLAIM, "issuer": issuer, "starts_at": starts_at, "ends_at": ends_at}
            row = upsert(group_members).values(group_id=group_id, identity_id=identity_id, **fresh)
            put = row.on_conflict_do_update(
                index_elements=["group_id", "identity_id"],
                set_={**fresh, "is_manager": False},
                where=or_(came, is_over),  # a place that somebody gave him, or another claim, stays as it is
            )
            if tx.execute(put.returning(group_members.c.group_id)).first() is not None:
                self._tell(tx, facts.GROUP_MEMBER_ADDED, group_id, identity_id, **tell_dates(starts_at, ends_at))
        for group_id in sorted(brought.keys() - wanted.keys()):
            tx.execute(delete(group_members).where(group_members.c.group_id == group_id, mine, came))
            self._tell(tx, facts.GROUP_MEMBER_REMOVED, group_id, identity_id)

    def _find_wanted(self, tx: Connection, issuer: str, entitlements: frozenset[str]) -> dict[UUID, Interval]:
        """The groups that these entitlements lead to, now or later, each with when."""
        found: dict[UUID, list[Interval]] = {}
        for rule in tx.execute(select(claim_rules).where(claim_rules.c.issuer == issuer)):
            if _fits(rule.entitlement, entitlements):
                found.setdefault(rule.group_id, []).append((rule.starts_at, rule.ends_at))
        now = self._clock.now()
        return {group_id: when for group_id, all_of_it in found.items() if (when := find_interval(all_of_it, now))}

    def _tell(self, tx: Connection, event_type: str, group_id: UUID, identity_id: UUID, **dates: object) -> None:
        told = {"group": str(group_id), "identity": str(identity_id), "by": FROM_CLAIM, **dates}
        self._events.record(tx, event_type, None, SYSTEM, told)


def _rule(row: Row[Any]) -> ClaimRule:  # Any: all columns
    return ClaimRule(row.id, row.group_id, row.issuer, row.entitlement, row.starts_at, row.ends_at)


def find_groups_of(tx: Connection, issuer: str, entitlements: frozenset[str], now: datetime) -> frozenset[UUID]:
    """The groups that rules in force lead into who has these entitlements of an issuer; nobody is put into any."""
    if not entitlements:
        return frozenset()
    begun = or_(claim_rules.c.starts_at.is_(None), claim_rules.c.starts_at <= now)
    lasting = or_(claim_rules.c.ends_at.is_(None), claim_rules.c.ends_at > now)
    rules = tx.execute(select(claim_rules).where(claim_rules.c.issuer == issuer, begun, lasting)).all()
    return frozenset(rule.group_id for rule in rules if _fits(rule.entitlement, entitlements))


def _fits(pattern: str, entitlements: frozenset[str]) -> bool:
    if pattern.endswith("*"):
        return any(one.startswith(pattern[:-1]) for one in entitlements)
    return pattern in entitlements
