"""The life of an archive in one place: who may, what happens, what it becomes. Each use case is told in its module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any
from uuid import UUID

from perdure.archives import changing, finding, opening, roles, withdrawing
from perdure.archives.finding import ArchivePage, ArchiveView, PublicPage, RecordPage, Usage, UsageOfAll
from perdure.archives.heads import Heads
from perdure.archives.model import Access, Archive, ArchiveState
from perdure.archives.opening import OpenRequest
from perdure.archives.records import Context
from perdure.archives.withdrawing import WithdrawalView
from perdure.events import Event
from perdure.identity.model import Grant, Grantee, PassOnLimit, Reach, Role
from perdure.kernel.actor import Actor


class Life:
    """The use cases on an archive as a whole; safe to share between threads."""

    def __init__(self, context: Context, heads: Heads) -> None:
        self._ctx = context
        self._heads = heads

    # Open

    def open_archive(self, actor: Actor, request: OpenRequest, *, idempotency_key: str | None = None) -> Archive:
        """Open an archive; it is there when its head has been written."""
        return opening.open_archive(self._ctx, self._heads, actor, request, idempotency_key=idempotency_key)

    def append_to(
        self,
        actor: Actor,
        parent_id: UUID,
        patch: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Archive:
        """Open a child of a closed archive, with its profile, roles and metadata; `patch` changes its description."""
        return opening.append_to(self._ctx, self._heads, actor, parent_id, patch or {}, idempotency_key=idempotency_key)

    # See

    def get(self, actor: Actor, archive_id: UUID) -> ArchiveView:
        """One archive with its parts, copies and children."""
        return finding.get_view(self._ctx, actor, archive_id)

    def get_record(self, actor: Actor, archive_id: UUID) -> ArchiveView:
        """One archive with its children; of parts, copies and uploads nothing is asked."""
        return finding.get_record(self._ctx, actor, archive_id)

    def read_head_document(self, actor: Actor, archive_id: UUID, name: str) -> bytes:
        """A file of the archive's head as it was written last, such as `datacite.json`; raises NotFoundError."""
        return finding.read_head_document(self._ctx, actor, archive_id, name)

    def list_archives(
        self,
        actor: Actor,
        *,
        text: str | None = None,
        state: ArchiveState | str | None = None,
        account_id: UUID | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> ArchivePage:
        """The archives that the actor may read, newest first, by text in record, paths and metadata."""
        wanted = None if state is None else ArchiveState(state)
        return finding.list_archives(
            self._ctx, actor, text=text, state=wanted, account_id=account_id, cursor=cursor, limit=limit
        )

    def record_history(
        self, actor: Actor, archive_id: UUID, *, cursor: str | None = None, limit: int = 100
    ) -> RecordPage:
        """The changes of the record, in order."""
        return finding.record_history(self._ctx, actor, archive_id, cursor=cursor, limit=limit)

    def list_events(
        self,
        actor: Actor,
        *,
        archive_id: UUID | None = None,
        after: int = 0,
        limit: int = 100,
        wait_seconds: float = 0,
    ) -> list[Event]:
        """Events of the archives that the actor may read, after a number and in order; waits if there is none."""
        return finding.list_events(
            self._ctx, actor, archive_id=archive_id, after=after, limit=limit, wait_seconds=wait_seconds
        )

    def public_page(self, actor: Actor, identifier: str) -> PublicPage:
        """What may be shown to this actor under a persistent identifier or an archive's own id."""
        return finding.public_page(self._ctx, actor, identifier)

    def use_of(self, actor: Actor, account_id: UUID) -> Usage:
        """What an account uses of its quota."""
        return finding.use_of(self._ctx, actor, account_id)

    def use_of_all(self, actor: Actor, organisation_id: UUID) -> UsageOfAll:
        """What all accounts of an organisation use of its quota; for those who manage it."""
        return finding.use_of_all(self._ctx, actor, organisation_id)

    # Change

    def describe(
        self, actor: Actor, archive_id: UUID, patch: Mapping[str, Any], expected_revision: int | None = None
    ) -> Archive:
        """Apply a JSON merge patch to the description."""
        return changing.describe(self._ctx, actor, archive_id, patch, expected_revision)

    def set_access(
        self,
        actor: Actor,
        archive_id: UUID,
        access: Access,
        embargo_until: date | None = None,
        expected_revision: int | None = None,
    ) -> Archive:
        """Set who may read it without a role, once it is closed."""
        return changing.set_access(self._ctx, actor, archive_id, access, embargo_until, expected_revision)

    def change_profile(
        self, actor: Actor, archive_id: UUID, name: str, expected_revision: int | None = None
    ) -> Archive:
        """Give the archive another contract that its account may choose and that it fits."""
        return changing.change_profile(self._ctx, actor, archive_id, name, expected_revision)

    def extend_lifetime(
        self, actor: Actor, archive_id: UUID, keep_until: date, expected_revision: int | None = None
    ) -> Archive:
        """Keep the archive longer, up to the end that its profile allows."""
        return changing.extend_lifetime(self._ctx, actor, archive_id, keep_until, expected_revision)

    # Roles

    def list_grants(self, actor: Actor, archive_id: UUID) -> list[Grant]:
        """The roles on the archive itself."""
        return roles.list_grants(self._ctx, actor, archive_id)

    def explain_access(
        self, actor: Actor, archive_id: UUID, *, after: UUID | None = None, limit: int = 1000
    ) -> list[Reach]:
        """Who reaches the archive, as what and why."""
        return roles.explain_access(self._ctx, actor, archive_id, after=after, limit=limit)

    def list_reach(self, actor: Actor, identity_id: UUID, *, cursor: str | None = None, limit: int = 50) -> ArchivePage:
        """The archives that somebody may see, with what he may do there; for administrators."""
        return finding.list_reach(self._ctx, actor, identity_id, cursor=cursor, limit=limit)

    def list_service_reach(
        self, actor: Actor, service_id: UUID, *, cursor: str | None = None, limit: int = 50
    ) -> ArchivePage:
        """The archives that a service account reaches, with what it may do there; for who may see the account."""
        return finding.list_service_reach(self._ctx, actor, service_id, cursor=cursor, limit=limit)

    def grant(
        self,
        actor: Actor,
        archive_id: UUID,
        to: Grantee,
        role: Role,
        *,
        expires_at: datetime | None = None,
        requires: Iterable[str] = (),
        pass_on: PassOnLimit | None = None,
    ) -> Grant:
        """Give a role, to one's own rank at most."""
        return roles.grant(
            self._ctx, actor, archive_id, to, role, expires_at=expires_at, requires=requires, pass_on=pass_on
        )

    def revoke(self, actor: Actor, archive_id: UUID, grant_id: UUID) -> None:
        """Take a role back, or lay one's own down."""
        roles.revoke(self._ctx, actor, archive_id, grant_id)

    # End

    def discard(
        self,
        actor: Actor,
        archive_id: UUID,
        confirm_title: str | None = None,
        expected_revision: int | None = None,
    ) -> UUID:
        """Give up an open archive; returns the job that removes its content."""
        return withdrawing.discard(
            self._ctx, actor, archive_id, confirm_title=confirm_title, expected_revision=expected_revision
        )

    def request_withdrawal(self, actor: Actor, archive_id: UUID, reason: str) -> WithdrawalView:
        """Approve that a closed archive is withdrawn; with enough approvals a job does it."""
        return withdrawing.request_withdrawal(self._ctx, actor, archive_id, reason)

    def get_withdrawal(self, actor: Actor, archive_id: UUID) -> WithdrawalView:
        """How far a withdrawal is, and what it did."""
        return withdrawing.get_withdrawal(self._ctx, actor, archive_id)
