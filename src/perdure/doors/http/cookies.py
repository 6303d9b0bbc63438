"""The session of a browser, in a cookie that no script reads and no other site makes it send for a change."""

from __future__ import annotations

import secrets
from datetime import datetime

from fastapi import Request, Response

from perdure.doors.http.errors import ForeignPageError

_SESSION, _BROWSER, _LOGIN = "perdure-session", "perdure-browser", "perdure-login"
_ASIDE = "perdure-aside"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_BROWSER_LASTS = 20 * 60  # seconds: longer than a login at a provider may take
_ASIDE_LASTS = 20 * 60  # likewise


def find_session(request: Request) -> str | None:
    """The secret in the cookie; raises ForeignPageError when another site makes the browser change something."""
    return _find_secret(request, _SESSION)


def has_session(request: Request) -> bool:
    """Whether the browser brings a session; whether it still holds is not asked."""
    return bool(request.cookies.get(_name(request, _SESSION)))


def keep_session(request: Request, response: Response, secret: str, expires_at: datetime) -> None:
    """Give the browser its session; whatever it had before is replaced."""
    _set(request, response, _SESSION, secret, expires_at)


def forget_session(request: Request, response: Response) -> None:
    response.delete_cookie(_name(request, _SESSION), path="/", secure=_is_https(request), httponly=True)


def set_session_aside(request: Request, response: Response, secret: str) -> None:
    """Keep this session beside the next one for a while, and log the browser out: it shows that it has two."""
    _set(request, response, _ASIDE, secret, _ASIDE_LASTS)
    forget_session(request, response)


def find_session_aside(request: Request) -> str | None:
    """The secret of `set_session_aside`; raises ForeignPageError as `find_session`."""
    return _find_secret(request, _ASIDE)


def forget_session_aside(request: Request, response: Response) -> None:
    response.delete_cookie(_name(request, _ASIDE), path="/", secure=_is_https(request), httponly=True)


def mark_browser(request: Request, response: Response) -> str:
    """A secret that only this browser has, for a login that it begins."""
    mark = new_mark()
    keep_mark(request, response, mark)
    return mark


def new_mark() -> str:
    """Such a secret, for an answer that is made with it."""
    return secrets.token_urlsafe(24)


def keep_mark(request: Request, response: Response, mark: str) -> None:
    """Give it to the browser."""
    _set(request, response, _BROWSER, mark, _BROWSER_LASTS)


def find_browser(request: Request) -> str:
    """The secret of `mark_browser`; empty in a browser that began no login."""
    return request.cookies.get(_name(request, _BROWSER)) or ""


def keep_login(request: Request, response: Response, kept: str) -> None:
    """Let the browser keep what belongs to the login that it begins."""
    _set(request, response, _LOGIN, kept, _BROWSER_LASTS)


def find_login(request: Request) -> str:
    """What `keep_login` gave; empty without it."""
    return request.cookies.get(_name(request, _LOGIN)) or ""


def require_own_page(request: Request) -> None:
    """Return when a page of ours sent this; a browser says so in Sec-Fetch-Site, an old one in Origin."""
    site = request.headers.get("sec-fetch-site", "").lower()
    origin = request.headers.get("origin", "")
    if site != "same-origin" and (site or origin != request.app.state.services.place().api_url):
        raise ForeignPageError("This was not sent by a page of ours.")


def _find_secret(request: Request, name: str) -> str | None:
    secret = request.cookies.get(_name(request, name))
    if secret and request.method not in _SAFE_METHODS:
        require_own_page(request)
    return secret if secret and len(secret) <= 512 and secret.isascii() else None


def _set(request: Request, response: Response, name: str, value: str, lasts: datetime | int) -> None:
    response.set_cookie(
        _name(request, name),
        value,
        expires=lasts,
        path="/",
        secure=_is_https(request),
        httponly=True,
        samesite="lax",  # strict would leave out the cookie on the way back from a provider
    )


def _name(request: Request, name: str) -> str:
    """Over TLS with the prefix that keeps other hosts and plain HTTP from setting it."""
    return f"__Host-{name}" if _is_https(request) else name


def _is_https(request: Request) -> bool:
    is_https: bool = request.app.state.services.place().is_https
    return is_https
