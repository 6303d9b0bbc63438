"""What servers in front of us say, and certificates: believed where they are trusted, and nowhere else."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from perdure.identity import Arrival, CredentialKind
from perdure.testing.app import RunningApplication, start_application
from perdure.testing.certificates import make_authority, make_certificate, make_client_certificate

SAML = {"name": "federation", "kind": "proxy", "label": "Your institution"}
CARD = {"name": "card", "kind": "x509", "label": "Certificate"}
SAID = {
    "remote-user": "ada@example.org",
    "shib-identity-provider": "https://idp.example.org/shibboleth",
    "displayname": "Ad\u00e1 Example",
    "mail": "ada@example.org",
    "entitlement": "urn:x:one;urn:x:two",
    "shib-authncontext-class": "https://refeds.org/profile/mfa",
}
HERE = "/login/federation?return_to=/x"
DN = x509.Name(
    [
        x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Grid"),
        x509.NameAttribute(NameOID.COMMON_NAME, "Ada Example"),
    ]
)


@pytest.fixture(scope="module")
def trusting() -> Iterator[RunningApplication]:
    with start_application(providers=[SAML, CARD], trusted_proxies=["127.0.0.1"], worker=False) as started:
        yield started


@pytest.fixture(scope="module")
def wary() -> Iterator[RunningApplication]:
    """It trusts a proxy, and we are not it."""
    with start_application(providers=[SAML, CARD], trusted_proxies=["192.0.2.7"], worker=False) as started:
        yield started


def make_known(running: RunningApplication, kind: CredentialKind, subject: str) -> None:
    """Let the administrator be known by this, too."""
    identity = running.application.identity
    _, actor = identity.log_in(running.login, running.password)
    identity.link(actor, Arrival(kind, subject))


def come(
    running: RunningApplication, *said: dict[str, str], path: str = "/login/federation?return_to=/x"
) -> httpx.Response:
    """A browser whose proxy says this of it."""
    raw = [(name.encode(), value.encode()) for headers in said for name, value in headers.items()]
    return httpx.get(f"{running.url}{path}", headers=raw, trust_env=False)


def enter(running: RunningApplication, provider: str, *said: dict[str, str]) -> httpx.Response:
    """Log in by what these headers say, each as often as it is given."""
    raw = [(name.encode(), value.encode()) for headers in said for name, value in headers.items()]
    with httpx.Client(base_url=f"{running.url}/api/v1", trust_env=False) as client:
        return client.post("/login/hop", json={"provider": provider}, headers=raw)


def header_of(certificate: Path) -> str:
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    return f":{base64.b64encode(found.public_bytes(Encoding.DER)).decode()}:"


def test_a_trusted_server_says_who_it_is(trusting: RunningApplication) -> None:
    assert "not known here yet" in come(trusting, {**SAID, "remote-user": "eve@example.org"}).text
    make_known(trusting, CredentialKind.SAML, f"{SAID['shib-identity-provider']} ada@example.org")
    back = come(trusting, SAID)
    assert (back.status_code, back.headers["location"]) == (303, "/x")
    actor = trusting.application.identity.authenticate(back.cookies["perdure-session"])
    assert actor.proofs == {"saml", "second_factor", f"issuer {SAID['shib-identity-provider']}"}
    assert {"entitlement urn:x:one", "entitlement urn:x:two"} <= actor.known_as


def test_a_login_by_a_trusted_server_is_linked_to_who_asks_for_it(trusting: RunningApplication) -> None:
    identity = trusting.application.identity
    secret, actor = identity.log_in(trusting.login, trusting.password)
    said = {**SAID, "remote-user": "linked@example.org", "sec-fetch-site": "same-origin"}
    cookie = {"cookie": f"perdure-session={secret}"}
    address = "/login/federation?link=true&return_to=/account"
    assert come(trusting, said, path=address).status_code == 401
    back = come(trusting, said, cookie, path=address)
    assert (back.status_code, back.headers["location"]) == (303, "/account")
    assert "set-cookie" not in back.headers
    assert f"{SAID['shib-identity-provider']} linked@example.org" in {
        one.subject for one in identity.list_credentials(actor)
    }
    assert come(trusting, {**said, "sec-fetch-site": "cross-site"}, cookie, path=address).status_code == 403


def test_a_server_tells_when_the_institution_saw_somebody(trusting: RunningApplication) -> None:
    make_known(trusting, CredentialKind.SAML, f"{SAID['shib-identity-provider']} ada@example.org")
    identity = trusting.application.identity
    long_ago = "2026-01-02T03:04:05.678Z"
    for instant, proven in ((long_ago, "2026-01-02T03:04:05.678000+00:00"), ("yesterday", None), ("", None)):
        back = come(trusting, SAID, {"shib-authentication-instant": instant})
        actor = identity.authenticate(back.cookies["perdure-session"])
        assert (actor.proven_at and actor.proven_at.isoformat()) == proven


def test_its_words_count_at_the_address_that_it_protects_alone(trusting: RunningApplication) -> None:
    make_known(trusting, CredentialKind.SAML, f"{SAID['shib-identity-provider']} ada@example.org")
    assert enter(trusting, "federation", SAID).status_code == 404
    for path in ("/login/card", "/login/federation/", "/login/federation/callback", "/login//federation"):
        assert "set-cookie" not in come(trusting, SAID, path=path).headers or "session" not in str(
            come(trusting, SAID, path=path).headers["set-cookie"]
        )


@pytest.mark.parametrize(
    "changed",
    [
        {"remote-user": ""},
        {"shib-identity-provider": ""},
        {"shib-identity-provider": "two words"},
        {"remote-user": "x" * 1001},
    ],
)
def test_half_of_what_is_needed_is_nothing(trusting: RunningApplication, changed: dict[str, str]) -> None:
    assert come(trusting, {**SAID, **changed}).status_code == 401


def test_of_two_names_none_is_true(trusting: RunningApplication) -> None:
    assert come(trusting, SAID, {"remote-user": "root@example.org"}).status_code == 401


@pytest.mark.parametrize("name", ["remote-user", "Remote-User", "REMOTE_USER", "remote_user"])
def test_nobody_else_is_believed(wary: RunningApplication, tmp_path: Path, name: str) -> None:
    make_known(wary, CredentialKind.SAML, f"{SAID['shib-identity-provider']} ada@example.org")
    make_known(wary, CredentialKind.X509, DN.rfc4514_string())
    said = {**{key: value for key, value in SAID.items() if key != "remote-user"}, name: SAID["remote-user"]}
    for forwarded in ({}, {"x-forwarded-for": "192.0.2.7"}, {"forwarded": "for=192.0.2.7"}):
        assert come(wary, {**said, **forwarded}).status_code == 401
    authority = make_authority(tmp_path / "authority.pem")
    mine = make_client_certificate(tmp_path / "ada.pem", authority=authority, name=DN)
    for header in ("client-cert", "Client-Cert", "client_cert"):
        assert enter(wary, "card", {header: header_of(mine)}).status_code == 401


def test_a_certificate_by_a_trusted_hop(trusting: RunningApplication, tmp_path: Path) -> None:
    authority = make_authority(tmp_path / "authority.pem")
    mine = make_client_certificate(tmp_path / "ada.pem", authority=authority, name=DN)
    make_known(trusting, CredentialKind.X509, "CN=Ada Example,O=Grid,C=DE")
    answer = enter(trusting, "card", {"client-cert": header_of(mine)})
    assert answer.status_code == 200, answer.text
    assert trusting.application.identity.authenticate(answer.json()["secret"]).proofs == {"x509"}
    old = make_client_certificate(tmp_path / "old.pem", authority=authority, name=DN, starts=timedelta(days=-3))
    new = make_client_certificate(tmp_path / "new.pem", authority=authority, name=DN, starts=timedelta(days=3))
    proxy = make_client_certificate(tmp_path / "proxy.pem", authority=authority, name=DN, is_proxy=True)
    for wrong in (
        *map(header_of, (old, new, proxy)),
        "",
        ":",
        "::",
        ":AAAA:",
        "AAAA",
        ":no base 64:",
        ":" + "A" * 60_000 + ":",
    ):
        assert enter(trusting, "card", {"client-cert": wrong}).status_code == 401, wrong[:40]


def test_a_certificate_over_tls_itself(tmp_path: Path) -> None:
    authority = make_authority(tmp_path / "authority.pem")
    mine = make_client_certificate(tmp_path / "ada.pem", authority=authority, name=DN)
    foreign = make_client_certificate(tmp_path / "eve.pem", authority=make_authority(tmp_path / "other.pem"), name=DN)
    ours = make_certificate(tmp_path / "server.pem")
    with start_application(providers=[CARD], tls_cert=str(ours), tls_client_ca=str(authority), worker=False) as running:
        make_known(running, CredentialKind.X509, "CN=Ada Example,O=Grid,C=DE")
        for shown, status in ((None, 401), (mine, 200)):
            context = ssl.create_default_context(cafile=str(ours))
            if shown is not None:
                context.load_cert_chain(shown)
            with httpx.Client(verify=context, trust_env=False) as client:
                spoof = {"client-cert": header_of(mine)}
                answer = client.post(f"{running.url}/api/v1/login/hop", json={"provider": "card"}, headers=spoof)
            assert answer.status_code == status, answer.text
        context = ssl.create_default_context(cafile=str(ours))
        context.load_cert_chain(foreign)
        with httpx.Client(verify=context, trust_env=False) as client, pytest.raises(httpx.HTTPError):
            client.post(f"{running.url}/api/v1/login/hop", json={"provider": "card"})
