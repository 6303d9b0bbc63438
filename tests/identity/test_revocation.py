"""Certificates that their authority has revoked, by lists that are read again, checked, and end."""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from perdure.doors.http.revocation import RevocationLists
from perdure.identity import CredentialKind
from perdure.identity.errors import CertificateRevokedError, LoginNotConfirmedError
from perdure.settings import BadSettingError, settings_from
from perdure.testing.app import start_application
from perdure.testing.certificates import (
    make_authority,
    make_certificate,
    make_client_certificate,
    make_revocation_list,
)

from .test_hops import header_of, make_known

HERE = "http://lists.example.org/here.crl"


def named(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


class Grid:
    """An authority with a good certificate and a revoked one, and its list."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = make_authority(folder / "authority.pem")
        self.good = make_client_certificate(folder / "good.pem", authority=self.authority, name=named("Good"))
        self.gone = make_client_certificate(folder / "gone.pem", authority=self.authority, name=named("Gone"))
        self.list = make_revocation_list(folder / "list.pem", authority=self.authority, revoked=[self.gone])

    def lists(self, *, only_warns: bool = False, authorities: Path | None = None) -> RevocationLists:
        return RevocationLists([self.list], authorities or self.authority, only_warns=only_warns)


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return Grid(tmp_path)


def read(certificate: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(certificate.read_bytes())


def now() -> datetime:
    return datetime.now(UTC)


def test_a_revoked_certificate_is_refused_and_another_is_not(grid: Grid) -> None:
    lists = grid.lists()
    lists.require_not_revoked(read(grid.good), now())
    with pytest.raises(CertificateRevokedError, match="has revoked CN=Gone on 20"):
        lists.require_not_revoked(read(grid.gone), now())


def test_lists_come_as_der_and_several_in_one_file(grid: Grid) -> None:
    other = make_authority(grid.folder / "other.pem", called="Another")
    theirs = make_client_certificate(grid.folder / "theirs.pem", authority=other, name=named("Theirs"))
    second = make_revocation_list(grid.folder / "second.pem", authority=other, revoked=[theirs])
    both = grid.folder / "both.pem"
    both.write_bytes(grid.authority.read_bytes() + other.read_bytes())
    grid.list.write_bytes(grid.list.read_bytes() + b"# Another\n" + second.read_bytes())
    lists = grid.lists(authorities=both)
    for gone in (grid.gone, theirs):
        with pytest.raises(CertificateRevokedError):
            lists.require_not_revoked(read(gone), now())
    make_revocation_list(grid.list, authority=grid.authority, revoked=[grid.gone], encoding=Encoding.DER)
    with pytest.raises(CertificateRevokedError):
        lists.require_not_revoked(read(grid.gone), now())
    lists.require_not_revoked(read(grid.good), now())


def test_a_list_that_changed_is_read_again(grid: Grid) -> None:
    lists = grid.lists()
    lists.require_not_revoked(read(grid.good), now())
    make_revocation_list(grid.list, authority=grid.authority, revoked=[grid.good, grid.gone])
    with pytest.raises(CertificateRevokedError):
        lists.require_not_revoked(read(grid.good), now())
    fresh = make_revocation_list(grid.folder / "fresh", authority=grid.authority)
    os.replace(fresh, grid.list)
    lists.require_not_revoked(read(grid.gone), now())


BROKEN = ("ended", "to come", "gone", "no list", "signed by another", "of another", "a delta", "of authorities only")


def spoil(grid: Grid, how: str) -> None:
    """A list that would clear the revoked certificate, if it counted."""
    authority = grid.authority
    eve = make_authority(grid.folder / "eve.pem")
    if how == "ended":
        make_revocation_list(grid.list, authority=authority, starts=timedelta(days=-9), ends=timedelta(days=-1))
    elif how == "to come":
        make_revocation_list(grid.list, authority=authority, starts=timedelta(days=1))
    elif how == "gone":
        grid.list.unlink()
    elif how == "no list":
        grid.list.write_text("none")
    elif how == "signed by another":
        make_revocation_list(grid.list, authority=authority, signed_by=eve)
    elif how == "of another":
        make_revocation_list(grid.list, authority=make_authority(grid.folder / "far.pem", called="Far away"))
    elif how == "a delta":
        make_revocation_list(grid.list, authority=authority, extensions=[x509.DeltaCRLIndicator(1)])
    else:
        scope = x509.IssuingDistributionPoint(None, None, False, True, None, False, False)
        make_revocation_list(grid.list, authority=authority, extensions=[scope])


@pytest.mark.parametrize("how", BROKEN)
def test_where_nobody_can_say_nobody_comes_in(grid: Grid, how: str) -> None:
    strict, mild = grid.lists(), grid.lists(only_warns=True)
    for lists in (strict, mild):
        lists.require_not_revoked(read(grid.good), now())
    spoil(grid, how)
    for certificate in (grid.good, grid.gone):
        with pytest.raises(LoginNotConfirmedError, match="Nobody can say"):
            strict.require_not_revoked(read(certificate), now())
        with capture_logs() as told:
            mild.require_not_revoked(read(certificate), now())
        assert [one["event"] for one in told] == ["revocation_unknown_and_taken"]
        assert told[0]["faults"]


def test_what_a_list_has_revoked_stays_revoked_when_the_list_has_ended(grid: Grid) -> None:
    mild = grid.lists(only_warns=True)
    make_revocation_list(grid.list, authority=grid.authority, revoked=[grid.gone], ends=timedelta(minutes=-1))
    mild.require_not_revoked(read(grid.good), now())
    with pytest.raises(CertificateRevokedError):
        mild.require_not_revoked(read(grid.gone), now())


def test_without_its_authorities_no_list_counts(grid: Grid) -> None:
    authorities = grid.folder / "authorities.pem"
    authorities.write_bytes(grid.authority.read_bytes())
    strict, mild = grid.lists(authorities=authorities), grid.lists(authorities=authorities, only_warns=True)
    strict.require_not_revoked(read(grid.good), now())
    authorities.unlink()
    for lists in (strict, grid.lists(authorities=authorities)):
        with pytest.raises(LoginNotConfirmedError):
            lists.require_not_revoked(read(grid.good), now())
    mild.require_not_revoked(read(grid.good), now())


def test_another_authority_of_that_name_revokes_nothing(grid: Grid) -> None:
    eve = make_authority(grid.folder / "eve.pem")
    make_revocation_list(grid.list, authority=eve, revoked=[grid.good])
    with pytest.raises(LoginNotConfirmedError):
        grid.lists().require_not_revoked(read(grid.good), now())
    both = grid.folder / "both.pem"
    both.write_bytes(eve.read_bytes() + grid.authority.read_bytes())
    make_revocation_list(grid.list, authority=grid.authority, revoked=[grid.gone])
    grid.lists(authorities=both).require_not_revoked(read(grid.good), now())


def test_a_list_that_speaks_of_some_certificates_says_nothing_of_others(grid: Grid) -> None:
    place = [x509.UniformResourceIdentifier(HERE)]
    scope = x509.IssuingDistributionPoint(place, None, False, False, None, False, False)
    inside = make_client_certificate(
        grid.folder / "inside.pem", authority=grid.authority, name=named("Inside"), listed_at=HERE
    )
    make_revocation_list(grid.list, authority=grid.authority, extensions=[scope])
    grid.lists().require_not_revoked(read(inside), now())
    with pytest.raises(LoginNotConfirmedError):
        grid.lists().require_not_revoked(read(grid.good), now())
    make_revocation_list(grid.list, authority=grid.authority, revoked=[inside], extensions=[scope])
    with pytest.raises(CertificateRevokedError):
        grid.lists().require_not_revoked(read(inside), now())


def test_a_revoked_authority_revokes_what_it_signed(grid: Grid) -> None:
    middle = make_authority(grid.folder / "middle.pem", called="Middle", above=grid.authority)
    mine = make_client_certificate(grid.folder / "mine.pem", authority=middle, name=named("Mine"))
    own = make_revocation_list(grid.folder / "middle.crl", authority=middle)
    chain = grid.folder / "chain.pem"
    chain.write_bytes(grid.authority.read_bytes() + middle.read_bytes())
    lists = RevocationLists([grid.list, own], chain)
    lists.require_not_revoked(read(mine), now())
    make_revocation_list(grid.list, authority=grid.authority, revoked=[middle])
    with pytest.raises(CertificateRevokedError, match="has revoked CN=Middle"):
        lists.require_not_revoked(read(mine), now())


def test_settings_that_would_check_nothing_are_refused(tmp_path: Path) -> None:
    base = {"data_dir": str(tmp_path)}
    card = {"name": "card", "kind": "x509", "crl_files": ["/x.crl"]}
    for wrong in (
        card,
        {**card, "ca_file": "/a.pem", "on_bad_crl": "ignore"},
        {"name": "site", "kind": "ldap", "servers": ["ldaps://a"], "user_base": "dc=a", "crl_files": ["/x.crl"]},
    ):
        with pytest.raises(BadSettingError):
            settings_from({**base, "providers": [wrong]})
    assert settings_from({**base, "providers": [{**card, "ca_file": "/a.pem"}]}).providers[0].on_bad_crl == "refuse"


@pytest.mark.slow
def test_nobody_logs_in_by_a_revoked_certificate(grid: Grid) -> None:
    ours = make_certificate(grid.folder / "server.pem")
    card = {"name": "card", "kind": "x509", "crl_files": [str(grid.list)]}
    with start_application(
        providers=[card],
        trusted_proxies=["127.0.0.1"],
        tls_cert=str(ours),
        tls_client_ca=str(grid.authority),
        worker=False,
    ) as running:

        def enter(shown: Path | None, told: Path | None = None) -> httpx.Response:
            context = ssl.create_default_context(cafile=str(ours))
            if shown is not None:
                context.load_cert_chain(shown)
            headers = {} if told is None else {"client-cert": header_of(told)}
            with httpx.Client(verify=context, trust_env=False, headers=headers) as client:
                return client.post(f"{running.url}/api/v1/login/hop", json={"provider": "card"})

        make_known(running, CredentialKind.X509, "CN=Good")
        make_known(running, CredentialKind.X509, "CN=Gone")
        assert [enter(grid.good).status_code, enter(None, grid.good).status_code] == [200, 200]
        for refused in (enter(grid.gone), enter(None, grid.gone), enter(grid.good, grid.gone)):
            assert (refused.status_code, refused.json()["code"]) == (401, "certificate_revoked")
            assert "has revoked CN=Gone" in refused.json()["detail"]
        make_revocation_list(grid.list, authority=grid.authority, ends=timedelta(minutes=-5))
        for refused in (enter(grid.good), enter(None, grid.good)):
            assert (refused.status_code, refused.json()["code"]) == (401, "login_not_confirmed")
