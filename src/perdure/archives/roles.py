"""Roles on an archive: part of its record, kept by identity."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from perdure.archives.errors import GrantNotFoundError, MandatoryRoleMissingError
from perdure.archives.model import Archive, ArchiveState, Profile
from perdure.archives.records import Context, require_archive, require_state, save_grant_change
from perdure.identity.grants import render_grant
from perdure.identity.model import Action, Grant, Grantee, PassOnLimit, Reach, Role
from perdure.kernel.actor import Actor

_GRANTABLE = (ArchiveState.OPEN, ArchiveState.CLOSING, ArchiveState.CLOSED)


def list_grants(ctx: Context, actor: Actor, archive_id: UUID) -> list[Grant]:
    """The roles on the archive itself, ended ones too; those on its account are listed there."""
    with ctx.db.begin() as tx:
        require_archive(tx, ctx, actor, Action.MANAGE, archive_id)
        return ctx.identity.list_grants_in(tx, archive_id)


def explain_access(
    ctx: Context, actor: Actor, archive_id: UUID, *, after: UUID | None = None, limit: int = 1000
) -> list[Reach]:
    """Who reaches the archive, as what and why; for those who manage it."""
    with ctx.db.begin() as tx:
        archive = require_archive(tx, ctx, actor, Action.MANAGE, archive_id)
        return ctx.identity.explain_access_in(tx, actor, archive.thing(), after=after, limit=limit)


def grant(
    ctx: Context,
    actor: Actor,
    archive_id: UUID,
    to: Grantee,
    role: Role,
    *,
    expires_at: datetime | None = None,
    requires: Iterable[str] = (),
    pass_on: PassOnLimit | None = None,
) -> Grant:
    """Give a role, to one's own rank at most; giving it again sets its end, what it requires and its limit anew."""
    with ctx.changing(archive_id) as tx:
        return grant_in(tx, ctx, actor, archive_id, to, role, expires_at=expires_at, requires=requires, pass_on=pass_on)


def grant_in(
    tx: Connection,
    ctx: Context,
    actor: Actor,
    archive_id: UUID,
    to: Grantee,
    role: Role,
    *,
    expires_at: datetime | None = None,
    requires: Iterable[str] = (),
    pass_on: PassOnLimit | None = None,
) -> Grant:
    """As `grant`, in a transaction that changes the archive."""
    archive = require_grantable(tx, ctx, actor, archive_id, lock=True)
    before = grant_documents(tx, ctx, archive_id)
    given = ctx.identity.grant_in(
        tx, actor, archive.thing(), to, role, expires_at=expires_at, requires=requires, pass_on=pass_on
    )
    key = str(given.id)
    save_grant_change(tx, ctx, actor, archive, {key: before.get(key)}, {key: render_grant(given)})
    return given


def require_grantable(tx: Connection, ctx: Context, actor: Actor, archive_id: UUID, *, lock: bool = False) -> Archive:
    """The archive, if the actor manages it and roles may be given on it in its state."""
    archive = require_archive(tx, ctx, actor, Action.MANAGE, archive_id, lock=lock)
    require_state(archive, *_GRANTABLE)
    return archive


def revoke(ctx: Context, actor: Actor, archive_id: UUID, grant_id: UUID) -> None:
    """Take a role back; who holds it himself may always lay it down. Raises MandatoryRoleMissingError."""
    with ctx.changing(archive_id) as tx:
        archive = require_archive(tx, ctx, actor, Action.SEE, archive_id, lock=True)
        key = str(grant_id)
        before = grant_documents(tx, ctx, archive_id)
        if key not in before:
            ctx.identity.require(tx, actor, Action.MANAGE, archive.thing())
            raise GrantNotFoundError(f"The archive has no grant {key}.")
        ctx.identity.revoke_grant_in(tx, actor, archive.thing(), grant_id)
        require_mandatory_roles(tx, ctx, archive, archive.profile)
        save_grant_change(tx, ctx, actor, archive, {key: before[key]}, {key: None})


def require_mandatory_roles(tx: Connection, ctx: Context, archive: Archive, profile: Profile) -> None:
    """Raises MandatoryRoleMissingError when nobody holds a role that the profile demands, here or on the account."""
    now = ctx.clock.now()
    grants = [*ctx.identity.list_grants_in(tx, archive.id), *ctx.identity.list_grants_in(tx, archive.account_id)]
    held = {
        one.role.value
        for one in grants
        if (one.expires_at is None or one.expires_at > now) and one.to.named is None and not one.requires
    }
    missing = sorted(set(profile.mandatory_roles) - held)
    if missing:
        raise MandatoryRoleMissingError(
            f"The profile {profile.name} demands the role {', '.join(missing)}, which nobody would hold.", roles=missing
        )


def change_grants(tx: Connection, ctx: Context, actor: Actor, archive: Archive, act: Callable[[], object]) -> Archive:
    """Let something change the roles on a held archive, and its record tell of it; the archive as it is then."""
    before = grant_documents(tx, ctx, archive.id)
    act()
    after = grant_documents(tx, ctx, archive.id)
    changed = {key for key in (*before, *after) if before.get(key) != after.get(key)}
    if not changed:
        return archive
    old, new = ({key: side.get(key) for key in changed} for side in (before, after))
    return save_grant_change(tx, ctx, actor, archive, old, new)


def grant_documents(tx: Connection, ctx: Context, archive_id: UUID) -> dict[str, dict[str, object]]:
    """The roles on an archive as its record has them, by the ids of the grants."""
    return {str(row["id"]): row for row in ctx.identity.export_grants(tx, archive_id)}
