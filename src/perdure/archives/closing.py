"""Close an archive: every file accounted for, sealed, copied and verified, then signed for.

The commit point is the head version with the statement, written in the transaction that sets the state; before it
`closing` may return to `open`. Each step finds what an earlier attempt has done, so asking again goes on.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from hashlib import sha512
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select, update

from perdure.archives import events
from perdure.archives.copying import ensure_copies, require_stores
from perdure.archives.entries import count_entries
from perdure.archives.errors import (
    ArchiveOpenError,
    EmptyArchiveError,
    NotReopenableError,
    RecordIncompleteError,
    TransfersLandingError,
    UploadsUnfinishedError,
)
from perdure.archives.heads import STATEMENT_FILE, Heads, list_part_summaries, list_superseded
from perdure.archives.manifests import iter_sealed
from perdure.archives.model import (
    Archive,
    ArchiveState,
    Part,
    PartState,
    UploadState,
    missing_for_close,
)
from perdure.archives.placing import defer_seal, is_leased, list_parts, release, select_active_uploads
from perdure.archives.ports import Signer
from perdure.archives.reading import to_counts
from perdure.archives.records import (
    Context,
    load,
    require_archive,
    require_revision,
    require_state,
    save_change,
)
from perdure.archives.registering import register_identifier
from perdure.archives.roles import require_mandatory_roles
from perdure.archives.sealing import Sealing, one_thread
from perdure.archives.stages import Stages
from perdure.archives.tables import archives, files, parts
from perdure.formats.canonical import parse_json_object
from perdure.formats.manifest import checksum_line, checksum_list_name, digest_of_line, superseded_to_line
from perdure.formats.merkle import MerkleTree
from perdure.formats.statement import (
    CopyEvidence,
    MerkleMark,
    MetadataMark,
    build_closing_statement,
    build_receipt,
    find_metadata_mark,
    statement_digest,
)
from perdure.identity.model import Action
from perdure.jobs import JobContext, JobNotFoundError, Json
from perdure.kernel.actor import SYSTEM, Actor, ActorKind
from perdure.kernel.clock import parse_time
from perdure.kernel.digests import digest_bytes
from perdure.kernel.paths import display_path
from perdure.storage.crash_points import crash_point
from perdure.storage.model import Copy, PartRef, object_uri

CLOSE_JOB = "archives.close"
RECEIPT_JOB = "archives.receipt"
_OF_THE_MOMENT = ("closed_at", "event_position")  # of a statement; all else says what was closed
_NAMED_UPLOADS = 100
_LANDING_LOOKS = 20
_LANDING_WAIT = 0.25  # seconds


class Closing:
    """Use cases that end the filling of an archive. Without a signer this process defers the jobs and runs none."""

    def __init__(self, ctx: Context, heads: Heads, signer: Signer | None = None) -> None:
        self._ctx = ctx
        self._heads = heads
        self._signer = signer
        self._sealing = Sealing(ctx, heads)
        self._sealing.register()
        ctx.jobs.register(CLOSE_JOB, self._run_close, max_attempts=100)
        ctx.jobs.register(RECEIPT_JOB, self._run_receipt, max_attempts=1000)

    def close(
        self, actor: Actor, archive_id: UUID, *, discard_uploads: bool = False, expected_revision: int | None = None
    ) -> UUID:
        """Begin to close, and return the job that does it; asked again, the running or finished job, or a new attempt.

        Raises what must be mended first: EmptyArchiveError, RecordIncompleteError, UploadsUnfinishedError,
        NotEnoughStoresError, MandatoryRoleMissingError.
        """
        ctx = self._ctx
        abandoned: list[tuple[PartRef, UUID]] = []
        with ctx.changing(archive_id) as tx:
            archive = require_archive(tx, ctx, actor, Action.CLOSE, archive_id, lock=True)
            require_state(archive, ArchiveState.OPEN, ArchiveState.CLOSING, ArchiveState.CLOSED)
            earlier = self._find_job(tx, archive)
            if earlier is not None:
                return earlier
            if archive.state is ArchiveState.OPEN:
                require_revision(archive, expected_revision)
                self._require_closable(tx, archive)
                abandoned = self._settle_uploads(tx, archive, discard_uploads=discard_uploads)
                fenced = replace(archive, state=ArchiveState.CLOSING)
                archive = save_change(tx, ctx, actor, archive, fenced, event=events.ARCHIVE_CLOSING)
            job_id = self._defer_close(tx, actor, archive)
        for part, upload_id in abandoned:
            ctx.storage.forget_upload(part, upload_id)
        return job_id

    def reopen(self, actor: Actor, archive_id: UUID) -> Archive:
        """Take a closing back that has not come to its statement, and fill the archive again.

        Raises NotReopenableError once the statement stands in a store. What is sealed stays sealed.
        """
        ctx = self._ctx
        with ctx.changing(archive_id) as tx:
            archive = require_archive(tx, ctx, actor, Action.CLOSE, archive_id, lock=True)
            require_state(archive, ArchiveState.CLOSING)
            if "statement.json" in ctx.storage.head_state(object_uri(archive_id)):
                raise NotReopenableError("The closing statement is written already; only the last step is missing.")
            job_id = tx.execute(select(archives.c.close_job).where(archives.c.id == archive_id)).scalar_one()
            if job_id is not None:
                ctx.jobs.cancel(tx, job_id)
            if any(part.state in (PartState.FULL, PartState.SEALING) for part in list_parts(tx, archive_id)):
                defer_seal(tx, ctx, archive_id)  # what is between staging and root is read from neither
            opened = replace(archive, state=ArchiveState.OPEN)
            tx.execute(update(archives).where(archives.c.id == archive_id).values(close_job=None))
            return save_change(tx, ctx, actor, archive, opened, event=events.ARCHIVE_REOPENED)

    def public_keys(self) -> list[dict[str, object]]:
        """Every key that ever signed here, oldest first; none in a process that has no signer."""
        return self._signer.public_keys() if self._signer else []

    # What must be so before

    def _find_job(self, tx: Connection, archive: Archive) -> UUID | None:
        """The job that closes, or has closed, the archive; None when there is none, or it failed."""
        if archive.state is ArchiveState.OPEN:
            return None
        found: UUID | None = tx.execute(select(archives.c.close_job).where(archives.c.id == archive.id)).scalar_one()
        if found is None or archive.state is ArchiveState.CLOSED:
            return found
        try:
            job = self._ctx.jobs.get(tx, found)
        except JobNotFoundError:
            return None
        return None if job.state.is_final else found

    def _require_closable(self, tx: Connection, archive: Archive) -> None:
        if tx.execute(select(files.c.path).where(files.c.archive_id == archive.id).limit(1)).first() is None:
            raise EmptyArchiveError("The archive holds nothing of its own.")
        missing = missing_for_close(archive.description, archive.profile)
        if missing:
            raise RecordIncompleteError(f"Missing in the record: {', '.join(missing)}.", missing=missing)
        require_mandatory_roles(tx, self._ctx, archive, archive.profile)
        require_stores(self._ctx, archive.profile)

    def _settle_uploads(self, tx: Connection, archive: Archive, *, discard_uploads: bool) -> list[tuple[PartRef, UUID]]:
        """End the uploads that may be ended; raises UploadsUnfinishedError for others.

        What is going into a part at this moment is not ended: the job waits for it.
        """
        now = self._ctx.clock.now()
        active = tx.execute(select_active_uploads(archive.id)).all()
        waiting = [row for row in active if row.expires_at >= now and not discard_uploads]
        if waiting:
            named = [
                {"id": str(row.id), "path": None if row.path is None else display_path(row.path)}
                for row in waiting[:_NAMED_UPLOADS]
            ]
            raise UploadsUnfinishedError(f"{len(waiting)} uploads are not finished.", uploads=named)
        numbers = {part.number: PartRef(archive.id, part.id) for part in list_parts(tx, archive.id)}
        ended = [row for row in active if not is_leased(self._ctx, row, now)]
        for row in ended:
            release(tx, self._ctx, archive, row.id, state=UploadState.ABANDONED)
        return [(numbers[row.part], row.id) for row in ended if row.path is not None]

    def _wait_for_landings(self, job: JobContext, archive_id: UUID) -> None:
        """Wait until nothing goes into the parts any more; whoever is late finds the archive closing."""
        left = 1
        for _ in range(_LANDING_LOOKS):
            with self._ctx.db.begin() as tx:
                archive = load(tx, archive_id, lock=True)
                if not tx.execute(select_active_uploads(archive_id)).first():
                    return
                ended = self._settle_uploads(tx, archive, discard_uploads=True)
                left = len(tx.execute(select_active_uploads(archive_id)).all())
            for part, upload_id in ended:
                self._ctx.storage.forget_upload(part, upload_id)
            if not left:
                return
            job.raise_if_stopping()
            time.sleep(_LANDING_WAIT)
        raise TransfersLandingError(f"{left} transfers have not ended yet.")

    def _defer_close(self, tx: Connection, actor: Actor, archive: Archive) -> UUID:
        job_id = self._ctx.jobs.defer(
            tx,
            CLOSE_JOB,
            {"archive": str(archive.id), "actor": actor_document(actor)},
            lock=f"archive {archive.id}",
            queueing_lock=f"close {archive.id}",
            thing=archive.id,
            requested_by=actor.identity_id,
        )
        tx.execute(update(archives).where(archives.c.id == archive.id).values(close_job=job_id))
        return job_id

    # The job

    def _run_close(self, job: JobContext, payload: dict[str, Any]) -> Mapping[str, Json]:  # Any: see Handler
        archive_id = UUID(payload["archive"])
        with self._ctx.db.begin() as tx:
            archive = load(tx, archive_id)
        if archive.state is ArchiveState.CLOSED:
            return _outcome(archive)
        require_state(archive, ArchiveState.CLOSING)
        self._wait_for_landings(job, archive_id)
        stages = Stages()
        with tempfile.TemporaryDirectory(prefix="closing-") as folder:
            name = checksum_list_name(archive.profile.digests[0])
            build = partial(_build_tree, self._ctx, archive, Path(folder) / name, job.raise_if_stopping)
            tree = self._seal_and_copy(job, archive, build, stages)
            closed = self._commit(archive_id, parse_actor(payload["actor"]), tree, {name: Path(folder) / name})
        stages.end("commit")
        return {**_outcome(closed), "seconds": stages.as_json()}

    def _seal_and_copy(
        self, job: JobContext, archive: Archive, build: Callable[[], MerkleTree], stages: Stages
    ) -> MerkleTree:
        """Seal every part, make and verify every copy, and build the tree beside it once the last part is sealed."""
        with self._ctx.db.begin() as tx:
            listed = list_parts(tx, archive.id)
        each = archive.profile.copies
        total, done = sum(part.byte_count for part in listed) * each, 0
        job.progress(done=0, total=total, unit="bytes", message=f"sealing {len(listed)} parts and verifying copies")
        with one_thread("seal") as sealer:
            sealing = {part.number: self._sealing.submit(sealer, archive.id, part.number) for part in listed}
            building = sealer.submit(copy_context().run, build)  # by the same thread, and so after the last part
            for number, one in sealing.items():
                if not one.result():
                    raise TransfersLandingError(f"Something is on its way into part {number}.")
                crash_point("close.sealed")
                stages.end("seal")
                job.raise_if_stopping()
                part = self._find_sealed(archive.id, number)
                if part is not None:
                    told = _Meter(job, done)
                    object_id = PartRef(archive.id, part.id).object_id
                    ensure_copies(self._ctx, archive, object_id, progress=told, should_stop=job.should_stop)
                    done += part.byte_count * each
                    job.progress(done=done, message=f"copies of part {number} of {len(listed)} are verified")
                stages.end("copies")
            # before the statement is written to some stores and must be written anew
            ensure_copies(self._ctx, archive, object_uri(archive.id), should_stop=job.should_stop)
            stages.end("copies")
            crash_point("close.copied")
            job.progress(message="building the closing statement")
            tree = building.result()
        stages.end("statement")
        return tree

    def _find_sealed(self, archive_id: UUID, number: int) -> Part | None:
        """The part; None for one that held nothing and is no object."""
        with self._ctx.db.begin() as tx:
            return next((part for part in list_parts(tx, archive_id) if part.number == number), None)

    def _commit(self, archive_id: UUID, actor: Actor, tree: MerkleTree, lists: Mapping[str, Path]) -> Archive:
        """Write and sign the statement, put the checksum list beside it, and make the archive closed with it."""
        ctx = self._ctx
        identifier = ctx.registrar.reserve(archive_id)
        crash_point("close.reserved")
        with self._heads.writing(archive_id, message="Closed") as change:
            tx, before = change.tx, change.archive
            if before.state is ArchiveState.CLOSED:
                return before
            require_state(before, ArchiveState.CLOSING)
            now = ctx.clock.now()
            closed = replace(before, state=ArchiveState.CLOSED, closed_at=now, identifier=identifier.identifier)
            document = _build_statement(tx, ctx, closed, tree)
            statement = _find_signed(ctx, before, document) or self._require_signer().sign(document)
            closed = replace(closed, closed_at=parse_time(str(statement["closed_at"])))
            told = {"identifier": identifier.identifier, "statement_digest": statement_digest(statement)}
            tx.execute(update(archives).where(archives.c.id == archive_id).values(identifier_state=identifier.state))
            self._defer_receipt(tx, archive_id)
            change.files.update(lists)
            change.needs_copies = True
            change.archive = save_change(
                tx, ctx, actor, before, replace(closed, statement=statement), event=events.ARCHIVE_CLOSED, data=told
            )
        crash_point("close.committed")
        return change.archive

    def _defer_receipt(self, tx: Connection, archive_id: UUID) -> None:
        payload = {"archive": str(archive_id)}
        lock, waiting = f"archive {archive_id}", f"receipt {archive_id}"
        self._ctx.jobs.defer(tx, RECEIPT_JOB, payload, lock=lock, queueing_lock=waiting, thing=archive_id)

    def _require_signer(self) -> Signer:
        if self._signer is None:
            raise RuntimeError("this process was given no signer, and runs no closing")
        return self._signer

    # After

    def _run_receipt(self, job: JobContext, payload: dict[str, Any]) -> Mapping[str, Json]:  # Any: see Handler
        """Sign the receipt once every part and the head have their verified copies, and register the identifier."""
        ctx, archive_id = self._ctx, UUID(payload["archive"])
        with ctx.db.begin() as tx:
            archive = load(tx, archive_id)
            present = tx.execute(select(archives.c.receipt).where(archives.c.id == archive_id)).scalar_one()
            numbers = {object_uri(part.id): part.number for part in list_parts(tx, archive_id)}
        if archive.state is not ArchiveState.CLOSED or archive.statement is None:
            return {"receipt": False}
        if present is None:
            self._issue_receipt(job, archive, archive.statement, numbers)
        register_identifier(ctx, self._heads, archive_id)
        return {"receipt": True}

    def _issue_receipt(
        self, job: JobContext, archive: Archive, statement: Mapping[str, object], numbers: Mapping[str, int]
    ) -> None:
        ctx, archive_id = self._ctx, archive.id
        found = {
            object_id: ensure_copies(ctx, archive, object_id, should_stop=job.should_stop)
            for object_id in (object_uri(archive_id), *numbers)
        }
        receipt = self._require_signer().sign(
            build_receipt(
                archive_id=archive_id,
                statement_digest=statement_digest(statement),
                metadata=find_metadata_mark(statement),
                copies=self._evidence(found, numbers),
                required_copies=archive.profile.copies,
                issued_at=ctx.clock.now(),
            )
        )
        crash_point("receipt.signed")
        with self._heads.writing(archive_id, message="Receipt") as change:
            change.tx.execute(update(archives).where(archives.c.id == archive_id).values(receipt=receipt))
            told = {"copies": archive.profile.copies, "receipt_digest": statement_digest(receipt)}
            ctx.events.record(change.tx, events.RECEIPT_ISSUED, archive_id, SYSTEM, told)
            change.is_forced = True

    def _evidence(self, found: Mapping[str, Sequence[Copy]], numbers: Mapping[str, int]) -> list[CopyEvidence]:
        """Which parts each store holds verified; every part and the head are in as many stores as demanded."""
        evidence = []
        for store in self._ctx.storage.stores():
            held = [copy for copies in found.values() for copy in copies if copy.store_id == store.id]
            verified = [copy.verified_at for copy in held if copy.verified_at is not None]
            if verified:
                evidence.append(
                    CopyEvidence(
                        store=store.name,
                        location=store.location,
                        medium=store.medium,
                        evidence=", ".join(sorted({str(copy.evidence.get("read", "")) for copy in held})),
                        verified_at=min(verified),
                        parts=[numbers[copy.object_id] for copy in held if copy.object_id in numbers],
                    )
                )
        return evidence


class _Meter:
    """Tells a job the bytes of one object's verifications on top of those before; each copy begins at zero again."""

    def __init__(self, job: JobContext, before: int) -> None:
        self._job = job
        self._before = before
        self._last = 0

    def __call__(self, count: int, size: int) -> None:
        if size < self._last:
            self._before += self._last
        self._last = size
        self._job.progress(done=self._before + size)


def actor_document(actor: Actor) -> dict[str, Json]:
    """Who asked for a job and by what login, as its payload keeps it: his rights are looked up when they matter."""
    return {
        "kind": actor.kind.value,
        "identity": str(actor.identity_id) if actor.identity_id else None,
        "name": actor.name,
        "known_as": [*sorted(actor.known_as)],
        "proofs": [*sorted(actor.proofs)],
    }


def parse_actor(document: Mapping[str, Any]) -> Actor:  # Any: JSON that we wrote
    """The actor of a payload, for events and records."""
    identity = document["identity"]
    return Actor(
        ActorKind(document["kind"]),
        UUID(identity) if identity else None,
        document["name"],
        known_as=frozenset(document.get("known_as", ())),
        proofs=frozenset(document.get("proofs", ())),
    )


def _build_tree(ctx: Context, archive: Archive, to: Path, raise_if_stopping: Callable[[], None]) -> MerkleTree:
    """The tree over every line that the sealed parts hold and the archive shows; nothing can change it any more.

    The checksum list of the same lines is written to the file `to`.
    """
    tree, algorithm = MerkleTree(), archive.profile.digests[0]
    with to.open("wb") as checksums:
        for some in iter_sealed(ctx, archive.id):
            raise_if_stopping()
            tree.extend(some.lines)
            digests = [digest_of_line(line, algorithm) for line in some.lines]
            checksums.writelines(checksum_line(one, path) for one, path in zip(digests, some.paths, strict=True) if one)
    return tree


def _build_statement(tx: Connection, ctx: Context, archive: Archive, tree: MerkleTree) -> dict[str, object]:
    """The statement, unsigned; raises when tree and rows do not account for the same entries."""
    counts = to_counts(count_entries(tx, archive.id))
    if counts.files + counts.directories + counts.symlinks + counts.hidden != tree.size:
        raise RuntimeError(f"{tree.size} manifest lines stand against the rows of {counts}")
    open_parts = select(parts.c.number).where(parts.c.archive_id == archive.id, parts.c.state != PartState.SEALED.value)
    if tx.execute(open_parts).first() is not None:
        raise ArchiveOpenError("A part is not sealed.")
    algorithm = archive.profile.digests[0]
    gone = b"".join(map(superseded_to_line, list_superseded(tx, archive.id)))
    state = ctx.metadata.state(tx, archive.id)
    snapshot = sha512()
    for line in ctx.metadata.iter_snapshot_lines(tx, archive.id):
        snapshot.update(line)
    assert archive.closed_at is not None
    return build_closing_statement(
        archive_id=archive.id,
        parent_id=archive.parent_id,
        title=archive.description.title,
        closed_at=archive.closed_at,
        profile=archive.profile.name,
        identifier=archive.identifier,
        counts=counts,
        content_digest=algorithm,
        merkle=MerkleMark(tree.size, tree.root_hex()),
        parts=list_part_summaries(tx, archive.id),
        superseded_digest=digest_bytes(gone, (algorithm,))[algorithm] if gone else None,
        metadata=MetadataMark(state.sequence, state.chain_digest, snapshot.hexdigest()),
        event_position=ctx.events.head(tx)[0],
    )


def _find_signed(ctx: Context, archive: Archive, document: Mapping[str, object]) -> dict[str, object] | None:
    """The statement of an attempt that ended between its head and its commit, when it says what `document` says.

    An archive has one statement: two that differ in nothing but the moment would leave open which of them holds.
    """
    object_id = object_uri(archive.id)
    if not archive.head_version or STATEMENT_FILE not in ctx.storage.head_state(object_id):
        return None
    found = dict(parse_json_object(ctx.storage.read_head_file(object_id, STATEMENT_FILE)))
    agrees = all(found.get(name) == value for name, value in document.items() if name not in _OF_THE_MOMENT)
    return found if agrees else None


def _outcome(archive: Archive) -> dict[str, Json]:
    """What the job tells when the archive is closed."""
    statement = archive.statement or {}
    merkle, counts = statement.get("merkle"), statement.get("counts")
    return {
        "state": archive.state.value,
        "identifier": archive.identifier,
        "merkle_root": merkle["root"] if isinstance(merkle, dict) else None,
        "files": counts["files"] if isinstance(counts, dict) else None,
        "bytes": counts["bytes"] if isinstance(counts, dict) else None,
    }
