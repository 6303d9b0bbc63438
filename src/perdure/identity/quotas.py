"""Quotas: of an organisation, wishes for another one of an account, and who decides them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

from psycopg.errors import UniqueViolation
from sqlalchemy import Connection, Row, Select, insert, select, update
from sqlalchemy.exc import IntegrityError

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity.accounts import Accounts, check_quota
from perdure.identity.errors import QuotaRequestDecidedError, QuotaRequestPendingError
from perdure.identity.model import (
    Account,
    Action,
    InstanceThing,
    Limits,
    Organisation,
    OrganisationThing,
    QuotaRequest,
    Reportable,
    RequestState,
)
from perdure.identity.rights import Rights, require_living_in
from perdure.identity.tables import accounts, grants, groups, organisations, quota_requests
from perdure.kernel.actor import Actor
from perdure.kernel.clock import Clock
from perdure.kernel.errors import BadInputError, NotFoundError
from perdure.kernel.ids import new_id

_LONGEST_TEXT = 2000


class Quotas:
    """Who may hold how much, and how more is asked for."""

    def __init__(self, db: Database, clock: Clock, events: EventLog, rights: Rights, accounts: Accounts) -> None:
        self._db = db
        self._clock = clock
        self._events = events
        self._rights = rights
        self._accounts = accounts

    # Limits

    def change_organisation(self, actor: Actor, organisation_id: UUID, *, quota_bytes: int | None) -> Organisation:
        """Limit what all accounts of an organisation may hold together (None: no limit); for administrators."""
        with self._db.begin() as tx:
            self._rights.require(tx, actor, Action.ADMINISTER, InstanceThing())
            check_quota(quota_bytes)
            own = organisations.c.id == organisation_id
            changed = update(organisations).where(own).values(quota_bytes=quota_bytes).returning(organisations)
            row = tx.execute(changed).first()
            if row is None:
                raise NotFoundError("There is no such organisation.")
            told = {"organisation": str(organisation_id), "quota_bytes": quota_bytes}
            self._events.record(tx, facts.ORGANISATION_CHANGED, None, actor, told)
        return Organisation(row.id, row.name, row.ror, row.quota_bytes)

    def find_limits_in(self, tx: Connection, account_id: UUID) -> Limits:
        """What an account may hold, without asking who wants to know; raises NotFoundError.

        Where its organisation has a quota, whoever asks goes on when the transactions of those who asked before have
        ended: what the organisation holds then stays as it is until this one ends.
        """
        limits = self._read_limits(tx, account_id)
        if limits.organisation_bytes is not None:
            own = select(organisations.c.quota_bytes).where(organisations.c.id == limits.organisation_id)
            quota = tx.execute(own.with_for_update(key_share=True)).scalar_one()
            limits = replace(limits, organisation_bytes=quota)
        return limits

    def require_manager_in(self, tx: Connection, actor: Actor, organisation_id: UUID) -> Organisation:
        """The organisation with its quota, for those who manage it; raises what `require` raises."""
        self._rights.require(tx, actor, Action.MANAGE_ORGANISATION, OrganisationThing(organisation_id))
        row = tx.execute(select(organisations).where(organisations.c.id == organisation_id)).first()
        if row is None:
            raise NotFoundError("There is no such organisation, or you may not see it.")
        return Organisation(row.id, row.name, row.ror, row.quota_bytes)

    @staticmethod
    def _read_limits(tx: Connection, account_id: UUID) -> Limits:
        query = (
            select(
                accounts.c.organisation_id,
                accounts.c.quota_bytes,
                accounts.c.quota_files,
                organisations.c.quota_bytes.label("organisation_bytes"),
            )
            .join(organisations, organisations.c.id == accounts.c.organisation_id)
            .where(accounts.c.id == account_id)
        )
        row = tx.execute(query).first()
        if row is None:
            raise NotFoundError("There is no such account, or you may not see it.")
        return Limits(row.organisation_id, row.quota_bytes, row.quota_files, row.organisation_bytes)

    # Requests

    def request_quota(self, actor: Actor, account_id: UUID, *, asked_bytes: int, reason: str) -> QuotaRequest:
        """Ask for another quota of an account; for those who open archives in it or manage it.

        Raises QuotaRequestPendingError while another request for the account waits.
        """
        with _pending_once(), self._db.begin() as tx:
            account = self._accounts.get_account_in(tx, account_id)
            if not self._rights.can(tx, actor, Action.MANAGE_ACCOUNT, account.thing):
                self._rights.require(tx, actor, Action.OPEN_ARCHIVE, account.thing)
            check_quota(asked_bytes, field="asked_bytes")
            if actor.identity_id is not None:
                require_living_in(tx, actor.identity_id)  # his reason is erased with him
            row = tx.execute(
                insert(quota_requests)
                .values(
                    id=new_id(),
                    account_id=account_id,
                    asked_bytes=asked_bytes,
                    reason=_check_text(reason, "reason"),
                    state=RequestState.PENDING.value,
                    asked_by=actor.identity_id,
                    asked_at=self._clock.now(),
                )
                .returning(quota_requests)
            ).one()
            told = {"request": str(row.id), "account": str(account_id), "asked_bytes": asked_bytes}
            self._events.record(tx, facts.QUOTA_REQUESTED, None, actor, told)
        return _request(row)

    def list_requests_of(
        self, actor: Actor, account_id: UUID, *, after: UUID | None = None, limit: int = 1000
    ) -> list[QuotaRequest]:
        """What was asked for an account and what became of it, oldest first; for those who may see the account."""
        with self._db.begin() as tx:
            account = self._accounts.get_account_in(tx, account_id)
            self._rights.require(tx, actor, Action.READ_ACCOUNT, account.thing)
            query = select(quota_requests).where(quota_requests.c.account_id == account_id)
            return [_request(row) for row in tx.execute(_page(query, after, limit))]

    def list_requests(
        self, actor: Actor, *, state: RequestState | None = None, after: UUID | None = None, limit: int = 1000
    ) -> list[QuotaRequest]:
        """What one may decide, oldest first: everything for administrators, else for the organisations one manages."""
        with self._db.begin() as tx:
            reportable = self.require_reportable_in(tx, actor)
            query = select(quota_requests)
            if reportable.organisation_ids is not None:
                inside = accounts.c.organisation_id.in_(reportable.organisation_ids)
                query = query.where(quota_requests.c.account_id.in_(select(accounts.c.id).where(inside)))
            if state is not None:
                query = query.where(quota_requests.c.state == state.value)
            return [_request(row) for row in tx.execute(_page(query, after, limit))]

    def approve_request(
        self, actor: Actor, request_id: UUID, *, given_bytes: int | None = None, note: str = ""
    ) -> QuotaRequest:
        """Set the account's quota to what was asked, or to another number; for those who manage its organisation."""
        with self._db.begin() as tx:
            row, account = self._require_pending(tx, actor, request_id)
            given = row.asked_bytes if given_bytes is None else given_bytes
            self._accounts.save_account_in(tx, actor, account, replace(account, quota_bytes=given))
            return self._decide(tx, actor, row, RequestState.APPROVED, given, note)

    def refuse_request(self, actor: Actor, request_id: UUID, *, note: str) -> QuotaRequest:
        """Leave the quota as it is, with a note that says why; for those who manage the account's organisation."""
        with self._db.begin() as tx:
            row, _ = self._require_pending(tx, actor, request_id)
            return self._decide(tx, actor, row, RequestState.REFUSED, None, note)

    def _require_pending(
        self, tx: Connection, actor: Actor, request_id: UUID
    ) -> tuple[Row[Any], Account]:  # Any: all columns
        """The request and its account, both locked, for who may decide; who may not see it is told of none."""
        row = tx.execute(select(quota_requests).where(quota_requests.c.id == request_id).with_for_update()).first()
        account = None if row is None else self._accounts.get_account_in(tx, row.account_id, lock=True)
        if row is None or account is None or not self._rights.actions(tx, actor, account.thing):
            raise NotFoundError("There is no such request, or you may not see it.")
        self._rights.require(tx, actor, Action.MANAGE_ORGANISATION, OrganisationThing(account.organisation_id))
        if row.state != RequestState.PENDING.value:
            raise QuotaRequestDecidedError(f"The request is {row.state} already.", state=row.state)
        return row, account

    def _decide(
        self,
        tx: Connection,
        actor: Actor,
        row: Row[Any],  # Any: all columns
        state: RequestState,
        given_bytes: int | None,
        note: str,
    ) -> QuotaRequest:
        values: dict[str, object] = {
            "state": state.value,
            "given_bytes": given_bytes,
            "decided_by": actor.identity_id,
            "decided_at": self._clock.now(),
            "note": _check_text(note, "note"),
        }
        own = update(quota_requests).where(quota_requests.c.id == row.id)
        decided = tx.execute(own.values(**values).returning(quota_requests)).one()
        told: dict[str, object] = {"request": str(row.id), "account": str(row.account_id)}
        if state is RequestState.APPROVED:
            self._events.record(tx, facts.QUOTA_APPROVED, None, actor, {**told, "quota_bytes": given_bytes})
        else:
            self._events.record(tx, facts.QUOTA_REFUSED, None, actor, told)
        return _request(decided)

    # Reports

    def require_reportable_in(self, tx: Connection, actor: Actor) -> Reportable:
        """Whose accounts are told to the actor in all; raises NotAllowedError when he manages no organisation."""
        if self._rights.can(tx, actor, Action.ADMINISTER, InstanceThing()):
            return Reportable(None)
        managed = self._rights.managed_organisations(tx, actor)
        if not managed:
            self._rights.require(tx, actor, Action.ADMINISTER, InstanceThing())
        return Reportable(managed)

    def select_accounts(self, reportable: Reportable) -> Select[UUID, UUID, str, str]:
        """Id, organisation, kind and name of these accounts: a query for reports to join, as `visible` for listings."""
        c = accounts.c
        query = select(c.id, c.organisation_id, c.kind, c.name)
        if reportable.organisation_ids is not None:
            query = query.where(c.organisation_id.in_(reportable.organisation_ids))
        return query

    def find_organisation_names_in(self, tx: Connection, reportable: Reportable) -> dict[UUID, str]:
        """The names of these organisations."""
        query = select(organisations.c.id, organisations.c.name).order_by(organisations.c.id)
        return {row.id: row.name for row in tx.execute(query) if reportable.holds(row.id)}

    def find_group_accounts_in(
        self, tx: Connection, reportable: Reportable
    ) -> dict[UUID, tuple[str, UUID, frozenset[UUID]]]:
        """Name, organisation and accounts of each of these organisations' groups that has a role in force on some."""
        now = self._clock.now()
        inside = self.select_accounts(reportable).with_only_columns(accounts.c.id)
        query = (
            select(groups.c.id, groups.c.name, groups.c.organisation_id, grants.c.on_id)
            .join(grants, grants.c.group_id == groups.c.id)
            .where(grants.c.on_kind == "account", grants.c.on_id.in_(inside))
            .where(grants.c.expires_at.is_(None) | (grants.c.expires_at > now))
            .order_by(groups.c.id)
        )
        found: dict[UUID, tuple[str, UUID, frozenset[UUID]]] = {}
        for row in tx.execute(query):
            if reportable.holds(row.organisation_id):
                before = found[row.id][2] if row.id in found else frozenset[UUID]()
                found[row.id] = (row.name, row.organisation_id, before | {row.on_id})
        return found


@contextmanager
def _pending_once() -> Iterator[None]:
    """Tells a second waiting request of one account in the caller's words."""
    try:
        yield
    except IntegrityError as error:
        if isinstance(error.orig, UniqueViolation):
            raise QuotaRequestPendingError("Another request for this account waits to be decided.") from error
        raise


def _check_text(text: str, field: str) -> str:
    if len(text) > _LONGEST_TEXT or "\0" in text:
        raise BadInputError(f"The {field} has at most {_LONGEST_TEXT} characters.", field=field)
    return text


def _page(query: Select[*tuple[Any, ...]], after: UUID | None, limit: int) -> Select[*tuple[Any, ...]]:  # Any: columns
    query = query.order_by(quota_requests.c.id).limit(limit)
    return query if after is None else query.where(quota_requests.c.id > after)


def _request(row: Row[Any]) -> QuotaRequest:  # Any: all columns
    return QuotaRequest(
        id=row.id,
        account_id=row.account_id,
        asked_bytes=row.asked_bytes,
        reason=row.reason,
        state=RequestState(row.state),
        asked_by=row.asked_by,
        asked_at=row.asked_at,
        given_bytes=row.given_bytes,
        decided_by=row.decided_by,
        decided_at=row.decided_at,
        note=row.note,
    )
