"""Fill an open archive: plan, single files, batches, resumable uploads; remove and hide.

What comes in takes four steps: room is reserved in a short transaction; the bytes go to where they will stay, digested
in one pass; they and their manifest lines are made durable; a second transaction makes them the archive's. Only then
are they acknowledged. Whatever stops between two steps leaves bytes that nobody was promised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, select, update

from perdure.archives import events
from perdure.archives.entries import find_visible
from perdure.archives.errors import RefusedItemError, TooManyItemsError, UploadEndedError, UploadOffsetError
from perdure.archives.expecting import Expected
from perdure.archives.ingesting import Ingesting
from perdure.archives.items import (
    MAX_BATCH_FILES,
    MAX_PLAN_ITEMS,
    BatchItem,
    PlanAnswer,
    PlanItem,
    RemoveReport,
    UploadView,
    Verdict,
    compare_item,
    digests_to_take,
    find_batch_conflicts,
    find_item_problem,
)
from perdure.archives.layers import list_layers
from perdure.archives.model import Archive, ArchiveState, EntryKind, UploadState
from perdure.archives.noting import owes_notes, write_owed_notes
from perdure.archives.patience import Patience
from perdure.archives.placing import (
    ACTIVE_UPLOADS,
    STREAM_LEASE,
    Reservation,
    is_begun_by,
    is_leased,
    is_of_link,
    link_deadline,
    release,
    reserve,
    select_active_uploads,
)
from perdure.archives.receiving import BatchReceiver, FileReceiver, Landing, UploadReceiver
from perdure.archives.records import Context, load, require_archive, require_state
from perdure.archives.removing import remove_paths
from perdure.archives.renoting import renote_part
from perdure.archives.tables import parts, uploads
from perdure.identity.model import Action, may_replace_at
from perdure.kernel.actor import SYSTEM, Actor
from perdure.kernel.errors import BadInputError, NotFoundError, PerdureError
from perdure.kernel.paths import display_path
from perdure.storage.crash_points import crash_point
from perdure.storage.errors import UnknownUploadError
from perdure.storage.model import PartRef

_MAX_UPLOAD_LIFETIME = timedelta(days=30)
_EXPIRED_AT_ONCE = 1000
_IS_SETTLED = uploads.c.lease_until.is_(None) | (uploads.c.state == UploadState.FINISHED.value)  # its log is right


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a client says of one file beside its bytes."""

    mtime_ns: int | None = None
    mode: int | None = None
    digests: Mapping[str, str] | None = None

    def as_item(self, path: bytes, size: int) -> BatchItem:
        return BatchItem(path, EntryKind.FILE, size, self.mtime_ns, self.mode, None, dict(self.digests or {}))


class Filling:
    """Use cases of those who put content into an archive that is open."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._ingesting = Ingesting(ctx)

    def plan(self, actor: Actor, archive_id: UUID, items: Sequence[PlanItem]) -> list[PlanAnswer]:
        """What of this is missing or different, in the order given; what the union shows needs no sending."""
        if len(items) > MAX_PLAN_ITEMS:
            raise TooManyItemsError(f"{len(items)} items; a plan takes {MAX_PLAN_ITEMS}.")
        with self._ctx.db.begin() as tx:
            archive = require_archive(tx, self._ctx, actor, Action.FILL, archive_id)
            require_state(archive, ArchiveState.OPEN)
            problems = [find_item_problem(item) for item in items]
            good = [item.path for item, problem in zip(items, problems, strict=True) if problem is None]
            shown = find_visible(tx, list_layers(tx, archive_id), good)
        return [
            PlanAnswer(item.path, Verdict.REFUSED, problem)
            if problem
            else PlanAnswer(item.path, compare_item(item, shown.get(item.path)))
            for item, problem in zip(items, problems, strict=True)
        ]

    def begin_file(
        self,
        actor: Actor,
        archive_id: UUID,
        path: bytes,
        size: int,
        *,
        mtime_ns: int | None = None,
        mode: int | None = None,
        stated_digests: Mapping[str, str] | None = None,
        replace: bool = True,
        expected: Expected | None = None,
    ) -> FileReceiver:
        """Take one file in one stream; its size is known, so that its room is reserved before it comes.

        It takes its path only from what is `expected` there, which is looked at when it is complete. A link that is for
        the path lets its bearer do this if it does not `replace`; who came with scopes that let him add does not.
        """
        replace = replace and may_replace_at(actor.paths, archive_id, path)
        item = Attributes(mtime_ns, mode, stated_digests).as_item(path, size)
        _require_item(item)
        archive, reservation = self._reserve(actor, archive_id, 1, size, at=path, may_replace=replace)
        landing = Landing(self._ctx, actor, archive, reservation)
        with _giving_up(landing):
            return FileReceiver(landing, item, replace=replace, expected=expected)

    def begin_batch(self, actor: Actor, archive_id: UUID, items: Sequence[BatchItem]) -> BatchReceiver:
        """Take many small entries at once: the contents of the files come concatenated in the order of the items."""
        if len(items) > MAX_BATCH_FILES:
            raise TooManyItemsError(f"{len(items)} items; a batch takes {MAX_BATCH_FILES}.")
        if any(item.size < 0 for item in items):
            raise BadInputError("An item has a negative size.", field="items")
        problems = {index: problem for index, item in enumerate(items) if (problem := find_item_problem(item))}
        for index, item in enumerate(items):
            if not may_replace_at(actor.paths, archive_id, item.path):
                problems.setdefault(index, "the token does not let you replace what is at this path")
        good = [index for index in range(len(items)) if index not in problems]
        conflicts = find_batch_conflicts([items[index] for index in good])
        problems.update({good[index]: problem for index, problem in conflicts.items()})
        wanted = [item for index, item in enumerate(items) if index not in problems]
        first = next(iter([*wanted, *items]), None)  # each of them was looked at above
        archive, reservation = self._reserve(
            actor, archive_id, len(wanted), sum(item.size for item in wanted), at=first and first.path
        )
        landing = Landing(self._ctx, actor, archive, reservation)
        with _giving_up(landing):
            return BatchReceiver(landing, items, problems)

    # Uploads that go on over many requests

    def create_upload(
        self,
        actor: Actor,
        archive_id: UUID,
        path: bytes,
        size: int,
        attributes: Attributes | None = None,
        expires: datetime | None = None,
        *,
        replace: bool = True,
    ) -> UploadView:
        """Begin a resumable upload of a file; it is abandoned when it is not finished before it expires.

        An empty file has no byte to wait for: its upload is finished by this call. A link that is for the path lets its
        bearer do this if it does not `replace`, and go on with what was begun by the link.
        """
        attributes = attributes or Attributes()
        item = attributes.as_item(path, size)
        _require_item(item)
        now = self._ctx.clock.now()
        until = min(expires or now + self._ctx.settings.upload_lifetime, now + _MAX_UPLOAD_LIFETIME)
        if actor.link is not None:
            until = min(until, link_deadline(now, 0, size, self._ctx.settings.upload_lifetime))
        replace = replace and may_replace_at(actor.paths, archive_id, path)
        kept: dict[str, object] = {
            "mtime_ns": item.mtime_ns,
            "mode": item.mode,
            "digests": dict(item.digests),
            "replace": replace,
        }
        archive, reservation = self._reserve(
            actor, archive_id, 1, size, at=path, may_replace=replace, path=path, attributes=kept, until=until
        )
        names = digests_to_take(archive.profile.digests, item.digests)
        crash_point("upload.reserved")
        with _giving_up(Landing(self._ctx, actor, archive, reservation)):
            self._ctx.storage.begin_upload(reservation.part, reservation.id, path, digests=frozenset(names))
        state = UploadState.RESERVED
        if size == 0:
            state = self.settle_upload(actor, reservation.id).state
        return UploadView(reservation.id, archive_id, path, state, 0, size, until, item.mtime_ns, item.mode)

    def get_upload(self, actor: Actor, upload_id: UUID) -> UploadView:
        """How far an upload is; raises NotFoundError."""
        with self._ctx.db.begin() as tx:
            row = self._require_upload(tx, actor, upload_id)
        view = self._find_view(row)
        if view is None:
            with self._ctx.db.begin() as tx:
                view = self._view(self._require_upload(tx, actor, upload_id))
        return view

    def settle_upload(self, actor: Actor, upload_id: UUID) -> UploadView:
        """How far an upload is, finished by this call where all of its bytes are there and nobody has finished it.

        Whoever sees all bytes there takes the file for stored. Raises what finishing raises, UploadEndedError when
        there is nothing to go on with, and UploadBusyError while another request still has the upload.
        """
        view = self.get_upload(actor, upload_id)
        if view.state is UploadState.ABANDONED:
            raise UploadEndedError(f"The upload is {view.state.value}.", state=view.state.value)
        if view.state not in ACTIVE_UPLOADS or view.offset < view.size:
            return view
        receiver = self.open_upload(actor, upload_id, view.offset)
        try:
            receiver.finish()
        finally:
            receiver.close()
        return self.get_upload(actor, upload_id)

    def list_uploads(self, actor: Actor, archive_id: UUID) -> list[UploadView]:
        """The resumable uploads into an archive that are not ended, oldest first."""
        with self._ctx.db.begin() as tx:
            require_archive(tx, self._ctx, actor, Action.FILL, archive_id)
            query = _with_part_id(select_active_uploads(archive_id)).where(uploads.c.path.is_not(None))
            rows = tx.execute(query.order_by(uploads.c.id)).all()
        views = (self._find_view(row) for row in rows)
        return [view for view in views if view is not None]

    def open_upload(self, actor: Actor, upload_id: UUID, offset: int) -> UploadReceiver:
        """Go on with an upload at its durable offset.

        Raises UploadOffsetError with the offset when it is another one, UploadEndedError when there is nothing to go
        on with, and UploadBusyError while another request writes to it.
        """
        ctx = self._ctx
        with ctx.db.begin() as tx:
            row = self._require_upload(tx, actor, upload_id)
            archive = load(tx, row.archive_id)
            require_state(archive, ArchiveState.OPEN)
            _require_active(row, ctx.clock.now())
            active = (uploads.c.id == upload_id) & uploads.c.state.in_(ACTIVE_UPLOADS)
            marked = tx.execute(update(uploads).where(active).values(state=UploadState.RECEIVING.value))
            if not marked.rowcount:
                raise UploadEndedError("Another request has just ended the upload.", state="ended")
        part = PartRef(row.archive_id, row.part_id)
        writer = ctx.storage.open_upload(part, upload_id)
        if writer.offset != offset:
            found = writer.offset
            writer.close()
            raise UploadOffsetError(f"The upload goes on at {found}, not at {offset}.", offset=found)
        reservation = Reservation(row.id, part, row.part, 1, row.byte_count, None, row.removals, row.opened_at)
        given = Attributes(row.attributes["mtime_ns"], row.attributes["mode"], row.attributes["digests"])
        landing = Landing(ctx, actor, archive, reservation, ended_as=UploadState.FINISHED)
        item, replace = given.as_item(row.path, row.byte_count), row.attributes.get("replace", True)
        return UploadReceiver(landing, item, writer, replace=replace)

    def abort_upload(self, actor: Actor, upload_id: UUID) -> None:
        """End an upload and discard what came; safe to call twice."""
        with self._ctx.db.begin() as tx:
            row = self._require_upload(tx, actor, upload_id)
            archive = load(tx, row.archive_id, lock=True)
            release(tx, self._ctx, archive, upload_id, state=UploadState.ABANDONED)
        self._ctx.storage.forget_upload(PartRef(row.archive_id, row.part_id), upload_id)

    def expire_uploads(self, patience: Patience | None = None, with_links: Patience | None = None) -> int:
        """End every reservation that is past its time, and return how many; a periodic job.

        With `patience` an upload that may go on over many requests has its bytes for longer, by a clock of its own;
        `with_links` is the patience with those of strangers.
        """
        try:
            self._renote_ended()
        finally:  # what it could not do is kept, and delays nothing else
            ended = self._expire_late(patience, with_links)
        return ended

    def _expire_late(self, patience: Patience | None, with_links: Patience | None) -> int:
        late = self._list_late(uploads.c.path.is_not(None))
        ready = []
        for row in late:
            patient = with_links if is_of_link(row) else patience
            if patient is None or patient.is_over(row.id):
                ready.append(row)
        for patient in (patience, with_links):
            if patient is not None:
                patient.forget_all_but({row.id for row in late})
        return sum(self._expire(row) for row in [*self._list_late(uploads.c.path.is_(None)), *ready])

    def _renote_ended(self) -> None:
        """Let the logs tell what is there wherever somebody ended who may have noted what never became the archive's.

        He had a lease; without one the reservation may be forgotten. A log that fails keeps its own reservations only.
        """
        ctx, now = self._ctx, self._ctx.clock.now()
        with ctx.db.begin() as tx:
            rows = tx.execute(_with_part_id(select(uploads)).where(~_IS_SETTLED).order_by(uploads.c.id)).all()
        by_part: dict[tuple[PartRef, int], list[Row[Any]]] = {}
        for row in rows:
            if row.state not in ACTIVE_UPLOADS or not is_leased(ctx, row, now):
                by_part.setdefault((PartRef(row.archive_id, row.part_id), row.part), []).append(row)
        failed: PerdureError | None = None
        for (part, number), ended in by_part.items():
            try:
                renote_part(ctx, part, number)
            except PerdureError as error:
                failed = failed or error
                continue
            with ctx.db.begin() as tx:
                for row in ended:
                    if is_leased(ctx, row, now):
                        continue  # whoever does not know yet that he was given up may still note something
                    same = (uploads.c.id == row.id) & (uploads.c.lease_until == row.lease_until)  # not renewed since
                    tx.execute(update(uploads).where(same).values(lease_until=None))
        if failed is not None:
            raise failed

    def _list_late(self, condition: ColumnElement[bool]) -> Sequence[Row[Any]]:  # Any: rows of the table
        with self._ctx.db.begin() as tx:
            is_late = (uploads.c.expires_at < self._ctx.clock.now()) & _IS_SETTLED
            query = _with_part_id(select(uploads)).where(is_late, condition)
            return tx.execute(query.order_by(uploads.c.expires_at).limit(_EXPIRED_AT_ONCE)).all()

    def start_ingest(
        self, actor: Actor, archive_id: UUID, folder: str, into: bytes = b"", exclude: Sequence[str] = ()
    ) -> UUID:
        """Have a folder that the server can read put below `into`, by a job whose result accounts for every name."""
        return self._ingesting.start_ingest(actor, archive_id, folder, into, exclude)

    # Taking out

    def remove(
        self,
        actor: Actor,
        archive_id: UUID,
        paths: Sequence[bytes],
        *,
        recursive: bool = True,
        expected: Expected | None = None,
    ) -> RemoveReport:
        """Take paths out of an open archive, if what is `expected` is there; what is inherited is hidden instead."""
        return remove_paths(self._ctx, actor, archive_id, paths, recursive=recursive, expected=expected)

    def hide(self, actor: Actor, archive_id: UUID, paths: Sequence[bytes]) -> RemoveReport:
        """Hide inherited paths; raises NothingToHideError, changing nothing, when one is not inherited."""
        return remove_paths(self._ctx, actor, archive_id, paths, recursive=True, only_inherited=True)

    def _reserve(
        self,
        actor: Actor,
        archive_id: UUID,
        entries: int,
        size: int,
        *,
        at: bytes | None,
        may_replace: bool = True,
        path: bytes | None = None,
        attributes: Mapping[str, object] | None = None,
        until: datetime | None = None,
    ) -> tuple[Archive, Reservation]:
        ctx = self._ctx
        with ctx.db.begin() as tx:
            archive = require_archive(
                tx, ctx, actor, Action.FILL, archive_id, lock=True, path=at, may_replace=may_replace
            )
            require_state(archive, ArchiveState.OPEN)
            ctx.storage.check_room(size)
            return archive, reserve(
                tx,
                ctx,
                actor,
                archive,
                entries=entries,
                size=size,
                expires_at=until or ctx.clock.now() + STREAM_LEASE,
                path=path,
                attributes=attributes,
            )

    def _require_upload(self, tx: Connection, actor: Actor, upload_id: UUID) -> Row[Any]:  # Any: row of the table
        row = tx.execute(_with_part_id(select(uploads)).where(uploads.c.id == upload_id)).one_or_none()
        if row is None or row.path is None:
            raise UnknownUploadError(f"There is no upload {upload_id}.")
        if actor.link is not None and not is_begun_by(row, actor.link.link_id):
            raise UnknownUploadError(f"There is no upload {upload_id}.")
        try:
            may_replace = row.attributes.get("replace", True)
            require_archive(tx, self._ctx, actor, Action.FILL, row.archive_id, path=row.path, may_replace=may_replace)
        except NotFoundError:
            raise UnknownUploadError(f"There is no upload {upload_id}.") from None
        return row

    def _find_view(self, row: Row[Any]) -> UploadView | None:  # Any: row of the table
        """The upload, or None when another request has ended it since the row was read, or has only just begun it."""
        try:
            return self._view(row)
        except UnknownUploadError:
            return None

    def _view(self, row: Row[Any]) -> UploadView:  # Any: row of the table
        state = UploadState(row.state)
        offset = row.byte_count if state is UploadState.FINISHED else 0
        if row.state in ACTIVE_UPLOADS:
            offset = self._ctx.storage.upload_offset(PartRef(row.archive_id, row.part_id), row.id)
        given = row.attributes
        return UploadView(
            row.id,
            row.archive_id,
            row.path,
            state,
            offset,
            row.byte_count,
            row.expires_at,
            given.get("mtime_ns"),
            given.get("mode"),
        )

    def _expire(self, row: Row[Any]) -> bool:  # Any: row of the table
        ctx = self._ctx
        if owes_notes(row):
            write_owed_notes(ctx, row)
            return False
        with ctx.db.begin() as tx:
            archive = load(tx, row.archive_id, lock=True)
            is_late = uploads.c.expires_at < ctx.clock.now()
            if tx.execute(select(1).where(uploads.c.id == row.id, is_late)).first() is None:
                return False
            was_active = release(tx, ctx, archive, row.id, state=None)
            if was_active and row.path is not None:
                told = {"upload": str(row.id), "bytes": row.byte_count}
                ctx.events.record(tx, events.UPLOAD_EXPIRED, archive.id, SYSTEM, told)
            tx.execute(delete(uploads).where(uploads.c.id == row.id))
        if row.path is not None:
            ctx.storage.forget_upload(PartRef(row.archive_id, row.part_id), row.id)
        return was_active


@contextmanager
def _giving_up(landing: Landing) -> Iterator[None]:
    """Return the reserved room when what it was reserved for cannot even begin."""
    try:
        yield
    except Exception:
        landing.give_up()
        raise


def _require_item(item: BatchItem) -> None:
    problem = find_item_problem(item)
    if problem:
        raise RefusedItemError(f"{display_path(item.path[:200])!r}: {problem}.", path=display_path(item.path[:200]))


def _require_active(row: Row[Any], now: datetime) -> None:  # Any: row of the table
    if row.state not in ACTIVE_UPLOADS:
        raise UploadEndedError(f"The upload is {row.state}.", state=row.state)
    if row.expires_at < now:
        raise UploadEndedError("The upload was not finished in its time.", state="expired")


def _with_part_id(query: Select[Any]) -> Select[Any]:  # Any: all columns of the table
    same = (parts.c.archive_id == uploads.c.archive_id) & (parts.c.number == uploads.c.part)
    return query.add_columns(parts.c.id.label("part_id"), parts.c.removals).join(parts, same)
