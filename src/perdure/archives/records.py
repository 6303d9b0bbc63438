"""The core of every use case on archives: what it works with, who may, load, save, acknowledge.

A change of the record is acknowledged after its transaction is committed and its line is fsynced in the archive's
journal: `with context.changing(archive_id) as tx:` does both. The row of the archive gives changes their order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    bindparam,
    cast,
    delete,
    func,
    insert,
    select,
    true,
    update,
)

from perdure.archives.documents import (
    JsonObject,
    changed_members,
    description_document,
    folded_text,
    parse_description,
    parse_profile,
    profile_document,
    record_document,
)
from perdure.archives.errors import (
    ArchiveClosedError,
    ArchiveClosingError,
    ArchiveDiscardedError,
    ArchiveNotFoundError,
    ArchiveOpenError,
    ArchiveWithdrawnError,
    IdempotencyKeyReusedError,
    RevisionConflictError,
)
from perdure.archives.journal import Journal
from perdure.archives.model import Access, Archive, ArchiveState
from perdure.archives.ports import Registrar
from perdure.archives.tables import archives, idempotency_keys, parts, record_changes
from perdure.db import Database, Question
from perdure.events import EventLog
from perdure.formats.canonical import canonical_json
from perdure.identity.model import Action
from perdure.identity.rights import Survey, role_parameters, select_roles
from perdure.identity.service import Identity
from perdure.jobs import Jobs, Lifelines
from perdure.kernel.actor import Actor, without_name
from perdure.kernel.clock import Clock
from perdure.kernel.errors import NotFoundError, PerdureError
from perdure.kernel.ids import short_form
from perdure.metadata.service import Metadata
from perdure.storage.crash_points import crash_point
from perdure.storage.service import Storage

_STATE_ERRORS: Mapping[ArchiveState, type[PerdureError]] = {
    ArchiveState.OPEN: ArchiveOpenError,
    ArchiveState.CLOSING: ArchiveClosingError,
    ArchiveState.CLOSED: ArchiveClosedError,
    ArchiveState.WITHDRAWN: ArchiveWithdrawnError,
    ArchiveState.DISCARDED: ArchiveDiscardedError,
}


@dataclass(frozen=True, slots=True)
class ArchiveSettings:
    """What an operator sets for archives. `public_url` is where landing pages are, without a slash at its end.

    A head version is written when changes have been quiet for `head_quiet`, and where the head has many versions have
    gathered for longer, or at `head_max_changes` of them.
    `ingest_roots` are the folders that server-side ingest may read.
    """

    instance_id: UUID
    public_url: str = "http://localhost"
    head_quiet: timedelta = timedelta(minutes=2)
    head_max_changes: int = 1000
    ingest_roots: tuple[Path, ...] = ()
    upload_lifetime: timedelta = timedelta(days=1)
    idempotency_lifetime: timedelta = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Context:
    """What the use cases work with; `journal` is made of the others by `make_context`."""

    db: Database
    clock: Clock
    identity: Identity
    events: EventLog
    jobs: Jobs
    storage: Storage
    metadata: Metadata
    registrar: Registrar
    settings: ArchiveSettings
    journal: Journal = field(repr=False)
    lifelines: Lifelines | None = None

    @contextmanager
    def changing(self, archive_id: UUID) -> Iterator[Connection]:
        """A transaction that changes the archive's record or metadata; at the end both it and the journal are safe."""
        with self.db.begin() as tx:
            yield tx
        crash_point("change.committed")
        self.journal.flush(archive_id)


def make_context(
    *,
    db: Database,
    clock: Clock,
    identity: Identity,
    events: EventLog,
    jobs: Jobs,
    storage: Storage,
    metadata: Metadata,
    registrar: Registrar,
    settings: ArchiveSettings,
    lifelines: Lifelines | None = None,
) -> Context:
    """Put the context together. `lifelines` tell of processes that ended on this machine: nobody waits for them."""
    journal = Journal(db, storage, metadata)
    return Context(db, clock, identity, events, jobs, storage, metadata, registrar, settings, journal, lifelines)


# Who may, and load


def require_archive(
    tx: Connection,
    ctx: Context,
    actor: Actor,
    action: Action,
    archive_id: UUID,
    *,
    lock: bool = False,
    share: bool = False,
    path: bytes | None = None,
    may_replace: bool = False,
) -> Archive:
    """Load the archive if the actor may do this with it: the first statement of a use case.

    A use case that tells and changes nothing but content says by `path` what it is about (`b""`: all content), and
    whether it `may_replace` what is there; others are closed to links and tokens for less than the whole archive.

    Raises ArchiveNotFoundError also when the actor may not know of it, else what `Identity.require` raises.
    """
    archive = load(tx, archive_id, lock=lock, share=share)
    try:
        ctx.identity.require(tx, actor, action, archive.thing(path, may_replace=may_replace))
    except NotFoundError:
        raise _not_found(archive_id) from None
    return archive


@dataclass(frozen=True, slots=True)
class Visible:
    """An archive that an actor may see, all that he may do with it, and whether any archive appends to it."""

    archive: Archive
    actions: frozenset[Action]
    has_children: bool


def require_visible(ctx: Context, actor: Actor, archive_id: UUID) -> Visible:
    """As `require_archive` for seeing alone: archive and roles by one query, which needs no transaction."""
    now = ctx.clock.now()
    row = ctx.db.ask(_VISIBLE, {"archive": archive_id, **role_parameters(actor, now)})
    if row is None:
        raise _not_found(archive_id)
    archive = to_archive(row)
    try:
        actions = ctx.identity.require_with(actor, Action.SEE, archive.thing(), row.roles, now=now)
    except NotFoundError:
        raise _not_found(archive_id) from None
    return Visible(archive, actions, row.has_children)


def load(tx: Connection, archive_id: UUID, *, lock: bool = False, share: bool = False) -> Archive:
    """One archive; raises ArchiveNotFoundError.

    `lock` holds off every other change of the record, and those who `share`, until the transaction ends; `share` holds
    off changes of the record only: whoever adds content shares, so that closing waits for him.
    """
    query = _select_archives().where(archives.c.id == archive_id)
    if lock or share:
        # Without `key_share` rows that refer to the archive could not be written meanwhile.
        query = query.with_for_update(of=archives, read=share and not lock, key_share=not share or lock)
    row = tx.execute(query).one_or_none()
    if row is None:
        raise _not_found(archive_id)
    return to_archive(row)


def load_all(tx: Connection, *conditions: ColumnElement[bool], limit: int | None = None) -> list[Archive]:
    """The archives that fulfil the conditions on the table, newest first."""
    query = _select_archives().where(*conditions).order_by(archives.c.id.desc()).limit(limit)
    return [to_archive(row) for row in tx.execute(query)]


def list_descendants(tx: Connection, archive_id: UUID) -> list[UUID]:
    """Every archive whose union shows something of this one, withdrawn and discarded ones apart."""
    start = select(archives.c.id).where(archives.c.parent_id == archive_id)
    tree = start.cte("descendants", recursive=True)
    tree = tree.union_all(select(archives.c.id).where(archives.c.parent_id == tree.c.id))
    gone = [ArchiveState.WITHDRAWN.value, ArchiveState.DISCARDED.value]
    live = select(archives.c.id).where(archives.c.id.in_(select(tree.c.id)), archives.c.state.not_in(gone))
    return list(tx.execute(live.order_by(archives.c.id)).scalars())


def visible_to(
    ctx: Context, actor: Actor, action: Action = Action.SEE, *, survey: Survey | None = None
) -> ColumnElement[bool]:
    """The condition on the table that the actor may see the archive, or may read it."""
    return ctx.identity.visible(
        actor,
        action=action,
        archive_id=archives.c.id,
        account_id=archives.c.account_id,
        organisation_id=archives.c.organisation_id,
        access=archives.c.access,
        embargo_until=archives.c.embargo_until,
        is_closed=archives.c.state.in_([ArchiveState.CLOSED.value, ArchiveState.WITHDRAWN.value]),
        survey=survey,
    )


def require_state(archive: Archive, *states: ArchiveState) -> None:
    """Raises the error that says in which state the archive is, unless it is in one of these."""
    if archive.state not in states:
        error = _STATE_ERRORS[archive.state]
        raise error(f"The archive {short_form(archive.id)} is {archive.state.value}.", state=archive.state.value)


def require_revision(archive: Archive, expected: int | None) -> None:
    """Raises RevisionConflictError when the caller has read another revision; None does not care."""
    if expected is not None and expected != archive.revision:
        raise RevisionConflictError(
            f"You read revision {expected}; the archive is at revision {archive.revision}.", revision=archive.revision
        )


# Rows


def to_archive(row: Any) -> Archive:  # Any: a row of all columns
    """The archive that a row of `_select_archives` holds."""
    counts = (row.statement or {}).get("counts", {})
    return Archive(
        id=row.id,
        organisation_id=row.organisation_id,
        account_id=row.account_id,
        parent_id=row.parent_id,
        state=ArchiveState(row.state),
        profile=parse_profile(row.profile),
        description=parse_description(row.description),
        access=Access(row.access),
        embargo_until=row.embargo_until,
        keep_until=row.keep_until,
        opened_at=row.opened_at,
        opened_by=row.opened_by,
        closed_at=row.closed_at,
        revision=row.revision,
        head_version=row.head_version,
        file_count=counts.get("files", row.file_count),
        byte_count=counts.get("bytes", row.byte_count),
        identifier=row.identifier,
        statement=row.statement,
        tombstone=row.tombstone,
    )


def to_row(archive: Archive) -> JsonObject:
    """The columns that the record fills; revision and what heads and journals keep for themselves apart."""
    return {
        "organisation_id": archive.organisation_id,
        "account_id": archive.account_id,
        "parent_id": archive.parent_id,
        "state": archive.state.value,
        "profile": profile_document(archive.profile),
        "description": description_document(archive.description),
        "folded": folded_text(archive.description),
        "access": archive.access.value,
        "embargo_until": archive.embargo_until,
        "keep_until": archive.keep_until,
        "opened_at": archive.opened_at,
        "opened_by": archive.opened_by,
        "closed_at": archive.closed_at,
        "identifier": archive.identifier,
        "statement": _plain_mapping(archive.statement),
        "tombstone": _plain_mapping(archive.tombstone),
    }


def insert_archive(tx: Connection, ctx: Context, actor: Actor, archive: Archive, grants: JsonObject) -> Archive:
    """Write a new archive with revision 1, `grants` being the documents of the roles it begins with, by id."""
    now = ctx.clock.now()
    tx.execute(insert(archives).values(id=archive.id, revision=1, changed_at=now, **to_row(archive)))
    after = {**record_document(archive), "grants": grants}
    _insert_change(tx, ctx, actor, archive.id, 1, {}, after)
    return replace(archive, revision=1)


def save_change(
    tx: Connection,
    ctx: Context,
    actor: Actor,
    before: Archive,
    after: Archive,
    *,
    event: str | None,
    data: Mapping[str, object] | None = None,
) -> Archive:
    """Save what a use case made of an archive that it loaded with `lock`; nothing happens when nothing differs.

    Returns the archive with its new revision. `event`, if any, is recorded with the names of the changed members and
    `data`.
    """
    old, new = changed_members(record_document(before), record_document(after))
    if not new and before.statement == after.statement and before.tombstone == after.tombstone:
        return before
    return _save(tx, ctx, actor, after, old, new, event, data)


def save_grant_change(
    tx: Connection, ctx: Context, actor: Actor, archive: Archive, old: JsonObject, new: JsonObject
) -> Archive:
    """Save that roles changed: `old` and `new` map the ids of grants to their documents, None where there is none.

    The event is identity's own.
    """
    return _save(tx, ctx, actor, archive, {"grants": old}, {"grants": new}, None, None)


def _save(
    tx: Connection,
    ctx: Context,
    actor: Actor,
    archive: Archive,
    old: JsonObject,
    new: JsonObject,
    event: str | None,
    data: Mapping[str, object] | None,
) -> Archive:
    saved = replace(archive, revision=archive.revision + 1)
    changed = tx.execute(
        update(archives)
        .where(archives.c.id == saved.id, archives.c.revision == archive.revision)
        .values(revision=saved.revision, changed_at=ctx.clock.now(), **to_row(saved))
    )
    if changed.rowcount != 1:
        raise RevisionConflictError("The archive was changed meanwhile.")
    _insert_change(tx, ctx, actor, saved.id, saved.revision, old, new)
    if event is not None:
        content = {"revision": saved.revision, "changed": sorted(new), **(data or {})}
        ctx.events.record(tx, event, saved.id, actor, content)
    return saved


def _insert_change(
    tx: Connection, ctx: Context, actor: Actor, archive_id: UUID, revision: int, before: JsonObject, after: JsonObject
) -> None:
    tx.execute(
        insert(record_changes).values(
            archive_id=archive_id,
            revision=revision,
            at=ctx.clock.now(),
            actor_id=actor.identity_id,
            actor_name=without_name(actor).name,
            before=before,
            after=after,
        )
    )


# Requests that may come twice


def recall_answer(tx: Connection, actor: Actor, key: str | None, request: Mapping[str, object]) -> JsonObject | None:
    """What was answered to this very request with this key before, or None; twins of the request wait until we commit.

    Raises IdempotencyKeyReusedError when the key came with another request. Without key or identity nothing is kept.
    """
    if key is None or actor.identity_id is None:
        return None
    tx.execute(select(func.pg_advisory_xact_lock(_key_lock(actor.identity_id, key))))
    row = tx.execute(
        select(idempotency_keys.c.request_digest, idempotency_keys.c.answer).where(
            idempotency_keys.c.identity_id == actor.identity_id, idempotency_keys.c.key == key
        )
    ).one_or_none()
    if row is None:
        return None
    if row.request_digest != _digest(request):
        raise IdempotencyKeyReusedError(f"The key {key[:100]!r} was sent with another request before.")
    answer: JsonObject = row.answer
    return answer


def remember_answer(
    tx: Connection, ctx: Context, actor: Actor, key: str | None, request: Mapping[str, object], answer: JsonObject
) -> None:
    """Keep the answer for `recall_answer`, in the transaction that made it true."""
    if key is None or actor.identity_id is None:
        return
    tx.execute(
        insert(idempotency_keys).values(
            identity_id=actor.identity_id, key=key, request_digest=_digest(request), answer=answer, at=ctx.clock.now()
        )
    )


def forget_answers(ctx: Context) -> int:
    """Remove answers that are older than the settings keep them; returns how many. A periodic job."""
    limit = ctx.clock.now() - ctx.settings.idempotency_lifetime
    with ctx.db.begin() as tx:
        return tx.execute(delete(idempotency_keys).where(idempotency_keys.c.at < limit)).rowcount


def _digest(request: Mapping[str, object]) -> str:
    return hashlib.sha256(canonical_json(dict(request))).hexdigest()


def _key_lock(identity_id: UUID, key: str) -> int:
    digest = hashlib.sha256(b"idempotency " + identity_id.bytes + key.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


# Sums of large integers are fractions to PostgreSQL
_COUNTS = [cast(func.coalesce(func.sum(column), 0), BigInteger) for column in (parts.c.file_count, parts.c.byte_count)]


def _select_archives() -> Select[Any]:  # Any: all columns
    files, size = (select(one).where(parts.c.archive_id == archives.c.id).scalar_subquery() for one in _COUNTS)
    return select(archives, files.label("file_count"), size.label("byte_count"))


_READ = (  # by `to_archive`: others of these columns are long
    *("id", "organisation_id", "account_id", "parent_id", "state", "profile", "description", "access"),
    *("embargo_until", "keep_until", "opened_at", "opened_by", "closed_at", "revision", "head_version"),
    *("identifier", "statement", "tombstone"),
)
_OWN_ROLES = select_roles(archives.c.id, archives.c.account_id, archives.c.organisation_id)


def _select_visible() -> Select[Any]:  # Any: what `to_archive` reads, and two more
    child = archives.alias("child")
    has_children = select(child.c.id).where(child.c.parent_id == archives.c.id).exists()
    counts = select(_COUNTS[0].label("file_count"), _COUNTS[1].label("byte_count"))
    counted = counts.where(parts.c.archive_id == archives.c.id).lateral("counted")  # once for both
    return (
        select(*(archives.c[name] for name in _READ), *counted.c)
        .add_columns(_OWN_ROLES.label("roles"))
        .add_columns(has_children.label("has_children"))
        .select_from(archives.join(counted, true()))
        .where(archives.c.id == bindparam("archive"))
    )


_VISIBLE = Question(_select_visible())


def _not_found(archive_id: UUID) -> ArchiveNotFoundError:
    return ArchiveNotFoundError(f"There is no archive {short_form(archive_id)}, or you may not see it.")


def _plain_mapping(value: Mapping[str, object] | None) -> JsonObject | None:
    return None if value is None else dict(value)
