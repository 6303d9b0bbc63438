"""Manifest lines of a whole archive: from the sealed parts, or from the rows while it is open."""

from __future__ import annotations

import heapq
import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import select

from perdure.archives.entries import iter_pages
from perdure.archives.layers import to_manifest_entry
from perdure.archives.model import Entry, Part, PartState
from perdure.archives.placing import list_parts
from perdure.archives.records import Context
from perdure.archives.tables import superseded
from perdure.formats.canonical import canonical_line
from perdure.formats.manifest import MANIFEST_NAME, entry_to_line, iter_manifest_blocks, path_of_line
from perdure.storage.model import object_uri


def iter_open_lines(ctx: Context, archive_id: UUID) -> Iterator[bytes]:
    """The archive's own entries as lines, in order of path."""
    for entry in iter_pages(ctx.db, [archive_id], own=True):
        yield entry_to_line(to_manifest_entry(entry))


class SealedLines(NamedTuple):
    """Some lines of sealed parts' manifests as they stand, in order of path, each with its path."""

    lines: Sequence[bytes]
    paths: Sequence[bytes]


def iter_sealed(ctx: Context, archive_id: UUID) -> Iterator[SealedLines]:
    """The lines of all sealed parts in order of path, without superseded ones: what the closing statement covers."""
    with ctx.db.begin() as tx:
        sealed = [part for part in list_parts(tx, archive_id) if part.state is PartState.SEALED]
        rows = tx.execute(select(superseded.c.part, superseded.c.path).where(superseded.c.archive_id == archive_id))
        gone: dict[int, set[bytes]] = {}
        for number, path in rows:
            gone.setdefault(number, set()).add(path)
    return merge_sealed([_iter_part(ctx, part, gone.get(part.number, set())) for part in sealed])


def merge_sealed(streams: Iterable[Iterator[SealedLines]]) -> Iterator[SealedLines]:
    """Sorted streams of lines as one, stretch by stretch: most parts hold what came in one after the other."""
    heads = [
        (first.paths[0], number, first, stream)
        for number, stream in enumerate(streams)
        if (first := next(stream, None))
    ]
    heapq.heapify(heads)
    while heads:
        _, number, block, stream = heads[0]
        following = min((head[0] for head in heads[1:3]), default=None)
        count = len(block.paths) if following is None else bisect_right(block.paths, following)
        yield SealedLines(block.lines[:count], block.paths[:count])
        rest = SealedLines(block.lines[count:], block.paths[count:]) if count < len(block.paths) else next(stream, None)
        if rest is None:
            heapq.heappop(heads)
        else:
            heapq.heapreplace(heads, (rest.paths[0], number, rest, stream))


def iter_sealed_lines(ctx: Context, archive_id: UUID) -> Iterator[bytes]:
    """The bare lines of `iter_sealed`."""
    return (line for some in iter_sealed(ctx, archive_id) for line in some.lines)


def union_line(entry: Entry) -> bytes:
    """The line of an entry that a union of several layers shows: the canonical one, and its layer."""
    fields = orjson.loads(entry_to_line(to_manifest_entry(entry)))
    return canonical_line({**fields, "layer": entry.archive_id.urn})


def _iter_part(ctx: Context, part: Part, gone: set[bytes]) -> Iterator[SealedLines]:
    # The digest is known since the sealing: the inventory, which takes long to read, need not be asked for it
    data = ctx.storage.read_part_document(object_uri(part.id), MANIFEST_NAME, digest=part.manifest_digest)
    for lines in iter_manifest_blocks(io.BytesIO(data)):
        paths = [path_of_line(line) for line in lines]
        if not gone.isdisjoint(paths):
            kept = [index for index, path in enumerate(paths) if path not in gone]
            lines, paths = [lines[index] for index in kept], [paths[index] for index in kept]
        if paths:
            yield SealedLines(lines, paths)
