"""Providers of OpenID Connect: discovery, code with PKCE, device flow, and tokens that machines bring.

What a provider says is believed only when it is signed by a key of its own, for us, now, and in answer to our question.
Nothing is asked of any address but those that the configured issuer itself names, and no redirect is followed.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.errors import JoseError

from perdure.adapters.oidc.issuer import LEEWAY, Issuer, name_of
from perdure.identity.errors import (
    LoginNotConfirmedError,
    LogoutRefusedError,
    NoSuchProviderError,
    ProviderUnavailableError,
)
from perdure.identity.model import SECOND_FACTOR, Arrival, CredentialKind, Origin
from perdure.identity.names import check_orcid, issuer_proof
from perdure.identity.ports import DeviceLogin, EndedThere
from perdure.kernel.clock import Clock
from perdure.kernel.errors import BadInputError

_LONGEST_DEVICE_LOGIN = 3600
_SLOWEST_POLL = 60
_MOST_CLAIM_CHARACTERS = 255
_SECOND_FACTORS = frozenset({"otp", "hwk", "swk", "fpt", "face", "pop", "sms"})  # RFC 8176, beside a password
_FACTOR_CONTEXTS = ("refeds.org/profile/mfa", "/mfa", "possessionorinherence")
_ORCID = "https://orcid.org"
_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_LOGOUT_TYPES = ("logout+jwt", "application/logout+jwt", "jwt")  # not every provider names the type of its own
_LOGOUT_LASTS = 600  # seconds after it was made, whatever it says itself: so long its use is remembered


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """One provider, as the operator registered us there."""

    name: str
    label: str
    issuer: str
    client_id: str
    client_secret: str | None
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    entitlement_claims: tuple[str, ...] = ("eduperson_entitlement", "entitlements", "groups")
    audience: str | None = None  # of tokens that machines bring; the client id without
    single_logout: bool = True  # who logs out here is sent there, too


class OidcProvider:
    """Safe to share between threads."""

    hands_back_state = True

    def __init__(self, settings: OidcSettings, clock: Clock, transport: httpx.BaseTransport | None = None) -> None:
        self.name, self.label = settings.name, settings.label
        self.kind = CredentialKind.ORCID if settings.issuer == _ORCID else CredentialKind.OIDC
        self._settings = settings
        self._clock = clock
        self._issuer = Issuer(settings.issuer, settings.label, transport)

    # What a browser is sent to, and what it brings back

    def authorization_url(self, *, redirect_uri: str, state: str, nonce: str, verifier: str, anew: bool = False) -> str:
        """Where somebody logs in; he comes back to `redirect_uri` with a code and the state.

        `anew` asks that he does so whatever session he has there: the token then says when he did (`auth_time`,
        OpenID Connect Core section 3.1.2.1).
        """
        challenge = base64.urlsafe_b64encode(sha256(verifier.encode()).digest()).decode().rstrip("=")
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self._settings.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **({"prompt": "login", "max_age": "0"} if anew else {}),
        }
        return _with_query(self._issuer.endpoint("authorization_endpoint"), asked)

    def redeem(self, code: str, *, redirect_uri: str, nonce: str, verifier: str) -> Arrival:
        """Who came back with this code; raises LoginNotConfirmedError."""
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
        answer = self._ask_token({**form, "code_verifier": verifier})
        return self._arrival(answer, nonce=nonce)

    def describe(self, redirect_uri: str) -> str:
        raise NoSuchProviderError(f"{self.label} is told of us by hand.")

    # A device without a browser

    def begin_device(self) -> DeviceLogin:
        """Begin a login that somebody confirms in a browser elsewhere (RFC 8628)."""
        address = self._issuer.endpoint("device_authorization_endpoint")
        answer = self._post(address, {"scope": " ".join(self._settings.scopes)})
        try:
            return DeviceLogin(
                device_code=str(answer["device_code"]),
                user_code=str(answer["user_code"]),
                verification_uri=_web_address(str(answer["verification_uri"])),
                complete_uri=_web_address(str(answer.get("verification_uri_complete") or answer["verification_uri"])),
                interval=min(max(1, int(answer.get("interval", 5))), _SLOWEST_POLL),
                expires_in=min(max(1, int(answer["expires_in"])), _LONGEST_DEVICE_LOGIN),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise ProviderUnavailableError(f"{self.label} answered without {error}.") from None

    def redeem_device(self, device_code: str) -> Arrival | None:
        """Who confirmed the login; None while nobody has. Raises LoginNotConfirmedError when it was refused."""
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": device_code}
        answer = self._ask_token(form, pending=("authorization_pending", "slow_down"))
        if answer is None:
            return None
        # Whoever confirmed it read a code just now, which is an act of his
        return replace(self._arrival(answer, nonce=None), proven_at=self._clock.now())

    # A machine that has a token

    def accept_token(self, token: str) -> Arrival:
        """Whose JWT this is, made by the provider for us (the subject token of RFC 8693)."""
        audience = self._settings.audience or self._settings.client_id
        return self._to_arrival(self._validate(token, audience=audience, nonce=None))

    # Logging out there

    def logout_url(self, *, redirect_uri: str | None = None, state: str | None = None) -> str | None:
        """Where a browser ends its session there (OpenID Connect RP-Initiated Logout 1.0); None: not offered.

        We are named by `client_id`: an `id_token_hint` would have to be kept with every session, stand in the browser's
        history and the provider's log, and open a session here wherever it was found.
        """
        if not self._settings.single_logout or "end_session_endpoint" not in self._issuer.find_metadata():
            return None
        asked = {"client_id": self._settings.client_id}
        if redirect_uri is not None and state is not None:
            asked |= {"post_logout_redirect_uri": redirect_uri, "state": state}
        return _with_query(self._issuer.endpoint("end_session_endpoint"), asked)

    def read_logout(self, token: str) -> EndedThere:
        """What has ended there, as a logout token says (OpenID Connect Back-Channel Logout 1.0, section 2.6)."""
        try:
            whole = self._issuer.decode_whole(token)
            claims = dict(whole.claims)
            wanted: dict[str, Any] = {  # Any: as the library takes it
                "iss": {"essential": True, "value": self._settings.issuer},
                "aud": {"essential": True, "value": self._settings.client_id},
                "iat": {"essential": True},
                "exp": {"essential": True},
                "jti": {"essential": True},
            }
            now = int(self._clock.now().timestamp())
            jwt.JWTClaimsRegistry(now=now, leeway=LEEWAY, **wanted).validate(claims)
            is_old = claims["iat"] < now - _LOGOUT_LASTS - LEEWAY
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise LogoutRefusedError(f"The token is not valid ({name_of(error)}).") from None
        if is_old:
            raise LogoutRefusedError("The token was made too long ago.")
        if str(whole.header.get("typ") or _LOGOUT_TYPES[0]).lower() not in _LOGOUT_TYPES:
            raise LogoutRefusedError("The token is of another type.")
        events = claims.get("events")
        if not isinstance(events, dict) or not isinstance(events.get(_LOGOUT_EVENT), dict):
            raise LogoutRefusedError("The token does not say that somebody logged out.")
        if "nonce" in claims:
            raise LogoutRefusedError("The token has a nonce, as one of a login has.")
        subject, session = (_identifier(claims, name) for name in ("sub", "sid"))
        if subject is None and session is None:
            raise LogoutRefusedError("The token says neither who logged out nor in which session.")
        return EndedThere(_identifier(claims, "jti") or "", subject, session)

    def check(self) -> str:
        """What the provider publishes about logging out, in words; raises ProviderUnavailableError."""
        self._issuer.check()
        published = self._issuer.find_metadata()
        ways = {
            "ends sessions there": "end_session_endpoint" in published,
            "tells of ended ones": published.get("backchannel_logout_supported") is True,
        }
        return " and ".join(way for way, is_offered in ways.items() if is_offered) or "offers no single log-out"

    # How it is believed

    def _arrival(self, answer: Mapping[str, Any] | None, *, nonce: str | None) -> Arrival:  # Any: see above
        token = (answer or {}).get("id_token")
        if not isinstance(token, str):
            raise LoginNotConfirmedError(f"{self.label} sent no identity token.")
        claims = self._validate(token, audience=self._settings.client_id, nonce=nonce)
        return self._to_arrival({**self._ask_user(answer or {}, claims), **claims})

    def _validate(self, token: str, *, audience: str, nonce: str | None) -> dict[str, Any]:  # Any: claims
        try:
            claims = self._issuer.decode(token)
            wanted: dict[str, Any] = {  # Any: as the library takes it
                "iss": {"essential": True, "value": self._settings.issuer},
                "aud": {"essential": True, "value": audience},
                "exp": {"essential": True},
                "sub": {"essential": True},
            }
            now = int(self._clock.now().timestamp())
            jwt.JWTClaimsRegistry(now=now, leeway=LEEWAY, **wanted).validate(claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise LoginNotConfirmedError(f"The token of {self.label} is not valid ({name_of(error)}).") from None
        if "events" in claims:  # a logout token has all else that an identity token has
            raise LoginNotConfirmedError(f"The token of {self.label} is none of a login.")
        audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        if len(audiences) > 1 and claims.get("azp") not in (None, self._settings.client_id):
            raise LoginNotConfirmedError(f"The token of {self.label} was made for somebody else.")
        if nonce is not None and claims.get("nonce") != nonce:
            raise LoginNotConfirmedError(f"The token of {self.label} is no answer to this login.")
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= _MOST_CLAIM_CHARACTERS or not subject.isprintable():
            raise LoginNotConfirmedError(f"The token of {self.label} names nobody.")
        return claims

    def _to_arrival(self, claims: Mapping[str, Any]) -> Arrival:  # Any: claims
        issuer, subject = self._settings.issuer, str(claims["sub"])
        proofs = {self.kind.value, issuer_proof(issuer)}
        if _has_factor(claims):
            proofs.add(SECOND_FACTOR)
        return Arrival(
            kind=self.kind,
            subject=check_orcid(subject) if self.kind is CredentialKind.ORCID else f"{issuer} {subject}",
            display_name=_text(claims.get("name") or claims.get("preferred_username")),
            email=_text(claims.get("email")) or None,
            orcid=_orcid(claims),
            issuer=issuer,
            entitlements=self._entitlements(claims),
            proofs=frozenset(proofs),
            proven_at=self._moment_of(claims.get("auth_time")),
            origin=Origin(self.name, subject, _session_of(claims)),
        )

    def _moment_of(self, auth_time: object) -> datetime | None:
        """When he logged in there, never in our future; None where the provider does not say it."""
        if not isinstance(auth_time, int | float) or isinstance(auth_time, bool):
            return None
        now = self._clock.now()
        return min(datetime.fromtimestamp(auth_time, UTC), now) if 0 < auth_time < 1 << 40 else None

    def _entitlements(self, claims: Mapping[str, Any]) -> frozenset[str]:  # Any: claims
        found: set[str] = set()
        for name in self._settings.entitlement_claims:
            value = claims.get(name)
            texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
            found |= {one for one in texts if isinstance(one, str) and one.isprintable() and " " not in one and one}
        return frozenset(found)

    # Asking

    def _ask_user(self, answer: Mapping[str, Any], claims: Mapping[str, Any]) -> Mapping[str, Any]:  # Any: JSON
        """What else the provider says of him; nothing when it says it of another, or not at all."""
        address, token = self._issuer.find_metadata().get("userinfo_endpoint"), answer.get("access_token")
        if not isinstance(address, str) or not isinstance(token, str):
            return {}
        try:
            found = self._issuer.read_json(
                self._issuer.send("GET", self._issuer.allowed(address), headers={"authorization": f"Bearer {token}"})
            )
        except ProviderUnavailableError:
            return {}
        return found if found.get("sub") == claims["sub"] else {}

    def _ask_token(
        self, form: Mapping[str, str], *, pending: tuple[str, ...] = ()
    ) -> Mapping[str, Any] | None:  # Any: JSON
        response = self._send_form(self._issuer.endpoint("token_endpoint"), form)
        answer = self._issuer.read_json(response, may_refuse=True)
        error = answer.get("error")
        if error in pending:
            return None
        if error or response.status_code != httpx.codes.OK:
            raise LoginNotConfirmedError(f"{self.label} did not confirm the login ({_text(error) or 'no reason'}).")
        return answer

    def _post(self, address: str, form: Mapping[str, str]) -> Mapping[str, Any]:  # Any: JSON
        return self._issuer.read_json(self._send_form(address, form))

    def _send_form(self, address: str, form: Mapping[str, str]) -> httpx.Response:
        secret = self._settings.client_secret
        methods = self._issuer.find_metadata().get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if secret is not None and "client_secret_basic" in methods:
            pair = urlencode({self._settings.client_id: secret}).replace("=", ":", 1)  # RFC 6749 section 2.3.1
            basic = base64.b64encode(pair.encode()).decode()
            return self._issuer.send("POST", address, data=form, headers={"authorization": f"Basic {basic}"})
        own = {"client_id": self._settings.client_id, **({"client_secret": secret} if secret is not None else {})}
        return self._issuer.send("POST", address, data={**form, **own})


def _with_query(address: str, asked: Mapping[str, str]) -> str:
    return f"{address}{'&' if urlsplit(address).query else '?'}{urlencode(asked)}"


def _identifier(claims: Mapping[str, Any], name: str) -> str | None:  # Any: claims
    """The claim, None without it; raises LogoutRefusedError for what names nothing."""
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_CLAIM_CHARACTERS or not value.isprintable():
        raise LogoutRefusedError(f"The {name} of the token names nothing.")
    return value


def _has_factor(claims: Mapping[str, Any]) -> bool:  # Any: claims
    methods = claims.get("amr")
    named = {str(one).lower() for one in methods} if isinstance(methods, list) else set()
    context = str(claims.get("acr") or "").lower()
    is_double = "mfa" in named or ("pwd" in named and len(named & _SECOND_FACTORS) > 0)
    return is_double or any(context.endswith(one) for one in _FACTOR_CONTEXTS)


def _session_of(claims: Mapping[str, Any]) -> str:  # Any: claims
    """The session there, empty where none is told."""
    value = claims.get("sid")
    return value if isinstance(value, str) and len(value) <= _MOST_CLAIM_CHARACTERS else ""


def _orcid(claims: Mapping[str, Any]) -> str | None:  # Any: claims
    try:
        return check_orcid(str(claims["orcid"])) if claims.get("orcid") else None
    except BadInputError:
        return None


def _text(value: object) -> str:
    """What is shown to people: short, in one line."""
    text = value if isinstance(value, str) else ""
    return "".join(one for one in text if one.isprintable())[:_MOST_CLAIM_CHARACTERS]


def _web_address(text: str) -> str:
    """An address that a person may be sent to."""
    if urlsplit(text).scheme not in ("https", "http"):
        raise ValueError("an address for people")
    return text
