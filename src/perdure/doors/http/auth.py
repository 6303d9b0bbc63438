"""Who is calling: a session, token or link as Bearer or as the password of Basic, or a session in a cookie."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBasic, HTTPBearer

from perdure.doors.http.cookies import find_session
from perdure.doors.http.errors import ForeignPageError
from perdure.doors.http.services import Given
from perdure.identity import Client
from perdure.identity.errors import BadCredentialsError, NotLoggedInError, TokenExpiredError
from perdure.identity.grid import LONGEST_GRID_TOKEN
from perdure.kernel.actor import ANONYMOUS, Actor


class _Bearer(HTTPBearer):
    """Describes the credential in the OpenAPI document; the header is read below, once, with our errors."""

    async def __call__(self, request: Request) -> None:  # type: ignore[override]  # reads nothing
        return None


class _Basic(HTTPBasic):
    """Describes the credential likewise."""

    async def __call__(self, request: Request) -> None:  # type: ignore[override]  # reads nothing
        return None


class _BearerFinder(HTTPBearer):
    """`get_caller`, to be called in the thread where the request is worked on: each way between threads costs.

    A single dependency, because each costs too; the other credential stands in `openapi.READER`.
    """

    async def __call__(self, request: Request) -> Callable[[], Actor]:  # type: ignore[override]  # reads nothing yet
        return partial(get_caller, request, request.app.state.services)


_LONGEST_SECRET = 512
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HELD = "The secret of a session or an API token."
_BEARER = _Bearer(scheme_name="token", description=_HELD)
_FINDER = _BearerFinder(scheme_name="token", description=_HELD)
_BASIC = _Basic(scheme_name="password", description="Any user name; a token as the password.")


def find_secret(request: Request, *, longest: int = _LONGEST_SECRET) -> str | None:
    """The secret that came with the request; None without one. Raises BadCredentialsError for a header that is none."""
    header = request.headers.get("authorization")
    if header is None:
        return find_session(request)
    scheme, _, content = header.strip().partition(" ")
    if scheme.lower() == "basic":
        _refuse_foreign_page(request)
    secret = _password(content) if scheme.lower() == "basic" else content.strip() if scheme.lower() == "bearer" else ""
    if not secret or len(secret) > longest or "\0" in secret:
        raise BadCredentialsError("The Authorization header holds no token.")
    return secret


def find_basic_password(request: Request) -> str | None:
    """The password of HTTP Basic, whatever user it names; None without one."""
    scheme, _, content = request.headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    _refuse_foreign_page(request)
    return _password(content)


def get_caller(
    request: Request,
    services: Given,
    bearer: Annotated[object, Security(_BEARER)] = None,
    basic: Annotated[object, Security(_BASIC)] = None,
) -> Actor:
    """The actor of this request; anonymous without a credential, never with a wrong one that was sent on purpose."""
    secret = find_secret(request)
    if secret is None:
        return ANONYMOUS
    try:
        caller = services.sharing.visiting.authenticate(secret, address=address_of(request))
    except (BadCredentialsError, TokenExpiredError):
        if "authorization" in request.headers:
            raise
        return ANONYMOUS  # a browser keeps its cookie longer than the session lasts
    services.limits.count_caller(request.scope, caller)
    return caller


def get_data_caller(
    request: Request,
    services: Given,
    bearer: Annotated[object, Security(_BEARER)] = None,
    basic: Annotated[object, Security(_BASIC)] = None,
) -> Actor:
    """The same where bytes are moved: there tokens of the grid are taken, too, and nowhere else."""
    secret = find_secret(request, longest=LONGEST_GRID_TOKEN)
    if secret is None or not services.identity.is_grid_token(secret):
        return get_caller(request, services)
    caller = services.identity.authenticate_grid(secret, address=address_of(request))
    services.limits.count_caller(request.scope, caller)
    return caller


def get_known_data_caller(caller: Annotated[Actor, Depends(get_data_caller)]) -> Actor:
    """The same, where nobody is refused at once."""
    identity_of(caller)
    return caller


def get_known_caller(caller: Annotated[Actor, Depends(get_caller)]) -> Actor:
    """The same, where nobody is refused at once."""
    identity_of(caller)
    return caller


def identity_of(caller: Actor) -> UUID:
    """Whose request it is; raises NotLoggedInError when it is nobody's."""
    if caller.identity_id is None:
        raise NotLoggedInError("This needs a login or a token.")
    return caller.identity_id


def client_of(request: Request) -> Client:
    """Where the request comes from, as the owner of a session will see it."""
    return Client(address=address_of(request), agent=request.headers.get("user-agent", "").replace("\0", ""))


def address_of(request: Request) -> str:
    """Where the request comes from; empty where the server does not know."""
    return request.client.host if request.client else ""


async def _count_attempt(request: Request, services: Given) -> None:  # async: it needs no thread
    services.limits.count_attempt(request.scope)


# For the `dependencies` of operations by which a stranger may try names, passwords and codes, or leave something here.
GUESSABLE = Depends(_count_attempt)

Caller = Annotated[Actor, Depends(get_caller)]
FindCaller = Annotated[Callable[[], Actor], Security(_FINDER)]
KnownCaller = Annotated[Actor, Depends(get_known_caller)]
DataCaller = Annotated[Actor, Depends(get_data_caller)]
KnownDataCaller = Annotated[Actor, Depends(get_known_data_caller)]


def _refuse_foreign_page(request: Request) -> None:
    """A browser keeps a password and sends it with what any page makes it send; it says so in Sec-Fetch-Site."""
    origin = request.headers.get("sec-fetch-site", "none").lower()
    if request.method not in _SAFE_METHODS and origin not in ("none", "same-origin"):
        raise ForeignPageError("A page of another site sent this request with the password that the browser keeps.")


def _password(content: str) -> str:
    try:
        return base64.b64decode(content.strip(), validate=True).decode("utf-8").partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
