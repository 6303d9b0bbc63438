"""Who acts: the first argument of every use case."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class ActorKind(StrEnum):
    PERSON = "person"
    SERVICE = "service"
    SYSTEM = "system"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class TokenScope:
    """What a credential narrows its bearer to.

    `verbs` holds any of read, write, manage, admin (None: all); `archives` the archives it may touch (None: all).
    `ends_at` is when a token ends, and whatever it makes must end, too (None: this is no token).
    """

    verbs: frozenset[str] | None = None
    archives: frozenset[UUID] | None = None
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Actor:
    """One caller of a use case, already authenticated.

    `name` is for people and logs of events; rights hang on `identity_id`, `group_ids`, `is_administrator` and what
    follows. `known_as` are the credentials of the identity, and the entitlements that this login brought, each a kind
    and a subject (`x509 CN=Ada,O=Example`); `proofs` say how the login was proven (`oidc`, `issuer https://…`,
    `second_factor`).
    """

    kind: ActorKind
    identity_id: UUID | None = None
    name: str = ""
    organisation_id: UUID | None = None
    group_ids: frozenset[UUID] = field(default_factory=frozenset)
    is_administrator: bool = False
    scope: TokenScope = field(default_factory=TokenScope)
    known_as: frozenset[str] = field(default_factory=frozenset)
    proofs: frozenset[str] = field(default_factory=frozenset)


ANONYMOUS = Actor(ActorKind.ANONYMOUS, name="anonymous")
SYSTEM = Actor(ActorKind.SYSTEM, name="system")
