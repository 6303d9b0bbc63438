"""Passwords of things that are no login: kept, compared and slowed down as those of people are."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256

from perdure.db import Database
from perdure.formats.canonical import canonical_json, parse_json_object
from perdure.formats.errors import DamagedFormatError
from perdure.identity import throttle
from perdure.identity.errors import BadSealError
from perdure.identity.passwords import Passwords
from perdure.identity.ports import Sealer
from perdure.kernel.clock import Clock, format_time, parse_time

_PASS = "lock pass"  # noqa: S105  # what it is sealed for


class Locks:
    """A lock is a password on something, which `name` tells from all others; what it opens is its owner's to know."""

    def __init__(self, db: Database, clock: Clock, passwords: Passwords, sealer: Sealer) -> None:
        self._db = db
        self._clock = clock
        self._passwords = passwords
        self._sealer = sealer

    def make_lock(self, password: str) -> str:
        """What is to be kept of a password; raises WeakPasswordError."""
        return self._passwords.hash_new(password, "")

    def open_lock(self, name: str, kept: str, password: str, address: str) -> bool:
        """Whether the password opens it; raises LoginThrottledError after many failures, and LoginBusyError."""
        key = f"lock {name}"
        with self._passwords.turn():
            with self._db.begin() as tx:
                throttle.count_attempt(tx, key, address, is_known_address=False, now=self._clock.now())
            is_right = self._passwords.is_right(kept, password)
        if is_right:
            with self._db.begin() as tx:
                throttle.forgive_attempt(tx, key, address, is_known_address=False)
        return is_right

    def seal_pass(self, name: str, kept: str, lifetime: timedelta) -> str:
        """A text that shows for so long that its bearer had the password."""
        told = {"lock": name, "of": _fingerprint(kept), "until": format_time(self._clock.now() + lifetime)}
        return self._sealer.seal(canonical_json(told), _PASS)

    def is_pass(self, name: str, kept: str, text: str) -> bool:
        """Whether that text was sealed for this lock and its present password, and has not ended."""
        try:
            told = parse_json_object(self._sealer.open(text, _PASS))
            until: datetime = parse_time(str(told["until"]))
        except (BadSealError, DamagedFormatError, KeyError, ValueError):
            return False
        return told.get("lock") == name and told.get("of") == _fingerprint(kept) and until > self._clock.now()


def _fingerprint(kept: str) -> str:
    return sha256(kept.encode()).hexdigest()
