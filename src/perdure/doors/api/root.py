"""What the installation says of itself: limits, addresses, events, public keys, the catalogue of errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from anyio import to_thread
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from perdure.archives.items import MAX_BATCH_BYTES, MAX_BATCH_FILES, MAX_PLAN_ITEMS
from perdure.doors.api.fields import LARGEST_INTEGER, Id
from perdure.doors.api.views import Page
from perdure.doors.http.auth import Caller, KnownCaller
from perdure.doors.http.openapi import ANYONE, problems
from perdure.doors.http.services import Given, Services
from perdure.events.model import Event
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.clock import format_time
from perdure.kernel.digests import DIGEST_NAMES
from perdure.kernel.errors import EXIT_CODES, iter_error_classes

router = APIRouter(tags=["instance"])

LONGEST_WAIT = 30
UPLOAD_CHUNK_BYTES = 128 * 1024 * 1024  # what a proxy that buffers may lose at once


class Limits(BaseModel):
    """What one request may carry."""

    batch_files: int = MAX_BATCH_FILES
    batch_bytes: int = MAX_BATCH_BYTES
    plan_items: int = MAX_PLAN_ITEMS
    upload_chunk_bytes: int = UPLOAD_CHUNK_BYTES


class Instance(BaseModel):
    """`api_url` and `data_url` have no slash at the end; bytes go to the second, under the same paths."""

    name: str
    version: str
    instance_id: UUID
    api_url: str
    data_url: str
    limits: Limits
    digests: list[str]
    time: datetime


class EventView(BaseModel):
    """A fact; `number` orders them without a gap, `chain` proves the order."""

    number: int
    id: UUID
    type: str
    subject: UUID | None
    actor_kind: str
    actor_id: UUID | None
    actor_name: str | None = Field(description="The actor's present name; the event itself holds none.")
    responsible_name: str | None = Field(
        description="The present name of who answered for the service account that acted: `responsible` in `data`."
    )
    recorded_at: str = Field(json_schema_extra={"format": "date-time"}, description="As the chain has it.")
    numbered_at: str = Field(json_schema_extra={"format": "date-time"}, description="As the chain has it.")
    data: dict[str, Any]  # Any: each type of event has its own
    chain: str


class EventPage(BaseModel):
    """Events in their order; `next_after` goes into the next request's `after`."""

    items: list[EventView]
    next_after: int


class KeysView(BaseModel):
    """The public keys that statements and receipts are signed with, old ones too."""

    keys: list[dict[str, Any]]  # Any: the form that keys.json in each store has


class ErrorView(BaseModel):
    code: str
    status: int
    kind: str
    title: str
    next_step: str
    exit_code: int


@router.get(
    "",
    operation_id="get_instance",
    summary="Name, version, addresses and limits",
    responses=problems(),
    openapi_extra=ANYONE,
)
def get_instance(caller: Caller, services: Given) -> Instance:
    place = services.place()
    return Instance(
        name=place.name,
        version=place.version,
        instance_id=place.instance_id,
        api_url=place.api_url,
        data_url=place.data_url,
        limits=Limits(),
        digests=sorted(DIGEST_NAMES),
        time=services.clock.now(),
    )


@router.get(
    "/events",
    operation_id="list_events",
    summary="Events in their order, waiting for new ones if asked",
    responses=problems(403),
)
async def list_events(
    caller: KnownCaller,
    services: Given,
    after: Annotated[
        int, Query(ge=0, le=LARGEST_INTEGER, description="The number of the last event that is known.")
    ] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    archive: Annotated[Id | None, Query(description="Only events about this archive.")] = None,
    wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT, description="Seconds to wait when there is none yet.")] = 0,
) -> EventPage:
    read = partial(
        services.archives.life.list_events, caller, archive_id=archive, after=after, limit=limit, wait_seconds=wait
    )
    events = await to_thread.run_sync(read, limiter=services.waiting if wait else None)
    items = event_views(events, caller, services)
    return EventPage(items=items, next_after=events[-1].number if events else after)


@router.get(
    "/keys",
    operation_id="list_keys",
    summary="The public keys of statements and receipts",
    responses=problems(),
    openapi_extra=ANYONE,
)
def list_keys(services: Given, caller: Caller) -> KeysView:
    return KeysView(keys=[dict(key) for key in services.archives.closing.public_keys()])


@router.get(
    "/errors",
    operation_id="list_errors",
    summary="Every error code with its meaning",
    responses=problems(),
    openapi_extra=ANYONE,
)
def list_errors(caller: Caller) -> Page[ErrorView]:
    return Page(
        items=[
            ErrorView(
                code=error.code,
                status=error.status,
                kind=error.kind.value,
                title=error.title,
                next_step=error.next_step,
                exit_code=EXIT_CODES[error.kind],
            )
            for error in iter_error_classes()
        ]
    )


def event_views(events: Sequence[Event], caller: Actor, services: Services) -> list[EventView]:
    """The events as the API tells them, with the present names of those who acted or answer for who did."""
    told = [one for event in events for one in (event.actor_id, _responsible(event)) if one is not None]
    names = services.identity.find_names(caller, set(told))
    return [_event_view(event, names) for event in events]


def _responsible(event: Event) -> UUID | None:
    """The person who was responsible for the service account that acted."""
    named = event.data.get("responsible") if event.actor_kind is ActorKind.SERVICE else None
    return UUID(named) if isinstance(named, str) else None


def _event_view(event: Event, names: Mapping[UUID, str]) -> EventView:
    responsible = _responsible(event)
    return EventView(
        number=event.number,
        id=event.id,
        type=event.type,
        subject=event.subject,
        actor_kind=event.actor_kind.value,
        actor_id=event.actor_id,
        actor_name=names.get(event.actor_id) if event.actor_id else None,
        responsible_name=names.get(responsible) if responsible else None,
        recorded_at=format_time(event.recorded_at),
        numbered_at=format_time(event.numbered_at),
        data=dict(event.data),
        chain=event.chain.hex(),
    )
