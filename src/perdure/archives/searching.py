"""Which archives have a path with a text in it, inherited paths among them, as their union shows them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CTE, ColumnElement, Select, and_, exists, func, literal, or_, select, true
from sqlalchemy.dialects.postgresql import BYTEA

from perdure.archives.tables import archives, files

_HANDED_DOWN = 1000  # matching paths of one archive that are looked for in its children: one that is seen is enough
_FILE, _SYMLINK, _HIDDEN = 0, 2, 3  # as the table numbers kinds
_BLOCKING = (_FILE, _SYMLINK, _HIDDEN)
_SLASH = 0x2F


def has_path_with(text: str) -> ColumnElement[bool]:
    """Whether an archive or a layer that is seen through it has the text, as it is typed, in a path."""
    needle = literal(text.encode("utf-8", "surrogatepass"), BYTEA)
    matches = and_(func.position(needle.op("IN")(files.c.path)) > 0, files.c.kind != _HIDDEN)
    inherited = _hand_down(matches)
    return or_(
        exists().where(files.c.archive_id == archives.c.id, matches),
        archives.c.id.in_(select(inherited.c.archive_id)),
    )


def _hand_down(matches: ColumnElement[bool]) -> CTE:
    """Pairs of archive and matching path: of archives with children, then of the children that still show it."""
    parents = select(archives.c.parent_id).where(archives.c.parent_id.is_not(None)).distinct().subquery("parents")
    own = select(files.c.path).where(files.c.archive_id == parents.c.parent_id, matches).limit(_HANDED_DOWN)
    found = own.lateral("found")
    shown = select(parents.c.parent_id.label("archive_id"), found.c.path).join(found, true())
    pairs = shown.cte("shown", recursive=True)
    child = archives.alias("child")
    step: Select[Any] = (  # Any: the columns of the pairs
        select(child.c.id, pairs.c.path)
        .join(pairs, child.c.parent_id == pairs.c.archive_id)
        .where(~_is_covered(child.c.id, pairs.c.path))
    )
    return pairs.union(step)


def _is_covered(layer: ColumnElement[Any], path: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a layer has something at the path, in the way above it, or below it."""
    cover = files.alias("cover")
    below = and_(
        cover.c.path > path.op("||")(literal(b"/", BYTEA)),
        cover.c.path < path.op("||")(literal(b"0", BYTEA)),
        cover.c.kind != _HIDDEN,
    )
    here = exists().where(cover.c.archive_id == layer, or_(cover.c.path == path, below))
    blocker = files.alias("blocker")
    steps = func.generate_series(1, func.length(path) - 1).table_valued("length").render_derived()
    above = (
        select(literal(1))
        .select_from(steps)
        .join(blocker, blocker.c.path == func.substring(path, 1, steps.c.length))
        .where(
            blocker.c.archive_id == layer, blocker.c.kind.in_(_BLOCKING), func.get_byte(path, steps.c.length) == _SLASH
        )
    )
    return or_(here, above.exists())
