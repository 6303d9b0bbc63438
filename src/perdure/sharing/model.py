"""What links and invitations are, what kinds of links let their bearers do, and when they open (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from perdure.identity.model import Action, OnKind, Role
from perdure.kernel.actor import LinkScope

PASS_LIFETIME = timedelta(hours=12)  # of a password that was typed into the page
RESUMABLE_FOR = timedelta(days=2)  # a counted download may be gone on with


class LinkKind(StrEnum):
    """`read` sees and reads; `metadata` sees and reads no content; `drop` adds files and sees nothing.

    `review` reads, and is told nothing of the people behind the archive.
    """

    READ = "read"
    DROP = "drop"
    METADATA = "metadata"
    REVIEW = "review"


KIND_ACTIONS: Mapping[LinkKind, frozenset[Action]] = {
    LinkKind.READ: frozenset({Action.SEE, Action.READ}),
    LinkKind.DROP: frozenset({Action.FILL}),
    LinkKind.METADATA: frozenset({Action.SEE}),
    LinkKind.REVIEW: frozenset({Action.SEE, Action.READ}),
}
_CONTENT_ONLY = frozenset({LinkKind.DROP, LinkKind.REVIEW})


@dataclass(frozen=True, slots=True)
class Link:
    """A link without its secret. `path` is what it is for (`b""`: the whole archive).

    With `pinned_revision` it shows record and metadata as they were at `created_at`, whatever is changed later.
    `uses` counts requests at its address, `downloads` what was begun to be downloaded of the whole, folders or files.
    """

    id: UUID
    archive_id: UUID
    path: bytes
    kind: LinkKind
    name: str
    made_by: UUID | None
    created_at: datetime
    expires_at: datetime | None
    has_password: bool
    download_limit: int | None
    only_when_closed: bool
    pinned_revision: int | None
    revoked_at: datetime | None
    uses: int = 0
    downloads: int = 0
    last_used_at: datetime | None = None

    def is_over(self, now: datetime) -> bool:
        """Whether it was revoked or has ended."""
        return self.revoked_at is not None or (self.expires_at is not None and self.expires_at <= now)

    @property
    def is_used_up(self) -> bool:
        """Whether no further download may begin."""
        return self.download_limit is not None and self.downloads >= self.download_limit

    def scope(self) -> LinkScope:
        """What its bearer may do."""
        actions = frozenset(action.value for action in KIND_ACTIONS[self.kind])
        return LinkScope(self.id, self.archive_id, actions, self.path, self.kind in _CONTENT_ONLY)


def find_kind_problem(
    kind: LinkKind, path: bytes, download_limit: int | None, *, only_when_closed: bool, is_pinned: bool
) -> str | None:
    """What this kind of link cannot have, in words, or None."""
    if kind is LinkKind.METADATA and path:
        return "a link to metadata is for the whole archive"
    if kind in (LinkKind.METADATA, LinkKind.DROP) and download_limit is not None:
        return "nothing is downloaded by it, so there is nothing to limit"
    if kind is LinkKind.DROP and only_when_closed:
        return "a closed archive takes no files"
    if is_pinned and kind is LinkKind.DROP:
        return "nothing is shown by it, so there is nothing to keep as it is"
    if is_pinned and only_when_closed:
        return "it is kept as it is now, and an open archive is not what it will be when it is closed"
    return None


class InvitationState(StrEnum):
    PENDING = "pending"
    ACCEPTED = "accepted"
    REVOKED = "revoked"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Invitation:
    """A mail that lets whoever has its key accept a role, or become an identity of the organisation (no `role`).

    `trouble` tells of the mail: `waiting`, why it was given up, or None when it was sent.
    """

    id: UUID
    address: str
    organisation_id: UUID
    on_kind: OnKind | None
    on_id: UUID | None
    label: str
    role: Role | None
    role_until: datetime | None
    requires: frozenset[str]
    note: str
    by_manager: bool
    quota_bytes: int | None
    invited_by: UUID
    invited_at: datetime
    sent_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    accepted_at: datetime | None
    accepted_by: UUID | None
    trouble: str | None = None

    def state(self, now: datetime) -> InvitationState:
        """How it stands."""
        if self.accepted_at is not None:
            return InvitationState.ACCEPTED
        if self.revoked_at is not None:
            return InvitationState.REVOKED
        ends = [self.expires_at, *([self.role_until] if self.role_until else [])]
        return InvitationState.ENDED if min(ends) <= now else InvitationState.PENDING


@dataclass(frozen=True, slots=True)
class InvitationCard:
    """What whoever has the key of an invitation is shown."""

    invitation: Invitation
    organisation: str
    inviter: str
    may_join: bool  # whether it makes an identity for who has none here
