"""What is done again and again for content: reservations end, copies are verified, what is behind is brought up."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import select

from perdure.archives.filling import Filling
from perdure.archives.model import PartState
from perdure.archives.placing import ACTIVE_UPLOADS
from perdure.archives.records import Context
from perdure.archives.sealing import copy_quiet
from perdure.archives.tables import archives, parts, uploads
from perdure.archives.verifying import Verifying

SWEEP_AFTER = timedelta(hours=24)


def register_content_upkeep(ctx: Context, filling: Filling, verifying: Verifying) -> None:
    """Name the periodic work to the queue; once for each process."""
    ctx.jobs.register_periodic("archives.expire_uploads", timedelta(minutes=1), filling.expire_uploads)
    ctx.jobs.register_periodic("archives.verify_due", timedelta(hours=6), verifying.verify_due)
    ctx.jobs.register_periodic("archives.copy_quiet", timedelta(minutes=5), lambda: copy_quiet(ctx))
    ctx.jobs.register_periodic("archives.sweep_staging", timedelta(hours=1), lambda: sweep_staging(ctx))
    ctx.jobs.register_periodic("storage.reconcile_heads", timedelta(minutes=5), ctx.storage.reconcile_heads)


def sweep_staging(ctx: Context) -> list[str]:
    """Remove what lies in staging, belongs to no archive, part or upload, and was not touched for a day."""

    def is_known(archive_id: UUID, part_or_upload: UUID | None) -> bool:
        with ctx.db.begin() as tx:
            if part_or_upload is None:
                return tx.execute(select(archives.c.id).where(archives.c.id == archive_id)).first() is not None
            part = select(parts.c.id).where(parts.c.id == part_or_upload, parts.c.state != PartState.SEALED.value)
            upload = select(uploads.c.id).where(uploads.c.id == part_or_upload, uploads.c.state.in_(ACTIVE_UPLOADS))
            return tx.execute(part.union_all(upload).limit(1)).first() is not None

    return ctx.storage.sweep_staging(is_known, ctx.clock.now() - SWEEP_AFTER)
