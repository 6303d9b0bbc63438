"""Somebody invited becomes an identity without an application: who invited him has decided it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from perdure.identity.addresses import Addresses
from perdure.identity.callers import check_name
from perdure.identity.model import Arrival, Client, CredentialKind, IdentityCard, Origin, Ticket, fold_name
from perdure.identity.passwords import Passwords
from perdure.identity.people import NewPerson, People, check_login
from perdure.identity.sessions import Sessions
from perdure.identity.terms import TermsOfUse
from perdure.identity.tickets import redeem_in
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.clock import Clock
from perdure.kernel.ids import new_id


@dataclass(frozen=True, slots=True)
class Joiner:
    """Who joins, and by what he will log in: a login name and the hash of a password, or as who he arrived."""

    display_name: str
    kind: CredentialKind
    subject: str
    name: str | None = None  # of his personal account; None: one that is free
    secret: str | None = field(default=None, repr=False)
    orcid: str | None = None
    proofs: frozenset[str] = frozenset()
    proven_at: datetime | None = None  # when he showed it himself; None: nobody can tell
    ticket: Ticket | None = None
    origin: Origin | None = None


class Joining:
    """Makes an identity of an organisation for whoever was invited there."""

    def __init__(
        self,
        clock: Clock,
        people: People,
        passwords: Passwords,
        terms: TermsOfUse,
        sessions: Sessions,
        addresses: Addresses,
    ) -> None:
        self._clock = clock
        self._people = people
        self._passwords = passwords
        self._terms = terms
        self._sessions = sessions
        self._addresses = addresses

    def joins_with_password(self, login: str, password: str, display_name: str) -> Joiner:
        """Somebody with a password of his own choice; raises WeakPasswordError, BadInputError."""
        login = check_login(login)
        name = check_name(display_name, "display name")
        secret = self._passwords.hash_new(password, login)
        way, now = CredentialKind.PASSWORD, self._clock.now()
        return Joiner(name, way, fold_name(login), login, secret, proofs=frozenset({way.value}), proven_at=now)

    def joins_from_outside(self, arrival: Arrival, display_name: str | None = None) -> Joiner:
        """Somebody who was shown to be who he is elsewhere."""
        name = check_name(display_name or arrival.display_name or arrival.subject, "display name")
        return Joiner(
            name,
            arrival.kind,
            arrival.subject,
            orcid=arrival.orcid,
            proofs=arrival.proofs,
            proven_at=arrival.proven_at,
            ticket=arrival.ticket,
            origin=arrival.origin,
        )

    def join_in(
        self,
        tx: Connection,
        by: Actor,
        joiner: Joiner,
        *,
        organisation_id: UUID,
        address: str,
        quota_bytes: int | None,
        client: Client,
        accept_terms: int | None,
    ) -> tuple[str, Actor]:
        """Make the identity, with the address that the invitation has proven, and open its first session.

        Without asking who wants it. Raises TermsNotAcceptedError, TicketUsedError, and what a name in use raises.
        """
        self._terms.require_acceptance_in(tx, accept_terms)
        redeem_in(tx, joiner.ticket, self._clock.now())
        card = IdentityCard(new_id(), organisation_id, ActorKind.PERSON, joiner.display_name, joiner.orcid, True, False)
        name = joiner.name or self._people.find_free_name_in(tx, organisation_id, joiner.display_name)
        person = NewPerson(card, address, name, joiner.secret, joiner.kind, joiner.subject)
        self._people.create_in(tx, by, person, quota_bytes)
        self._addresses.set_confirmed_in(tx, card.id, address, self._clock.now())
        return self._sessions.open_in(
            tx,
            card.id,
            client,
            joiner.proofs,
            accept_terms=accept_terms,
            proven_at=joiner.proven_at,
            origin=joiner.origin,
        )
