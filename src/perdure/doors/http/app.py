"""The application of the HTTP doors: the rings around every request, then the doors that this process opens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from perdure.doors.http import health
from perdure.doors.http.limiting import AddressLimit
from perdure.doors.http.middleware import BodyLimit, Threshold
from perdure.doors.http.openapi import install_openapi
from perdure.doors.http.problems import install_problems
from perdure.doors.http.services import Services
from perdure.doors.http.shortcuts import ShortWay
from perdure.doors.http.watching import RequestWatch

Door = Callable[[FastAPI], None]


class _Web(FastAPI):
    """The framework without its outer rings: ours answer what nobody caught, limit bodies and tell of each request."""

    def build_middleware_stack(self) -> ASGIApp:
        handlers = dict(self.exception_handlers)
        stack: ASGIApp = ExceptionMiddleware(AsyncExitStackMiddleware(self.router), handlers=handlers)
        for ring, given, named in reversed(self.user_middleware):
            stack = ring(stack, *given, **named)
        return stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)


def create_web(services: Services, doors: Iterable[Door], *, watch: RequestWatch | None = None) -> FastAPI:
    """One ASGI application with these doors. It starts and stops no service: those belong to whoever made them.

    `watch` is told of each request.
    """
    app = _Web(
        title="Research data archive",
        version=services.place().version,
        summary="Archives that close, prove themselves and come back",
        docs_url=None,  # its page would load scripts from another host
        redoc_url=None,
        openapi_url=None,  # served by a route of ours
        redirect_slashes=False,
        lifespan=_lifespan(services),
    )
    app.state.services = services
    app.state.shortcuts = []
    app.include_router(health.router)
    for open_door in doors:
        open_door(app)
    install_problems(app)
    install_openapi(app, "/api/v1/openapi.json")
    app.add_middleware(ShortWay, shortcuts=app.state.shortcuts, services=services)
    app.add_middleware(BodyLimit)
    if services.limits.address is not None:
        app.add_middleware(AddressLimit, quota=services.limits.address)
    app.add_middleware(Threshold, watch=watch, is_https=services.place().is_https)
    return app


def _lifespan(services: Services) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def live(_: FastAPI) -> AsyncIterator[None]:
        yield
        services.threads.close()
        services.request_threads.close()

    return live
