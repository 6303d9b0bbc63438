"""One's own e-mail address: proven by a mail to it, told of what happens, never a way to log in or to be linked."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, select, update

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity.callers import require_fresh, require_self_reader
from perdure.identity.errors import MailKeyEndedError, NoAddressError
from perdure.identity.letters import write_approval, write_confirmation, write_notice
from perdure.identity.mail_keys import KeyKind, end_keys, find_key, make_key, require_few_keys, use_key
from perdure.identity.model import Address
from perdure.identity.names import check_address, fold_address
from perdure.identity.post import Post
from perdure.identity.rights import require_living
from perdure.identity.tables import identities
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.clock import Clock

_CONFIRM_WITHIN = timedelta(days=1)
_APPROVED_CONFIRM_WITHIN = timedelta(days=14)
_MOST_KEYS = 5  # at a time: whoever has a session floods nobody's letter box


class Addresses:
    """The address of each identity that a mail has proven."""

    def __init__(self, db: Database, clock: Clock, events: EventLog, post: Post) -> None:
        self._db = db
        self._clock = clock
        self._events = events
        self._post = post

    def get_address(self, actor: Actor) -> Address:
        """One's own address; raises NoAddressError."""
        identity_id = require_self_reader(actor)
        query = select(identities.c.email, identities.c.email_confirmed_at).where(identities.c.id == identity_id)
        with self._db.begin() as tx:
            row = tx.execute(query).one()
        if row.email is None:
            raise NoAddressError("No address is known of you.")
        return Address(row.email, row.email_confirmed_at)

    def change_address(self, actor: Actor, address: str) -> None:
        """Send a mail to the new address, which counts once it is confirmed; until then the old one does.

        Needs a fresh proof: whoever holds the address can reset the password.
        """
        now = self._clock.now()
        identity_id = require_fresh(actor, now)
        self._post.require_open()
        address = check_address(address)
        with self._db.begin() as tx:
            row = tx.execute(select(identities).where(identities.c.id == identity_id).with_for_update()).one()
            require_living(row)
            require_few_keys(tx, identity_id, KeyKind.ADDRESS, now, most=_MOST_KEYS)
            ends_at = now + _CONFIRM_WITHIN
            key = make_key(tx, KeyKind.ADDRESS, identity_id, address, now, ends_at)
            letter = write_confirmation(self._post.url, address, row.display_name, key, ends_at)
            self._post.send_in(tx, letter, lasts=_CONFIRM_WITHIN)

    def confirm_address(self, key: str) -> Address:
        """Let the address count that the mail with this key went to; the one before it is told.

        Raises MailKeyEndedError.
        """
        with self._db.begin() as tx:
            now = self._clock.now()
            identity_id, _ = find_key(tx, KeyKind.ADDRESS, key, now)
            row = tx.execute(select(identities).where(identities.c.id == identity_id).with_for_update()).one()
            _, address = use_key(tx, KeyKind.ADDRESS, key, now)  # a new password that came first has ended it
            if row.state != "active":
                raise MailKeyEndedError("This identity is disabled.")
            if row.email_confirmed_at is not None and fold_address(address) != row.email_folded:
                said = (
                    f"The e-mail address of {row.display_name} here is now another one. No more mail comes to this one."
                )
                self._post.send_in(tx, write_notice(self._post.url, row.email, "Your address was changed", said))
            self.set_confirmed_in(tx, identity_id, address, now)
            end_keys(tx, identity_id)
            who = Actor(ActorKind(row.kind), identity_id)
            self._events.record(tx, facts.ADDRESS_CONFIRMED, None, who, {"identity": str(identity_id)})
        return Address(address, now)

    def require_key(self, key: str) -> str:
        """The address that a key would confirm, which stays good; raises MailKeyEndedError."""
        with self._db.begin() as tx:
            return find_key(tx, KeyKind.ADDRESS, key, self._clock.now())[1]

    def tell_approval_in(self, tx: Connection, identity_id: UUID, name: str, address: str) -> None:
        """Tell who applied that he is let in, with a key to confirm his address."""
        if not self._post.is_open:
            return
        now = self._clock.now()
        ends_at = now + _APPROVED_CONFIRM_WITHIN
        key = make_key(tx, KeyKind.ADDRESS, identity_id, address, now, ends_at)
        self._post.send_in(tx, write_approval(self._post.url, address, name, key, ends_at))

    @staticmethod
    def set_confirmed_in(tx: Connection, identity_id: UUID, address: str, at: datetime) -> None:
        """Let an address count that was proven."""
        told = {"email": address, "email_folded": fold_address(address), "email_confirmed_at": at}
        tx.execute(update(identities).where(identities.c.id == identity_id).values(**told))
