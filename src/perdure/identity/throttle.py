"""Failed logins are counted before the password is compared, so that guesses sent at once count all."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256
from math import ceil
from uuid import UUID

from sqlalchemy import Connection, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from perdure.db import Database
from perdure.identity.errors import LoginThrottledError
from perdure.identity.model import CLIENT_BACKOFF, LOGIN_BACKOFF, Backoff, fold_name
from perdure.identity.tables import login_attempts

_REFUSALS_TOLD_EVERY = timedelta(minutes=1)

_COUNTER = (
    select(login_attempts.c.failures, login_attempts.c.last_at)
    .where(login_attempts.c.key == bindparam("key"))
    .with_for_update()
)

_MOMENT = select(login_attempts.c.last_at).where(login_attempts.c.key == bindparam("key"))


def count_attempt(tx: Connection, login: str, address: str, *, is_known_address: bool, now: datetime) -> None:
    """Count an attempt as failed until `forgive_attempt`; raises LoginThrottledError when it comes too early.

    The error rolls back what was counted, so that trying again and again does not make the wait longer.
    """
    counters = [(_client_key(login, address), CLIENT_BACKOFF)]
    if not is_known_address:
        counters.append((_login_key(login), LOGIN_BACKOFF))
    wait = max(_count(tx, key, backoff, now) for key, backoff in counters)
    if wait > timedelta(0):
        seconds = ceil(wait.total_seconds())
        raise LoginThrottledError(f"Wait {seconds} seconds before the next try.", retry_after=seconds)


def forgive_attempt(tx: Connection, login: str, address: str, *, is_known_address: bool) -> None:
    """The password was right: forget this client's failures, and take back what was counted beforehand."""
    tx.execute(delete(login_attempts).where(login_attempts.c.key == _client_key(login, address)))
    if not is_known_address:
        _take_back(tx, _login_key(login))


def take_back_attempt(tx: Connection, login: str, address: str, *, is_known_address: bool) -> None:
    """Nothing was guessed this time: take back what was counted beforehand, and forget no earlier failure."""
    _take_back(tx, _client_key(login, address))
    if not is_known_address:
        _take_back(tx, _login_key(login))


def remember_address(tx: Connection, login: str, address: str, until: datetime) -> None:
    """Let the address be a known one for this login, where no session tells so."""
    row = insert(login_attempts).values(key=_known_key(login, address), failures=0, last_at=until)
    tx.execute(row.on_conflict_do_update(index_elements=["key"], set_={"last_at": until}))


def is_remembered(tx: Connection, login: str, address: str, now: datetime) -> bool:
    """Whether somebody had the right password for this login from this address."""
    row = tx.execute(_MOMENT, {"key": _known_key(login, address)}).first()
    return bool(address) and row is not None and row.last_at > now


def use_once(tx: Connection, challenge: str, until: datetime) -> bool:
    """Whether this is the first use of the challenge, which is good until then."""
    key = _once_key(challenge)
    row = insert(login_attempts).values(key=key, failures=0, last_at=until).on_conflict_do_nothing()
    return tx.execute(row.returning(login_attempts.c.key)).first() is not None


def remember(tx: Connection, what: str, until: datetime) -> None:
    """Keep until then that something happened; the last time counts."""
    row = insert(login_attempts).values(key=_once_key(what), failures=0, last_at=until)
    tx.execute(row.on_conflict_do_update(index_elements=["key"], set_={"last_at": until}))


def find_remembered(tx: Connection, what: str) -> datetime | None:
    """Until when it was to be kept."""
    row = tx.execute(_MOMENT, {"key": _once_key(what)}).first()
    return None if row is None else row.last_at


def is_used(tx: Connection, challenge: str, now: datetime) -> bool:
    """Whether a challenge that is still good was used."""
    until = find_remembered(tx, challenge)
    return until is not None and until > now


def use_once_at(db: Database, challenge: str, until: datetime) -> bool:
    """The same in a transaction of its own."""
    with db.begin() as tx:
        return use_once(tx, challenge, until)


def count_refusal(tx: Connection, identity_id: UUID | None, now: datetime) -> int:
    """How many refusals an event shall tell of; 0 within a minute after the last one, when this one is only counted.

    All names that nobody has are counted together: however many are tried from however many addresses, the log of
    events grows by one line a minute.
    """
    key = sha256(f"refused\0{identity_id or ''}".encode()).digest()
    never = now - _REFUSALS_TOLD_EVERY
    tx.execute(insert(login_attempts).values(key=key, failures=0, last_at=never).on_conflict_do_nothing())
    row = tx.execute(_COUNTER, {"key": key}).one()
    is_due = row.last_at <= never
    kept = {"failures": 0, "last_at": now} if is_due else {"failures": row.failures + 1, "last_at": row.last_at}
    tx.execute(update(login_attempts).where(login_attempts.c.key == key).values(**kept))
    return row.failures + 1 if is_due else 0


def forget_attempts(tx: Connection, now: datetime) -> int:
    """Remove counters that no longer matter."""
    longest = max(CLIENT_BACKOFF.forget, LOGIN_BACKOFF.forget)
    return tx.execute(delete(login_attempts).where(login_attempts.c.last_at < now - longest)).rowcount


def _count(tx: Connection, key: bytes, backoff: Backoff, now: datetime) -> timedelta:
    fresh = insert(login_attempts).values(key=key, failures=0, last_at=now).on_conflict_do_nothing()
    tx.execute(fresh)
    row = tx.execute(_COUNTER, {"key": key}).one()
    failures = 0 if row.last_at + backoff.forget < now else row.failures
    tx.execute(update(login_attempts).where(login_attempts.c.key == key).values(failures=failures + 1, last_at=now))
    return backoff.wait_until(failures, row.last_at) - now


def _take_back(tx: Connection, key: bytes) -> None:
    less = func.greatest(login_attempts.c.failures - 1, 0)
    tx.execute(update(login_attempts).where(login_attempts.c.key == key).values(failures=less))


def _client_key(login: str, address: str) -> bytes:
    return sha256(f"client\0{fold_name(login)}\0{address}".encode("utf-8", "surrogatepass")).digest()


def _once_key(challenge: str) -> bytes:
    return sha256(f"once\0{challenge}".encode()).digest()


def _known_key(login: str, address: str) -> bytes:
    return sha256(f"known\0{fold_name(login)}\0{address}".encode("utf-8", "surrogatepass")).digest()


def _login_key(login: str) -> bytes:
    return sha256(f"login\0{fold_name(login)}".encode("utf-8", "surrogatepass")).digest()
