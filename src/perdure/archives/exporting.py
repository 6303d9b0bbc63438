"""What is about no single archive, brought to the stores: the registry, and the event log in segments.

The registry is one OCFL object whose files are NDJSON tables. Events of a month are one object of kind log; its last
segment is replaced until it is full, then a new one begins. The ids of these objects follow from the installation's id,
so that a rebuild finds them by what they hold and a second export by where they must be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import structlog
from sqlalchemy import Connection, Row, select
from sqlalchemy.dialects.postgresql import insert

from perdure.archives.copying import keep_sound
from perdure.archives.documents import JsonObject
from perdure.archives.errors import DatabaseBehindError
from perdure.archives.heads import writer
from perdure.archives.records import Context
from perdure.archives.tables import export_state, profiles
from perdure.events.model import SEGMENT_EVENTS
from perdure.formats.canonical import canonical_line, parse_json_object
from perdure.kernel.clock import format_time
from perdure.storage.errors import UnknownObjectError
from perdure.storage.model import ObjectKind, object_uri

log = structlog.get_logger(__name__)

REGISTRY_FILES = (
    "organisations",
    "identities",
    "service_accounts",
    "terms",
    "groups",
    "accounts",
    "grants",
    "profiles",
)
REGISTRY_FOLDER = "registry/"
EVENTS_FOLDER = "events/"
_READ_EVERY = timedelta(days=30)
RENEW_JOB = "archives.renew_registry"
POSITION_NAME = "position.json"  # in each store: the last event that was numbered when it was written


def registry_id(instance_id: UUID) -> UUID:
    """The id of the registry's object."""
    return uuid5(instance_id, "registry")


def log_id(instance_id: UUID, month: datetime) -> UUID:
    """The id of the object that holds the events exported in a month (UTC)."""
    return uuid5(instance_id, f"events {month:%Y-%m}")


def export_registry(ctx: Context) -> int:
    """Bring organisations, people's names, groups, accounts and profiles to the stores; returns the version.

    A periodic job; what has not changed is not written.
    """
    with ctx.db.begin() as tx:
        tables = {**ctx.identity.export_registry(tx), "profiles": _export_profiles(tx)}
    changes = {f"{REGISTRY_FOLDER}{name}.ndjson": _lines(tables[name]) for name in REGISTRY_FILES}
    return _write(ctx, registry_id(ctx.settings.instance_id), ObjectKind.REGISTRY, changes, "Registry")


def renew_registry(ctx: Context) -> int:
    """Write the registry anew without its earlier versions, which name who was erased since; returns the version.

    A job; it may stop anywhere and run again.
    """
    object_id = object_uri(registry_id(ctx.settings.instance_id))
    with ctx.db.begin() as tx:
        is_there = ctx.storage.find_object(tx, object_id) is not None
    if is_there:
        ctx.storage.remove_object(object_id)
        with ctx.db.begin() as tx:
            ctx.storage.forget_objects(tx, [object_id])
    return export_registry(ctx)


def export_events(ctx: Context) -> int:
    """Bring the events that the stores lack to them, and return up to which number they have them.

    A periodic job. Safe to call twice and to stop anywhere: the same segments get the same names and bytes. Raises
    DatabaseBehindError.
    """
    require_position(ctx)
    ctx.events.sequence_pending()
    target = log_id(ctx.settings.instance_id, ctx.clock.now())
    with ctx.db.begin() as tx:
        state = tx.execute(select(export_state).where(export_state.c.name == "events").with_for_update()).one_or_none()
        present = _list_segments(ctx, target)
        after = _find_start(ctx, state, target)
        segments = list(ctx.events.iter_segments(tx, after=after))
        if not segments:
            return after
        changes: dict[str, bytes | None] = {path: None for path, (first, _) in present.items() if first > after}
        changes |= {EVENTS_FOLDER + segment.name: segment.data for segment in segments}
        last = segments[-1]
        _write(ctx, target, ObjectKind.LOG, changes, f"Events up to {last.last}")
        is_full = last.last - last.first + 1 >= SEGMENT_EVENTS
        _save_state(tx, last.last if is_full else last.first - 1, target)
    return last.last


def keep_position(ctx: Context, *, is_rebuilt: bool = False) -> int:
    """Tell the stores up to which number there are events, so that an older database over them is recognised.

    A periodic job. Raises DatabaseBehindError where a store knows of more, unless the database is rebuilt from them.
    """
    with ctx.db.begin() as tx:
        number = ctx.events.head(tx)[0]
    marks = ctx.storage.read_store_files(POSITION_NAME)
    if not is_rebuilt:
        require_known(number, marks)
    if len(marks) < len(ctx.storage.stores()) or any(_marked(data) != number for data in marks.values()):
        document = {"format": 1, "events": number, "written_at": format_time(ctx.clock.now())}
        ctx.storage.write_store_file(POSITION_NAME, canonical_line(document))
    return number


def keep_exports(ctx: Context) -> int:
    """Read the registry and the event log back from every store once a month, and mend them; how many stay broken.

    A periodic job.
    """
    with ctx.db.begin() as tx:
        kept = ctx.storage.objects_of_none(tx)
    broken = 0
    for stored in kept:
        copies = keep_sound(ctx, stored.object_id, read_before=ctx.clock.now() - _READ_EVERY)
        broken += bool(copies)
        if copies:
            stores = [str(copy.store_id) for copy in copies]
            log.error("export_damaged", object=stored.object_id, kind=stored.kind.value, stores=stores)
    return broken


def require_position(ctx: Context) -> None:
    """Raises DatabaseBehindError when a store was told of events that the database does not know."""
    with ctx.db.begin() as tx:
        number = ctx.events.head(tx)[0]
    require_known(number, ctx.storage.read_store_files(POSITION_NAME))


def require_known(number: int, marks: Mapping[str, bytes]) -> None:
    """The rule of `require_position`, given the database's last event and what each store holds as POSITION_NAME."""
    for store, data in marks.items():
        if _marked(data) > number:
            raise DatabaseBehindError(
                f"The store {store} knows of events up to {_marked(data)}, the database of those up to {number}.",
                store=store,
            )


def _marked(data: bytes) -> int:
    number = parse_json_object(data).get("events")
    return number if isinstance(number, int) else 0


def segment_range(path: str) -> tuple[int, int]:
    """The first and the last number of a segment, by its name."""
    first, _, last = path.removeprefix(EVENTS_FOLDER).removesuffix(".ndjson").partition("-")
    return int(first), int(last)


def _find_start(ctx: Context, state: Row[Any] | None, target: UUID) -> int:  # Any: a row of export_state
    """After which event the next segment begins: an object of a month that is over is not written to any more."""
    if state is None:
        return 0
    if state.digest == str(target):
        return int(state.position)
    ends = [last for _, last in _list_segments(ctx, UUID(state.digest)).values()]
    return max([int(state.position), *ends])


def _list_segments(ctx: Context, object_id: UUID) -> dict[str, tuple[int, int]]:
    """The segments of a log object with their first and last numbers; none when there is no object."""
    try:
        state = ctx.storage.head_state(object_uri(object_id))
    except UnknownObjectError:
        return {}
    return {path: segment_range(path) for path in state if path.startswith(EVENTS_FOLDER)}


def _save_state(tx: Connection, position: int, target: UUID) -> None:
    values = {"position": position, "digest": str(target)}
    statement = insert(export_state).values(name="events", **values)
    tx.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))


def _write(ctx: Context, object_id: UUID, kind: ObjectKind, changes: Mapping[str, bytes | None], message: str) -> int:
    written = ctx.storage.write_head(
        object_uri(object_id), None, kind, changes, message=message, user=writer(ctx), created=ctx.clock.now()
    )
    return written.version


def _export_profiles(tx: Connection) -> list[JsonObject]:
    query = select(profiles).order_by(profiles.c.name)
    return [
        {"name": row.name, "contract": row.contract, "offered": row.offered, "ordinal": row.ordinal}
        for row in tx.execute(query)
    ]


def _lines(rows: Iterable[Mapping[str, object]]) -> bytes:
    return b"".join(canonical_line(dict(row)) for row in rows)
