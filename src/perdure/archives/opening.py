"""Open an archive, or a child of a closed one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from perdure.archives import events
from perdure.archives.copying import require_place, require_stores
from perdure.archives.documents import JsonObject, description_document
from perdure.archives.heads import Heads
from perdure.archives.model import (
    Access,
    Archive,
    ArchiveState,
    Description,
    Profile,
    as_open_child,
    initial_keep_until,
)
from perdure.archives.profiles import choose_profile
from perdure.archives.records import (
    Context,
    insert_archive,
    load,
    recall_answer,
    remember_answer,
    require_archive,
    require_state,
)
from perdure.archives.rules import check_access, check_description, check_keep_until, merge_description
from perdure.identity.callers import require_identity
from perdure.identity.grants import render_grant
from perdure.identity.model import Account, Action
from perdure.kernel.actor import Actor, without_name
from perdure.kernel.ids import new_id
from perdure.storage.crash_points import crash_point


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """What somebody wants opened. None takes the default: his personal account, the account's first profile, the
    profile's access and lifetime."""

    account_id: UUID | None = None
    profile: str | None = None
    description: Description = field(default_factory=Description)
    access: Access | None = None
    embargo_until: date | None = None
    keep_until: date | None = None


def open_archive(
    ctx: Context, heads: Heads, actor: Actor, request: OpenRequest, *, idempotency_key: str | None = None
) -> Archive:
    """Open an archive; it is there when its head has been written."""
    asked = _render_request(request)
    with ctx.db.begin() as tx:
        account = _require_account(tx, ctx, actor, request.account_id)
        answer = recall_answer(tx, actor, idempotency_key, asked)
        archive_id = UUID(answer["id"]) if answer else new_id()
        if answer is None:
            archive = _plan_archive(
                ctx, actor, account, choose_profile(tx, account, request.profile), request, archive_id
            )
            _write(tx, ctx, actor, archive)
            remember_answer(tx, ctx, actor, idempotency_key, asked, {"id": str(archive_id)})
    return _finish(ctx, heads, archive_id)


def append_to(
    ctx: Context,
    heads: Heads,
    actor: Actor,
    parent_id: UUID,
    patch: Mapping[str, Any],
    *,
    idempotency_key: str | None = None,
) -> Archive:
    """Open a child of a closed archive, with its profile, roles and metadata by value; `patch` changes its record."""
    asked = {"parent": str(parent_id), "patch": dict(patch)}
    with ctx.db.begin() as tx:
        parent = require_archive(tx, ctx, actor, Action.APPEND, parent_id, share=True)
        require_state(parent, ArchiveState.CLOSED)
        answer = recall_answer(tx, actor, idempotency_key, asked)
        archive_id = UUID(answer["id"]) if answer else new_id()
        if answer is None:
            child = as_open_child(parent, child_id=archive_id, opened=ctx.clock.now(), opened_by=actor.identity_id)
            child = replace(child, description=merge_description(child.description, patch))
            require_place(ctx, child.profile)
            _write_child(tx, ctx, actor, parent, child)
            remember_answer(tx, ctx, actor, idempotency_key, asked, {"id": str(archive_id)})
    return _finish(ctx, heads, archive_id)


def _require_account(tx: Connection, ctx: Context, actor: Actor, account_id: UUID | None) -> Account:
    if account_id is None:
        account = ctx.identity.get_personal_account_in(tx, require_identity(actor))
    else:
        account = ctx.identity.get_account_in(tx, account_id)
    ctx.identity.require(tx, actor, Action.OPEN_ARCHIVE, account.thing)
    return account


def _plan_archive(
    ctx: Context, actor: Actor, account: Account, profile: Profile, request: OpenRequest, archive_id: UUID
) -> Archive:
    now = ctx.clock.now()
    access = request.access or profile.access_default
    check_access(access, request.embargo_until, today=now.date())
    archive = Archive(
        id=archive_id,
        organisation_id=account.organisation_id,
        account_id=account.id,
        parent_id=None,
        state=ArchiveState.OPEN,
        profile=profile,
        description=check_description(request.description),
        access=access,
        embargo_until=request.embargo_until,
        keep_until=request.keep_until or initial_keep_until(profile, now),
        opened_at=now,
        opened_by=actor.identity_id,
        closed_at=None,
        revision=1,
        head_version=0,
    )
    require_stores(ctx, profile)  # else it would be filled, and could not be closed
    check_keep_until(profile, replace(archive, keep_until=now.date()), archive.keep_until)
    return archive


def _write(tx: Connection, ctx: Context, actor: Actor, archive: Archive) -> None:
    # Whoever opens an archive owns it; the system opens for the account, whose owner owns it by the account's role.
    grants: JsonObject = {}
    if actor.identity_id is not None:
        grant = ctx.identity.give_first_owner_in(tx, actor, archive.thing(), actor.identity_id)
        grants[str(grant.id)] = render_grant(grant)
    insert_archive(tx, ctx, actor, archive, grants)
    ctx.events.record(tx, events.ARCHIVE_OPENED, archive.id, actor, _told(archive))


def _write_child(tx: Connection, ctx: Context, actor: Actor, parent: Archive, child: Archive) -> None:
    ctx.identity.copy_grants(tx, parent.id, child.id)
    grants = {str(grant.id): render_grant(grant) for grant in ctx.identity.list_grants_in(tx, child.id)}
    insert_archive(tx, ctx, actor, child, grants)
    ctx.metadata.copy(tx, parent.id, child.id, actor=without_name(actor), now=child.opened_at)
    ctx.events.record(tx, events.ARCHIVE_OPENED, child.id, actor, _told(child))


def _finish(ctx: Context, heads: Heads, archive_id: UUID) -> Archive:
    crash_point("open.committed")
    heads.ensure_written(archive_id)
    with ctx.db.begin() as tx:
        return load(tx, archive_id)


def _told(archive: Archive) -> dict[str, object]:
    return {
        "account": str(archive.account_id),
        "profile": archive.profile.name,
        "parent": str(archive.parent_id) if archive.parent_id else None,
    }


def _render_request(request: OpenRequest) -> dict[str, object]:
    return {
        "account": str(request.account_id) if request.account_id else None,
        "profile": request.profile,
        "description": description_document(request.description),
        "access": request.access.value if request.access else None,
        "embargo_until": request.embargo_until.isoformat() if request.embargo_until else None,
        "keep_until": request.keep_until.isoformat() if request.keep_until else None,
    }
