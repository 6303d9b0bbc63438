"""Who may do what: roles, actions, things, and the rules between them (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Literal
from uuid import UUID

from perdure.kernel.actor import Actor, ActorKind, TokenScope

MIN_PASSWORD_CHARACTERS = 12
MAX_PASSWORD_CHARACTERS = 1024  # beyond it somebody wants us to work, not to log in


class Role(StrEnum):
    """What a grant gives, weakest first."""

    READER = "reader"
    CONTRIBUTOR = "contributor"
    MANAGER = "manager"
    OWNER = "owner"

    @property
    def rank(self) -> int:
        return _RANKS[self]


_RANKS = {role: rank for rank, role in enumerate(Role)}


class Action(StrEnum):
    """What a use case asks `require` for."""

    READ = "read"  # record, listing, bytes, metadata
    FILL = "fill"  # add, replace, remove content while open
    DESCRIBE = "describe"  # record and metadata, also after closing
    CLOSE = "close"
    APPEND = "append"
    MANAGE = "manage"  # grants, profile, lifetime, discard
    WITHDRAW = "withdraw"
    OPEN_ARCHIVE = "open_archive"
    READ_ACCOUNT = "read_account"
    MANAGE_ACCOUNT = "manage_account"
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
    """An archive as far as rights depend on it; the day of `embargo_until` (UTC) is the first public one."""

    id: UUID
    account_id: UUID
    organisation_id: UUID
    access: AccessClass
    embargo_until: date | None
    is_closed: bool


@dataclass(frozen=True, slots=True)
class AccountThing:
    id: UUID
    organisation_id: UUID


@dataclass(frozen=True, slots=True)
class InstanceThing:
    """The installation as a whole."""


Thing = ArchiveThing | AccountThing | InstanceThing
OnKind = Literal["archive", "account"]


@dataclass(frozen=True, slots=True)
class Organisation:
    id: UUID
    name: str
    ror: str | None = None


@dataclass(frozen=True, slots=True)
class IdentityCard:
    """One person or service as others of the instance see it."""

    id: UUID
    organisation_id: UUID
    kind: ActorKind
    display_name: str
    orcid: str | None
    is_active: bool
    is_administrator: bool | None  # None: not for the asking actor to know


@dataclass(frozen=True, slots=True)
class Client:
    """Where a login comes from, as its owner sees it in the list of sessions."""

    address: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    id: UUID
    client: Client
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime


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


@dataclass(frozen=True, slots=True)
class Account:
    """The space that owns archives; `role` is the asking actor's, None where nobody asked for it."""

    id: UUID
    organisation_id: UUID
    kind: str
    name: str
    owner_id: UUID
    quota_bytes: int | None  # None: no limit
    allowed_profiles: frozenset[str] | None  # None: all that are offered
    role: Role | None = None

    @property
    def thing(self) -> AccountThing:
        return AccountThing(self.id, self.organisation_id)


@dataclass(frozen=True, slots=True)
class Grantee:
    """Whom a grant names: exactly one of the two."""

    identity_id: UUID | None = None
    group_id: UUID | None = None

    def __post_init__(self) -> None:
        if (self.identity_id is None) == (self.group_id is None):
            raise ValueError("a grant names an identity or a group")


@dataclass(frozen=True, slots=True)
class Grant:
    id: UUID
    on_kind: OnKind
    on_id: UUID
    to: Grantee
    role: Role
    granted_by: UUID | None
    granted_at: datetime
    expires_at: datetime | None


class Through(StrEnum):
    """By what somebody reaches an archive."""

    ARCHIVE = "archive"  # a grant on it
    ACCOUNT = "account"  # a grant on the account that it belongs to
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
class Group:
    id: UUID
    organisation_id: UUID
    name: str
    members: frozenset[UUID] = field(default_factory=frozenset)
    managers: frozenset[UUID] = field(default_factory=frozenset)


ROLE_ACTIONS: Mapping[Role, frozenset[Action]] = {
    Role.READER: frozenset({Action.READ}),
    Role.CONTRIBUTOR: frozenset({Action.READ, Action.FILL, Action.DESCRIBE, Action.CLOSE, Action.APPEND}),
    Role.MANAGER: frozenset({Action.READ, Action.FILL, Action.DESCRIBE, Action.CLOSE, Action.APPEND, Action.MANAGE}),
    Role.OWNER: frozenset(
        {Action.READ, Action.FILL, Action.DESCRIBE, Action.CLOSE, Action.APPEND, Action.MANAGE, Action.WITHDRAW}
    ),
}

ACCOUNT_ROLE_ACTIONS: Mapping[Role, frozenset[Action]] = {
    Role.READER: frozenset({Action.READ_ACCOUNT}),
    Role.CONTRIBUTOR: frozenset({Action.READ_ACCOUNT, Action.OPEN_ARCHIVE}),
    Role.MANAGER: frozenset({Action.READ_ACCOUNT, Action.OPEN_ARCHIVE, Action.MANAGE_ACCOUNT}),
    Role.OWNER: frozenset({Action.READ_ACCOUNT, Action.OPEN_ARCHIVE, Action.MANAGE_ACCOUNT}),
}

# What an administrator may do without any role. Filling, closing and withdrawing are not in it: he gives himself the
# role first, which the event log then shows.
ADMINISTRATOR_ACTIONS: frozenset[Action] = frozenset(
    {Action.READ, Action.MANAGE, Action.READ_ACCOUNT, Action.MANAGE_ACCOUNT, Action.ADMINISTER}
)

VERB_ACTIONS: Mapping[Verb, frozenset[Action]] = {
    Verb.READ: frozenset({Action.READ, Action.READ_ACCOUNT}),
    Verb.WRITE: frozenset({Action.FILL, Action.DESCRIBE, Action.CLOSE, Action.APPEND, Action.OPEN_ARCHIVE}),
    Verb.MANAGE: frozenset({Action.MANAGE, Action.WITHDRAW, Action.MANAGE_ACCOUNT}),
    Verb.ADMIN: frozenset({Action.ADMINISTER}),
}

ALL_ACTIONS: frozenset[Action] = frozenset(Action)


def actions_on(thing: Thing) -> frozenset[Action]:
    """The actions that have a meaning for this kind of thing."""
    if isinstance(thing, ArchiveThing):
        return ROLE_ACTIONS[Role.OWNER]
    if isinstance(thing, AccountThing):
        return ACCOUNT_ROLE_ACTIONS[Role.OWNER]
    return frozenset({Action.ADMINISTER})


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


def allowed_actions(actor: Actor, thing: Thing, role: Role | None, *, today: date) -> frozenset[Action]:
    """Everything the actor may do with the thing, given the strongest role that grants give him there."""
    if actor.kind is ActorKind.SYSTEM:
        return actions_on(thing)
    allowed: frozenset[Action] = frozenset()
    if isinstance(thing, ArchiveThing) and is_readable_by_all(
        thing.access, thing.embargo_until, is_closed=thing.is_closed, today=today
    ):
        allowed |= {Action.READ}
    if role is not None and not isinstance(thing, InstanceThing):
        allowed |= (ROLE_ACTIONS if isinstance(thing, ArchiveThing) else ACCOUNT_ROLE_ACTIONS)[role]
    if has_administrator_powers(actor):
        allowed |= ADMINISTRATOR_ACTIONS & actions_on(thing)
    return allowed & scope_actions(actor.scope, thing)


def strongest(roles: Iterable[Role]) -> Role | None:
    """The role with the highest rank, None of none."""
    return max(roles, key=lambda role: role.rank, default=None)


def weakest_role_for(action: Action, thing: Thing) -> Role | None:
    """The role that a refused actor has to ask for; None where no role gives the action."""
    table = ACCOUNT_ROLE_ACTIONS if isinstance(thing, AccountThing) else ROLE_ACTIONS
    return next((role for role in Role if action in table[role]), None)


def is_role_grantable(granter: Role | None, role: Role, *, is_administrator: bool) -> bool:
    """Nobody gives more than he has; whether he may grant at all is `MANAGE` or `MANAGE_ACCOUNT`."""
    return is_administrator or (granter is not None and granter.rank >= role.rank)


def is_scope_within(inner: TokenScope, outer: TokenScope) -> bool:
    """Whether a token of the inner scope can do nothing that the outer one cannot."""
    verbs = outer.verbs is None or (inner.verbs is not None and inner.verbs <= outer.verbs)
    return verbs and (outer.archives is None or (inner.archives is not None and inner.archives <= outer.archives))


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
