"""Over TLS everything is as without it; a renewed certificate is taken up; who called is believed of proxies only."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from perdure.doors.http.tls import BadCertificateError, Certificate
from perdure.testing.app import RunningApplication, start_application
from perdure.testing.certificates import make_certificate
from perdure_client import Client, connect

CONTENTS = {"large": os.urandom(20_000_000), "middle": os.urandom(300_000), "small": b"1", "empty": b""}
FROM_AFAR = "203.0.113.7"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls") / "certificate.pem")


@pytest.fixture(scope="module")
def secured(postgres: Any, tmp_path_factory: pytest.TempPathFactory, certificate: Path) -> Iterator[RunningApplication]:
    url = postgres.make_ready()
    folder: Path = tmp_path_factory.mktemp("secured")
    with start_application(folder, database_url=url, tls_cert=str(certificate)) as running:
        yield running
    postgres.drop(url)


@pytest.fixture
def client(secured: RunningApplication, certificate: Path) -> Iterator[Client]:
    with connect(secured.url, token=secured.token(), verify=str(certificate)) as client:
        yield client


def test_files_of_every_size_go_and_come_back_over_tls(client: Client, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, content in CONTENTS.items():
        (tmp_path / "in" / name).write_bytes(content)
    archive = client.open_archive(
        profile="personal", title="TLS", creators=[{"name": "A"}], publisher="P", licence="CC0-1.0"
    ).id
    for expected in (len(CONTENTS), 0):
        report = client.put(archive, f"{tmp_path / 'in'}/")
        assert (report.stored, report.refused) == (expected, [])
    client.get(archive, tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in CONTENTS} == CONTENTS


def test_one_connection_takes_several_large_bodies(secured: RunningApplication, certificate: Path) -> None:
    """They pass the parser by, below which the bytes are deciphered."""
    headers = {"authorization": f"Bearer {secured.token()}"}
    trusted = ssl.create_default_context(cafile=certificate)
    with httpx.Client(verify=trusted, headers=headers, timeout=60, trust_env=False) as http:
        record = {"profile": "personal", "title": "TLS", "creators": [{"name": "A"}], "publisher": "P"}
        archive = http.post(f"{secured.url}/api/v1/archives", json={**record, "licence": "CC0-1.0"}).json()["id"]
        place = f"{secured.data_url}/api/v1/archives/{archive}/files"
        for number in range(3):
            assert http.put(f"{place}/f{number}", content=CONTENTS["large"]).status_code == 201
            assert http.put(f"{place}/s{number}", content=b"x").status_code == 201
        assert http.get(f"{place}/f2").content == CONTENTS["large"]
        assert http.get(f"{place}/s2", headers={"range": "bytes=0-0"}).content == b"x"


def test_whoever_comes_without_tls_gets_no_answer_and_the_next_one_does(
    secured: RunningApplication, certificate: Path
) -> None:
    host, port = secured.url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in plain.recv(4096)
    trusted = ssl.create_default_context(cafile=certificate)
    answer = httpx.get(f"{secured.url}/healthz", verify=trusted, trust_env=False)
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_old_and_new_versions_are_spoken(
    secured: RunningApplication, certificate: Path, version: ssl.TLSVersion
) -> None:
    trusted = ssl.create_default_context(cafile=certificate)
    trusted.minimum_version = trusted.maximum_version = version
    assert httpx.get(f"{secured.url}/healthz", verify=trusted, trust_env=False).status_code == 200


def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(tmp_path: Path) -> None:
    place = make_certificate(tmp_path / "certificate.pem")
    first = certificates_in(place)
    served = Certificate(place)
    assert seen_by_a_caller(served) == first
    assert not served.renew()
    place.write_bytes(place.read_bytes()[:200])
    with pytest.raises(BadCertificateError):
        served.renew()
    assert seen_by_a_caller(served) == first
    make_certificate(place)
    assert served.renew()
    assert seen_by_a_caller(served) == certificates_in(place) != first
    place.unlink()
    with pytest.raises(BadCertificateError):
        served.renew()


def test_a_certificate_whose_key_is_anothers_does_not_replace_the_one_in_use(tmp_path: Path) -> None:
    """Both files are renewed one after the other."""
    certificate, key = make_certificate(tmp_path / "certificate.pem"), tmp_path / "key.pem"
    shutil.copy(certificate, key)
    served = Certificate(certificate, key)
    before = certificates_in(certificate)
    make_certificate(certificate)
    with pytest.raises(BadCertificateError):
        served.renew()
    assert seen_by_a_caller(served) == before
    shutil.copy(certificate, key)
    assert served.renew()
    assert seen_by_a_caller(served) == certificates_in(certificate)


def certificates_in(place: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert("-----BEGIN CERT" + place.read_text().split("-----BEGIN CERT")[1])


def seen_by_a_caller(served: Certificate) -> bytes:
    """The certificate that a new connection is shown."""
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname, asking.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = asking.wrap_bio(to_client, to_server)
    server = served.context.wrap_bio(to_server, to_client, server_side=True)
    steps: list[Callable[[], None]] = [caller.do_handshake, server.do_handshake]
    for step in steps * 4:
        try:
            step()
        except ssl.SSLWantReadError:
            continue
    return caller.getpeercert(binary_form=True) or b""


@pytest.mark.parametrize(
    ("proxies", "forwarded", "seen"),
    [
        ([], FROM_AFAR, "127.0.0.1"),
        (["10.0.0.0/8"], FROM_AFAR, "127.0.0.1"),
        (["127.0.0.1"], FROM_AFAR, FROM_AFAR),
        (["127.0.0.0/8"], f"198.51.100.1, {FROM_AFAR}", FROM_AFAR),  # the first one is what the caller himself said
        (["127.0.0.1", "192.0.2.0/24"], f"{FROM_AFAR}, 192.0.2.9", FROM_AFAR),
    ],
)
def test_only_trusted_proxies_tell_who_called(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxies: list[str], forwarded: str, seen: str
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # the server's own variable; what is trusted is a setting of ours
    url = postgres.make_ready()
    with start_application(tmp_path, database_url=url, worker=False, trusted_proxies=proxies) as running:
        login = {"login": running.login, "password": running.password}
        answer = httpx.post(f"{running.url}/api/v1/login", json=login, headers={"x-forwarded-for": forwarded})
        identity = running.application.identity
        (session,) = identity.list_sessions(identity.authenticate(answer.json()["secret"]))[:1]
        assert "strict-transport-security" not in answer.headers
    postgres.drop(url)
    assert session.client.address == seen
