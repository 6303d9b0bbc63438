"""The acts of the state machine, done with the real application, and what is seen of it afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import singledispatch
from pathlib import Path
from uuid import UUID

from perdure.app.composition import Application, build
from perdure.archives import model as archive_model
from perdure.archives.errors import EntryNotFoundError
from perdure.archives.exporting import export_events, export_registry
from perdure.archives.items import BatchItem
from perdure.archives.model import Creator, Description, EntryKind, Profile
from perdure.archives.opening import OpenRequest
from perdure.archives.upkeep import sweep_staging
from perdure.jobs import JobState, run_pending
from perdure.jobs.worker import retry_stalled
from perdure.kernel.actor import Actor
from perdure.kernel.clock import SystemClock
from perdure.kernel.errors import PerdureError
from perdure.settings import settings_from
from perdure.storage.model import CopyState, object_uri

from . import acts
from .acts import Done, Given, Outcome, Refused

PART_FILES = 3  # so that a few files fill several parts
PROFILE = "of-this-test"
CREATORS = (Creator("Ada Example"),)
STORES = ("first", "second")


class MovableClock:
    """The clock of the machine, moved on by a test."""

    def __init__(self, ahead: timedelta = timedelta(0)) -> None:
        self._clock = SystemClock()
        self.ahead = ahead

    def now(self) -> datetime:
        return self._clock.now() + self.ahead


@dataclass(frozen=True)
class Installation:
    """Where an installation keeps everything, who works with it, and how far its clock is ahead."""

    folder: Path
    database_url: str
    person: UUID
    ahead: timedelta = timedelta(0)


@dataclass
class Instance:
    """A started application."""

    application: Application
    actor: Actor
    clock: MovableClock


def compose(folder: Path, database_url: str, clock: MovableClock) -> Application:
    """The application as a process starts it."""
    archive_model.MAX_PART_FILES = PART_FILES
    settings = settings_from({"data_dir": str(folder), "disk_reserve_bytes": 0})
    application = build(settings, database_url, process="test", clock=clock)
    application.signer.prepare()
    return application


def found(folder: Path, database_url: str) -> Installation:
    """A new installation with one person, who administers it, and a profile of short lifetimes."""
    application = compose(folder, database_url, MovableClock())
    with closing(application):
        _, password = application.identity.bootstrap_administrator("ada")
        actor = application.identity.log_in("ada", password or "")[1]
        profile = Profile(
            name=PROFILE, label=PROFILE, lifetime_default_days=3650, lifetime_max_days=36500, archive_max_bytes=None,
            archive_max_files=None, total_max_bytes=None, copies=len(STORES),
        )  # fmt: skip
        application.archives.profiles.define_profile(actor, profile)
        assert actor.identity_id is not None
        return Installation(folder, database_url, actor.identity_id)


def start(place: Installation) -> Instance:
    """Start the application where another one may have died."""
    clock = MovableClock(place.ahead)
    application = compose(place.folder, place.database_url, clock)
    with application.db.begin() as tx:
        actor = application.identity.find_actor_in(tx, place.person)
    assert actor is not None
    retry_stalled(application.db, stalled_after=0)
    return Instance(application, actor, clock)


def do(instance: Instance, act: acts.Act) -> Outcome:
    """Do one act; an error that is none of ours goes through."""
    try:
        return Done(_do(act, instance) or {})
    except PerdureError as error:
        return Refused(error.code)


@singledispatch
def _do(act: acts.Act, instance: Instance) -> Mapping[str, object] | None:
    raise NotImplementedError(type(act))


@_do.register
def _open(act: acts.Open, instance: Instance) -> Mapping[str, object]:
    description = Description(title=act.title, creators=CREATORS, publisher="Example Institute", licence="CC-BY-4.0")
    request = OpenRequest(profile=PROFILE, description=description)
    life = instance.application.archives.life
    opened = life.open_archive(instance.actor, request, idempotency_key=act.key)
    return {"id": opened.id, "keep_until": opened.keep_until}


@_do.register
def _append(act: acts.Append, instance: Instance) -> Mapping[str, object]:
    life = instance.application.archives.life
    opened = life.append_to(instance.actor, act.parent, {"title": act.title}, idempotency_key=act.key)
    return {"id": opened.id, "keep_until": opened.keep_until}


@_do.register
def _put(act: acts.Put, instance: Instance) -> None:
    given, filling = act.given, instance.application.archives.filling
    receiver = filling.begin_file(instance.actor, act.archive, given.path, len(given.data), replace=act.replace)
    half = len(given.data) // 2
    receiver.write(given.data[:half])
    receiver.write(given.data[half:])
    receiver.finish()


@_do.register
def _batch(act: acts.Batch, instance: Instance) -> Mapping[str, object]:
    items = [_to_item(given) for given in act.items]
    receiver = instance.application.archives.filling.begin_batch(instance.actor, act.archive, items)
    receiver.write(b"".join(given.data for given in act.items if given.kind == "file"))
    return {"stored": [index for index, result in enumerate(receiver.finish()) if result.stored]}


def _to_item(given: Given) -> BatchItem:
    kind = EntryKind(given.kind)
    size = len(given.data) if kind is EntryKind.FILE else 0
    return BatchItem(given.path, kind, size, target=given.data if kind is EntryKind.SYMLINK else None)


@_do.register
def _begin_upload(act: acts.BeginUpload, instance: Instance) -> Mapping[str, object]:
    filling = instance.application.archives.filling
    return {"id": filling.create_upload(instance.actor, act.archive, act.path, act.size).id}


@_do.register
def _send(act: acts.Send, instance: Instance) -> Mapping[str, object]:
    receiver = instance.application.archives.filling.open_upload(instance.actor, act.upload, act.offset)
    with closing(receiver):
        receiver.write(act.data)
        if receiver.is_complete:
            receiver.finish()
            return {"finished": True}
        return {"offset": receiver.checkpoint()}


@_do.register
def _abort(act: acts.Abort, instance: Instance) -> None:
    instance.application.archives.filling.abort_upload(instance.actor, act.upload)


@_do.register
def _remove(act: acts.Remove, instance: Instance) -> None:
    filling = instance.application.archives.filling
    filling.remove(instance.actor, act.archive, [act.path], recursive=act.recursive)


@_do.register
def _hide(act: acts.Hide, instance: Instance) -> None:
    instance.application.archives.filling.hide(instance.actor, act.archive, [act.path])


@_do.register
def _patch(act: acts.Patch, instance: Instance) -> None:
    describing = instance.application.archives.describing
    expected = None
    if act.behind is not None:
        with suppress(EntryNotFoundError):
            expected = describing.read_metadata(instance.actor, act.archive, act.path).revision - act.behind
    describing.patch_metadata(instance.actor, act.archive, act.path, act.patch.encode(), expected_revision=expected)


@_do.register
def _describe(act: acts.Describe, instance: Instance) -> None:
    life, expected = instance.application.archives.life, None
    if act.behind is not None:
        expected = life.get(instance.actor, act.archive).archive.revision - act.behind
    life.describe(instance.actor, act.archive, {"title": act.title}, expected)


@_do.register
def _extend(act: acts.Extend, instance: Instance) -> None:
    life = instance.application.archives.life
    until = life.get(instance.actor, act.archive).archive.keep_until + timedelta(days=act.days)
    life.extend_lifetime(instance.actor, act.archive, until)


@_do.register
def _close(act: acts.Close, instance: Instance) -> None:
    closing_ = instance.application.archives.closing
    closing_.close(instance.actor, act.archive, discard_uploads=act.discard_uploads)


@_do.register
def _reopen(act: acts.Reopen, instance: Instance) -> None:
    instance.application.archives.closing.reopen(instance.actor, act.archive)


@_do.register
def _discard(act: acts.Discard, instance: Instance) -> None:
    instance.application.archives.life.discard(instance.actor, act.archive)


@_do.register
def _withdraw(act: acts.Withdraw, instance: Instance) -> None:
    instance.application.archives.life.request_withdrawal(instance.actor, act.archive, "Wrong sample.")


@_do.register
def _work(act: acts.Work, instance: Instance) -> None:
    run_pending(instance.application.jobs, include_scheduled=True, limit=60)


@_do.register
def _verify(act: acts.Verify, instance: Instance) -> Mapping[str, object]:
    application = instance.application
    job_id = application.archives.verifying.start_verify(instance.actor, act.archive)
    run_pending(application.jobs, include_scheduled=True, limit=60)
    with application.db.begin() as tx:
        job = application.jobs.get(tx, job_id)
    assert job.state is JobState.SUCCEEDED, job.error
    assert job.result is not None
    copies = job.result["copies"]
    assert isinstance(copies, list)
    return {"good": job.result["good"], "copies": len(copies)}


@_do.register
def _repair(act: acts.Repair, instance: Instance) -> None:
    storage, reading = instance.application.storage, instance.application.archives.reading
    ids = {store.name: store.id for store in storage.stores()}
    parts = {part.number: part.id for part in instance.application.archives.life.get(instance.actor, act.archive).parts}
    for copy in reading.copies(instance.actor, act.archive):
        if copy.part is None:
            continue
        object_id, store = object_uri(parts[copy.part]), ids[copy.store]
        is_there = copy.state in (CopyState.WRITTEN, CopyState.VERIFIED)
        if not is_there or not storage.verify_copy(object_id, store).is_good:
            storage.place_copy(object_id, store)
            assert storage.verify_copy(object_id, store).is_good


@_do.register
def _upkeep(act: acts.Upkeep, instance: Instance) -> None:
    application = instance.application
    application.archives.filling.expire_uploads()
    sweep_staging(application.context)
    application.archives.heads.fold_quiet()
    export_all(application)


def export_all(application: Application) -> None:
    """Bring what is about no single archive to the stores."""
    export_registry(application.context)
    export_events(application.context)
