"""Tokens of the grid: JWTs of the WLCG Common JWT Profiles (1.x) and of SciTokens (2.0).

Signature, issuer, audience, time and version are looked at here; what the scopes mean is for `identity`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from joserfc import jwt
from joserfc.errors import JoseError

from perdure.adapters.oidc.issuer import LEEWAY, Issuer, name_of
from perdure.identity.errors import GridTokenRefusedError
from perdure.identity.grid_scopes import GridPlaces, GridProfile
from perdure.identity.ports import GridToken
from perdure.kernel.clock import Clock

_ANY_AUDIENCE = {GridProfile.WLCG: "https://wlcg.cern.ch/jwt/v1/any", GridProfile.SCITOKENS: "ANY"}
_VERSION_CLAIM = {GridProfile.WLCG: "wlcg.ver", GridProfile.SCITOKENS: "ver"}
_VERSIONS = {GridProfile.WLCG: re.compile(r"1\.\d{1,3}"), GridProfile.SCITOKENS: re.compile(r"scitoken:2\.\d{1,3}")}
_LONGEST_SUBJECT = 255
_LATEST = 250_000_000_000  # seconds since 1970: what a date can hold


@dataclass(frozen=True, slots=True)
class GridIssuerSettings:
    """One issuer as the operator trusts it; see `TokenIssuer` for the last three."""

    name: str
    issuer: str
    profile: GridProfile
    audiences: frozenset[str]
    any_audience: bool = True
    places: GridPlaces = field(default_factory=GridPlaces)
    subjects: Mapping[str, UUID] = field(default_factory=dict)
    service_id: UUID | None = None


class GridIssuer:
    """Safe to share between threads."""

    def __init__(
        self, settings: GridIssuerSettings, clock: Clock, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.issuer = settings.issuer
        self.profile = settings.profile
        self.places = settings.places
        self.subjects = settings.subjects
        self.service_id = settings.service_id
        self._label = settings.name
        self._audiences = settings.audiences | ({_ANY_AUDIENCE[settings.profile]} if settings.any_audience else set())
        self._clock = clock
        self._published = Issuer(settings.issuer, settings.name, transport)

    def check(self) -> str:
        """Ask for what the issuer publishes, and for its keys; raises ProviderUnavailableError."""
        self._published.check()
        return "its keys are known"

    def read_token(self, token: str) -> GridToken:
        """What a token says that this issuer made for us; raises GridTokenRefusedError, ProviderUnavailableError."""
        try:
            claims = self._published.decode(token)
            wanted: dict[str, Any] = {  # Any: as the library takes it
                "iss": {"essential": True, "value": self.issuer},
                "exp": {"essential": True},
                "sub": {"essential": True},
            }
            now = int(self._clock.now().timestamp())
            jwt.JWTClaimsRegistry(now=now, leeway=LEEWAY, **wanted).validate(claims)
            ends = datetime.fromtimestamp(max(0, min(claims["exp"], _LATEST)), UTC)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise GridTokenRefusedError(f"The token is not valid ({name_of(error)}).") from None
        self._require_audience(claims.get("aud"))
        version = claims.get(_VERSION_CLAIM[self.profile])
        if not isinstance(version, str) or not _VERSIONS[self.profile].fullmatch(version):
            raise GridTokenRefusedError(f"The token is of no version of the profile {self.profile.value} that we know.")
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT or not subject.isprintable():
            raise GridTokenRefusedError("The token names nobody.")
        return GridToken(
            issuer=self.issuer,
            subject=subject,
            groups=_read_groups(claims.get("wlcg.groups")),
            scope=_read_scope(claims.get("scope")),
            expires_at=ends,
        )

    def _require_audience(self, told: object) -> None:
        texts = [told] if isinstance(told, str) else told if isinstance(told, list) else []
        named = {one for one in texts if isinstance(one, str)}
        if named.isdisjoint(self._audiences):
            raise GridTokenRefusedError("The token was made for another service.")


def _read_scope(told: object) -> str:
    if told is None:
        return ""
    if not isinstance(told, str):
        raise GridTokenRefusedError("The scopes of the token are no text.")
    return told


def _read_groups(told: object) -> frozenset[str]:
    return frozenset(one for one in told if isinstance(one, str)) if isinstance(told, list) else frozenset()
