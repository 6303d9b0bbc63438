"""Owners are told of what was done to their identity."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, select

from perdure.identity.letters import write_notice
from perdure.identity.post import Post
from perdure.identity.tables import identities


class Notices:
    """Sends mail where the owner has a confirmed address and mail can be sent."""

    def __init__(self, post: Post) -> None:
        self._post = post

    def tell_in(self, tx: Connection, identity_id: UUID, subject: str, said: str) -> None:
        """Send a notice once the transaction has its end."""
        if not self._post.is_open:
            return
        confirmed = identities.c.email_confirmed_at.is_not(None)
        query = select(identities.c.email).where(identities.c.id == identity_id, confirmed)
        address = tx.execute(query).scalar()
        if address is not None:
            self._post.send_in(tx, write_notice(self._post.url, address, subject, said))
