"""See archives: one with all that belongs to it, many by text, what happened to them, what everybody may see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, and_, func, or_, select

from perdure.archives import events as facts
from perdure.archives.citing import landing_page
from perdure.archives.errors import ArchiveNotFoundError, UnknownIdentifierError
from perdure.archives.journal import list_record_changes
from perdure.archives.model import Archive, ArchiveState, Part, possible_actions
from perdure.archives.placing import ACTIVE_UPLOADS, list_parts, use_of_organisation
from perdure.archives.records import Context, load_all, require_archive, require_visible, visible_to
from perdure.archives.searching import has_path_with
from perdure.archives.tables import account_usage, archives, uploads
from perdure.events import Event
from perdure.identity.events import (
    GRANT_GIVEN,
    GRANT_REVOKED,
    INVITATION_ACCEPTED,
    INVITATION_REVOKED,
    INVITATION_SENT,
)
from perdure.identity.model import Action, InstanceThing, scope_actions
from perdure.identity.rights import Survey
from perdure.kernel.actor import Actor
from perdure.kernel.errors import BadInputError
from perdure.kernel.ids import parse_id, short_form
from perdure.storage.model import CopyState, object_uri

MAX_PAGE = 200
MAX_EVENTS = 1000
MAX_WAIT_SECONDS = 60.0
MAX_TEXT_CHARACTERS = 200
_ABOUT_LINKS = (facts.LINK_MADE, facts.LINK_REVOKED, facts.LINK_USED, facts.ARCHIVE_READ)
_ABOUT_OWNERS = (facts.ROLES_MOVED, facts.TRANSFER_OFFERED, facts.ARCHIVE_TRANSFERRED)
_ABOUT_INVITATIONS = (INVITATION_SENT, INVITATION_REVOKED, INVITATION_ACCEPTED)
_ABOUT_ROLES = frozenset(
    {GRANT_GIVEN, GRANT_REVOKED, facts.ARCHIVE_WITHDRAWN, *_ABOUT_LINKS, *_ABOUT_INVITATIONS, *_ABOUT_OWNERS}
)


@dataclass(frozen=True, slots=True)
class ArchiveView:
    """An archive as one actor sees it; `actions` is what he may do with it in its state."""

    archive: Archive
    actions: frozenset[Action]
    parts: tuple[Part, ...] = ()
    verified_copies: int = 0  # stores that hold a verified copy of every sealed part
    children: tuple[UUID, ...] = ()
    uploads: int = 0
    is_test_identifier: bool = False


@dataclass(frozen=True, slots=True)
class ArchivePage:
    """Archives, newest first, and where the next page begins (None: there is none)."""

    items: tuple[ArchiveView, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class RecordChange:
    """One change of a record: the members that differ, as they were and as they are."""

    revision: int
    at: datetime
    actor_id: UUID | None
    actor_name: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RecordPage:
    """Changes in order, and where the next page begins (None: there is none)."""

    items: tuple[RecordChange, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Usage:
    """What an account uses, and its limit (None: none)."""

    account_id: UUID
    bytes: int
    reserved_bytes: int
    files: int
    quota_bytes: int | None
    quota_files: int | None = None


@dataclass(frozen=True, slots=True)
class UsageOfAll:
    """What all accounts of an organisation use together, and its limit (None: none)."""

    organisation_id: UUID
    bytes: int
    reserved_bytes: int
    files: int
    quota_bytes: int | None


@dataclass(frozen=True, slots=True)
class PublicPage:
    """What may be shown to one actor under an archive's identifier. Fields that may not be shown are None or empty.

    The files are shown only where `may_read` says so.
    """

    id: UUID
    identifier: str | None
    is_test_identifier: bool
    state: ArchiveState
    title: str
    may_read: bool
    archive: Archive | None
    tombstone: Mapping[str, object] | None
    url: str


def get_record(ctx: Context, actor: Actor, archive_id: UUID) -> ArchiveView:
    """One archive with its children, by one query where it has none."""
    found = require_visible(ctx, actor, archive_id)
    return ArchiveView(
        archive=_as_seen(found.archive, found.actions),
        actions=possible_actions(found.actions, found.archive.state),
        children=_list_children(ctx, actor, archive_id) if found.has_children else (),
        is_test_identifier=_has_test_identifier(ctx, found.archive),
    )


def get_view(ctx: Context, actor: Actor, archive_id: UUID) -> ArchiveView:
    """One archive with its parts, copies and children."""
    active = select(func.count()).where(uploads.c.archive_id == archive_id, uploads.c.state.in_(ACTIVE_UPLOADS))
    record = get_record(ctx, actor, archive_id)
    with ctx.db.read() as reading:
        own_parts = tuple(list_parts(reading, archive_id))
        return replace(
            record,
            parts=own_parts,
            verified_copies=_count_verified(reading, ctx, own_parts),
            uploads=reading.execute(active).scalar_one(),
        )


def list_archives(
    ctx: Context,
    actor: Actor,
    *,
    text: str | None = None,
    state: ArchiveState | None = None,
    account_id: UUID | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> ArchivePage:
    """The archives that the actor may see, newest first.

    `text` is looked for in record and metadata, and where he may read in paths, too.

    Discarded archives are listed only when asked for by their state.
    """
    limit = max(1, min(limit, MAX_PAGE))
    conditions = []
    if state is None:
        conditions.append(archives.c.state != ArchiveState.DISCARDED.value)
    else:
        conditions.append(archives.c.state == state.value)
    if account_id is not None:
        conditions.append(archives.c.account_id == account_id)
    if cursor is not None:
        conditions.append(archives.c.id < _read_cursor(cursor))
    with ctx.db.begin() as tx:
        survey = ctx.identity.survey(tx, actor)
        if text:
            conditions.append(_has_text(ctx, actor, text, survey))
        found = load_all(tx, visible_to(ctx, actor, survey=survey), *conditions, limit=limit + 1)
        shown = found[:limit]
        allowed = ctx.identity.actions_on_each(tx, survey, [archive.thing() for archive in shown])
        views = tuple(map(_list_one, shown, allowed))
    return ArchivePage(views, short_form(views[-1].archive.id) if len(found) > limit else None)


def list_reach(
    ctx: Context, actor: Actor, identity_id: UUID, *, cursor: str | None = None, limit: int = 50
) -> ArchivePage:
    """What `list_archives` gives that identity if its login proves all that any grant demands; for administrators.

    Nothing for who is disabled; what an entitlement opens that only a login brings is not in it.

    Raises NotFoundError when there is no such identity.
    """
    with ctx.db.begin() as tx:
        ctx.identity.require(tx, actor, Action.ADMINISTER, InstanceThing())
        person = ctx.identity.find_actor_in(tx, identity_id, asked_as=ctx.identity.best_login_in(tx))
    if person is None:
        ctx.identity.get_identity(actor, identity_id)
    return ArchivePage((), None) if person is None else list_archives(ctx, person, cursor=cursor, limit=limit)


def list_service_reach(
    ctx: Context, actor: Actor, service_id: UUID, *, cursor: str | None = None, limit: int = 50
) -> ArchivePage:
    """The archives that a service account reaches and what its best token may do there; for who may see the account.

    Nothing while it is disabled, or nobody is responsible for it.
    """
    with ctx.db.begin() as tx:
        ctx.identity.require_service_seen_in(tx, actor, service_id)
        machine = ctx.identity.find_actor_in(tx, service_id)
    if machine is None:
        return ArchivePage((), None)
    by_role = replace(machine, scope=replace(machine.scope, verbs=None))  # one that only writes lists nothing itself
    page = list_archives(ctx, by_role, cursor=cursor, limit=limit)
    views = (
        replace(view, actions=view.actions & scope_actions(machine.scope, view.archive.thing())) for view in page.items
    )
    return replace(page, items=tuple(views))


def record_history(
    ctx: Context, actor: Actor, archive_id: UUID, *, cursor: str | None = None, limit: int = 100
) -> RecordPage:
    """The changes of the record in order. Who has which role is told to those who may manage it."""
    limit = max(1, min(limit, MAX_EVENTS))
    with ctx.db.begin() as tx:
        archive = require_archive(tx, ctx, actor, Action.SEE, archive_id)
        may_manage = _may_manage(tx, ctx, actor, archive)
        rows = list_record_changes(tx, archive_id, after=_read_number(cursor), limit=limit + 1)
    names = ctx.identity.find_names(actor, {row.actor_id for row in rows if row.actor_id})
    changes = tuple(_to_change(row, names, with_grants=may_manage) for row in rows[:limit])
    return RecordPage(changes, str(changes[-1].revision) if len(rows) > limit else None)


def list_events(
    ctx: Context,
    actor: Actor,
    *,
    archive_id: UUID | None = None,
    after: int = 0,
    limit: int = 100,
    wait_seconds: float = 0,
) -> list[Event]:
    """Events of the archives that the actor may see, after a number and in order; waits for one if there is none.

    Who may administer the installation is told every event, so that he can follow the chain without a gap.
    What an event says of roles is told to those who may manage the archive; to others its data is empty.
    """
    limit = max(1, min(limit, MAX_EVENTS))
    if archive_id is not None:
        with ctx.db.begin() as tx:
            require_archive(tx, ctx, actor, Action.SEE, archive_id)
    found = _read_events(ctx, actor, archive_id, after, limit)
    if not found and wait_seconds > 0:
        ctx.events.wait_for(_head(ctx, after), min(wait_seconds, MAX_WAIT_SECONDS))
        found = _read_events(ctx, actor, archive_id, after, limit)
    return found


def use_of(ctx: Context, actor: Actor, account_id: UUID) -> Usage:
    """What an account uses of its quota."""
    with ctx.db.begin() as tx:
        account = ctx.identity.get_account_in(tx, account_id)
        ctx.identity.require(tx, actor, Action.READ_ACCOUNT, account.thing)
        row = tx.execute(select(account_usage).where(account_usage.c.account_id == account_id)).one_or_none()
    if row is None:
        return Usage(account_id, 0, 0, 0, account.quota_bytes, account.quota_files)
    used = (row.byte_count, row.reserved_bytes, row.file_count)
    return Usage(account_id, *used, account.quota_bytes, account.quota_files)


def use_of_all(ctx: Context, actor: Actor, organisation_id: UUID) -> UsageOfAll:
    """What all accounts of an organisation use of its quota; for those who manage it."""
    with ctx.db.begin() as tx:
        organisation = ctx.identity.require_manager_in(tx, actor, organisation_id)
        used = use_of_organisation(tx, ctx, organisation_id)
    return UsageOfAll(organisation_id, *used, organisation.quota_bytes)


def read_head_document(ctx: Context, actor: Actor, archive_id: UUID, name: str) -> bytes:
    """A file of the archive's head as it was written last."""
    with ctx.db.begin() as tx:
        require_archive(tx, ctx, actor, Action.READ, archive_id)
    return ctx.storage.read_head_file(object_uri(archive_id), name)


def public_page(ctx: Context, actor: Actor, identifier: str) -> PublicPage:
    """The page under a persistent identifier or an archive's own id.

    An archive that was closed has one for everybody: who may not see it is told that it exists, under which title and
    identifier, and that it is not public, or what its tombstone says. Before closing it exists only for who may see it.
    """
    with ctx.db.begin() as tx:
        found = load_all(tx, _identified_by(identifier))
        if not found:
            raise _no_page(identifier)
        archive = found[0]
        actions = ctx.identity.actions(tx, actor, archive.thing())
    is_known = archive.state in (ArchiveState.CLOSED, ArchiveState.WITHDRAWN)
    if Action.SEE not in actions and not is_known:
        raise _no_page(identifier)
    return _show(ctx, archive, actions)


def _list_children(ctx: Context, actor: Actor, archive_id: UUID) -> tuple[UUID, ...]:
    query = select(archives.c.id).where(archives.c.parent_id == archive_id, visible_to(ctx, actor))
    with ctx.db.read() as reading:
        return tuple(reading.execute(query.order_by(archives.c.id.desc())).scalars())


def _has_test_identifier(ctx: Context, archive: Archive) -> bool:
    """Whether nobody outside resolves the identifier; also of one that the registrar has lost."""
    if archive.identifier is None:
        return False
    try:
        return ctx.registrar.get(archive.identifier).is_test
    except UnknownIdentifierError:
        return True


def _show(ctx: Context, archive: Archive, actions: frozenset[Action]) -> PublicPage:
    is_shown = archive.state is not ArchiveState.WITHDRAWN
    return PublicPage(
        id=archive.id,
        identifier=archive.identifier,
        is_test_identifier=_has_test_identifier(ctx, archive),
        state=archive.state,
        title=archive.description.title,
        may_read=is_shown and Action.READ in actions,
        archive=archive if is_shown and Action.SEE in actions else None,
        tombstone=None if archive.tombstone is None else _public_tombstone(archive.tombstone),
        url=landing_page(ctx.settings.public_url, archive),
    )


def _list_one(archive: Archive, actions: frozenset[Action]) -> ArchiveView:
    return ArchiveView(_as_seen(archive, actions), possible_actions(actions, archive.state))


def _as_seen(archive: Archive, actions: frozenset[Action]) -> Archive:
    """Who approved a withdrawal, and which children keep the bytes, is told to those who may manage the archive."""
    if archive.tombstone is None or Action.MANAGE in actions:
        return archive
    return replace(archive, tombstone=_public_tombstone(archive.tombstone))


def _public_tombstone(tombstone: Mapping[str, object]) -> Mapping[str, object]:
    """When and why, not by whom."""
    public = ("title", "identifier", "closed_at", "withdrawn_at", "reasons")
    return {name: tombstone[name] for name in public if name in tombstone}


def _identified_by(identifier: str) -> ColumnElement[bool]:
    try:
        return archives.c.id == parse_id(identifier)
    except ValueError:
        return archives.c.identifier == identifier


def _no_page(identifier: str) -> ArchiveNotFoundError:
    return ArchiveNotFoundError(f"There is nothing under {identifier[:200]!r}, or you may not see it.")


def _has_text(ctx: Context, actor: Actor, text: str, survey: Survey) -> ColumnElement[bool]:
    """In the record and the metadata in whatever case, in paths as it is typed.

    What files are called and what is said of them finds an archive only for those who may read it.
    """
    text = text.strip()[:MAX_TEXT_CHARACTERS]
    if "\0" in text:
        raise BadInputError("The text holds a NUL.", field="text")
    return or_(
        archives.c.folded.contains(text.casefold(), autoescape=True),
        archives.c.identifier == text,
        archives.c.id.in_(ctx.metadata.find_things(text, with_files=False)),
        and_(
            visible_to(ctx, actor, Action.READ, survey=survey),
            or_(archives.c.id.in_(ctx.metadata.find_things(text)), has_path_with(text)),
        ),
    )


def _read_cursor(cursor: str) -> UUID:
    try:
        return parse_id(cursor)
    except ValueError as error:
        raise BadInputError(f"This is not a cursor: {error}.", field="cursor") from None


def _read_number(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise BadInputError("This is not a cursor of this list.", field="cursor")
    return int(cursor)


def _count_verified(tx: Connection, ctx: Context, own_parts: Sequence[Part]) -> int:
    sealed = [object_uri(part.id) for part in own_parts if part.inventory_digest]
    if not sealed:
        return 0
    held = [
        {copy.store_id for copy in copies if copy.state is CopyState.VERIFIED}
        for copies in ctx.storage.copies(tx, sealed).values()
    ]
    return len(set.intersection(*held))


def _read_events(ctx: Context, actor: Actor, archive_id: UUID | None, after: int, limit: int) -> list[Event]:
    seen = select(archives.c.id).where(visible_to(ctx, actor))
    with ctx.db.begin() as tx:
        if ctx.identity.can(tx, actor, Action.ADMINISTER, InstanceThing()):
            return ctx.events.read(tx, after=after, limit=limit, subject=archive_id)
        found = ctx.events.read(
            tx, after=after, limit=limit, subject=archive_id, visible=lambda subject: subject.in_(seen)
        )
        about = {event.subject for event in found if event.type in _ABOUT_ROLES}
        managed = {one.id for one in load_all(tx, archives.c.id.in_(about)) if _may_manage(tx, ctx, actor, one)}
    return [
        event if event.type not in _ABOUT_ROLES or event.subject in managed else replace(event, data={})
        for event in found
    ]


def _may_manage(tx: Connection, ctx: Context, actor: Actor, archive: Archive) -> bool:
    return ctx.identity.can(tx, actor, Action.MANAGE, archive.thing())


def _head(ctx: Context, after: int) -> int:
    with ctx.db.begin() as tx:
        return max(after, ctx.events.head(tx)[0])


def _to_change(
    row: Row[Any], names: Mapping[UUID, str], *, with_grants: bool
) -> RecordChange:  # Any: a row of record_changes
    before, after = dict(row.before), dict(row.after)
    if not with_grants:
        before.pop("grants", None)
        after.pop("grants", None)
    name = row.actor_name if row.actor_id is None else names.get(row.actor_id, "")
    return RecordChange(row.revision, row.at, row.actor_id, name, before, after)
