"""The ASGI application of one process: the doors of the planes that it serves."""

from __future__ import annotations

from fastapi import FastAPI

from perdure.app.composition import Application, make_services
from perdure.doors.api import open_api, open_data, open_streams
from perdure.doors.http.app import create_web
from perdure.doors.ui import open_pages

_DOORS = {"api": (open_api,), "data": (open_data,), "ui": (open_pages,)}


def create_asgi(application: Application, *, planes: frozenset[str]) -> FastAPI:
    """The doors of these planes: `api` and `ui` for people and programs, `data` for bytes."""
    doors = [door for plane in sorted(planes) for door in _DOORS[plane]]
    if planes & {"api", "data"}:
        doors.append(open_streams)
    meters = application.meters
    return create_web(make_services(application), doors, watch=meters.requests if meters.are_wanted else None)
