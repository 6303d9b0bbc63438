"""Time as a value that is given, never read by a rule."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the present time; a test gives its own."""

    def now(self) -> datetime:
        """The present time, with the zone UTC."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        return datetime.now(UTC)


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds, as `2026-11-20T12:00:00.000000Z`; raises ValueError without a zone."""
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone")
    # strftime would leave out the zeros before a year below 1000.
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 time; raises ValueError when it is malformed or has no zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.astimezone(UTC)
