"""Events, the rule that chains them, and the forms in which they leave us (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha512
from uuid import UUID

from perdure.formats.canonical import canonical_json, canonical_line, parse_json_object
from perdure.formats.errors import DamagedFormatError
from perdure.kernel.actor import ActorKind
from perdure.kernel.clock import format_time, parse_time

GENESIS = bytes(64)  # what the first event stands on
SEGMENT_EVENTS = 10_000
SEGMENT_FORMAT = "event-segment-1"
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TYPE = re.compile(r"[a-z][a-z_]*\.[a-z][a-z_]*")


@dataclass(frozen=True, slots=True)
class Event:
    """A numbered fact. `numbered_at` never decreases with `number`; `recorded_at` may, as transactions overlap.

    It carries ids and no names, so that nobody's personal data is fixed in a log that only grows.
    """

    number: int
    id: UUID
    type: str
    subject: UUID | None
    actor_kind: ActorKind
    actor_id: UUID | None
    recorded_at: datetime
    numbered_at: datetime
    data: Mapping[str, object] = field(default_factory=dict)
    chain: bytes = b""


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive events as canonical NDJSON: a header line, then one line for each event."""

    name: str
    data: bytes
    first: int
    last: int
    previous: bytes  # what the first event stands on
    digest: bytes  # the chain digest of the last event


@dataclass(frozen=True, slots=True)
class DailyRoot:
    """The state of the log at the end of a day (UTC): the last number given by then and its chain digest."""

    day: str
    number: int
    digest: str


def is_event_type(text: str) -> bool:
    """Whether the text has the form `subject.action`."""
    return _TYPE.fullmatch(text) is not None


def find_ids(value: object) -> list[UUID]:
    """The ids that stand in an event's data, sorted, each once."""
    found: set[UUID] = set()
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            if _ID.fullmatch(one):
                found.add(UUID(one))
        elif isinstance(one, Mapping):
            waiting.extend(one.values())
        elif isinstance(one, (list, tuple)):
            waiting.extend(one)
    return sorted(found)


def event_body(event: Event) -> dict[str, object]:
    """All that the chain covers, JSON-ready."""
    return {
        "number": event.number,
        "id": str(event.id),
        "type": event.type,
        "subject": _text(event.subject),
        "actor_kind": event.actor_kind.value,
        "actor_id": _text(event.actor_id),
        "recorded_at": format_time(event.recorded_at),
        "numbered_at": format_time(event.numbered_at),
        "data": dict(event.data),
    }


def chain_digest(previous: bytes, event: Event) -> bytes:
    """SHA-512 over the predecessor's digest and the event's canonical JSON without its own digest."""
    return sha512(previous + canonical_json(event_body(event))).digest()


def verify_chain(events: Iterable[Event], *, after: int = 0, previous: bytes = GENESIS) -> int | None:
    """The number that is expected where the chain breaks first, or None when every event stands on its predecessor."""
    expected, digest = after + 1, previous
    for event in events:
        if event.number != expected or event.chain != chain_digest(digest, event):
            return expected
        expected, digest = expected + 1, event.chain
    return None


def build_segment(events: Sequence[Event], previous: bytes) -> Segment:
    """Write consecutive events, at least one, as a segment; equal events give equal bytes."""
    first, last = events[0].number, events[-1].number
    header = {"format": SEGMENT_FORMAT, "first": first, "last": last, "previous": previous.hex()}
    lines = [canonical_line(header)]
    lines += [canonical_line({**event_body(event), "chain": event.chain.hex()}) for event in events]
    return Segment(f"{first:012d}-{last:012d}.ndjson", b"".join(lines), first, last, previous, events[-1].chain)


def parse_segment(data: bytes) -> tuple[bytes, list[Event]]:
    """The digest a segment stands on, and its events; raises DamagedFormatError, also for a broken chain."""
    head, *lines = data.removesuffix(b"\n").split(b"\n")
    header = parse_json_object(head)
    try:
        previous, first, last = bytes.fromhex(str(header["previous"])), header["first"], header["last"]
        events = [_parse_event(parse_json_object(line)) for line in lines]
    except (KeyError, ValueError, TypeError) as error:
        raise DamagedFormatError(f"not a segment of events: {error!r}") from error
    if header.get("format") != SEGMENT_FORMAT or not events or (first, last) != (events[0].number, events[-1].number):
        raise DamagedFormatError("the header of the segment does not describe its events")
    broken = verify_chain(events, after=events[0].number - 1, previous=previous)
    if broken is not None:
        raise DamagedFormatError(f"the chain breaks at event {broken}")
    return previous, events


def render_cloudevent(event: Event, source: str) -> dict[str, object]:
    """The event as CloudEvents 1.0 in the structured JSON format; `source` is the URI of the instance.

    `sequence` is the number as text (the sequence extension), `actorid` and `actorkind` tell who acted.
    """
    rendered: dict[str, object] = {
        "specversion": "1.0",
        "id": str(event.id),
        "source": source,
        "type": event.type,
        "time": format_time(event.recorded_at),
        "datacontenttype": "application/json",
        "sequence": str(event.number),
        "actorkind": event.actor_kind.value,
        "data": dict(event.data),
    }
    if event.subject is not None:
        rendered["subject"] = str(event.subject)
    if event.actor_id is not None:
        rendered["actorid"] = str(event.actor_id)
    return rendered


def _parse_event(fields: dict[str, object]) -> Event:
    number, data = fields["number"], fields["data"]
    if not isinstance(number, int) or not isinstance(data, dict):
        raise ValueError("an event without number or data")
    return Event(
        number=number,
        id=UUID(str(fields["id"])),
        type=str(fields["type"]),
        subject=_id(fields["subject"]),
        actor_kind=ActorKind(str(fields["actor_kind"])),
        actor_id=_id(fields["actor_id"]),
        recorded_at=parse_time(str(fields["recorded_at"])),
        numbered_at=parse_time(str(fields["numbered_at"])),
        data=data,
        chain=bytes.fromhex(str(fields["chain"])),
    )


def _text(identifier: UUID | None) -> str | None:
    return None if identifier is None else str(identifier)


def _id(value: object) -> UUID | None:
    return None if value is None else UUID(str(value))
