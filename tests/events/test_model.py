"""The chain and the forms of events: rules by property."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.events.model import (
    GENESIS,
    Event,
    build_segment,
    chain_digest,
    is_event_type,
    parse_segment,
    render_cloudevent,
    verify_chain,
)
from perdure.formats.errors import DamagedFormatError
from perdure.kernel.actor import ActorKind

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
START = datetime(2026, 1, 1, tzinfo=UTC)


@st.composite
def chains(draw: st.DrawFn, min_size: int = 1) -> list[Event]:
    """Consecutive events, each standing on its predecessor."""
    digest, found = GENESIS, list[Event]()
    for number in range(1, draw(st.integers(min_size, 6)) + 1):
        event = Event(
            number=number,
            id=draw(st.uuids()),
            type=draw(st.sampled_from(["archive.opened", "files.added", "copy.verified"])),
            subject=draw(st.none() | st.uuids()),
            actor_kind=draw(st.sampled_from(list(ActorKind))),
            actor_id=draw(st.none() | st.uuids()),
            recorded_at=START + draw(st.timedeltas(timedelta(0), timedelta(days=9))),
            numbered_at=START + timedelta(days=10, seconds=number),
            data=draw(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=3)),
        )
        digest = chain_digest(digest, event)
        found.append(replace(event, chain=digest))
    return found


@settings(max_examples=40)
@given(chains())
def test_a_whole_chain_verifies(events: list[Event]) -> None:
    assert verify_chain(events) is None


CHANGES: dict[str, Any] = {  # one value of each type of field: Any, as `replace` takes them by name
    "type": "files.removed",
    "subject": UUID(int=1),
    "actor_kind": ActorKind.SERVICE,
    "actor_id": UUID(int=2),
    "recorded_at": START - timedelta(days=1),
    "numbered_at": START - timedelta(days=1),
    "data": {"forged": True},
    "id": UUID(int=3),
    "number": 77,
    "chain": bytes(64),
}


@pytest.mark.parametrize("field", sorted(CHANGES))
@settings(max_examples=15)
@given(events=chains(), data=st.data())
def test_a_changed_field_breaks_the_chain_where_it_was_changed(
    events: list[Event], data: st.DataObject, field: str
) -> None:
    at = data.draw(st.integers(0, len(events) - 1))
    if getattr(events[at], field) == CHANGES[field]:
        return
    events[at] = replace(events[at], **{field: CHANGES[field]})
    assert verify_chain(events) == at + 1


@settings(max_examples=40)
@given(chains(min_size=3), st.data())
def test_a_missing_a_repeated_and_a_swapped_event_are_seen(events: list[Event], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(events) - 2))
    assert verify_chain(events[:at] + events[at + 1 :]) == at + 1
    assert verify_chain([*events[: at + 1], events[at], *events[at + 1 :]]) == at + 2
    assert verify_chain([*events[:at], events[at + 1], events[at], *events[at + 2 :]]) == at + 1


@settings(max_examples=40)
@given(chains(min_size=2))
def test_a_part_of_the_chain_verifies_from_the_digest_it_stands_on(events: list[Event]) -> None:
    assert verify_chain(events[1:], after=1, previous=events[0].chain) is None
    assert verify_chain(events[1:], after=1, previous=GENESIS) == 2


@settings(max_examples=40)
@given(chains())
def test_a_segment_gives_back_its_events_and_names_its_ends(events: list[Event]) -> None:
    segment = build_segment(events, GENESIS)
    assert parse_segment(segment.data) == (GENESIS, events)
    assert (segment.first, segment.last, segment.digest) == (1, len(events), events[-1].chain)
    assert build_segment(events, GENESIS) == segment


@settings(max_examples=40)
@given(chains(), st.data())
def test_no_changed_byte_of_a_segment_passes(events: list[Event], data: st.DataObject) -> None:
    content = bytearray(build_segment(events, GENESIS).data)
    at = data.draw(st.integers(0, len(content) - 2))  # the last byte is the newline, which may be missing
    content[at] ^= data.draw(st.integers(1, 255))
    try:
        read = parse_segment(bytes(content))
    except DamagedFormatError:
        return
    assert read == (GENESIS, events)  # as the case of a hexadecimal digit


def test_a_segment_that_was_cut_is_damaged() -> None:
    with pytest.raises(DamagedFormatError):
        parse_segment(b"")
    with pytest.raises(DamagedFormatError):
        parse_segment(b'{"first":1,"format":"event-segment-1","last":1,"previous":""}\n')


def test_a_cloudevent_has_the_required_attributes_and_no_empty_ones() -> None:
    event = Event(7, UUID(int=7), "archive.closed", None, ActorKind.SYSTEM, None, START, START, {"files": 3})
    assert render_cloudevent(event, "https://archive.example/") == {
        "specversion": "1.0",
        "id": "00000000-0000-0000-0000-000000000007",
        "source": "https://archive.example/",
        "type": "archive.closed",
        "time": "2026-01-01T00:00:00.000000Z",
        "datacontenttype": "application/json",
        "sequence": "7",
        "actorkind": "system",
        "data": {"files": 3},
    }
    named = render_cloudevent(replace(event, subject=UUID(int=1), actor_id=UUID(int=2)), "urn:x")
    assert (named["subject"], named["actorid"]) == (str(UUID(int=1)), str(UUID(int=2)))
    assert all(name.isalnum() and name.islower() for name in named)  # CloudEvents 1.0.2 section 3.1


@pytest.mark.parametrize("text", ["closed", "Archive.closed", "archive.", ".closed", "a.b.c", "archive closed"])
def test_a_type_has_a_subject_and_an_action(text: str) -> None:
    assert not is_event_type(text)
    assert is_event_type("archive.closed")
