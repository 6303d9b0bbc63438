"""What a change of one path expects to find there, looked at by the transaction that makes the change."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection

from perdure.archives.entries import find_visible
from perdure.archives.errors import EntryChangedError
from perdure.archives.layers import list_layers
from perdure.archives.model import Entry, EntryKind
from perdure.kernel.paths import display_path

_ETAG_DIGITS = 64


@dataclass(frozen=True, slots=True)
class Expected:
    """A file with one of these entity tags; any file where `etags` is None."""

    etags: frozenset[str] | None = None


def content_etag(entry: Entry) -> str:
    """The entity tag of a file: the beginning of its content digest."""
    return (entry.digests.get("sha512") or entry.digests["sha256"])[:_ETAG_DIGITS]


def is_as_expected(tx: Connection, archive_id: UUID, path: bytes, expected: Expected | None) -> bool:
    """Whether the union shows at the path what is expected; the transaction holds the archive's row."""
    if expected is None:
        return True
    entry = find_visible(tx, list_layers(tx, archive_id), [path]).get(path)
    if entry is None or entry.kind is not EntryKind.FILE:
        return False
    return expected.etags is None or content_etag(entry) in expected.etags


def not_as_expected(path: bytes) -> EntryChangedError:
    """The error for a path at which something else is."""
    return EntryChangedError(f"{display_path(path)!r} is not what you expect any more.", path=display_path(path))
