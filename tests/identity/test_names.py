"""What people are known by is compared as text: each name has one form."""

from __future__ import annotations

import pytest

from perdure.identity.names import (
    check_address,
    check_dn,
    check_institution,
    check_named,
    check_orcid,
    check_requirement,
    fold_address,
)
from perdure.kernel.errors import BadInputError


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("CN=Ada Example,O=Grid,C=DE", "CN=Ada Example,O=Grid,C=DE"),
        ("/C=DE/O=Grid/CN=Ada Example", "CN=Ada Example,O=Grid,C=DE"),
        ("/DC=org/DC=terena/O=Lab/CN=Ada/Robot 5", "CN=Ada/Robot 5,O=Lab,DC=terena,DC=org"),
        ("/O=Lab, Inc/CN=Ada", "CN=Ada,O=Lab\\, Inc"),
    ],
)
def test_a_distinguished_name_has_one_form(given: str, written: str) -> None:
    assert check_dn(given) == written
    assert check_dn(written) == written


@pytest.mark.parametrize("text", ["", "Ada", "/", "CN=", "CN=Ada,", "=x"])
def test_what_is_no_distinguished_name_is_refused(text: str) -> None:
    with pytest.raises(BadInputError):
        check_named("x509", text)


def test_an_orcid_checks_itself() -> None:
    for text in ("0000-0002-1825-0097", "https://orcid.org/0000-0002-1825-0097", "0000000218250097"):
        assert check_orcid(text) == "0000-0002-1825-0097"
    assert check_orcid("0000-0002-9079-593x") == "0000-0002-9079-593X"
    for text in (
        "0000-0002-1825-0098",
        "0000-0002-1825-009",
        "0000-0002-1825-00977",
        "0000_0002",
        "",
        "٠000-0002-1825-0097",
    ):
        with pytest.raises(BadInputError):
            check_orcid(text)


@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        ("oidc", "https://login.example.org ada@example"),
        ("oidc", "http://127.0.0.1:3000 ada"),
        ("saml", "https://idp.example.org/shibboleth ada@example.org"),
        ("ldap", "site ada"),
        ("entitlement", "urn:geant:example.org:group:beamline"),
    ],
)
def test_a_name_of_two_words(kind: str, subject: str) -> None:
    assert check_named(kind, f" {subject} ") == f"{kind} {subject}"


@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        ("oidc", "https://login.example.org"),
        ("oidc", "http://login.example.org ada"),
        ("oidc", "ada https://login.example.org"),
        ("saml", "idp"),
        ("ldap", "site "),
        ("entitlement", "a b"),
        ("entitlement", ""),
        ("entitlement", "a\0b"),
        ("entitlement", "x" * 1001),
        ("password", "ada"),
        ("totp", "x"),
        ("e-mail", "ada@example.org"),
    ],
)
def test_what_cannot_be_named_is_refused(kind: str, subject: str) -> None:
    with pytest.raises(BadInputError):
        check_named(kind, subject)


def test_an_institution_is_an_address_an_entity_or_a_directory() -> None:
    for text in (
        "https://login.example.org",
        "http://adfs.example.org/adfs/services/trust",
        "urn:mace:example.org:idp",
        "ldap:site",
    ):
        assert check_institution(text) == text
    for text in ("", "login.example.org", "http://a b", "urn:\n", "ftp://example.org", "ldap:", "ldap:a b"):
        with pytest.raises(BadInputError):
            check_institution(text)


def test_a_requirement_is_a_way_a_factor_or_an_institution() -> None:
    for text in ("x509", "second_factor", "issuer https://login.example.org"):
        assert check_requirement(f" {text} ") == text
    for text in ("", "issuer ", "issuer a b", "telephone", "totp"):
        with pytest.raises(BadInputError):
            check_requirement(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ada@example.org", "ada@example.org"),
        (" Ada.Love+x@EXAMPLE.org ", "Ada.Love+x@example.org"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("o'neil@a-b.example", "o'neil@a-b.example"),
    ],
)
def test_an_address_has_one_form(text: str, expected: str) -> None:
    assert check_address(text) == expected
    assert fold_address(check_address(text.upper())) == fold_address(expected)


@pytest.mark.parametrize(
    "text",
    ["", "ada", "@example.org", "ada@", "ada@host", "a@b@example.org", ".a@example.org", "a..b@example.org",
     "a b@example.org", "a@exa mple.org", "a@example.org\nBcc: b@example.org", "a,b@example.org", "<a@example.org>",
     '"a"@example.org', "a@[127.0.0.1]", "a@-x.example", "a@example..org", "ä@example.org", "a@example.org\0",
     "a" * 65 + "@example.org", "a@" + "b" * 64 + ".example", "a@" + "b." * 130 + "example"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadInputError) as caught:
        check_address(text)
    assert caught.value.extra["field"] == "email"
