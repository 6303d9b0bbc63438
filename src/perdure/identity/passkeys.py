"""Passkeys: a key on a device that verifies its user, which is a login and its second factor in one."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity import throttle
from perdure.identity.callers import (
    check_name,
    naming,
    require_fresh,
    require_self_management,
    require_self_reader,
    require_session,
)
from perdure.identity.errors import PasskeyLimitError, PasskeyRefusedError, PasskeysUnavailableError
from perdure.identity.model import PASSKEY, SECOND_FACTOR, Client, Passkey
from perdure.identity.notices import Notices
from perdure.identity.ports import NewPasskey, PasskeyReader
from perdure.identity.rights import require_living_in
from perdure.identity.sessions import Sessions
from perdure.identity.tables import identities, passkeys
from perdure.identity.tickets import Tickets
from perdure.kernel.actor import Actor
from perdure.kernel.clock import Clock
from perdure.kernel.errors import NotFoundError
from perdure.kernel.ids import new_id

_LASTS = timedelta(minutes=30)  # a page may stand open for a while before somebody uses it
_ADDING, _LOGGING_IN = "new passkey", "passkey login"
_CHALLENGE_BYTES = 32
_MOST_PASSKEYS = 20

Json = Mapping[str, Any]  # Any: JSON


class Passkeys:
    """`origin` is our public address, which every key and every answer is bound to."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        events: EventLog,
        sessions: Sessions,
        tickets: Tickets,
        reader: PasskeyReader,
        notices: Notices,
    ) -> None:
        self._db = db
        self._clock = clock
        self._events = events
        self._sessions = sessions
        self._tickets = tickets
        self._reader = reader
        self._notices = notices

    # One's own

    def begin_passkey(self, actor: Actor, *, origin: str, site: str) -> tuple[Json, str]:
        """What a browser is to make a key by, and a ticket to bring back with its answer.

        Raises FreshLoginRequiredError.
        """
        identity_id = require_fresh(actor, self._clock.now())
        challenge = secrets.token_bytes(_CHALLENGE_BYTES)
        with self._db.begin() as tx:
            name = tx.execute(select(identities.c.display_name).where(identities.c.id == identity_id)).scalar_one()
            mine = select(passkeys.c.credential_id).where(passkeys.c.identity_id == identity_id)
            known = list(tx.execute(mine).scalars())
        options = self._reader.creation_options(
            origin, site=site, person=identity_id.bytes, name=name, challenge=challenge, known=known
        )
        kept = {"challenge": challenge.hex(), "identity": str(identity_id)}
        return options, self._tickets.seal(kept, _ADDING, _LASTS)

    def add_passkey(self, actor: Actor, ticket: str, answer: Json, *, origin: str, name: str) -> Passkey:
        """Take the key that the browser made; raises PasskeyRefusedError, PasskeyLimitError, NameTakenError."""
        identity_id = require_fresh(actor, self._clock.now())
        name = check_name(name, "name")
        kept = self._tickets.open(ticket, _ADDING)
        if kept["identity"] != str(identity_id):
            raise PasskeyRefusedError("This was begun by somebody else.")
        challenge = bytes.fromhex(kept["challenge"])
        found = self._reader.read_registration(origin, answer, challenge=challenge)
        made = Passkey(new_id(), name, found.is_synced, self._clock.now(), None)
        with naming("passkey"), self._db.begin() as tx:
            tx.execute(select(identities.c.id).where(identities.c.id == identity_id).with_for_update())
            require_living_in(tx, identity_id)
            self._use_once(tx, challenge)
            mine = select(func.count()).where(passkeys.c.identity_id == identity_id)
            if tx.execute(mine).scalar_one() >= _MOST_PASSKEYS:
                raise PasskeyLimitError(f"A person has at most {_MOST_PASSKEYS} passkeys.")
            row = {
                "id": made.id,
                "identity_id": identity_id,
                "credential_id": found.credential_id,
                "public_key": found.public_key,
                "sign_count": found.sign_count,
                "is_synced": found.is_synced,
                "name": name,
                "created_at": made.created_at,
            }
            tx.execute(insert(passkeys).values(row))
            self._tell(tx, facts.PASSKEY_ADDED, actor, made.id)
            said = f"A passkey with the name {name} was added: a further way to log in as you."
            self._notices.tell_in(tx, identity_id, "A passkey was added to you", said)
        return made

    def list_passkeys(self, actor: Actor) -> list[Passkey]:
        """The caller's passkeys, oldest first."""
        identity_id = require_self_reader(actor)
        query = select(passkeys).where(passkeys.c.identity_id == identity_id).order_by(passkeys.c.id)
        with self._db.begin() as tx:
            return [_passkey(row) for row in tx.execute(query)]

    def rename_passkey(self, actor: Actor, passkey_id: UUID, name: str) -> Passkey:
        """Call one of the caller's passkeys otherwise."""
        identity_id = require_self_management(actor)
        name = check_name(name, "name")
        change = (
            update(passkeys)
            .where(passkeys.c.id == passkey_id, passkeys.c.identity_id == identity_id)
            .values(name=name)
            .returning(passkeys)
        )
        with naming("name"), self._db.begin() as tx:
            row = tx.execute(change).first()
        if row is None:
            raise NotFoundError("You have no such passkey.")
        return _passkey(row)

    def remove_passkey(self, actor: Actor, passkey_id: UUID) -> None:
        """Take one of the caller's passkeys away; raises FreshLoginRequiredError, NotFoundError."""
        identity_id = require_fresh(actor, self._clock.now())
        mine = passkeys.c.identity_id == identity_id
        with self._db.begin() as tx:
            if not tx.execute(delete(passkeys).where(mine, passkeys.c.id == passkey_id)).rowcount:
                raise NotFoundError("You have no such passkey.")
            self._tell(tx, facts.PASSKEY_REMOVED, actor, passkey_id)

    # Logging in

    def begin_login(self, *, origin: str) -> tuple[Json, str]:
        """What a browser is to show its passkeys of this place by, and a ticket to bring back with the answer."""
        challenge = secrets.token_bytes(_CHALLENGE_BYTES)
        options = self._reader.request_options(origin, challenge=challenge)
        return options, self._tickets.seal({"challenge": challenge.hex()}, _LOGGING_IN, _LASTS)

    def log_in(
        self, ticket: str, answer: Json, client: Client, *, origin: str, accept_terms: int | None = None
    ) -> tuple[str, Actor]:
        """Open a session for whose passkey has signed; raises PasskeyRefusedError, TermsNotAcceptedError.

        An answer opens one session. A key whose count does not grow was copied, and is refused.
        """
        with self._signed(ticket, answer, origin=origin) as (tx, owner_id):
            proofs = {PASSKEY, SECOND_FACTOR}
            return self._sessions.open_in(
                tx, owner_id, client, proofs, accept_terms=accept_terms, proven_at=self._clock.now()
            )

    def prove(self, actor: Actor, secret: str, ticket: str, answer: Json, *, origin: str) -> datetime:
        """Let a passkey of the owner of the session that `secret` opens show that it is him; the moment.

        `ticket` is that of a login. Raises PasskeyRefusedError, also for the passkey of somebody else.
        """
        identity_id = require_session(actor)
        with self._signed(ticket, answer, origin=origin) as (tx, owner_id):
            if owner_id != identity_id:
                raise PasskeyRefusedError("This passkey is not one of yours.")
            return self._sessions.note_proof_in(tx, actor, secret, by=PASSKEY, at=self._clock.now())

    @contextmanager
    def _signed(self, ticket: str, answer: Json, *, origin: str) -> Iterator[tuple[Connection, UUID]]:
        """The transaction in which the passkey's use is noted, and whose it is; a refusal is told."""
        challenge = bytes.fromhex(self._tickets.open(ticket, _LOGGING_IN)["challenge"])
        credential_id, handle = self._reader.read_identifier(answer)
        with self._db.begin() as tx:
            known = _find(tx, credential_id)
        try:
            if known is None or known.state != "active" or handle != known.identity_id.bytes:
                raise PasskeyRefusedError("This passkey is not known here.")
            count = self._reader.read_assertion(
                origin, answer, challenge=challenge, public_key=known.public_key, sign_count=known.sign_count
            )
            with self._db.begin() as tx:
                self._use_once(tx, challenge)
                self._note_use(tx, known, count)
                yield tx, known.identity_id
        except PasskeyRefusedError:
            with self._db.begin() as tx:
                self._sessions.tell_refusal_in(tx, known.identity_id if known else None)
            raise

    def _note_use(self, tx: Connection, known: Row[*tuple[Any, ...]], count: int) -> None:  # Any: columns of many types
        used = (
            update(passkeys)
            .where(passkeys.c.id == known.id, passkeys.c.sign_count == known.sign_count)
            .values(sign_count=count, last_used_at=self._clock.now())
        )
        again = _find(tx, known.credential_id)
        if again is None or again.state != "active" or tx.execute(used).rowcount != 1:
            raise PasskeyRefusedError("This passkey was used or removed meanwhile.")

    def _use_once(self, tx: Connection, challenge: bytes) -> None:
        if not throttle.use_once(tx, challenge.hex(), self._clock.now() + _LASTS):
            raise PasskeyRefusedError("This answer was used already.")

    def _tell(self, tx: Connection, fact: str, actor: Actor, passkey_id: UUID) -> None:
        told = {"identity": str(actor.identity_id), "passkey": str(passkey_id)}
        self._events.record(tx, fact, None, actor, told)


class NoPasskeys:
    """Stands where nothing reads passkeys: there are none."""

    def creation_options(
        self, origin: str, *, site: str, person: bytes, name: str, challenge: bytes, known: Sequence[bytes]
    ) -> Json:
        raise _nothing()

    def request_options(self, origin: str, *, challenge: bytes) -> Json:
        raise _nothing()

    def read_registration(self, origin: str, answer: Json, *, challenge: bytes) -> NewPasskey:
        raise _nothing()

    def read_identifier(self, answer: Json) -> tuple[bytes, bytes | None]:
        raise _nothing()

    def read_assertion(self, origin: str, answer: Json, *, challenge: bytes, public_key: bytes, sign_count: int) -> int:
        raise _nothing()


def _nothing() -> PasskeysUnavailableError:
    return PasskeysUnavailableError("Passkeys are not set up here.")


def _find(tx: Connection, credential_id: bytes) -> Row[*tuple[Any, ...]] | None:  # Any: see above
    query = (
        select(passkeys, identities.c.state)
        .join_from(passkeys, identities, identities.c.id == passkeys.c.identity_id)
        .where(passkeys.c.credential_id == credential_id)
    )
    return tx.execute(query).first()


def _passkey(row: Row[*tuple[Any, ...]]) -> Passkey:  # Any: see above
    return Passkey(row.id, row.name, row.is_synced, row.created_at, row.last_used_at)
