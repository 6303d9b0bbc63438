"""Who may do what: roles, actions, things, and the rules between them (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Literal
from uuid import UUID

from perdure.kernel.actor import Actor, ActorKind, LinkScope, PathAct, PathScope, TokenScope

MIN_PASSWORD_CHARACTERS = 12
MAX_PASSWORD_CHARACTERS = 1024  # beyond it somebody wants us to work, not to log in


class Role(StrEnum):
    """What a grant gives. Each holds what those before it do, but for the curator, who reads no content."""

    CURATOR = "curator"
    READER = "reader"
    CONTRIBUTOR = "contributor"
    MANAGER = "manager"
    OWNER = "owner"


class Action(StrEnum):
    """What a use case asks `require` for."""

    SEE = "see"  # that it exists, record, metadata, events
    READ = "read"  # listing and bytes
    VERIFY = "verify"  # have every copy read and compared
    FILL = "fill"  # add, replace, remove content while open
    DESCRIBE = "describe"  # record and metadata, also after closing
    CLOSE = "close"
    APPEND = "append"
    MANAGE = "manage"  # grants, profile, lifetime, discard
    WITHDRAW = "withdraw"
    OPEN_ARCHIVE = "open_archive"
    READ_ACCOUNT = "read_account"
    MANAGE_ACCOUNT = "manage_account"
    MANAGE_ORGANISATION = "manage_organisation"
    ADMINISTER = "administer"


class AccessClass(StrEnum):
    PRIVATE = "private"
    EMBARGOED = "embargoed"
    PUBLIC = "public"


class Verb(StrEnum):
    """What a token's scope is made of. No verb contains another: a token that may only write cannot read back."""

    READ = "read"
    WRITE = "write"
    MANAGE = "manage"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ArchiveThing:
    """An archive as far as rights depend on it; the day of `embargo_until` (UTC) is the first public one.

    `path` is what of its content is asked for: a file or folder, `b""` for all of it, None for what no path narrows.
    `may_replace`: what is at the path may be replaced or removed. Only links and scopes of paths look at these two.
    """

    id: UUID
    account_id: UUID
    organisation_id: UUID
    access: AccessClass
    embargo_until: date | None
    is_closed: bool
    path: bytes | None = None
    may_replace: bool = False


@dataclass(frozen=True, slots=True)
class AccountThing:
    id: UUID
    organisation_id: UUID


@dataclass(frozen=True, slots=True)
class OrganisationThing:
    id: UUID


@dataclass(frozen=True, slots=True)
class InstanceThing:
    """The installation as a whole."""


GrantedThing = ArchiveThing | AccountThing | OrganisationThing
Thing = GrantedThing | InstanceThing
OnKind = Literal["archive", "account", "organisation"]


@dataclass(frozen=True, slots=True, order=True)
class Held:
    """A role, and on what kind of thing it was granted."""

    on_kind: OnKind
    role: Role


@dataclass(frozen=True, slots=True)
class Organisation:
    """What owns people and accounts; `quota_bytes` is told to those who manage it (None: no limit, or not told)."""

    id: UUID
    name: str
    ror: str | None = None
    quota_bytes: int | None = None


class IdentityState(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"
    MERGED = "merged"  # there in history only, an alias of another
    ERASED = "erased"  # there in history only, under a pseudonym


@dataclass(frozen=True, slots=True)
class IdentityCard:
    """One person or service as others of the instance see it; `merged_into` is whose alias it is."""

    id: UUID
    organisation_id: UUID
    kind: ActorKind
    display_name: str
    orcid: str | None
    is_active: bool
    is_administrator: bool | None  # None: not for the asking actor to know
    merged_into: UUID | None = None
    is_erased: bool = False


@dataclass(frozen=True, slots=True)
class Client:
    """Where a login comes from, as its owner sees it in the list of sessions."""

    address: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """An open session; `proofs` say by what the person showed who he is, `proven_at` when he last did.

    `provider` is where it began, if it ends with a session there.
    """

    id: UUID
    client: Client
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime
    proofs: frozenset[str]
    proven_at: datetime | None = None
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """One way in, without its secret."""

    id: UUID
    kind: CredentialKind
    subject: str
    created_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Login:
    """One way in of somebody, as those who manage his organisation see it.

    `kind` is one of credentials, or `passkey`; `subject` is a login name, a distinguished name, an ORCID iD, or the
    institution that knows him: not what it calls him.
    """

    kind: str
    subject: str
    created_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Terms:
    """One version of the terms of use."""

    version: int
    text: str
    published_at: datetime


@dataclass(frozen=True, slots=True)
class ClaimRule:
    """Who logs in from the issuer with the entitlement is in the group; `*` at its end stands for any ending.

    The rule holds from `starts_at` until `ends_at`, without them always.
    """

    id: UUID
    group_id: UUID
    issuer: str
    entitlement: str
    starts_at: datetime | None = None
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Passkey:
    """A key on a device of somebody; a synced one is on others of his devices, too."""

    id: UUID
    name: str
    is_synced: bool
    created_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Ticket:
    """What an interrupted login goes on with, once; `id` is what is kept of it when it was redeemed."""

    id: str
    text: str = field(repr=False)
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Origin:
    """At which provider a login began, as whom there, and in which session of the provider's (empty: it told none)."""

    provider: str
    subject: str
    session: str = ""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Somebody who was shown to be who he is, by a credential that may or may not be known here.

    `issuer` is who says so; `entitlements` are what it says of him, `proofs` how. `proven_at` is when he did something
    himself to show it (None: nobody can tell; a session at an institution may be hours old). `ticket` is what it came
    by, when it was interrupted; `origin` is for a provider that tells when he logs out there.
    """

    kind: CredentialKind
    subject: str
    display_name: str = ""
    email: str | None = None
    orcid: str | None = None
    issuer: str = ""
    entitlements: frozenset[str] = frozenset()
    proofs: frozenset[str] = frozenset()
    proven_at: datetime | None = None
    ticket: Ticket | None = None
    origin: Origin | None = None

    def called(self, display_name: str) -> Arrival:
        return replace(self, display_name=display_name)


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail in plain text; `kind` is what sort it is, for logs and events."""

    kind: str
    to: str
    subject: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """One's own e-mail address; None `confirmed_at`: somebody said so, and no mail has proven it."""

    address: str
    confirmed_at: datetime | None


class ApplicationState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Application:
    """Somebody who asks to be let in; what he said of himself is forgotten when he is refused."""

    id: UUID
    kind: CredentialKind
    subject: str
    display_name: str
    email: str | None
    orcid: str | None
    organisation_id: UUID | None
    reason: str
    state: ApplicationState
    applied_at: datetime
    decided_at: datetime | None
    note: str | None
    identity_id: UUID | None


@dataclass(frozen=True, slots=True)
class Token:
    """An API token without its secret; `prefix` is what its owner recognises it by."""

    id: UUID
    name: str
    prefix: str
    scope: TokenScope
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None
    last_used_from: str = ""
    replaces: UUID | None = None  # of a service account: the token that it takes over from


class ServiceState(StrEnum):
    ACTIVE = "active"
    ORPHANED = "orphaned"  # who is responsible is disabled: no credential of it works
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A machine: who answers for it, what its tokens may do at most (`scope`), and from where they may come.

    Without `addresses` they may come from anywhere. `ends_at` is the end of the token that lives longest.
    """

    id: UUID
    organisation_id: UUID
    name: str
    purpose: str
    responsible_id: UUID
    responsible_name: str
    scope: TokenScope
    addresses: tuple[str, ...]
    state: ServiceState
    created_at: datetime
    account_id: UUID
    last_used_at: datetime | None = None
    last_used_from: str = ""
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """The space that owns archives; `role` is the asking actor's on it, None where nobody asked or he has none."""

    id: UUID
    organisation_id: UUID
    kind: str
    name: str
    owner_id: UUID
    quota_bytes: int | None  # None: no limit
    allowed_profiles: frozenset[str] | None  # None: all that are offered
    role: Role | None = None
    quota_files: int | None = None  # None: no limit

    @property
    def thing(self) -> AccountThing:
        return AccountThing(self.id, self.organisation_id)


@dataclass(frozen=True, slots=True)
class Limits:
    """What an account may hold, and its organisation in all; None is no limit."""

    organisation_id: UUID
    bytes: int | None
    files: int | None
    organisation_bytes: int | None


class RequestState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class QuotaRequest:
    """A wish for another quota: `asked_bytes` was asked for, `given_bytes` is what was given (None: nothing yet)."""

    id: UUID
    account_id: UUID
    asked_bytes: int
    reason: str
    state: RequestState
    asked_by: UUID | None
    asked_at: datetime
    given_bytes: int | None
    decided_by: UUID | None
    decided_at: datetime | None
    note: str


@dataclass(frozen=True, slots=True)
class Reportable:
    """What somebody may have reported: all accounts, or those of the organisations that he manages."""

    organisation_ids: frozenset[UUID] | None  # None: all

    def holds(self, organisation_id: UUID) -> bool:
        return self.organisation_ids is None or organisation_id in self.organisation_ids


class CredentialKind(StrEnum):
    """By what somebody is known. All but the last two name a person from outside, and nobody has one with another."""

    PASSWORD = "password"  # noqa: S105  # a kind, no password
    OIDC = "oidc"  # issuer and subject, a blank between them
    SAML = "saml"  # entity of the institution and identifier of the person there, a blank between them
    X509 = "x509"  # the distinguished name, as RFC 4514 writes it
    ORCID = "orcid"
    LDAP = "ldap"  # name of the directory and of the person in it, a blank between them
    TOTP = "totp"
    RECOVERY = "recovery"


ENTITLEMENT = "entitlement"
PASSKEY = "passkey"
SECOND_FACTOR = "second_factor"
_FROM_OUTSIDE = (
    CredentialKind.OIDC,
    CredentialKind.SAML,
    CredentialKind.X509,
    CredentialKind.ORCID,
    CredentialKind.LDAP,
)
NAMEABLE = frozenset({*(kind.value for kind in _FROM_OUTSIDE), ENTITLEMENT})
WAYS = frozenset({CredentialKind.PASSWORD.value, *(kind.value for kind in _FROM_OUTSIDE)})


@dataclass(frozen=True, slots=True)
class Grantee:
    """Whom a grant names: exactly one of them. `named` is a credential or entitlement, whether anybody has it or not.

    It is a kind and a subject with a blank between them, such as `x509 CN=Ada,O=Example`; see `names.check_named`.
    """

    identity_id: UUID | None = None
    group_id: UUID | None = None
    named: str | None = None

    def __post_init__(self) -> None:
        if sum(one is not None for one in (self.identity_id, self.group_id, self.named)) != 1:
            raise ValueError("a grant names an identity, a group or a credential")


@dataclass(frozen=True, slots=True)
class Grant:
    """A role for somebody on something; it counts for logins whose proofs hold all that it `requires`."""

    id: UUID
    on_kind: OnKind
    on_id: UUID
    to: Grantee
    role: Role
    granted_by: UUID | None
    granted_at: datetime
    expires_at: datetime | None
    requires: frozenset[str] = frozenset()
    pass_on: PassOnLimit | None = None  # None: as far as the role itself allows


class Through(StrEnum):
    """By what somebody reaches an archive."""

    ARCHIVE = "archive"  # a grant on it
    ACCOUNT = "account"  # a grant on the account that it belongs to
    ORGANISATION = "organisation"  # a grant on the organisation of that account
    ACCESS_CLASS = "access_class"  # it is public, or its embargo is over
    ADMINISTRATOR = "administrator"


@dataclass(frozen=True, slots=True)
class Member:
    id: UUID
    name: str


@dataclass(frozen=True, slots=True)
class Reach:
    """One way into an archive: whom it lets in (`to` None: everybody, or all administrators), as what, and why.

    `role` is None for administrators, who have powers of their own. `members` are those of a group, or the
    administrators: the first of them, where the asking actor may know them.
    """

    through: Through
    to: Grantee | None
    name: str | None
    role: Role | None
    actions: frozenset[Action]
    grant: Grant | None = None
    member_count: int = 0
    members: tuple[Member, ...] = ()


@dataclass(frozen=True, slots=True)
class Membership:
    """Somebody's place in a group, from `starts_at` until `ends_at` where they are set; `source` is `local` or `claim`.

    It counts between these moments, without anybody doing anything then.
    """

    identity_id: UUID
    is_manager: bool
    source: str
    starts_at: datetime | None = None
    ends_at: datetime | None = None

    def holds_at(self, now: datetime) -> bool:
        return (self.starts_at is None or self.starts_at <= now) and (self.ends_at is None or self.ends_at > now)


@dataclass(frozen=True, slots=True)
class Group:
    """`members` and `managers` are those of this moment, `memberships` also those to come and those that ended."""

    id: UUID
    organisation_id: UUID
    name: str
    members: frozenset[UUID] = field(default_factory=frozenset)
    managers: frozenset[UUID] = field(default_factory=frozenset)
    memberships: tuple[Membership, ...] = ()


Interval = tuple[datetime | None, datetime | None]  # from, until; None: without a beginning or an end


def find_interval(intervals: Iterable[Interval], now: datetime) -> Interval | None:
    """When one is in by any of these: the time that is now, or else the next to come; None when all are over."""
    earliest, latest = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    joined: list[tuple[datetime, datetime]] = []
    for start, end in sorted((start or earliest, end or latest) for start, end in intervals):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    found = next(((start, end) for start, end in joined if end > now), None)
    return found and (None if found[0] == earliest else found[0], None if found[1] == latest else found[1])


class PassOn(StrEnum):
    """To whom the bearer of a role may give roles by it. What he gives under a limit, nobody passes on."""

    NOBODY = "nobody"
    ORGANISATION = "organisation"  # its people and groups
    GROUP = "group"  # the group itself and its members


@dataclass(frozen=True, slots=True)
class PassOnLimit:
    """A limit with the organisation or group that it names."""

    to: PassOn
    id: UUID | None = None

    def __post_init__(self) -> None:
        if (self.to is PassOn.NOBODY) != (self.id is None):
            raise ValueError("a limit names an organisation or a group, or nobody")


@dataclass(frozen=True, slots=True)
class Source:
    """A role by which somebody gives roles: how long it lasts, what it demands, and to whom it may be passed on."""

    held: Held
    ends_at: datetime | None
    requires: frozenset[str]
    limit: PassOnLimit | None


_CURATOR = frozenset({Action.SEE, Action.DESCRIBE})
_READER = frozenset({Action.SEE, Action.READ})
_CONTRIBUTOR = _READER | {Action.VERIFY, Action.FILL, Action.DESCRIBE, Action.CLOSE, Action.APPEND}
_MANAGER = _CONTRIBUTOR | {Action.MANAGE}

# What a role on an archive, or on the account that has it, lets its bearer do with the archive.
ROLE_ACTIONS: Mapping[Role, frozenset[Action]] = {
    Role.CURATOR: _CURATOR,
    Role.READER: _READER,
    Role.CONTRIBUTOR: _CONTRIBUTOR,
    Role.MANAGER: _MANAGER,
    Role.OWNER: _MANAGER | {Action.WITHDRAW},
}

ACCOUNT_ROLE_ACTIONS: Mapping[Role, frozenset[Action]] = {
    Role.CURATOR: frozenset({Action.READ_ACCOUNT}),
    Role.READER: frozenset({Action.READ_ACCOUNT}),
    Role.CONTRIBUTOR: frozenset({Action.READ_ACCOUNT, Action.OPEN_ARCHIVE}),
    Role.MANAGER: frozenset({Action.READ_ACCOUNT, Action.OPEN_ARCHIVE, Action.MANAGE_ACCOUNT}),
    Role.OWNER: frozenset({Action.READ_ACCOUNT, Action.OPEN_ARCHIVE, Action.MANAGE_ACCOUNT}),
}

# What a role on an organisation lets its bearer do with its archives, its accounts, and itself. Its managers read no
# content: who needs to gives himself a role on the archive, which the event log then shows.
ORGANISATION_ROLE_ACTIONS: Mapping[Role, frozenset[Action]] = {
    Role.CURATOR: _CURATOR,
    Role.MANAGER: frozenset(
        {Action.SEE, Action.MANAGE, Action.READ_ACCOUNT, Action.MANAGE_ACCOUNT, Action.MANAGE_ORGANISATION}
    ),
}

# What an administrator may do without any role. Filling, closing and withdrawing are not in it: he gives himself the
# role first, which the event log then shows.
ADMINISTRATOR_ACTIONS: frozenset[Action] = frozenset(
    {
        Action.SEE,
        Action.READ,
        Action.MANAGE,
        Action.READ_ACCOUNT,
        Action.MANAGE_ACCOUNT,
        Action.MANAGE_ORGANISATION,
        Action.ADMINISTER,
    }
)

VERB_ACTIONS: Mapping[Verb, frozenset[Action]] = {
    Verb.READ: frozenset({Action.SEE, Action.READ, Action.READ_ACCOUNT}),
    Verb.WRITE: frozenset(
        {Action.VERIFY, Action.FILL, Action.DESCRIBE, Action.CLOSE, Action.APPEND, Action.OPEN_ARCHIVE}
    ),
    Verb.MANAGE: frozenset({Action.MANAGE, Action.WITHDRAW, Action.MANAGE_ACCOUNT, Action.MANAGE_ORGANISATION}),
    Verb.ADMIN: frozenset({Action.ADMINISTER}),
}

ALL_ACTIONS: frozenset[Action] = frozenset(Action)

# What everybody may do with a closed archive that is public.
PUBLIC_ACTIONS = _READER


def actions_on(thing: Thing) -> frozenset[Action]:
    """The actions that have a meaning for this kind of thing."""
    if isinstance(thing, ArchiveThing):
        return ROLE_ACTIONS[Role.OWNER]
    if isinstance(thing, AccountThing):
        return ACCOUNT_ROLE_ACTIONS[Role.OWNER]
    if isinstance(thing, OrganisationThing):
        return frozenset({Action.MANAGE_ORGANISATION})
    return frozenset({Action.ADMINISTER})


def kind_of(thing: GrantedThing) -> OnKind:
    """The word for this kind of thing, as grants have it."""
    if isinstance(thing, ArchiveThing):
        return "archive"
    return "account" if isinstance(thing, AccountThing) else "organisation"


def places_of(thing: GrantedThing) -> tuple[UUID, ...]:
    """On what a grant must be to count for the thing: itself, and whatever it belongs to."""
    if isinstance(thing, ArchiveThing):
        return thing.id, thing.account_id, thing.organisation_id
    return (thing.id, thing.organisation_id) if isinstance(thing, AccountThing) else (thing.id,)


def roles_on(kind: OnKind) -> tuple[Role, ...]:
    """The roles that can be granted on this kind of thing, the weakest first."""
    return tuple(ORGANISATION_ROLE_ACTIONS if kind == "organisation" else ROLE_ACTIONS)


def actions_held(held: Iterable[Held], thing: Thing) -> frozenset[Action]:
    """What these roles let their bearer do with the thing; they add up."""
    found: frozenset[Action] = frozenset()
    for one in held:
        found |= _table_of(one.on_kind, thing).get(one.role, frozenset())
    return found & actions_on(thing)


def _table_of(on_kind: OnKind, thing: Thing) -> Mapping[Role, frozenset[Action]]:
    if on_kind == "organisation":
        return ORGANISATION_ROLE_ACTIONS
    return ROLE_ACTIONS if isinstance(thing, ArchiveThing) else ACCOUNT_ROLE_ACTIONS


def is_readable_by_all(access: AccessClass, embargo_until: date | None, *, is_closed: bool, today: date) -> bool:
    """Whether everybody, anonymous callers too, may read an archive of this access class."""
    if not is_closed:
        return False
    if access is AccessClass.EMBARGOED:
        return embargo_until is not None and embargo_until <= today
    return access is AccessClass.PUBLIC


def has_administrator_powers(actor: Actor) -> bool:
    """An administrator with a token has his powers only when the token says `admin`."""
    return actor.is_administrator and (actor.scope.verbs is None or Verb.ADMIN in actor.scope.verbs)


def scope_actions(scope: TokenScope, thing: Thing) -> frozenset[Action]:
    """What a credential of this scope can be used for at most, whoever bears it."""
    if scope.archives is not None and not (isinstance(thing, ArchiveThing) and thing.id in scope.archives):
        return frozenset()
    if scope.verbs is None:
        return ALL_ACTIONS
    return frozenset().union(*(VERB_ACTIONS[Verb(verb)] for verb in scope.verbs))


def link_actions(link: LinkScope | None, thing: Thing) -> frozenset[Action]:
    """What a link lets its bearer do with the thing: with its own archive, as far as that lies inside it."""
    if link is None or not isinstance(thing, ArchiveThing) or thing.id != link.archive_id:
        return frozenset()
    path = None if thing.may_replace else thing.path  # a link adds: it replaces nothing of others
    return frozenset(map(Action, link.actions)) if link.reaches(path) else frozenset()


_PATH_ACTIONS: Mapping[PathAct, frozenset[Action]] = {
    PathAct.STAT: frozenset(),  # see `as_prober`
    PathAct.READ: frozenset({Action.READ}),
    PathAct.ADD: frozenset({Action.FILL}),
    PathAct.CHANGE: frozenset({Action.FILL}),
}


def path_actions(paths: Iterable[PathScope] | None, thing: Thing) -> frozenset[Action]:
    """What scopes of paths leave of the rights of who came with them: reading and filling at and below their paths."""
    if paths is None:
        return ALL_ACTIONS
    if not isinstance(thing, ArchiveThing):
        return frozenset()
    found: frozenset[Action] = frozenset()
    for one in paths:
        if one.covers(thing.id, thing.path) and not (thing.may_replace and one.act is PathAct.ADD):
            found |= _PATH_ACTIONS[one.act]
    return found


def sees_all_of(actor: Actor, archive_id: UUID) -> bool:
    """Whether neither a link nor scopes of paths narrow what the actor sees of an archive's content."""
    if actor.link is not None and actor.link.is_narrowed:
        return False
    return actor.paths is None or any(one.act is PathAct.READ and one.covers(archive_id, b"") for one in actor.paths)


def as_prober(actor: Actor) -> Actor:
    """The same, about to ask only for size, time and digests of a file: whatever scope reaches its path is enough."""
    if actor.paths is None:
        return actor
    return replace(actor, paths=tuple(replace(one, act=PathAct.READ) for one in actor.paths))


def may_replace_at(paths: Iterable[PathScope] | None, archive_id: UUID, path: bytes) -> bool:
    """Whether who came with these scopes may replace what is at the path, and not add only."""
    return paths is None or any(one.act is PathAct.CHANGE and one.covers(archive_id, path) for one in paths)


def allowed_actions(actor: Actor, thing: Thing, held: Iterable[Held], *, today: date) -> frozenset[Action]:
    """Everything the actor may do with the thing, given the roles that grants give him there."""
    if actor.kind is ActorKind.SYSTEM:
        return actions_on(thing)
    if actor.kind is ActorKind.LINK:
        return link_actions(actor.link, thing)
    allowed = actions_held(held, thing)
    if isinstance(thing, ArchiveThing) and is_readable_by_all(
        thing.access, thing.embargo_until, is_closed=thing.is_closed, today=today
    ):
        allowed |= PUBLIC_ACTIONS
    if has_administrator_powers(actor):
        allowed |= ADMINISTRATOR_ACTIONS & actions_on(thing)
    return allowed & scope_actions(actor.scope, thing) & path_actions(actor.paths, thing)


def strongest(roles: Iterable[Role]) -> Role | None:
    """The role that holds the most, None of none."""
    order = list(Role)
    return max(roles, key=order.index, default=None)


def weakest_role_for(action: Action, thing: Thing) -> Role | None:
    """The role that a refused actor has to ask for; None where no role gives the action."""
    if isinstance(thing, InstanceThing):
        return None
    kind = kind_of(thing)
    return next((role for role in roles_on(kind) if action in _table_of(kind, thing)[role]), None)


def is_role_grantable(held: Iterable[Held], role: Role, *, is_administrator: bool) -> bool:
    """Nobody gives more than he has, but for administrators and, inside it, the managers of an organisation.

    Whether he may grant at all is asked by `manage_action`.
    """
    own = list(held)
    if is_administrator or Held("organisation", Role.MANAGER) in own:
        return True
    # By what they give on archives, on an account as well: only there does an owner's role differ from a manager's.
    power = (ROLE_ACTIONS[one.role] for one in own if one.on_kind != "organisation")
    return ROLE_ACTIONS[role] <= frozenset[Action]().union(*power)


def find_sources(sources: Iterable[Source], role: Role) -> list[Source]:
    """Those by which this role may be given at all: a manager's or an owner's that holds as much."""
    found = []
    for one in sources:
        if one.held == Held("organisation", Role.MANAGER):
            found.append(one)
        elif one.held.on_kind != "organisation" and Action.MANAGE in ROLE_ACTIONS[one.held.role]:
            found += [one] if ROLE_ACTIONS[role] <= ROLE_ACTIONS[one.held.role] else []
    return found


def lasts_as_long(source: Source, expires_at: datetime | None) -> bool:
    """Whether what ends then lies within the time of this role."""
    return source.ends_at is None or (expires_at is not None and expires_at <= source.ends_at)


def manage_action(thing: GrantedThing) -> Action:
    """What a caller needs who gives and takes roles on the thing."""
    if isinstance(thing, ArchiveThing):
        return Action.MANAGE
    return Action.MANAGE_ACCOUNT if isinstance(thing, AccountThing) else Action.MANAGE_ORGANISATION


def is_scope_within(inner: TokenScope, outer: TokenScope) -> bool:
    """Whether a token of the inner scope can do nothing that the outer one cannot."""
    verbs = outer.verbs is None or (inner.verbs is not None and inner.verbs <= outer.verbs)
    return verbs and (outer.archives is None or (inner.archives is not None and inner.archives <= outer.archives))


def narrow_scope(scope: TokenScope, limit: TokenScope) -> TokenScope:
    """What is left of a scope inside a limit, with the scope's own end."""
    verbs = limit.verbs if scope.verbs is None else scope.verbs if limit.verbs is None else scope.verbs & limit.verbs
    archives = limit.archives if scope.archives is None else scope.archives
    if scope.archives is not None and limit.archives is not None:
        archives = scope.archives & limit.archives
    return replace(scope, verbs=verbs, archives=archives)


def is_address_within(address: str, networks: Iterable[str]) -> bool:
    """Whether an address lies in one of these networks; an IPv4 address that came as an IPv6 one is the same."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in ip_network(network) for network in networks)


@dataclass(frozen=True, slots=True)
class Backoff:
    """So many failures are free, then each doubles the wait, up to a longest one; after `forget` all is forgiven."""

    free: int
    longest: timedelta
    forget: timedelta

    def wait_until(self, failures: int, last_at: datetime) -> datetime:
        """The first moment at which another attempt is heard."""
        if failures < self.free:
            return last_at
        doublings = min(failures - self.free, 20)
        return last_at + min(timedelta(seconds=2**doublings), self.longest)


# From one address to one login name; a minute at most, so that a guesser who shares the address of his victim (an
# institute behind one gateway) leaves him a turn.
CLIENT_BACKOFF = Backoff(free=10, longest=timedelta(minutes=1), forget=timedelta(hours=1))
# From all unknown addresses together to one login name. Addresses that have had a session are not counted here:
# whoever fails on purpose from elsewhere cannot keep the owner out.
LOGIN_BACKOFF = Backoff(free=100, longest=timedelta(seconds=30), forget=timedelta(hours=1))


def fold_name(name: str) -> str:
    """The form in which names are compared."""
    return name.strip().casefold()


def find_password_problem(password: str, login: str) -> str | None:
    """Why this password is too weak for this login name, in words, or None."""
    if len(password) < MIN_PASSWORD_CHARACTERS:
        return f"it has {len(password)} characters; {MIN_PASSWORD_CHARACTERS} are needed"
    if len(password) > MAX_PASSWORD_CHARACTERS:
        return f"it has more than {MAX_PASSWORD_CHARACTERS} characters"
    folded = password.casefold()
    if folded == fold_name(login) or (len(login) >= 4 and folded.replace(fold_name(login), "") == ""):
        return "it is the login name"
    if len(set(folded)) < 5:
        return "it repeats the same few characters"
    return None
