"""Logging in at a real provider, and everything that it could say wrongly."""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from perdure.adapters.oidc import OidcProvider, OidcSettings
from perdure.identity.errors import LoginNotConfirmedError, ProviderUnavailableError
from perdure.identity.model import Arrival, CredentialKind

from .house import SetClock
from .signing_in import CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, Browser, Hall, find_tools, running_hall

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_tools() is not None, reason=f"npm: {find_tools()}"),
]


@pytest.fixture(scope="module")
def hall() -> Iterator[Hall]:
    with running_hall() as found:
        yield found


@pytest.fixture
def clock() -> SetClock:
    clock = SetClock()
    clock.moment = datetime.now(UTC)
    return clock


@pytest.fixture
def settings(hall: Hall) -> OidcSettings:
    return OidcSettings("hall", "Hall", hall.issuer, CLIENT_ID, CLIENT_SECRET)


@pytest.fixture
def provider(settings: OidcSettings, clock: SetClock) -> OidcProvider:
    return OidcProvider(settings, clock)


def come_back(provider: OidcProvider, who: str = "ada") -> tuple[str, str, str]:
    """Log in as somebody; the code, and the nonce and verifier that belong to it."""
    nonce, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
    url = provider.authorization_url(redirect_uri=REDIRECT_URI, state="s", nonce=nonce, verifier=verifier)
    brought = Browser(who).go(url)
    assert brought["state"] == "s"
    return brought["code"], nonce, verifier


def redeem(provider: OidcProvider, code: str, nonce: str, verifier: str) -> Arrival:
    return provider.redeem(code, redirect_uri=REDIRECT_URI, nonce=nonce, verifier=verifier)


def identity_token(provider: OidcProvider) -> str:
    """A token of the provider about somebody, as it sends it."""
    code, _, verifier = come_back(provider)
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT_URI, "code_verifier": verifier}
    answer = provider._ask_token(form)
    assert answer is not None
    return str(answer["id_token"])


def test_a_code_tells_who_it_is(provider: OidcProvider, hall: Hall) -> None:
    found = redeem(provider, *come_back(provider))
    assert (found.kind, found.subject) == (CredentialKind.OIDC, f"{hall.issuer} ada")
    assert (found.display_name, found.email) == ("Ada Example", "ada@example.org")
    assert (found.orcid, found.issuer) == ("0000-0002-1825-0097", hall.issuer)
    assert found.entitlements == {"urn:x:example.org:group:beamline", "urn:x:example.org:group:all"}
    assert found.proofs == {"oidc", f"issuer {hall.issuer}"}


def test_thousands_of_entitlements_come_whole(provider: OidcProvider) -> None:
    assert len(redeem(provider, *come_back(provider, "bob")).entitlements) == 3000


def test_a_code_is_good_once(provider: OidcProvider) -> None:
    code, nonce, verifier = come_back(provider)
    redeem(provider, code, nonce, verifier)
    with pytest.raises(LoginNotConfirmedError):
        redeem(provider, code, nonce, verifier)


def test_a_code_without_its_verifier_is_worth_nothing(provider: OidcProvider) -> None:
    code, nonce, _ = come_back(provider)
    with pytest.raises(LoginNotConfirmedError):
        redeem(provider, code, nonce, secrets.token_urlsafe(48))


def test_the_answer_to_another_login_is_refused(provider: OidcProvider) -> None:
    code, _, verifier = come_back(provider)
    with pytest.raises(LoginNotConfirmedError, match="no answer to this login"):
        redeem(provider, code, "another nonce", verifier)


@pytest.mark.parametrize(("seconds", "is_good"), [(45, True), (-45, True), (86_400, False), (-86_400, False)])
def test_clocks_may_differ_by_a_minute(provider: OidcProvider, clock: SetClock, seconds: int, is_good: bool) -> None:
    coming = come_back(provider)
    clock.move(timedelta(seconds=seconds))
    if is_good:
        redeem(provider, *coming)
    else:
        with pytest.raises(LoginNotConfirmedError):
            redeem(provider, *coming)


def test_a_token_that_was_made_for_another_is_refused(settings: OidcSettings, clock: SetClock) -> None:
    token = identity_token(OidcProvider(settings, clock))
    assert OidcProvider(settings, clock).accept_token(token).subject.endswith(" ada")
    with pytest.raises(LoginNotConfirmedError):
        OidcProvider(replace(settings, audience="another service"), clock).accept_token(token)


def test_a_provider_that_calls_itself_otherwise_is_not_believed(settings: OidcSettings, clock: SetClock) -> None:
    other = settings.issuer.replace("127.0.0.1", "localhost")
    with pytest.raises(ProviderUnavailableError, match="calls itself"):
        come_back(OidcProvider(replace(settings, issuer=other), clock))


def forge(token: str, **changed: object) -> dict[str, object]:
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return {**claims, **changed}


def unsigned(header: dict[str, object], claims: dict[str, object]) -> str:
    parts = (base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in (header, claims))
    return ".".join(parts) + "."


def test_a_token_that_the_provider_did_not_sign_is_refused(provider: OidcProvider, hall: Hall) -> None:
    token = identity_token(provider)
    claims = forge(token, sub="root")
    keys = httpx.get(f"{hall.issuer}/jwks", trust_env=False).json()["keys"]
    public = json.dumps(keys[0]).encode()
    forged = [
        unsigned({"alg": "none"}, claims),
        unsigned({"alg": "None", "kid": keys[0]["kid"]}, claims),
        jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(public)),
        jwt.encode({"alg": "HS256", "kid": keys[0]["kid"]}, claims, OctKey.import_key(CLIENT_SECRET)),
        jwt.encode({"alg": "RS256", "kid": keys[0]["kid"]}, claims, RSAKey.generate_key(2048)),
        jwt.encode({"alg": "RS256", "jwk": {"kty": "RSA"}}, claims, RSAKey.generate_key(2048)),
        token[:-6] + ("AAAAAA" if token[-6:] != "AAAAAA" else "BBBBBB"),
        f"{token.split('.')[0]}.{unsigned({}, claims).split('.')[1]}.{token.split('.')[2]}",
        "", "a.b.c", "a" * 10_000, token + "\0", "\ud800",
    ]  # fmt: skip
    for one in forged:
        with pytest.raises(LoginNotConfirmedError):
            provider.accept_token(one)


def test_a_device_waits_until_somebody_confirms(provider: OidcProvider) -> None:
    begun = provider.begin_device()
    assert begun.user_code in begun.complete_uri or begun.verification_uri in begun.complete_uri
    assert provider.redeem_device(begun.device_code) is None
    Browser("ada").confirm_device(begun.complete_uri)
    found = provider.redeem_device(begun.device_code)
    assert found is not None
    assert found.subject.endswith(" ada")
    with pytest.raises(LoginNotConfirmedError):
        provider.redeem_device(begun.device_code)
    with pytest.raises(LoginNotConfirmedError):
        provider.redeem_device("somebody else's")


def test_the_address_asks_for_a_code_with_proof(provider: OidcProvider) -> None:
    url = provider.authorization_url(redirect_uri=REDIRECT_URI, state="s", nonce="n", verifier="v" * 43)
    asked = parse_qs(urlsplit(url).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert (asked["response_type"], asked["nonce"], asked["state"]) == (["code"], ["n"], ["s"])
    assert "v" * 43 not in url


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(200, content=b"[]"),
        httpx.Response(302, headers={"location": "http://169.254.169.254/"}),
        httpx.Response(200, content=b"{" + b" " * (2 << 20) + b"}"),
        httpx.Response(
            200, json={"issuer": "https://login.example.org", "authorization_endpoint": "file:///etc/passwd"}
        ),
        httpx.Response(200, json={"issuer": "https://login.example.org", "authorization_endpoint": "http://10.0.0.1/"}),
    ],
)
def test_a_provider_that_answers_nonsense_is_a_reason_to_try_later(clock: SetClock, answer: httpx.Response) -> None:
    asked: list[str] = []

    def give(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return answer

    known = OidcSettings("x", "X", "https://login.example.org", "c", None)
    provider = OidcProvider(known, clock, transport=httpx.MockTransport(give))
    with pytest.raises(ProviderUnavailableError):
        provider.authorization_url(redirect_uri=REDIRECT_URI, state="s", nonce="n", verifier="v")
    assert asked == ["https://login.example.org/.well-known/openid-configuration"]


def test_two_who_come_first_at_once_are_both_sent_there(clock: SetClock) -> None:
    both = threading.Barrier(2, timeout=20)
    issuer = "https://login.example.org"

    def give(request: httpx.Request) -> httpx.Response:
        both.wait()
        return httpx.Response(200, json={"issuer": issuer, "authorization_endpoint": f"{issuer}/go"})

    provider = OidcProvider(OidcSettings("x", "X", issuer, "c", None), clock, transport=httpx.MockTransport(give))

    def go(state: str) -> str:
        return provider.authorization_url(redirect_uri=REDIRECT_URI, state=state, nonce="n", verifier="v")

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(go, ("one", "two")))
    assert all(url.startswith(f"{issuer}/go?") for url in found)


def test_a_provider_that_does_not_answer_is_left_alone_for_a_moment(clock: SetClock) -> None:
    asked: list[str] = []

    def give(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        raise httpx.ConnectTimeout("no answer", request=request)

    known = OidcSettings("x", "X", "https://login.example.org", "c", None)
    provider = OidcProvider(known, clock, transport=httpx.MockTransport(give))
    for expected in ("cannot be reached", "did not answer a moment ago"):
        with pytest.raises(ProviderUnavailableError, match=expected):
            provider.authorization_url(redirect_uri=REDIRECT_URI, state="s", nonce="n", verifier="v")
    assert len(asked) == 1
