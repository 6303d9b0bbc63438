"""Take paths out of an open archive, or hide what its ancestors show there."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, select

from perdure.archives import events
from perdure.archives.describing import note_metadata
from perdure.archives.entries import delete_entries, find_own, in_folder, iter_visible, row_to_entry
from perdure.archives.errors import NothingToHideError, TooManyItemsError, UploadEndedError
from perdure.archives.expecting import Expected, is_as_expected, not_as_expected
from perdure.archives.items import MAX_PLAN_ITEMS, RemoveReport
from perdure.archives.layers import (
    carry_out,
    list_layers,
    owe_aftermath,
    put_entries,
    retire,
    to_manifest_entry,
)
from perdure.archives.model import Archive, ArchiveState, Entry, EntryKind, UploadState
from perdure.archives.placing import STREAM_LEASE, Reservation, release, reserve
from perdure.archives.records import Context, load, require_archive, require_state
from perdure.archives.tables import files
from perdure.archives.union import after, end_of_folder, start_of_folder
from perdure.formats.manifest import SupersededEntry, entry_to_line, staged_line
from perdure.identity.model import Action
from perdure.kernel.actor import Actor, without_name
from perdure.kernel.paths import check_path, common_folder, display_path, iter_ancestors
from perdure.storage.crash_points import crash_point

_CHUNK = 10_000


def remove_paths(
    ctx: Context,
    actor: Actor,
    archive_id: UUID,
    paths: Sequence[bytes],
    *,
    recursive: bool,
    only_inherited: bool = False,
    expected: Expected | None = None,
) -> RemoveReport:
    """Remove own entries at and below the paths, and hide what the ancestors show there.

    A large folder goes in several transactions; the same call goes on where it stopped. `only_inherited` raises
    NothingToHideError for a path at which no ancestor shows anything, `expected` EntryChangedError for one at which
    something else is.
    """
    if len(paths) > MAX_PLAN_ITEMS:
        raise TooManyItemsError(f"{len(paths)} paths; at most {MAX_PLAN_ITEMS} are taken at once.")
    wanted = sorted({check_path(path) for path in paths})
    with ctx.db.begin() as tx:
        archive = require_archive(tx, ctx, actor, Action.FILL, archive_id, path=common_folder(wanted), may_replace=True)
        require_state(archive, ArchiveState.OPEN)
        inherited = _find_inherited(tx, archive, wanted, recursive=recursive)
    if only_inherited and (strange := [path for path in wanted if path not in inherited]):
        raise NothingToHideError(f"Nothing is inherited at {display_path(strange[0])!r}.")
    # first, in the place of what is there: else an end in between would show what the ancestors have
    hidden, removed = _hide(ctx, actor, archive_id, sorted(inherited), expected) if inherited else (0, 0)
    found = set(inherited)
    for path in wanted:
        first = None if path in inherited else expected  # hiding has looked, and is what is there now
        while kinds := _remove_some(
            ctx, actor, archive_id, path, recursive=recursive, keep_hiding=path in inherited, expected=first
        ):
            removed += sum(kind is not EntryKind.HIDDEN for kind in kinds)
            found.add(path)
            first = None  # what was expected is gone by now
    return RemoveReport(removed, hidden, tuple(path for path in wanted if path not in found))


def _find_inherited(tx: Connection, archive: Archive, paths: Sequence[bytes], *, recursive: bool) -> set[bytes]:
    """The paths at or below which the ancestors' union shows something."""
    layers = list_layers(tx, archive.id)[1:]
    return {path for path in paths if _is_shown(tx, layers, path, recursive=recursive)} if layers else set()


def _is_shown(tx: Connection, layers: Sequence[UUID], path: bytes, *, recursive: bool) -> bool:
    at_path = iter_visible(tx, layers, start=path, end=after(path), chunk=1)
    if next(at_path, None) is not None:
        return True
    inside = iter_visible(tx, layers, start=start_of_folder(path), end=end_of_folder(path), chunk=10)
    return recursive and next(inside, None) is not None


def _remove_some(
    ctx: Context,
    actor: Actor,
    archive_id: UUID,
    path: bytes,
    *,
    recursive: bool,
    keep_hiding: bool,
    expected: Expected | None,
) -> list[EntryKind]:
    """Remove up to a chunk of own entries at and below a path, and return their kinds."""
    with ctx.db.begin() as tx:
        archive = require_archive(tx, ctx, actor, Action.FILL, archive_id, lock=True, path=path, may_replace=True)
        require_state(archive, ArchiveState.OPEN)
        if not is_as_expected(tx, archive_id, path, expected):
            raise not_as_expected(path)
        condition = in_folder(path) if recursive else files.c.path == path
        query = select(files).where(files.c.archive_id == archive_id, condition).order_by(files.c.path).limit(_CHUNK)
        old = [row_to_entry(row) for row in tx.execute(query)]
        if keep_hiding:
            old = [entry for entry in old if entry.path != path or entry.kind is not EntryKind.HIDDEN]
        if not old:
            return []
        note = _reserve_note(tx, ctx, actor, archive)
        delete_entries(tx, archive_id, [entry.path for entry in old])
        aftermath = retire(tx, archive, old, at=ctx.clock.now(), part=note)
        # The successor of a removed entry is nothing, so its own part's log must say so, too.
        own_log = aftermath.removed.setdefault(note.part, [])
        mine = [entry for entry in old if entry.part == note.number]
        own_log.extend(SupersededEntry(note.number, entry.path, note.part.part_id) for entry in mine)
        owe_aftermath(tx, ctx, archive, note.number, aftermath)
        release(tx, ctx, archive, note.id, state=None)
        is_described = _drop_metadata(tx, ctx, actor, archive_id, [entry.path for entry in old])
        told = {"count": len(old), "bytes": sum(entry.size for entry in old), "path": display_path(path)}
        ctx.events.record(tx, events.FILES_REMOVED, archive_id, actor, told)
    carry_out(ctx, archive_id, aftermath)
    if is_described:
        ctx.journal.flush(archive_id)
    return [entry.kind for entry in old]


def _drop_metadata(tx: Connection, ctx: Context, actor: Actor, archive_id: UUID, paths: Sequence[bytes]) -> bool:
    """What was said of a file goes with it, as a change like any other; whether anything was said."""
    dropped = ctx.metadata.drop_values(tx, archive_id, paths, actor=without_name(actor), now=ctx.clock.now())
    if dropped:
        note_metadata(tx, ctx, archive_id, dropped[-1].sequence)
    return bool(dropped)


def _hide(
    ctx: Context, actor: Actor, archive_id: UUID, paths: Sequence[bytes], expected: Expected | None
) -> tuple[int, int]:
    """Write hiding entries at these paths where there are none yet; returns how many, and in place of how many.

    The place is reserved first: when this ends between the lines and the commit, the reservation tells of them.
    """
    with ctx.db.begin() as tx:
        archive = require_archive(
            tx, ctx, actor, Action.FILL, archive_id, lock=True, path=common_folder(paths), may_replace=True
        )
        require_state(archive, ArchiveState.OPEN)
        reservation = _reserve_note(tx, ctx, actor, archive, entries=len(paths))
    try:
        return _hide_at(ctx, actor, archive_id, reservation, paths, expected)
    except Exception:
        with ctx.db.begin() as tx:
            release(tx, ctx, load(tx, archive_id, lock=True), reservation.id, state=UploadState.ABANDONED)
        raise


def _hide_at(
    ctx: Context,
    actor: Actor,
    archive_id: UUID,
    reservation: Reservation,
    paths: Sequence[bytes],
    expected: Expected | None,
) -> tuple[int, int]:
    with ctx.db.begin() as tx:
        archive = require_archive(
            tx, ctx, actor, Action.FILL, archive_id, lock=True, path=common_folder(paths), may_replace=True
        )
        require_state(archive, ArchiveState.OPEN)
        if not release(tx, ctx, archive, reservation.id, state=None):
            raise UploadEndedError("The time for this was over before it ended.")
        strange = next((path for path in paths if not is_as_expected(tx, archive_id, path, expected)), None)
        if strange is not None:
            raise not_as_expected(strange)
        own, hidden = find_own(tx, archive_id, paths), set(paths)
        present = {path for path, entry in own.items() if entry.kind is EntryKind.HIDDEN}
        entries = [
            Entry(archive_id, path, EntryKind.HIDDEN, part=reservation.number) for path in paths if path not in present
        ]
        result = put_entries(tx, ctx, archive, reservation, entries, at=ctx.clock.now())
        owe_aftermath(tx, ctx, archive, reservation.number, result.aftermath)
        inside = [path for path in ctx.metadata.paths(tx, archive_id) if not hidden.isdisjoint(iter_ancestors(path))]
        is_described = _drop_metadata(tx, ctx, actor, archive_id, [*paths, *inside])
        if result.stored:
            told = {"count": len(result.stored), "paths": [display_path(e.path) for e in result.stored[:100]]}
            ctx.events.record(tx, events.FILES_HIDDEN, archive_id, actor, told)
        noted = (entry_to_line(to_manifest_entry(entry)) for entry in result.stored)
        lines = [staged_line(line, result.removals).rstrip(b"\n") for line in noted]
        if lines:  # before the commit: a rebuild may know of hiding too early, never too late
            ctx.storage.log_staged(reservation.part, lines)
            ctx.storage.sync(reservation.part)
            crash_point("hide.noted")
    carry_out(ctx, archive_id, result.aftermath)
    if is_described:
        ctx.journal.flush(archive_id)
    return len(result.stored), sum(entry.path in own for entry in result.stored)


def _reserve_note(tx: Connection, ctx: Context, actor: Actor, archive: Archive, *, entries: int = 0) -> Reservation:
    """A place in the archive's newest part for entries without bytes, or for notes of removals."""
    until = ctx.clock.now() + STREAM_LEASE
    return reserve(tx, ctx, actor, archive, entries=entries, size=0, expires_at=until)
