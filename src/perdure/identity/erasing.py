"""What is kept of a person, told to him, and removed when he is erased.

The id stays where it was told: in journals, statements and the log. It leads to a pseudonym from then on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, Table, delete, func, select, update

from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity.grants import render_grant, to_grant
from perdure.identity.model import WAYS, IdentityState, Role
from perdure.identity.people import lock_administrators, require_administrator
from perdure.identity.tables import (
    accounts,
    applications,
    credentials,
    grants,
    group_members,
    groups,
    identities,
    mail_keys,
    mails,
    passkeys,
    quota_requests,
    service_accounts,
    sessions,
    tokens,
)
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.clock import Clock, format_time
from perdure.kernel.errors import BadInputError
from perdure.kernel.ids import short_form

Rows = list[dict[str, object]]
NO_ADDRESS: dict[str, object] = {"email": None, "email_folded": None, "email_confirmed_at": None}


class Erasing:
    """Functions take part in the transaction of who asked whether it may be."""

    def __init__(self, clock: Clock, events: EventLog) -> None:
        self._clock = clock
        self._events = events

    def export_person_in(self, tx: Connection, identity_id: UUID) -> dict[str, object]:
        """All that this domain keeps of somebody, JSON-ready, without any secret."""
        mine = identities.c.id == identity_id
        row = tx.execute(select(identities).where(mine)).one()
        ways = select(credentials).where(credentials.c.identity_id == identity_id).order_by(credentials.c.id)
        bands = (
            select(groups.c.name, group_members)
            .join(groups, groups.c.id == group_members.c.group_id)
            .where(group_members.c.identity_id == identity_id)
            .order_by(groups.c.id)
        )
        return {
            "identity": _document(
                row, "id organisation_id kind display_name email email_confirmed_at orcid state is_administrator"
            ),
            "accepted_terms": _document(row, "accepted_terms accepted_at"),
            "logins": [
                _document(one, "id kind created_at last_used_at")
                | {"subject": one.subject if one.kind in WAYS else None}  # of a second factor it names nothing
                for one in tx.execute(ways)
            ],
            "groups": [
                _document(one, "group_id name is_manager source issuer starts_at ends_at") for one in tx.execute(bands)
            ],
            "roles": [
                render_grant(to_grant(one))
                for one in tx.execute(select(grants).where(grants.c.identity_id == identity_id).order_by(grants.c.id))
            ],
            "accounts": _rows(tx, accounts, accounts.c.owner_id == identity_id, "id name kind quota_bytes quota_files"),
            "sessions": _rows(
                tx,
                sessions,
                sessions.c.identity_id == identity_id,
                "id client_address client_agent proofs entitlements created_at expires_at last_used_at proven_at "
                "provider",
            ),
            "tokens": _rows(
                tx,
                tokens,
                tokens.c.identity_id == identity_id,
                "id name prefix verbs archives created_at expires_at revoked_at last_used_at provider",
            ),
            "passkeys": _rows(tx, passkeys, passkeys.c.identity_id == identity_id, "id name created_at last_used_at"),
            "applications": _rows(
                tx,
                applications,
                applications.c.identity_id == identity_id,
                "id kind subject display_name email orcid reason state applied_at decided_at note",
            ),
            "quota_requests": _rows(
                tx,
                quota_requests,
                quota_requests.c.asked_by == identity_id,
                "id account_id asked_bytes reason state asked_at given_bytes decided_at note",
            ),
            "merged": [
                str(one)
                for one in tx.execute(select(identities.c.id).where(identities.c.merged_into == identity_id)).scalars()
            ],
        }

    @staticmethod
    def require_person_in(tx: Connection, identity_id: UUID) -> None:
        """Raises BadInputError for a machine: it is nobody, and is disabled instead."""
        kind = select(identities.c.kind).where(identities.c.id == identity_id)
        if tx.execute(kind).scalar_one() != ActorKind.PERSON.value:
            raise BadInputError("Only persons are erased: disable the service account.", field="identity_id")

    def find_sole_accounts_in(self, tx: Connection, identity_id: UUID) -> list[tuple[UUID, str]]:
        """The accounts of groups and beamlines that would have no lasting owner without this person."""
        lasting = (
            (grants.c.on_id == accounts.c.id)
            & (grants.c.role == Role.OWNER.value)
            & grants.c.expires_at.is_(None)
            & grants.c.named.is_(None)
            & (func.cardinality(grants.c.requires) == 0)
        )
        mine = select(grants.c.id).where(lasting, grants.c.identity_id == identity_id).exists()
        others = select(grants.c.id).where(lasting, grants.c.identity_id.is_distinct_from(identity_id)).exists()
        query = select(accounts.c.id, accounts.c.name).where(accounts.c.kind != "personal", mine, ~others)
        return [(row.id, row.name) for row in tx.execute(query.order_by(accounts.c.id))]

    def find_services_in(self, tx: Connection, identity_id: UUID) -> list[tuple[UUID, str]]:
        """The service accounts that somebody is responsible for."""
        query = (
            select(identities.c.id, identities.c.display_name)
            .join(service_accounts, service_accounts.c.identity_id == identities.c.id)
            .where(service_accounts.c.responsible_id == identity_id)
            .order_by(identities.c.id)
        )
        return [(row.id, row.display_name) for row in tx.execute(query)]

    def erase_in(self, tx: Connection, actor: Actor, identity_id: UUID, reason: str) -> None:
        """Remove what is personal of an identity that is held, and of its aliases; roles on archives are gone already.

        Raises LastAdministratorError. Safe to call again.
        """
        lock_administrators(tx)
        told = {"identity": str(identity_id)}
        own = update(identities).where(identities.c.id == identity_id)
        tx.execute(own.values(is_administrator=False))
        require_administrator(tx)
        self._hand_on_accounts(tx, identity_id)
        aliases = list(tx.execute(select(identities.c.id).where(identities.c.merged_into == identity_id)).scalars())
        for one in (identity_id, *aliases):
            self.forget_person_in(tx, one)
        tx.execute(update(identities).where(identities.c.merged_into == identity_id).values(ended_reason=None))
        ended = {"ended_at": self._clock.now(), "ended_by": actor.identity_id, "ended_reason": reason or None}
        tx.execute(own.values(state=IdentityState.ERASED.value, **ended))
        self._events.record(tx, facts.IDENTITY_ERASED, None, actor, {**told, "aliases": sorted(map(str, aliases))})

    def forget_person_in(self, tx: Connection, identity_id: UUID) -> None:
        """Put a pseudonym in the place of a name, and remove the rest; what others know by the id stays."""
        for table in (credentials, passkeys, sessions, tokens, group_members, grants):
            tx.execute(delete(table).where(table.c.identity_id == identity_id))
        tx.execute(delete(applications).where(applications.c.identity_id == identity_id))
        asked = quota_requests.c.asked_by == identity_id
        tx.execute(update(quota_requests).where(asked).values(reason=""))
        name = f"erased person {short_form(identity_id)}"
        forget_mail_of(tx, identity_id)
        gone = {"display_name": name, "orcid": None, "accepted_terms": None, "accepted_at": None, **NO_ADDRESS}
        tx.execute(update(identities).where(identities.c.id == identity_id).values(**gone))
        personal = (accounts.c.owner_id == identity_id) & (accounts.c.kind == "personal")
        named = {"name": name, "name_folded": name.casefold()}
        for account_id in (
            tx.execute(update(accounts).where(personal).values(**named).returning(accounts.c.id)).scalars().all()
        ):
            tx.execute(delete(grants).where(grants.c.on_id == account_id))

    def repeat_erasures_in(self, tx: Connection, identity_ids: Iterable[UUID]) -> None:
        """Erase again who the log says was erased, after older copies were read back; safe to call twice."""
        for identity_id in identity_ids:
            self.forget_person_in(tx, identity_id)
            erased = {"state": IdentityState.ERASED.value, "is_administrator": False}
            living = (identities.c.id == identity_id) & identities.c.merged_into.is_(None)
            tx.execute(update(identities).where(living).values(**erased))

    @staticmethod
    def _hand_on_accounts(tx: Connection, identity_id: UUID) -> None:
        """Name another of its owners as the owner of an account that has one."""
        query = select(accounts.c.id).where(accounts.c.owner_id == identity_id, accounts.c.kind != "personal")
        for account_id in tx.execute(query).scalars().all():
            lasting = (
                (grants.c.on_id == account_id) & (grants.c.role == Role.OWNER.value) & grants.c.expires_at.is_(None)
            )
            other = (
                select(grants.c.identity_id).where(lasting, grants.c.identity_id != identity_id).order_by(grants.c.id)
            )
            heir = tx.execute(other.limit(1)).scalar()
            if heir is not None:
                tx.execute(update(accounts).where(accounts.c.id == account_id).values(owner_id=heir))


def forget_mail_of(tx: Connection, identity_id: UUID) -> None:
    """Send no mail to somebody that waits, and take what was sent to him out of force."""
    tx.execute(delete(mails).where(mails.c.about == identity_id))
    tx.execute(delete(mail_keys).where(mail_keys.c.identity_id == identity_id))


def _rows(tx: Connection, table: Table, condition: Any, names: str) -> Rows:  # Any: a condition on the table
    query = select(table).where(condition).order_by(table.c.id)
    return [_document(row, names) for row in tx.execute(query)]


def _document(row: Row[Any], names: str) -> dict[str, object]:  # Any: whatever columns
    return {name: _plain(getattr(row, name)) for name in names.split()}


def _plain(value: Any) -> object:  # Any: a value of the database
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return format_time(value) if hasattr(value, "tzinfo") else value
