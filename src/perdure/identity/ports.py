"""What this domain needs of the world outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from perdure.identity.grid_scopes import GridPlaces, GridProfile
from perdure.identity.model import Arrival, CredentialKind, Letter


class Sealer(Protocol):
    """Keeps secrets that we must read again: nobody opens them who has the database and not the key beside it."""

    def seal(self, data: bytes, purpose: str) -> str:
        """Text that only `open` with the same purpose turns back."""
        ...

    def open(self, sealed: str, purpose: str) -> bytes:
        """What was sealed; raises BadSealError for anything that was not, or for another purpose."""
        ...


@dataclass(frozen=True, slots=True)
class DeviceLogin:
    """A login that somebody confirms elsewhere: what to show him, and how often and long to ask, in seconds."""

    device_code: str = field(repr=False)
    user_code: str
    verification_uri: str
    complete_uri: str
    interval: int
    expires_in: int


@dataclass(frozen=True, slots=True)
class NewPasskey:
    """A key as the device that made it tells."""

    credential_id: bytes
    public_key: bytes
    sign_count: int
    is_synced: bool


class PasskeyReader(Protocol):
    """Knows the words that browsers and keys speak. `origin` is our address; one that keys cannot be bound to raises
    PasskeysUnavailableError. What is not to be believed raises PasskeyRefusedError."""

    def creation_options(
        self, origin: str, *, site: str, person: bytes, name: str, challenge: bytes, known: Sequence[bytes]
    ) -> Mapping[str, Any]:  # Any: JSON
        """What a browser makes a key by."""
        ...

    def request_options(self, origin: str, *, challenge: bytes) -> Mapping[str, Any]:  # Any: JSON
        """What a browser has a key sign by."""
        ...

    def read_registration(self, origin: str, answer: Mapping[str, Any], *, challenge: bytes) -> NewPasskey:  # Any: JSON
        """The key that was made."""
        ...

    def read_identifier(self, answer: Mapping[str, Any]) -> tuple[bytes, bytes | None]:  # Any: JSON
        """Which key the answer is said to come from, and of whom."""
        ...

    def read_assertion(
        self, origin: str, answer: Mapping[str, Any], *, challenge: bytes, public_key: bytes, sign_count: int
    ) -> int:  # Any: JSON
        """The new count of the key that verified its user and signed the challenge; it has grown, if the key counts."""
        ...


class Directory(Protocol):
    """An institution's list of people that takes their passwords. Raises ProviderUnavailableError."""

    name: str
    label: str
    kind: CredentialKind

    def find_person(self, login: str, password: str) -> Arrival | None:
        """Who has this login and this password; None, after the same time, whatever of them is wrong."""
        ...


@dataclass(frozen=True, slots=True)
class GridToken:
    """What a token of the grid says, once it is believed; `scope` is its scopes as they stand there."""

    issuer: str
    subject: str
    groups: frozenset[str]
    scope: str
    expires_at: datetime


class TokenIssuer(Protocol):
    """Makes tokens whose scopes say what may be done below which path.

    `places` is where the paths lead, `subjects` are identities of subjects, and `service_id` is the service account in
    whose name those come whom nobody is linked to (None: they are refused).
    """

    issuer: str
    profile: GridProfile
    places: GridPlaces
    subjects: Mapping[str, UUID]
    service_id: UUID | None

    def read_token(self, token: str) -> GridToken:
        """What a token says that this issuer made for us; raises GridTokenRefusedError, ProviderUnavailableError."""
        ...


@dataclass(frozen=True, slots=True)
class EndedThere:
    """A session at a provider, or without one all of a person's there; `id` is that of the token that says so."""

    id: str
    subject: str | None
    session: str | None


class Provider(Protocol):
    """An institution that says who people are. Raises LoginNotConfirmedError and ProviderUnavailableError, and
    NoSuchProviderError for what its kind cannot do.

    `hands_back_state`: whoever comes back brings the state of his login; else his browser keeps it.
    """

    name: str
    label: str
    kind: CredentialKind
    hands_back_state: bool

    def authorization_url(self, *, redirect_uri: str, state: str, nonce: str, verifier: str, anew: bool = False) -> str:
        """Where somebody logs in with his browser; `anew` whatever session he has there."""
        ...

    def redeem(self, code: str, *, redirect_uri: str, nonce: str, verifier: str) -> Arrival:
        """Who came back with a code."""
        ...

    def describe(self, redirect_uri: str) -> str:
        """What the institution has to know of us, for one that reads it: XML."""
        ...

    def begin_device(self) -> DeviceLogin:
        """Begin a login that is confirmed in a browser elsewhere."""
        ...

    def redeem_device(self, device_code: str) -> Arrival | None:
        """Who confirmed it; None while nobody has."""
        ...

    def accept_token(self, token: str) -> Arrival:
        """Whose token a machine brings."""
        ...

    def logout_url(self, *, redirect_uri: str | None = None, state: str | None = None) -> str | None:
        """Where a browser ends its session there, and is sent back from; None where that is not offered."""
        ...

    def read_logout(self, token: str) -> EndedThere:
        """What has ended there, as a logout token says; raises LogoutRefusedError."""
        ...


class Mailer(Protocol):
    """Hands mail to a server. Raises MailRefusedError for what it will never take, MailUnavailableError else."""

    def deliver(self, letter: Letter, mail_id: UUID) -> None:
        """Hand it over; of the same `mail_id` sent twice a reader can tell that it is the same mail."""
        ...

    def check(self) -> None:
        """Connect and log in, and send nothing."""
        ...
