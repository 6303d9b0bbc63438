"""Passkeys (Web Authentication, level 2): what a browser is asked, and whether its answer is to be believed.

The name that a key is bound to is the host of the public address; the origin is that address. Attestation is not asked
for: who made a device is nobody's business here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from webauthn import verify_authentication_response, verify_registration_response
from webauthn.helpers.structs import CredentialDeviceType

from perdure.identity.errors import PasskeyRefusedError, PasskeysUnavailableError
from perdure.identity.ports import NewPasskey

_ALGORITHMS = (-8, -7, -257)  # EdDSA, ES256, RS256 (RFC 8152, RFC 8812)
_PATIENCE = 300_000  # milliseconds that a browser waits for its user
_LONGEST_ID = 1023  # bytes


class WebAuthn:
    """Safe to share between threads; keeps nothing."""

    def creation_options(
        self, origin: str, *, site: str, person: bytes, name: str, challenge: bytes, known: Sequence[bytes]
    ) -> dict[str, Any]:  # Any: JSON, as a browser takes it
        """What a browser makes a new key by; not on a device that has one of those that are known."""
        return {
            "rp": {"id": _host(origin), "name": site},
            "user": {"id": _text(person), "name": name, "displayName": name},
            "challenge": _text(challenge),
            "pubKeyCredParams": [{"type": "public-key", "alg": one} for one in _ALGORITHMS],
            "timeout": _PATIENCE,
            "excludeCredentials": [{"type": "public-key", "id": _text(one)} for one in known],
            "authenticatorSelection": {
                "residentKey": "required",
                "requireResidentKey": True,
                "userVerification": "required",
            },
            "attestation": "none",
        }

    def request_options(self, origin: str, *, challenge: bytes) -> dict[str, Any]:  # Any: as above
        """What a browser shows the keys of this place by; it names nobody."""
        options = {"rpId": _host(origin), "challenge": _text(challenge), "timeout": _PATIENCE}
        return {**options, "allowCredentials": [], "userVerification": "required"}

    def read_registration(self, origin: str, answer: Mapping[str, Any], *, challenge: bytes) -> NewPasskey:  # Any: JSON
        """The key that was made; raises PasskeyRefusedError."""
        try:
            found = verify_registration_response(
                credential=dict(answer),
                expected_challenge=challenge,
                expected_rp_id=_host(origin),
                expected_origin=_origin(origin),
                require_user_verification=True,
            )
        except PasskeysUnavailableError:
            raise
        except Exception:  # whatever a stranger's bytes do to the library
            raise PasskeyRefusedError("The answer of the browser is not to be believed.") from None
        if not 0 < len(found.credential_id) <= _LONGEST_ID:
            raise PasskeyRefusedError("The passkey has an identifier of a strange size.")
        return NewPasskey(
            credential_id=found.credential_id,
            public_key=found.credential_public_key,
            sign_count=found.sign_count,
            is_synced=found.credential_device_type is CredentialDeviceType.MULTI_DEVICE,
        )

    def read_identifier(self, answer: Mapping[str, Any]) -> tuple[bytes, bytes | None]:  # Any: JSON
        """Which key the answer is said to come from, and of whom; raises PasskeyRefusedError."""
        response = answer.get("response")
        handle = response.get("userHandle") if isinstance(response, Mapping) else None
        return _bytes(answer.get("id")), None if handle is None else _bytes(handle)

    def read_assertion(
        self, origin: str, answer: Mapping[str, Any], *, challenge: bytes, public_key: bytes, sign_count: int
    ) -> int:  # Any: JSON
        """The count of the key, which has verified its user and signed this; raises PasskeyRefusedError."""
        try:
            found = verify_authentication_response(
                credential=dict(answer),
                expected_challenge=challenge,
                expected_rp_id=_host(origin),
                expected_origin=_origin(origin),
                credential_public_key=public_key,
                credential_current_sign_count=sign_count,
                require_user_verification=True,
            )
        except PasskeysUnavailableError:
            raise
        except Exception:  # as above
            raise PasskeyRefusedError("The answer of the passkey is not to be believed.") from None
        return found.new_sign_count


def _host(origin: str) -> str:
    """The name that keys are bound to; browsers take no address, and nothing without TLS but this machine."""
    parts = urlsplit(origin)
    host = parts.hostname or ""
    try:
        ip_address(host)
    except ValueError:
        if host == "localhost" or (host and parts.scheme == "https"):
            return host
    raise PasskeysUnavailableError("Passkeys need an address with a name, over https.")


def _origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}".lower()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: object) -> bytes:
    if not isinstance(text, str) or not text or len(text) > 2 * _LONGEST_ID or not text.isascii():
        raise PasskeyRefusedError("The answer names no passkey.")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise PasskeyRefusedError("The answer names no passkey.") from None
