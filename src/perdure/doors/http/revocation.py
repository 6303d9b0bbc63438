"""Certificates that their authority has revoked: lists that the operator names (RFC 5280, section 5).

A list counts only while it is in force, and only when the authority has signed it whose certificates it is about. What
no list speaks of is unknown, and is refused unless the operator chose to be warned.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from perdure.identity.errors import CertificateRevokedError, LoginNotConfirmedError

log = structlog.get_logger(__name__)

_PEM_LIST = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
_CLOCKS_DIFFER = timedelta(minutes=1)
_DEEPEST = 8  # authorities above a certificate
_UNDERSTOOD = (x509.IssuingDistributionPoint,)
_Seen = tuple[int, int, int] | None


class BadListError(ValueError):
    """Why a list does not count, in words for the operator."""


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A list that its authority has signed; whether it is in force is asked each time."""

    signed: x509.CertificateRevocationList
    places: frozenset[str]  # where certificates say that it is to be found; none: it is about all of the authority

    @property
    def issuer(self) -> x509.Name:
        return self.signed.issuer

    @property
    def ends_at(self) -> datetime:
        ends = self.signed.next_update_utc
        assert ends is not None, "a list without an end is not read"
        return ends

    def find_fault(self, now: datetime) -> str | None:
        """Why the list is not in force, None while it is."""
        if self.signed.last_update_utc > now + _CLOCKS_DIFFER:
            return f"it is in force from {self.signed.last_update_utc:%Y-%m-%d %H:%M} UTC on only"
        return f"it ended on {self.ends_at:%Y-%m-%d %H:%M} UTC" if self.ends_at <= now else None

    def is_about(self, certificate: x509.Certificate) -> bool:
        """Whether it would name the certificate if that was revoked."""
        if certificate.issuer != self.issuer:
            return False
        return not self.places or not self.places.isdisjoint(_places_of(certificate))


class RevocationLists:
    """The lists in these files, read again when a file has changed; safe to share between threads.

    `authorities` is a PEM file with the certificates of those who sign them. With `only_warns` a certificate that no
    list speaks of is taken, and the log tells of it.
    """

    def __init__(self, files: Sequence[Path], authorities: Path, *, only_warns: bool = False) -> None:
        self._files = files
        self._authorities = authorities
        self._only_warns = only_warns
        self._lock = threading.Lock()
        self._above: list[x509.Certificate] = []  # the authorities, as they were read last
        self._known: dict[Path, tuple[tuple[_Seen, _Seen], list[RevocationList] | BadListError]] = {}

    def require_not_revoked(self, certificate: x509.Certificate, now: datetime) -> None:
        """Return for a certificate that is not revoked, nor an authority above it that is known here.

        Raises CertificateRevokedError, and LoginNotConfirmedError where nobody can say.
        """
        lists, faults = self._find_lists()
        for each in (certificate, *self._iter_above(certificate)):
            for one in lists:
                if one.issuer == each.issuer:  # also of a list that has ended: what it revoked stays revoked
                    _require_unlisted(one, each)
        if not any(one.is_about(certificate) and one.find_fault(now) is None for one in lists):
            faults |= {one.issuer.rfc4514_string(): fault for one in lists if (fault := one.find_fault(now))}
            self._meet_unknown(certificate, faults)

    def examine(self, path: Path, now: datetime) -> list[RevocationList]:
        """The lists of one file, in force; raises BadListError, which says what is wrong."""
        found = self._read(path)
        for one in found:
            if fault := one.find_fault(now):
                raise BadListError(fault)
        return found

    def _find_lists(self) -> tuple[list[RevocationList], dict[str, str]]:
        """All that were signed, and what is wrong with the files of others."""
        lists: list[RevocationList] = []
        faults: dict[str, str] = {}
        for path in self._files:
            try:
                lists += self._read(path)
            except BadListError as error:
                faults[str(path)] = str(error)
        return lists, faults

    def _meet_unknown(self, certificate: x509.Certificate, faults: dict[str, str]) -> None:
        told = {"issuer": certificate.issuer.rfc4514_string(), "faults": faults}
        if self._only_warns:
            log.warning("revocation_unknown_and_taken", **told)
            return
        log.error("revocation_unknown", **told)
        raise LoginNotConfirmedError("Nobody can say at this moment whether your certificate was revoked.")

    def _read(self, path: Path) -> list[RevocationList]:
        seen = (_look(path), _look(self._authorities))
        with self._lock:
            known = self._known.get(path)
            if known is None or known[0] != seen:
                found: list[RevocationList] | BadListError
                try:
                    self._above = _read_authorities(self._authorities)
                    found = _read_lists(path, self._above)
                except BadListError as error:
                    found = error
                self._known[path] = known = (seen, found)
        if isinstance(known[1], BadListError):
            raise known[1]
        return known[1]

    def _iter_above(self, certificate: x509.Certificate) -> Iterator[x509.Certificate]:
        authorities = self._above
        for _ in range(_DEEPEST):
            above = [one for one in authorities if one.subject == certificate.issuer and _has_signed(one, certificate)]
            if not above or above[0].subject == above[0].issuer:
                return
            certificate = above[0]
            yield certificate


def _require_unlisted(one: RevocationList, certificate: x509.Certificate) -> None:
    entry = one.signed.get_revoked_certificate_by_serial_number(certificate.serial_number)
    if entry is not None:
        raise CertificateRevokedError(
            f"The authority {one.issuer.rfc4514_string()} has revoked {certificate.subject.rfc4514_string()} on "
            f"{entry.revocation_date_utc:%Y-%m-%d}."
        )


def _look(path: Path) -> _Seen:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read_authorities(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadListError(f"the authorities in {path} cannot be read ({_word(error)})") from None


def _read_lists(path: Path, authorities: Sequence[x509.Certificate]) -> list[RevocationList]:
    try:
        content = path.read_bytes()
        pieces = _PEM_LIST.findall(content)
        lists = [x509.load_pem_x509_crl(one) for one in pieces] or [x509.load_der_x509_crl(content)]
    except (OSError, ValueError) as error:
        raise BadListError(f"it cannot be read ({_word(error)})") from None
    return [_check(one, authorities) for one in lists]


def _check(signed: x509.CertificateRevocationList, authorities: Sequence[x509.Certificate]) -> RevocationList:
    """The list, if the authority that it names has signed it and it says all that there is to say."""
    name = signed.issuer.rfc4514_string()
    of_that_name = [one for one in authorities if one.subject == signed.issuer]
    if not of_that_name:
        raise BadListError(f"it is of {name}, which is no authority here")
    if not any(_may_sign_lists(one) and _is_signed_by(signed, one) for one in of_that_name):
        raise BadListError(f"{name} has not signed it")
    if signed.next_update_utc is None:
        raise BadListError("it does not say until when it is in force")
    try:
        foreign = [one.oid for one in signed.extensions if one.critical and not isinstance(one.value, _UNDERSTOOD)]
        scope = [one.value for one in signed.extensions if isinstance(one.value, x509.IssuingDistributionPoint)]
    except ValueError as error:
        raise BadListError(f"what it says of itself cannot be read ({_word(error)})") from None
    if foreign or any(_is_partial(one) for one in scope):
        raise BadListError("it is only a part of a list, which is not understood here")
    return RevocationList(signed, frozenset(_texts(name for one in scope for name in one.full_name or ())))


def _is_partial(scope: x509.IssuingDistributionPoint) -> bool:
    return bool(
        scope.indirect_crl
        or scope.only_some_reasons
        or scope.only_contains_ca_certs
        or scope.only_contains_attribute_certs
        or scope.relative_name
    )


def _may_sign_lists(authority: x509.Certificate) -> bool:
    try:
        return authority.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True  # without the extension a key may be used for everything (RFC 5280, section 4.2.1.3)


def _is_signed_by(signed: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        return signed.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # another kind is refused
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


def _has_signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, TypeError, ValueError, UnsupportedAlgorithm):
        return False
    return True


def _places_of(certificate: x509.Certificate) -> frozenset[str]:
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except (x509.ExtensionNotFound, ValueError):
        return frozenset()
    return frozenset(_texts(name for point in points for name in point.full_name or ()))


def _texts(names: Iterator[x509.GeneralName]) -> Iterator[str]:
    return (str(name.value) for name in names)


def _word(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
