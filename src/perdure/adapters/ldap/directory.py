"""A directory whose people log in with the name and the password that they have there.

The password is sent to the directory, over TLS, and is nowhere else: not kept, not logged, in no error. Either a
service account (or nobody) looks for the person, or the name there follows from the login; then the person binds.
"""

from __future__ import annotations

import secrets
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import structlog

from perdure.adapters.ldap.connection import (
    BASE,
    INVALID_CREDENTIALS,
    NO_SUCH_OBJECT,
    REFERRAL,
    SIZE_LIMIT_EXCEEDED,
    SUBTREE,
    Connection,
    Entry,
    RefusedError,
    Server,
    ServerError,
)
from perdure.adapters.ldap.filters import parse_filter
from perdure.adapters.ldap.names import PLACE, fill_name, fold_name
from perdure.identity.errors import LoginNotConfirmedError, ProviderUnavailableError
from perdure.identity.model import Arrival, CredentialKind
from perdure.identity.names import check_orcid, directory_issuer, issuer_proof
from perdure.kernel.errors import BadInputError

log = structlog.get_logger(__name__)

_PORTS = {"ldap": 389, "ldaps": 636}
_MOST_AT_ONCE = 8  # logins at one directory; each holds a thread, which other requests need
_WAIT_FOR_PLACE = 2.0  # seconds
_CHECK_WITHIN = 10.0  # seconds, for a look at one server
_LEFT_ALONE = 10.0  # seconds after a server did not answer
_REFUSED_AFTER = 0.5  # seconds; a refusal comes at a multiple, so that its time tells nothing of who is there
_MOST_GROUPS = 2000
_LONGEST_TEXT = 255
_LONGEST_NAME = 1000
_LONGEST_LOGIN = 256
_LONGEST_PASSWORD = 1024
_DN = "dn"
_BINARY_UUID = "objectguid"
# What a server answers to a bind that it understood and does not accept: no right password, no password at all, no such
# entry, a name of no form, a locked or expired account
_NOT_ACCEPTED = frozenset({INVALID_CREDENTIALS, 48, NO_SUCH_OBJECT, 34, 19, 50, 53})
_ANYTHING = parse_filter("(objectClass=*)", frozenset())
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class LdapSettings:
    """One directory. Either `user_dn` is a name with `{login}` in it, or people are looked for below `user_base`."""

    name: str
    label: str
    servers: tuple[str, ...]
    ca_file: Path | None = None
    allow_plain: bool = False
    bind_dn: str = ""
    bind_password: str | None = field(default=None, repr=False)
    user_dn: str = ""
    user_base: str = ""
    user_filter: str = "(uid={login})"
    subject_attribute: str = "entryUUID"
    name_attributes: tuple[str, ...] = ("displayName", "cn")
    email_attribute: str = "mail"
    orcid_attribute: str = ""
    group_attribute: str = "memberOf"
    group_base: str = ""
    group_filter: str = "(&(objectClass=groupOfNames)(member={dn}))"
    seconds: float = 5.0


class LdapDirectory:
    """Safe to share between threads; a connection lasts as long as one login."""

    kind = CredentialKind.LDAP

    def __init__(self, settings: LdapSettings) -> None:
        """Raises ValueError and OSError, which say what of the settings cannot be used."""
        if settings.user_dn and (PLACE not in settings.user_dn or "=" not in settings.user_dn):
            raise ValueError("user_dn is a distinguished name with {login} in it")
        self.name, self.label = settings.name, settings.label
        self._settings = settings
        self.servers = [_server(one, allow_plain=settings.allow_plain) for one in settings.servers]
        self._tls = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
        self._user_filter = parse_filter(settings.user_filter, frozenset({"login"}))
        self._group_filter = parse_filter(settings.group_filter, frozenset({"login", "dn"}))
        self._places = threading.BoundedSemaphore(_MOST_AT_ONCE)
        self._silent_until: dict[Server, float] = {}

    def find_person(self, login: str, password: str) -> Arrival | None:
        """Who has this login and this password there; None for a wrong one and for nobody, after the same time.

        Raises ProviderUnavailableError when no server answers, and LoginNotConfirmedError for an entry that does not
        say who it is.
        """
        began = time.monotonic()
        is_askable = _is_text(login, _LONGEST_LOGIN) and _is_text(password, _LONGEST_PASSWORD)
        found = self._ask(lambda server: self._look_at(server, login, password)) if is_askable else None
        if found is None:
            time.sleep(_REFUSED_AFTER - (time.monotonic() - began) % _REFUSED_AFTER)
        return found

    def check(self, server: Server) -> str:
        """Connect to one server, become the service account and look at it; raises ProviderUnavailableError."""
        seconds = min(self._settings.seconds, _CHECK_WITHIN)
        try:
            with Connection(server, self._tls, seconds=seconds) as service:
                if self._settings.user_dn:
                    return "it can be reached; people bind by themselves"
                self._bind_service(service)
                try:
                    service.search(self._settings.user_base, BASE, _ANYTHING({}), ("1.1",), most=1)
                except RefusedError as error:
                    raise ServerError(f"it does not let us look at user_base ({error})", is_awake=True) from None
        except ServerError as error:
            raise ProviderUnavailableError(f"{error}") from None
        return f"it lets us in as {self._settings.bind_dn or 'nobody'}"

    # Which server is asked

    def _ask(self, question: Callable[[Server], _T]) -> _T:
        if not self._places.acquire(timeout=_WAIT_FOR_PLACE):
            raise ProviderUnavailableError(f"Too many log in at {self.label} at this moment.")
        try:
            for server in self._find_awake():
                try:
                    answer = question(server)
                except ServerError as error:
                    if not error.is_awake:
                        self._silent_until[server] = time.monotonic() + _LEFT_ALONE
                    log.warning("directory_server_failed", provider=self.name, server=str(server), reason=str(error))
                else:
                    self._silent_until.pop(server, None)
                    return answer
        finally:
            self._places.release()
        raise ProviderUnavailableError(f"{self.label} does not answer.")

    def _find_awake(self) -> list[Server]:
        now = time.monotonic()
        return [one for one in self.servers if self._silent_until.get(one, now) <= now]

    # What it is asked

    def _look_at(self, server: Server, login: str, password: str) -> Arrival | None:
        if self._settings.user_dn:
            return self._arrive_by_name(server, login, password)
        with self._connect(server) as service:
            self._bind_service(service)
            entry = self._find_entry(service, login)
            # Whether somebody was found or not, a password is tried
            is_right = self._is_right(server, entry.name if entry else self._nobody(), password)
            if entry is None or not is_right:
                return None
            return self._arrival(entry, self._find_groups(service, entry, login))

    def _arrive_by_name(self, server: Server, login: str, password: str) -> Arrival | None:
        name = fill_name(self._settings.user_dn, login)
        with self._connect(server) as person:
            if not _bind(person, name, password):
                return None
            found = _refused_is_none(lambda: person.search(name, BASE, _ANYTHING({}), self._wanted(), most=1))
            if not found:
                raise LoginNotConfirmedError(f"{self.label} does not let you read your own entry.")
            return self._arrival(found[0], self._find_groups(person, found[0], login))

    def _connect(self, server: Server) -> Connection:
        return Connection(server, self._tls, seconds=self._settings.seconds)

    def _bind_service(self, service: Connection) -> None:
        try:
            service.bind(self._settings.bind_dn, self._settings.bind_password or "")
        except RefusedError as error:
            raise ServerError(f"it does not let us in ({error})") from None

    def _is_right(self, server: Server, name: str, password: str) -> bool:
        with self._connect(server) as person:
            return _bind(person, name, password)

    def _find_entry(self, service: Connection, login: str) -> Entry | None:
        wanted = self._user_filter({"login": login.encode()})
        try:
            found = service.search(self._settings.user_base, SUBTREE, wanted, self._wanted(), most=1)
        except RefusedError as error:
            if error.code != SIZE_LIMIT_EXCEEDED:
                raise _not_searchable(error) from None
            log.warning("directory_login_is_ambiguous", provider=self.name)
            return None
        return found[0] if found else None

    def _find_groups(self, connection: Connection, entry: Entry, login: str) -> frozenset[str]:
        """The names of the groups, as the entry tells them and as a search finds them."""
        told = entry.attributes.get(self._settings.group_attribute.lower(), ())
        names = [text for text in map(_text, told) if text]
        if self._settings.group_base:
            values = {"dn": entry.name.encode(), "login": login.encode()}
            wanted = self._group_filter(values)
            try:
                found = connection.search(self._settings.group_base, SUBTREE, wanted, ("1.1",), most=_MOST_GROUPS)
            except RefusedError as error:
                raise _not_searchable(error) from None
            names += [one.name for one in found]
        return frozenset(name for name in map(fold_name, names) if name and len(name) <= _LONGEST_NAME)

    def _nobody(self) -> str:
        """A name that nobody has."""
        return f"cn={secrets.token_hex(16)},{self._settings.user_base}"

    # What is made of the answer

    def _arrival(self, entry: Entry, groups: frozenset[str]) -> Arrival:
        issuer = directory_issuer(self.name)
        return Arrival(
            kind=self.kind,
            subject=f"{self.name} {self._subject(entry)}",
            display_name=self._first(entry, self._settings.name_attributes),
            email=self._first(entry, (self._settings.email_attribute,)) or None,
            orcid=_orcid(self._first(entry, (self._settings.orcid_attribute,))),
            issuer=issuer,
            entitlements=groups,
            proofs=frozenset({self.kind.value, issuer_proof(issuer)}),
        )

    def _subject(self, entry: Entry) -> str:
        wanted = self._settings.subject_attribute
        if wanted.lower() == _DN and len(entry.name) <= _LONGEST_NAME:
            return fold_name(entry.name)
        values = entry.attributes.get(wanted.lower(), ())
        if len(values) == 1:
            value = values[0]
            if wanted.lower() == _BINARY_UUID and len(value) == 16:
                return str(UUID(bytes_le=bytes(value)))
            subject = _text(value)
            # Never what is left of a value: two people may have that in common, as of binary ones
            if subject.strip() and subject.encode() == value and len(subject) <= _LONGEST_NAME:
                return subject.strip()
        raise LoginNotConfirmedError(f"{self.label} does not tell one {wanted} of you.")

    def _first(self, entry: Entry, attributes: Iterable[str]) -> str:
        for attribute in attributes:
            for value in entry.attributes.get(attribute.lower(), ()):
                if text := _text(value)[:_LONGEST_TEXT]:
                    return text
        return ""

    def _wanted(self) -> list[str]:
        settings = self._settings
        single = (settings.subject_attribute, settings.email_attribute, settings.orcid_attribute)
        named = [*settings.name_attributes, *single, settings.group_attribute]
        return [one for one in dict.fromkeys(named) if one and one.lower() != _DN] or ["1.1"]


def _server(address: str, *, allow_plain: bool) -> Server:
    parts = urlsplit(address)
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise ValueError(f"a server is ldaps://HOST or ldap://HOST, not {address!r}")
    is_tls = parts.scheme == "ldaps"
    port = parts.port or _PORTS[parts.scheme]
    return Server(parts.hostname, port, is_tls=is_tls, starts_tls=not is_tls and not allow_plain)


def _bind(connection: Connection, name: str, password: str) -> bool:
    """Whether the server takes the password; raises ServerError for an answer that is about something else."""
    try:
        connection.bind(name, password)
    except RefusedError as error:
        if error.code in _NOT_ACCEPTED:
            return False
        raise _not_searchable(error) from None
    return True


def _refused_is_none(ask: Callable[[], list[Entry]]) -> list[Entry] | None:
    with suppress(RefusedError):
        return ask()
    return None


def _not_searchable(error: RefusedError) -> ServerError:
    told = "it sends us to another server" if error.code == REFERRAL else f"it refuses what was asked ({error})"
    return ServerError(told, is_awake=True)


def _is_text(text: str, longest: int) -> bool:
    """Whether a server can be asked about it: an empty password would be taken for none, and let in."""
    return 0 < len(text) <= longest and "\0" not in text and not any("\ud800" <= one <= "\udfff" for one in text)


def _text(value: bytes) -> str:
    """The value as people read it, in one line; empty for what is no text."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return "".join(one for one in text if one.isprintable())


def _orcid(text: str) -> str | None:
    try:
        return check_orcid(text) if text else None
    except BadInputError:
        return None
