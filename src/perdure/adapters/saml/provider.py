"""Institutions of SAML 2.0: a request by HTTP-Redirect, an answer by HTTP-POST (saml-profiles-2.0, section 4.1).

The library and the metadata are loaded when the first person logs in: that takes a second, and most processes never do.
"""

from __future__ import annotations

import shutil
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING

from perdure.adapters.saml.settings import SamlSettings
from perdure.identity.errors import NoSuchProviderError
from perdure.identity.model import Arrival, CredentialKind
from perdure.identity.ports import DeviceLogin, EndedThere
from perdure.kernel.clock import Clock

if TYPE_CHECKING:
    from perdure.adapters.saml.speaking import Speaker

PROGRAM = "xmlsec1"


def find_missing() -> str | None:
    """What has to be installed before SAML can be spoken, None when nothing is missing."""
    if find_spec("saml2") is None:
        return "install perdure[saml] (pysaml2)"
    return None if shutil.which(PROGRAM) else f"install {PROGRAM} (Debian's package xmlsec1)"


class SamlProvider:
    """Safe to share between threads. An answer is believed when one assertion in it is signed by the institution, for
    us, here, now, and in answer to our request."""

    kind = CredentialKind.SAML
    hands_back_state = False  # RelayState may have 80 bytes

    def __init__(self, settings: SamlSettings, clock: Clock) -> None:
        self.name, self.label = settings.name, settings.label
        self._settings = settings
        self._clock = clock
        self._turn = threading.Lock()
        self._speaker: Speaker | None = None

    def authorization_url(self, *, redirect_uri: str, state: str, nonce: str, verifier: str, anew: bool = False) -> str:
        """Where somebody logs in; the institution's answer is posted to `redirect_uri`."""
        return self._speak().ask(redirect_uri, f"_{nonce}", anew=anew)

    def redeem(self, code: str, *, redirect_uri: str, nonce: str, verifier: str) -> Arrival:
        """Whom the response (as it was posted, in base 64) tells of; raises LoginNotConfirmedError."""
        return self._speak().read(code, redirect_uri, f"_{nonce}")

    def describe(self, redirect_uri: str) -> str:
        """Our metadata, for the institution."""
        return self._speak().describe(redirect_uri)

    def begin_device(self) -> DeviceLogin:
        raise self._refusal()

    def redeem_device(self, device_code: str) -> Arrival | None:
        raise self._refusal()

    def accept_token(self, token: str) -> Arrival:
        raise self._refusal()

    def logout_url(self, *, redirect_uri: str | None = None, state: str | None = None) -> str | None:
        """Logging out there is not spoken here."""
        return None

    def read_logout(self, token: str) -> EndedThere:
        raise self._refusal()

    def _refusal(self) -> NoSuchProviderError:
        return NoSuchProviderError(f"{self.label} logs people in with browsers only, at /login/{self.name}.")

    def _speak(self) -> Speaker:
        with self._turn:
            if self._speaker is None:
                from perdure.adapters.saml.speaking import Speaker  # noqa: PLC0415  # slow, and of an extra

                self._speaker = Speaker(self._settings, self._clock, shutil.which(PROGRAM) or PROGRAM)
            return self._speaker
