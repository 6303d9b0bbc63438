"""A short way for what is asked most: past the framework's routes, dependencies and stacks, in one thread.

The operation is the same function that the framework's route has, which stands in the document of the API and takes
what is not understood here. Whoever asks, and whether he may, is looked at in that function either way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from perdure.doors.http.auth import get_caller
from perdure.doors.http.problems import answer_error
from perdure.doors.http.services import Services
from perdure.kernel.actor import Actor
from perdure.kernel.errors import PerdureError
from perdure.kernel.ids import parse_id

_LONGEST_ID = 100  # as `fields.Id`

Answer = Callable[[UUID, Request, Callable[[], Actor], Services], Response]


@dataclass(frozen=True, slots=True)
class Shortcut:
    """A GET of one thing by its id, whose `address` has it as its only group; `name` is the operation's."""

    name: str
    address: re.Pattern[str]
    answer: Answer


class ShortWay:
    """Answers what a shortcut is for, and lets everything else go on."""

    def __init__(self, app: ASGIApp, *, shortcuts: Sequence[Shortcut], services: Services) -> None:
        self._app = app
        self._shortcuts = shortcuts
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET":
            for shortcut in self._shortcuts:
                found = shortcut.address.fullmatch(scope["path"])
                named = None if found is None else _read_id(found[1])
                if named is not None:
                    await self._answer(shortcut, named, scope, receive, send)
                    return
        await self._app(scope, receive, send)

    async def _answer(self, shortcut: Shortcut, named: UUID, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = shortcut
        request, services = Request(scope, receive, send), self._services
        work = partial(shortcut.answer, named, request, partial(get_caller, request, services), services)
        try:
            response = await services.request_threads.run(work)
        except PerdureError as error:
            response = answer_error(request, error)
        await response(scope, receive, send)


def _read_id(text: str) -> UUID | None:
    """What the framework's route would read; None where it would refuse, which it does in its own words."""
    if len(text) > _LONGEST_ID:
        return None
    try:
        return parse_id(text)
    except ValueError:
        return None
