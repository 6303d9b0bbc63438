"""The addresses of the pages. Everything is rendered on the server and asks no other host for anything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from perdure.archives.finding import PublicPage
from perdure.archives.model import ArchiveState
from perdure.doors.http.auth import Caller
from perdure.doors.http.cookies import has_session
from perdure.doors.http.errors import NoSuchAddressError
from perdure.doors.http.problems import request_id_of
from perdure.doors.http.services import Given, Services
from perdure.doors.ui.landing import Landing, build_json_ld, make_landing
from perdure.doors.ui.words import say_count, say_day, say_moment, say_size
from perdure.kernel.actor import Actor
from perdure.kernel.errors import PerdureError
from perdure.kernel.ids import short_form

router = APIRouter(include_in_schema=False)

SHOWN_ENTRIES = 200
SHOWN_ARCHIVES = 50
_ASSETS = {
    "style.css": "text/css; charset=utf-8",
    "mark.svg": "image/svg+xml",
    "passkeys.js": "text/javascript; charset=utf-8",
    "go-on.js": "text/javascript; charset=utf-8",
    "drop.js": "text/javascript; charset=utf-8",
}
_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def open_pages(app: FastAPI) -> None:
    """Serve the pages."""
    app.include_router(router)


@router.get("/")
def show_front(request: Request, caller: Caller, services: Given) -> Response:
    return _page(request, services, lambda: ("front.html", _front(caller, services)))


@router.get("/archives/{archive}")
def show_archive(archive: str, request: Request, caller: Caller, services: Given) -> Response:
    return _page(request, services, lambda: ("archive.html", _archive(archive, caller, services)))


@router.get("/id/{identifier:path}")
def resolve_identifier(identifier: str, request: Request, caller: Caller, services: Given) -> Response:
    try:
        if "\0" in identifier:
            raise NoSuchAddressError("There is nothing at this address.")
        page = services.archives.life.public_page(caller, identifier)
    except PerdureError as error:
        return render(request, services, "problem.html", {"error": error}, error.status)
    return RedirectResponse(f"/archives/{short_form(page.id)}", 303)


@router.get("/assets/{stamp}/{name}")
def get_asset(stamp: str, name: str) -> Response:
    if name not in _ASSETS or stamp != _stamp(name):
        raise NoSuchAddressError("There is no such asset.")
    return Response(_read_asset(name), 200, {"cache-control": "public, max-age=31536000, immutable"}, _ASSETS[name])


def _front(caller: Actor, services: Services) -> dict[str, Any]:  # Any: what the template is given
    found = services.archives.life.list_archives(caller, state=ArchiveState.CLOSED, limit=SHOWN_ARCHIVES)
    items = [
        {
            "short_id": short_form(view.archive.id),
            "title": view.archive.description.title,
            "creators": "; ".join(creator.name for creator in view.archive.description.creators),
            "files": view.archive.file_count,
            "size": view.archive.byte_count,
            "closed_at": view.archive.closed_at,
        }
        for view in found.items
    ]
    return {"items": items, "more": found.next_cursor is not None}


def _archive(archive: str, caller: Actor, services: Services) -> dict[str, Any]:  # Any: as above
    if "\0" in archive:
        raise NoSuchAddressError("There is nothing at this address.")
    page = services.archives.life.public_page(caller, archive)
    landing = _show(page, caller, services)
    document = build_json_ld(landing, page.url)
    return {"page": landing, "json_ld": _script_json(document) if document else None}


def _show(page: PublicPage, caller: Actor, services: Services) -> Landing:
    archives = services.archives
    if not page.may_read:
        seen = archives.life.get(caller, page.id) if page.archive else None
        return make_landing(page, seen, None, (), services.place())
    return make_landing(
        page,
        archives.life.get(caller, page.id),
        archives.reading.list_entries(caller, page.id, limit=SHOWN_ENTRIES),
        archives.reading.copies(caller, page.id),
        services.place(),
    )


def _page(request: Request, services: Services, make: Callable[[], tuple[str, dict[str, Any]]]) -> Response:
    try:
        template, content = make()
    except PerdureError as error:
        return render(request, services, "problem.html", {"error": error}, error.status)
    return render(request, services, template, content, 200)


def render(
    request: Request,
    services: Services,
    template: str,
    content: dict[str, Any],
    status: int,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A page of this template; `headers` stand in the place of the usual ones."""
    text = (
        _templates()
        .get_template(template)
        .render(
            **content,
            place=services.place(),
            asset=asset_url,
            request_id=request_id_of(request),
            is_inside=has_session(request),
        )
    )
    # Private, and asked for again each time: what a page shows depends on who asks and changes with the archive.
    usual = {"content-security-policy": _POLICY, "cache-control": "private, no-cache", "vary": "Authorization, Cookie"}
    return HTMLResponse(text, status, dict(headers or usual))


def _script_json(document: dict[str, object]) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(document, ensure_ascii=False, indent=1)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704  # escaped right above, for JSON and not for HTML


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("perdure.doors.ui"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"size": say_size, "count_of": say_count, "moment": say_moment, "day": say_day}
    return environment


def asset_url(name: str) -> str:
    """Where a file lies that pages use; another for each content of it."""
    return f"/assets/{_stamp(name)}/{name}"


@cache
def _stamp(name: str) -> str:
    return hashlib.sha256(_read_asset(name)).hexdigest()[:16]


@cache
def _read_asset(name: str) -> bytes:
    return (files("perdure.doors.ui") / "static" / name).read_bytes()
