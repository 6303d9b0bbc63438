"""Debian's slapd beside the tests: real people, real groups, TLS by a certificate of the tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from perdure.testing.certificates import make_certificate

BASE = "dc=example,dc=org"
PEOPLE = f"ou=people,{BASE}"
SERVICE_DN, SERVICE_PASSWORD = f"cn=perdure,{BASE}", "a service of the tests"
PASSWORD = "plum tractor ninety sea"
ODD_LOGIN = "odd*man (x)"
BEAMLINE = rf"cn=beamline\20seven,ou=groups,{BASE}"
STAFF = f"cn=staff,ou=groups,{BASE}"
_SCHEMAS = Path("/etc/ldap/schema")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

_CONFIGURATION = """
include {schemas}/core.schema
include {schemas}/cosine.schema
include {schemas}/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
pidfile {folder}/slapd.pid
argsfile {folder}/slapd.args
# A server that takes an empty password for none, and lets in: what a client has to guard against
allow bind_anon_cred bind_anon_dn
TLSCertificateFile {certificate}
TLSCertificateKeyFile {certificate}
TLSCACertificateFile {certificate}
database mdb
suffix "{base}"
directory {folder}/data
maxsize 10485760
overlay memberof
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{service}" read by self read by anonymous auth by * none
"""

_DATA = """
dn: {base}
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: ou=people,{base}
objectClass: organizationalUnit
ou: people

dn: ou=groups,{base}
objectClass: organizationalUnit
ou: groups

dn: {service}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: perdure
userPassword: {service_password}

dn: ou=far,ou=people,{base}
objectClass: referral
objectClass: extensibleObject
ou: far
ref: ldap://127.0.0.1:1/ou=far,{base}

dn: uid=ada,ou=people,{base}
objectClass: inetOrgPerson
uid: ada
cn: Ada Lovelace
displayName: Ada Example
sn: Lovelace
mail: ada@example.org
userPassword: {password}
memberOf: cn=Beamline Seven,ou=groups,{base}

dn: uid=grace,ou=people,{base}
objectClass: inetOrgPerson
uid: grace
cn: Grace Hopper
sn: Hopper
userPassword: {password}

dn: uid=linus,ou=people,{base}
objectClass: inetOrgPerson
uid: linus
cn: Linus Pauling
sn: Pauling
description:: eOKAi3k=
userPassword: {password}

dn: uid=odd*man (x),ou=people,{base}
objectClass: inetOrgPerson
uid: odd*man (x)
cn: Odd Man
sn: Man
userPassword: {password}

dn: cn=Beamline Seven,ou=groups,{base}
objectClass: groupOfNames
cn: Beamline Seven
member: uid=ada,ou=people,{base}

dn: cn=staff,ou=groups,{base}
objectClass: groupOfNames
cn: staff
member: uid=ada,ou=people,{base}
member: uid=grace,ou=people,{base}
"""


@dataclass(frozen=True)
class Slapd:
    """The directory that runs; `certificate` is also what to trust."""

    plain_port: int
    tls_port: int
    certificate: Path
    process: subprocess.Popen[bytes]

    @property
    def ldaps(self) -> str:
        return f"ldaps://127.0.0.1:{self.tls_port}"

    @property
    def ldap(self) -> str:
        return f"ldap://127.0.0.1:{self.plain_port}"


def find_missing() -> str | None:
    """What is missing for a directory, or None."""
    missing = [name for name in ("slapd", "slapadd") if shutil.which(name, path=_PATH) is None]
    return f"no {' and no '.join(missing)}" if missing else None


@contextmanager
def running_slapd(folder: Path) -> Iterator[Slapd]:
    """A directory with a few people in it, on free ports of this machine, until the block ends."""
    certificate = make_certificate(folder / "directory.pem")
    configuration = folder / "slapd.conf"
    words = {"schemas": _SCHEMAS, "folder": folder, "certificate": certificate, "base": BASE, "service": SERVICE_DN}
    configuration.write_text(_CONFIGURATION.format(**words))
    (folder / "data").mkdir()
    data = {"base": BASE, "service": SERVICE_DN, "service_password": SERVICE_PASSWORD, "password": PASSWORD}
    _run("slapadd", "-f", str(configuration), given=_DATA.format(**data).strip() + "\n")
    ports = _free_ports()
    listening = f"ldap://127.0.0.1:{ports[0]} ldaps://127.0.0.1:{ports[1]}"
    found = shutil.which("slapd", path=_PATH)
    assert found is not None
    process = subprocess.Popen(
        [found, "-d", "0", "-f", str(configuration), "-h", listening],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(ports[1], process)
        yield Slapd(*ports, certificate, process)
    finally:
        process.kill()
        process.wait()


def _run(program: str, *words: str, given: str) -> None:
    found = shutil.which(program, path=_PATH)
    assert found is not None
    ran = subprocess.run([found, *words], input=given, text=True, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("slapd does not listen")
