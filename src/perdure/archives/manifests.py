"""Manifest lines of a whole archive: from the sealed parts, or from the rows while it is open."""

from __future__ import annotations

import base64
import heapq
import io
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any, NamedTuple
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
from perdure.formats.manifest import MANIFEST_NAME, entry_to_line, iter_manifest_lines
from perdure.storage.model import object_uri


def iter_open_lines(ctx: Context, archive_id: UUID) -> Iterator[bytes]:
    """The archive's own entries as lines, in order of path."""
    for entry in iter_pages(ctx.db, [archive_id], own=True):
        yield entry_to_line(to_manifest_entry(entry))


class SealedLine(NamedTuple):
    """A line of a sealed part's manifest as it stands, and what it says."""

    line: bytes
    path: bytes
    fields: Mapping[str, Any]  # Any: JSON that we wrote


def iter_sealed(ctx: Context, archive_id: UUID) -> Iterator[SealedLine]:
    """The lines of all sealed parts in order of path, without superseded ones: what the closing statement covers."""
    with ctx.db.begin() as tx:
        sealed = [part for part in list_parts(tx, archive_id) if part.state is PartState.SEALED]
        rows = tx.execute(select(superseded.c.part, superseded.c.path).where(superseded.c.archive_id == archive_id))
        gone: dict[int, set[bytes]] = {}
        for number, path in rows:
            gone.setdefault(number, set()).add(path)
    streams = [_iter_part(ctx, part, gone.get(part.number, set())) for part in sealed]
    return streams[0] if len(streams) == 1 else heapq.merge(*streams, key=attrgetter("path"))


def iter_sealed_lines(ctx: Context, archive_id: UUID) -> Iterator[bytes]:
    """The bare lines of `iter_sealed`."""
    return (one.line for one in iter_sealed(ctx, archive_id))


def path_of(line: bytes) -> bytes:
    """The path in a line that we wrote."""
    return _path_in(orjson.loads(line))


def union_line(entry: Entry) -> bytes:
    """The line of an entry that a union of several layers shows: the canonical one, and its layer."""
    fields = orjson.loads(entry_to_line(to_manifest_entry(entry)))
    return canonical_line({**fields, "layer": entry.archive_id.urn})


def _iter_part(ctx: Context, part: Part, gone: set[bytes]) -> Iterator[SealedLine]:
    # The digest is known since the sealing: the inventory, which takes long to read, need not be asked for it
    data = ctx.storage.read_part_document(object_uri(part.id), MANIFEST_NAME, digest=part.manifest_digest)
    for line in iter_manifest_lines(io.BytesIO(data)):
        fields = orjson.loads(line)
        path = _path_in(fields)
        if path not in gone:
            yield SealedLine(line, path, fields)


def _path_in(fields: Mapping[str, Any]) -> bytes:  # Any: JSON that we wrote
    text = fields.get("path")
    return text.encode("utf-8") if text is not None else base64.b64decode(fields["path_bytes"])
