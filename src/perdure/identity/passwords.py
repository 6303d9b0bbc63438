"""Passwords at rest: argon2id, with the same work for a login name that does not exist."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from perdure.identity.errors import LoginBusyError, WeakPasswordError
from perdure.identity.model import MAX_PASSWORD_CHARACTERS, find_password_problem

_TURN_SECONDS = 5.0
_WAITING_FOR_EACH = 2  # logins that wait hold a thread each, which other requests need


@dataclass(frozen=True, slots=True)
class PasswordCost:
    """Argon2id parameters (RFC 9106 section 4, the second recommended option) and how many run at once."""

    passes: int = 3
    memory_kib: int = 65_536
    lanes: int = 4
    at_once: int = 4


class Passwords:
    """Hashes and compares; at most `cost.at_once` at a time, so that a flood of logins cannot take all memory."""

    def __init__(self, cost: PasswordCost) -> None:
        self._hasher = PasswordHasher(time_cost=cost.passes, memory_cost=cost.memory_kib, parallelism=cost.lanes)
        self._turns = threading.BoundedSemaphore(cost.at_once)
        self._places = threading.BoundedSemaphore(cost.at_once * (1 + _WAITING_FOR_EACH))
        parameters = f"$argon2id$v=19$m={cost.memory_kib},t={cost.passes},p={cost.lanes}"
        self._nobody = f"{parameters}${_base64(os.urandom(16))}${_base64(os.urandom(32))}"  # no password fits

    def hash_new(self, password: str, login: str) -> str:
        """The hash to store; raises WeakPasswordError with what is wrong."""
        problem = find_password_problem(password, login)
        if problem:
            raise WeakPasswordError(f"This password cannot be used: {problem}.", field="password")
        with self.turn():
            return self._hasher.hash(password)

    def is_right(self, stored: str | None, password: str) -> bool:
        """Compare; None (no such login) costs the same and is never right. Call inside `turn`."""
        try:
            self._hasher.verify(stored or self._nobody, password[:MAX_PASSWORD_CHARACTERS])
        except (VerifyMismatchError, InvalidHashError):
            return False
        return stored is not None

    def find_rehash(self, stored: str, password: str) -> str | None:
        """A hash at the present cost when the stored one has another, else None."""
        return self._hasher.hash(password) if self._hasher.check_needs_rehash(stored) else None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn at hashing; raises LoginBusyError when none comes in time, or too many wait already."""
        with _held(self._places, 0), _held(self._turns, _TURN_SECONDS):
            yield


@contextmanager
def _held(semaphore: threading.Semaphore, seconds: float) -> Iterator[None]:
    if not semaphore.acquire(timeout=seconds):
        raise LoginBusyError("Too many passwords are being checked.")
    try:
        yield
    finally:
        semaphore.release()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")
