"""What an open archive holds in staging, made again from the logs of its staged parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from operator import itemgetter
from uuid import UUID

from sqlalchemy import Connection, delete, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA
from sqlalchemy.dialects.postgresql import insert as upsert

from perdure.archives.entries import delete_entries, find_occupied_folders, find_own, load_entries
from perdure.archives.model import Archive, Entry, EntryKind, PartState
from perdure.archives.placing import defer_seal
from perdure.archives.rebuild_found import FoundObject, RebuildReport, to_entry
from perdure.archives.records import Context
from perdure.archives.renoting import list_noted
from perdure.archives.tables import files, parts, superseded
from perdure.formats.manifest import MANIFEST_NAME, iter_manifest, line_to_staged, line_to_superseded
from perdure.kernel.digests import MultiDigest
from perdure.kernel.errors import DamagedError
from perdure.kernel.ids import short_form
from perdure.kernel.paths import display_path, iter_ancestors
from perdure.storage.errors import UnknownObjectError
from perdure.storage.model import ObjectKind, PartRef, StoredObject

_IN_ROOT = (PartState.SEALED.value, PartState.SEALING.value)  # a rebuild finds the sealing of no other part begun
_FOLDERLESS = (EntryKind.FILE, EntryKind.SYMLINK)


def restore_staged(
    tx: Connection, ctx: Context, archive: Archive, found: Mapping[str, FoundObject], report: RebuildReport
) -> None:
    """What an open archive holds in staging, by the logs of its staged parts, in the order of their making.

    Parts that no head names are numbered anew; what their logs say of each other goes by their ids.
    """
    numbers = {row.id: row.number for row in tx.execute(select(parts).where(parts.c.archive_id == archive.id))}
    staged = [one.part for one in ctx.storage.iter_staged() if one.part.archive_id == archive.id and one.has_log]
    fresh = sorted((part for part in staged if part.part_id not in numbers), key=lambda part: part.part_id)
    numbers |= {part.part_id: number for number, part in enumerate(fresh, max(numbers.values(), default=0) + 1)}
    logs = [_read_log(ctx, archive, part, numbers, report) for part in fresh]
    growing = [log for log in logs if log.part.object_id not in found]
    for log in logs:
        if log not in growing:
            _adopt_part(tx, ctx, archive, log, found[log.part.object_id], report)
    _apply_removals(tx, archive, logs, growing, ctx.clock.now())
    for log in growing:
        _replay_staged(tx, ctx, archive, log, report, is_last=log is growing[-1])
    _count_staged(tx, archive.id)
    _report_contradictions(tx, archive.id, growing, report)
    if len(growing) < len(logs):
        defer_seal(tx, ctx, archive.id)


def is_noted(ctx: Context, part: PartRef) -> bool:
    """Whether the log of a staged part tells of an entry that it does not take back, or cannot be read."""
    try:
        lines = ctx.storage.read_staged_log(part).lines
    except DamagedError:
        return True
    return bool(list_noted(lines, part.part_id))


@dataclass(slots=True)
class _StagedLog:
    """What the log of a staged part says: entries noted by path, and what is gone of other parts, by their number.

    Each entry stands with the removals from the part that it comes after, and what is gone with the number of its
    removal, or None. `removals` is the highest number that is known of the part.
    """

    part: PartRef
    number: int
    noted: dict[bytes, list[tuple[int, Entry]]] = field(default_factory=dict)
    gone: set[tuple[int, bytes, int | None]] = field(default_factory=set)
    removals: int = 0

    def remove(self, path: bytes, removal: int | None) -> None:
        """Forget what was noted of a path, as far as it came before the removal; without a number, all of it."""
        self.removals = max(self.removals, removal or 0)
        left = [one for one in self.noted.get(path, []) if removal is not None and one[0] >= removal]
        self.noted.pop(path, None)
        if left:
            self.noted[path] = left


def _read_log(
    ctx: Context, archive: Archive, part: PartRef, numbers: Mapping[UUID, int], report: RebuildReport
) -> _StagedLog:
    found = ctx.storage.read_staged_log(part)
    if found.torn:
        torn = f"{len(found.torn)} bytes after the last whole line of its log"
        report.problems.append(f"staged part {part.part_id}: {torn}")
    log = _StagedLog(part, numbers[part.part_id])
    for line in found.lines:
        if b'"kind":' in line:
            noted, after = line_to_staged(line + b"\n")
            log.noted.setdefault(noted.path, []).append((after, to_entry(archive.id, log.number, noted)))
            log.removals = max(log.removals, after)
            continue
        gone = line_to_superseded(line + b"\n")
        number = gone.part if gone.part_id is None else numbers.get(gone.part_id)
        if number == log.number:
            log.remove(gone.path, gone.removal)
        elif number is not None:
            log.gone.add((number, gone.path, gone.removal))
    return log


def _adopt_part(
    tx: Connection, ctx: Context, archive: Archive, log: _StagedLog, one: FoundObject, report: RebuildReport
) -> None:
    """A part that was renamed into the root, and that no head names: its sealing goes on where it stopped."""
    data = ctx.storage.read_part_document(one.object_id, MANIFEST_NAME)
    entries = [to_entry(archive.id, log.number, entry) for entry in iter_manifest(BytesIO(data))]
    size = _insert_part(tx, archive, log, entries, PartState.SEALING)
    stored = StoredObject(one.object_id, ObjectKind.PART, archive.id, one.version, one.digest, size)
    ctx.storage.record_object(tx, stored)
    shown = _displace(tx, archive.id, log, entries, ctx.clock.now(), report)
    load_entries(ctx.db, tx, shown, content_digest=archive.profile.digests[0], added_at=one.created)
    report.files += len(shown)


def _apply_removals(
    tx: Connection, archive: Archive, logs: Iterable[_StagedLog], growing: Iterable[_StagedLog], at: datetime
) -> None:
    """Take out what a log says is gone of another part, which was being sealed then, or had been."""
    by_number = {log.number: log for log in growing}
    gone = {one for log in logs for one in log.gone}
    for number, path, removal in sorted(gone, key=lambda one: one[:2]):
        if number in by_number:
            by_number[number].remove(path, removal)
            continue
        _supersede(tx, archive.id, number, path, at)
        own = (files.c.archive_id == archive.id) & (files.c.part == number) & (files.c.path == path)
        tx.execute(delete(files).where(own))


def _replay_staged(
    tx: Connection, ctx: Context, archive: Archive, log: _StagedLog, report: RebuildReport, *, is_last: bool
) -> None:
    found = (
        _find_staged(ctx, log.part, sorted(log.noted[path], key=itemgetter(0)), report) for path in sorted(log.noted)
    )
    present = [entry for entry in found if entry is not None]
    present = _displace(tx, archive.id, log, present, ctx.clock.now(), report)
    _insert_part(tx, archive, log, present, PartState.FILLING if is_last else PartState.FULL)
    load_entries(ctx.db, tx, present, content_digest=archive.profile.digests[0], added_at=ctx.clock.now())
    report.files += len(present)


def _insert_part(tx: Connection, archive: Archive, log: _StagedLog, entries: Sequence[Entry], state: PartState) -> int:
    """The row of a part that no head names; returns its bytes."""
    counted = [entry for entry in entries if entry.kind is EntryKind.FILE]
    size = sum(entry.size for entry in counted)
    row = {"archive_id": archive.id, "number": log.number, "id": log.part.part_id, "state": state.value}
    assigned = {"assigned_files": len(entries), "assigned_bytes": size, "removals": log.removals}
    tx.execute(insert(parts).values(**row, **assigned, file_count=len(counted), byte_count=size))
    return size


def _report_contradictions(
    tx: Connection, archive_id: UUID, growing: Iterable[_StagedLog], report: RebuildReport
) -> None:
    """Tell what is a file and a folder at once: one of the two was never acknowledged, and no log says which.

    Both are kept, because the other one was; whoever owns the archive knows what to remove.
    """
    noted = {path for log in growing for path in log.noted}
    above = find_own(tx, archive_id, list({folder for path in noted for folder in iter_ancestors(path)}))
    own = find_own(tx, archive_id, list(noted))
    twofold = {path for path, entry in above.items() if entry.kind in _FOLDERLESS}
    twofold |= find_occupied_folders(tx, archive_id, [p for p, entry in own.items() if entry.kind in _FOLDERLESS])
    for path in sorted(twofold):
        name, advice = display_path(path), "remove the one that is wrong"
        report.problems.append(f"archive {short_form(archive_id)}: {name!r} is a file and a folder; {advice}")


def _count_staged(tx: Connection, archive_id: UUID) -> None:
    """Let staged parts count what is shown of them: newer ones may have displaced some of it."""
    own = (files.c.archive_id == parts.c.archive_id) & (files.c.part == parts.c.number) & files.c.digest.is_not(None)
    number = select(func.count()).where(own).scalar_subquery()
    size = select(func.coalesce(func.sum(files.c.size), 0)).where(own).scalar_subquery()
    staged = (parts.c.archive_id == archive_id) & parts.c.state.not_in(_IN_ROOT)
    tx.execute(update(parts).where(staged).values(file_count=number, byte_count=size))


def _displace(
    tx: Connection, archive_id: UUID, log: _StagedLog, entries: Sequence[Entry], at: datetime, report: RebuildReport
) -> list[Entry]:
    """Put entries in the place of those that older parts have at their paths, and return those that have a place.

    A part that is sealed keeps what is displaced as superseded. What a newer one has sealed stays: every acknowledged
    replacement of it is noted in a log, and was taken out before. Nobody misses what is noted and sealed alike: it came
    once more after a death before the commit.
    """
    kept = {entry.path: entry for entry in entries}
    shown = find_own(tx, archive_id, list(kept))
    sealed = _find_sealed(tx, archive_id, list(kept))
    for path in shown.keys() - {path for _, _, path in sealed}:
        if _content_of(shown[path]) != _content_of(kept[path]):  # an acknowledged replacement is noted, or still owed
            _tell_of_doubt(log.part, shown[path], report)
    for number, part_id, path in sealed:
        if part_id < log.part.part_id:
            _supersede(tx, archive_id, number, path, at)
            continue
        noted = kept.pop(path)
        _supersede(tx, archive_id, log.number, path, at)
        if _content_of(noted) == _content_of(shown[path]):
            continue
        name = display_path(path)
        report.problems.append(f"part {log.part.part_id}: {name!r} is not shown, part {part_id} has it sealed later")
    delete_entries(tx, archive_id, list(kept))
    return list(kept.values())


def _content_of(entry: Entry) -> tuple[object, ...]:
    return entry.kind, entry.size, dict(entry.digests), entry.target


def _find_sealed(tx: Connection, archive_id: UUID, paths: list[bytes]) -> list[tuple[int, UUID, bytes]]:
    """Number and id of the part in the root that holds what is shown at each of these paths."""
    wanted = func.unnest(literal(paths, ARRAY(BYTEA))).column_valued("wanted")
    query = (
        select(parts.c.number, parts.c.id, files.c.path)
        .join(parts, (parts.c.archive_id == files.c.archive_id) & (parts.c.number == files.c.part))
        .where(files.c.archive_id == archive_id, files.c.path.in_(select(wanted)), parts.c.state.in_(_IN_ROOT))
    )
    return [(row.number, row.id, row.path) for row in tx.execute(query)]


def _supersede(tx: Connection, archive_id: UUID, number: int, path: bytes, at: datetime) -> None:
    state = select(parts.c.state).where(parts.c.archive_id == archive_id, parts.c.number == number)
    if tx.execute(state).scalar_one_or_none() in _IN_ROOT:
        row = {"archive_id": archive_id, "part": number, "path": path, "at": at}
        tx.execute(upsert(superseded).values(row).on_conflict_do_nothing())


def _find_staged(ctx: Context, part: PartRef, noted: list[tuple[int, Entry]], report: RebuildReport) -> Entry | None:
    """The newest entry noted for a path whose bytes are there: later ones were refused, and their bytes discarded.

    The bytes of the newest are digested when the part is sealed; an earlier one is believed by its digest only.
    """
    newest = noted[-1][1]
    for index, (_, entry) in reversed(list(enumerate(noted))):
        if entry.content is None or _is_staged(ctx, part, entry, is_newest=entry is newest):
            _report_doubt(ctx, part, entry, [one for _, one in noted[:index]], report)
            return entry
    report.problems.append(f"staged part {part.part_id}: the bytes noted for {newest.content!r} are not there")
    return None


def _report_doubt(ctx: Context, part: PartRef, shown: Entry, earlier: Iterable[Entry], report: RebuildReport) -> None:
    """Tell of a replacement whose process ended before the bytes of what it replaces were discarded.

    Whether it was acknowledged, no log says. Both have their bytes until the part is sealed, and then in quarantine.
    """
    others = {one.content: one for one in earlier if one.content not in (None, shown.content)}
    for one in others.values():
        if _content_of(one) != _content_of(shown) and _is_staged(ctx, part, one):
            _tell_of_doubt(part, one, report)


def _tell_of_doubt(part: PartRef, one: Entry, report: RebuildReport) -> None:
    where = f"an earlier {one.kind.value}" + (f" in part {one.part} at {one.content!r}" if one.content else "")
    doubt = "nothing says whether what is shown had replaced it"
    report.doubts.append(f"staged part {part.part_id}: {display_path(one.path)!r} has {where}; {doubt}")


def _is_staged(ctx: Context, part: PartRef, entry: Entry, *, is_newest: bool = False) -> bool:
    """Whether the bytes of a file are there; those of the newest are digested later."""
    assert entry.content is not None
    size = _staged_size(ctx, part, entry.content)
    return size == entry.size and (is_newest or _has_digest(ctx, part, entry))


def _staged_size(ctx: Context, part: PartRef, content: str) -> int:
    try:
        return ctx.storage.staged_size(part, content)
    except UnknownObjectError:
        return -1


def _has_digest(ctx: Context, part: PartRef, entry: Entry) -> bool:
    assert entry.content is not None
    digest = MultiDigest(entry.digests)
    for block in ctx.storage.read_staged(part, entry.content):
        digest.update(block)
    return digest.hexdigests() == dict(entry.digests)
