"""What follows a change of a closed archive outside the database: its identifier's record, and its copies."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, select, update

from perdure.archives.citing import build_datacite, landing_page
from perdure.archives.copying import MEND_AGAIN_AFTER, ensure_copies, mend_copies
from perdure.archives.heads import Heads, find_parent_identifier
from perdure.archives.model import Archive, ArchiveState
from perdure.archives.placing import list_parts
from perdure.archives.records import Context, load, load_all
from perdure.archives.tables import archives
from perdure.jobs import JobContext, Json
from perdure.storage.model import CopyState, object_uri

REGISTER_JOB = "archives.register"
COPIES_JOB = "archives.keep_copies"
_NAMED_FAILURES = 100


def defer_registration(tx: Connection, ctx: Context, archive: Archive) -> None:
    """Have the registrar told of a changed record, if the archive has an identifier."""
    if archive.state is ArchiveState.CLOSED and archive.identifier is not None:
        _defer(tx, ctx, REGISTER_JOB, archive.id)


def defer_copies(tx: Connection, ctx: Context, archive: Archive) -> None:
    """Have a closed archive brought to as many verified copies as its profile demands."""
    if archive.state is ArchiveState.CLOSED:
        _defer(tx, ctx, COPIES_JOB, archive.id)


def register_identifier(ctx: Context, heads: Heads, archive_id: UUID) -> dict[str, Json]:
    """Let the identifier lead to the archive, described as it is; safe to run again at any time."""
    with ctx.db.begin() as tx:
        archive = load(tx, archive_id)
        parent = find_parent_identifier(tx, archive)
    if archive.state is not ArchiveState.CLOSED or archive.identifier is None:
        return {"registered": False}
    page = ctx.settings.public_url
    record = build_datacite(archive, public_url=page, parent_identifier=parent)
    known = ctx.registrar.register(archive.identifier, record, landing_page(page, archive))
    _keep_state(ctx, heads, archive_id, known.state)
    return {"registered": True}


def keep_copies(ctx: Context, job: JobContext, archive_id: UUID) -> dict[str, Json]:
    """Place and verify what the profile demands of the head and every part, and mend what is broken beyond that."""
    with ctx.db.begin() as tx:
        archive = load(tx, archive_id)
        sealed = [object_uri(part.id) for part in list_parts(tx, archive_id) if part.inventory_digest]
    if archive.state is not ArchiveState.CLOSED:
        return {"objects": 0}
    mended, failures = 0, list[str]()
    for object_id in (object_uri(archive_id), *sealed):
        job.raise_if_stopping()
        ensure_copies(ctx, archive, object_id, should_stop=job.should_stop)
        more, failed = mend_copies(ctx, archive, object_id, should_stop=job.should_stop)
        mended, failures = mended + more, failures + failed
    told: dict[str, Json] = {"failures": [*failures[:_NAMED_FAILURES]]} if failures else {}
    return {"objects": 1 + len(sealed), "copies": archive.profile.copies, "mended": mended, **told}


def mend_closed(ctx: Context) -> int:
    """Defer the mending of closed archives with a broken copy beside a verified one; returns how many. A periodic job.

    What was made within a day and is broken already is left: each attempt keeps the one before in quarantine.
    """
    with ctx.db.begin() as tx:
        broken = ctx.storage.broken_copies(tx, ctx.clock.now() - MEND_AGAIN_AFTER)
        copies = ctx.storage.copies(tx, {object_id for _, object_id in broken})
        here = {store.id for store in ctx.storage.stores()}
        sources = {
            key
            for key, held in copies.items()
            if any(one.state is CopyState.VERIFIED and one.store_id in here for one in held)
        }
        wanted = {archive_id for archive_id, object_id in broken if object_id in sources}
        found = load_all(
            tx, archives.c.state == ArchiveState.CLOSED.value, archives.c.id.in_(wanted), limit=len(wanted)
        )
        for archive in found:
            defer_copies(tx, ctx, archive)
    return len(found)


def _keep_state(ctx: Context, heads: Heads, archive_id: UUID, state: str) -> None:
    """Write the identifier's state into database and head, where it is another one than before."""
    row = archives.c.id == archive_id
    with ctx.db.begin() as tx:
        if tx.execute(select(archives.c.identifier_state).where(row)).scalar_one() == state:
            return
    with heads.writing(archive_id, message=f"Identifier {state}") as change:
        if change.archive.state is ArchiveState.CLOSED:
            change.tx.execute(update(archives).where(row).values(identifier_state=state))
            change.is_forced = True


def _defer(tx: Connection, ctx: Context, kind: str, archive_id: UUID) -> None:
    ctx.jobs.defer(
        tx,
        kind,
        {"archive": str(archive_id)},
        lock=f"archive {archive_id}",
        queueing_lock=f"{kind} {archive_id}",
        thing=archive_id,
    )
