"""Sessions that began at a provider end when it says that they ended there (OpenID Connect Back-Channel Logout 1.0).

Of a session there only digests are kept, which are compared and not read. An API token ends likewise when it stands in
for a session, as that of the command does; one that was made for a program stays.
"""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, select, update

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity import throttle
from perdure.identity.errors import LoginNotConfirmedError, LogoutRefusedError
from perdure.identity.federation import Federation
from perdure.identity.model import Arrival, Origin
from perdure.identity.ports import EndedThere
from perdure.identity.secrets import digest_secret
from perdure.identity.tables import sessions, tokens
from perdure.identity.tickets import TICKET_LASTS
from perdure.kernel.actor import SYSTEM
from perdure.kernel.clock import Clock

_TOKEN_REMEMBERED = timedelta(hours=1)  # longer than a logout token is good
_COLUMNS = ("provider", "provider_subject", "provider_session")


class ProviderLogouts:
    """What follows when a provider says that somebody logged out there."""

    def __init__(self, db: Database, clock: Clock, events: EventLog, federation: Federation) -> None:
        self._db = db
        self._clock = clock
        self._events = events
        self._federation = federation

    def end_at_provider(self, provider: str, token: str) -> int:
        """End what began in the session there, or without one all that its person began there; how many that were.

        The token shows who asks. Raises NoSuchProviderError, LogoutRefusedError also for a token that was used, and
        ProviderUnavailableError when its keys cannot be had.
        """
        ended = self._federation.read_logout(provider, token)
        with self._db.begin() as tx:
            now = self._clock.now()
            if not throttle.use_once(tx, f"logout {provider} {ended.id}", now + _TOKEN_REMEMBERED):
                raise LogoutRefusedError("The token was used already.")
            # A login that waits for something, as for the terms to be accepted, must not go on afterwards
            throttle.remember(tx, _mark(provider, ended), now + TICKET_LASTS)
            return self._end_sessions(tx, provider, ended) + self._end_tokens(tx, provider, ended)

    def _end_sessions(self, tx: Connection, provider: str, ended: EndedThere) -> int:
        open_ones = _began(sessions, provider, ended) & (sessions.c.expires_at > self._clock.now())
        gone = tx.execute(delete(sessions).where(open_ones).returning(sessions.c.id, sessions.c.identity_id)).all()
        for one in sorted(gone):
            told = {"session": str(one.id), "identity": str(one.identity_id), "provider": provider}
            self._events.record(tx, facts.SESSION_CLOSED, None, SYSTEM, told)
        return len(gone)

    def _end_tokens(self, tx: Connection, provider: str, ended: EndedThere) -> int:
        now = self._clock.now()
        living = _began(tokens, provider, ended) & tokens.c.revoked_at.is_(None) & (tokens.c.expires_at > now)
        gone = tx.execute(
            update(tokens).where(living).values(revoked_at=now).returning(tokens.c.id, tokens.c.identity_id)
        ).all()
        for one in sorted(gone):
            told = {"token": str(one.id), "identity": str(one.identity_id), "provider": provider}
            self._events.record(tx, facts.TOKEN_REVOKED, None, SYSTEM, told)
        return len(gone)


def origin_columns(origin: Origin | None) -> dict[str, object]:
    """What a session or token keeps of where it began."""
    if origin is None:
        return {}
    return {
        "provider": origin.provider,
        "provider_subject": _digest(origin.provider, origin.subject),
        "provider_session": _digest(origin.provider, origin.session) if origin.session else None,
    }


def find_origin_columns(tx: Connection, secret: str) -> dict[str, object]:
    """The same of the open session that the secret opens; nothing where it began here, or is none."""
    kept = select(*(sessions.c[name] for name in _COLUMNS)).where(sessions.c.digest == digest_secret(secret))
    row = tx.execute(kept).first()
    return {} if row is None or row.provider is None else dict(row._mapping)


def require_not_ended_in(tx: Connection, arrival: Arrival) -> None:
    """Return unless who comes with a ticket has logged out at his provider since it was made.

    Raises LoginNotConfirmedError.
    """
    origin, ticket = arrival.origin, arrival.ticket
    if origin is None or ticket is None:
        return
    named = [EndedThere("", origin.subject, None), EndedThere("", None, origin.session or None)]
    for mark in (_mark(origin.provider, one) for one in named if one.subject or one.session):
        until = throttle.find_remembered(tx, mark)
        if until is not None and until >= ticket.ends_at:
            raise LoginNotConfirmedError("You have logged out there meanwhile.")


def _began(table: Table, provider: str, ended: EndedThere) -> ColumnElement[Any]:  # Any: a condition
    of_person = table.c.provider_subject == _digest(provider, ended.subject or "")
    if ended.session is None:
        return of_person
    in_session = table.c.provider_session == _digest(provider, ended.session)
    return in_session if ended.subject is None else in_session & of_person


def _mark(provider: str, ended: EndedThere) -> str:
    kind, value = ("person", ended.subject) if ended.session is None else ("session", ended.session)
    return f"ended {kind} {provider} {value}"


def _digest(provider: str, value: str) -> bytes:
    return sha256(f"{provider}\0{value}".encode("utf-8", "surrogatepass")).digest()
