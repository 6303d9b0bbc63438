"""Logins that another server in front of us has seen to, or the TLS of the connection itself.

Their headers are believed only when they come from a proxy that the operator named, and its words about people only at
the address that it protects: everywhere else they are taken away before a door sees the request.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from cryptography import x509
from cryptography.x509.oid import NameOID
from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from perdure.doors.http.revocation import RevocationLists
from perdure.identity import Arrival, CredentialKind
from perdure.identity.errors import LoginNotConfirmedError
from perdure.identity.model import SECOND_FACTOR
from perdure.identity.names import MAX_SUBJECT_CHARACTERS, issuer_proof
from perdure.kernel.clock import Clock

CLIENT_CERTIFICATE = "archive.client_certificate"  # in the scope: what TLS itself has verified (DER)
_CERTIFICATE_HEADERS = ("client-cert", "client-cert-chain")  # RFC 9440
_PROXY_CERTIFICATE = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14")  # RFC 3820
_LONGEST_TEXT = 255
_FACTOR_CONTEXTS = ("https://refeds.org/profile/mfa",)


@dataclass(frozen=True, slots=True)
class HeaderLogin:
    """One way to log in by what a trusted server says in headers, or by a certificate."""

    name: str
    label: str
    kind: CredentialKind
    subject_header: str = ""
    institution_header: str = ""
    name_header: str = ""
    email_header: str = ""
    entitlement_header: str = ""
    context_header: str = ""
    instant_header: str = ""
    revocations: RevocationLists | None = None

    @property
    def headers(self) -> frozenset[str]:
        """What nobody but a trusted server may send."""
        if self.kind is CredentialKind.X509:
            return frozenset(_CERTIFICATE_HEADERS)
        named = (
            self.subject_header,
            self.institution_header,
            self.name_header,
            self.email_header,
            self.entitlement_header,
            self.context_header,
            self.instant_header,
        )
        return frozenset(name.lower() for name in named if name)

    def read(self, request: Request, clock: Clock) -> Arrival:
        """Who sends this request; raises LoginNotConfirmedError when nobody trusted says so."""
        if self.kind is CredentialKind.X509:
            return self._read_certificate(request, clock)
        return self._read_words(request, clock)

    def _read_words(self, request: Request, clock: Clock) -> Arrival:
        subject = _word(request, self.subject_header)
        institution = _word(request, self.institution_header)
        if not subject or not institution or " " in institution:
            raise LoginNotConfirmedError("The server in front of us did not say who you are.")
        entitlements = _text(request, self.entitlement_header, MAX_SUBJECT_CHARACTERS * 100).split(";")
        proofs = {self.kind.value, issuer_proof(institution)}
        if _word(request, self.context_header) in _FACTOR_CONTEXTS:
            proofs.add(SECOND_FACTOR)
        return Arrival(
            kind=self.kind,
            subject=f"{institution} {subject}",
            display_name=_text(request, self.name_header, _LONGEST_TEXT),
            email=_text(request, self.email_header, _LONGEST_TEXT) or None,
            issuer=institution,
            entitlements=frozenset(one.strip() for one in entitlements if one.strip() and " " not in one.strip()),
            proofs=frozenset(proofs),
            proven_at=self._find_instant(request, clock.now()),
        )

    def _find_instant(self, request: Request, now: datetime) -> datetime | None:
        """When the institution saw him; this moment where the server in front of us is not asked for it."""
        if not self.instant_header:
            return now
        try:
            moment = datetime.fromisoformat(_word(request, self.instant_header))
        except ValueError:
            return None
        return None if moment.tzinfo is None else min(moment.astimezone(UTC), now)

    def _read_certificate(self, request: Request, clock: Clock) -> Arrival:
        # The header first: a proxy that shows us a certificate of its own speaks for somebody else
        der = _decode(request.headers.getlist(_CERTIFICATE_HEADERS[0])) or request.scope.get(CLIENT_CERTIFICATE)
        if not der:
            raise LoginNotConfirmedError("No certificate came with this request.")
        try:
            certificate = x509.load_der_x509_certificate(der)
            subject = certificate.subject.rfc4514_string()
            extensions = {one.oid for one in certificate.extensions}
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
            raise LoginNotConfirmedError("The certificate cannot be read.") from error
        if not certificate.not_valid_before_utc <= clock.now() <= certificate.not_valid_after_utc:
            raise LoginNotConfirmedError("The certificate is not valid now.")
        if _PROXY_CERTIFICATE in extensions:
            raise LoginNotConfirmedError("This is a proxy certificate; send the one that it was made from.")
        if not subject or len(subject) > MAX_SUBJECT_CHARACTERS or not subject.isprintable():
            raise LoginNotConfirmedError("The certificate names nobody.")
        if self.revocations is not None:
            self.revocations.require_not_revoked(certificate, clock.now())
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        called = str(names[-1].value) if names else subject
        return Arrival(
            CredentialKind.X509,
            subject,
            called[:_LONGEST_TEXT],
            proofs=frozenset({CredentialKind.X509.value}),
            proven_at=clock.now(),
        )


class TrustedHops:
    """Takes the headers away that say who somebody is, but for requests that come straight from a trusted proxy.

    A proxy sets or clears its words about people where it logs them in: they count at `/login/<name>` alone. It has to
    stand before whatever puts the forwarded address in the place of the proxy's.
    """

    def __init__(self, app: ASGIApp, *, trusted: Sequence[str], logins: Iterable[HeaderLogin]) -> None:
        self._app = app
        self._trusted: list[IPv4Network | IPv6Network] = [ip_network(one) for one in trusted]
        by_address = {f"/login/{one.name}": one for one in logins}
        self._headers = {address: _plain_names(one.headers) for address, one in by_address.items()}
        self._everywhere = _plain_names(
            name for one in by_address.values() if one.kind is CredentialKind.X509 for name in one.headers
        )
        self._all = frozenset[bytes]().union(*self._headers.values())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            held, foreign = scope["headers"], self._all - self._find_believed(scope)
            if foreign and any(_plain(name) in foreign for name, _ in held):
                scope = {**scope, "headers": [one for one in held if _plain(one[0]) not in foreign]}
        await self._app(scope, receive, send)

    def _find_believed(self, scope: Scope) -> frozenset[bytes]:
        if not self._is_trusted(scope):
            return frozenset()
        return self._everywhere | self._headers.get(scope["path"], frozenset())

    def _is_trusted(self, scope: Scope) -> bool:
        try:
            address = ip_address((scope.get("client") or ("",))[0])
        except ValueError:
            return False
        return any(address in network for network in self._trusted)


def _plain(name: bytes) -> bytes:
    """Some servers take an underscore for a hyphen: who sends one must not get past us with the other."""
    return name.lower().replace(b"_", b"-")


def _plain_names(names: Iterable[str]) -> frozenset[bytes]:
    return frozenset(_plain(name.encode("ascii")) for name in names)


def _word(request: Request, header: str) -> str:
    """The header when it came once; of two nobody knows which is true."""
    return _text(request, header, MAX_SUBJECT_CHARACTERS)


def _text(request: Request, header: str, longest: int) -> str:
    values = request.headers.getlist(header) if header else []
    if len(values) > 1:
        raise LoginNotConfirmedError(f"The header {header} came more than once.")
    raw = values[0] if values else ""
    try:
        text = raw.encode("latin-1").decode("utf-8")  # as servers in front of us send it
    except (UnicodeDecodeError, UnicodeEncodeError):
        text = raw
    text = text.strip()
    return text if text.isprintable() and len(text) <= longest else ""


def _decode(values: Sequence[str]) -> bytes | None:
    """The byte sequence of a structured field (RFC 9651): base 64 between colons."""
    if len(values) != 1:
        return None
    text = values[0].strip()
    if len(text) < 3 or text[0] != ":" or text[-1] != ":":
        return None
    try:
        return base64.b64decode(text[1:-1], validate=True)
    except (binascii.Error, ValueError):
        return None
