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
    place: Path, *, authority: Path, name: x509.Name, starts: timedelta = timedelta(0), is_proxy: bool = False
) -> Path:
    """Write a certificate of this name, signed by `authority` (a file of `make_authority`), with its key."""
    issuer = x509.load_pem_x509_certificate(authority.read_bytes())
    signer = serialization.load_pem_private_key(authority.read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer.subject, name, key.public_key(), x509.random_serial_number())
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


def make_authority(place: Path) -> Path:
    """Write an authority of the tests' own: its key and its certificate in one PEM file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of tests")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    signed = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(
        key, hashes.SHA256()
    )
    place.write_bytes(_secret(key) + signed.public_bytes(serialization.Encoding.PEM))
    place.chmod(0o600)
    return place


def _secret(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
