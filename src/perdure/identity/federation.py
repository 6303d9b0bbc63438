"""Logging in where one is known: at an institution's provider, by browser, device or token.

What has to be remembered between two steps is not kept here but sealed and handed to who comes back with it: a `state`
bound to the browser that began, or a `ticket`.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from uuid import UUID

from perdure.identity.errors import LoginNotConfirmedError, NoSuchProviderError, ProviderUnavailableError
from perdure.identity.model import Arrival, CredentialKind, Origin
from perdure.identity.ports import DeviceLogin, EndedThere, Provider
from perdure.identity.tickets import TICKET_LASTS, Tickets
from perdure.kernel.clock import Clock, format_time, parse_time

_STATE_LASTS = timedelta(minutes=15)
_CLOCKS_DIFFER = timedelta(minutes=1)
_LONGEST_KEPT = 3500  # characters: browsers keep cookies of 4 KiB
_STATE = "login state"
_DEVICE = "device login"
_ARRIVAL = "arrival"
_LEAVING = "logout state"


@dataclass(frozen=True, slots=True)
class ProviderCard:
    """One way to log in, as people choose it."""

    name: str
    label: str
    kind: CredentialKind


@dataclass(frozen=True, slots=True)
class BegunLogin:
    """Where to send a browser; `kept` is what it has to keep and bring back itself, where the provider does not."""

    address: str
    kept: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Returned:
    """Who came back from a provider, where he wanted to go, and to which identity he wanted to link this login.

    `proves` is whose session the login is to confirm anew.
    """

    arrival: Arrival
    return_to: str
    link_to: UUID | None
    proves: UUID | None = None


class Federation:
    """The configured providers. Nothing here opens a session: that is for `Arrivals`.

    `use_once` tells whether it is the first use of a text that is good until then.
    """

    def __init__(
        self,
        clock: Clock,
        tickets: Tickets,
        providers: Sequence[Provider],
        use_once: Callable[[str, datetime], bool],
    ) -> None:
        self._clock = clock
        self._tickets = tickets
        self._use_once = use_once
        self._providers = {provider.name: provider for provider in providers}

    def list_providers(self) -> list[ProviderCard]:
        """The ways to log in beside a local password, in the operator's order; for everybody."""
        return [ProviderCard(one.name, one.label, one.kind) for one in self._providers.values()]

    def begin_login(
        self,
        provider: str,
        *,
        redirect_uri: str,
        return_to: str,
        browser: str,
        link_to: UUID | None = None,
        proves: UUID | None = None,
    ) -> BegunLogin:
        """Where at the provider to send a browser to; `browser` is a secret that only this browser has.

        `return_to` is a path of ours: anything else becomes the front page. Who `proves` who he is has to log in there
        anew, whatever session he has.
        """
        found = self._require(provider)
        nonce, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
        kept = {
            "provider": provider,
            "redirect_uri": redirect_uri,
            "return_to": check_return(return_to),
            "browser": _digest(browser),
            "nonce": nonce,
            "verifier": verifier,
            "link_to": None if link_to is None else str(link_to),
            "proves": None if proves is None else str(proves),
            "begun_at": format_time(self._clock.now()),
        }
        state = self._tickets.seal(kept, _STATE, _STATE_LASTS)
        if not found.hands_back_state and len(state) > _LONGEST_KEPT:
            state = self._tickets.seal({**kept, "return_to": "/"}, _STATE, _STATE_LASTS)
        address = found.authorization_url(
            redirect_uri=redirect_uri, state=state, nonce=nonce, verifier=verifier, anew=proves is not None
        )
        return BegunLogin(address, None if found.hands_back_state else state)

    def finish_login(
        self, *, provider: str, state: str, code: str, browser: str, issuer: str | None = None
    ) -> Returned:
        """Who came back; raises LoginNotConfirmedError, also when another browser began the login, or it ended already.

        `issuer` is who says that he sends him back (RFC 9207), where that is said.
        """
        kept = self._tickets.open(state, _STATE)
        if kept["provider"] != provider or not hmac.compare_digest(kept["browser"], _digest(browser)):
            raise LoginNotConfirmedError("This login was begun elsewhere.")
        arrival = self._require(provider).redeem(
            code, redirect_uri=kept["redirect_uri"], nonce=kept["nonce"], verifier=kept["verifier"]
        )
        if issuer and issuer != arrival.issuer:
            raise LoginNotConfirmedError("Another provider than the one that was asked sent you back.")
        proves = kept.get("proves")
        if proves and not _is_after(arrival.proven_at, parse_time(kept["begun_at"])):
            raise LoginNotConfirmedError("The provider does not say that you logged in there anew.")
        if not self._use_once(f"login {kept['nonce']}", self._clock.now() + _STATE_LASTS):
            raise LoginNotConfirmedError("This answer was used already.")
        return Returned(
            arrival, kept["return_to"], kept["link_to"] and UUID(kept["link_to"]), UUID(proves) if proves else None
        )

    def describe_us(self, provider: str, *, redirect_uri: str) -> str:
        """What the provider has to know of us, for one that reads it; for everybody. Raises NoSuchProviderError."""
        return self._require(provider).describe(redirect_uri)

    def begin_device(self, provider: str) -> tuple[DeviceLogin, str]:
        """Begin a login for a program without a browser; returns what to show, and a ticket to ask with."""
        begun = self._require(provider).begin_device()
        kept = {"provider": provider, "device_code": begun.device_code}
        return begun, self._tickets.seal(kept, _DEVICE, timedelta(seconds=begun.expires_in))

    def poll_device(self, ticket: str) -> Arrival | None:
        """Who confirmed the login of this ticket; None while nobody has."""
        kept = self._tickets.open(ticket, _DEVICE)
        return self._require(kept["provider"]).redeem_device(kept["device_code"])

    def accept_token(self, provider: str, token: str) -> Arrival:
        """Whose token of this provider a machine brings; raises LoginNotConfirmedError."""
        return replace(self._require(provider).accept_token(token), proven_at=None)  # a machine is not the person

    def begin_logout(self, provider: str, *, redirect_uri: str, browser: str) -> str | None:
        """Where a browser, whose session here has ended, ends that at the provider; None where that is not offered.

        It comes back to `redirect_uri` with a state; `browser` is a secret that only this browser has.
        """
        kept = {"provider": provider, "browser": _digest(browser)}
        state = self._tickets.seal(kept, _LEAVING, _STATE_LASTS)
        return self.find_logout(provider, redirect_uri=redirect_uri, state=state)

    def find_logout(self, provider: str, *, redirect_uri: str | None = None, state: str | None = None) -> str | None:
        """The same address for who has another browser; None also while the provider does not answer."""
        found = self._providers.get(provider)
        try:
            return None if found is None else found.logout_url(redirect_uri=redirect_uri, state=state)
        except ProviderUnavailableError:
            return None

    def finish_logout(self, provider: str, *, state: str, browser: str) -> ProviderCard:
        """The provider where a browser logged out that comes back; raises BadSealError, LoginNotConfirmedError."""
        kept = self._tickets.open(state, _LEAVING)
        if kept["provider"] != provider or not hmac.compare_digest(kept["browser"], _digest(browser)):
            raise LoginNotConfirmedError("This was begun elsewhere.")
        found = self._require(provider)
        return ProviderCard(found.name, found.label, found.kind)

    def read_logout(self, provider: str, token: str) -> EndedThere:
        """What a provider says has ended there; raises LogoutRefusedError, NoSuchProviderError."""
        return self._require(provider).read_logout(token)

    def seal_arrival(self, arrival: Arrival) -> str:
        """A ticket that carries who somebody was shown to be, for half an hour; the one that he came by, if any."""
        if arrival.ticket is not None:
            return arrival.ticket.text
        proven_at = None if arrival.proven_at is None else format_time(arrival.proven_at)
        kept = {**asdict(arrival), "entitlements": sorted(arrival.entitlements), "proofs": sorted(arrival.proofs)}
        kept |= {"proven_at": proven_at}
        del kept["ticket"]
        return self._tickets.seal(kept, _ARRIVAL, TICKET_LASTS)

    def open_arrival(self, ticket: str) -> Arrival:
        """Who the ticket is about; raises BadSealError. What is done by it redeems it."""
        opened, kept = self._tickets.open_ticket(ticket, _ARRIVAL)
        proven_at = kept.get("proven_at")
        kept |= {"kind": CredentialKind(kept["kind"]), "proven_at": proven_at and parse_time(proven_at)}
        kept |= {"ticket": opened, "origin": Origin(**kept["origin"]) if kept.get("origin") else None}
        return Arrival(**{**kept, "entitlements": frozenset(kept["entitlements"]), "proofs": frozenset(kept["proofs"])})

    def _require(self, provider: str) -> Provider:
        found = self._providers.get(provider)
        if found is None:
            raise NoSuchProviderError("There is no such way to log in here.")
        return found


def check_return(path: str) -> str:
    """A path of ours; the front page in place of anything that could lead elsewhere."""
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() and "\\" not in path
    return path if is_ours and len(path) <= 2000 else "/"


def _is_after(proven_at: datetime | None, begun_at: datetime) -> bool:
    return proven_at is not None and proven_at >= begun_at - _CLOCKS_DIFFER


def _digest(browser: str) -> str:
    return sha256(browser.encode("utf-8", "surrogatepass")).hexdigest()
