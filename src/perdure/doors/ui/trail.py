"""The audit trail: who did what, found by person, kind, archive and time."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from uuid import UUID

from fastapi import APIRouter, FastAPI, Request, Response

from perdure.archives import events as of_archives
from perdure.doors.http.auth import Caller
from perdure.doors.http.services import Given, Services
from perdure.doors.ui.asking import Content, beginning_of, end_of, find_day, find_id, refuse, with_query
from perdure.doors.ui.login import render_form
from perdure.doors.ui.people import find_person, names_of
from perdure.events import Event, Search
from perdure.identity import events as of_people
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.errors import BadInputError, PerdureError
from perdure.kernel.ids import short_form

router = APIRouter(include_in_schema=False)

_SHOWN = 100
_LARGEST_NUMBER = (1 << 63) - 1
_TYPE = re.compile(r"[a-z][a-z_]{0,60}\.([a-z][a-z_]{0,60})?")
KINDS = sorted(
    {
        value
        for module in (of_people, of_archives)
        for value in vars(module).values()
        if isinstance(value, str) and _TYPE.fullmatch(value)
    }
)
_ASKED = ("actor", "about", "archive", "type", "since", "until")
_NOBODY = {
    ActorKind.SYSTEM: "the system",
    ActorKind.ANONYMOUS: "somebody who was not logged in",
    ActorKind.LINK: "a link",
}


def open_trail_page(app: FastAPI) -> None:
    """Serve the page."""
    app.include_router(router)


@router.get("/audit")
def show_trail(request: Request, caller: Caller, services: Given) -> Response:
    asked = {name: value.replace("\0", "") for name, value in request.query_params.items()}
    error: BadInputError | None = None
    try:
        found: list[Event] = []
        try:
            search = _read_search(asked, caller, services)
        except BadInputError as problem:
            error = problem
            services.archives.trail.search(caller, Search(limit=1))  # who may not look is told that, and no more
        else:
            found = services.archives.trail.search(caller, search)
    except PerdureError as problem:
        return refuse(request, services, problem, caller=caller)
    kept = {name: asked.get(name, "") for name in _ASKED}
    is_more = len(found) == _SHOWN
    content: Content = {
        "error": error,
        "asked": kept,
        "kinds": KINDS,
        "events": _tell(found, caller, services),
        "is_first": not asked.get("after"),
        "first_url": with_query("/audit", **kept),
        "next_url": with_query("/audit", **kept, after=found[-1].number) if is_more else None,
    }
    return render_form(request, services, "trail.html", content, error.status if error else 200)


def _read_search(asked: Mapping[str, str], caller: Actor, services: Services) -> Search:
    kind, after = asked.get("type", "").strip(), asked.get("after", "")
    if kind and "." not in kind:
        kind += "."
    if kind and not _TYPE.fullmatch(kind):
        raise BadInputError("A kind is two words, as session.opened, or its first word with a dot.", field="type")
    if after and not (after.isascii() and after.isdecimal() and int(after[:20]) <= _LARGEST_NUMBER):
        raise BadInputError("This is not the number of an event.", field="after")
    return Search(
        type=kind or None,
        actor=find_person(services, caller, asked.get("actor", ""), field="actor"),
        subject=find_id(asked, "archive"),
        about=find_person(services, caller, asked.get("about", ""), field="about"),
        since=beginning_of(find_day(asked, "since")),
        until=end_of(find_day(asked, "until")),
        after=int(after) if after else None,
        limit=_SHOWN,
    )


def _tell(events: list[Event], caller: Actor, services: Services) -> list[Content]:
    about = {event.number: _id_in(event, "identity") for event in events}
    names = names_of(services, caller, [*(event.actor_id for event in events), *about.values()])
    return [_facts(event, names, about[event.number]) for event in events]


def _facts(event: Event, names: Mapping[UUID, str], about: UUID | None) -> Content:
    who = names.get(event.actor_id) if event.actor_id else None
    return {
        "number": event.number,
        "at": event.recorded_at,
        "type": event.type,
        "who": who or (str(event.actor_id) if event.actor_id else _NOBODY.get(event.actor_kind, "somebody")),
        "who_id": event.actor_id,
        "is_machine": event.actor_kind is ActorKind.SERVICE,
        "about": names.get(about, "") if about and about != event.actor_id else "",
        "about_id": about,
        "archive": short_form(event.subject) if event.subject else None,
        "data": json.dumps(dict(event.data), ensure_ascii=False, indent=1) if event.data else "",
    }


def _id_in(event: Event, name: str) -> UUID | None:
    value = event.data.get(name)
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None
