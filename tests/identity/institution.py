"""Debian's SimpleSAMLphp beside the tests: a real identity provider of SAML 2.0, and somebody who logs in there."""

from __future__ import annotations

import html
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urljoin

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

PASSWORD = "plum tractor ninety sea"
MEMBER = "urn:x:example.org:group:beamline seven"
GROUP = "urn:x:example.org:group:beamline-seven"
_HOME = Path("/usr/share/simplesamlphp/www")
_OIDS = {
    "eduPersonPrincipalName": "urn:oid:1.3.6.1.4.1.5923.1.1.1.6",
    "eduPersonEntitlement": "urn:oid:1.3.6.1.4.1.5923.1.1.1.7",
    "eduPersonScopedAffiliation": "urn:oid:1.3.6.1.4.1.5923.1.1.1.9",
    "eduPersonOrcid": "urn:oid:1.3.6.1.4.1.5923.1.1.1.16",
    "pairwise-id": "urn:oasis:names:tc:SAML:attribute:pairwise-id",
    "displayName": "urn:oid:2.16.840.1.113730.3.1.241",
    "mail": "urn:oid:0.9.2342.19200300.100.1.3",
}

_CONFIGURATION = """<?php
$config = [
    'baseurlpath' => '{address}/',
    'certdir' => '{folder}/',
    'loggingdir' => '{folder}/',
    'datadir' => '{folder}/',
    'tempdir' => '{folder}/tmp',
    'metadatadir' => '{folder}/metadata/',
    'attributenamemapdir' => '/etc/simplesamlphp/attributemap/',
    'secretsalt' => 'salt of the tests',
    'auth.adminpassword' => 'nobody needs it here',
    'technicalcontact_email' => 'na@example.org',
    'timezone' => 'UTC',
    'logging.handler' => 'file',
    'enable.saml20-idp' => true,
    'module.enable' => ['exampleauth' => true, 'core' => true, 'saml' => true],
    'session.cookie.secure' => false,
    'session.phpsession.savepath' => '{folder}/tmp',
    'language.default' => 'en',
    'metadata.sources' => array_merge(
        [['type' => 'flatfile']],
        file_exists('{folder}/us.xml') ? [['type' => 'xml', 'file' => '{folder}/us.xml']] : []
    ),
    'store.type' => 'phpsession',
];
"""

_HOSTED = """<?php
$metadata['{entity_id}'] = [
    'host' => '__DEFAULT__',
    'privatekey' => 'institution.key',
    'certificate' => 'institution.crt',
    'auth' => 'example-userpass',
    'attributes.NameFormat' => 'urn:oasis:names:tc:SAML:2.0:attrname-format:uri',
    'scope' => ['example.org'],
    'userid.attribute' => 'urn:oid:1.3.6.1.4.1.5923.1.1.1.6',
];
"""


@dataclass(frozen=True)
class Institution:
    """The identity provider that runs; `metadata` is its file."""

    entity_id: str
    metadata: Path
    folder: Path

    @property
    def key(self) -> Path:
        return self.folder / "institution.key"

    @property
    def certificate(self) -> Path:
        return self.folder / "institution.crt"

    def trust(self, metadata: str) -> None:
        """Take us for one of its services."""
        (self.folder / "us.xml").write_text(metadata)


def find_missing() -> str | None:
    """What is missing for an institution, or None."""
    missing = [name for name in ("php", "xmlsec1") if shutil.which(name) is None]
    missing += [] if _HOME.is_dir() else ["simplesamlphp"]
    if not missing and b"dom" not in subprocess.run(["php", "-m"], capture_output=True, check=False).stdout.split():
        missing.append("php-xml")
    return f"no {' and no '.join(missing)}" if missing else None


@contextmanager
def running_institution(folder: Path) -> Iterator[Institution]:
    """An identity provider with two people, on a free port of this machine, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    entity_id = f"{address}/saml2/idp/metadata.php"
    make_key(folder / "institution.key", folder / "institution.crt")
    for name in ("metadata", "tmp"):
        (folder / name).mkdir()
    (folder / "config.php").write_text(_CONFIGURATION.format(address=address, folder=folder))
    (folder / "authsources.php").write_text(_list_people())
    (folder / "metadata" / "saml20-idp-hosted.php").write_text(_HOSTED.format(entity_id=entity_id))
    environment = {**os.environ, "SIMPLESAMLPHP_CONFIG_DIR": str(folder)}
    process = subprocess.Popen(
        ["php", "-S", f"127.0.0.1:{port}", "-t", str(_HOME)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        metadata = folder / "institution.xml"
        metadata.write_text(_fetch(entity_id, process))
        yield Institution(entity_id, metadata, folder)
    finally:
        process.kill()
        process.wait()


def make_key(key_file: Path, certificate_file: Path) -> None:
    """Write a key and a certificate signed by itself, in two PEM files."""
    key, now = rsa.generate_private_key(65537, 2048), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "institution")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key_file.write_bytes(key.private_bytes(*form))
    certificate_file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def log_in(browser: httpx.Client, url: str, who: str) -> tuple[str, dict[str, str]]:
    """Log in where the address leads; the address that the institution posts its answer to, and the answer."""
    page = browser.get(url, follow_redirects=True)
    for _ in range(3):
        action, fields = read_form(page)
        if "SAMLResponse" in fields:
            return action, fields
        page = browser.post(action, data={**fields, "username": who, "password": PASSWORD}, follow_redirects=True)
    raise AssertionError(page.text)


def read_form(page: httpx.Response) -> tuple[str, dict[str, str]]:
    """Where the form of a page goes, and what it holds already."""
    assert page.status_code == 200, page.text
    form = re.search(r"<form[^>]*action=\"([^\"]*)\"", page.text)
    assert form is not None, page.text
    fields = {}
    for field in re.findall(r"<input[^>]*>", page.text):
        said = dict(re.findall(r"([\w-]+)=\"([^\"]*)\"", field))
        if "name" in said:
            fields[html.unescape(said["name"])] = html.unescape(said.get("value", ""))
    return urljoin(str(page.url), html.unescape(form.group(1))), fields


def _list_people() -> str:
    people = {
        "ada": {
            "eduPersonPrincipalName": ["ada@example.org"],
            "pairwise-id": ["XUZ42AAB@example.org"],
            "displayName": ["Ada Example"],
            "mail": ["ada@example.org"],
            "eduPersonEntitlement": [GROUP, MEMBER],
            "eduPersonScopedAffiliation": ["staff@example.org", "staff@elsewhere.org"],
            "eduPersonOrcid": ["https://orcid.org/0000-0002-1825-0097"],
        },
        "linus": {"eduPersonPrincipalName": ["linus@example.org"]},
    }
    lines = []
    for login, said in people.items():
        values = ", ".join(f"'{_OIDS[name]}' => {list(value)!r}" for name, value in said.items())
        lines.append(f"'{login}:{PASSWORD}' => [{values}]")
    return f"<?php\n$config = ['example-userpass' => ['exampleauth:UserPass', {', '.join(lines)}]];\n"


def _fetch(url: str, process: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        try:
            found = httpx.get(url, trust_env=False, timeout=10)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            assert found.status_code == 200, found.text
            return found.text
    raise AssertionError("the institution does not answer")
