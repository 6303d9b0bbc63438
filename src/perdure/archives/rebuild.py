"""The database, made again from the stores alone, and compared with another one table by table.

What is in no store does not come back: credentials, sessions, jobs, uploads in flight, approvals of withdrawals that
were not complete, and what each copy's last verification found. Copies come back as written, and are to be verified.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime
from io import BytesIO
from itertools import zip_longest
from uuid import UUID

from sqlalchemy import Connection, delete, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError

from perdure.archives.documents import (
    JsonObject,
    apply_members,
    parse_record,
)
from perdure.archives.entries import delete_entries, load_entries
from perdure.archives.errors import StoresNotEmptyError
from perdure.archives.exporting import EVENTS_FOLDER, REGISTRY_FOLDER, segment_range
from perdure.archives.heads import ARCHIVE_FILE, METADATA_HISTORY, RECORD_HISTORY
from perdure.archives.model import Archive, ArchiveState, Entry, EntryKind, PartState
from perdure.archives.placing import defer_seal
from perdure.archives.records import Context, to_row
from perdure.archives.tables import account_usage, archives, files, parts, profiles, record_changes, superseded
from perdure.db import Database
from perdure.db import metadata as all_tables
from perdure.formats import ocfl
from perdure.formats.canonical import parse_json_object
from perdure.formats.manifest import MANIFEST_NAME, ManifestEntry, iter_manifest, line_to_entry, line_to_superseded
from perdure.kernel.clock import parse_time
from perdure.kernel.digests import MultiDigest, digest_bytes
from perdure.kernel.errors import DamagedError
from perdure.kernel.ids import short_form
from perdure.kernel.paths import display_path
from perdure.storage.errors import StoreFailedError, StoreUnavailableError, UnknownObjectError
from perdure.storage.model import (
    META_FOLDER,
    Copy,
    CopyState,
    ObjectKind,
    PartRef,
    StoredObject,
    object_uri,
    object_uuid,
)

Tell = Callable[[str], None]

# Tables that the stores give back, each with the columns that they do not: what was given out, waited for or measured.
DERIVED: Mapping[str, tuple[str, ...]] = {
    "organisations": (),
    "identities": ("email",),
    "groups": (),
    "group_members": (),
    "accounts": (),
    "grants": (),
    "profiles": (),
    "archives": ("close_job", "changed_at"),
    "parts": ("assigned_files", "assigned_bytes", "sealed_at"),
    "files": ("added_at",),
    "superseded": ("at",),
    "record_changes": (),
    "account_usage": ("reserved_bytes",),
    "metadata_state": (),
    "metadata_subjects": (),
    "metadata_values": (),
    "metadata_changes": (),
    "events": ("position",),
    "stores": ("abilities",),
    "objects": (),
    "copies": ("state", "written_at", "verified_at", "evidence"),
}
_IN_ROOT = (PartState.SEALED.value, PartState.SEALING.value)  # a rebuild finds the sealing of no other part begun
_EMPTY_UNLESS = {"account_usage": "byte_count", "metadata_state": "sequence"}  # a row that says "nothing" is none


@dataclass(slots=True)
class RebuildReport:
    """What was found, and what could not be used: nothing damaged is passed over without a word."""

    objects: int = 0
    archives: int = 0
    parts: int = 0
    files: int = 0
    events: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Object:
    """One object as the stores hold it; `state` is that of the newest version."""

    object_id: str
    kind: ObjectKind
    version: int
    digest: str
    created: datetime
    state: Mapping[str, str]
    stores: dict[UUID, int]


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


def rebuild(ctx: Context, tell: Tell = lambda line: None) -> RebuildReport:
    """Fill an empty, migrated database from the stores, which have been prepared; raises StoresNotEmptyError."""
    report = RebuildReport()
    with ctx.db.begin() as tx:
        if tx.execute(select(func.count()).select_from(archives)).scalar_one():
            raise StoresNotEmptyError("The database holds archives: rebuild into a new one.")
    found = _find_objects(ctx, report)
    tell(f"{len(found)} objects in {len(ctx.storage.stores())} stores")
    _record_objects(ctx, found.values(), report)
    _restore_registry(ctx, found)
    for head in _parents_first(_iter_heads(ctx, found, report)):
        tell(f"archive {short_form(head.id)}")
        _restore_or_report(ctx, head, found, report)
    _count_usage(ctx)
    _restore_events(ctx, found, report)
    report.objects = len(found)
    return report


# Objects


def _find_objects(ctx: Context, report: RebuildReport) -> dict[str, _Object]:
    """Every object of every store, by its newest version."""
    found: dict[str, _Object] = {}
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


def _describe_object(object_id: str, inventory: ocfl.Inventory) -> _Object:
    state = inventory.head_state()
    algorithm = inventory.digest_algorithm
    return _Object(
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
    return ObjectKind.LOG if any(name.startswith(EVENTS_FOLDER) for name in names) else ObjectKind.REGISTRY


def _record_objects(ctx: Context, found: Iterable[_Object], report: RebuildReport) -> None:
    """Record every object and its copies. Heads and logs are read back from every store at once, parts later."""
    now = ctx.clock.now()
    objects = list(found)
    with ctx.db.begin() as tx:
        for one in objects:
            archive_id = object_uuid(one.object_id) if one.kind is ObjectKind.HEAD else None
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


def _restore_registry(ctx: Context, found: Mapping[str, _Object]) -> None:
    for one in found.values():
        if one.kind is ObjectKind.REGISTRY:
            tables = {
                path.removeprefix(REGISTRY_FOLDER).removesuffix(".ndjson"): _read_rows(ctx, one.object_id, path)
                for path in one.state
                if path.startswith(REGISTRY_FOLDER)
            }
            with ctx.db.begin() as tx:
                ctx.identity.restore_registry(tx, tables)
                for row in tables["profiles"]:
                    statement = upsert(profiles).values(row)
                    tx.execute(statement.on_conflict_do_update(index_elements=["name"], set_=row))


def _read_rows(ctx: Context, object_id: str, path: str) -> list[JsonObject]:
    return [parse_json_object(line) for line in ctx.storage.read_head_file(object_id, path).splitlines()]


# Archives


def _iter_heads(ctx: Context, found: Mapping[str, _Object], report: RebuildReport) -> Iterator[_Head]:
    for one in found.values():
        if one.kind is ObjectKind.HEAD:
            try:
                yield _read_head(ctx, one, report)
            except DamagedError as error:
                report.problems.append(f"head {one.object_id}: {error.detail}")


def _restore_or_report(ctx: Context, head: _Head, found: Mapping[str, _Object], report: RebuildReport) -> None:
    """An archive comes back whole, or not at all and said."""
    try:
        _restore_archive(ctx, head, found, report)
        report.archives += 1
    except DamagedError as error:
        report.problems.append(f"archive {short_form(head.id)}: {error.detail}")
    except IntegrityError:
        report.problems.append(
            f"archive {short_form(head.id)}: what it stands on, such as its parent, did not come back"
        )


def _read_head(ctx: Context, one: _Object, report: RebuildReport) -> _Head:
    document = parse_json_object(ctx.storage.read_head_file(one.object_id, ARCHIVE_FILE))
    record: JsonObject = dict(document)
    segments = sorted(path for path in one.state if path.startswith(RECORD_HISTORY))
    changes = [row for path in segments for row in _read_rows(ctx, one.object_id, path)]
    histories = sorted(path for path in one.state if path.startswith(METADATA_HISTORY))
    lines = [line for path in histories for line in ctx.storage.read_head_file(one.object_id, path).splitlines()]
    head = _Head(
        id=object_uuid(one.object_id),
        version=one.version,
        record=record,
        grants={grant["id"]: grant for grant in record["grants"]},
        changes=changes,
        head_revision=record["revision"],
        metadata_folded=record["metadata"]["sequence"],
        metadata_lines=lines,
    )
    _add_journal(ctx, head, report)
    return head


def _add_journal(ctx: Context, head: _Head, report: RebuildReport) -> None:
    """Changes that no head version carries yet."""
    journal = ctx.storage.read_journal(head.id)
    for store, detail in journal.damaged.items():
        report.problems.append(f"journal of {short_form(head.id)} in {store}, read from another store: {detail}")
    if journal.torn:
        report.problems.append(f"journal of {short_form(head.id)}: {len(journal.torn)} bytes after its last whole line")
    for text in journal.lines:
        line: JsonObject = dict(parse_json_object(text))
        if line["kind"] == "metadata":
            head.metadata_lines.append(line["line"].encode())
        elif line["revision"] > head.record["revision"]:
            head.changes.append(line)
            head.grants |= line["after"].get("grants", {})
            head.record = {**apply_members(head.record, line["after"]), "revision": line["revision"]}


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


def _restore_archive(ctx: Context, head: _Head, found: Mapping[str, _Object], report: RebuildReport) -> None:
    archive = parse_record(head.id, head.record, head.record["revision"])
    given = [grant for grant in head.grants.values() if grant is not None]
    with ctx.db.begin() as tx:
        ctx.identity.restore_standing(tx, head.record["stands_on"])
        strangers = ctx.identity.restore_strangers(tx, archive.organisation_id, given)
        tx.execute(insert(archives).values(id=head.id, **_archive_row(ctx, head, archive)))
        tx.execute(insert(record_changes), [_change_row(head.id, change) for change in _distinct(head.changes)])
        state = ctx.metadata.restore(tx, head.id, head.metadata_lines)
        marks = {"metadata_sequence": state.sequence, "metadata_journalled": state.sequence}
        tx.execute(update(archives).where(archives.c.id == head.id).values(**marks))
        ctx.identity.restore_grants(tx, given)
        for part in _list_sealed(ctx, head, found):
            _restore_part(tx, ctx, archive, part, found, report)
        _restore_superseded(tx, ctx, head, found)
        if archive.state in (ArchiveState.OPEN, ArchiveState.CLOSING):
            _restore_staged(tx, ctx, archive, found, report)
    if strangers:
        report.problems.append(f"archive {short_form(head.id)}: {strangers} of its roles are of persons unknown here")


def _archive_row(ctx: Context, head: _Head, archive: Archive) -> JsonObject:
    signed = {name: _find_document(ctx, head.id, f"{name}.json") for name in ("statement", "receipt", "tombstone")}
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


def _find_document(ctx: Context, archive_id: UUID, name: str) -> JsonObject | None:
    object_id = object_uri(archive_id)
    if name not in ctx.storage.head_state(object_id):
        return None
    return dict(parse_json_object(ctx.storage.read_head_file(object_id, name)))


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


def _list_sealed(ctx: Context, head: _Head, found: Mapping[str, _Object]) -> list[JsonObject]:
    document = _find_document(ctx, head.id, "parts.json")
    return list(document["parts"]) if document else []


def _restore_part(
    tx: Connection,
    ctx: Context,
    archive: Archive,
    part: JsonObject,
    found: Mapping[str, _Object],
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
    entries = [_to_entry(archive.id, number, entry) for entry in manifest]
    hidden_by = _list_superseded(ctx, archive.id)
    shown = [entry for entry in entries if (number, entry.path) not in hidden_by]
    load_entries(ctx.db, tx, shown, content_digest=archive.profile.digests[0], added_at=one.created)
    report.parts += 1
    report.files += len(shown)


def _list_superseded(ctx: Context, archive_id: UUID) -> set[tuple[int, bytes]]:
    object_id = object_uri(archive_id)
    if "superseded.ndjson" not in ctx.storage.head_state(object_id):
        return set()
    lines = ctx.storage.read_head_file(object_id, "superseded.ndjson").splitlines(keepends=True)
    return {(one.part, one.path) for one in map(line_to_superseded, lines)}


def _restore_superseded(tx: Connection, ctx: Context, head: _Head, found: Mapping[str, _Object]) -> None:
    at = found[object_uri(head.id)].created
    for number, path in sorted(_list_superseded(ctx, head.id)):
        row = {"archive_id": head.id, "part": number, "path": path, "at": at}
        tx.execute(upsert(superseded).values(row).on_conflict_do_nothing())


def _restore_staged(
    tx: Connection, ctx: Context, archive: Archive, found: Mapping[str, _Object], report: RebuildReport
) -> None:
    """What an open archive holds in staging, by the logs of its staged parts, in the order of their making.

    Parts that no head names are numbered anew; what their logs say of each other goes by their ids.
    """
    numbers = {row.id: row.number for row in tx.execute(select(parts).where(parts.c.archive_id == archive.id))}
    staged = [one.part for one in ctx.storage.iter_staged() if one.part.archive_id == archive.id and one.has_log]
    fresh = sorted((part for part in staged if part.part_id not in numbers), key=lambda part: part.part_id)
    numbers |= {part.part_id: number for number, part in enumerate(fresh, max(numbers.values(), default=0) + 1)}
    logs = [_read_log(ctx, archive, part, numbers, report) for part in fresh]
    growing = [log for log in logs if log.part.object_id not in found]
    for log in logs:
        if log not in growing:
            _adopt_part(tx, ctx, archive, log, found[log.part.object_id], report)
    _apply_removals(tx, archive, logs, growing, ctx.clock.now())
    for log in growing:
        _replay_staged(tx, ctx, archive, log, report, is_last=log is growing[-1])
    _count_staged(tx, archive.id)
    if len(growing) < len(logs):
        defer_seal(tx, ctx, archive.id)


@dataclass(slots=True)
class _StagedLog:
    """What the log of a staged part says: entries noted by path, and what is gone of other parts, by their number."""

    part: PartRef
    number: int
    noted: dict[bytes, list[Entry]] = field(default_factory=dict)
    gone: set[tuple[int, bytes]] = field(default_factory=set)


def _read_log(
    ctx: Context, archive: Archive, part: PartRef, numbers: Mapping[UUID, int], report: RebuildReport
) -> _StagedLog:
    found = ctx.storage.read_staged_log(part)
    if found.torn:
        torn = f"{len(found.torn)} bytes after the last whole line of its log"
        report.problems.append(f"staged part {part.part_id}: {torn}")
    log = _StagedLog(part, numbers[part.part_id])
    for line in found.lines:
        if b'"kind":' in line:
            entry = _to_entry(archive.id, log.number, line_to_entry(line + b"\n"))
            log.noted.setdefault(entry.path, []).append(entry)
            continue
        gone = line_to_superseded(line + b"\n")
        number = gone.part if gone.part_id is None else numbers.get(gone.part_id)
        if number == log.number:
            log.noted.pop(gone.path, None)
        elif number is not None:
            log.gone.add((number, gone.path))
    return log


def _adopt_part(
    tx: Connection, ctx: Context, archive: Archive, log: _StagedLog, one: _Object, report: RebuildReport
) -> None:
    """A part that was renamed into the root, and that no head names: its sealing goes on where it stopped."""
    data = ctx.storage.read_part_document(one.object_id, MANIFEST_NAME)
    entries = [_to_entry(archive.id, log.number, entry) for entry in iter_manifest(BytesIO(data))]
    size = _insert_part(tx, archive, log, entries, PartState.SEALING)
    stored = StoredObject(one.object_id, ObjectKind.PART, archive.id, one.version, one.digest, size)
    ctx.storage.record_object(tx, stored)
    shown = _displace(tx, archive.id, log, entries, ctx.clock.now(), report)
    load_entries(ctx.db, tx, shown, content_digest=archive.profile.digests[0], added_at=one.created)
    report.files += len(shown)


def _apply_removals(
    tx: Connection, archive: Archive, logs: Iterable[_StagedLog], growing: Iterable[_StagedLog], at: datetime
) -> None:
    """Take out what a log says is gone of another part; that part took nothing more in from then on."""
    by_number = {log.number: log for log in growing}
    for number, path in sorted(pair for log in logs for pair in log.gone):
        if number in by_number:
            by_number[number].noted.pop(path, None)
            continue
        _supersede(tx, archive.id, number, path, at)
        own = (files.c.archive_id == archive.id) & (files.c.part == number) & (files.c.path == path)
        tx.execute(delete(files).where(own))


def _replay_staged(
    tx: Connection, ctx: Context, archive: Archive, log: _StagedLog, report: RebuildReport, *, is_last: bool
) -> None:
    found = (_find_staged(ctx, log.part, log.noted[path], report) for path in sorted(log.noted))
    present = [entry for entry in found if entry is not None]
    present = _displace(tx, archive.id, log, present, ctx.clock.now(), report)
    _insert_part(tx, archive, log, present, PartState.FILLING if is_last else PartState.FULL)
    load_entries(ctx.db, tx, present, content_digest=archive.profile.digests[0], added_at=ctx.clock.now())
    report.files += len(present)


def _insert_part(tx: Connection, archive: Archive, log: _StagedLog, entries: Sequence[Entry], state: PartState) -> int:
    """The row of a part that no head names; returns its bytes."""
    counted = [entry for entry in entries if entry.kind is EntryKind.FILE]
    size = sum(entry.size for entry in counted)
    row = {"archive_id": archive.id, "number": log.number, "id": log.part.part_id, "state": state.value}
    assigned = {"assigned_files": len(entries), "assigned_bytes": size}
    tx.execute(insert(parts).values(**row, **assigned, file_count=len(counted), byte_count=size))
    return size


def _count_staged(tx: Connection, archive_id: UUID) -> None:
    """Let staged parts count what is shown of them: newer ones may have displaced some of it."""
    own = (files.c.archive_id == parts.c.archive_id) & (files.c.part == parts.c.number) & files.c.digest.is_not(None)
    number = select(func.count()).where(own).scalar_subquery()
    size = select(func.coalesce(func.sum(files.c.size), 0)).where(own).scalar_subquery()
    staged = (parts.c.archive_id == archive_id) & parts.c.state.not_in(_IN_ROOT)
    tx.execute(update(parts).where(staged).values(file_count=number, byte_count=size))


def _displace(
    tx: Connection, archive_id: UUID, log: _StagedLog, entries: Sequence[Entry], at: datetime, report: RebuildReport
) -> list[Entry]:
    """Put entries in the place of those that older parts have at their paths, and return those that have a place.

    A part that is sealed keeps what is displaced as superseded. What a newer one has sealed stays: every acknowledged
    replacement of it is noted in a log, and was taken out before.
    """
    kept = {entry.path: entry for entry in entries}
    for number, part_id, path in _find_sealed(tx, archive_id, list(kept)):
        if part_id < log.part.part_id:
            _supersede(tx, archive_id, number, path, at)
            continue
        del kept[path]
        _supersede(tx, archive_id, log.number, path, at)
        name = display_path(path)
        report.problems.append(f"part {log.part.part_id}: {name!r} is not shown, part {part_id} has it sealed later")
    delete_entries(tx, archive_id, list(kept))
    return list(kept.values())


def _find_sealed(tx: Connection, archive_id: UUID, paths: list[bytes]) -> list[tuple[int, UUID, bytes]]:
    """Number and id of the part in the root that holds what is shown at each of these paths."""
    wanted = func.unnest(literal(paths, ARRAY(BYTEA))).column_valued("wanted")
    query = (
        select(parts.c.number, parts.c.id, files.c.path)
        .join(parts, (parts.c.archive_id == files.c.archive_id) & (parts.c.number == files.c.part))
        .where(files.c.archive_id == archive_id, files.c.path.in_(select(wanted)), parts.c.state.in_(_IN_ROOT))
    )
    return [(row.number, row.id, row.path) for row in tx.execute(query)]


def _supersede(tx: Connection, archive_id: UUID, number: int, path: bytes, at: datetime) -> None:
    state = select(parts.c.state).where(parts.c.archive_id == archive_id, parts.c.number == number)
    if tx.execute(state).scalar_one_or_none() in _IN_ROOT:
        row = {"archive_id": archive_id, "part": number, "path": path, "at": at}
        tx.execute(upsert(superseded).values(row).on_conflict_do_nothing())


def _find_staged(ctx: Context, part: PartRef, noted: list[Entry], report: RebuildReport) -> Entry | None:
    """The newest entry noted for a path whose bytes are there: later ones were refused, and their bytes discarded.

    The bytes of the newest are digested when the part is sealed; an earlier one is believed by its digest only.
    """
    newest = noted[-1]
    for entry in reversed(noted):
        if entry.kind is not EntryKind.FILE or entry.content is None:
            return entry
        size = _staged_size(ctx, part, entry.content)
        if size == entry.size and (entry is newest or _has_digest(ctx, part, entry)):
            return entry
    report.problems.append(f"staged part {part.part_id}: the bytes noted for {newest.content!r} are not there")
    return None


def _staged_size(ctx: Context, part: PartRef, content: str) -> int:
    try:
        return ctx.storage.staged_size(part, content)
    except UnknownObjectError:
        return -1


def _has_digest(ctx: Context, part: PartRef, entry: Entry) -> bool:
    assert entry.content is not None
    digest = MultiDigest(entry.digests)
    for block in ctx.storage.read_staged(part, entry.content):
        digest.update(block)
    return digest.hexdigests() == dict(entry.digests)


def _to_entry(archive_id: UUID, number: int, entry: ManifestEntry) -> Entry:
    return Entry(
        archive_id=archive_id,
        path=entry.path,
        kind=EntryKind(entry.kind),
        size=entry.size,
        mtime_ns=entry.mtime_ns,
        mode=entry.mode,
        digests=entry.digests,
        target=entry.target,
        part=number,
        content=entry.content,
    )


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


def _restore_events(ctx: Context, found: Mapping[str, _Object], report: RebuildReport) -> None:
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
