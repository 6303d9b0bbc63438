"""The layers of an archive, and changes of its own one while it is open.

The functions that change something run in a transaction that holds the archive's row; what they leave to do with
staged bytes is done after the commit, so that a crash between the two loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from uuid import UUID

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.postgresql import insert

from perdure.archives.entries import (
    delete_entries,
    find_near,
    find_occupied_folders,
    find_own,
    find_visible,
    iter_visible,
    load_entries,
)
from perdure.archives.model import Archive, Entry, EntryKind, PartState
from perdure.archives.noting import count_removal, number_removals, owe_notes, settle_notes
from perdure.archives.placing import Reservation, add_usage
from perdure.archives.records import Context, load
from perdure.archives.tables import archives, parts, superseded
from perdure.archives.union import end_of_folder, start_of_folder
from perdure.formats.manifest import (
    ManifestEntry,
    SupersededEntry,
    entry_to_line,
    find_file_line,
    superseded_to_line,
)
from perdure.kernel.paths import display_path, find_ancestors, iter_ancestors
from perdure.storage.crash_points import crash_point
from perdure.storage.model import PartRef

_FOLDERLESS = (EntryKind.FILE, EntryKind.SYMLINK)
_STAGED = (PartState.FILLING.value, PartState.FULL.value)
_TAKEN = "the path is taken, and the request does not want to replace it"


@dataclass(slots=True)
class Aftermath:
    """What is to be done with staged bytes once the transaction is committed; `owed` stands for its notes till then."""

    discarded: dict[PartRef, list[str]] = field(default_factory=dict)
    removed: dict[PartRef, list[SupersededEntry]] = field(default_factory=dict)
    owed: UUID | None = None


@dataclass(frozen=True, slots=True)
class PutResult:
    """Which entries are in the layer now, and why the others are not, by path.

    `removals` counts those from their part before this; `untold` are entries of the part of which its log does not tell
    that they are what is at their paths, so that it is to be told before the commit.
    """

    stored: list[Entry]
    refused: dict[bytes, str]
    aftermath: Aftermath
    removals: int
    untold: list[Entry]


def list_layers(tx: Connection, archive_id: UUID) -> list[UUID]:
    """The archive, its parent, the parent's parent and so on."""
    chain = select(archives.c.id, archives.c.parent_id).where(archives.c.id == archive_id).cte("chain", recursive=True)
    parents = select(archives.c.id, archives.c.parent_id).join(chain, archives.c.id == chain.c.parent_id)
    found = {row.id: row.parent_id for row in tx.execute(select(chain.union_all(parents)))}
    layers = [archive_id]
    while (parent := found.get(layers[-1])) is not None:
        layers.append(parent)
    return layers


def to_manifest_entry(entry: Entry, metadata: Mapping[str, object] | None = None) -> ManifestEntry:
    """The entry as manifests and the log of a staged part have it; it was judged when it came."""
    _, path, kind, size, mtime_ns, mode, digests, target, _, content, *_ = entry
    return ManifestEntry.known(path, kind.value, size, mtime_ns, mode, digests, target, content, metadata)


def line_of(entry: Entry) -> bytes:
    """The entry's line in the log of a staged part, newline included; in a manifest it may have metadata besides."""
    _, path, _, size, mtime_ns, mode, digests, target, _, content, _, _ = entry
    plain = find_file_line(path, size, mtime_ns, mode, digests, content) if target is None else None
    return entry_to_line(to_manifest_entry(entry)) if plain is None else plain


def size_of(entries: Iterable[Entry]) -> int:
    """How many bytes entries have together."""
    return sum([entry.size for entry in entries])


def put_entries(
    tx: Connection,
    ctx: Context,
    archive: Archive,
    reservation: Reservation,
    entries: Sequence[Entry],
    *,
    at: datetime,
    replace: bool = True,
    refusals: Mapping[bytes, str] = MappingProxyType({}),
) -> PutResult:
    """Put entries of the reserved part into the archive's layer, in the place of what is at their paths.

    An entry that contradicts the layer, or that the caller refuses already, is refused with its reason; if it is not to
    `replace` anything, so is one that would hide something inherited. The entries do not contradict each other.
    """
    paths = [entry.path for entry in entries]
    ancestors = find_ancestors(paths)
    near = find_near(tx, archive.id, paths)
    present = find_own(tx, archive.id, [*near, *ancestors])
    occupied = _find_occupied(tx, archive, entries, near)
    if not replace:
        refusals = {**dict.fromkeys(_find_hiding(tx, archive, entries), _TAKEN), **refusals}
    refused: dict[bytes, str] = {}
    if present or occupied or refusals:
        in_the_way = {path for path in ancestors & present.keys() if present[path].kind in _FOLDERLESS}
        for entry in entries:
            problem = refusals.get(entry.path) or _find_conflict(entry, present, in_the_way, occupied, replace=replace)
            if problem:
                refused[entry.path] = problem
    stored = [entry for entry in entries if entry.path not in refused] if refused else list(entries)
    old = [present[entry.path] for entry in stored if entry.path in present] if present else []
    delete_entries(tx, archive.id, [entry.path for entry in old])
    load_entries(ctx.db, tx, stored, content_digest=archive.profile.digests[0], added_at=at, as_staged=True)
    removals = _count(tx, archive, reservation.number, stored, sign=1)
    is_late = removals != reservation.removals or _changes_kind(stored, present, reservation.number)
    kept = [present[p] for p in refused if p in present and present[p].part == reservation.number]
    untold = [*(stored if is_late else ()), *kept]  # a line of each that is refused stands in the log already
    if kept:  # told again, perhaps behind the line of somebody who commits later: he is late then, and tells again too
        count_removal(tx, archive.id, [reservation.number])  # no line may tell of it: this may be undone
    aftermath = retire(tx, archive, old, at=at, part=reservation)
    if refused:
        part = reservation.part
        dropped = [entry.content for entry in entries if entry.path in refused and entry.content is not None]
        if dropped:
            aftermath.discarded.setdefault(part, []).extend(dropped)
        elsewhere = (p for p in refused if p not in present or present[p].part != reservation.number)
        gone = [SupersededEntry(reservation.number, path, part.part_id) for path in elsewhere]
        aftermath.removed.setdefault(part, []).extend(gone)
    return PutResult(stored, refused, aftermath, removals, untold)


def retire(tx: Connection, archive: Archive, old: Sequence[Entry], *, at: datetime, part: Reservation) -> Aftermath:
    """Account for entries whose rows were deleted; `part` is where their successors are, or the note of their removal.

    What lies in a staged part is discarded; a part that is sealed, or is being sealed, keeps it as superseded.
    """
    aftermath = Aftermath()
    if not old:
        return aftermath
    known = tx.execute(select(parts.c.number, parts.c.id, parts.c.state).where(parts.c.archive_id == archive.id))
    states = {row.number: (PartRef(archive.id, row.id), PartState(row.state)) for row in known}
    staged: dict[int, list[Entry]] = {}
    kept: list[Entry] = []
    for entry in old:
        is_staged = states[entry.part or 0][1].value in _STAGED
        staged.setdefault(entry.part or 0, []).append(entry) if is_staged else kept.append(entry)
    for number, entries in staged.items():
        ref = states[number][0]
        _count(tx, archive, number, entries, sign=-1)
        aftermath.discarded[ref] = [entry.content for entry in entries if entry.content is not None]
        if number != part.number:
            aftermath.removed[ref] = [SupersededEntry(number, entry.path, ref.part_id) for entry in entries]
    if kept:
        _supersede(tx, archive, kept, at)
        named = [SupersededEntry(e.part or 0, e.path, states[e.part or 0][0].part_id) for e in kept]
        aftermath.removed.setdefault(part.part, []).extend(named)
    return aftermath


def owe_aftermath(tx: Connection, ctx: Context, archive: Archive, part: int, aftermath: Aftermath) -> None:
    """Number what was removed, and keep what is to be noted of it with the transaction; beside uploads into a part."""
    aftermath.removed = number_removals(tx, archive.id, aftermath.removed)
    aftermath.owed = owe_notes(tx, ctx, archive, part, aftermath.removed)


def carry_out(ctx: Context, archive_id: UUID, aftermath: Aftermath) -> None:
    """Note durably what was removed, then discard its bytes; call it after the commit."""
    crash_point("remove.committed")
    for part, entries in aftermath.removed.items():
        if entries:
            ctx.storage.log_staged(part, [superseded_to_line(entry).rstrip(b"\n") for entry in entries])
            ctx.storage.sync(part)
    crash_point("remove.noted")
    if aftermath.owed is not None:
        with ctx.db.begin() as tx:
            settle_notes(tx, aftermath.owed)
    discard_contents(ctx, archive_id, aftermath.discarded)


def discard_contents(ctx: Context, archive_id: UUID, discarded: Mapping[PartRef, Sequence[str]]) -> None:
    """Discard staged bytes that no entry names.

    Sealing gives names of discarded files to others, so nothing is discarded from the moment it begins: it sets aside
    itself what no entry names.
    """
    wanted = {part: contents for part, contents in discarded.items() if contents}
    if not wanted:
        return
    with ctx.db.begin() as tx:
        load(tx, archive_id, share=True)  # sealing takes the row for itself before it begins
        staged = select(parts.c.id).where(parts.c.archive_id == archive_id, parts.c.state.in_(_STAGED))
        present = set(tx.execute(staged).scalars())
        for part, contents in wanted.items():
            if part.part_id in present:
                ctx.storage.discard_staged(part, contents)


def _find_occupied(tx: Connection, archive: Archive, entries: Sequence[Entry], near: Sequence[bytes]) -> set[bytes]:
    """Which entries that are no folders have the paths of folders."""
    if not near:
        return set()
    asked = set(near)
    return find_occupied_folders(
        tx, archive.id, [entry.path for entry in entries if entry.path in asked and entry.kind in _FOLDERLESS]
    )


def _find_conflict(
    entry: Entry, present: Mapping[bytes, Entry], in_the_way: set[bytes], occupied: set[bytes], *, replace: bool
) -> str | None:
    for ancestor in iter_ancestors(entry.path) if in_the_way else ():
        if ancestor in in_the_way:
            return f"{display_path(ancestor)!r} is a {present[ancestor].kind.value}, not a folder"
    old = present.get(entry.path)
    if entry.path in occupied:
        return "a folder with content has this path"
    if old is None:
        return None
    if not replace and old.kind is not EntryKind.HIDDEN:
        return _TAKEN
    if entry.kind is EntryKind.DIRECTORY and old.kind in _FOLDERLESS:
        return f"a {old.kind.value} has this path"
    if entry.kind is EntryKind.DIRECTORY and old.kind is EntryKind.HIDDEN:
        return "the inherited folder of this name is hidden; put something into it instead"
    return None


def _find_hiding(tx: Connection, archive: Archive, entries: Sequence[Entry]) -> set[bytes]:
    """The paths of entries that would hide something inherited: at the path, a file above it, or what is inside it."""
    if archive.parent_id is None:
        return set()
    layers = list_layers(tx, archive.id)
    return {entry.path for entry in entries if _is_hiding(tx, layers, entry)}


def _is_hiding(tx: Connection, layers: Sequence[UUID], entry: Entry) -> bool:
    shown = find_visible(tx, layers, [entry.path, *iter_ancestors(entry.path)])
    if entry.path in shown or any(one.kind in _FOLDERLESS for one in shown.values()):
        return True
    inside = iter_visible(tx, layers, start=start_of_folder(entry.path), end=end_of_folder(entry.path), chunk=1)
    return entry.kind in _FOLDERLESS and next(inside, None) is not None


def _changes_kind(stored: Sequence[Entry], present: Mapping[bytes, Entry], part: int) -> bool:
    """Whether one takes the place of something in its own part where no missing bytes tell which is older."""
    olds = ((entry, present.get(entry.path)) for entry in stored) if present else ()
    return any(
        old is not None and old.part == part and (old.kind is not entry.kind or entry.content is None)
        for entry, old in olds
    )


def _count(tx: Connection, archive: Archive, number: int, entries: Sequence[Entry], *, sign: int) -> int:
    """Change what a part and the account hold; returns how many removals from the part there were."""
    files = sign * len([entry for entry in entries if entry.kind is EntryKind.FILE])
    size = sign * size_of(entries)
    counted = (
        update(parts)
        .where(parts.c.archive_id == archive.id, parts.c.number == number)
        .values(file_count=parts.c.file_count + files, byte_count=parts.c.byte_count + size)
        .returning(parts.c.removals)
    )
    removals: int = tx.execute(counted).scalar_one()
    add_usage(tx, archive.account_id, files=files, size=size)
    return removals


def _supersede(tx: Connection, archive: Archive, entries: Sequence[Entry], at: datetime) -> None:
    rows = [{"archive_id": archive.id, "part": e.part, "path": e.path, "at": at} for e in entries]
    tx.execute(insert(superseded).on_conflict_do_nothing(), rows)
