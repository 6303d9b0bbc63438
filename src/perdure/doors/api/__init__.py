"""The HTTP API, version 1, in its two planes: records and work, and bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fastapi import APIRouter, FastAPI

from perdure.doors.api import (
    accounts,
    archives,
    audit,
    batches,
    contents,
    downloads,
    evidence,
    files,
    invitations,
    links,
    logins,
    machines,
    metadata,
    organisations,
    passkeys,
    people,
    persons,
    profiles,
    quotas,
    recovering,
    root,
    session,
    transfers,
    uploads,
    working,
)
from perdure.doors.api.needs import NEEDS, told
from perdure.doors.http.shortcuts import Shortcut

PREFIX = "/api/v1"
_RECORDS = (  # what is asked most stands first: an address is compared with one route after the other
    archives.router,
    contents.router,
    metadata.router,
    root.router,
    session.router,
    logins.router,
    passkeys.router,
    recovering.router,
    invitations.router,
    people.router,
    machines.router,
    persons.router,
    organisations.router,
    accounts.router,
    profiles.router,
    quotas.router,
    evidence.router,
    links.router,
    transfers.router,
    working.router,
    audit.router,
)
_BYTES = (files.router, batches.router, uploads.router, downloads.router)


def open_api(app: FastAPI) -> None:
    """Serve records, metadata and work."""
    _include(app, _RECORDS)
    record = re.compile(rf"{PREFIX}/archives/([^/]+)")
    app.state.shortcuts.append(Shortcut(archives.get_archive.__name__, record, archives.get_archive))


def open_data(app: FastAPI) -> None:
    """Serve bytes: files, batches, resumable uploads, downloads."""
    _include(app, _BYTES)


def open_streams(app: FastAPI) -> None:
    """Serve what both planes do: manifests, which are long, and the list of uploads, which stands where they begin."""
    _include(app, (evidence.stream_router, uploads.list_router))


def _include(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    app.state.needs = {name: told(need) for name, need in NEEDS.items()}
    for router in routers:
        app.include_router(router, prefix=PREFIX)
