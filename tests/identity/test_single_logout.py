"""Logging out here and at a real provider, and everything that a logout token could say wrongly."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from perdure.adapters.oidc import OidcProvider, OidcSettings
from perdure.identity import Arrival, Client, CredentialKind
from perdure.identity.errors import LoginNotConfirmedError, ProviderUnavailableError
from perdure.identity.model import Origin
from perdure.kernel.clock import SystemClock
from perdure.testing.app import RunningApplication, start_application

from .chromium import find_missing, running_chromium
from .signing_in import CLIENT_ID, CLIENT_SECRET, Browser, Hall, find_tools, running_hall

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_tools() is not None, reason=f"npm: {find_tools()}"),
]
PROGRAM = Path(sys.executable).with_name("perdure")
EVENT = "http://schemas.openid.net/event/backchannel-logout"
PEOPLE = ("ada", "lina", "otto", "vera", "paul", "mira")


class Messenger:
    """Stands between the provider and us: each has to know the other's address before it runs."""

    def __init__(self) -> None:
        self.ours = ""
        self.came: list[tuple[bytes, httpx.Response]] = []
        messenger = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {"content-type": self.headers["content-type"]}
                answer = httpx.post(f"{messenger.ours}{self.path}", content=body, headers=headers, trust_env=False)
                self.send_response(answer.status_code)
                self.send_header("content-length", "0")
                self.end_headers()
                messenger.came.append((body, answer))

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def wait_for(self, number: int) -> tuple[bytes, httpx.Response]:
        """The message of this number, as it came, and our answer."""
        for _ in range(200):
            if len(self.came) >= number:
                return self.came[number - 1]
            time.sleep(0.05)
        raise AssertionError(f"the provider told of {len(self.came)} logouts")


@pytest.fixture(scope="module")
def messenger() -> Iterator[Messenger]:
    found = Messenger()
    thread = threading.Thread(target=found.server.serve_forever)
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


@pytest.fixture(scope="module")
def hall(messenger: Messenger) -> Iterator[Hall]:
    with running_hall(messenger.url) as found:
        yield found


@pytest.fixture(scope="module")
def running(hall: Hall, messenger: Messenger) -> Iterator[RunningApplication]:
    provider = {"name": "hall", "label": "The hall", "issuer": hall.issuer, "client_id": CLIENT_ID}
    with start_application(providers=[{**provider, "client_secret": CLIENT_SECRET}], worker=False) as started:
        messenger.ours = started.url
        identity = started.application.identity
        _, root = identity.log_in(started.login, started.password)
        for who in PEOPLE:
            made = identity.create_local_account(root, login=who, password="plum tractor ninety sea", display_name=who)
            assert made
            _, person = identity.log_in(who, "plum tractor ninety sea")
            identity.link(person, Arrival(CredentialKind.OIDC, f"{hall.issuer} {who}"))
        yield started


@contextmanager
def own_page(running: RunningApplication) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, trust_env=False, headers={"sec-fetch-site": "same-origin"}) as client:
        yield client


def log_in(page: httpx.Client, browser: Browser) -> None:
    """Log in by the provider with a browser that keeps its session there."""
    back = f"{str(page.base_url).rstrip('/')}/login/hall/callback"
    brought = browser.go(page.get("/login/hall").headers["location"], stop_at=back)
    assert page.get("/login/hall/callback", params=brought).status_code == 303
    assert page.get("/api/v1/me").status_code == 200


def is_in(page: httpx.Client) -> bool:
    return page.get("/api/v1/me").status_code == 200


def device_session(running: RunningApplication, browser: Browser) -> httpx.Client:
    """A program that was logged in by a code, which this browser confirmed."""
    alone = httpx.Limits(max_keepalive_connections=0)
    client = httpx.Client(base_url=f"{running.url}/api/v1", trust_env=False, limits=alone)
    begun = client.post("/login/device", json={"provider": "hall"}).json()
    browser.confirm_device(begun["complete_uri"])
    opened = client.post("/login/device/poll", json={"ticket": begun["ticket"]})
    assert opened.status_code == 200, opened.text
    client.headers["authorization"] = f"Bearer {opened.json()['secret']}"
    return client


def leave(page: httpx.Client) -> str:
    """Log out here; where the browser is sent."""
    answer = page.post("/logout", data={})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    wait, _, address = answer.headers["refresh"].partition("; url=")
    assert wait == "0"
    assert address.replace("&", "&amp;") in answer.text
    return address


def told(running: RunningApplication, event_type: str) -> list[dict[str, Any]]:
    application = running.application
    application.events.sequence_pending()
    with application.db.begin() as tx:
        found = application.events.read(tx, after=0, limit=10_000)
    return [dict(event.data) for event in found if event.type == event_type and "provider" in event.data]


def test_who_logs_out_here_logs_out_there(running: RunningApplication, hall: Hall, messenger: Messenger) -> None:
    browser, elsewhere, before = Browser("lina"), Browser("lina"), len(messenger.came)
    with own_page(running) as page, own_page(running) as other:
        log_in(page, browser)
        log_in(other, elsewhere)
        program = device_session(running, browser)
        assert page.get("/api/v1/sessions").json()["items"][0]["provider"] == "hall"
        address = leave(page)
        assert not is_in(page)
        asked = parse_qs(urlsplit(address).query)
        assert address.startswith(f"{hall.issuer}/")
        assert asked.keys() == {"client_id", "post_logout_redirect_uri", "state"}
        assert asked["client_id"] == [CLIENT_ID]
        assert asked["post_logout_redirect_uri"] == [f"{running.url}/login/hall/logged-out"]
        assert is_in_api(program)  # the browser has not been there yet
        brought = browser.go(address, stop_at=f"{running.url}/login/hall/logged-out")
        back = page.get("/login/hall/logged-out", params=brought)
        assert back.status_code == 200
        assert "The hall sent you back" in back.text
        message, answer = messenger.wait_for(before + 1)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        assert not is_in_api(program)  # which began in the same session there
        assert is_in(other)  # which began in another
        again = page.post("/api/v1/login/providers/hall/logout", content=message, headers=FORM)
        assert (again.status_code, again.json()["error"]) == (400, "invalid_request")
        assert [one["provider"] for one in told(running, "session.closed")][-1:] == ["hall"]


@pytest.mark.skipif(find_missing() is not None, reason=f"chromium: {find_missing()}")
def test_a_real_browser_goes_there_and_comes_back(running: RunningApplication, hall: Hall) -> None:
    """Whatever the policy of the page with the form allows forms to lead to."""
    with running_chromium() as browser:
        browser.open(f"{running.url}/login/hall?return_to=/login")
        browser.fill("input[name=login]", "otto")
        browser.fill("input[name=password]", "any")
        browser.click("button[type=submit]")
        browser.wait_for("Authorize")
        browser.click("button[type=submit]")
        browser.wait_for("You are logged in as otto")
        browser.click("form[action='/logout'] button")
        browser.wait_for("Do you want to sign-out")
        browser.click("button[value=yes]")
        browser.wait_for("The hall sent you back")
        browser.open(f"{running.url}/login/hall?return_to=/login")
        browser.wait_for("Sign-in")  # nobody is logged in there any more


def test_a_browser_that_logged_out_elsewhere_is_told_nothing(running: RunningApplication, hall: Hall) -> None:
    browser = Browser("otto")
    with own_page(running) as page, own_page(running) as other:
        log_in(page, browser)
        brought = browser.go(leave(page), stop_at=f"{running.url}/login/hall/logged-out")
        for params in (brought, {"state": "x"}, {}):
            foreign = other.get("/login/hall/logged-out", params=params)
            assert (foreign.status_code, foreign.headers["location"]) == (303, "/")
        page.get("/login/hall")  # which marks the browser anew
        assert page.get("/login/hall/logged-out", params=brought).status_code == 303


def test_a_login_by_password_leads_nowhere(running: RunningApplication) -> None:
    with own_page(running) as page:
        page.post("/login", data={"login": running.login, "password": running.password})
        answer = page.post("/logout", data={})
        assert (answer.status_code, answer.headers["location"], "refresh" in answer.headers) == (303, "/", False)


def test_a_program_is_told_where_to_log_out(running: RunningApplication, hall: Hall) -> None:
    browser = Browser("vera")
    first, second = device_session(running, browser), device_session(running, browser)
    sessions = [one["id"] for one in first.get("/sessions").json()["items"] if one["provider"] == "hall"]
    ended = first.delete(f"/sessions/{sessions[0]}")
    assert ended.status_code == 204  # that of the second, whose browser may be another
    assert not is_in_api(second)
    own = first.delete(f"/sessions/{sessions[1]}")
    assert own.status_code == 200
    assert own.json()["provider"] == "hall"
    assert parse_qs(urlsplit(own.json()["url"]).query) == {"client_id": [CLIENT_ID]}
    assert not is_in_api(first)
    third = device_session(running, browser)
    assert third.post("/logout").json()["url"] == own.json()["url"]
    assert not is_in_api(third)


def encode(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def is_in_api(client: httpx.Client) -> bool:
    return client.get("/me").status_code == 200


FORM = {"content-type": "application/x-www-form-urlencoded"}


def claims_of(hall: Hall, **changed: object) -> dict[str, Any]:
    """What a good token says, with changes; None leaves a claim out."""
    now = int(time.time())
    good = {
        "iss": hall.issuer,
        "aud": CLIENT_ID,
        "iat": now,
        "exp": now + 120,
        "jti": uuid4().hex,
        "events": {EVENT: {}},
    }
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def sign(hall: Hall, claims: dict[str, Any], key: Any = None, **header: object) -> str:
    named = {"alg": "RS256", "kid": hall.key.kid, "typ": "logout+jwt", **header}
    return jwt.encode({name: value for name, value in named.items() if value is not None}, claims, key or hall.key)


def tell(running: RunningApplication, token: str, provider: str = "hall") -> httpx.Response:
    address = f"{running.url}/api/v1/login/providers/{provider}/logout"
    return httpx.post(address, data={"logout_token": token}, trust_env=False)


@contextmanager
def opened(running: RunningApplication, who: str, session: str, hall: Hall) -> Iterator[httpx.Client]:
    """A session that began as somebody, in this session there."""
    arrival = Arrival(CredentialKind.OIDC, f"{hall.issuer} {who}", origin=Origin("hall", who, session))
    secret, _ = running.application.identity.arrive(arrival, Client("192.0.2.1", "browser"))
    headers = {"authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=f"{running.url}/api/v1", trust_env=False, headers=headers) as client:
        yield client


def test_exactly_what_began_there_ends(running: RunningApplication, hall: Hall) -> None:
    with (
        opened(running, "paul", "one", hall) as one,
        opened(running, "paul", "two", hall) as two,
        opened(running, "paul", "", hall) as untold,
        opened(running, "mira", "one of hers", hall) as other,
    ):
        for gone in ({"sid": "three"}, {"sub": "nobody"}, {"sub": "mira", "sid": "one"}, {"sid": "paul"}):
            assert tell(running, sign(hall, claims_of(hall, **gone))).status_code == 200
        assert all(map(is_in_api, (one, two, untold, other)))
        assert tell(running, sign(hall, claims_of(hall, sub="paul", sid="one"), typ=None)).status_code == 200
        assert [is_in_api(each) for each in (one, two, untold, other)] == [False, True, True, True]
        assert tell(running, sign(hall, claims_of(hall, sid="two"))).status_code == 200
        assert [is_in_api(each) for each in (two, untold, other)] == [False, True, True]
        assert tell(running, sign(hall, claims_of(hall, sub="paul", aud=["another", CLIENT_ID]))).status_code == 200
        assert [is_in_api(each) for each in (untold, other)] == [False, True]


WRONG: dict[str, dict[str, object]] = {
    "issuer": {"iss": "https://another.example"},
    "no issuer": {"iss": None},
    "audience": {"aud": "another"},
    "no audience": {"aud": None},
    "expired": {"exp": -3600, "iat": -3700},
    "no end": {"exp": None},
    "from the future": {"iat": 3600, "exp": 7200},
    "old, with an end far away": {"iat": -7200},
    "no time": {"iat": None},
    "nonce": {"nonce": "n"},
    "no events": {"events": None},
    "events of another kind": {"events": {"http://schemas.openid.net/event/other": {}}},
    "events as a list": {"events": [EVENT]},
    "event that is no object": {"events": {EVENT: True}},
    "no name of its own": {"jti": None},
    "a name that is none": {"jti": 7},
    "nobody": {"sub": None},
    "somebody who is no text": {"sub": ["mira"]},
    "session that is no text": {"sid": {"a": 1}},
    "an empty session": {"sid": ""},
}


def moved(changed: dict[str, object]) -> dict[str, object]:
    """The times among these from now on."""
    now = int(time.time())
    return {n: now + v if n in ("iat", "exp") and isinstance(v, int) else v for n, v in changed.items()}


@pytest.mark.parametrize("wrong", sorted(WRONG))
def test_a_token_that_says_it_wrongly_ends_nothing(running: RunningApplication, hall: Hall, wrong: str) -> None:
    with opened(running, "mira", "hers", hall) as kept:
        answer = tell(running, sign(hall, claims_of(hall, **{"sub": "mira", **moved(WRONG[wrong])})))
        assert answer.status_code == 400, answer.text
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json()["error"] == "invalid_request"
        assert is_in_api(kept)


def test_a_token_that_the_provider_did_not_sign_ends_nothing(running: RunningApplication, hall: Hall) -> None:
    claims = claims_of(hall, sub="mira")
    good = sign(hall, claims)
    public = json.dumps(hall.key.as_dict(private=False)).encode()
    unsigned = f"{encode({'alg': 'none', 'typ': 'logout+jwt'})}.{good.split('.')[1]}."
    forged = [
        unsigned,
        sign(hall, claims, RSAKey.generate_key(2048)),
        sign(hall, claims, OctKey.import_key(public), alg="HS256"),
        sign(hall, claims, OctKey.import_key(CLIENT_SECRET), alg="HS256"),
        sign(hall, claims, typ="at+jwt"),
        f"{good.split('.')[0]}.{encode({**claims, 'sub': 'lina'})}.{good.split('.')[2]}",
        good[:-8] + ("AAAAAAAA" if good[-8:] != "AAAAAAAA" else "BBBBBBBB"),
        "", "x", "a.b.c", "a" * 70_000,
    ]  # fmt: skip
    with opened(running, "mira", "hers", hall) as kept:
        for one in forged:
            assert tell(running, one).status_code == 400, one[:80]
        address = f"{running.url}/api/v1/login/providers/hall/logout"
        twice = httpx.post(address, content=f"logout_token={good}&logout_token={good}", headers=FORM, trust_env=False)
        assert twice.status_code == 400
        assert httpx.post(address, json={"logout_token": good}, trust_env=False).status_code == 400
        assert tell(running, good, provider="nowhere").status_code == 404
        assert is_in_api(kept)
        assert tell(running, good).status_code == 200
        assert not is_in_api(kept)


def test_a_token_is_good_once(running: RunningApplication, hall: Hall) -> None:
    token = sign(hall, claims_of(hall, sub="mira"))
    assert tell(running, token).status_code == 200
    with opened(running, "mira", "hers", hall) as later:
        assert tell(running, token).status_code == 400
        assert is_in_api(later)


def test_a_logout_token_opens_no_session(running: RunningApplication, hall: Hall) -> None:
    body = {"provider": "hall", "subject_token": sign(hall, claims_of(hall, sub="mira"))}
    answer = httpx.post(f"{running.url}/api/v1/login/token", json=body, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (401, "login_not_confirmed")


def test_a_login_that_waits_does_not_outlast_the_logout(running: RunningApplication, hall: Hall) -> None:
    identity, here = running.application.identity, Client("192.0.2.1", "browser")
    for ended in ({"sid": "waiting"}, {"sub": "paul"}):
        arrival = Arrival(CredentialKind.OIDC, f"{hall.issuer} paul", origin=Origin("hall", "paul", "waiting"))
        waiting = identity.seal_arrival(arrival)
        assert tell(running, sign(hall, claims_of(hall, **ended))).status_code == 200
        with pytest.raises(LoginNotConfirmedError, match="logged out there"):
            identity.arrive(identity.open_arrival(waiting), here)
        time.sleep(0.01)
        fresh = replace(arrival, origin=Origin("hall", "paul", "a later one"))
        identity.arrive(identity.open_arrival(identity.seal_arrival(fresh)), here)


def test_too_many_wrong_tokens_from_one_address_have_to_wait(hall: Hall) -> None:
    provider = {"name": "hall", "issuer": hall.issuer, "client_id": CLIENT_ID}
    with start_application(providers=[provider], worker=False, rate_limit_attempts=5) as running:
        for _ in range(8):  # what is believed is never too much
            assert tell(running, sign(hall, claims_of(hall, sub="nobody"))).status_code == 200
        assert [tell(running, "x").status_code for _ in range(7)] == [400] * 5 + [429] * 2


def test_who_cannot_be_sent_there_is_logged_out_here_all_the_same() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no answer", request=request)

    issuer = "https://login.example.org"

    def give(more: dict[str, object]) -> httpx.MockTransport:
        return httpx.MockTransport(lambda _: httpx.Response(200, json={"issuer": issuer, **more}))

    settings = OidcSettings("x", "X", issuer, "c", None)
    clock = SystemClock()
    assert OidcProvider(settings, clock, give({})).logout_url() is None
    good = give({"end_session_endpoint": f"{issuer}/end?realm=a"})
    assert OidcProvider(settings, clock, good).logout_url() == f"{issuer}/end?realm=a&client_id=c"
    assert OidcProvider(replace(settings, single_logout=False), clock, good).logout_url() is None
    for wrong in (give({"end_session_endpoint": "http://evil.example/"}), httpx.MockTransport(refuse)):
        with pytest.raises(ProviderUnavailableError):
            OidcProvider(settings, clock, wrong).logout_url()


def test_a_provider_that_is_away_holds_nobody_up(hall: Hall) -> None:
    provider = {"name": "hall", "issuer": "http://127.0.0.1:9", "client_id": CLIENT_ID}
    with start_application(providers=[provider], worker=False) as running, own_page(running) as page:
        identity = running.application.identity
        _, root = identity.log_in(running.login, running.password)
        identity.link(root, Arrival(CredentialKind.OIDC, "http://127.0.0.1:9 ada"))
        arrival = Arrival(CredentialKind.OIDC, "http://127.0.0.1:9 ada", origin=Origin("hall", "ada", "s"))
        secret, _ = identity.arrive(arrival, Client("192.0.2.1", "browser"))
        page.cookies.set("perdure-session", secret, domain="127.0.0.1", path="/")
        assert is_in(page)
        answer = page.post("/logout", data={})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        page.cookies.set("perdure-session", secret, domain="127.0.0.1", path="/")
        assert not is_in(page)


def perdure(running: RunningApplication, home: Path, *words: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PERDURE_")}
    named = {"PERDURE_URL": running.url, "PERDURE_CREDENTIALS": str(home / "credentials.json")}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([PROGRAM, *words], env={**kept, **named}, **pipes)


def log_in_by_command(running: RunningApplication, home: Path, browser: Browser) -> None:
    with perdure(running, home, "login", "--provider", "hall") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"http://\S+user_code=\S+", line):
                browser.confirm_device(found[0])
                break
        process.stderr.read()
    assert process.returncode == 0


def test_the_command_ends_with_the_session_there_and_a_program_does_not(
    running: RunningApplication, hall: Hall, messenger: Messenger, tmp_path: Path
) -> None:
    browser, before = Browser("ada"), len(messenger.came)
    log_in_by_command(running, tmp_path, browser)
    with perdure(running, tmp_path, "token", "create", "nightly") as making:
        program, _ = making.communicate()
    browser.go(f"{hall.issuer}/session/end?client_id={CLIENT_ID}", stop_at=f"{hall.issuer}/session/end/success")
    messenger.wait_for(before + 1)
    with perdure(running, tmp_path, "whoami") as asking:
        _, said = asking.communicate()
    assert asking.returncode == 3, said
    headers = {"authorization": f"Bearer {program.strip()}"}
    assert httpx.get(f"{running.url}/api/v1/me", headers=headers, trust_env=False).status_code == 200
    assert told(running, "token.revoked")[-1]["provider"] == "hall"


def test_the_command_says_where_one_may_be_logged_in_still(
    running: RunningApplication, hall: Hall, tmp_path: Path
) -> None:
    log_in_by_command(running, tmp_path, Browser("ada"))
    with perdure(running, tmp_path, "logout") as leaving:
        out, said = leaving.communicate()
    assert leaving.returncode == 0
    assert out.startswith("Logged out at")
    assert f"{hall.issuer}/session/end?client_id={CLIENT_ID}" in said


def test_what_the_provider_offers_is_told(hall: Hall) -> None:
    provider = OidcProvider(OidcSettings("hall", "Hall", hall.issuer, CLIENT_ID, CLIENT_SECRET), SystemClock())
    assert provider.check() == "ends sessions there and tells of ended ones"
