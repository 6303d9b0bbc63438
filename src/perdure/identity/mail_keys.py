"""Keys that are sent by mail: 256 random bits, kept as a digest, good once and for a while."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection, delete, func, insert, select

from perdure.identity.errors import MailKeyEndedError
from perdure.identity.secrets import MAIL_PREFIX, digest_secret, new_secret
from perdure.identity.tables import mail_keys
from perdure.kernel.errors import TryAgainError


class KeyKind(StrEnum):
    RESET = "reset"
    ADDRESS = "address"


def make_key(tx: Connection, kind: KeyKind, identity_id: UUID, address: str, now: datetime, ends_at: datetime) -> str:
    """A fresh key for a mail; only its digest is kept."""
    key = new_secret(MAIL_PREFIX)
    row = {"digest": digest_secret(key), "kind": kind.value, "identity_id": identity_id, "address": address}
    tx.execute(insert(mail_keys).values(**row, created_at=now, expires_at=ends_at))
    return key


def find_key(tx: Connection, kind: KeyKind, key: str, now: datetime) -> tuple[UUID, str]:
    """Whose key it is, and to which address it went; raises MailKeyEndedError."""
    good = (mail_keys.c.digest == digest_secret(key), mail_keys.c.kind == kind.value, mail_keys.c.expires_at > now)
    row = tx.execute(select(mail_keys).where(*good)).first()
    if row is None:
        raise MailKeyEndedError("This link is not good.")
    return row.identity_id, row.address


def use_key(tx: Connection, kind: KeyKind, key: str, now: datetime) -> tuple[UUID, str]:
    """As `find_key`, once."""
    found = find_key(tx, kind, key, now)
    if not tx.execute(delete(mail_keys).where(mail_keys.c.digest == digest_secret(key))).rowcount:
        raise MailKeyEndedError("This link was used at this moment.")
    return found


def count_keys(tx: Connection, identity_id: UUID, kind: KeyKind, now: datetime) -> int:
    """How many keys of this kind are good."""
    mine = (mail_keys.c.identity_id == identity_id, mail_keys.c.kind == kind.value, mail_keys.c.expires_at > now)
    return tx.execute(select(func.count()).where(*mine)).scalar_one()


def require_few_keys(tx: Connection, identity_id: UUID, kind: KeyKind, now: datetime, *, most: int) -> None:
    """Raises TryAgainError when many were sent that are still good."""
    if count_keys(tx, identity_id, kind, now) >= most:
        raise TryAgainError(f"{most} mails with links were sent to you that are still good: use one of them.")


def forget_ended_keys(tx: Connection, now: datetime) -> int:
    """Remove keys that are not good any more."""
    return tx.execute(delete(mail_keys).where(mail_keys.c.expires_at <= now)).rowcount


def end_keys(tx: Connection, identity_id: UUID) -> None:
    """Let no key that was sent for an identity be good any more.

    After a new password neither one that would make another's address the one to reset it by.
    """
    tx.execute(delete(mail_keys).where(mail_keys.c.identity_id == identity_id))
