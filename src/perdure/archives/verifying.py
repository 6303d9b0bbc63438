"""Read every copy of an archive back from its medium and compare: on request, and by the profile's interval."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Integer, select

from perdure.archives import events
from perdure.archives.closing import actor_document, parse_actor
from perdure.archives.copying import verify_one
from perdure.archives.model import Archive, ArchiveState, PartState
from perdure.archives.placing import list_parts
from perdure.archives.records import Context, load, require_archive, require_state
from perdure.archives.tables import archives
from perdure.identity.model import Action
from perdure.jobs import JobContext, Json
from perdure.kernel.actor import SYSTEM, Actor
from perdure.storage.errors import StoreUnavailableError, UnknownStoreError
from perdure.storage.model import Copy, CopyState, VerifyReport, object_uri

VERIFY_JOB = "archives.verify"
_VERIFIABLE = (CopyState.WRITTEN, CopyState.VERIFIED, CopyState.SUSPECT)
_NAMED_FINDINGS = 100
_DUE_AT_ONCE = 10_000


class Verifying:
    """Use cases that compare the medium with what was written; nothing is repaired here."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        ctx.jobs.register(VERIFY_JOB, self._run)

    def start_verify(self, actor: Actor, archive_id: UUID) -> UUID:
        """Have all copies of the archive's head and sealed parts verified; the job's result is the report."""
        with self._ctx.db.begin() as tx:
            archive = require_archive(tx, self._ctx, actor, Action.VERIFY, archive_id)
            require_state(archive, ArchiveState.OPEN, ArchiveState.CLOSING, ArchiveState.CLOSED)
            return self._ctx.jobs.defer(
                tx,
                VERIFY_JOB,
                {"archive": str(archive_id), "actor": actor_document(actor)},
                queueing_lock=f"verify {archive_id}",
                thing=archive_id,
                requested_by=actor.identity_id,
            )

    def verify_due(self) -> int:
        """Defer the verifying of archives with a copy past its profile's interval; returns how many. A periodic job."""
        ctx = self._ctx
        due: set[UUID] = set()
        interval = archives.c.profile["verify_interval_days"].as_string().cast(Integer)
        with ctx.db.begin() as tx:
            closed = archives.c.state == ArchiveState.CLOSED.value
            days = list(tx.execute(select(interval).where(closed).distinct()).scalars())
            for wait in days:
                late = ctx.clock.now() - timedelta(days=wait)
                found = [
                    copy
                    for store in ctx.storage.stores()
                    for copy in ctx.storage.due_copies(tx, store.id, late, limit=_DUE_AT_ONCE)
                ]
                owners = {copy.object_id: ctx.storage.find_object(tx, copy.object_id) for copy in found}
                wanted = {stored.archive_id for stored in owners.values() if stored and stored.archive_id}
                query = select(archives.c.id).where(closed, interval == wait, archives.c.id.in_(wanted))
                due.update(tx.execute(query).scalars())
        for archive_id in due:
            self.start_verify(SYSTEM, archive_id)
        return len(due)

    def _run(self, job: JobContext, payload: dict[str, Any]) -> Mapping[str, Json]:  # Any: see Handler
        archive_id = UUID(payload["archive"])
        archive, numbers, copies = self._load(archive_id)
        if archive.state in (ArchiveState.WITHDRAWN, ArchiveState.DISCARDED):
            return {"good": False, "copies": []}
        told: list[dict[str, Json]] = []
        files = size = 0
        for copy in copies:
            job.raise_if_stopping()
            outcome, report = self._verify(job, archive_id, copy, size)
            told.append({**outcome, "object": copy.object_id, "part": numbers[copy.object_id]})
            if report is not None:
                files, size = files + report.files, size + report.bytes
            job.progress(done=size, unit="bytes", message=f"{len(told)} of {len(copies)} copies")
        is_good = bool(told) and all(one["good"] for one in told)
        with self._ctx.db.begin() as tx:
            data: dict[str, object] = {"good": is_good, "copies": len(told), "files": files, "bytes": size}
            self._ctx.events.record(tx, events.ARCHIVE_VERIFIED, archive_id, parse_actor(payload["actor"]), data)
        return {"good": is_good, "files": files, "bytes": size, "copies": told}

    def _load(self, archive_id: UUID) -> tuple[Archive, dict[str, int | None], list[Copy]]:
        with self._ctx.db.begin() as tx:
            archive = load(tx, archive_id)
            sealed = [part for part in list_parts(tx, archive_id) if part.state is PartState.SEALED]
            numbers: dict[str, int | None] = {object_uri(archive_id): None}
            numbers |= {object_uri(part.id): part.number for part in sealed}
            found = self._ctx.storage.copies(tx, numbers)
        copies = [copy for group in found.values() for copy in group if copy.state in _VERIFIABLE]
        return archive, numbers, copies

    def _verify(
        self, job: JobContext, archive_id: UUID, copy: Copy, done: int
    ) -> tuple[dict[str, Json], VerifyReport | None]:
        """Verify one copy; a store that cannot be reached is told, and its copy stays what it was."""
        stores = {store.id: store.name for store in self._ctx.storage.stores()}
        store = stores.get(copy.store_id, str(copy.store_id))
        try:
            report = verify_one(
                self._ctx,
                archive_id,
                copy.object_id,
                copy.store_id,
                progress=lambda _, size: job.progress(done=done + size, unit="bytes"),
                should_stop=job.should_stop,
            )
        except (StoreUnavailableError, UnknownStoreError) as error:
            return {"store": store, "good": False, "unreachable": error.detail}, None
        findings = [
            {"kind": found.kind.value, "content": found.content, "detail": found.detail}
            for found in report.findings[:_NAMED_FINDINGS]
        ]
        counts = {"files": report.files, "bytes": report.bytes, "finding_count": len(report.findings)}
        return {"store": store, "good": report.is_good, **counts, "findings": findings}, report
