"""Take in a folder that the server itself can read: no HTTP, each file read once.

The folder is walked by open descriptors and no link is followed, so that nobody can lead the walk out of it. Every
name that is met is counted once: stored, present, or refused with its reason.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from perdure.archives import events
from perdure.archives.closing import actor_document, parse_actor
from perdure.archives.entries import find_visible
from perdure.archives.errors import FolderNotAllowedError
from perdure.archives.items import (
    BatchItem,
    PlanItem,
    Verdict,
    compare_item,
    find_batch_conflicts,
    find_item_problem,
    find_target_problem,
)
from perdure.archives.layers import PutResult, list_layers, size_of
from perdure.archives.model import ArchiveState, Entry, EntryKind, UploadState
from perdure.archives.placing import release, reserve, select_active_uploads
from perdure.archives.receiving import Landing
from perdure.archives.records import Context, load, require_archive, require_state
from perdure.archives.tables import uploads
from perdure.identity.model import Action
from perdure.jobs import JobContext, Json
from perdure.kernel.actor import Actor
from perdure.kernel.errors import BadInputError, NotAllowedError
from perdure.kernel.paths import check_path, display_path
from perdure.storage.copying import CopyIn, Looking
from perdure.storage.crash_points import crash_point
from perdure.storage.errors import SourceChangedError, SourceRefusedError
from perdure.storage.helpers import Looked, SourceFile
from perdure.storage.model import Received

INGEST_JOB = "archives.ingest"
_BATCH_FILES = 8_000  # three fill a part; each is a sync, which writes the same blocks of the file system again
_BATCH_BYTES = 256 << 20
_BATCH_FOLDERS = 100  # each keeps a descriptor open
_LOOKED_AT_ONCE = 2_000  # names of a folder
_BATCHES_ON_THE_WAY = 3  # read and settled while the next one is looked at
_GROUP_FILES = 250
_GROUP_BYTES = 16 << 20
_COPIERS = 4
_NAMED_REFUSALS = 1_000
_LEASE = timedelta(minutes=10)
_SLOW_BYTES_PER_SECOND = 2_500_000  # of one batch, while others are on their way
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PASS_FOLDER = _OPEN_FOLDER | getattr(os, "O_PATH", 0)  # as the system does on a path: what is passed need not be read


class Folder:
    """An open folder, closed when the last batch that needs it is done."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


class Found(NamedTuple):
    """One name that the walk met: an item with its open folder, or why it is refused."""

    item: BatchItem
    folder: Folder | None = None
    name: bytes = b""
    problem: str | None = None


@dataclass(slots=True)
class IngestReport:
    """Every name counted once: `counted` is the sum of the three others."""

    counted: int = 0
    stored: int = 0
    present: int = 0
    refused: int = 0
    byte_count: int = 0
    reasons: list[tuple[str, str]] = field(default_factory=list)

    def refuse(self, path: bytes, reason: str) -> None:
        self.refused += 1
        if len(self.reasons) < _NAMED_REFUSALS:
            self.reasons.append((display_path(path), reason))

    def add(self, landed: _Landed) -> int:
        """Count what became of a batch; returns the bytes that were stored of it."""
        result = landed.result
        for path, reason in landed.unread:
            self.refuse(path, reason)
        self.stored += len(result.stored)
        stored = size_of(result.stored)
        self.byte_count += stored
        for path, reason in result.refused.items():
            self.refuse(path, reason)
        return stored

    def as_json(self) -> dict[str, Json]:
        return {
            "counted": self.counted,
            "stored": self.stored,
            "present": self.present,
            "refused": self.refused,
            "bytes": self.byte_count,
            "refusals": [{"path": path, "reason": reason} for path, reason in self.reasons],
        }


class Ingesting:
    """Server-side ingest; the job may run again and then takes in only what is missing."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        ctx.jobs.register(INGEST_JOB, self._run)

    def start_ingest(
        self, actor: Actor, archive_id: UUID, folder: str, into: bytes = b"", exclude: Sequence[str] = ()
    ) -> UUID:
        """Have a folder's content put below `into`; names that match a pattern of `exclude` are passed over.

        Raises FolderNotAllowedError unless the folder is below a root that the operator allows.
        """
        ctx = self._ctx
        if into:
            check_path(into)
        with ctx.db.begin() as tx:
            archive = require_archive(tx, ctx, actor, Action.FILL, archive_id)
            require_state(archive, ArchiveState.OPEN)
            resolved = self._require_allowed(folder)
            payload: dict[str, Json] = {
                "archive": str(archive_id),
                "actor": actor_document(actor),
                "folder": resolved,
                "into": into.hex(),
                "exclude": list(exclude),
            }
            return ctx.jobs.defer(tx, INGEST_JOB, payload, thing=archive_id, requested_by=actor.identity_id)

    def _require_allowed(self, folder: str) -> str:
        """The folder without links in its path; a folder that is not there is told apart only below a root."""
        if "\0" in folder or not os.path.isabs(folder):
            raise BadInputError("The folder must be an absolute path.", field="folder")
        resolved = os.path.realpath(folder)
        roots = [os.path.realpath(root) for root in self._ctx.settings.ingest_roots]
        if not any(resolved == root or resolved.startswith(root.rstrip("/") + "/") for root in roots):
            raise FolderNotAllowedError(f"{folder} is below none of the allowed roots.")
        if not os.path.isdir(resolved):
            raise BadInputError(f"{folder} is not a folder.", field="folder")
        return resolved

    def _run(self, job: JobContext, payload: dict[str, Any]) -> Mapping[str, Json]:  # Any: see Handler
        archive_id, actor = UUID(payload["archive"]), parse_actor(payload["actor"])
        self._release_earlier(archive_id, job.job_id)
        root = open_without_links(self._require_allowed(payload["folder"]))
        report = IngestReport()
        landing: deque[Future[_Landed]] = deque()
        with (
            self._ctx.storage.copying() as copy_in,
            ThreadPoolExecutor(_COPIERS, "ingest") as copiers,
            ThreadPoolExecutor(1, "settle") as settler,
        ):
            walk = iter_found(root, copy_in.looking, into=bytes.fromhex(payload["into"]), exclude=payload["exclude"])
            for batch in iter_batches(walk):
                job.raise_if_stopping()
                self._require_still(actor, archive_id)
                taken = self._take(actor, archive_id, job.job_id, batch, report, partial(_copy_batch, copiers, copy_in))
                if taken is not None:
                    landing.append(settler.submit(taken.land))
                while len(landing) > _BATCHES_ON_THE_WAY:
                    job.count_received(report.add(landing.popleft().result()))
                job.progress(done=report.byte_count, unit="bytes", message=f"{report.counted} names")
            for one in landing:
                job.count_received(report.add(one.result()))
        job.progress(done=report.byte_count, unit="bytes", message=f"{report.counted} names")
        with self._ctx.db.begin() as tx:
            told: dict[str, object] = {name: value for name, value in report.as_json().items() if name != "refusals"}
            self._ctx.events.record(tx, events.INGEST_FINISHED, archive_id, actor, told)
        return report.as_json()

    def _require_still(self, actor: Actor, archive_id: UUID) -> None:
        """Raises NotAllowedError when he who asked has been disabled, or has lost the role, since."""
        ctx = self._ctx
        with ctx.db.begin() as tx:
            asking = (
                actor
                if actor.identity_id is None
                else ctx.identity.find_actor_in(tx, actor.identity_id, asked_as=actor)
            )
            if asking is None or not ctx.identity.can(tx, asking, Action.FILL, load(tx, archive_id).thing()):
                raise NotAllowedError("Whoever asked for this may no longer fill the archive.")

    def _release_earlier(self, archive_id: UUID, job_id: UUID) -> None:
        """Return the room that an earlier attempt of this job had reserved when it was stopped.

        The reservation is kept until the log is told what is there in place of what was noted and never came.
        """
        with self._ctx.db.begin() as tx:
            archive = load(tx, archive_id, lock=True)
            own = uploads.c.attributes["job"].as_string() == str(job_id)
            for row in tx.execute(select_active_uploads(archive_id).where(own)).all():
                release(tx, self._ctx, archive, row.id, state=UploadState.ABANDONED)

    def _take(
        self,
        actor: Actor,
        archive_id: UUID,
        job_id: UUID,
        batch: Sequence[Found],
        report: IngestReport,
        start_copying: Callable[[Landing, Sequence[Found]], list[_Copying]],
    ) -> _Taken | None:
        """Begin to read what is missing of a batch into the archive's staging."""
        report.counted += len(batch)
        wanted = self._plan(archive_id, batch, report)
        if not wanted:
            return None
        landing = self._reserve(actor, archive_id, job_id, wanted)
        return _Taken(landing, start_copying(landing, wanted))

    def _plan(self, archive_id: UUID, batch: Sequence[Found], report: IngestReport) -> list[Found]:
        """What the archive does not show yet; what it refuses is told."""
        good: list[Found] = []
        for found in batch:
            item, _, _, problem = found
            problem = problem or find_item_problem(item)
            if problem:
                report.refuse(item.path, problem)
            else:
                good.append(found)
        with self._ctx.db.begin() as tx:
            shown = find_visible(tx, list_layers(tx, archive_id), [found.item.path for found in good])
        wanted = [found for found in good if not _is_shown(found.item, shown.get(found.item.path))] if shown else good
        report.present += len(good) - len(wanted)
        conflicts = find_batch_conflicts([found.item for found in wanted])
        for index, problem in conflicts.items():
            report.refuse(wanted[index].item.path, problem)
        return [found for index, found in enumerate(wanted) if index not in conflicts] if conflicts else wanted

    def _reserve(self, actor: Actor, archive_id: UUID, job_id: UUID, wanted: Sequence[Found]) -> Landing:
        ctx = self._ctx
        size = sum([found.item.size for found in wanted])
        lease = _LEASE + timedelta(seconds=size / _SLOW_BYTES_PER_SECOND)
        ctx.storage.check_room(size)
        with ctx.db.begin() as tx:
            archive = load(tx, archive_id, lock=True)
            require_state(archive, ArchiveState.OPEN)
            reservation = reserve(
                tx,
                ctx,
                actor,
                archive,
                entries=len(wanted),
                size=size,
                expires_at=ctx.clock.now() + lease,
                attributes={"job": str(job_id)},
            )
        return Landing(ctx, actor, archive, reservation)


class _Copying(NamedTuple):
    """Some of a batch, and the reading of it; None for what has no bytes."""

    found: Sequence[Found]
    outcomes: Future[list[Received | Exception]] | None


@dataclass(frozen=True, slots=True)
class _Landed:
    """What became of a batch: what the layer made of it, and the files that were not read, with their reasons."""

    result: PutResult
    unread: list[tuple[bytes, str]]


@dataclass(frozen=True, slots=True)
class _Taken:
    """A batch that is being read."""

    landing: Landing
    copying: list[_Copying]

    def land(self) -> _Landed:
        """Wait for the reading and make the batch the archive's; nothing is kept when the store has failed."""
        entries: list[Entry] = []
        unread: list[tuple[bytes, str]] = []
        failures: list[Exception] = []
        wait([one.outcomes for one in self.copying if one.outcomes is not None])  # no thread writes after a failure
        for found, outcomes in self.copying:
            if outcomes is None:
                entries += [self.landing.make_entry(one.item) for one in found]
                continue
            copied: list[tuple[BatchItem, Received]] = []
            for (item, _, _, _), outcome in zip(found, outcomes.result(), strict=True):
                if not isinstance(outcome, Exception):
                    copied.append((item, outcome))
                elif isinstance(outcome, (SourceChangedError, SourceRefusedError)):
                    unread.append((item.path, outcome.detail))
                else:
                    failures.append(outcome)
            entries += self.landing.iter_entries(copied)
        if failures:
            self.landing.give_up([entry.content for entry in entries if entry.content is not None])
            raise failures[0]
        crash_point("ingest.taken")
        return _Landed(self.landing.settle(entries), unread)


def _copy_batch(
    copiers: ThreadPoolExecutor, copy_in: CopyIn, landing: Landing, wanted: Sequence[Found]
) -> list[_Copying]:
    """Have the files of a batch read: large ones alone, small ones many at a time."""
    copying: list[_Copying] = []
    for group in _iter_groups(wanted):
        if group[0].item.kind is not EntryKind.FILE:
            copying.append(_Copying(group, None))
            continue
        sources = [SourceFile(f.name, f.folder.descriptor, f.item.path) for f in group if f.folder is not None]
        digests = landing.digests_of(group[0].item)
        copying.append(_Copying(group, copiers.submit(copy_in.copy, landing.part, sources, digests)))
    return copying


def _iter_groups(wanted: Sequence[Found]) -> Iterator[list[Found]]:
    """Cut a batch into what one thread does at a time; files apart from what has no bytes."""
    group: list[Found] = []
    size, were_files = 0, False
    for found in wanted:
        item = found.item
        is_file = item.kind is EntryKind.FILE
        is_full = is_file and (len(group) >= _GROUP_FILES or size + item.size > _GROUP_BYTES)
        if group and (is_full or is_file is not were_files):
            yield group
            group, size = [], 0
        group.append(found)
        size, were_files = size + item.size, is_file
    if group:
        yield group


def open_without_links(path: str) -> Folder:
    """Open the folder at an absolute path without links; raises FolderNotAllowedError when one was put there since."""
    *above, last = [name for name in path.split("/") if name] or ["."]
    folder = Folder(os.open("/", _PASS_FOLDER))
    try:
        for name in above:
            folder = Folder(os.open(name, _PASS_FOLDER, dir_fd=folder.descriptor))
        return Folder(os.open(last, _OPEN_FOLDER, dir_fd=folder.descriptor))
    except OSError as error:
        raise FolderNotAllowedError(f"{path} cannot be opened: {error.strerror}.") from error


def iter_found(root: Folder, looking: Looking, *, into: bytes = b"", exclude: Sequence[str] = ()) -> Iterator[Found]:
    """Every file, link, empty folder and refusal below a folder; a folder with content is shown by its content."""
    waiting: list[tuple[Folder, bytes]] = [(root, b"")]  # a folder's path, and the open one that it is in
    while waiting:
        parent, path = waiting.pop()
        # opened when its turn comes: a process may not have thousands open
        folder = _open_folder(parent, path, into) if path else parent
        if isinstance(folder, Found):
            yield folder
            continue
        below: list[tuple[Folder, bytes]] = []
        for found in _iter_folder(folder, looking, path, into, exclude):
            if isinstance(found, Found):
                yield found
            else:
                below.append((folder, found))
        waiting += reversed(below)


def _iter_folder(
    folder: Folder, looking: Looking, path: bytes, into: bytes, exclude: Sequence[str]
) -> Iterator[Found | bytes]:
    """What a folder holds, sorted by name; of a folder in it the path alone."""
    children = looking.list_names(folder.descriptor)
    if path and not children:
        status = os.fstat(folder.descriptor)
        mode = stat.S_IMODE(status.st_mode)
        yield Found(BatchItem(_join(into, path), EntryKind.DIRECTORY, 0, status.st_mtime_ns, mode), folder)
    inside = path + b"/" if path else b""
    put_inside = _join(into, inside)
    wanted = [name for name in children if not _is_excluded(inside + name, exclude)] if exclude else children
    for start in range(0, len(wanted), _LOOKED_AT_ONCE):
        names = wanted[start : start + _LOOKED_AT_ONCE]
        for name, seen in zip(names, looking.look(folder.descriptor, names), strict=True):
            if not isinstance(seen, OSError) and stat.S_ISREG(seen[0]):
                mode, size, mtime_ns = seen
                item = BatchItem(put_inside + name, EntryKind.FILE, size, mtime_ns, stat.S_IMODE(mode))
                yield Found(item, folder, name)
            else:
                found = _judge(folder, name, seen, inside, into)
                yield inside + name if found is None else found


def _open_folder(parent: Folder, path: bytes, into: bytes) -> Folder | Found:
    try:
        return Folder(os.open(path.rpartition(b"/")[2], _OPEN_FOLDER, dir_fd=parent.descriptor))
    except OSError as error:
        return Found(BatchItem(_join(into, path)), problem=f"it cannot be read: {error.strerror}")


def iter_batches(walk: Iterator[Found]) -> Iterator[list[Found]]:
    """Cut what is found into batches that are worth a sync and a transaction each."""
    batch: list[Found] = []
    size = 0
    folders: set[int] = set()
    last: Folder | None = None
    for found in walk:
        item, folder, _, _ = found
        batch.append(found)
        size += item.size
        if folder is not last and folder is not None:
            folders.add(folder.descriptor)
            last = folder
        if len(batch) >= _BATCH_FILES or size >= _BATCH_BYTES or len(folders) >= _BATCH_FOLDERS:
            yield batch
            batch, size, folders, last = [], 0, set(), None
    if batch:
        yield batch


def _is_excluded(path: bytes, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches the path, or its last name."""
    text = os.fsdecode(path)
    return any(fnmatch.fnmatchcase(text, one) or fnmatch.fnmatchcase(text.rpartition("/")[2], one) for one in patterns)


def _judge(folder: Folder, name: bytes, seen: Looked | OSError, inside: bytes, into: bytes) -> Found | None:
    """What is to be done with a name in a folder that is no ordinary file; None for a folder."""
    path = _join(into, inside + name)
    if isinstance(seen, OSError):
        return Found(BatchItem(path), problem=f"it cannot be read: {seen.strerror}")
    mode, _, mtime_ns = seen
    if stat.S_ISDIR(mode):
        return None
    if not stat.S_ISLNK(mode):
        return Found(BatchItem(path), problem=f"it is a {_kind_of(mode)}")
    try:
        target = os.readlink(name, dir_fd=folder.descriptor)
    except OSError as error:
        return Found(BatchItem(path), problem=f"it cannot be read: {error.strerror}")
    item = BatchItem(path, EntryKind.SYMLINK, 0, mtime_ns, None, target=target)
    return Found(item, folder, name, find_target_problem(inside + name, target))


def _join(into: bytes, path: bytes) -> bytes:
    return into + b"/" + path if into else path


def _kind_of(mode: int) -> str:
    kinds = {stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket", stat.S_IFBLK: "device", stat.S_IFCHR: "device"}
    return kinds.get(stat.S_IFMT(mode), "thing that is no file")


def _is_shown(item: BatchItem, entry: Entry | None) -> bool:
    """Whether the archive shows this very item already."""
    if entry is None:
        return False
    wanted = PlanItem(item.path, item.size, item.mtime_ns, {}, item.kind, item.target)
    return compare_item(wanted, entry) is Verdict.PRESENT
