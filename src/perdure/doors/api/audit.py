"""The audit trail: the log of events searched by who, what, about whom and when."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from perdure.doors.api.fields import LARGEST_INTEGER, Id, Moment
from perdure.doors.api.root import EventView, event_views
from perdure.doors.http.auth import KnownCaller
from perdure.doors.http.openapi import problems
from perdure.doors.http.services import Given
from perdure.events import Search

router = APIRouter(tags=["audit"])

_TYPE = r"^[a-z][a-z_]*\.([a-z][a-z_]*)?$"


class AuditPage(BaseModel):
    """Events in the order that was asked for; `next_after` goes into the next request's `after`, null at the end."""

    items: list[EventView]
    next_after: int | None = Field(description="Null where nothing follows by now.")


@router.get(
    "/audit",
    operation_id="search_audit_trail",
    summary="Search the log of events (administrators; managers: what concerns their organisation)",
    responses=problems(403),
)
def search_audit_trail(
    caller: KnownCaller,
    services: Given,
    named_type: Annotated[
        str | None,
        Query(
            alias="type", pattern=_TYPE, max_length=100, description="`session.opened`, or `session.` for all of these."
        ),
    ] = None,
    actor: Annotated[Id | None, Query(description="The identity that acted.")] = None,
    archive: Annotated[Id | None, Query(description="The archive that it was done to.")] = None,
    about: Annotated[
        Id | None, Query(description="An identity, account, group, organisation, token … that the event's data names.")
    ] = None,
    since: Annotated[Moment | None, Query(description="The first moment that counts.")] = None,
    until: Annotated[Moment | None, Query(description="The first moment that does not count any more.")] = None,
    order: Annotated[Literal["newest", "oldest"], Query(description="Which come first.")] = "newest",
    after: Annotated[
        int | None, Query(ge=0, le=LARGEST_INTEGER, description="The number of the last event that is known.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> AuditPage:
    search = Search(
        type=named_type,
        actor=actor,
        subject=archive,
        about=about,
        since=since,
        until=until,
        after=after,
        is_newest_first=order == "newest",
        limit=limit,
    )
    found = services.archives.trail.search(caller, search)
    items = event_views(found, caller, services)
    return AuditPage(items=items, next_after=found[-1].number if len(found) == limit else None)
