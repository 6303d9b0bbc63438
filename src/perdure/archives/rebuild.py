"""The database, made again from the stores alone, and compared with another one table by table.

What is in no store does not come back: credentials, sessions, jobs, uploads in flight, approvals of withdrawals that
were not complete, and what each copy's last verification found. Copies come back as written, and are to be verified.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime
from io import BytesIO
from itertools import zip_longest
from typing import cast
from uuid import UUID

from sqlalchemy import Connection, delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError

from perdure.archives.documents import (
    JsonObject,
    apply_members,
    parse_record,
)
from perdure.archives.entries import load_entries
from perdure.archives.errors import StoresNotEmptyError
from perdure.archives.exporting import EVENTS_FOLDER, REGISTRY_FOLDER, keep_position, segment_range
from perdure.archives.heads import ARCHIVE_FILE, METADATA_HISTORY, RECORD_HISTORY
from perdure.archives.model import Archive, ArchiveState, PartState
from perdure.archives.persons import forget_person
from perdure.archives.rebuild_found import LINKS_FOLDER, FoundObject, RebuildReport, find_archive_id, to_entry
from perdure.archives.rebuild_staged import restore_staged
from perdure.archives.records import Context, to_row
from perdure.archives.tables import account_usage, archives, export_state, parts, profiles, record_changes, superseded
from perdure.db import Database
from perdure.db import metadata as all_tables
from perdure.events import Search, search_events
from perdure.formats import ocfl
from perdure.formats.canonical import parse_json_object
from perdure.formats.manifest import MANIFEST_NAME, iter_manifest, line_to_superseded
from perdure.identity.events import IDENTITY_ERASED
from perdure.kernel.clock import parse_time
from perdure.kernel.digests import digest_bytes
from perdure.kernel.errors import DamagedError
from perdure.kernel.ids import short_form
from perdure.storage.crash_points import crash_point
from perdure.storage.errors import StoreFailedError, StoreUnavailableError
from perdure.storage.model import (
    META_FOLDER,
    Copy,
    CopyState,
    ObjectKind,
    StoredObject,
    object_uri,
    object_uuid,
)

Tell = Callable[[str], None]
Restorer = Callable[[Context, Mapping[str, FoundObject], RebuildReport], None]  # of what another domain keeps

# Tables that the stores give back, each with the columns that they do not: what was given out, waited for or measured.
DERIVED: Mapping[str, tuple[str, ...]] = {
    "organisations": (),
    "identities": ("email", "email_folded", "email_confirmed_at", "ended_reason"),
    "service_accounts": (),
    "terms": (),
    "groups": (),
    "group_members": (),
    "claim_rules": (),
    "accounts": (),
    "grants": (),
    "profiles": (),
    "archives": ("close_job", "changed_at"),
    "parts": ("assigned_files", "assigned_bytes", "removals", "sealed_at"),
    "files": ("added_at",),
    "superseded": ("at",),
    "record_changes": (),
    "account_usage": ("reserved_bytes",),
    "metadata_state": (),
    "metadata_subjects": (),
    "metadata_values": (),
    "metadata_changes": (),
    "events": ("position",),
    "links": ("uses", "downloads", "last_used_at", "change", "stored_change"),
    "stores": ("abilities",),
    "objects": (),
    "copies": ("state", "written_at", "verified_at", "evidence"),
}
_SUPERSEDED = "superseded.ndjson"
_MARK = "rebuild"  # stands among the exports as long as the database is not whole
_ERASED_AT_ONCE = 1000
_UNFINISHED = export_state.c.name == _MARK
_EMPTY_UNLESS = {"account_usage": "byte_count", "metadata_state": "sequence"}  # a row that says "nothing" is none


@dataclass(slots=True)
class _Head:
    """The record of an archive with its changes, from its head and its journal."""

    id: UUID
    version: int
    record: JsonObject
    grants: dict[str, JsonObject | None]
    changes: list[JsonObject]
    head_revision: int
    metadata_folded: int
    metadata_lines: list[bytes]


def rebuild(ctx: Context, tell: Tell = lambda line: None, *, restorers: Collection[Restorer] = ()) -> RebuildReport:
    """Fill an empty, migrated database from the stores, which have been prepared; raises StoresNotEmptyError.

    `restorers` bring back what others keep beside archives, once archives and events are there.

    One that was interrupted is begun again from nothing by the next call.
    """
    report = RebuildReport()
    _begin(ctx.db)
    found = _find_objects(ctx, report)
    tell(f"{len(found)} objects in {len(ctx.storage.stores())} stores")
    _record_objects(ctx, found.values(), report)
    is_registry_known = _restore_registry(ctx, found)
    if not is_registry_known:
        tell("the registry is lost: roles on accounts and organisations are as old as the heads")
    crash_point("rebuild.registry_restored")
    for head in _parents_first(_iter_heads(ctx, found, report)):
        tell(f"archive {short_form(head.id)}")
        _restore_or_report(ctx, head, found, report, is_registry_known=is_registry_known)
        crash_point("rebuild.archive_restored")
    _report_strays(ctx, found, report)
    _count_usage(ctx)
    _restore_events(ctx, found, report)
    for restore in restorers:
        restore(ctx, found, report)
    _repeat_erasures(ctx)
    report.objects = len(found)
    keep_position(ctx, is_rebuilt=True)
    with ctx.db.begin() as tx:
        tx.execute(delete(export_state).where(_UNFINISHED))
    return report


def is_interrupted(db: Database) -> bool:
    """Whether a rebuild began to fill the database and did not end: nobody may work with what is there."""
    with db.begin() as tx:
        return tx.execute(select(export_state.c.id).where(_UNFINISHED)).first() is not None


def knows_nothing(db: Database) -> bool:
    """Whether the database has never heard of any object of a store."""
    with db.begin() as tx:
        return tx.execute(select(all_tables.tables["objects"]).limit(1)).first() is None


def _begin(db: Database) -> None:
    """Mark the database as being filled, and take out what an interrupted rebuild has left."""
    is_begun = is_interrupted(db)
    with db.begin() as tx:
        if is_begun:
            names = ", ".join(name for name in DERIVED if name != "stores")  # preparing the stores has recorded them
            tx.execute(text(f"TRUNCATE {names} CASCADE"))
        elif tx.execute(select(func.count()).select_from(archives)).scalar_one():
            raise StoresNotEmptyError("The database holds archives: rebuild into a new one.")
        else:
            tx.execute(insert(export_state).values(name=_MARK, position=0))


# Objects


def _find_objects(ctx: Context, report: RebuildReport) -> dict[str, FoundObject]:
    """Every object of every store, by its newest version."""
    found: dict[str, FoundObject] = {}
    for store in ctx.storage.stores():
        for object_id, inventory in ctx.storage.iter_objects(store.id):
            if isinstance(inventory, DamagedError):
                report.problems.append(f"{object_id} in {store.name}: {inventory.detail}")
                continue
            one = _describe_object(object_id, inventory)
            known = found.get(object_id)
            if known is not None and one.version == known.version and one.digest != known.digest:
                report.problems.append(f"{object_id} in {store.name}: version {one.version} differs between stores")
                continue
            if known is None or one.version > known.version:
                one.stores = known.stores if known else {}
                found[object_id] = one
            found[object_id].stores[store.id] = one.version
    return found


def _describe_object(object_id: str, inventory: ocfl.Inventory) -> FoundObject:
    state = inventory.head_state()
    algorithm = inventory.digest_algorithm
    return FoundObject(
        object_id=object_id,
        kind=_kind_of(state),
        version=ocfl.version_number(inventory.head),
        digest=digest_bytes(ocfl.inventory_bytes(inventory), (algorithm,))[algorithm],
        created=parse_time(inventory.versions[inventory.head].created),
        state=state,
        stores={},
    )


def _kind_of(state: Iterable[str]) -> ObjectKind:
    names = set(state)
    if ARCHIVE_FILE in names:
        return ObjectKind.HEAD
    if any(name.startswith(f"{META_FOLDER}/") for name in names):
        return ObjectKind.PART
    if any(name.startswith(LINKS_FOLDER) for name in names):
        return ObjectKind.LINKS
    return ObjectKind.LOG if any(name.startswith(EVENTS_FOLDER) for name in names) else ObjectKind.REGISTRY


def _record_objects(ctx: Context, found: Iterable[FoundObject], report: RebuildReport) -> None:
    """Record every object and its copies. Heads and logs are read back from every store at once, parts later."""
    now = ctx.clock.now()
    objects = list(found)
    with ctx.db.begin() as tx:
        for one in objects:
            archive_id = find_archive_id(one)
            ctx.storage.record_object(tx, StoredObject(one.object_id, one.kind, archive_id, one.version, one.digest, 0))
            for store_id, version in one.stores.items():
                ctx.storage.record_copy(tx, Copy(one.object_id, store_id, version, CopyState.WRITTEN, written_at=now))
    for one in objects:
        if one.kind is not ObjectKind.PART:
            try:
                ctx.storage.reconcile_head(one.object_id)
            except (DamagedError, StoreFailedError, StoreUnavailableError) as error:
                report.problems.append(f"{one.object_id}: {error.detail}")


# The registry


def _restore_registry(ctx: Context, found: Mapping[str, FoundObject]) -> bool:
    """Load the registry; whether there is one."""
    is_known = False
    for one in found.values():
        if one.kind is ObjectKind.REGISTRY:
            tables = {
                path.removeprefix(REGISTRY_FOLDER).removesuffix(".ndjson"): _read_rows(ctx, one.object_id, path)
                for path in one.state
                if path.startswith(REGISTRY_FOLDER)
            }
            is_known = True
            with ctx.db.begin() as tx:
                ctx.identity.restore_registry(tx, tables)
                for row in tables["profiles"]:
                    statement = upsert(profiles).values(row)
                    tx.execute(statement.on_conflict_do_update(index_elements=["name"], set_=row))
    return is_known


def _read_rows(ctx: Context, object_id: str, path: str) -> list[JsonObject]:
    return [parse_json_object(line) for line in ctx.storage.read_head_file(object_id, path).splitlines()]


# Archives


def _iter_heads(ctx: Context, found: Mapping[str, FoundObject], report: RebuildReport) -> Iterator[_Head]:
    for one in found.values():
        if one.kind is ObjectKind.HEAD:
            try:
                yield _read_head(ctx, one, report)
            except DamagedError as error:
                report.problems.append(f"head {one.object_id}: {error.detail}")


def _restore_or_report(
    ctx: Context, head: _Head, found: Mapping[str, FoundObject], report: RebuildReport, *, is_registry_known: bool
) -> None:
    """An archive comes back whole, or not at all and said."""
    try:
        _restore_archive(ctx, head, found, report, is_registry_known=is_registry_known)
        report.archives += 1
    except DamagedError as error:
        report.problems.append(f"archive {short_form(head.id)}: {error.detail}")
    except IntegrityError:
        report.problems.append(
            f"archive {short_form(head.id)}: what it stands on, such as its parent, did not come back"
        )


def _read_head(ctx: Context, one: FoundObject, report: RebuildReport) -> _Head:
    """The record with all its changes.

    A version of the head that was never committed may carry a change at a revision that the database then gave to
    another one, which the journal has: what was acknowledged counts, on the last version before that revision.
    """
    journal = _read_journal(ctx, object_uuid(one.object_id), report)
    later = {line["revision"]: line for line in journal if line["kind"] == "record"}
    segments = sorted(path for path in one.state if path.startswith(RECORD_HISTORY))
    folded = [row for path in segments for row in _read_rows(ctx, one.object_id, path)]
    disputed = [row["revision"] for row in folded if later.get(row["revision"], row) != row]
    committed = [row for row in folded if row["revision"] < min(disputed, default=row["revision"] + 1)]
    version, document = _find_version(ctx, one, min(disputed, default=None))
    histories = sorted(path for path in one.state if path.startswith(METADATA_HISTORY))
    lines = [line for path in histories for line in ctx.storage.read_head_file(one.object_id, path).splitlines()]
    head = _Head(
        id=object_uuid(one.object_id),
        version=version,
        record=dict(document),
        grants={grant["id"]: grant for grant in document["grants"]},
        changes=[row for row in committed if row["revision"] <= document["revision"]],
        head_revision=document["revision"],
        metadata_folded=document["metadata"]["sequence"],
        metadata_lines=lines + [line["line"].encode() for line in journal if line["kind"] == "metadata"],
    )
    since = {row["revision"]: row for row in committed} | later
    for revision in sorted(revision for revision in since if revision > head.head_revision):
        _apply(head, since[revision])
    return head


def _find_version(ctx: Context, one: FoundObject, before: int | None) -> tuple[int, JsonObject]:
    """The newest version of a head, or the newest whose record is from before a revision, with that record."""
    for version in range(one.version, 0, -1):
        document = parse_json_object(ctx.storage.read_head_file(one.object_id, ARCHIVE_FILE, version))
        if before is None or int(str(document["revision"])) < before:
            return version, dict(document)
    raise DamagedError(f"No version of {one.object_id} is from before revision {before}.")


def _read_journal(ctx: Context, archive_id: UUID, report: RebuildReport) -> list[JsonObject]:
    """The lines of an archive's journal."""
    journal = ctx.storage.read_journal(archive_id)
    for store, detail in journal.damaged.items():
        report.problems.append(f"journal of {short_form(archive_id)} in {store}, read from another store: {detail}")
    if journal.torn:
        left = f"{len(journal.torn)} bytes after its last whole line"
        report.problems.append(f"journal of {short_form(archive_id)}: {left}")
    return [dict(parse_json_object(line)) for line in journal.lines]


def _apply(head: _Head, change: JsonObject) -> None:
    """Let a change happen that the version of the head does not carry."""
    head.changes.append(change)
    head.grants |= change["after"].get("grants", {})
    head.record = {**apply_members(head.record, change["after"]), "revision": change["revision"]}


def _parents_first(heads: Iterable[_Head]) -> list[_Head]:
    by_id = {head.id: head for head in heads}
    ordered: dict[UUID, _Head] = {}

    def place(head: _Head) -> None:
        parent = by_id.get(UUID(head.record["parent"])) if head.record["parent"] else None
        if parent is not None and parent.id not in ordered:
            place(parent)
        ordered[head.id] = head

    for head in sorted(by_id.values(), key=lambda one: one.id):
        place(head)
    return list(ordered.values())


def _restore_archive(
    ctx: Context, head: _Head, found: Mapping[str, FoundObject], report: RebuildReport, *, is_registry_known: bool
) -> None:
    archive = parse_record(head.id, head.record, head.record["revision"])
    given = [grant for grant in head.grants.values() if grant is not None]
    with ctx.db.begin() as tx:
        ctx.identity.restore_standing(tx, head.record["stands_on"], is_registry_known=is_registry_known)
        strangers = ctx.identity.restore_strangers(tx, archive.organisation_id, given)
        tx.execute(insert(archives).values(id=head.id, **_archive_row(ctx, head, archive)))
        tx.execute(insert(record_changes), [_change_row(head.id, change) for change in _distinct(head.changes)])
        state = ctx.metadata.restore(tx, head.id, head.metadata_lines)
        marks = {"metadata_sequence": state.sequence, "metadata_journalled": state.sequence}
        tx.execute(update(archives).where(archives.c.id == head.id).values(**marks))
        ctx.identity.restore_grants(tx, given)
        sealed = _list_sealed(ctx, head)
        gone = _list_superseded(ctx, head, {part["number"] for part in sealed})
        for part in sealed:
            _restore_part(tx, ctx, archive, part, gone, found, report)
        _restore_superseded(tx, head, gone, found[object_uri(head.id)].created)
        if archive.state in (ArchiveState.OPEN, ArchiveState.CLOSING):
            restore_staged(tx, ctx, archive, found, report)
    if strangers:
        report.problems.append(f"archive {short_form(head.id)}: {strangers} of its roles are of persons unknown here")


def _archive_row(ctx: Context, head: _Head, archive: Archive) -> JsonObject:
    signed = {name: _find_document(ctx, head, f"{name}.json") for name in ("statement", "receipt", "tombstone")}
    return {
        **to_row(archive),
        **signed,
        "revision": archive.revision,
        "head_version": head.version,
        "head_revision": head.head_revision,
        "journalled": archive.revision,
        "metadata_folded": head.metadata_folded,
        "identifier_state": head.record["identifier_state"],
        "changed_at": parse_time(head.changes[-1]["at"]),
    }


def _find_document(ctx: Context, head: _Head, name: str) -> JsonObject | None:
    object_id = object_uri(head.id)
    if name not in ctx.storage.head_state(object_id, head.version):
        return None
    return dict(parse_json_object(ctx.storage.read_head_file(object_id, name, head.version)))


def _distinct(changes: Iterable[JsonObject]) -> list[JsonObject]:
    return [*{change["revision"]: change for change in changes}.values()]


def _change_row(archive_id: UUID, change: JsonObject) -> JsonObject:
    actor = change["actor"]
    return {
        "archive_id": archive_id,
        "revision": change["revision"],
        "at": parse_time(change["at"]),
        "actor_id": UUID(actor["id"]) if actor["id"] else None,
        "actor_name": actor["name"],
        "before": change["before"],
        "after": change["after"],
    }


# Content


def _list_sealed(ctx: Context, head: _Head) -> list[JsonObject]:
    document = _find_document(ctx, head, "parts.json")
    return list(document["parts"]) if document else []


def _restore_part(
    tx: Connection,
    ctx: Context,
    archive: Archive,
    part: JsonObject,
    gone: Collection[tuple[int, bytes]],
    found: Mapping[str, FoundObject],
    report: RebuildReport,
) -> None:
    """A sealed part: its row, its object and, from its manifest, its entries."""
    one = found.get(part["id"])
    if one is None:
        report.problems.append(f"{part['id']}, part {part['number']} of {short_form(archive.id)}, is in no store")
        return
    part_id, number = object_uuid(part["id"]), part["number"]
    row = {"archive_id": archive.id, "number": number, "id": part_id, "state": PartState.SEALED.value}
    digests = {name: part[name] for name in ("inventory_digest", "manifest_digest")}
    counts = {"file_count": part["files"], "byte_count": part["bytes"]}
    tx.execute(insert(parts).values(**row, **digests, **counts, sealed_at=one.created))
    manifest = iter_manifest(BytesIO(ctx.storage.read_part_document(part["id"], MANIFEST_NAME)))
    ctx.storage.record_object(
        tx, StoredObject(part["id"], ObjectKind.PART, archive.id, one.version, one.digest, part["bytes"])
    )
    entries = [to_entry(archive.id, number, entry) for entry in manifest]
    shown = [entry for entry in entries if (number, entry.path) not in gone]
    load_entries(ctx.db, tx, shown, content_digest=archive.profile.digests[0], added_at=one.created)
    report.parts += 1
    report.files += len(shown)


def _list_superseded(ctx: Context, head: _Head, sealed: Collection[int]) -> set[tuple[int, bytes]]:
    """What the sealed parts hold and the archive does not show.

    A note of a part that the head does not name is passed over: such parts get other numbers, and their logs say it.
    """
    object_id = object_uri(head.id)
    if _SUPERSEDED not in ctx.storage.head_state(object_id, head.version):
        return set()
    lines = ctx.storage.read_head_file(object_id, _SUPERSEDED, head.version).splitlines(keepends=True)
    return {(one.part, one.path) for one in map(line_to_superseded, lines) if one.part in sealed}


def _restore_superseded(tx: Connection, head: _Head, gone: Iterable[tuple[int, bytes]], at: datetime) -> None:
    for number, path in sorted(gone):
        row = {"archive_id": head.id, "part": number, "path": path, "at": at}
        tx.execute(upsert(superseded).values(row).on_conflict_do_nothing())


def _report_strays(ctx: Context, found: Mapping[str, FoundObject], report: RebuildReport) -> None:
    """Parts that no head and no log names: whose they are, only a person can find out."""
    with ctx.db.begin() as tx:
        named = {object_uri(part_id) for part_id in tx.execute(select(parts.c.id)).scalars()}
    for one in found.values():
        if one.kind is ObjectKind.PART and one.object_id not in named:
            report.problems.append(f"{one.object_id}: it is a part, and no archive names it")


def _count_usage(ctx: Context) -> None:
    held = (
        select(
            archives.c.account_id,
            func.sum(parts.c.byte_count).label("byte_count"),
            func.sum(parts.c.file_count).label("file_count"),
        )
        .join(parts, parts.c.archive_id == archives.c.id)
        .group_by(archives.c.account_id)
    )
    with ctx.db.begin() as tx:
        tx.execute(insert(account_usage).from_select(["account_id", "byte_count", "file_count"], held))


# Events


def _restore_events(ctx: Context, found: Mapping[str, FoundObject], report: RebuildReport) -> None:
    segments = sorted(
        (segment_range(path), one.object_id, path)
        for one in found.values()
        if one.kind is ObjectKind.LOG
        for path in one.state
        if path.startswith(EVENTS_FOLDER)
    )
    for _, object_id, path in segments:
        try:
            with ctx.db.begin() as tx:
                report.events += ctx.events.restore_segment(tx, ctx.storage.read_head_file(object_id, path))
        except DamagedError as error:
            report.problems.append(f"{path} of {object_id}: {error.detail}")


def _repeat_erasures(ctx: Context) -> None:
    """Who was erased is in no table again, whatever older copies in the stores tell of him."""
    after = 0
    while True:
        with ctx.db.begin() as tx:
            wanted = Search(type=IDENTITY_ERASED, after=after, is_newest_first=False, limit=_ERASED_AT_ONCE)
            found = search_events(tx, wanted)
            for event in found:
                aliases = [str(one) for one in cast("list[object]", event.data["aliases"])]
                forget_person(tx, ctx, [UUID(one) for one in (str(event.data["identity"]), *aliases)])
        if len(found) < _ERASED_AT_ONCE:
            return
        after = found[-1].number


# Comparing


def compare(one: Database, other: Database, *, tables: Mapping[str, tuple[str, ...]] = DERIVED) -> list[str]:
    """How two databases differ in what the stores give back: each table's first difference; empty if equal."""
    differences: list[str] = []
    with one.begin() as left, other.begin() as right:
        for name, left_out in tables.items():
            first = _find_difference(left, right, name, left_out)
            if first is not None:
                differences.append(f"{name}: {first[0]} / {first[1]}")
    return differences


def _find_difference(
    left: Connection, right: Connection, name: str, left_out: Iterable[str]
) -> tuple[str | None, str | None] | None:
    with closing(_iter_rows(left, name, left_out)) as ours, closing(_iter_rows(right, name, left_out)) as theirs:
        return next(((a, b) for a, b in zip_longest(ours, theirs) if a != b), None)


def _iter_rows(tx: Connection, name: str, left_out: Iterable[str]) -> Generator[str, None, None]:
    """The rows of a table as text, in the order of its key."""
    table = all_tables.tables[name]
    columns = [column for column in table.c if column.name not in left_out]
    query = select(*columns).order_by(*table.primary_key.columns)
    if name in _EMPTY_UNLESS:
        query = query.where(table.c[_EMPTY_UNLESS[name]] > 0)
    if name == "events":
        query = query.where(table.c.number.is_not(None)).order_by(None).order_by(table.c.number)
    with tx.execute(query, execution_options={"yield_per": 1000}) as rows:
        for row in rows.mappings():
            yield json.dumps(dict(row), default=_render, sort_keys=True)


def _render(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if isinstance(value, datetime | date) else str(value)
