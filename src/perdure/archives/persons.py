"""What concerns a person in all that he has to do with: two identities become one, or one is told of or erased.

Roles on archives are part of their records. What changes them for many archives at once changes each record, in one
transaction; the journals follow, and what a crash leaves out of them is brought up as after any change.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection, delete, or_, select, update

from perdure.archives import events
from perdure.archives.exporting import RENEW_JOB
from perdure.archives.model import ArchiveState
from perdure.archives.records import Context, load, load_all
from perdure.archives.roles import change_grants, require_mandatory_roles
from perdure.archives.tables import archives, idempotency_keys, record_changes, transfers, withdrawals
from perdure.events import Search, render_cloudevent, search_events
from perdure.identity.callers import require_fresh, require_self_reader
from perdure.identity.errors import ErasureRefusedError
from perdure.identity.merging import MergePlan
from perdure.identity.rights import require_living_in
from perdure.kernel.actor import Actor
from perdure.kernel.clock import format_time
from perdure.kernel.errors import BadInputError, NotAllowedError, TryAgainError
from perdure.kernel.ids import short_form

MAX_REASON_CHARACTERS = 2000
EXPORT_FORMAT = "person-1"
_MOST_TRIES = 5
_MOST_NAMED = 100
_MOST_EVENTS = 10_000
_SOURCE = "/api/v1/events"
_KEPT_STATES = (ArchiveState.OPEN, ArchiveState.CLOSING, ArchiveState.CLOSED)
_Result = TypeVar("_Result")


class Persons:
    """Use cases about people as a whole; safe to share between threads."""

    def __init__(self, context: Context) -> None:
        self._ctx = context
        self._parts: dict[str, Callable[[Connection, UUID], object]] = {}
        self._forgetting: list[Callable[[Connection, list[UUID]], None]] = []

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
        return self._merge(actor, kept_id, gone_id, "The person did it, with a login of both.", lambda _: None)

    def plan_merge(self, actor: Actor, kept_id: UUID, gone_id: UUID) -> MergePlan:
        """What merging two identities would do, for those who manage the organisations of both."""
        with self._ctx.db.begin() as tx:
            self._require_over_both(tx, actor, kept_id, gone_id)
            return self._ctx.identity.plan_merge_in(tx, kept_id, gone_id)

    def merge(self, actor: Actor, kept_id: UUID, gone_id: UUID, reason: str) -> MergePlan:
        """Merge two identities of one person, as `merge_own`; the reason is kept with the one that ends."""

        def require_over_both(tx: Connection) -> None:
            self._require_over_both(tx, actor, kept_id, gone_id)

        with self._ctx.db.begin() as tx:
            require_over_both(tx)
        require_fresh(actor, self._ctx.clock.now())
        return self._merge(actor, kept_id, gone_id, check_reason(reason), require_over_both)

    def export_own(self, actor: Actor) -> dict[str, object]:
        """All that is kept of the caller, JSON-ready, without any secret: for him alone.

        Of events the newest are told, as many as `events_told` says.
        """
        identity_id = require_self_reader(actor)
        with self._ctx.db.begin() as tx:
            told: dict[str, object] = {
                "format": EXPORT_FORMAT,
                "exported_at": format_time(self._ctx.clock.now()),
                **self._ctx.identity.export_person_in(tx, identity_id),
                "archives": self._list_archives_of(tx, identity_id),
                "transfers": self._list_transfers_of(tx, identity_id),
            }
            for name, part in self._parts.items():
                told[name] = part(tx, identity_id)
            aliases = self._ctx.identity.list_aliases_in(tx, identity_id)
            done = search_events(tx, Search(actor=identity_id, aliases=aliases, limit=_MOST_EVENTS))
            about = search_events(tx, Search(about=identity_id, limit=_MOST_EVENTS))
        told["events_told"] = _MOST_EVENTS
        told["events"] = [render_cloudevent(event, source=_SOURCE) for event in done]
        mine = {event.number for event in done}
        told["events_about"] = [render_cloudevent(event, source=_SOURCE) for event in about if event.number not in mine]
        return told

    def add_part(self, name: str, part: Callable[[Connection, UUID], object]) -> None:
        """Let another domain tell in exports what it keeps of a person."""
        self._parts[name] = part

    def add_forgetting(self, forget: Callable[[Connection, list[UUID]], None]) -> None:
        """Let another domain remove what it keeps of persons who are erased."""
        self._forgetting.append(forget)

    def erase(self, actor: Actor, identity_id: UUID, reason: str = "", *, dry_run: bool = False) -> None:
        """Remove what is personal of an identity for ever: one's own, or one of the organisations that one manages.

        Its id stays in history, under a pseudonym. With `dry_run` only the refusals are told: ErasureRefusedError names
        what needs another owner first. Raises LastAdministratorError, FreshLoginRequiredError.
        """
        ctx = self._ctx
        if identity_id != actor.identity_id:
            with ctx.db.begin() as tx:
                ctx.identity.require_over(tx, actor, identity_id)
                ctx.identity.require_person_in(tx, identity_id)
            reason = check_reason(reason)
        require_fresh(actor, ctx.clock.now())

        def erase(tx: Connection, archive_ids: list[UUID]) -> None:
            if identity_id != actor.identity_id:
                ctx.identity.require_over(tx, actor, identity_id)
            require_living_in(tx, identity_id)
            self._require_nothing_left(tx, identity_id)
            if dry_run:
                return
            for archive_id in archive_ids:
                drop = partial(ctx.identity.drop_grants_of_in, tx, identity_id, archive_id)
                archive = change_grants(tx, ctx, actor, load(tx, archive_id), drop)
                if archive.state in _KEPT_STATES:
                    require_mandatory_roles(tx, ctx, archive, archive.profile)
                ctx.events.record(tx, events.ROLES_TAKEN, archive_id, actor, {"from": str(identity_id)})
            aliases = ctx.identity.list_aliases_in(tx, identity_id)
            ctx.identity.erase_in(tx, actor, identity_id, reason)
            forget_person(tx, ctx, [identity_id, *aliases])
            for forget in self._forgetting:
                forget(tx, [identity_id, *aliases])
            ctx.jobs.defer(tx, RENEW_JOB, {}, lock=RENEW_JOB, queueing_lock=RENEW_JOB)

        self._with_archives_of(identity_id, [identity_id], erase)

    def _require_nothing_left(self, tx: Connection, identity_id: UUID) -> None:
        """Raises ErasureRefusedError while there is something that nobody else would answer for."""
        identity = self._ctx.identity
        home = identity.get_personal_account_in(tx, identity_id).id
        own = (archives.c.account_id == home) & archives.c.state.in_([state.value for state in _KEPT_STATES])
        held = load_all(tx, own, limit=_MOST_NAMED)
        left = {
            "archives": [(one.id, one.description.title or short_form(one.id)) for one in held],
            "accounts": identity.find_sole_accounts_in(tx, identity_id)[:_MOST_NAMED],
            "services": identity.find_services_in(tx, identity_id)[:_MOST_NAMED],
        }
        if any(left.values()):
            named = [name for found in left.values() for _, name in found]
            raise ErasureRefusedError(
                f"Nobody else would answer for: {', '.join(named[:10])}{' and more' if len(named) > 10 else ''}.",
                **{kind: [{"id": str(one), "name": name} for one, name in found] for kind, found in left.items()},
            )

    def _list_archives_of(self, tx: Connection, identity_id: UUID) -> list[dict[str, object]]:
        """The archives on which somebody himself has a role, and those that he opened."""
        named = self._ctx.identity.find_granted_archives_in(tx, identity_id)
        mine = or_(archives.c.id.in_(named), archives.c.opened_by == identity_id)
        return [
            {
                "id": str(one.id),
                "short_id": short_form(one.id),
                "title": one.description.title,
                "state": one.state.value,
                "opened_by_you": one.opened_by == identity_id,
            }
            for one in load_all(tx, mine)
        ]

    def _list_transfers_of(self, tx: Connection, identity_id: UUID) -> list[dict[str, object]]:
        t = transfers.c
        mine = select(transfers).where(or_(t.from_id == identity_id, t.to_id == identity_id)).order_by(t.id)
        return [
            {
                "id": str(row.id),
                "archive": str(row.archive_id),
                "from": str(row.from_id),
                "to": str(row.to_id),
                "state": row.state,
                "offered_at": format_time(row.offered_at),
            }
            for row in tx.execute(mine)
        ]

    def _require_both_mine(self, actor: Actor, other: Actor) -> tuple[UUID, UUID]:
        now = self._ctx.clock.now()
        return require_fresh(actor, now), require_fresh(other, now)

    def _require_over_both(self, tx: Connection, actor: Actor, kept_id: UUID, gone_id: UUID) -> None:
        for identity_id in (kept_id, gone_id):
            self._ctx.identity.require_over(tx, actor, identity_id)
        if gone_id == actor.identity_id:
            raise NotAllowedError("Your own identity ends only by yourself, in a session of the other one.")

    def _merge(
        self, actor: Actor, kept_id: UUID, gone_id: UUID, reason: str, require: Callable[[Connection], None]
    ) -> MergePlan:
        def merge(tx: Connection, archive_ids: list[UUID]) -> MergePlan:
            require(tx)  # once more, when nobody can make one of them an administrator any more
            plan = self._ctx.identity.plan_merge_in(tx, kept_id, gone_id)
            for archive_id in archive_ids:
                move = partial(self._ctx.identity.move_grants_in, tx, gone_id, kept_id, [archive_id])
                change_grants(tx, self._ctx, actor, load(tx, archive_id), move)
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


def forget_person(tx: Connection, ctx: Context, identity_ids: list[UUID]) -> None:
    """Remove what is personal of these identities from the tables; safe to call twice.

    What was signed or chained stays as it is: it tells of them by their ids.
    """
    ctx.identity.repeat_erasures_in(tx, identity_ids)
    mine = record_changes.c.actor_id.in_(identity_ids) & (record_changes.c.actor_name != "")
    tx.execute(update(record_changes).where(mine).values(actor_name=""))
    tx.execute(delete(idempotency_keys).where(idempotency_keys.c.identity_id.in_(identity_ids)))
    t = transfers.c
    waiting = (t.state == "pending") & or_(t.from_id.in_(identity_ids), t.to_id.in_(identity_ids))
    tx.execute(update(transfers).where(waiting).values(state="taken_back", decided_at=ctx.clock.now()))


def check_reason(reason: str) -> str:
    """Raises BadInputError for no reason, or one that is too long."""
    cleaned = reason.strip()
    if not cleaned or len(cleaned) > MAX_REASON_CHARACTERS or "\0" in cleaned:
        raise BadInputError(f"A reason of 1 to {MAX_REASON_CHARACTERS} characters is needed.", field="reason")
    return cleaned
