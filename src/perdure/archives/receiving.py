"""Bytes on their way into an open archive: single files, batches, resumable uploads, and how they land.

A receiver belongs to one request and one thread at a time. Its bytes lie in staging from the first write on; they are
the archive's when `finish` returns, and nobody's before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha512
from uuid import UUID

from perdure.archives import events
from perdure.archives.entries import find_named_contents
from perdure.archives.errors import DigestMismatchError, PathTakenError, UploadEndedError
from perdure.archives.expecting import Expected, is_as_expected, not_as_expected
from perdure.archives.items import BatchItem, ItemResult, digests_to_take, kept_digests
from perdure.archives.layers import (
    PutResult,
    carry_out,
    discard_contents,
    line_of,
    owe_aftermath,
    put_entries,
    size_of,
)
from perdure.archives.model import Archive, ArchiveState, Entry, EntryKind, UploadState
from perdure.archives.placing import (
    STREAM_LEASE,
    Reservation,
    keep_in_doubt,
    link_deadline,
    note_refusal,
    prolong,
    release,
    renew_lease,
)
from perdure.archives.records import Context, load, require_state
from perdure.archives.renoting import renote_part
from perdure.formats.manifest import staged_line
from perdure.kernel.actor import Actor
from perdure.kernel.digests import find_digest_mismatch
from perdure.kernel.errors import PerdureError
from perdure.kernel.paths import display_path
from perdure.storage.crash_points import crash_point
from perdure.storage.errors import WrongSizeError
from perdure.storage.model import PartRef, Received
from perdure.storage.ports import Buffer
from perdure.storage.source_files import SMALL
from perdure.storage.staging import FileWriter, UploadWriter

CHECKPOINT_EVERY = 64 << 20  # bytes of an upload that a crash of the process may cost
FINISH_LEASE = timedelta(minutes=5)
_WORTH_NOTING = timedelta(minutes=1)  # of more time for an upload by a link
UNEXPECTED = "something else is there than is expected"


class Landing:
    """Reserved room in a part, and the step that makes what lies there the archive's."""

    def __init__(
        self,
        ctx: Context,
        actor: Actor,
        archive: Archive,
        reservation: Reservation,
        *,
        ended_as: UploadState | None = None,
    ) -> None:
        self.ctx = ctx
        self.archive = archive
        self.reservation = reservation
        self._actor = actor
        self._ended_as = ended_as
        self._is_ended = False
        self._has_noted = False
        self._kept = kept_digests(archive.profile.digests)
        self._until = reservation.opened_at

    @property
    def part(self) -> PartRef:
        return self.reservation.part

    @property
    def is_ended(self) -> bool:
        """Whether the reservation is used up."""
        return self._is_ended

    def digests_of(self, item: BatchItem) -> frozenset[str]:
        """The digests to take while the item's bytes come in."""
        return frozenset(digests_to_take(self.archive.profile.digests, item.digests))

    def make_entry(self, item: BatchItem, received: Received | None = None) -> Entry:
        """The entry of an item; of a file it has what was received, which may be later than what was announced."""
        archive_id, part = self.archive.id, self.reservation.number
        path, kind, size, mtime_ns, mode, target, _ = item
        if received is None:
            return Entry(archive_id, path, kind, size, mtime_ns, mode, {}, target, part)
        if received.mtime_ns is not None:
            mtime_ns, mode = received.mtime_ns, received.mode
        digests = {name: received.digests[name] for name in self._kept}
        return Entry(archive_id, path, kind, received.size, mtime_ns, mode, digests, target, part, received.content)

    def iter_entries(self, taken: Iterable[tuple[BatchItem, Received]]) -> Iterator[Entry]:
        """The entries of files that were copied in, by the batch: what `make_entry` gives for each of them."""
        archive_id, part, kept = self.archive.id, self.reservation.number, self._kept
        for (path, kind, _, _, _, target, _), (content, size, digests, mtime_ns, mode) in taken:
            if len(digests) != len(kept):  # what is kept was taken, and as a rule nothing else
                digests = {name: digests[name] for name in kept}
            # as `Entry(…)` does, in three quarters of its time
            yield Entry._make(
                (archive_id, path, kind, size, mtime_ns, mode, digests, target, part, content, None, None)
            )

    def keep_lease(self, lease: timedelta = STREAM_LEASE) -> None:
        """Renew the lease when half of it is gone: before every write into the part.

        Raises what the archive's state says, and UploadEndedError; then nothing may be written any more.
        """
        now = self.ctx.clock.now()
        until = self.reservation.lease_until
        if until is not None and until - now > lease / 2:
            return
        with self.ctx.db.begin() as tx:
            archive = load(tx, self.archive.id, share=True)
            require_state(archive, ArchiveState.OPEN)
            renewed = renew_lease(tx, self.ctx, self.reservation, now + lease)
        if renewed is None:
            raise _ended()
        self.reservation = renewed

    def require_pace(self, offset: int) -> None:
        """Raises UploadEndedError when a link has had the room for longer than what came of the file is worth."""
        if self._actor.link is not None and self._deadline(offset) < self.ctx.clock.now():
            raise _ended()

    def prolong(self, offset: int, *, gain: timedelta = timedelta(0)) -> None:
        """Give an upload by a link the time that so many bytes are worth, where it is more by more than `gain`."""
        if self._actor.link is None or (until := self._deadline(offset)) - self._until <= gain:
            return
        with self.ctx.db.begin() as tx:
            prolong(tx, self.reservation.id, self.ctx.clock.now(), until)
        self._until = until

    def _deadline(self, offset: int) -> datetime:
        lifetime = self.ctx.settings.upload_lifetime
        return link_deadline(self.reservation.opened_at, offset, self.reservation.size, lifetime)

    def settle(self, entries: Sequence[Entry], *, replace: bool = True, expected: Expected | None = None) -> PutResult:
        """Make entries durable and the archive's, in this order; what the layer refuses is discarded.

        With `expected` an entry is refused, as `UNEXPECTED`, unless that is at its path.

        Raises what the archive's state says when it takes nothing any more, and UploadEndedError when the reservation
        has ended; nothing is kept then.
        """
        ctx = self.ctx
        try:
            self.keep_lease()
        except PerdureError:
            self.give_up([entry.content for entry in entries if entry.content is not None])
            raise
        lines = {entry.path: line_of(entry) for entry in entries}
        self._log(lines.values(), self.reservation.removals)
        crash_point("fill.synced")
        result: PutResult | None = None
        with ctx.db.begin() as tx:
            archive = load(tx, self.archive.id, lock=True)
            ended_as = self._ended_as if archive.state is ArchiveState.OPEN else UploadState.ABANDONED
            was_active = release(tx, ctx, archive, self.reservation.id, state=ended_as)
            if was_active and archive.state is ArchiveState.OPEN:
                now = ctx.clock.now()
                looked_at = entries if expected is not None else ()
                strange = [e.path for e in looked_at if not is_as_expected(tx, archive.id, e.path, expected)]
                result = put_entries(
                    tx,
                    ctx,
                    archive,
                    self.reservation,
                    entries,
                    at=now,
                    replace=replace,
                    refusals=dict.fromkeys(strange, UNEXPECTED),
                )
                self._log([line_of(entry) for entry in result.untold], result.removals)
                owe_aftermath(tx, ctx, archive, self.reservation.number, result.aftermath)
                if result.refused and ended_as is not None:
                    note_refusal(tx, self.reservation.id)
                if result.stored:
                    told = _describe(result.stored, lines)
                    ctx.events.record(tx, events.FILES_ADDED, archive.id, self._actor, told)
        self._is_ended = True
        crash_point("fill.committed")
        if result is None:
            self._take_back(entries)
            require_state(archive, ArchiveState.OPEN)
            raise _ended()
        carry_out(ctx, archive.id, result.aftermath)
        return result

    def give_up(self, contents: Sequence[str] = (), *, state: UploadState | None = None) -> None:
        """Return the reserved room and discard what was staged; safe to call after anything.

        What an entry names stays: `settle` may have committed although it raised. If it has not, the reservation is
        kept until the log is told what is there in place of what was noted.
        """
        if self._is_ended:
            return
        if self._has_noted:
            state = UploadState.ABANDONED
        with self.ctx.db.begin() as tx:
            archive = load(tx, self.archive.id, lock=True)
            was_active = release(tx, self.ctx, archive, self.reservation.id, state=state)
            if self._has_noted:
                keep_in_doubt(tx, self.reservation.id, self.ctx.clock.now())
            if not was_active and contents:
                named = find_named_contents(tx, archive.id, self.reservation.number, contents)
                contents = [content for content in contents if content not in named]
        self._is_ended = True
        self.discard(contents)
        if self._has_noted and not was_active:
            renote_part(self.ctx, self.part, self.reservation.number)

    def discard(self, contents: Sequence[str]) -> None:
        """Discard some of what was staged."""
        discard_contents(self.ctx, self.archive.id, {self.part: contents})

    def _log(self, lines: Collection[bytes], removals: int) -> None:
        """Note entries durably, with all that was written of them, as what came after so many removals."""
        if lines:
            self._has_noted = True
            self.ctx.storage.log_staged(self.part, [staged_line(line[:-1], removals) for line in lines])
            self.ctx.storage.sync(self.part)

    def _take_back(self, entries: Sequence[Entry]) -> None:
        """Discard what was staged for entries that never became the archive's, and take their lines away.

        Whoever ended the reservation may have done so before they were noted.
        """
        self.discard([entry.content for entry in entries if entry.content is not None])
        renote_part(self.ctx, self.part, self.reservation.number)


class FileReceiver:
    """One file in one stream."""

    def __init__(self, landing: Landing, item: BatchItem, *, replace: bool, expected: Expected | None = None) -> None:
        self._landing = landing
        self._item = item
        self._replace = replace
        self._expected = expected
        self._came = 0
        self._inflow = Inflow(landing, item)

    def write(self, data: Buffer) -> None:
        """Take bytes in order; raises WrongSizeError when there are more than were announced, and UploadEndedError."""
        self._landing.keep_lease()
        self._landing.require_pace(self._came)
        self._inflow.write(data)
        self._came += len(data)

    def finish(self) -> Entry:
        """Make the file the archive's and return its entry; when it raises, nothing of it is kept.

        Raises WrongSizeError, DigestMismatchError, PathTakenError when it cannot be at its path, and
        EntryChangedError when something else is there than is expected.
        """
        try:
            self._landing.keep_lease()
            received = self._inflow.finish()
        except PerdureError:
            self._landing.give_up()
            raise
        wrong = find_digest_mismatch(self._item.digests, received.digests)
        if wrong:
            self._landing.give_up([received.content])
            raise _mismatch(self._item, wrong)
        entry = self._landing.make_entry(self._item, received)
        return _require_stored(self._landing.settle([entry], replace=self._replace, expected=self._expected))

    def abort(self) -> None:
        """Discard what came; safe to call after anything but a `finish` that returned."""
        self._landing.give_up(self._inflow.leave())


class BatchReceiver:
    """The contents of many files, concatenated in the order of the items."""

    def __init__(self, landing: Landing, items: Sequence[BatchItem], problems: Mapping[int, str]) -> None:
        self._landing = landing
        self._items = items
        self._problems = dict(problems)
        self._received: dict[int, Received] = {}
        self._waiting: Iterator[int] = (i for i, item in enumerate(items) if item.kind is EntryKind.FILE)
        self._index: int | None = None
        self._left = 0
        self._inflow: Inflow | None = None
        self._next_file()

    def write(self, data: Buffer) -> None:
        """Take bytes in order, cut anywhere; raises WrongSizeError when there are more than the items have."""
        self._landing.keep_lease()
        view = memoryview(data)
        while len(view):
            if self._index is None:
                self.abort()
                raise WrongSizeError("More bytes came than the items of the batch have.")
            piece, view = view[: self._left], view[self._left :]
            if self._inflow is not None:
                self._inflow.write(piece)
            self._left -= len(piece)
            if not self._left:
                self._end_file()

    def finish(self) -> list[ItemResult]:
        """Make what was received the archive's; what became of each item, in their order.

        Raises WrongSizeError when bytes are missing; nothing is kept then.
        """
        if self._index is not None:
            self.abort()
            raise WrongSizeError("Fewer bytes came than the items of the batch have.")
        kept = [index for index in range(len(self._items)) if index not in self._problems]
        entries = [self._landing.make_entry(self._items[index], self._received.get(index)) for index in kept]
        result = self._landing.settle(entries)
        digests = {entry.path: entry.digests for entry in result.stored}
        return [self._result(index, item, result, digests) for index, item in enumerate(self._items)]

    def abort(self) -> None:
        """Discard what came; safe to call after anything but a `finish` that returned."""
        left = [] if self._inflow is None else self._inflow.leave()
        self._landing.give_up([*left, *(received.content for received in self._received.values())])

    def _result(
        self, index: int, item: BatchItem, result: PutResult, digests: Mapping[bytes, Mapping[str, str]]
    ) -> ItemResult:
        problem = self._problems.get(index) or result.refused.get(item.path)
        return ItemResult(item.path, problem is None, problem, {} if problem else digests[item.path])

    def _next_file(self) -> None:
        """Go to the next file that has bytes to come."""
        for index in self._waiting:
            item = self._items[index]
            self._index, self._left = index, item.size
            self._inflow = None if index in self._problems else Inflow(self._landing, item)
            if self._left:
                return
            self._end_file(go_on=False)
        self._index = None

    def _end_file(self, *, go_on: bool = True) -> None:
        index = self._index
        if index is not None and self._inflow is not None:
            received = self._inflow.finish()
            wrong = find_digest_mismatch(self._items[index].digests, received.digests)
            if wrong:
                self._problems[index] = f"the bytes received do not have the stated {wrong}"
                self._landing.discard([received.content])
            else:
                self._received[index] = received
        self._inflow = None
        if go_on:
            self._next_file()


class UploadReceiver:
    """One request's piece of a resumable upload; `close` it when the request ends, whatever happened."""

    def __init__(self, landing: Landing, item: BatchItem, writer: UploadWriter, *, replace: bool = True) -> None:
        self._landing = landing
        self._item = item
        self._replace = replace
        self._writer = writer
        self._safe = writer.offset
        self._is_held = False

    @property
    def id(self) -> UUID:
        return self._landing.reservation.id

    @property
    def offset(self) -> int:
        """How many bytes of the file are written."""
        return self._writer.offset

    @property
    def size(self) -> int:
        return self._item.size

    @property
    def is_complete(self) -> bool:
        return self._writer.offset == self._item.size

    def write(self, data: Buffer) -> None:
        """Write at the offset; raises WrongSizeError, writing nothing, past the announced size."""
        if self._writer.offset + len(data) > self._item.size:
            raise WrongSizeError(f"More than the announced {self._item.size} bytes came.", offset=self._writer.offset)
        self._writer.write(data)
        self._landing.prolong(self._writer.offset, gain=_WORTH_NOTING)
        if not self._is_held and self._writer.offset - self._safe >= CHECKPOINT_EVERY:
            self.checkpoint()

    def hold(self) -> None:
        """Keep nothing of what is written from now on before it is asked for: it may turn out to be wrong."""
        self._is_held = True

    def checkpoint(self) -> int:
        """Make what was written durable and return the offset, which no crash takes back."""
        self._safe = self._writer.flush_durable()
        self._landing.prolong(self._safe)
        return self._safe

    def finish(self) -> Entry:
        """Make the complete file the archive's and return its entry. Safe to call again after a crash at any step.

        Raises WrongSizeError when bytes are missing, and then the upload goes on; DigestMismatchError and
        PathTakenError end it.
        """
        landing = self._landing
        self._writer.write(b"")  # digests what an earlier request wrote, which takes long, before the lease begins
        landing.keep_lease(FINISH_LEASE)
        received = self._writer.finish(self._item.size)
        wrong = find_digest_mismatch(self._item.digests, received.digests)
        if wrong:
            landing.give_up([received.content], state=UploadState.ABANDONED)
            self._forget()
            raise _mismatch(self._item, wrong)
        try:
            return _require_stored(landing.settle([landing.make_entry(self._item, received)], replace=self._replace))
        finally:
            if landing.is_ended:
                self._forget()

    def close(self) -> None:
        """Let go of the upload; safe to call twice."""
        self._writer.close()

    def _forget(self) -> None:
        self._writer.close()
        self._landing.ctx.storage.forget_upload(self._landing.part, self.id)


class Inflow:
    """The bytes of one file of known size: a small one is gathered and written in one step."""

    def __init__(self, landing: Landing, item: BatchItem) -> None:
        self._landing = landing
        self._item = item
        self._gathered = bytearray()
        self._writer: FileWriter | None = None
        self._received: Received | None = None
        if item.size > SMALL:
            digests = landing.digests_of(item)
            self._writer = landing.ctx.storage.begin_file(landing.part, item.path, digests=digests)

    def write(self, data: Buffer) -> None:
        if self._writer is not None:
            if self._writer.size + len(data) > self._item.size:
                raise _wrong_size(self._item, self._writer.size + len(data))
            self._writer.write(data)
            return
        if len(self._gathered) + len(data) > self._item.size:
            raise _wrong_size(self._item, len(self._gathered) + len(data))
        self._gathered += data

    def finish(self) -> Received:
        """Close the file; raises WrongSizeError, and then it is gone."""
        if self._writer is not None:
            return self._writer.finish(self._item.size)
        if len(self._gathered) != self._item.size:
            raise _wrong_size(self._item, len(self._gathered))
        landing = self._landing
        self._received = landing.ctx.storage.write_small(
            landing.part, [(self._item.path, bytes(self._gathered))], landing.digests_of(self._item)
        )[0]
        return self._received

    def leave(self) -> list[str]:
        """Write no more, and tell what is staged: it is not ours to remove where sealing may have begun."""
        if self._writer is not None:
            content = self._writer.leave()
            return [] if content is None else [content]
        return [] if self._received is None else [self._received.content]


def _describe(entries: Sequence[Entry], lines: Mapping[bytes, bytes]) -> dict[str, object]:
    """What the event of a batch says: how much, and the digest of the list, which is the lines sorted by path."""
    listed = b"".join([lines[path] for path in sorted([entry.path for entry in entries])])
    return {"count": len(entries), "bytes": size_of(entries), "list_digest": sha512(listed).hexdigest()}


def _require_stored(result: PutResult) -> Entry:
    for path, reason in result.refused.items():
        if reason == UNEXPECTED:
            raise not_as_expected(path)
        raise PathTakenError(f"{display_path(path)!r}: {reason}.", path=display_path(path))
    return result.stored[0]


def _ended() -> UploadEndedError:
    return UploadEndedError("The time for this transfer was over before it ended, or it was given up.")


def _wrong_size(item: BatchItem, size: int) -> WrongSizeError:
    return WrongSizeError(f"{display_path(item.path)!r}: {size} bytes came in place of {item.size}.")


def _mismatch(item: BatchItem, name: str) -> DigestMismatchError:
    return DigestMismatchError(
        f"{display_path(item.path)!r} does not have the stated {name}.", path=display_path(item.path), digest=name
    )
