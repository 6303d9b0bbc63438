"""Logging in with a browser: the choice of ways, the way to a provider and back, and what a first login meets."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import parse_qs, urlencode

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from perdure.doors.http.auth import GUESSABLE, Caller, client_of, identity_of
from perdure.doors.http.cookies import (
    find_browser,
    find_login,
    find_session,
    find_session_aside,
    forget_session,
    forget_session_aside,
    keep_login,
    keep_mark,
    keep_session,
    mark_browser,
    new_mark,
    require_own_page,
)
from perdure.doors.http.errors import LoginEndedElsewhereError
from perdure.doors.http.services import Given, Services
from perdure.doors.ui.routes import asset_url, render
from perdure.identity import Arrival
from perdure.identity.callers import require_fresh
from perdure.identity.errors import (
    ApplicationPendingError,
    BadCodeError,
    BadCredentialsError,
    LoginThrottledError,
    PasskeysUnavailableError,
    ProviderUnavailableError,
    SecondFactorNeededError,
    TermsNotAcceptedError,
    UnknownPersonError,
)
from perdure.identity.federation import Returned, check_return
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.errors import PerdureError

router = APIRouter(include_in_schema=False)

_MOST_FIELDS = 20
_LARGEST_FORM = 256 * 1024
_TRY_AGAIN = (BadCredentialsError, BadCodeError, SecondFactorNeededError, LoginThrottledError)
_COOKIE_LASTS = timedelta(days=90)  # the session itself ends sooner
Form = dict[str, str]
INVITATIONS = "/mail/invitation/"


def open_login_pages(app: FastAPI) -> None:
    """Serve the pages for logging in."""
    app.include_router(router)


async def read_form(request: Request) -> Form:
    """The fields of a form that a page of ours sent; what is no form has none."""
    require_own_page(request)
    return await read_foreign_form(request)


async def read_foreign_form(request: Request) -> Form:
    """The same of a page of anybody's; it may have the sender do nothing."""
    body = await request.body()
    if len(body) > _LARGEST_FORM:
        return {}
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=_MOST_FIELDS)
    except ValueError:
        return {}
    return {name: values[0].replace("\0", "") for name, values in fields.items()}


Sent = Annotated[Form, Depends(read_form)]
SentByAnybody = Annotated[Form, Depends(read_foreign_form)]


@router.get("/login")
def choose_way(request: Request, caller: Caller, services: Given, return_to: str = "/") -> Response:
    return show_choice(request, services, caller, {}, None, return_to=check_return(return_to))


@router.post("/login", dependencies=[GUESSABLE])
def log_in(request: Request, form: Sent, caller: Caller, services: Given) -> Response:
    return_to = check_return(form.get("return_to", "/"))
    try:
        if form.get("provider"):
            return _log_in_at(form["provider"], request, form, caller, services, return_to)
        secret, _ = services.identity.log_in(
            form.get("login", ""),
            form.get("password", ""),
            client_of(request),
            code=form.get("code") or None,
            accept_terms=read_version(form),
        )
    except (*_TRY_AGAIN, ProviderUnavailableError) as error:
        return show_choice(request, services, caller, form, error, return_to=return_to)
    except TermsNotAcceptedError as error:
        return show_choice(request, services, caller, form, error, return_to=return_to, terms=find_terms(services))
    except PerdureError as error:
        return render(request, services, "problem.html", {"error": error}, error.status)
    return enter(request, services, secret, return_to)


def _log_in_at(
    directory: str, request: Request, form: Form, caller: Actor, services: Services, return_to: str
) -> Response:
    """With a name and a password of a directory; or link these to who is logged in, or prove by them that it is him."""
    if form.get("link"):
        require_fresh(caller, services.clock.now())
    if form.get("prove"):
        identity_of(caller)
    arrival = services.identity.check_password_at(
        directory, form.get("login", ""), form.get("password", ""), client_of(request)
    )
    if form.get("link"):
        services.identity.link(caller, arrival)
        return RedirectResponse(return_to, 303, {"cache-control": "no-store"})
    if form.get("prove"):
        services.identity.prove_by(caller, find_session(request) or "", arrival)
        return RedirectResponse(return_to, 303, {"cache-control": "no-store"})
    try:
        secret, _ = services.identity.arrive(
            arrival, client_of(request), accept_terms=read_version(form), code=form.get("code") or None
        )
    except (UnknownPersonError, ApplicationPendingError) as error:
        if isinstance(error, ApplicationPendingError) and not return_to.startswith(INVITATIONS):
            raise
        return _meet(request, services, arrival, return_to, error)
    return enter(request, services, secret, return_to)


@router.get("/login/{provider}", dependencies=[GUESSABLE])
def go_to_provider(
    provider: str,
    request: Request,
    caller: Caller,
    services: Given,
    return_to: str = "/",
    link: bool = False,
    prove: bool = False,
) -> Response:
    if link or prove:
        require_own_page(request)
    if provider in _labels(services):
        form = {"provider": provider, "link": "1" if link else "", "prove": "1" if prove else ""}
        return show_choice(request, services, caller, form, None, return_to=check_return(return_to))
    answer = RedirectResponse("/", 303)
    mark = mark_browser(request, answer)
    by_hop = services.header_logins.get(provider)
    try:
        link_to = require_fresh(caller, services.clock.now()) if link else None
        proves = identity_of(caller) if prove and not link else None
        if by_hop is not None:
            arrival = by_hop.read(request, services.clock)
            return _come(request, services, caller, Returned(arrival, check_return(return_to), link_to, proves))
        callback = _callback(services, provider)
        begun = services.identity.begin_login(
            provider, redirect_uri=callback, return_to=return_to, browser=mark, link_to=link_to, proves=proves
        )
    except PerdureError as error:
        return render(request, services, "problem.html", {"error": error}, error.status)
    if begun.kept:
        keep_login(request, answer, begun.kept)
    answer.headers["location"] = begun.address
    answer.headers["cache-control"] = "no-store"
    return answer


@router.get("/login/{provider}/callback", dependencies=[GUESSABLE])
def come_back(
    provider: str,
    request: Request,
    caller: Caller,
    services: Given,
    state: str = "",
    code: str = "",
    error: str = "",
    iss: str = "",
) -> Response:
    try:
        if error or not code:
            raise LoginEndedElsewhereError(f"The provider ended the login: {error[:100] or 'it sent no code'}.")
        back = services.identity.finish_login(
            provider=provider, state=state, code=code, browser=find_browser(request), issuer=iss or None
        )
        return _come(request, services, caller, back)
    except PerdureError as problem:
        return render(request, services, "problem.html", {"error": problem}, problem.status)


@router.get("/login/{provider}/metadata", dependencies=[GUESSABLE])
def show_metadata(provider: str, request: Request, services: Given) -> Response:
    """What an institution has to know of us, for its operator."""
    try:
        told = services.identity.describe_us(provider, redirect_uri=_callback(services, provider))
    except PerdureError as error:
        return render(request, services, "problem.html", {"error": error}, error.status)
    return Response(told, 200, media_type="application/samlmetadata+xml")


@router.post("/login/{provider}/callback", dependencies=[GUESSABLE])
def take_answer(provider: str, request: Request, form: SentByAnybody, services: Given) -> Response:
    """A page of the institution has the browser post its answer: nothing is done but to let a page of ours repeat it.

    Cookies of ours do not come with what other sites send, so that whose login it is can be told only afterwards.
    """
    answer = form.get("SAMLResponse", "")
    if not answer:
        error = LoginEndedElsewhereError("The institution sent no answer.")
        return render(request, services, "problem.html", {"error": error}, error.status)
    content = {"action": f"/login/{provider}/finish", "answer": answer}
    return render_form(request, services, "go_on.html", content, 200, script="go-on.js")


@router.post("/login/{provider}/finish", dependencies=[GUESSABLE])
def finish(provider: str, request: Request, form: Sent, caller: Caller, services: Given) -> Response:
    """The answer again, by a page of ours, from the browser that keeps what belongs to it."""
    kept = find_login(request)
    try:
        if not kept:
            raise LoginEndedElsewhereError("No login was begun in this browser, or it took too long.")
        back = services.identity.finish_login(
            provider=provider,
            state=kept,
            code=form.get("SAMLResponse", ""),
            browser=find_browser(request),
        )
        return _come(request, services, caller, back)
    except PerdureError as problem:
        return render(request, services, "problem.html", {"error": problem}, problem.status)


@router.post("/login/go-on", dependencies=[GUESSABLE])
def go_on(request: Request, form: Sent, services: Given) -> Response:
    """After the terms were accepted."""
    try:
        arrival = services.identity.open_arrival(form.get("ticket", ""))
    except PerdureError as error:
        return render(request, services, "problem.html", {"error": error}, error.status)
    return _arrive(request, services, arrival, check_return(form.get("return_to", "/")), read_version(form))


@router.post("/login/apply", dependencies=[GUESSABLE])
def apply(request: Request, form: Sent, services: Given) -> Response:
    """Somebody who is not known yet asks to be let in."""
    try:
        arrival = services.identity.open_arrival(form.get("ticket", ""))
        services.identity.apply(
            arrival,
            reason=form.get("reason", "").replace("\r\n", "\n"),
            display_name=form.get("display_name") or None,
            organisation_id=None,
            accept_terms=read_version(form),
        )
    except PerdureError as error:
        return render(request, services, "problem.html", {"error": error}, error.status)
    waiting = ApplicationPendingError("Your application is sent.")
    return render(request, services, "problem.html", {"error": waiting}, 202)


@router.post("/logout")
def log_out(request: Request, form: Sent, services: Given) -> Response:
    """End the session here, and then the one at the provider where it began, if it offers that."""
    kept = (find_session(request), find_session_aside(request))
    ended = [services.identity.log_out(secret) for secret in kept if secret]
    provider = next((one for one in ended if one is not None), None)
    answer: Response = RedirectResponse("/", 303, {"cache-control": "no-store"})
    if provider is not None:
        mark, back = new_mark(), f"{services.place().api_url}/login/{provider}/logged-out"
        address = services.identity.begin_logout(provider, redirect_uri=back, browser=mark)
        if address is not None:
            answer = _send_to_log_out(request, services, provider, address)
            keep_mark(request, answer, mark)
    forget_session(request, answer)
    forget_session_aside(request, answer)
    return answer


@router.get("/login/{provider}/logged-out")
def come_back_logged_out(provider: str, request: Request, services: Given, state: str = "") -> Response:
    """Whoever comes from the provider after he logged out there; nothing depends on what he says."""
    try:
        label = services.identity.finish_logout(provider, state=state, browser=find_browser(request)).label
    except PerdureError:
        return RedirectResponse("/", 303, {"cache-control": "no-store"})
    return render(request, services, "logged_out.html", {"label": label, "address": None}, 200)


def _send_to_log_out(request: Request, services: Services, provider: str, address: str) -> Response:
    """A page that goes on by itself: browsers keep a form of ours, which this answers, from leading elsewhere."""
    labels = {one.name: one.label for one in services.identity.list_providers()}
    content = {"label": labels.get(provider, provider), "address": address}
    answer = render(request, services, "logged_out.html", content, 200)
    answer.headers["refresh"] = f"0; url={address}"
    answer.headers["cache-control"] = "no-store"
    return answer


def _come(request: Request, services: Services, caller: Actor, back: Returned) -> Response:
    """Do what the login was for: link it, prove by it, or go in."""
    asked_by = back.link_to or back.proves
    if asked_by is None:
        return _arrive(request, services, back.arrival, back.return_to, None)
    if asked_by != caller.identity_id:
        raise LoginEndedElsewhereError("You are not logged in any more as who began this login.")
    if back.link_to is not None:
        services.identity.link(caller, back.arrival)
    else:
        services.identity.prove_by(caller, find_session(request) or "", back.arrival)
    return RedirectResponse(back.return_to, 303, {"cache-control": "no-store"})


def _arrive(
    request: Request, services: Services, arrival: Arrival, return_to: str, accept_terms: int | None
) -> Response:
    try:
        secret, _ = services.identity.arrive(arrival, client_of(request), accept_terms=accept_terms)
    except (UnknownPersonError, ApplicationPendingError, TermsNotAcceptedError) as error:
        if isinstance(error, ApplicationPendingError) and not return_to.startswith(INVITATIONS):
            return render(request, services, "problem.html", {"error": error}, error.status)
        return _meet(request, services, arrival, return_to, error)
    except PerdureError as error:
        return render(request, services, "problem.html", {"error": error}, error.status)
    return enter(request, services, secret, return_to)


def _meet(
    request: Request,
    services: Services,
    arrival: Arrival,
    return_to: str,
    error: UnknownPersonError | ApplicationPendingError | TermsNotAcceptedError,
) -> Response:
    """What a login meets that was confirmed, and is not enough."""
    content = {
        "error": error,
        "is_known": isinstance(error, TermsNotAcceptedError),
        "ticket": services.identity.seal_arrival(arrival),
        "name": arrival.display_name,
        "terms": find_terms(services),
        "return_to": return_to,
        "invitation": return_to if return_to.startswith(INVITATIONS) else None,
    }
    return render_form(request, services, "first_login.html", content, 200)


def enter(request: Request, services: Services, secret: str, return_to: str) -> Response:
    """Give the browser its session and send it on."""
    answer = RedirectResponse(return_to, 303, {"cache-control": "no-store"})
    keep_session(request, answer, secret, services.clock.now() + _COOKIE_LASTS)
    return answer


def show_choice(
    request: Request,
    services: Services,
    caller: Actor,
    form: Form,
    error: PerdureError | None,
    *,
    return_to: str,
    terms: Any = None,  # Any: see `find_terms`
) -> Response:
    """The ways to log in, with what became of the last try."""
    directory = form.get("provider", "")
    content = {
        "passkey": None if directory else begin_passkey(services),
        "error": error,
        "directory": directory,
        "place_of_password": _labels(services).get(directory),
        "link": bool(form.get("link")),
        "prove": bool(form.get("prove")),
        "login": form.get("login", ""),
        "needs_code": isinstance(error, (SecondFactorNeededError, BadCodeError)) or bool(form.get("code")),
        "terms": terms,
        "me": caller.name if caller.kind is ActorKind.PERSON else None,
        "return_to": return_to,
        "providers": [
            {"label": label, "url": f"/login/{name}?{urlencode({'return_to': return_to})}"}
            for name, label in list_ways(services)
        ],
    }
    return render_form(request, services, "login.html", content, error.status if error else 200)


def list_ways(services: Services) -> list[tuple[str, str]]:
    """Name and label of each way beside a password."""
    found = [(one.name, one.label) for one in services.identity.list_providers()]
    found += _labels(services).items()
    return [*found, *((one.name, one.label) for one in services.header_logins.values())]


def _labels(services: Services) -> dict[str, str]:
    """The directories, whose passwords are typed here, by name."""
    return {one.name: one.label for one in services.identity.list_directories()}


def render_form(
    request: Request,
    services: Services,
    template: str,
    content: dict[str, Any],  # Any: what the template is given
    status: int,
    script: str = "passkeys.js",
) -> Response:
    """A page with forms of ours, which nobody keeps, and with the one script that it needs."""
    source = f"{services.place().api_url}{asset_url(script)}"  # not all that lies at this address
    policy = (
        f"default-src 'none'; script-src {source}; style-src 'self'; img-src 'self'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    )
    headers = {"content-security-policy": policy, "cache-control": "no-store", "vary": "Authorization, Cookie"}
    return render(request, services, template, content, status, headers)


def begin_passkey(services: Services) -> dict[str, str] | None:
    """What a passkey is asked for by, where there can be any."""
    try:
        options, ticket = services.identity.begin_passkey_login(origin=services.place().api_url)
    except PasskeysUnavailableError:
        return None
    return {"options": json.dumps(dict(options)), "ticket": ticket}


def find_terms(services: Services) -> Any:  # Any: what the template is given
    """The terms of use in force, None without any."""
    try:
        return services.identity.get_terms()
    except PerdureError:
        return None


def read_version(form: Form) -> int | None:
    """The version of the terms that the form accepts."""
    text = form.get("accept_terms", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _callback(services: Services, provider: str) -> str:
    return f"{services.place().api_url}/login/{provider}/callback"
