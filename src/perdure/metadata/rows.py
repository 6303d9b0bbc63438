"""Reading and writing the rows of subjects, in bulk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    LargeBinary,
    Select,
    Text,
    and_,
    delete,
    func,
    literal,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.sql.selectable import TableValuedAlias

from perdure.metadata.model import iter_parents, kind_of, parse_leaf, searchable
from perdure.metadata.nodes import Node, Nodes
from perdure.metadata.patches import Needs
from perdure.metadata.tables import values

PATH_KEY_BYTES = 512
POINTER_KEY_BYTES = 1984  # with the path's key and the thing below the 2,704 bytes that an index entry may have
ROWS_AT_ONCE = 5000

_T = TypeVar("_T")
_COLUMNS = (
    Column("path_key", LargeBinary),
    Column("pointer_key", LargeBinary),
    Column("long_pointer", Text),
    Column("kind", Text),
    Column("ordinal", BigInteger),
    Column("members", Integer),
    Column("next_ordinal", BigInteger),
    Column("value", Text),
    Column("folded", Text),
)
_KEYS = _COLUMNS[:2]


def key_of(whole: bytes, longest: int) -> bytes:
    """The bytes themselves, or for long ones their first `longest` bytes and the SHA-256 of all."""
    return whole if len(whole) <= longest else whole[:longest] + hashlib.sha256(whole).digest()


def path_key(path: bytes) -> bytes:
    return key_of(path, PATH_KEY_BYTES)


def pointer_key(pointer: str) -> bytes:
    return key_of(pointer.encode(), POINTER_KEY_BYTES)


def in_batches(items: Iterable[_T], size: int = ROWS_AT_ONCE) -> Iterator[list[_T]]:
    """The items in lists of at most `size`."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def load_nodes(tx: Connection, thing: UUID, needs: Mapping[bytes, Needs]) -> dict[bytes, Nodes]:
    """The nodes that are needed, by path; what does not exist is left out."""
    paths = {path_key(path): path for path in needs}
    found: dict[bytes, Nodes] = {path: {} for path in needs}
    for batch in in_batches(_ranges(needs)):
        for row in tx.execute(_within(thing, batch)):
            path = paths[row.path_key]
            pointer = row.long_pointer or row.pointer_key.decode()
            if _is_needed(pointer, needs[path]):
                found[path][pointer] = Node(row.ordinal, row.value, row.members, row.next_ordinal)
    return found


def save_nodes(tx: Connection, thing: UUID, before: Mapping[bytes, Nodes], after: Mapping[bytes, Nodes]) -> None:
    """Write the rows that differ, and no others."""
    gone = ((path_key(path), pointer_key(p)) for path in after for p in before[path] if p not in after[path])
    for keys in in_batches(gone):
        wanted = _unnest(_KEYS, keys)
        tx.execute(
            delete(values).where(
                values.c.thing == thing,
                values.c.path_key == wanted.c.path_key,
                values.c.pointer_key == wanted.c.pointer_key,
            )
        )
    changed = (
        _to_row(path, pointer, node)
        for path, nodes in after.items()
        for pointer, node in nodes.items()
        if before[path].get(pointer) != node
    )
    for rows in in_batches(changed):
        _upsert(tx, thing, rows)


def _upsert(tx: Connection, thing: UUID, rows: Sequence[tuple[object, ...]]) -> None:
    given = _unnest(_COLUMNS, rows)
    names = [column.name for column in _COLUMNS]
    statement = insert(values).from_select(["thing", *names], select(literal(thing), *(given.c[n] for n in names)))
    keys = ("thing", "path_key", "pointer_key")
    updated = {name: statement.excluded[name] for name in names if name not in keys}
    tx.execute(statement.on_conflict_do_update(index_elements=keys, set_=updated))


def _to_row(path: bytes, pointer: str, node: Node) -> tuple[object, ...]:
    key = pointer_key(pointer)
    value = None if node.value is None else parse_leaf(node.value)
    return (
        path_key(path),
        key,
        pointer if len(key) > POINTER_KEY_BYTES else None,
        "object" if node.value is None else kind_of(value),
        node.ordinal,
        node.members,
        node.next_ordinal,
        node.value,
        searchable(pointer, "" if value is None else value),
    )


# Any: the columns of one row have different types, and Column is invariant in its own.
def _unnest(columns: Sequence[Column[Any]], rows: Sequence[Sequence[object]]) -> TableValuedAlias:
    arrays = [
        literal([row[place] for row in rows], ARRAY(column.type.__class__)) for place, column in enumerate(columns)
    ]
    return func.unnest(*arrays).table_valued(*(Column(c.name, c.type) for c in columns)).render_derived(name="given")


def _within(thing: UUID, ranges: Sequence[tuple[bytes, bytes, bytes]]) -> Select[tuple[object, ...]]:
    """Each range by its own index scan: LATERAL, fenced by OFFSET, whatever the planner believes of the sizes."""
    wanted = _unnest([Column(name, LargeBinary) for name in ("path_key", "low", "high")], ranges)
    inner = (
        select(values)
        .where(
            and_(
                values.c.thing == thing,
                values.c.path_key == wanted.c.path_key,
                values.c.pointer_key >= wanted.c.low,
                values.c.pointer_key < wanted.c.high,
            )
        )
        .offset(0)
        .lateral("found")
    )
    columns = ("path_key", "pointer_key", "long_pointer", "ordinal", "members", "next_ordinal", "value")
    return select(*(inner.c[name] for name in columns)).select_from(wanted.join(inner, true()))


def _ranges(needs: Mapping[bytes, Needs]) -> Iterator[tuple[bytes, bytes, bytes]]:
    for path, need in needs.items():
        key = path_key(path)
        for pointer in need.single | need.whole:
            single = pointer_key(pointer)
            yield key, single, single + b"\0"
        for pointer in need.whole:
            low = f"{pointer}/".encode()[:POINTER_KEY_BYTES]
            yield key, low, low[:-1] + bytes([low[-1] + 1])


def _is_needed(pointer: str, need: Needs) -> bool:
    """Whether a row that was found was meant: keys of long pointers share their beginning."""
    if pointer in need.single or pointer in need.whole or "" in need.whole:
        return True
    return not need.whole.isdisjoint(iter_parents(pointer))
