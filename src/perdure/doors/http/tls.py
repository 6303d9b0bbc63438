"""The certificate that we answer with over TLS, read again when it was renewed."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path

import structlog

from perdure.kernel.errors import BadInputError

log = structlog.get_logger(__name__)

_LOOK_EVERY = 60.0  # seconds


class BadCertificateError(BadInputError):
    code = "bad_certificate"
    title = "The certificate or its key cannot be used"
    next_step = "Set tls_cert to a PEM file with the certificate and its chain, tls_key to its key without a password."


class Certificate:
    """A certificate with its chain and its key, from PEM files; the key may lie in the file of the certificate.

    With `client_ca` clients may show a certificate of one of these authorities. Raises BadCertificateError.
    """

    def __init__(self, certificate: Path, key: Path | None = None, client_ca: Path | None = None) -> None:
        self._certificate, self._key = certificate, key or certificate
        self._client_ca = client_ca
        self._seen = self._look()
        self.context = self._read()

    def renew(self) -> bool:
        """Read the files again if they have changed; whether they had. Connections that stand keep what they have.

        Raises BadCertificateError, and what was read before stays in use.
        """
        seen = self._look()
        if seen == self._seen:
            return False
        self._read()  # a certificate whose key has not come yet must not get into the context that is in use
        self._load(self.context)
        self._seen = seen
        return True

    def keep_fresh(self) -> None:
        """Look for renewed files from now on, in a thread that ends with the process."""
        threading.Thread(target=self._watch, name="certificate", daemon=True).start()

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(_LOOK_EVERY):
            try:
                if self.renew():
                    log.info("certificate_renewed", file=str(self._certificate))
            except BadCertificateError as error:
                log.error("certificate_not_renewed", file=str(self._certificate), reason=error.detail)

    def _look(self) -> list[tuple[int, int, int]]:
        try:
            found = [path.stat() for path in (self._certificate, self._key)]
        except OSError as error:
            raise self._told(error) from error
        return [(one.st_ino, one.st_size, one.st_mtime_ns) for one in found]

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        self._load(context)
        if self._client_ca is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
            try:
                context.load_verify_locations(self._client_ca)
            except OSError as error:  # ssl.SSLError is one
                told = f"{self._client_ca} cannot be used: {error}."
                raise BadCertificateError(told, file=str(self._client_ca)) from error
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._certificate, self._key, password=_refuse_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise self._told(error) from error

    def _told(self, error: Exception) -> BadCertificateError:
        named = f"{self._certificate}" + ("" if self._key == self._certificate else f" with {self._key}")
        return BadCertificateError(f"{named} cannot be used: {error}.", file=str(self._certificate))


def _refuse_password() -> str:
    """Else the library would ask at the terminal, which a service does not have."""
    raise ValueError("the key is protected by a password")
