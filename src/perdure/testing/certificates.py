"""A certificate of this machine's own, for tests that talk over TLS."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def make_certificate(place: Path, *, addresses: Sequence[str] = ("127.0.0.1",), days: int = 1) -> Path:
    """Write a key and a certificate signed by itself into one PEM file, which a client may also trust."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, addresses[0])])
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address)) for address in addresses])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=days))
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    place.write_bytes(_secret(key) + signed.public_bytes(serialization.Encoding.PEM))
    place.chmod(0o600)
    return place


def make_client_certificate(
    place: Path,
    *,
    authority: Path,
    name: x509.Name,
    starts: timedelta = timedelta(0),
    is_proxy: bool = False,
    listed_at: str | None = None,
) -> Path:
    """Write a certificate of this name, signed by `authority` (a file of `make_authority`), with its key.

    `listed_at` is where it says that its authority tells what is revoked.
    """
    issuer, signer = _read(authority)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer, name, key.public_key(), x509.random_serial_number())
    if listed_at is not None:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(listed_at)], None, None, None)
        builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
    builder = builder.not_valid_before(now + starts - timedelta(hours=1)).not_valid_after(
        now + starts + timedelta(days=1)
    )
    if is_proxy:
        told = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14"), b"\x30\x00")
        builder = builder.add_extension(told, critical=True)
    signed = builder.sign(signer, hashes.SHA256())
    place.write_bytes(_secret(key) + signed.public_bytes(serialization.Encoding.PEM))
    place.chmod(0o600)
    return place


def make_authority(place: Path, *, called: str = "Authority of tests", above: Path | None = None) -> Path:
    """Write an authority of the tests' own: its key and its certificate in one PEM file.

    `above` is the file of the authority that signs it; without, it signs itself.
    """
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, called)])
    issuer, signer = (name, key) if above is None else _read(above)
    builder = x509.CertificateBuilder(issuer, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    signed = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(
        signer, hashes.SHA256()
    )
    place.write_bytes(_secret(key) + signed.public_bytes(serialization.Encoding.PEM))
    place.chmod(0o600)
    return place


def make_revocation_list(
    place: Path,
    *,
    authority: Path,
    revoked: Sequence[Path] = (),
    signed_by: Path | None = None,
    starts: timedelta = timedelta(hours=-1),
    ends: timedelta = timedelta(days=7),
    extensions: Sequence[x509.ExtensionType] = (),
    encoding: serialization.Encoding = serialization.Encoding.PEM,
) -> Path:
    """Write a list of what an authority (a file of `make_authority`) has revoked: certificates in these files."""
    (name, signer), now = _read(authority), datetime.now(UTC)
    key = signer if signed_by is None else _read(signed_by)[1]
    builder = x509.CertificateRevocationListBuilder(name).last_update(now + starts).next_update(now + ends)
    for one in revoked:
        serial = x509.load_pem_x509_certificate(one.read_bytes()).serial_number
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - timedelta(hours=1))
        builder = builder.add_revoked_certificate(entry.build())
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    place.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(encoding))
    return place


def _read(authority: Path) -> tuple[x509.Name, ec.EllipticCurvePrivateKey]:
    """What an authority is called, and its key."""
    signer = serialization.load_pem_private_key(authority.read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    return x509.load_pem_x509_certificate(authority.read_bytes()).subject, signer


def _secret(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
