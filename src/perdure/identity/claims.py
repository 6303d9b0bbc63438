"""Membership in groups that follows from what a login brings: rules from entitlements to groups."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, delete, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity.callers import naming
from perdure.identity.groups import Groups
from perdure.identity.model import Action, ClaimRule, OrganisationThing
from perdure.identity.names import check_institution
from perdure.identity.rights import Rights
from perdure.identity.tables import claim_rules, group_members, groups
from perdure.kernel.actor import SYSTEM, Actor
from perdure.kernel.errors import BadInputError, NotFoundError
from perdure.kernel.ids import new_id

_LONGEST_PATTERN = 1000
_MOST_RULES = 100
FROM_CLAIM = "claim"


class Claims:
    """Those who manage a group's organisation say which entitlements lead into it: a rule shows who has them."""

    def __init__(self, db: Database, events: EventLog, rights: Rights, groups: Groups) -> None:
        self._db = db
        self._events = events
        self._rights = rights
        self._groups = groups

    def add_claim_rule(self, actor: Actor, group_id: UUID, *, entitlement: str, issuer: str) -> ClaimRule:
        """Let into the group who logs in from `issuer` with the entitlement; one that ends with `*` is a beginning."""
        entitlement = entitlement.strip()
        body = entitlement.removesuffix("*")
        if not body or "*" in body or len(entitlement) > _LONGEST_PATTERN or not entitlement.isprintable():
            raise BadInputError("An entitlement is printable text, with `*` at most at its end.", field="entitlement")
        rule = ClaimRule(new_id(), group_id, check_institution(issuer), entitlement)
        with naming("rule"), self._db.begin() as tx:
            self._require_above(tx, actor, group_id)
            mine = select(func.count()).where(claim_rules.c.group_id == group_id)
            if tx.execute(mine).scalar_one() >= _MOST_RULES:
                raise BadInputError(f"A group has at most {_MOST_RULES} rules.", field="entitlement")
            row = {"id": rule.id, "group_id": group_id, "issuer": rule.issuer, "entitlement": rule.entitlement}
            tx.execute(insert(claim_rules).values(row))
            self._events.record(tx, facts.CLAIM_RULE_ADDED, None, actor, {"rule": str(rule.id), "group": str(group_id)})
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
            return [ClaimRule(row.id, row.group_id, row.issuer, row.entitlement) for row in tx.execute(query)]

    def follow_in(self, tx: Connection, identity_id: UUID, issuer: str, entitlements: frozenset[str]) -> None:
        """Put the identity into the groups that the login leads to, and out of those that it came to by one like it."""
        rules = tx.execute(select(claim_rules).where(claim_rules.c.issuer == issuer)).all()
        wanted = {rule.group_id for rule in rules if _fits(rule.entitlement, entitlements)}
        mine = group_members.c.identity_id == identity_id
        came = (group_members.c.source == FROM_CLAIM) & (group_members.c.issuer == issuer)
        held = set(tx.execute(select(group_members.c.group_id).where(mine)).scalars())
        brought = set(tx.execute(select(group_members.c.group_id).where(mine, came)).scalars())
        for group_id in sorted(wanted - held):
            row = upsert(group_members).values(
                group_id=group_id, identity_id=identity_id, source=FROM_CLAIM, issuer=issuer
            )
            if tx.execute(row.on_conflict_do_nothing()).rowcount:
                self._tell(tx, facts.GROUP_MEMBER_ADDED, group_id, identity_id)
        for group_id in sorted(brought - wanted):
            tx.execute(delete(group_members).where(group_members.c.group_id == group_id, mine, came))
            self._tell(tx, facts.GROUP_MEMBER_REMOVED, group_id, identity_id)

    def _tell(self, tx: Connection, event_type: str, group_id: UUID, identity_id: UUID) -> None:
        told = {"group": str(group_id), "identity": str(identity_id), "by": FROM_CLAIM}
        self._events.record(tx, event_type, None, SYSTEM, told)


def _fits(pattern: str, entitlements: frozenset[str]) -> bool:
    if pattern.endswith("*"):
        return any(one.startswith(pattern[:-1]) for one in entitlements)
    return pattern in entitlements
