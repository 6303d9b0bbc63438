"""Changes of metadata and the lines that prove them to an outsider. Pure.

A *change line* is one JSON object without spaces, its members in this order: sequence, thing, path (or path_bytes for
one that is not UTF-8), revision, at, actor, changes, digest. The digest, always its last 141 bytes
(`,"digest":"<128 hexadecimal digits>"}`), chains the lines of one thing: SHA-512 over the 64 bytes of the digest
before (64 zero bytes before the first) and the line with those 141 bytes replaced by `}`, without its line break.

A *snapshot line* tells one present leaf: `{"path":…,"pointer":…,"value":…}`. The digest of a subject (a file's
metadata, or the archive's own) is SHA-512 over its snapshot lines, sorted by the bytes of the pointer, each ended by a
line break.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from perdure.kernel.clock import format_time, parse_time
from perdure.kernel.paths import is_text_path
from perdure.metadata.errors import BadMetadataError, BrokenHistoryError
from perdure.metadata.model import Value, parse_leaf, render
from perdure.metadata.nodes import LeafChange

CHAIN_START = "0" * 128


@dataclass(frozen=True, slots=True)
class Change:
    """Who changed which leaves of one subject when; `revision` is the subject's afterwards, `digest` the chain's."""

    thing: UUID
    sequence: int
    path: bytes
    revision: int
    at: datetime
    actor_id: UUID | None
    actor_name: str
    changes: tuple[LeafChange, ...]
    digest: str


def seal(change: Change, before: str) -> Change:
    """The change with the digest that follows the chain's digest before it."""
    return replace(change, digest=_chain(before, _body(change)))


def change_to_line(change: Change) -> bytes:
    """The canonical line, ended by a line break."""
    return f'{_body(change)[:-1]},"digest":"{change.digest}"}}\n'.encode()


def line_to_change(line: bytes) -> Change:
    """Read a line; raises BrokenHistoryError unless it is exactly as `change_to_line` writes it."""
    try:
        change = _read_change(parse_leaf(line.decode()))
    except (ValueError, KeyError, RecursionError, BadMetadataError) as error:
        raise BrokenHistoryError(f"A line of the history cannot be read: {error}.") from None
    if change_to_line(change) != line.rstrip(b"\n") + b"\n":
        raise BrokenHistoryError(f"Line {change.sequence} of the history is not in its canonical form.")
    return change


def require_chain(change: Change, before: str) -> None:
    """Raise BrokenHistoryError unless the change's digest follows from the one before."""
    if seal(change, before).digest != change.digest:
        raise BrokenHistoryError(
            f"Change {change.sequence} does not follow from the one before it.", sequence=change.sequence
        )


def snapshot_line(path: bytes, pointer: str, text: str) -> bytes:
    """One present leaf as a line."""
    return f'{{{_path_member(path)},"pointer":{render(pointer)},"value":{text}}}\n'.encode()


def digest_leaves(path: bytes, leaves: Iterable[tuple[str, str]]) -> str:
    """The digest of a subject from all its leaves, pointer and text, in any order."""
    digest = hashlib.sha512()
    for pointer, text in sorted(leaves, key=lambda leaf: leaf[0].encode()):
        digest.update(snapshot_line(path, pointer, text))
    return digest.hexdigest()


def render_changes(changes: Iterable[LeafChange]) -> str:
    """The changes as they stand in a line."""
    return f"[{','.join(map(_render_leaf_change, changes))}]"


def parse_changes(text: str) -> tuple[LeafChange, ...]:
    """Read what `render_changes` wrote."""
    return _read_changes(parse_leaf(text))


def _body(change: Change) -> str:
    actor = f'{{"id":{_quoted(change.actor_id)},"name":{render(change.actor_name)}}}'
    return (
        f'{{"sequence":{change.sequence},"thing":"{change.thing}",{_path_member(change.path)},'
        f'"revision":{change.revision},"at":"{format_time(change.at)}","actor":{actor},'
        f'"changes":{render_changes(change.changes)}}}'
    )


def _chain(before: str, body: str) -> str:
    return hashlib.sha512(bytes.fromhex(before) + body.encode()).hexdigest()


def _path_member(path: bytes) -> str:
    if is_text_path(path):
        return f'"path":{render(path.decode())}'
    return f'"path_bytes":"{base64.b64encode(path).decode()}"'


def _quoted(identifier: UUID | None) -> str:
    return "null" if identifier is None else f'"{identifier}"'


def _render_leaf_change(change: LeafChange) -> str:
    before = "" if change.before is None else f',"before":{change.before}'
    after = "" if change.after is None else f',"after":{change.after}'
    return f'{{"pointer":{render(change.pointer)}{before}{after}}}'


def _read_change(value: Value) -> Change:
    members = _members(value)
    actor = _members(members["actor"])
    return Change(
        thing=UUID(_text(members["thing"])),
        sequence=int(render(members["sequence"])),
        path=_read_path(members),
        revision=int(render(members["revision"])),
        at=parse_time(_text(members["at"])),
        actor_id=None if actor["id"] is None else UUID(_text(actor["id"])),
        actor_name=_text(actor["name"]),
        changes=_read_changes(members["changes"]),
        digest=_text(members["digest"]),
    )


def _read_path(members: dict[str, Value]) -> bytes:
    if "path" in members:
        return _text(members["path"]).encode()
    return base64.b64decode(_text(members["path_bytes"]), validate=True)


def _read_changes(value: Value) -> tuple[LeafChange, ...]:
    if not isinstance(value, list):
        raise ValueError("changes are a list")
    return tuple(_read_leaf_change(_members(item)) for item in value)


def _read_leaf_change(members: dict[str, Value]) -> LeafChange:
    before = render(members["before"]) if "before" in members else None
    after = render(members["after"]) if "after" in members else None
    return LeafChange(_text(members["pointer"]), before, after)


def _members(value: Value) -> dict[str, Value]:
    if not isinstance(value, dict):
        raise ValueError("an object is expected")
    return value


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is expected")
    return value
