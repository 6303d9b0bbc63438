"""Applications of people who are not known yet: they wait until somebody who may decides.

Nothing of a person is kept before he has accepted the terms and asked for it himself.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity.addresses import Addresses
from perdure.identity.callers import check_name, naming
from perdure.identity.deciders import find_managers_in
from perdure.identity.errors import ApplicationDecidedError, CredentialTakenError, NameTakenError
from perdure.identity.letters import write_digest, write_refusal
from perdure.identity.model import (
    Action,
    Application,
    ApplicationState,
    Arrival,
    CredentialKind,
    IdentityCard,
    InstanceThing,
    OrganisationThing,
    fold_name,
)
from perdure.identity.names import check_address
from perdure.identity.passwords import Passwords
from perdure.identity.people import NewPerson, People, check_login
from perdure.identity.post import Post
from perdure.identity.rights import Rights
from perdure.identity.tables import applications, credentials, organisations
from perdure.identity.terms import TermsOfUse
from perdure.identity.tickets import redeem_in
from perdure.kernel.actor import ANONYMOUS, SYSTEM, Actor, ActorKind
from perdure.kernel.clock import Clock
from perdure.kernel.errors import BadInputError, NotFoundError, TryAgainError
from perdure.kernel.ids import new_id

_LONGEST_REASON = 2000
_MOST_PENDING = 10_000  # whoever floods us with applications shall not fill the database
_MOST_TOLD = 1000  # in one hour


class Applications:
    """For a local account, or of somebody who arrived from outside; decided by those who manage the organisation."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        events: EventLog,
        rights: Rights,
        people: People,
        passwords: Passwords,
        terms: TermsOfUse,
        addresses: Addresses,
        post: Post,
        *,
        forget_refused: timedelta = timedelta(days=90),
        forget_pending: timedelta = timedelta(days=180),
    ) -> None:
        self._forget_refused = forget_refused
        self._forget_pending = forget_pending
        self._db = db
        self._clock = clock
        self._events = events
        self._rights = rights
        self._people = people
        self._passwords = passwords
        self._terms = terms
        self._addresses = addresses
        self._post = post

    def apply_with_password(
        self,
        *,
        login: str,
        password: str,
        display_name: str,
        email: str | None,
        reason: str,
        organisation_id: UUID | None = None,
        accept_terms: int | None = None,
    ) -> Application:
        """Ask for a local account; it can be used once the application is approved."""
        login = check_login(login)
        address = None if email is None else check_address(email)
        secret = self._passwords.hash_new(password, login)
        arrival = Arrival(CredentialKind.PASSWORD, fold_name(login), check_name(display_name, "display name"), address)
        return self._put(arrival, reason, organisation_id, accept_terms, secret=secret)

    def apply_from_outside(
        self,
        arrival: Arrival,
        *,
        reason: str,
        display_name: str | None = None,
        organisation_id: UUID | None = None,
        accept_terms: int | None = None,
    ) -> Application:
        """Ask to be let in as who somebody from outside was shown to be.

        Raises CredentialTakenError for who is, and TicketUsedError.
        """
        named = arrival if display_name is None else arrival.called(display_name)
        arrival = named.called(check_name(named.display_name or named.subject, "display name"))
        arrival = replace(arrival, email=_find_address(arrival.email))
        return self._put(arrival, reason, organisation_id, accept_terms, secret=None)

    def find_application_in(self, tx: Connection, kind: CredentialKind, subject: str) -> Application | None:
        """What became of the application under this credential; None when there was none."""
        own = (applications.c.kind == kind.value) & (applications.c.subject == subject)
        row = tx.execute(select(applications).where(own)).first()
        return None if row is None else _application(row)

    def list_applications(
        self, actor: Actor, *, state: ApplicationState | None = None, after: UUID | None = None, limit: int = 1000
    ) -> list[Application]:
        """Oldest first: all for administrators, else those to the organisations that one manages."""
        query = select(applications).order_by(applications.c.id).limit(limit)
        if state is not None:
            query = query.where(applications.c.state == state.value)
        if after is not None:
            query = query.where(applications.c.id > after)
        with self._db.begin() as tx:
            managed = self._rights.managed_organisations(tx, actor)
            if not self._rights.can(tx, actor, Action.ADMINISTER, InstanceThing()):
                if not managed:
                    self._rights.require(tx, actor, Action.ADMINISTER, InstanceThing())
                query = query.where(applications.c.organisation_id.in_(managed))
            return [_application(row) for row in tx.execute(query)]

    def approve_application(
        self, actor: Actor, application_id: UUID, *, organisation_id: UUID | None = None, quota_bytes: int | None = None
    ) -> IdentityCard:
        """Make the person an identity of the organisation, with a personal account; he logs in as he applied."""
        with naming("login name"), self._db.begin() as tx:
            row = self._require_pending(tx, actor, application_id, organisation_id)
            home = organisation_id or row.organisation_id
            if home is None:
                raise BadInputError("Say to which organisation he shall belong.", field="organisation_id")
            kind = CredentialKind(row.kind)
            if _is_taken(tx, kind, row.subject):
                raise CredentialTakenError("Somebody logs in by this already.")
            card = IdentityCard(new_id(), home, ActorKind.PERSON, row.display_name, row.orcid, True, False)
            is_local = kind is CredentialKind.PASSWORD
            name = row.subject if is_local else self._people.find_free_name_in(tx, home, row.display_name)
            person = NewPerson(card, row.email, name, row.secret, kind, row.subject)
            self._people.create_in(tx, actor, person, quota_bytes)
            self._people.note_terms_in(tx, card.id, row.accepted_terms, row.applied_at)
            self._decide(tx, actor, row.id, ApplicationState.APPROVED, None, card.id)
            if _find_address(row.email) is not None:
                self._addresses.tell_approval_in(tx, card.id, row.display_name, row.email)
        return card

    def refuse_application(self, actor: Actor, application_id: UUID, *, note: str) -> None:
        """Say no, with a reason that the applicant is told at his next try; what he said of himself is forgotten."""
        if len(note) > _LONGEST_REASON or "\0" in note:
            raise BadInputError(f"The note has at most {_LONGEST_REASON} characters.", field="note")
        with self._db.begin() as tx:
            row = self._require_pending(tx, actor, application_id, None)
            self._decide(tx, actor, row.id, ApplicationState.REFUSED, note, None)
            if _find_address(row.email) is not None:
                self._post.send_in(tx, write_refusal(self._post.url, row.email, row.display_name, note))

    def tell_deciders(self) -> int:
        """Tell those who may decide of the applications that came since the last time; for an hourly job.

        One mail for each of them, at their confirmed address. What nobody can be told of waits. Returns how many mails.
        """
        if not self._post.is_open:
            return 0
        pending = (applications.c.state == ApplicationState.PENDING.value, applications.c.told_at.is_(None))
        query = (
            select(applications.c.id, applications.c.organisation_id, applications.c.display_name, organisations.c.name)
            .outerjoin(organisations, organisations.c.id == applications.c.organisation_id)
            .where(*pending)
            .order_by(applications.c.id)
            .limit(_MOST_TOLD)
            .with_for_update(of=applications, skip_locked=True)
        )
        with self._db.begin() as tx:
            now = self._clock.now()
            told: dict[str, dict[str, list[str]]] = {}
            rows = tx.execute(query).all()
            managers = {home: find_managers_in(tx, home, now) for home in {row.organisation_id for row in rows}}
            for row in rows:
                for address in managers[row.organisation_id]:
                    home = row.name or "For no organisation"
                    told.setdefault(address, {}).setdefault(home, []).append(row.display_name)
            for address, waiting in told.items():
                self._post.send_in(tx, write_digest(self._post.url, address, list(waiting.items())))
            reached = [row.id for row in rows if managers[row.organisation_id]]
            tx.execute(update(applications).where(applications.c.id.in_(reached)).values(told_at=now))
        return len(told)

    def forget_refused(self) -> int:
        """Remove refusals after some time, so that one may ask again, and what nobody decided; for a daily job."""
        now, c = self._clock.now(), applications.c
        refused = (c.state == ApplicationState.REFUSED.value) & (c.decided_at < now - self._forget_refused)
        left = (c.state == ApplicationState.PENDING.value) & (c.applied_at < now - self._forget_pending)
        with self._db.begin() as tx:
            for one in tx.execute(delete(applications).where(left).returning(c.id)).scalars().all():
                self._events.record(tx, facts.APPLICATION_FORGOTTEN, None, SYSTEM, {"application": str(one)})
            return tx.execute(delete(applications).where(refused)).rowcount

    def _put(
        self,
        arrival: Arrival,
        reason: str,
        organisation_id: UUID | None,
        accept_terms: int | None,
        *,
        secret: str | None,
    ) -> Application:
        if len(reason) > _LONGEST_REASON or "\0" in reason:
            raise BadInputError(f"The reason has at most {_LONGEST_REASON} characters.", field="reason")
        with naming("application"), self._db.begin() as tx:
            version = self._terms.require_acceptance_in(tx, accept_terms)
            redeem_in(tx, arrival.ticket, self._clock.now())
            self._require_room(tx)
            if _is_taken(tx, arrival.kind, arrival.subject):
                if arrival.kind is not CredentialKind.PASSWORD:
                    raise CredentialTakenError("You are known here: log in.")
                raise NameTakenError("The login name is in use.")
            tx.execute(
                delete(applications).where(  # approved once, and the login was unlinked since
                    applications.c.kind == arrival.kind.value,
                    applications.c.subject == arrival.subject,
                    applications.c.state == ApplicationState.APPROVED.value,
                )
            )
            fresh = insert(applications).values(
                id=new_id(),
                kind=arrival.kind.value,
                subject=arrival.subject,
                secret=secret,
                display_name=arrival.display_name,
                email=arrival.email,
                orcid=arrival.orcid,
                organisation_id=organisation_id,
                reason=reason,
                state=ApplicationState.PENDING.value,
                accepted_terms=version,
                applied_at=self._clock.now(),
            )
            row = tx.execute(
                fresh.on_conflict_do_nothing(index_elements=["kind", "subject"]).returning(applications)
            ).first()
            if row is None:
                return self._answer_again(tx, arrival)
            self._events.record(tx, facts.APPLICATION_RECEIVED, None, ANONYMOUS, {"application": str(row.id)})
        return _application(row)

    def _answer_again(self, tx: Connection, arrival: Arrival) -> Application:
        """Who asked before is told what became of it; a login name that another asked for is taken."""
        known = self.find_application_in(tx, arrival.kind, arrival.subject)
        if known is None or arrival.kind is CredentialKind.PASSWORD:
            raise NameTakenError("The login name is in use.")
        return known

    def _require_room(self, tx: Connection) -> None:
        pending = applications.c.state == ApplicationState.PENDING.value
        full = select(applications.c.id).where(pending).offset(_MOST_PENDING).limit(1)
        if tx.execute(full).first() is not None:
            raise TryAgainError("Too many applications wait to be decided. Try again later.")

    def _require_pending(
        self, tx: Connection, actor: Actor, application_id: UUID, organisation_id: UUID | None
    ) -> Row[Any]:  # Any: all columns
        row = tx.execute(select(applications).where(applications.c.id == application_id).with_for_update()).first()
        homes = {one for one in (row.organisation_id if row else None, organisation_id) if one is not None}
        if row is None or row.organisation_id is None:
            self._rights.require(tx, actor, Action.ADMINISTER, InstanceThing())
        for home in sorted(homes):
            self._rights.require(tx, actor, Action.MANAGE_ORGANISATION, OrganisationThing(home))
        if row is None:
            raise NotFoundError("There is no such application.")
        if row.state != ApplicationState.PENDING.value:
            raise ApplicationDecidedError(f"The application is {row.state} already.", state=row.state)
        return row

    def _decide(
        self,
        tx: Connection,
        actor: Actor,
        application_id: UUID,
        state: ApplicationState,
        note: str | None,
        identity_id: UUID | None,
    ) -> None:
        values: dict[str, object] = {
            "identity_id": identity_id,
            "state": state.value,
            "note": note,
            "decided_at": self._clock.now(),
            "decided_by": actor.identity_id,
        }
        forgotten: dict[str, object] = {"secret": None, "email": None, "reason": ""}
        told = {"application": str(application_id), "identity": identity_id and str(identity_id)}
        if state is ApplicationState.REFUSED:
            forgotten |= {"display_name": "", "orcid": None}
        tx.execute(update(applications).where(applications.c.id == application_id).values(**values, **forgotten))
        event_type = facts.APPLICATION_APPROVED if state is ApplicationState.APPROVED else facts.APPLICATION_REFUSED
        self._events.record(tx, event_type, None, actor, told)


def _is_taken(tx: Connection, kind: CredentialKind, subject: str) -> bool:
    same = (credentials.c.kind == kind.value) & (credentials.c.subject == subject)
    return tx.execute(select(credentials.c.id).where(same)).first() is not None


def _find_address(text: str | None) -> str | None:
    """The address that somebody, or a provider, named; None for what none is: nobody is refused for it."""
    try:
        return None if text is None else check_address(text)
    except BadInputError:
        return None


def _application(row: Row[Any]) -> Application:  # Any: all columns
    return Application(
        id=row.id,
        kind=CredentialKind(row.kind),
        subject=row.subject,
        display_name=row.display_name,
        email=row.email,
        orcid=row.orcid,
        organisation_id=row.organisation_id,
        reason=row.reason,
        state=ApplicationState(row.state),
        applied_at=row.applied_at,
        decided_at=row.decided_at,
        note=row.note,
        identity_id=row.identity_id,
    )
