"""The second factor: codes of the time (RFC 6238), each good once, and recovery codes for a lost device."""

from __future__ import annotations

import base64
import hmac
import secrets
from hashlib import sha256
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.hotp import HOTP
from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, update

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity import throttle
from perdure.identity.callers import require_fresh, require_session
from perdure.identity.errors import BadCodeError, SecondFactorExistsError
from perdure.identity.model import CredentialKind
from perdure.identity.notices import Notices
from perdure.identity.ports import Sealer
from perdure.identity.rights import Rights, require_living_in
from perdure.identity.tables import credentials, identities
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.clock import Clock
from perdure.kernel.errors import NotFoundError
from perdure.kernel.ids import new_id

_STEP_SECONDS = 30
_DIGITS = 6
_KEY_BYTES = 20
_STEPS_OFF = (0, -1, 1)  # a clock may be half a minute off, and typing takes time
_RECOVERY_CODES = 10
_RECOVERY_CHARACTERS = 16  # of base 32: 80 random bits
_PURPOSE = "second factor"
_OWN_SESSION = "own session"  # stands where the throttle has an address


class SecondFactor:
    """Turned on by its owner, who proves with a first code that his device works."""

    def __init__(
        self, db: Database, clock: Clock, events: EventLog, sealer: Sealer, rights: Rights, notices: Notices
    ) -> None:
        self._db = db
        self._clock = clock
        self._events = events
        self._sealer = sealer
        self._rights = rights
        self._notices = notices

    def begin_second_factor(self, actor: Actor, *, issuer: str) -> tuple[str, str]:
        """A fresh key for the owner's device, as text and as an `otpauth` address; not in force until confirmed.

        Needs a session with a fresh proof. Raises SecondFactorExistsError when one is in force.
        """
        identity_id = require_fresh(actor, self._clock.now())
        key = secrets.token_bytes(_KEY_BYTES)
        with self._db.begin() as tx:
            tx.execute(select(identities.c.id).where(identities.c.id == identity_id).with_for_update())
            if _find(tx, identity_id, is_confirmed=True) is not None:
                raise SecondFactorExistsError("You have a second factor already.")
            tx.execute(delete(credentials).where(*_mine(identity_id, CredentialKind.TOTP)))
            self._insert(tx, identity_id, CredentialKind.TOTP, self._sealer.seal(key, _PURPOSE))
            label = tx.execute(select(identities.c.display_name).where(identities.c.id == identity_id)).scalar_one()
        text = base64.b32encode(key).decode()
        query = urlencode({"secret": text, "issuer": issuer, "digits": _DIGITS, "period": _STEP_SECONDS})
        return text, f"otpauth://totp/{quote(f'{issuer}:{label}', safe='')}?{query}"

    def confirm_second_factor(self, actor: Actor, code: str) -> list[str]:
        """Put the key in force with a first code; returns recovery codes, which are shown this once.

        Raises BadCodeError, NotFoundError when none was begun.
        """
        identity_id = require_session(actor)
        with self._db.begin() as tx:
            tx.execute(select(identities.c.id).where(identities.c.id == identity_id).with_for_update())
            row = _find(tx, identity_id, is_confirmed=False)
            if row is None:
                raise NotFoundError("Begin with a new key first.")
            step = self._find_step(row.secret, code, None)
            if step is None:
                raise BadCodeError("This is not the code of your device. Is its clock right?")
            tx.execute(update(credentials).where(credentials.c.id == row.id).values(last_step=step))
            codes = self._make_recovery_codes(tx, identity_id)
            self._events.record(tx, facts.SECOND_FACTOR_ADDED, None, actor, {"identity": str(identity_id)})
        return codes

    def renew_recovery_codes(self, actor: Actor, code: str) -> list[str]:
        """Replace the recovery codes; needs a code of the device."""
        identity_id = require_session(actor)
        self._count_guess(identity_id)
        with self._db.begin() as tx:
            self._require_code(tx, identity_id, code)
            self._events.record(tx, facts.RECOVERY_CODES_RENEWED, None, actor, {"identity": str(identity_id)})
            return self._make_recovery_codes(tx, identity_id)

    def remove_second_factor(self, actor: Actor, identity_id: UUID, *, code: str | None = None) -> None:
        """Take it away: one's own with a code, another's, whose device is lost, by who manages his organisation."""
        if actor.kind is not ActorKind.SYSTEM:
            require_session(actor)
        if identity_id == actor.identity_id:
            self._count_guess(identity_id)
        with self._db.begin() as tx:
            if identity_id == actor.identity_id:
                self._require_code(tx, identity_id, code or "")
            else:
                self._rights.require_over(tx, actor, identity_id)
            kinds = [CredentialKind.TOTP.value, CredentialKind.RECOVERY.value]
            mine = credentials.c.identity_id == identity_id
            if tx.execute(delete(credentials).where(mine, credentials.c.kind.in_(kinds))).rowcount:
                self._events.record(tx, facts.SECOND_FACTOR_REMOVED, None, actor, {"identity": str(identity_id)})
                by = "you" if identity_id == actor.identity_id else "those who manage your organisation here"
                said = f"Your second factor was turned off by {by}. A login needs the password only."
                self._notices.tell_in(tx, identity_id, "Your second factor was turned off", said)

    def has_second_factor_in(self, tx: Connection, identity_id: UUID) -> bool:
        """Whether a log-in of this identity needs a code beside the password."""
        return _find(tx, identity_id, is_confirmed=True) is not None

    def use_code_in(self, tx: Connection, identity_id: UUID, code: str) -> bool:
        """Whether the code is right, of the device or one for recovery; it is good this once."""
        row = _find(tx, identity_id, is_confirmed=True)
        if row is None:
            return False
        step = self._find_step(row.secret, code, row.last_step)
        if step is not None:
            tx.execute(update(credentials).where(credentials.c.id == row.id).values(last_step=step))
            return True
        used = delete(credentials).where(*_mine(identity_id, CredentialKind.RECOVERY))
        return tx.execute(used.where(credentials.c.secret == _digest(code))).rowcount == 1

    def _count_guess(self, identity_id: UUID) -> None:
        """A stolen session must not serve to guess codes: each guess is counted, whatever comes of it."""
        with self._db.begin() as tx:
            name, now = f"code of {identity_id}", self._clock.now()
            throttle.count_attempt(tx, name, _OWN_SESSION, is_known_address=True, now=now)

    def _require_code(self, tx: Connection, identity_id: UUID, code: str) -> None:
        if not self.use_code_in(tx, identity_id, code):
            raise BadCodeError("This is not the code of your device, or it was used already.")

    def _find_step(self, sealed: str, code: str, last_step: int | None) -> int | None:
        """The step whose code this is, when it is a later one than that used last."""
        key = self._sealer.open(sealed, _PURPOSE)
        now = int(self._clock.now().timestamp()) // _STEP_SECONDS
        typed = "".join(code.split()).encode()
        hotp = HOTP(key, _DIGITS, SHA1())  # noqa: S303  # what every device speaks; its weakness is of no matter here
        right = [now + off for off in _STEPS_OFF if hmac.compare_digest(hotp.generate(now + off), typed)]
        return next((step for step in right if last_step is None or step > last_step), None)

    def _make_recovery_codes(self, tx: Connection, identity_id: UUID) -> list[str]:
        tx.execute(delete(credentials).where(*_mine(identity_id, CredentialKind.RECOVERY)))
        codes = [_new_recovery_code() for _ in range(_RECOVERY_CODES)]
        for code in codes:
            self._insert(tx, identity_id, CredentialKind.RECOVERY, _digest(code))
        return codes

    def _insert(self, tx: Connection, identity_id: UUID, kind: CredentialKind, secret: str) -> None:
        credential_id = new_id()
        require_living_in(tx, identity_id)
        tx.execute(
            insert(credentials).values(
                id=credential_id,
                identity_id=identity_id,
                kind=kind.value,
                subject=str(credential_id),
                secret=secret,
                created_at=self._clock.now(),
            )
        )


def _find(tx: Connection, identity_id: UUID, *, is_confirmed: bool) -> Row[*tuple[Any, ...]] | None:
    query = select(credentials.c.id, credentials.c.secret, credentials.c.last_step)
    confirmed = credentials.c.last_step.is_not(None)
    query = query.where(*_mine(identity_id, CredentialKind.TOTP), confirmed if is_confirmed else ~confirmed)
    return tx.execute(query.with_for_update()).first()


def _mine(identity_id: UUID, kind: CredentialKind) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return credentials.c.identity_id == identity_id, credentials.c.kind == kind.value


def _new_recovery_code() -> str:
    text = base64.b32encode(secrets.token_bytes(_RECOVERY_CHARACTERS * 5 // 8)).decode().lower()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def _digest(code: str) -> str:
    plain = "".join(code.split()).replace("-", "").lower()
    return sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()
