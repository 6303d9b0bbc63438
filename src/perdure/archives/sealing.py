"""Make a part that takes no more a write-once object: full parts while the archive is open, all of them at closing."""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA
from sqlalchemy.types import Text

from perdure.archives import events
from perdure.archives.copying import ensure_copies, lacks_copies
from perdure.archives.entries import default_content, list_part_entries
from perdure.archives.heads import CHECKSUMS_FOLDER, Heads, writer
from perdure.archives.model import Archive, ArchiveState, Part, PartState
from perdure.archives.placing import (
    ACTIVE_UPLOADS,
    SEAL_JOB,
    add_usage,
    defer_seal,
    list_parts,
    select_active_uploads,
)
from perdure.archives.records import Context, load, load_all
from perdure.archives.stages import Stages
from perdure.archives.tables import archives, files, parts, superseded, uploads
from perdure.formats.manifest import MANIFEST_NAME, ManifestEntry, iter_manifest_lines, path_of_line
from perdure.jobs import JobContext, Json
from perdure.kernel.actor import SYSTEM
from perdure.storage.crash_points import crash_point
from perdure.storage.model import PartRef, SealedPart

_QUIET = timedelta(minutes=5)
_LOOK_EVERY = 0.2  # seconds, for parts that have become full


class Sealing:
    """Seals parts. Every step may stop anywhere and run again."""

    def __init__(self, ctx: Context, heads: Heads) -> None:
        self._ctx = ctx
        self._heads = heads

    def register(self) -> None:
        """Name the handler of its job to the queue; once for each queue."""
        self._ctx.jobs.register(SEAL_JOB, self._run)

    def seal(self, archive_id: UUID, number: int) -> bool:
        """Seal one part, or drop it when it holds nothing; False when something is still on its way into it."""
        part = self._fence(archive_id, number)
        if part is None:
            return False
        ctx, ref = self._ctx, PartRef(archive_id, part.id)
        if part.state is PartState.SEALED:
            ctx.storage.forget_staged_log(ref)
            return True
        crash_point("seal.fenced")
        archive, entries = self._read(archive_id, number)
        if not entries and not self._is_stored(ref):
            self._drop(ref, number)
            return True
        sealed, final = ctx.storage.seal_part(
            ref,
            entries,
            created=ctx.clock.now(),
            message=f"Part {number} of {archive_id.urn}",
            user=writer(ctx),
            algorithm=archive.profile.digests[0],
        )
        crash_point("seal.sealed")
        self._record(ref, number, sealed, entries, final)
        crash_point("seal.recorded")
        ctx.storage.forget_staged_log(ref)
        return True

    def submit(self, sealer: Executor, archive_id: UUID, number: int) -> Future[bool]:
        """Have a part sealed by `sealer`, beside what the caller does; the outcome is what `seal` says."""
        return sealer.submit(copy_context().run, self.seal, archive_id, number)

    def _run(self, job: JobContext, payload: dict[str, Any]) -> Mapping[str, Json]:  # Any: see Handler
        """Seal what is full, also what fills up meanwhile, and place and verify the copies of one part beside the next.

        It ends once the archive is closing, which waits for it, with the part that it is sealing at that moment and the
        copies that are made beside it: the rest is for the closing, which has work to do beside the copies.
        """
        archive_id = UUID(payload["archive"])
        stages, sealed, asked, copied = Stages(), 0, set[int](), set[UUID]()
        sealing = deque[Future[bool]]()
        with one_thread("seal") as sealer:

            def look() -> tuple[Archive, list[Part]]:
                """The archive and its parts; what has become full is sealed when its turn comes."""
                archive, listed = self._look(archive_id)
                full = [part.number for part in listed if part.state in (PartState.FULL, PartState.SEALING)]
                if archive.state is ArchiveState.OPEN:
                    sealing.extend(self.submit(sealer, archive_id, number) for number in full if number not in asked)
                    asked.update(full)
                return archive, listed

            while True:
                job.raise_if_stopping()
                archive, listed = look()
                if archive.state is not ArchiveState.OPEN and not _is_any_begun(sealing):
                    break
                lacking = [part for part in listed if part.state is PartState.SEALED and part.id not in copied]
                if lacking:
                    object_id = PartRef(archive_id, lacking[0].id).object_id
                    job.progress(message=f"copies of part {lacking[0].number}")
                    told = _NowAndThen(look)
                    ensure_copies(self._ctx, archive, object_id, progress=told, should_stop=job.should_stop)
                    copied.add(lacking[0].id)
                    stages.end("copies")
                elif sealing:
                    one = sealing.popleft()
                    sealed += not one.cancelled() and one.result()
                    stages.end("seal")
                else:
                    break
        sealed += sum(one.result() for one in sealing if not one.cancelled())
        return {"sealed": sealed, "seconds": stages.as_json()}

    def _look(self, archive_id: UUID) -> tuple[Archive, list[Part]]:
        with self._ctx.db.begin() as tx:
            return load(tx, archive_id), list_parts(tx, archive_id)

    def _fence(self, archive_id: UUID, number: int) -> Part | None:
        """Let nothing into or out of the part from here on."""
        with self._ctx.db.begin() as tx:
            load(tx, archive_id, lock=True)
            part = next((part for part in list_parts(tx, archive_id) if part.number == number), None)
            pending = select(1).where(
                uploads.c.archive_id == archive_id, uploads.c.part == number, uploads.c.state.in_(ACTIVE_UPLOADS)
            )
            if part is None or tx.execute(pending.limit(1)).first() is not None:
                return None
            if part.state is not PartState.SEALED:
                tx.execute(_update_part(archive_id, number).values(state=PartState.SEALING.value))
            return part

    def _read(self, archive_id: UUID, number: int) -> tuple[Archive, list[ManifestEntry]]:
        """The part's entries as one statement sees them, sorted by path, with the digests of their metadata."""
        with self._ctx.db.begin() as tx:
            entries = list_part_entries(tx, archive_id, number, self._list_metadata(tx, archive_id, number))
            return load(tx, archive_id), entries

    def _list_metadata(self, tx: Connection, archive_id: UUID, number: int) -> dict[bytes, dict[str, object]]:
        """What the manifest says of the metadata of the part's paths; most archives have none and are asked once."""
        if not self._ctx.metadata.state(tx, archive_id).sequence:
            return {}
        paths = select(files.c.path).where(files.c.archive_id == archive_id, files.c.part == number)
        known = self._ctx.metadata.digests(tx, archive_id, tx.execute(paths).scalars())
        return {path: {"digest": found.digest, "sequence": found.sequence} for path, found in known.items()}

    def _is_stored(self, ref: PartRef) -> bool:
        with self._ctx.db.begin() as tx:
            return self._ctx.storage.find_object(tx, ref.object_id) is not None

    def _drop(self, ref: PartRef, number: int) -> None:
        """A part that holds nothing is no object."""
        with self._ctx.db.begin() as tx:
            archive = load(tx, ref.archive_id, lock=True)
            row = tx.execute(select(parts).where(_is_part(ref.archive_id, number))).one_or_none()
            if row is not None:
                add_usage(tx, archive.account_id, files=-row.file_count, size=-row.byte_count)
            gone = (superseded.c.archive_id == ref.archive_id) & (superseded.c.part == number)
            tx.execute(delete(superseded).where(gone))
            tx.execute(delete(parts).where(_is_part(ref.archive_id, number)))
        self._ctx.storage.discard_part(ref)

    def _record(
        self,
        ref: PartRef,
        number: int,
        sealed: SealedPart,
        entries: Sequence[ManifestEntry],
        final: Mapping[bytes, str],
    ) -> None:
        """Write what was sealed into the head and the database."""
        ctx = self._ctx
        manifest = ctx.storage.read_sealed_document(ref, MANIFEST_NAME, digest=sealed.manifest_digest)
        with self._heads.writing(ref.archive_id, message=f"Part {number} sealed") as change:
            tx = change.tx
            before = tx.execute(select(parts).where(_is_part(ref.archive_id, number))).one()
            if before.state != PartState.SEALED.value:
                ctx.storage.record_part(tx, ref, sealed)
                _save_contents(tx, ref.archive_id, number, entries, final)
                self._forget_superseded(tx, ref, number, manifest)
                add_usage(
                    tx,
                    change.archive.account_id,
                    files=sealed.file_count - before.file_count,
                    size=sealed.byte_count - before.byte_count,
                )
                tx.execute(
                    _update_part(ref.archive_id, number).values(
                        state=PartState.SEALED.value,
                        file_count=sealed.file_count,
                        byte_count=sealed.byte_count,
                        inventory_digest=sealed.inventory_digest,
                        manifest_digest=sealed.manifest_digest,
                        sealed_at=ctx.clock.now(),
                    )
                )
                counts = {"files": sealed.file_count, "bytes": sealed.byte_count}
                told = {"number": number, "object": ref.object_id, **counts}
                ctx.events.record(tx, events.PART_SEALED, ref.archive_id, SYSTEM, told)
                name = f"{CHECKSUMS_FOLDER}part-{number:04d}.ndjson.gz"
                change.files[name] = manifest

    def _forget_superseded(self, tx: Connection, ref: PartRef, number: int, manifest: bytes) -> None:
        """Drop notes of what was superseded before it was sealed: the part does not hold it."""
        own = (superseded.c.archive_id == ref.archive_id) & (superseded.c.part == number)
        noted = set(tx.execute(select(superseded.c.path).where(own)).scalars())
        if noted:
            noted -= {path_of_line(line) for line in iter_manifest_lines(io.BytesIO(manifest))}
            tx.execute(delete(superseded).where(own, superseded.c.path.in_(noted)))


class _NowAndThen:
    """A meter that looks at something else beside what it measures."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self._last = time.monotonic()

    def __call__(self, count: int, size: int) -> None:
        if time.monotonic() - self._last > _LOOK_EVERY:
            self._act()
            self._last = time.monotonic()


def _is_any_begun(sealing: Iterable[Future[bool]]) -> bool:
    """Whether something is being sealed at this moment; what waits for its turn is cancelled."""
    for one in sealing:
        one.cancel()
    return not all(one.done() for one in sealing)


@contextmanager
def one_thread(name: str) -> Iterator[Executor]:
    """A thread that does one piece of work after another; what it has not begun at the end is cancelled."""
    with ThreadPoolExecutor(1, name) as thread:
        try:
            yield thread
        finally:
            thread.shutdown(cancel_futures=True)


def copy_quiet(ctx: Context) -> int:
    """Defer the copies that sealed parts of open archives lack, once nothing has come in for some minutes; how many.

    A periodic job. An archive that is busy is looked at the next time, one that is closing makes its copies itself.
    """
    with ctx.db.begin() as tx:
        query = select(parts.c.archive_id, parts.c.id).join(archives, archives.c.id == parts.c.archive_id)
        waiting = query.where(archives.c.state == ArchiveState.OPEN.value, parts.c.state == PartState.SEALED.value)
        sealed: dict[UUID, list[str]] = {}
        for row in tx.execute(waiting):
            sealed.setdefault(row.archive_id, []).append(PartRef(row.archive_id, row.id).object_id)
        copies = ctx.storage.copies(tx, [object_id for held in sealed.values() for object_id in held])
        quiet = []
        for archive in load_all(tx, archives.c.id.in_(sealed)):
            lacks_some = any(lacks_copies(ctx, archive, copies[object_id]) for object_id in sealed[archive.id])
            if lacks_some and _is_quiet(tx, archive.id, ctx.clock.now() - _QUIET):
                quiet.append(archive)
        for archive in quiet:
            defer_seal(tx, ctx, archive.id)
    return len(quiet)


def _is_quiet(tx: Connection, archive_id: UUID, since: datetime) -> bool:
    if tx.execute(select_active_uploads(archive_id).limit(1)).first() is not None:
        return False
    newest = select(func.max(parts.c.number)).where(parts.c.archive_id == archive_id).scalar_subquery()
    came = select(func.max(files.c.added_at)).where(files.c.archive_id == archive_id, files.c.part == newest)
    last = tx.execute(came).scalar_one()
    return last is None or last < since


def _save_contents(
    tx: Connection, archive_id: UUID, number: int, entries: Sequence[ManifestEntry], final: Mapping[bytes, str]
) -> None:
    """Note where files lie whose content path sealing has changed."""
    moved = [
        (entry.path, final[entry.path] if final[entry.path] != default_content(entry.path) else None)
        for entry in entries
        if entry.path in final and entry.content != final[entry.path]
    ]
    if not moved:
        return
    pairs = (
        func.unnest(
            literal([path for path, _ in moved], ARRAY(BYTEA)), literal([content for _, content in moved], ARRAY(Text))
        )
        .table_valued("path", "content", name="moved")
        .render_derived()
    )
    tx.execute(
        update(files)
        .where(files.c.archive_id == archive_id, files.c.part == number, files.c.path == pairs.c.path)
        .values(content=pairs.c.content)
    )


def _is_part(archive_id: UUID, number: int) -> Any:  # Any: an SQL condition
    return (parts.c.archive_id == archive_id) & (parts.c.number == number)


def _update_part(archive_id: UUID, number: int) -> Any:  # Any: an SQL statement
    return update(parts).where(_is_part(archive_id, number))
