"""Who visits at the address of a link, and how the page's cookie shows that he had the password."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, Request, Response

from perdure.doors.http.auth import client_of, find_basic_password
from perdure.sharing.model import PASS_LIFETIME
from perdure.sharing.visiting import Visit

_COOKIE = "link_pass"


async def get_visit(secret: str, request: Request) -> Visit:  # async: a plain function would be called in a thread
    """The visit that a request to `/s/{secret}…` is."""
    password, ticket = find_basic_password(request), request.cookies.get(_COOKIE)
    return Visit(secret, password, ticket, client_of(request).address)


Visitor = Annotated[Visit, Depends(get_visit)]


def keep_pass(response: Response, visit: Visit, ticket: str, *, is_https: bool) -> None:
    """Let the browser show the ticket at this link's address, and nowhere else."""
    response.set_cookie(
        _COOKIE,
        ticket,
        max_age=int(PASS_LIFETIME.total_seconds()),
        path=f"/s/{quote(visit.secret, safe='')}",
        secure=is_https,
        httponly=True,
        samesite="lax",
    )


def goes_on(request: Request) -> bool | None:
    """Whether the request goes on with a download that has begun; None when it asks for no content."""
    if request.method == "HEAD":
        return None
    wanted = request.headers.get("range", "").strip().lower()
    return wanted.startswith("bytes=") and not wanted.startswith("bytes=0-")
