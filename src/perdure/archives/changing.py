"""Changes of an archive's record: description, access, profile, lifetime. All of them also after closing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any
from uuid import UUID

from perdure.archives import events
from perdure.archives.copying import require_admitted_copies, require_stores
from perdure.archives.errors import BadDescriptionError
from perdure.archives.model import Access, Archive, ArchiveState, missing_for_close
from perdure.archives.profiles import choose_profile
from perdure.archives.records import Context, require_archive, require_revision, require_state, save_change
from perdure.archives.registering import defer_copies, defer_registration
from perdure.archives.roles import require_mandatory_roles
from perdure.archives.rules import check_access, check_keep_until, check_profile_fits, merge_description
from perdure.identity.model import Action
from perdure.kernel.actor import Actor

_KEPT = (ArchiveState.OPEN, ArchiveState.CLOSING, ArchiveState.CLOSED)


def describe(
    ctx: Context, actor: Actor, archive_id: UUID, patch: Mapping[str, Any], expected_revision: int | None
) -> Archive:
    """Apply a JSON merge patch to the description. Without an expected revision it applies to what is there."""
    with ctx.changing(archive_id) as tx:
        archive = require_archive(tx, ctx, actor, Action.DESCRIBE, archive_id, lock=True)
        require_state(archive, *_KEPT)
        require_revision(archive, expected_revision)
        after = replace(archive, description=merge_description(archive.description, patch))
        _require_citable(archive, after)
        saved = save_change(tx, ctx, actor, archive, after, event=events.ARCHIVE_CHANGED)
        if saved.revision != archive.revision:
            defer_registration(tx, ctx, saved)
        return saved


def set_access(
    ctx: Context,
    actor: Actor,
    archive_id: UUID,
    access: Access,
    embargo_until: date | None,
    expected_revision: int | None,
) -> Archive:
    """Set who may read it without a role, once it is closed."""
    with ctx.changing(archive_id) as tx:
        archive = require_archive(tx, ctx, actor, Action.MANAGE, archive_id, lock=True)
        require_state(archive, *_KEPT)
        require_revision(archive, expected_revision)
        check_access(access, embargo_until, today=ctx.clock.now().date())
        after = replace(archive, access=access, embargo_until=embargo_until)
        return save_change(tx, ctx, actor, archive, after, event=events.ARCHIVE_ACCESS_CHANGED)


def change_profile(ctx: Context, actor: Actor, archive_id: UUID, name: str, expected_revision: int | None) -> Archive:
    """Give the archive another contract that its account may choose and that it fits."""
    with ctx.changing(archive_id) as tx:
        archive = require_archive(tx, ctx, actor, Action.MANAGE, archive_id, lock=True)
        require_state(archive, ArchiveState.OPEN, ArchiveState.CLOSED)
        require_revision(archive, expected_revision)
        profile = choose_profile(tx, ctx.identity.get_account_in(tx, archive.account_id), name)
        check_profile_fits(archive, profile)
        require_stores(ctx, profile)
        require_admitted_copies(tx, ctx, archive, profile)
        require_mandatory_roles(tx, ctx, archive, profile)
        told = {"from": archive.profile.name, "to": profile.name}
        after = replace(archive, profile=profile)
        saved = save_change(tx, ctx, actor, archive, after, event=events.ARCHIVE_PROFILE_CHANGED, data=told)
        defer_copies(tx, ctx, saved)
        return saved


def extend_lifetime(
    ctx: Context, actor: Actor, archive_id: UUID, keep_until: date, expected_revision: int | None
) -> Archive:
    """Keep the archive longer, up to the end that its profile allows; a lifetime is never shortened."""
    with ctx.changing(archive_id) as tx:
        archive = require_archive(tx, ctx, actor, Action.MANAGE, archive_id, lock=True)
        require_state(archive, *_KEPT)
        require_revision(archive, expected_revision)
        check_keep_until(archive.profile, archive, keep_until)
        told = {"from": archive.keep_until.isoformat(), "to": keep_until.isoformat()}
        after = replace(archive, keep_until=keep_until)
        return save_change(tx, ctx, actor, archive, after, event=events.ARCHIVE_LIFETIME_EXTENDED, data=told)


def _require_citable(before: Archive, after: Archive) -> None:
    """What a closed archive had to say of itself to be closed, it goes on saying."""
    if before.state is ArchiveState.OPEN:
        return
    missing = set(missing_for_close(after.description, after.profile))
    missing -= set(missing_for_close(before.description, before.profile))
    if missing:
        field = min(missing)
        raise BadDescriptionError(f"{field}: a closed archive keeps it; change it, but do not empty it.", field=field)
