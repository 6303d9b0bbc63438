"""What can go wrong with the event log."""

from __future__ import annotations

from perdure.kernel.errors import DamagedError


class EventChainBrokenError(DamagedError):
    """A number is missing or repeated, or an event does not give the digest that its successor stands on."""

    code = "event_chain_broken"
    title = "The event log does not chain"
    next_step = "Compare the segment with its other copies and with the signed daily roots; nothing was loaded."
