"""What concerns a person in all that he has to do with: two identities become one.

Roles on archives are part of their records. What changes them for many archives at once changes each record, in one
transaction; the journals follow, and what a crash leaves out of them is brought up as after any change.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection, delete, select, update

from perdure.archives import events
from perdure.archives.model import ArchiveState
from perdure.archives.records import Context, load, save_grant_change
from perdure.archives.roles import grant_documents
from perdure.archives.tables import archives, transfers, withdrawals
from perdure.identity.callers import require_fresh
from perdure.identity.merging import MergePlan
from perdure.kernel.actor import Actor
from perdure.kernel.errors import BadInputError, NotAllowedError, TryAgainError

MAX_REASON_CHARACTERS = 2000
_MOST_TRIES = 5
_Result = TypeVar("_Result")


class Persons:
    """Use cases about people as a whole; safe to share between threads."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def plan_own_merge(self, actor: Actor, other: Actor) -> MergePlan:
        """What becoming one with the other identity of oneself would do; both have shown who they are just now."""
        kept_id, gone_id = self._require_both_mine(actor, other)
        with self._ctx.db.begin() as tx:
            return self._ctx.identity.plan_merge_in(tx, kept_id, gone_id)

    def merge_own(self, actor: Actor, other: Actor) -> MergePlan:
        """Let the other identity of oneself end in this one. Its ways in, roles, groups and accounts become this one's,
        its sessions and tokens end. Raises MergeRefusedError, FreshLoginRequiredError.
        """
        kept_id, gone_id = self._require_both_mine(actor, other)
        return self._merge(actor, kept_id, gone_id, "The person did it, with a login of both.")

    def plan_merge(self, actor: Actor, kept_id: UUID, gone_id: UUID) -> MergePlan:
        """What merging two identities would do, for those who manage the organisations of both."""
        with self._ctx.db.begin() as tx:
            self._require_over_both(tx, actor, kept_id, gone_id)
            return self._ctx.identity.plan_merge_in(tx, kept_id, gone_id)

    def merge(self, actor: Actor, kept_id: UUID, gone_id: UUID, reason: str) -> MergePlan:
        """Merge two identities of one person, as `merge_own`; the reason is kept with the one that ends."""
        with self._ctx.db.begin() as tx:
            self._require_over_both(tx, actor, kept_id, gone_id)
        require_fresh(actor, self._ctx.clock.now())
        return self._merge(actor, kept_id, gone_id, check_reason(reason))

    def _require_both_mine(self, actor: Actor, other: Actor) -> tuple[UUID, UUID]:
        now = self._ctx.clock.now()
        return require_fresh(actor, now), require_fresh(other, now)

    def _require_over_both(self, tx: Connection, actor: Actor, kept_id: UUID, gone_id: UUID) -> None:
        for identity_id in (kept_id, gone_id):
            self._ctx.identity.require_over(tx, actor, identity_id)
        if gone_id == actor.identity_id:
            raise NotAllowedError("Your own identity ends only by yourself, in a session of the other one.")

    def _merge(self, actor: Actor, kept_id: UUID, gone_id: UUID, reason: str) -> MergePlan:
        def merge(tx: Connection, archive_ids: list[UUID]) -> MergePlan:
            plan = self._ctx.identity.plan_merge_in(tx, kept_id, gone_id)
            for archive_id in archive_ids:
                move = partial(self._ctx.identity.move_grants_in, tx, gone_id, kept_id, [archive_id])
                self._change_grants(tx, actor, archive_id, move)
                told = {"from": str(gone_id), "to": str(kept_id)}
                self._ctx.events.record(tx, events.ROLES_MOVED, archive_id, actor, told)
            self._move_answers(tx, kept_id, gone_id)
            self._ctx.identity.merge_in(tx, actor, plan, reason)
            return plan

        return self._with_archives_of(gone_id, [kept_id, gone_id], merge)

    def _with_archives_of(
        self, identity_id: UUID, held: list[UUID], act: Callable[[Connection, list[UUID]], _Result]
    ) -> _Result:
        """Act while these identities and every archive on which that one has a role are held, archives first: who gives
        a role holds the archive, and then whom he gives it to."""
        ctx = self._ctx
        for _ in range(_MOST_TRIES):
            with ctx.db.begin() as tx:
                archive_ids = ctx.identity.find_granted_archives_in(tx, identity_id)
            with ctx.db.begin() as tx:
                for archive_id in archive_ids:
                    load(tx, archive_id, lock=True)
                ctx.identity.lock_identities_in(tx, held)
                if not set(ctx.identity.find_granted_archives_in(tx, identity_id)) <= set(archive_ids):
                    continue
                result = act(tx, archive_ids)
            for archive_id in archive_ids:
                ctx.journal.flush(archive_id)
            return result
        raise TryAgainError("Roles of this person are being given at this moment.")

    def _change_grants(self, tx: Connection, actor: Actor, archive_id: UUID, act: Callable[[], object]) -> None:
        """Let something change the roles on an archive that is held, and its record tell of it."""
        before = grant_documents(tx, self._ctx, archive_id)
        act()
        after = grant_documents(tx, self._ctx, archive_id)
        changed = {key for key in (*before, *after) if before.get(key) != after.get(key)}
        old, new = ({key: side.get(key) for key in changed} for side in (before, after))
        save_grant_change(tx, self._ctx, actor, load(tx, archive_id), old, new)

    def _move_answers(self, tx: Connection, kept_id: UUID, gone_id: UUID) -> None:
        """Approvals and offers that wait are the kept one's: of two by the same person one counts."""
        w, t = withdrawals.c, transfers.c
        waiting = w.archive_id.in_(select(archives.c.id).where(archives.c.state == ArchiveState.CLOSED.value))
        twice = select(w.archive_id).where(w.identity_id == kept_id)
        mine = waiting & (w.identity_id == gone_id)
        tx.execute(delete(withdrawals).where(mine, w.archive_id.in_(twice)))
        tx.execute(update(withdrawals).where(mine).values(identity_id=kept_id))
        pending = t.state == "pending"
        for column in (t.from_id, t.to_id):
            tx.execute(update(transfers).where(pending, column == gone_id).values({column.name: kept_id}))
        to_himself = update(transfers).where(pending, t.from_id == t.to_id)
        tx.execute(to_himself.values(state="taken_back", decided_at=self._ctx.clock.now()))


def check_reason(reason: str) -> str:
    """Raises BadInputError for no reason, or one that is too long."""
    cleaned = reason.strip()
    if not cleaned or len(cleaned) > MAX_REASON_CHARACTERS or "\0" in cleaned:
        raise BadInputError(f"A reason of 1 to {MAX_REASON_CHARACTERS} characters is needed.", field="reason")
    return cleaned
