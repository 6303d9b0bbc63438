"""What the tests of the service share."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Table, select

from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.ids import new_id
from perdure.metadata import ChangeResult, Metadata, change_to_line
from perdure.metadata.tables import changes, states, subjects, values

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
ADA = Actor(ActorKind.PERSON, identity_id=new_id(), name="Ada")
METADATA = Metadata()
_KEYS: dict[Table, tuple[str, ...]] = {
    values: ("path_key", "pointer_key"),
    changes: ("sequence",),
    subjects: ("path_key",),
    states: (),
}


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def put(tx: Connection, thing: UUID, patch: object, path: bytes = b"", *, second: float = 0) -> ChangeResult:
    """Merge a document into a subject's metadata."""
    return METADATA.patch(tx, thing, path, json.dumps(patch).encode(), actor=ADA, now=at(second))


def get(tx: Connection, thing: UUID, path: bytes = b"", *, pointer: str = "", as_of: datetime | None = None) -> Any:
    """The value as Python reads it; Any because JSON may be of any shape."""
    return json.loads(METADATA.read(tx, thing, path, pointer=pointer, as_of=as_of).value)


def lines_of(tx: Connection, thing: UUID) -> list[bytes]:
    return [change_to_line(change) for change in METADATA.iter_changes(tx, thing)]


def rows_of(tx: Connection, thing: UUID) -> dict[str, list[tuple[object, ...]]]:
    """Every row of a thing, table by table."""
    return {
        table.name: [
            tuple(row)
            for row in tx.execute(select(table).where(table.c.thing == thing).order_by(*(table.c[k] for k in keys)))
        ]
        for table, keys in _KEYS.items()
    }
