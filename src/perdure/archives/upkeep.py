"""What is done again and again for content: reservations end, copies are verified, what is behind is brought up."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import timedelta
from uuid import UUID

from sqlalchemy import select

from perdure.archives.exporting import require_position
from perdure.archives.filling import Filling
from perdure.archives.model import ArchiveState, PartState
from perdure.archives.patience import Patience
from perdure.archives.placing import ACTIVE_UPLOADS
from perdure.archives.rebuild_staged import is_noted
from perdure.archives.records import Context
from perdure.archives.sealing import copy_quiet
from perdure.archives.tables import archives, parts, uploads
from perdure.archives.verifying import Verifying
from perdure.storage.model import PartRef

SWEEP_AFTER = timedelta(hours=24)
_PATIENCE = timedelta(hours=6)
_PATIENCE_WITH_LINKS = timedelta(minutes=5)  # a stranger's upload is not worth a quota that is full for hours
_IN_THE_MAKING = (ArchiveState.OPEN.value, ArchiveState.CLOSING.value)


def register_content_upkeep(ctx: Context, filling: Filling, verifying: Verifying) -> None:
    """Name the periodic work to the queue; once for each process."""
    late, late_by_link, old = Patience(_PATIENCE), Patience(_PATIENCE_WITH_LINKS), Patience(_PATIENCE)
    every = timedelta(minutes=1)
    ctx.jobs.register_periodic("archives.expire_uploads", every, lambda: filling.expire_uploads(late, late_by_link))
    ctx.jobs.register_periodic("archives.verify_due", timedelta(hours=6), verifying.verify_due)
    ctx.jobs.register_periodic("archives.copy_quiet", timedelta(minutes=5), lambda: copy_quiet(ctx))
    ctx.jobs.register_periodic("archives.sweep_staging", timedelta(hours=1), lambda: sweep_staging(ctx, old))
    ctx.jobs.register_periodic("storage.reconcile_heads", timedelta(minutes=5), ctx.storage.reconcile_heads)


def sweep_staging(ctx: Context, patience: Patience | None = None) -> list[str]:
    """Remove what lies in staging, was given up as far as the database knows, and was not touched for a day.

    What belongs to an archive that the database has never heard of stays, and a part of an open archive whose log tells
    of entries: a newer database may have acknowledged them. Raises DatabaseBehindError.
    """
    require_position(ctx)
    old: set[Hashable] = set()

    def is_kept(archive_id: UUID, thing: UUID | None) -> bool:
        if thing is None or _may_be_wanted(ctx, archive_id, thing):
            return True
        old.add(thing)
        return patience is not None and not patience.is_over(thing)

    swept = ctx.storage.sweep_staging(is_kept, ctx.clock.now() - SWEEP_AFTER)
    if patience is not None:
        patience.forget_all_but(old)
    return swept


def _may_be_wanted(ctx: Context, archive_id: UUID, thing: UUID) -> bool:
    """Whether a staged part or upload is in use, or anybody may have been promised what it holds."""
    with ctx.db.begin() as tx:
        state = tx.execute(select(archives.c.state).where(archives.c.id == archive_id)).scalar_one_or_none()
        part = tx.execute(select(parts.c.state).where(parts.c.id == thing)).scalar_one_or_none()
        upload = tx.execute(select(uploads.c.state).where(uploads.c.id == thing)).scalar_one_or_none()
    if state is None:
        return True
    if part is not None or upload is not None:
        return part not in (None, PartState.SEALED.value) or upload in ACTIVE_UPLOADS
    return state in _IN_THE_MAKING and is_noted(ctx, PartRef(archive_id, thing))
