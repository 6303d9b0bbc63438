"""Discard an open archive, withdraw a closed one: the record says so first, then the bytes leave every store.

A withdrawn archive keeps its identifier, its record and a tombstone. Its bytes stay as long as a child shows them,
where the profile lets children keep what they inherited; they leave with the last such child.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, delete, func, insert, select, update

from perdure.archives import events
from perdure.archives.citing import build_tombstone_record, landing_page
from perdure.archives.documents import JsonObject
from perdure.archives.errors import (
    AlreadyApprovedError,
    BadDescriptionError,
    ChildrenRemainError,
    ConfirmationMismatchError,
)
from perdure.archives.heads import METADATA_HISTORY, HeadChange, Heads
from perdure.archives.layers import list_layers
from perdure.archives.model import Archive, ArchiveState, UploadState
from perdure.archives.placing import ACTIVE_UPLOADS, add_usage
from perdure.archives.records import (
    Context,
    list_descendants,
    load,
    load_all,
    require_archive,
    require_revision,
    require_state,
    save_change,
    visible_to,
)
from perdure.archives.tables import archives, files, parts, superseded, uploads, withdrawals
from perdure.identity.callers import require_identity
from perdure.identity.model import Action
from perdure.jobs import JobContext, Json
from perdure.kernel.actor import SYSTEM, Actor
from perdure.kernel.clock import format_time
from perdure.kernel.errors import NotAllowedError
from perdure.kernel.ids import short_form
from perdure.storage.model import ObjectKind, object_uri

CLEAR_JOB = "archives.clear"
WITHDRAW_JOB = "archives.withdraw"
MAX_REASON_CHARACTERS = 10_000
_NAMED_CHILDREN = 20


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's word that an archive shall be withdrawn."""

    identity_id: UUID
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class WithdrawalView:
    """How far a withdrawal is: who approved, how many are needed, the job once there are enough, what it did."""

    archive_id: UUID
    approvals: tuple[Approval, ...]
    needed: int
    job_id: UUID | None
    tombstone: Mapping[str, object] | None


# Use cases


def discard(
    ctx: Context,
    actor: Actor,
    archive_id: UUID,
    *,
    confirm_title: str | None = None,
    expected_revision: int | None = None,
) -> UUID:
    """Give up an open archive; returns the job that removes its content. Its record stays and says that it was there.

    Asking again returns the job that does it, or does it again. With `confirm_title` it happens only when that is the
    archive's title.
    """
    with ctx.changing(archive_id) as tx:
        archive = require_archive(tx, ctx, actor, Action.MANAGE, archive_id, lock=True)
        require_state(archive, ArchiveState.OPEN, ArchiveState.DISCARDED)
        require_revision(archive, expected_revision)
        if confirm_title is not None and confirm_title != archive.description.title:
            raise ConfirmationMismatchError("The title given is not the archive's; nothing was changed.")
        if archive.state is ArchiveState.OPEN:
            _release_uploads(tx, archive)
            save_change(
                tx, ctx, actor, archive, replace(archive, state=ArchiveState.DISCARDED), event=events.ARCHIVE_DISCARDED
            )
        return _defer(tx, ctx, CLEAR_JOB, archive_id, actor)


def request_withdrawal(ctx: Context, actor: Actor, archive_id: UUID, reason: str) -> WithdrawalView:
    """Approve that a closed archive is withdrawn; with as many persons as its profile wants, it is done by a job.

    Approvals count as long as their persons may withdraw. Asking again when there are enough starts the job again.
    Raises ChildrenRemainError with the names of the children that the actor may read, AlreadyApprovedError.
    """
    with ctx.db.begin() as tx:
        archive = require_archive(tx, ctx, actor, Action.WITHDRAW, archive_id, lock=True)
        identity_id = require_identity(actor)
        require_state(archive, ArchiveState.CLOSED)
        _require_reason(reason)
        _require_no_children(tx, ctx, actor, archive)
        is_new = _add_approval(tx, ctx, archive_id, identity_id, reason)
        approvals = _list_approvals(tx, ctx, archive)
        needed = archive.profile.withdraw_approvals
        if not is_new and len(approvals) < needed:
            raise AlreadyApprovedError("Your approval was counted before; another person's is missing.")
        told = {"approvals": len(approvals), "needed": needed}
        ctx.events.record(tx, events.WITHDRAWAL_REQUESTED, archive_id, actor, told)
        job_id = _defer(tx, ctx, WITHDRAW_JOB, archive_id, actor) if len(approvals) >= needed else None
        return WithdrawalView(archive_id, approvals, needed, job_id, archive.tombstone)


def get_withdrawal(ctx: Context, actor: Actor, archive_id: UUID) -> WithdrawalView:
    """How far a withdrawal is, for those who may withdraw."""
    with ctx.db.begin() as tx:
        archive = require_archive(tx, ctx, actor, Action.WITHDRAW, archive_id)
        jobs = ctx.jobs.find_for_thing(tx, archive_id, kind=WITHDRAW_JOB)
        approvals = _list_approvals(tx, ctx, archive)
        job_id = jobs[0].id if jobs else None
        return WithdrawalView(archive_id, approvals, archive.profile.withdraw_approvals, job_id, archive.tombstone)


# Jobs: each may stop anywhere and run again


def carry_out_withdrawal(ctx: Context, heads: Heads, job: JobContext, archive_id: UUID) -> dict[str, Json]:
    """Withdraw: the head and the database say so, the identifier leads to the tombstone, the bytes leave."""
    _mark_withdrawn(ctx, heads, archive_id)
    job.progress(message="The archive is withdrawn; its bytes are being removed")
    _bury_identifier(ctx, heads, archive_id)
    return clear(ctx, heads, job, archive_id)


def clear(ctx: Context, heads: Heads, job: JobContext, archive_id: UUID) -> dict[str, Json]:
    """Remove the content of a withdrawn or discarded archive from every store, give the quota back, report."""
    with ctx.db.begin() as tx:
        archive = load(tx, archive_id)
        require_state(archive, ArchiveState.WITHDRAWN, ArchiveState.DISCARDED)
        keepers = list_descendants(tx, archive_id)
    if keepers:
        return {"removed": [], "kept_for": len(keepers)}  # which ones is for their readers only
    heads.fold(archive_id)  # before the journal goes with the staging
    removals = _remove_bytes(ctx, job, archive_id)
    _forget_content(ctx, heads, archive_id, removals)
    _clear_ancestors(ctx, archive_id)
    return {"removed": removals, "kept_for": 0}


def _mark_withdrawn(ctx: Context, heads: Heads, archive_id: UUID) -> None:
    with ctx.db.begin() as tx:
        if load(tx, archive_id).state is ArchiveState.WITHDRAWN:
            return
    with heads.writing(archive_id, message="Withdrawn") as change:
        tx, archive = change.tx, change.archive
        require_state(archive, ArchiveState.CLOSED)
        _require_no_children(tx, ctx, SYSTEM, archive)
        _require_approvals(tx, ctx, archive)
        tombstone = _build_tombstone(tx, ctx, archive)
        withdrawn = replace(archive, state=ArchiveState.WITHDRAWN, tombstone=tombstone)
        told = {"approved_by": tombstone["approved_by"], "kept_for": tombstone["kept_for"]}
        change.archive = save_change(tx, ctx, SYSTEM, archive, withdrawn, event=events.ARCHIVE_WITHDRAWN, data=told)


def _build_tombstone(tx: Connection, ctx: Context, archive: Archive) -> JsonObject:
    approvals = _list_approvals(tx, ctx, archive)
    return {
        "type": "archive-tombstone",
        "format": 1,
        "archive": archive.id.urn,
        "identifier": archive.identifier,
        "title": archive.description.title,
        "closed_at": format_time(archive.closed_at) if archive.closed_at else None,
        "withdrawn_at": format_time(ctx.clock.now()),
        "reasons": list(dict.fromkeys(approval.reason for approval in approvals)),
        "approved_by": [str(approval.identity_id) for approval in approvals],
        "kept_for": [str(child) for child in list_descendants(tx, archive.id)],
        "removed": [],
    }


def _bury_identifier(ctx: Context, heads: Heads, archive_id: UUID) -> None:
    with ctx.db.begin() as tx:
        archive = load(tx, archive_id)
    if archive.identifier is None:
        return
    page = ctx.settings.public_url
    record = build_tombstone_record(archive, public_url=page)
    state = ctx.registrar.tombstone(archive.identifier, record, landing_page(page, archive)).state
    with heads.writing(archive_id, message="Tombstone") as change:
        change.tx.execute(update(archives).where(archives.c.id == archive_id).values(identifier_state=state))
        change.is_forced = True


def _remove_bytes(ctx: Context, job: JobContext, archive_id: UUID) -> list[dict[str, Json]]:
    """Sealed parts from every store, then what is staged; tells what left which store when."""
    with ctx.db.begin() as tx:
        held = {object_uri(row.id): row for row in tx.execute(select(parts).where(parts.c.archive_id == archive_id))}
        stored = [one.object_id for one in ctx.storage.objects_of(tx, archive_id) if one.kind is ObjectKind.PART]
    stores = {store.id: store.name for store in ctx.storage.stores()}
    removals: list[dict[str, Json]] = []
    for done, object_id in enumerate(sorted(stored), start=1):
        job.raise_if_stopping()
        removals += [
            {
                "object": object_id,
                "store": stores[removal.store_id],
                "files": held[object_id].file_count,
                "bytes": held[object_id].byte_count,
                "at": format_time(removal.at),
            }
            for removal in ctx.storage.remove_object(object_id)
        ]
        job.progress(done=done, total=len(stored), unit="parts")
    ctx.storage.discard_archive(archive_id)
    return removals


def _forget_content(ctx: Context, heads: Heads, archive_id: UUID, removals: list[dict[str, Json]]) -> None:
    """The rows go, the usage is given back, the tombstone gets the report: all or nothing."""
    with heads.writing(archive_id, message="Content removed") as change:
        tx, archive = change.tx, change.archive
        used = _count_held(tx, archive_id)
        removed = [one.object_id for one in ctx.storage.objects_of(tx, archive_id) if one.kind is ObjectKind.PART]
        ctx.storage.forget_objects(tx, removed)
        for table in (files, superseded, uploads, parts):
            tx.execute(delete(table).where(table.c.archive_id == archive_id))
        add_usage(tx, archive.account_id, files=-used[0], size=-used[1])
        change.files["parts.json"] = None
        if archive.state is ArchiveState.DISCARDED:
            _forget_metadata(tx, ctx, change)
        if archive.tombstone is not None and removals:
            reported = replace(archive, tombstone={**archive.tombstone, "removed": removals, "kept_for": []})
            change.archive = save_change(tx, ctx, SYSTEM, archive, reported, event=None)
        if removals or any(used):
            told = {"files": used[0], "bytes": used[1], "copies": len(removals)}
            ctx.events.record(tx, events.ARCHIVE_CLEARED, archive_id, SYSTEM, told)


def _forget_metadata(tx: Connection, ctx: Context, change: HeadChange) -> None:
    """What was said of a discarded archive and its files goes from the database, and from the head's newest version."""
    archive_id = change.archive.id
    ctx.metadata.remove(tx, archive_id)
    held = ctx.storage.head_state(object_uri(archive_id))
    change.files.update({path: None for path in held if path.startswith(METADATA_HISTORY)})
    marks = {"metadata_sequence": 0, "metadata_folded": 0, "metadata_journalled": 0}
    tx.execute(update(archives).where(archives.c.id == archive_id).values(**marks))


def _clear_ancestors(ctx: Context, archive_id: UUID) -> None:
    """Withdrawn ancestors whose bytes were kept for this archive can go, too."""
    with ctx.db.begin() as tx:
        for ancestor in list_layers(tx, archive_id)[1:]:
            is_held = tx.execute(select(parts.c.id).where(parts.c.archive_id == ancestor).limit(1)).first()
            if load(tx, ancestor).state is ArchiveState.WITHDRAWN and is_held and not list_descendants(tx, ancestor):
                _defer(tx, ctx, CLEAR_JOB, ancestor, SYSTEM)


# Parts of them


def _defer(tx: Connection, ctx: Context, kind: str, archive_id: UUID, actor: Actor) -> UUID:
    return ctx.jobs.defer(
        tx,
        kind,
        {"archive": str(archive_id)},
        lock=f"archive {archive_id}",
        queueing_lock=f"{kind} {archive_id}",
        thing=archive_id,
        requested_by=actor.identity_id,
    )


def _require_reason(reason: str) -> None:
    if not reason.strip() or len(reason) > MAX_REASON_CHARACTERS:
        raise BadDescriptionError(f"A reason of 1 to {MAX_REASON_CHARACTERS} characters is needed.", field="reason")


def _require_no_children(tx: Connection, ctx: Context, actor: Actor, archive: Archive) -> None:
    """Raises ChildrenRemainError where the profile says that a parent with children stays."""
    if not archive.profile.children_block_withdrawal:
        return
    children = list_descendants(tx, archive.id)
    if not children:
        return
    shown = load_all(tx, archives.c.id.in_(children), visible_to(ctx, actor), limit=_NAMED_CHILDREN)
    names = [
        {"id": str(child.id), "short_id": short_form(child.id), "title": child.description.title} for child in shown
    ]
    listed = ", ".join(f"{name['short_id']} ({name['title']})" for name in names)
    raise ChildrenRemainError(
        f"{len(children)} archives show content of this one: {listed or 'none that you may see'}.",
        children=names,
        count=len(children),
    )


def _require_approvals(tx: Connection, ctx: Context, archive: Archive) -> None:
    """Raises NotAllowedError when too few of those who approved may still withdraw."""
    count, needed = len(_list_approvals(tx, ctx, archive)), archive.profile.withdraw_approvals
    if count < needed:
        raise NotAllowedError(f"{count} of those who approved may still withdraw the archive; {needed} are needed.")


def _add_approval(tx: Connection, ctx: Context, archive_id: UUID, identity_id: UUID, reason: str) -> bool:
    """Note an approval; False when this person's was there before."""
    mine = withdrawals.c.identity_id == identity_id
    if tx.execute(select(withdrawals).where(withdrawals.c.archive_id == archive_id, mine)).first() is not None:
        return False
    row = {"archive_id": archive_id, "identity_id": identity_id, "reason": reason.strip(), "at": ctx.clock.now()}
    tx.execute(insert(withdrawals).values(row))
    return True


def _list_approvals(tx: Connection, ctx: Context, archive: Archive) -> tuple[Approval, ...]:
    """The approvals that count: of persons who may withdraw at this moment; all of them once that is done."""
    query = select(withdrawals).where(withdrawals.c.archive_id == archive.id).order_by(withdrawals.c.at)
    approvals = tuple(Approval(row.identity_id, row.reason, row.at) for row in tx.execute(query))
    if archive.state is ArchiveState.WITHDRAWN:
        return approvals
    return tuple(approval for approval in approvals if _may_withdraw(tx, ctx, archive, approval.identity_id))


def _may_withdraw(tx: Connection, ctx: Context, archive: Archive, identity_id: UUID) -> bool:
    person = ctx.identity.find_actor_in(tx, identity_id)
    return person is not None and ctx.identity.can(tx, person, Action.WITHDRAW, archive.thing())


def _release_uploads(tx: Connection, archive: Archive) -> None:
    """End what is on its way and give its reservation back."""
    active = uploads.update().where(uploads.c.archive_id == archive.id, uploads.c.state.in_(ACTIVE_UPLOADS))
    ended: Any = tx.execute(active.values(state=UploadState.ABANDONED.value).returning(uploads.c.byte_count))
    add_usage(tx, archive.account_id, reserved=-sum(ended.scalars()))


def _count_held(tx: Connection, archive_id: UUID) -> tuple[int, int]:
    held = select(func.coalesce(func.sum(parts.c.file_count), 0), func.coalesce(func.sum(parts.c.byte_count), 0))
    row = tx.execute(held.where(parts.c.archive_id == archive_id)).one()
    return int(row[0]), int(row[1])
