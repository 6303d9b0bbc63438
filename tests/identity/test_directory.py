"""The adapter at a real directory: who is believed, and what a stranger cannot make it do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from perdure.adapters.ldap import ber, directory
from perdure.adapters.ldap.directory import LdapDirectory, LdapSettings
from perdure.adapters.ldap.filters import BadFilterError, parse_filter
from perdure.adapters.ldap.names import escape_value, fold_name
from perdure.identity import Arrival
from perdure.identity.errors import LoginNotConfirmedError, ProviderUnavailableError
from perdure.testing.certificates import make_certificate

from .directory import (
    BASE,
    BEAMLINE,
    ODD_LOGIN,
    PASSWORD,
    PEOPLE,
    SERVICE_DN,
    SERVICE_PASSWORD,
    STAFF,
    Slapd,
    find_missing,
    running_slapd,
)

needs_slapd = pytest.mark.skipif(find_missing() is not None, reason=f"slapd: {find_missing()}")


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    with running_slapd(tmp_path_factory.mktemp("slapd")) as found:
        yield found


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "_REFUSED_AFTER", 0.01)


def by_search(slapd: Slapd, **more: Any) -> LdapDirectory:
    kept = {
        "servers": (slapd.ldaps,),
        "ca_file": slapd.certificate,
        "bind_dn": SERVICE_DN,
        "bind_password": SERVICE_PASSWORD,
        "user_base": PEOPLE,
    }
    return LdapDirectory(LdapSettings("site", "The site", **{**kept, **more}))


def by_name(slapd: Slapd, **more: Any) -> LdapDirectory:
    kept = {"servers": (slapd.ldaps,), "ca_file": slapd.certificate, "user_dn": f"uid={{login}},{PEOPLE}"}
    return LdapDirectory(LdapSettings("site", "The site", **{**kept, **more}))


def require(found: Arrival | None) -> Arrival:
    assert found is not None
    return found


@needs_slapd
def test_the_directory_says_who_somebody_is(slapd: Slapd) -> None:
    found = require(by_search(slapd).find_person("ada", PASSWORD))
    assert (found.kind, found.display_name, found.email) == ("ldap", "Ada Example", "ada@example.org")
    place, uuid = found.subject.split(" ")
    assert (place, len(uuid)) == ("site", 36)
    assert found.entitlements == {BEAMLINE}
    assert found.proofs == {"ldap", "issuer ldap:site"}
    again = by_name(slapd, servers=(slapd.ldap,))  # STARTTLS, and no service account
    assert require(again.find_person("ADA", PASSWORD)) == found
    grace = require(by_search(slapd, group_base=BASE).find_person("grace", PASSWORD))
    assert (grace.display_name, grace.email, set(grace.entitlements)) == ("Grace Hopper", None, {STAFF})
    both = require(by_search(slapd, group_base=BASE, subject_attribute="dn").find_person("ada", PASSWORD))
    assert both.entitlements == {BEAMLINE, STAFF}
    assert both.subject == f"site uid=ada,{PEOPLE}"


@needs_slapd
def test_no_password_no_name_and_no_trick_lets_anybody_in(slapd: Slapd) -> None:
    for made in (by_search(slapd), by_name(slapd)):
        for login, password in [
            ("ada", ""),  # this server lets in whoever binds without a password
            ("ada", "\0"),
            ("ada", "\0" + PASSWORD),
            ("ada", PASSWORD + "\0"),
            ("ada", "\ud800"),
            ("ada", "wrong"),
            ("ada", PASSWORD.upper()),
            ("nobody", PASSWORD),
            ("", PASSWORD),
            ("", ""),
            ("*", PASSWORD),
            ("ad*", PASSWORD),
            ("ada)(uid=*", PASSWORD),
            ("*)(objectClass=*", PASSWORD),
            ("ada)(|(uid=ada", PASSWORD),
            ("ada,ou=people", PASSWORD),
            ("ada+cn=x", PASSWORD),
            ("\\61da", PASSWORD),
            ("\\2a", PASSWORD),
            ("ada\0", PASSWORD),
            ("\udc00", PASSWORD),
            ("x" * 5000, PASSWORD),
        ]:
            assert made.find_person(login, password) is None, (login, password)
        # A name that is full of marks is one name
        assert require(made.find_person(ODD_LOGIN, PASSWORD)).display_name == "Odd Man"


@needs_slapd
def test_a_refusal_takes_the_same_time_whoever_it_is_about(slapd: Slapd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "_REFUSED_AFTER", 0.4)
    made = by_search(slapd)
    for login, password in (("ada", "wrong"), ("nobody", "wrong"), ("ada", "")):
        began = time.monotonic()
        assert made.find_person(login, password) is None
        assert (time.monotonic() - began) % 0.4 < 0.1


@needs_slapd
def test_a_server_is_believed_only_by_its_certificate(slapd: Slapd, tmp_path: Path) -> None:
    other = make_certificate(tmp_path / "other.pem")
    strange = [
        by_search(slapd, ca_file=other),
        by_search(slapd, ca_file=other, servers=(slapd.ldap,)),
        by_search(slapd, servers=(slapd.ldaps.replace("127.0.0.1", "localhost"),)),
    ]
    for made in strange:
        with capture_logs() as logs, pytest.raises(ProviderUnavailableError):
            made.find_person("ada", PASSWORD)
        assert "certificate" in logs[0]["reason"]
        assert PASSWORD not in str(logs)
        assert SERVICE_PASSWORD not in str(logs)
    assert by_search(slapd, servers=(slapd.ldap,), allow_plain=True).find_person("ada", PASSWORD)


@needs_slapd
def test_the_next_server_is_asked_when_one_does_not_answer(slapd: Slapd) -> None:
    with socket.socket() as dead, MuteServer() as mute:
        dead.bind(("127.0.0.1", 0))
        servers = (f"ldaps://127.0.0.1:{dead.getsockname()[1]}", mute, slapd.ldaps)
        made = by_search(slapd, servers=servers, seconds=0.5)
        assert made.find_person("ada", PASSWORD) is not None
        began = time.monotonic()
        assert made.find_person("ada", "wrong") is None  # those that did not answer are left alone for a while
        assert time.monotonic() - began < 0.5
        silent = by_search(slapd, servers=servers[:2], seconds=0.5)
        for _ in range(2):
            with pytest.raises(ProviderUnavailableError) as caught:
                silent.find_person("ada", PASSWORD)
            assert PASSWORD not in str(caught.value)


@needs_slapd
def test_what_the_operator_got_wrong_is_no_wrong_password(slapd: Slapd) -> None:
    for made in (by_search(slapd, bind_password="wrong"), by_search(slapd, user_base="dc=elsewhere")):
        with pytest.raises(ProviderUnavailableError):
            made.find_person("ada", PASSWORD)
    with pytest.raises(LoginNotConfirmedError, match="employeeNumber"):
        by_search(slapd, subject_attribute="employeeNumber").find_person("ada", PASSWORD)
    with pytest.raises(LoginNotConfirmedError, match="description"):  # what is seen of it somebody else may have, too
        by_search(slapd, subject_attribute="description").find_person("linus", PASSWORD)
    assert by_search(slapd, user_filter="(|(uid={login})(cn=Grace Hopper))").find_person("ada", PASSWORD) is None


class MuteServer:
    """Takes connections and says nothing."""

    def __enter__(self) -> str:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._held: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()
        return f"ldap://127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *error: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for one in self._held:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                self._held.append(self._socket.accept()[0])
            except OSError:
                return


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("(uid={login})", b"\xa3\x08\x04\x03uid\x04\x01*"),
        ("(mail={login}@x)", b"\xa3\x0b\x04\x04mail\x04\x03*@x"),
        ("(!(uid={login}))", b"\xa2\x0a\xa3\x08\x04\x03uid\x04\x01*"),
        ("(objectClass=*)", b"\x87\x0bobjectClass"),
        ("(cn=a*b*c)", b"\xa4\x0f\x04\x02cn0\x09\x80\x01a\x81\x01b\x82\x01c"),
        (r"(cn=\2a\28)", b"\xa3\x08\x04\x02cn\x04\x02*("),
        ("(a>=1)", b"\xa5\x06\x04\x01a\x04\x011"),
        ("(member:1.2:={login})", b"\xa9\x10\x81\x031.2\x82\x06member\x83\x01*"),
        ("(&(a={login})(|(b=1)))", b"\xa0\x12\xa3\x06\x04\x01a\x04\x01*\xa1\x08\xa3\x06\x04\x01b\x04\x011"),
    ],
)
def test_a_filter_is_sent_as_its_text_says(text: str, sent: bytes) -> None:
    """The bytes are those of RFC 4511 section 4.5.1.7, written by hand."""
    assert parse_filter(text, frozenset({"login"}))({"login": b"*"}) == sent


@pytest.mark.parametrize(
    "text",
    ["", "uid={login}", "(uid={login}", "(uid={login}))", "(uid={login}*)", "(uid={other})", "(=x)", "(uid=a(b)",
     "(!(a=1)(b=2))", r"(cn=\zz)", "(" * 50 + "a=1" + ")" * 50],
)  # fmt: skip
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(BadFilterError):
        parse_filter(text, frozenset({"login"}))


@given(st.text())
def test_whatever_is_typed_stays_one_value(typed: str) -> None:
    escaped = escape_value(typed.encode("utf-8", "replace").decode())
    assert not set(escaped.replace("\\", "")) & set(',+"<>;= #\0*()')
    sent = parse_filter("(uid={login})", frozenset({"login"}))({"login": typed.encode("utf-8", "replace")})
    ((_, content),) = ber.read_elements(sent)
    assert [value for _, value in ber.read_elements(content)] == [b"uid", typed.encode("utf-8", "replace")]


@given(st.binary(max_size=60))
def test_what_is_no_ber_is_an_error_and_nothing_else(data: bytes) -> None:
    try:
        read = list(ber.read_elements(data))
    except ber.BerError:
        return
    assert sum(len(content) for _, content in read) <= len(data)


def test_one_group_has_one_name() -> None:
    assert fold_name("CN=Beamline Seven , OU=Groups,DC=example, DC=org") == (
        r"cn=beamline\20seven,ou=groups,dc=example,dc=org"
    )
    assert fold_name(r"CN=Smith\, John,OU=x") == r"cn=smith\,\20john,ou=x"


@pytest.mark.parametrize("server", ["http://a", "ldap://", "a.example.org", "ldaps://a/dc=x", "ldaps://u@a"])
def test_an_address_that_is_none_is_refused(server: str) -> None:
    with pytest.raises(ValueError, match="a server is"):
        LdapDirectory(LdapSettings("site", "The site", servers=(server,), user_base="dc=x"))
