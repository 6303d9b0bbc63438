"""Passwords that a directory of the institution compares, counted and refused as our own are."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from perdure.db import Database
from perdure.identity import throttle
from perdure.identity.errors import BadCredentialsError, NoSuchProviderError
from perdure.identity.federation import ProviderCard
from perdure.identity.model import Arrival, Client
from perdure.identity.ports import Directory
from perdure.identity.sessions import Sessions
from perdure.kernel.clock import Clock
from perdure.kernel.errors import PerdureError

_ADDRESS_REMEMBERED = timedelta(days=90)
_LONGEST_COUNTED = 300  # characters: to put a long name into one form takes the square of its length
_IGNORED = frozenset("\u034f\u1806\ufffc")  # as directories do when they compare (RFC 4518), beside marks and blanks


class Directories:
    """The configured directories. Nothing here opens a session: that is for `Arrivals`."""

    def __init__(self, db: Database, clock: Clock, sessions: Sessions, directories: Sequence[Directory]) -> None:
        self._db = db
        self._clock = clock
        self._sessions = sessions
        self._directories = {one.name: one for one in directories}

    def list_directories(self) -> list[ProviderCard]:
        """The ways to log in by a password of elsewhere, in the operator's order; for everybody."""
        return [ProviderCard(one.name, one.label, one.kind) for one in self._directories.values()]

    def check_password(self, directory: str, login: str, password: str, client: Client) -> Arrival:
        """Who has this login and this password at the directory.

        Raises BadCredentialsError without saying what was wrong, LoginThrottledError after many failures,
        ProviderUnavailableError when the directory does not answer, and NoSuchProviderError.
        """
        asked = self._directories.get(directory)
        if asked is None:
            raise NoSuchProviderError("There is no directory of this name here.")
        login = login.strip()
        counted = f"{directory}\0{_plain(login)}"
        with self._db.begin() as tx:
            now = self._clock.now()
            is_known = throttle.is_remembered(tx, counted, client.address, now)
            throttle.count_attempt(tx, counted, client.address, is_known_address=is_known, now=now)
        try:
            found = asked.find_person(login, password)
        except PerdureError:  # nothing was learnt of the password
            with self._db.begin() as tx:
                throttle.take_back_attempt(tx, counted, client.address, is_known_address=is_known)
            raise
        with self._db.begin() as tx:
            if found is not None:
                throttle.forgive_attempt(tx, counted, client.address, is_known_address=is_known)
                throttle.remember_address(tx, counted, client.address, self._clock.now() + _ADDRESS_REMEMBERED)
                return replace(found, proven_at=self._clock.now())
            self._sessions.tell_refusal_in(tx, None)
        raise BadCredentialsError(f"The login name or the password at {asked.label} is wrong.")


def _plain(login: str) -> str:
    """One name for all that a directory takes for the same, so that guesses at them count together."""
    letters = unicodedata.normalize("NFKD", login[:_LONGEST_COUNTED]).casefold()
    return "".join(one for one in letters if unicodedata.category(one)[0] not in "MZC" and one not in _IGNORED)
