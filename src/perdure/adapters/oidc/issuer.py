"""What an issuer publishes of itself and with which keys it signs: asked for rarely, believed for an hour.

Nothing is asked of any address but those that the configured issuer itself names, and no redirect is followed.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import Any

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from perdure.identity.errors import ProviderUnavailableError
from perdure.identity.names import check_issuer
from perdure.kernel.errors import BadInputError

# Asymmetric ones only: with a shared secret as key, whoever knows the secret could say who anybody is.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY = 60  # seconds that clocks may differ
_TIMEOUT = 10.0
_LARGEST_ANSWER = 1 << 20  # bytes
_METADATA_LASTS = 3600.0  # seconds
_KEYS_ANEW_EVERY = 30.0  # seconds; whoever sends unknown key ids shall not make us ask again and again
_MOST_AT_ONCE = 8  # requests to one provider; each holds a thread, which other requests need
_LEFT_ALONE = 5.0  # seconds after a provider did not say who it is


class Issuer:
    """One issuer of JWTs; `label` is how people know it. Safe to share between threads."""

    def __init__(self, issuer: str, label: str, transport: httpx.BaseTransport | None = None) -> None:
        self.issuer = check_issuer(issuer)
        self.label = label
        # A login now and then: no connection is kept, which nobody would close
        alone = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.Client(timeout=_TIMEOUT, follow_redirects=False, limits=alone, transport=transport)
        self._places = threading.BoundedSemaphore(_MOST_AT_ONCE)
        self._lock = threading.Lock()
        self._silent_since: float | None = None
        self._metadata: tuple[float, Mapping[str, Any]] | None = None  # Any: JSON of the provider
        self._keys: tuple[float, KeySet] | None = None
        self._asked_anew_at: float | None = None

    def check(self) -> None:
        """Ask for what the issuer publishes and for its keys; raises ProviderUnavailableError."""
        self.find_metadata()
        self._find_keys()

    def decode(self, token: str) -> dict[str, Any]:  # Any: claims
        """The claims of a JWT that a key of the issuer has signed; raises JoseError or ValueError for any other."""
        return dict(self.decode_whole(token).claims)

    def decode_whole(self, token: str) -> jwt.Token:
        """The same with its header."""
        try:
            return jwt.decode(token, self._find_keys(), algorithms=_ALGORITHMS)
        except (JoseError, ValueError):
            if not self._renew_keys():
                raise
        return jwt.decode(token, self._find_keys(), algorithms=_ALGORITHMS)

    def send(self, method: str, address: str, **more: Any) -> httpx.Response:  # Any: as the library takes it
        """Ask the issuer and read a small answer; raises ProviderUnavailableError."""
        if not self._places.acquire(blocking=False):
            raise ProviderUnavailableError(f"Too many wait for {self.label} at this moment.")
        try:
            with self._http.stream(method, address, **more) as response:
                body = bytearray()
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > _LARGEST_ANSWER:
                        raise ProviderUnavailableError(f"{self.label} answered with too much.")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProviderUnavailableError(f"{self.label} cannot be reached ({type(error).__name__}).") from None
        finally:
            self._places.release()
        return httpx.Response(response.status_code, content=bytes(body))

    def read_json(self, response: httpx.Response, *, may_refuse: bool = False) -> Mapping[str, Any]:  # Any: JSON
        """The object that an answer holds; raises ProviderUnavailableError."""
        if not may_refuse and response.status_code != httpx.codes.OK:
            raise ProviderUnavailableError(f"{self.label} answered {response.status_code}.")
        try:
            found = json.loads(response.content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ProviderUnavailableError(f"{self.label} answered with something that is not JSON.")
        return found

    def endpoint(self, name: str) -> str:
        """An address that the issuer publishes; raises ProviderUnavailableError when it has none."""
        address = self.find_metadata().get(name)
        if not isinstance(address, str):
            raise ProviderUnavailableError(f"{self.label} has no {name}.")
        return self.allowed(address)

    def allowed(self, address: str) -> str:
        """The address, if it is to be trusted."""
        try:
            return check_issuer(address)
        except BadInputError:
            raise ProviderUnavailableError(f"{self.label} names an address that is not to be trusted.") from None

    def find_metadata(self) -> Mapping[str, Any]:  # Any: JSON
        """What the issuer publishes of itself."""
        with self._lock:
            known = self._metadata
        if known is not None and time.monotonic() - known[0] < _METADATA_LASTS:
            return known[1]
        silent = self._silent_since
        if silent is not None and time.monotonic() - silent < _LEFT_ALONE:
            raise ProviderUnavailableError(f"{self.label} did not answer a moment ago.")
        issuer = self.issuer
        try:
            found = self.read_json(self.send("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration"))
        except ProviderUnavailableError:
            self._silent_since = time.monotonic()
            raise
        if found.get("issuer") != issuer:
            raise ProviderUnavailableError(f"{self.label} calls itself something else than {issuer}.")
        with self._lock:
            self._metadata = (time.monotonic(), found)
        return found

    def _find_keys(self) -> KeySet:
        with self._lock:
            known = self._keys
        if known is not None and time.monotonic() - known[0] < _METADATA_LASTS:
            return known[1]
        return self._fetch_keys()

    def _fetch_keys(self) -> KeySet:
        found = self.read_json(self.send("GET", self.endpoint("jwks_uri")))
        try:
            keys = KeySet.import_key_set({"keys": [key for key in found["keys"] if key.get("kty") != "oct"]})
        except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ProviderUnavailableError(f"{self.label} publishes keys that cannot be read.") from error
        with self._lock:
            self._keys = (time.monotonic(), keys)
        return keys

    def _renew_keys(self) -> bool:
        """Ask for the keys unless that was done a moment ago: the provider may have changed them.

        Those that are known stay until there are others: nobody ends them by a token that fits none of them.
        """
        now = time.monotonic()
        with self._lock:
            asked = max(self._keys[0] if self._keys is not None else 0.0, self._asked_anew_at or 0.0)
            if asked and now - asked < _KEYS_ANEW_EVERY:
                return False
            self._asked_anew_at = now
        self._fetch_keys()
        return True


def name_of(error: Exception) -> str:
    """What a library says went wrong, in a word."""
    return str(getattr(error, "error", "")) or type(error).__name__
