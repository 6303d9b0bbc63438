"""The HTTP API, version 1, in its two planes: records and work, and bytes."""

from __future__ import annotations

from fastapi import FastAPI

from perdure.doors.api import (
    accounts,
    archives,
    audit,
    batches,
    contents,
    downloads,
    evidence,
    files,
    links,
    logins,
    metadata,
    organisations,
    people,
    profiles,
    quotas,
    root,
    session,
    uploads,
    working,
)

PREFIX = "/api/v1"
_RECORDS = (  # what is asked most stands first: an address is compared with one route after the other
    archives.router,
    contents.router,
    metadata.router,
    root.router,
    session.router,
    logins.router,
    people.router,
    organisations.router,
    accounts.router,
    profiles.router,
    quotas.router,
    evidence.router,
    links.router,
    working.router,
    audit.router,
)
_BYTES = (files.router, batches.router, uploads.router, downloads.router)


def open_api(app: FastAPI) -> None:
    """Serve records, metadata and work."""
    for router in _RECORDS:
        app.include_router(router, prefix=PREFIX)


def open_data(app: FastAPI) -> None:
    """Serve bytes: files, batches, resumable uploads, downloads."""
    for router in _BYTES:
        app.include_router(router, prefix=PREFIX)


def open_streams(app: FastAPI) -> None:
    """Serve what both planes do: manifests, which are long, and the list of uploads, which stands where they begin."""
    for router in (evidence.stream_router, uploads.list_router):
        app.include_router(router, prefix=PREFIX)
