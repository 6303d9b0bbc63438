"""Who acts: the first argument of every use case."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class ActorKind(StrEnum):
    PERSON = "person"
    SERVICE = "service"
    SYSTEM = "system"
    ANONYMOUS = "anonymous"
    LINK = "link"  # whoever bears the secret of a link


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
class LinkScope:
    """What a link lets its bearer do, and where: nothing but these actions on this archive, at or below a path.

    `below` is the one file or folder that it is for (`b""`: the whole archive). With `content_only` it reaches what is
    asked for by a path and nothing that tells of people.
    """

    link_id: UUID
    archive_id: UUID
    actions: frozenset[str]
    below: bytes = b""
    content_only: bool = False

    @property
    def is_narrowed(self) -> bool:
        """Whether it tells less than everything of the archive."""
        return self.content_only or self.below != b""

    def reaches(self, path: bytes | None) -> bool:
        """Whether what is asked for lies inside: a path, `b""` for all content, None for what no path narrows."""
        if path is None:
            return not self.is_narrowed
        return self.below in (b"", path) or path.startswith(self.below + b"/")


class PathAct(StrEnum):
    """What a scope of paths lets its bearer do at and below a path. `ADD` replaces and removes nothing."""

    STAT = "stat"
    READ = "read"
    ADD = "add"
    CHANGE = "change"


@dataclass(frozen=True, slots=True)
class PathScope:
    """One thing that may be done at and below one place: in one archive, or in all (None)."""

    act: PathAct
    archive_id: UUID | None = None
    below: bytes = b""

    def covers(self, archive_id: UUID, path: bytes | None) -> bool:
        """Whether a path lies inside: `b""` is all content, None what no path narrows."""
        if self.archive_id not in (None, archive_id):
            return False
        if self.below == b"":
            return True
        return path is not None and (path == self.below or path.startswith(self.below + b"/"))


@dataclass(frozen=True, slots=True)
class Actor:
    """One caller of a use case, already authenticated.

    `name` is for people and logs of events; rights hang on `identity_id`, its groups, `is_administrator` and what
    follows. `known_as` are the credentials of the identity, and the entitlements that this login brought, each a kind
    and a subject (`x509 CN=Ada,O=Example`); `proofs` say how the login was proven (`oidc`, `issuer https://…`,
    `second_factor`). `proven_at` is when the person of a session last showed who he is (None: never, or no session).
    `link` is what a bearer of a link may do, and all that he may; `paths` is the limit of who came with scopes of paths
    (None: no such limit), `brought_groups` are groups that his token leads to beside his own. `responsible_id` is the
    person who answers for a service account.
    """

    kind: ActorKind
    identity_id: UUID | None = None
    name: str = ""
    organisation_id: UUID | None = None
    is_administrator: bool = False
    scope: TokenScope = field(default_factory=TokenScope)
    known_as: frozenset[str] = field(default_factory=frozenset)
    proofs: frozenset[str] = field(default_factory=frozenset)
    proven_at: datetime | None = None
    link: LinkScope | None = None
    paths: tuple[PathScope, ...] | None = None
    brought_groups: frozenset[UUID] = field(default_factory=frozenset)
    responsible_id: UUID | None = None


def without_name(actor: Actor) -> Actor:
    """The actor for what is written for ever: who has an id is told by it, and can take his name away."""
    return actor if actor.identity_id is None else replace(actor, name="")


ANONYMOUS = Actor(ActorKind.ANONYMOUS, name="anonymous")
SYSTEM = Actor(ActorKind.SYSTEM, name="system")
