"""The ASGI application of one process: the doors of the planes that it serves."""

from __future__ import annotations

from fastapi import FastAPI

from perdure.app.composition import Application


def create_asgi(application: Application, *, planes: frozenset[str]) -> FastAPI:
    """The doors of these planes: `api` and `ui` for people and programs, `data` for bytes."""
    web = FastAPI(title="Perdure", openapi_url=None)

    @web.get("/healthz")
    def tell_alive() -> dict[str, str]:
        return {"status": "alive"}

    return web
