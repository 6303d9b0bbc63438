"""What has to be remembered between two steps: sealed, and handed to who comes back with it.

A ticket of a login is good once: where something was opened, made or linked by it, its name is kept until it ends.
"""

from __future__ import annotations

import json
import secrets
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from perdure.identity import throttle
from perdure.identity.errors import BadSealError, TicketUsedError
from perdure.identity.model import Ticket
from perdure.identity.ports import Sealer
from perdure.kernel.clock import Clock, format_time, parse_time

TICKET_LASTS = timedelta(minutes=30)


class Tickets:
    """Good until a time, for one purpose; readable by us alone."""

    def __init__(self, clock: Clock, sealer: Sealer) -> None:
        self._clock = clock
        self._sealer = sealer

    def seal(self, kept: dict[str, Any], purpose: str, lasts: timedelta) -> str:  # Any: JSON
        """Text that `open` turns back for so long."""
        until = format_time(self._clock.now() + lasts)
        return self._sealer.seal(
            json.dumps({"id": secrets.token_hex(16), "until": until, "kept": kept}).encode(), purpose
        )

    def open(self, sealed: str, purpose: str) -> dict[str, Any]:  # Any: JSON that we sealed
        """What was sealed; raises BadSealError for anything else, and when it is too late."""
        kept: dict[str, Any] = self._open(sealed, purpose)["kept"]
        return kept

    def open_ticket(self, sealed: str, purpose: str) -> tuple[Ticket, dict[str, Any]]:  # Any: as above
        """The same, and what it is redeemed by: the text would not do, as one seal can be written in several ways."""
        document = self._open(sealed, purpose)
        if "id" not in document:
            raise BadSealError("This came too late.")
        return Ticket(document["id"], sealed, parse_time(document["until"])), document["kept"]

    def _open(self, sealed: str, purpose: str) -> dict[str, Any]:  # Any: as above
        document: dict[str, Any] = json.loads(self._sealer.open(sealed, purpose))
        if parse_time(document["until"]) <= self._clock.now():
            raise BadSealError("This came too late.")
        return document


def require_unused_in(tx: Connection, ticket: Ticket | None, now: datetime) -> None:
    """Return while a ticket was not redeemed, if there is one; raises TicketUsedError."""
    if ticket is not None and throttle.is_used(tx, f"ticket {ticket.id}", now):
        raise TicketUsedError("Something was done by this login already.")


def redeem_in(tx: Connection, ticket: Ticket | None, now: datetime) -> None:
    """Note the use of a ticket, if there is one, with what is done by it; raises TicketUsedError at the second."""
    if ticket is not None and not throttle.use_once(tx, f"ticket {ticket.id}", now + TICKET_LASTS):
        raise TicketUsedError("Something was done by this login already.")
