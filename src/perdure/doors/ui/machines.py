"""Pages about service accounts: those that one answers for, or whose organisation one manages."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, FastAPI, Request, Response

from perdure.doors.http.auth import Caller
from perdure.doors.http.errors import NoSuchAddressError
from perdure.doors.http.services import Given
from perdure.doors.ui.routes import render
from perdure.identity import ServiceAccount, ServiceState, Token
from perdure.kernel.errors import PerdureError
from perdure.kernel.ids import parse_id

router = APIRouter(include_in_schema=False)

_MOST_SHOWN = 500
_REACH_SHOWN = 100
_STATES = {  # tone, shape, words
    ServiceState.ACTIVE: ("kept", "●", "active"),
    ServiceState.ORPHANED: ("broken", "▲", "orphaned: who is responsible is disabled, so no token works"),
    ServiceState.DISABLED: ("rest", "○", "disabled"),
}


def open_machine_pages(app: FastAPI) -> None:
    """Serve the pages about service accounts."""
    app.include_router(router)


@router.get("/services")
def show_services(request: Request, caller: Caller, services: Given) -> Response:
    try:
        found = services.identity.list_services(caller, limit=_MOST_SHOWN)
    except PerdureError as error:
        return render(request, services, "problem.html", {"error": error}, error.status)
    return render(request, services, "services.html", {"items": [_facts(one) for one in found]}, 200)


@router.get("/services/{service}")
def show_service(service: str, request: Request, caller: Caller, services: Given) -> Response:
    try:
        service_id = _read_id(service)
        one = services.identity.get_service(caller, service_id)
        tokens = services.identity.list_service_tokens(caller, service_id)
        reach = services.archives.life.list_service_reach(caller, service_id, limit=_REACH_SHOWN)
    except PerdureError as error:
        return render(request, services, "problem.html", {"error": error}, error.status)
    content = {
        "one": _facts(one),
        "tokens": [_token_facts(token, services.clock.now()) for token in tokens],
        "reach": [
            {"id": view.archive.id, "title": view.archive.description.title, "may": ", ".join(sorted(view.actions))}
            for view in reach.items
        ],
        "has_more": reach.next_cursor is not None,
    }
    return render(request, services, "service.html", content, 200)


def _read_id(text: str) -> UUID:
    try:
        return parse_id(text)
    except ValueError:
        raise NoSuchAddressError("There is nothing at this address.") from None


def _facts(one: ServiceAccount) -> dict[str, Any]:  # Any: what the template is given
    tone, shape, words = _STATES[one.state]
    archives = one.scope.archives
    return {
        "id": one.id,
        "name": one.name,
        "purpose": one.purpose,
        "responsible": one.responsible_name,
        "tone": tone,
        "shape": shape,
        "state": words,
        "may": ", ".join(sorted(one.scope.verbs or ())),
        "archives": None if archives is None else sorted(str(archive) for archive in archives),
        "addresses": one.addresses,
        "last_used_at": one.last_used_at,
        "last_used_from": one.last_used_from,
        "ends_at": one.ends_at,
    }


def _token_facts(token: Token, now: datetime) -> dict[str, Any]:  # Any: as above
    is_over = token.revoked_at is not None or token.expires_at <= now
    return {
        "id": token.id,
        "name": token.name,
        "prefix": token.prefix,
        "may": ", ".join(sorted(token.scope.verbs or ())),
        "ends_at": token.expires_at,
        "state": "revoked" if token.revoked_at else "ended" if is_over else "works",
        "last_used_at": token.last_used_at,
        "last_used_from": token.last_used_from,
        "replaces": token.replaces,
    }
