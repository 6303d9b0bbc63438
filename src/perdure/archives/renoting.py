"""What the log of a staged part says, put right after somebody ended between a line of it and his commit.

An entry is noted before the transaction that makes it the archive's, or refuses it. Where that never came, a rebuild
would show the entry in the place of what was acknowledged. So the log is told what the database shows, before the
reservation is forgotten that the entry came by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from sqlalchemy import Connection, select

from perdure.archives.entries import find_own
from perdure.archives.exporting import require_position
from perdure.archives.layers import to_manifest_entry
from perdure.archives.model import PartState
from perdure.archives.noting import count_removal
from perdure.archives.records import Context, load
from perdure.archives.tables import parts
from perdure.formats.manifest import (
    ManifestEntry,
    SupersededEntry,
    entry_to_line,
    line_to_staged,
    line_to_superseded,
    staged_line,
    superseded_to_line,
)
from perdure.kernel.errors import DamagedError
from perdure.storage.crash_points import crash_point
from perdure.storage.model import PartRef

_STAGED = (PartState.FILLING.value, PartState.FULL.value, PartState.SEALING.value)  # no head names it yet
_Noted = dict[bytes, list[tuple[int, ManifestEntry]]]


def list_noted(lines: Iterable[bytes], part_id: UUID) -> _Noted:
    """What a part's log tells of its own paths and does not take back, each with the removals that it comes after."""
    noted: _Noted = {}
    for line in lines:
        if b'"kind":' in line:
            entry, after = line_to_staged(line + b"\n")
            noted.setdefault(entry.path, []).append((after, entry))
            continue
        gone = line_to_superseded(line + b"\n")
        if gone.part_id in (None, part_id):
            found = noted.pop(gone.path, [])
            left = [one for one in found if gone.removal is not None and one[0] >= gone.removal]
            noted |= {gone.path: left} if left else {}
    return noted


def renote_part(ctx: Context, part: PartRef, number: int) -> None:
    """Let a staged part's log tell of each path what the database shows, and nothing else.

    Safe to call twice, beside others who write, and to stop anywhere. The number below which lines are taken away is
    committed before it is noted: who reserved earlier and commits later notes his entries again. A damaged log is left
    as it is; whoever writes to it or rebuilds from it is told.
    """
    try:
        noted = list_noted(ctx.storage.read_staged_log(part).lines, part.part_id)
    except DamagedError:
        return
    with ctx.db.begin() as tx:
        doubtful = {path: noted[path] for path in _find_shown(tx, part, number, noted)}
    if not doubtful:
        return
    require_position(ctx)  # an older database would take away what a newer one has acknowledged
    with ctx.db.begin() as tx:
        load(tx, part.archive_id, lock=True)
        count_removal(tx, part.archive_id, [number])
        count_removal(tx, part.archive_id, [number])  # so that all lines of who reserves from here on tell of more
    crash_point("renote.counted")
    with ctx.db.begin() as tx:
        load(tx, part.archive_id, lock=True)
        state = select(parts.c.state).where(parts.c.id == part.part_id, parts.c.number == number)
        if tx.execute(state).scalar_one_or_none() not in _STAGED:
            return  # its manifest tells what it holds
        # Counted once more: who reserved after the first time may have noted an entry already.
        removal = count_removal(tx, part.archive_id, [number])[number] - 2
        lines: list[bytes] = []
        for path, entry in _find_shown(tx, part, number, doubtful).items():
            lines.append(superseded_to_line(SupersededEntry(number, path, part.part_id, removal)).rstrip(b"\n"))
            if entry is not None:
                lines.append(staged_line(entry_to_line(entry), removal).rstrip(b"\n"))
        if lines:
            ctx.storage.log_staged(part, lines)
            ctx.storage.sync(part)
        crash_point("renote.noted")


def _find_shown(
    tx: Connection, part: PartRef, number: int, noted: Mapping[bytes, list[tuple[int, ManifestEntry]]]
) -> dict[bytes, ManifestEntry | None]:
    """What the part shows at the paths of which something else is noted, too; None where it shows nothing."""
    own = find_own(tx, part.archive_id, list(noted))
    shown = {path: to_manifest_entry(entry) for path, entry in own.items() if entry.part == number}
    return {path: shown.get(path) for path, told in noted.items() if any(one != shown.get(path) for _, one in told)}
