"""Logging in from outside: whoever was shown to be somebody becomes the identity that has this credential.

Nothing else leads to an identity: no e-mail address, no name. A second credential is linked in a session of the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, delete, func, select, update

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity import throttle
from perdure.identity.applications import Applications
from perdure.identity.callers import FRESH_FOR, naming, require_fresh, require_self_reader, require_session
from perdure.identity.claims import Claims
from perdure.identity.errors import (
    ApplicationPendingError,
    ApplicationRefusedError,
    BadCodeError,
    BadCredentialsError,
    CredentialTakenError,
    LastCredentialError,
    LoginNotConfirmedError,
    UnknownPersonError,
)
from perdure.identity.model import (
    ENTITLEMENT,
    WAYS,
    ApplicationState,
    Arrival,
    Client,
    Credential,
    CredentialKind,
)
from perdure.identity.names import MAX_SUBJECT_CHARACTERS, name_of
from perdure.identity.notices import Notices
from perdure.identity.origins import require_not_ended_in
from perdure.identity.people import People
from perdure.identity.rights import require_living_in
from perdure.identity.sessions import Sessions
from perdure.identity.tables import credentials, identities
from perdure.identity.tickets import redeem_in, require_unused_in
from perdure.kernel.actor import Actor
from perdure.kernel.clock import Clock
from perdure.kernel.errors import NotFoundError, PerdureError

_BY_PASSWORD = frozenset({CredentialKind.LDAP})  # of an institution; the others see to a second factor themselves
_MOST_ENTITLEMENTS = 2000
MOST_CREDENTIALS = 50


class Arrivals:
    """What follows when a provider, a certificate or a directory has said who somebody is."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        events: EventLog,
        people: People,
        sessions: Sessions,
        applications: Applications,
        claims: Claims,
        notices: Notices,
    ) -> None:
        self._db = db
        self._clock = clock
        self._events = events
        self._people = people
        self._sessions = sessions
        self._applications = applications
        self._claims = claims
        self._notices = notices

    def arrive(
        self, arrival: Arrival, client: Client, *, accept_terms: int | None = None, code: str | None = None
    ) -> tuple[str, Actor]:
        """Open a session for who has this credential, in the groups that its claims lead to.

        Raises UnknownPersonError, ApplicationPendingError, ApplicationRefusedError, TermsNotAcceptedError, and
        BadCredentialsError for who is disabled; of who came with a password also SecondFactorNeededError and
        BadCodeError, as at a login by a password of ours. A ticket opens one session: TicketUsedError.
        """
        with self._db.begin() as tx:
            require_unused_in(tx, arrival.ticket, self._clock.now())
            known = _find(tx, arrival.kind, arrival.subject)
            if known is None:
                raise self._refusal(tx, arrival)
            if known.state != "active":
                raise BadCredentialsError("This identity is disabled.")
            require_living_in(tx, known.identity_id)
            tx.execute(update(credentials).where(credentials.c.id == known.id).values(last_used_at=self._clock.now()))
            if arrival.issuer:  # whatever comes of the login: who lost an entitlement is out of the group
                self._claims.follow_in(tx, known.identity_id, arrival.issuer, arrival.entitlements)
        brought = {
            name_of(ENTITLEMENT, one)
            for one in sorted(arrival.entitlements)[:_MOST_ENTITLEMENTS]
            if len(one) <= MAX_SUBJECT_CHARACTERS
        }
        with self._counted(known.identity_id, client, code), self._db.begin() as tx:
            again = _find(tx, arrival.kind, arrival.subject)
            if again is None or again.state != "active":
                raise BadCredentialsError("This login was taken away meanwhile.")
            redeem_in(tx, arrival.ticket, self._clock.now())
            require_not_ended_in(tx, arrival)
            return self._sessions.open_in(
                tx,
                again.identity_id,
                client,
                arrival.proofs,
                brought,
                accept_terms=accept_terms,
                code=code,
                asks_code=arrival.kind in _BY_PASSWORD,
                proven_at=arrival.proven_at,
                origin=arrival.origin,
            )

    def prove(self, actor: Actor, secret: str, arrival: Arrival) -> datetime:
        """Let a login of his own show that whoever uses the session of this secret is its owner; the moment.

        Raises LoginNotConfirmedError when the login is another's, or is not known to be from this moment.
        """
        identity_id = require_session(actor)
        with self._db.begin() as tx:
            known = _find(tx, arrival.kind, arrival.subject)
            if known is None or known.identity_id != identity_id:
                raise LoginNotConfirmedError("This login is not one of yours here.")
            if arrival.proven_at is None or arrival.proven_at + FRESH_FOR < self._clock.now():
                raise LoginNotConfirmedError("Nobody says that you showed a moment ago who you are.")
            at = min(arrival.proven_at, self._clock.now())
            return self._sessions.note_proof_in(tx, actor, secret, by=arrival.kind.value, at=at)

    @contextmanager
    def _counted(self, identity_id: UUID, client: Client, code: str | None) -> Iterator[None]:
        """Count the guess at a code before it is looked at, and forget it when it was none; see `throttle`."""
        if code is None:
            yield
            return
        name, address = f"code of {identity_id}", client.address
        with self._db.begin() as tx:
            is_known = self._sessions.is_known_address_in(tx, identity_id, address)
            throttle.count_attempt(tx, name, address, is_known_address=is_known, now=self._clock.now())
        try:
            yield
        except BadCodeError:
            with self._db.begin() as tx:
                self._sessions.tell_refusal_in(tx, identity_id)
            raise
        except PerdureError:
            with self._db.begin() as tx:
                throttle.take_back_attempt(tx, name, address, is_known_address=is_known)
            raise
        with self._db.begin() as tx:
            throttle.forgive_attempt(tx, name, address, is_known_address=is_known)

    def link(self, actor: Actor, arrival: Arrival) -> Credential:
        """Make a credential the caller's, who is logged in by another; safe to call twice.

        Raises FreshLoginRequiredError, TicketUsedError, and CredentialTakenError when it is somebody else's.
        """
        identity_id = require_fresh(actor, self._clock.now())
        with naming("login"), self._db.begin() as tx:
            redeem_in(tx, arrival.ticket, self._clock.now())
            require_living_in(tx, identity_id)  # nobody could take a login away again from who is merged or erased
            known = _find(tx, arrival.kind, arrival.subject)
            if known is not None and known.identity_id != identity_id:
                raise CredentialTakenError("This login is somebody else's here.")
            if known is None:
                self._require_few(tx, identity_id)
                self._people.add_credential_in(tx, identity_id, arrival.kind, arrival.subject, None)
                told = {"identity": str(identity_id), "kind": arrival.kind.value}
                self._events.record(tx, facts.CREDENTIAL_LINKED, None, actor, told)
                said = f"A further way to log in as you was linked: {_say_way(arrival)}."
                self._notices.tell_in(tx, identity_id, "A login was linked to you", said)
            return _list(tx, identity_id, arrival)[0]

    def unlink(self, actor: Actor, credential_id: UUID) -> None:
        """Take one of the caller's credentials away; raises LastCredentialError, NotFoundError."""
        identity_id = require_session(actor)
        with self._db.begin() as tx:
            tx.execute(select(identities.c.id).where(identities.c.id == identity_id).with_for_update())
            left = [one for one in _list(tx, identity_id) if one.id != credential_id]
            gone = [one for one in _list(tx, identity_id) if one.id == credential_id]
            if not gone:
                raise NotFoundError("You have no such login.")
            if not left:
                raise LastCredentialError("This is the only way in which you log in.")
            tx.execute(delete(credentials).where(credentials.c.id == credential_id))
            told = {"identity": str(identity_id), "kind": gone[0].kind.value}
            self._events.record(tx, facts.CREDENTIAL_UNLINKED, None, actor, told)

    def list_credentials(self, actor: Actor) -> list[Credential]:
        """The ways in which the caller logs in, oldest first."""
        identity_id = require_self_reader(actor)
        with self._db.begin() as tx:
            return _list(tx, identity_id)

    def _refusal(self, tx: Connection, arrival: Arrival) -> Exception:
        asked = self._applications.find_application_in(tx, arrival.kind, arrival.subject)
        if asked is None or asked.state is ApplicationState.APPROVED:  # approved once, and unlinked since
            return UnknownPersonError("Nobody here has this login.")
        if asked.state is ApplicationState.REFUSED:
            return ApplicationRefusedError(asked.note or "No reason was given.")
        return ApplicationPendingError("Your application has not been decided yet.")

    def _require_few(self, tx: Connection, identity_id: UUID) -> None:
        mine = select(func.count()).where(credentials.c.identity_id == identity_id)
        if tx.execute(mine).scalar_one() >= MOST_CREDENTIALS:
            raise CredentialTakenError(f"An identity has at most {MOST_CREDENTIALS} logins.")


def _say_way(arrival: Arrival) -> str:
    place = f" at {arrival.issuer}" if arrival.issuer else ""
    return f"{arrival.kind.value}{place}"


def _find(tx: Connection, kind: CredentialKind, subject: str) -> Row[*tuple[Any, ...]] | None:  # Any: three columns
    query = (
        select(credentials.c.id, credentials.c.identity_id, identities.c.state)
        .join_from(credentials, identities, identities.c.id == credentials.c.identity_id)
        .where(credentials.c.kind == kind.value, credentials.c.subject == subject)
    )
    return tx.execute(query).first()


def _list(tx: Connection, identity_id: UUID, only: Arrival | None = None) -> list[Credential]:
    query = (
        select(credentials)
        .where(credentials.c.identity_id == identity_id, credentials.c.kind.in_(sorted(WAYS)))
        .order_by(credentials.c.id)
    )
    if only is not None:
        query = query.where(credentials.c.kind == only.kind.value, credentials.c.subject == only.subject)
    return [
        Credential(row.id, CredentialKind(row.kind), row.subject, row.created_at, row.last_used_at)
        for row in tx.execute(query)
    ]
