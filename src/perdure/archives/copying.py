"""As many verified copies as the profile demands, each read back from its medium."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection

from perdure.archives import events
from perdure.archives.errors import CopiesMissingError, NotEnoughStoresError, ProfileDoesNotFitError
from perdure.archives.model import Archive, Profile
from perdure.archives.records import Context
from perdure.kernel.actor import SYSTEM
from perdure.kernel.errors import DamagedError, TryAgainError
from perdure.storage.errors import NoGoodCopyError, StoreFailedError, VerificationStoppedError
from perdure.storage.model import Copy, CopyState, ObjectKind, StoreInfo, VerifyReport
from perdure.storage.verifying import Progress, ShouldStop

BROKEN = (CopyState.WRITING, CopyState.SUSPECT, CopyState.LOST)
MEND_AGAIN_AFTER = timedelta(days=1)


def require_stores(ctx: Context, profile: Profile) -> list[StoreInfo]:
    """The stores that may hold a copy, the primary first; raises NotEnoughStoresError."""
    usable = _admitted(ctx, profile)
    is_primary_usable = ctx.storage.primary() in usable
    if len(usable) < profile.copies or not is_primary_usable:
        where = " and ".join(profile.stores) or "any stores"
        where += f" at {' or '.join(profile.locations)}" if profile.locations else ""
        problem = "" if is_primary_usable else "; the primary store is none of them"
        raise NotEnoughStoresError(
            f"The profile {profile.name} demands {profile.copies} copies in {where}; {len(usable)} fit{problem}.",
            wanted=profile.copies,
            usable=[store.name for store in usable],
        )
    return usable


def require_place(ctx: Context, profile: Profile) -> None:
    """Raise NotEnoughStoresError where the profile's locations leave out the primary store, which takes what comes."""
    primary = ctx.storage.primary()
    if profile.locations and primary.location not in profile.locations:
        where = " or ".join(profile.locations)
        raise NotEnoughStoresError(
            f"The profile {profile.name} keeps content at {where} only; what comes in would lie elsewhere first.",
            wanted=profile.copies,
            usable=[store.name for store in _admitted(ctx, profile)],
        )


def require_admitted_copies(tx: Connection, ctx: Context, archive: Archive, profile: Profile) -> None:
    """Raise ProfileDoesNotFitError where content lies, or may lie, at a location that the profile leaves out."""
    if not profile.locations:
        return
    parts = [one.object_id for one in ctx.storage.objects_of(tx, archive.id) if one.kind is ObjectKind.PART]
    admitted = {store.id for store in ctx.storage.stores() if store.location in profile.locations}
    if any(copy.store_id not in admitted for held in ctx.storage.copies(tx, parts).values() for copy in held):
        where = " or ".join(profile.locations)
        raise ProfileDoesNotFitError(f"The profile {profile.name} keeps content at {where} only; some lies elsewhere.")


def require_head_copies(ctx: Context, archive: Archive, behind: Collection[UUID]) -> None:
    """Raise CopiesMissingError unless enough stores have the newest version of the head; those `behind` have not."""
    current = [store for store in require_stores(ctx, archive.profile) if store.id not in behind]
    if len(current) < archive.profile.copies:
        raise CopiesMissingError(
            f"{len(current)} of {archive.profile.copies} copies of the record are verified.",
            verified=len(current),
            wanted=archive.profile.copies,
        )


def ensure_copies(
    ctx: Context,
    archive: Archive,
    object_id: str,
    *,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> list[Copy]:
    """Place and verify copies until the profile's number is verified, and return those.

    Safe to call again after a crash at any step. Raises CopiesMissingError, which is worth another try, when stores
    fail or hold damaged copies.
    """
    stores = require_stores(ctx, archive.profile)
    failures: list[str] = []
    for store in stores:
        verified = _find_verified(ctx, object_id, stores)
        if len(verified) >= archive.profile.copies:
            return verified
        if store.id not in {copy.store_id for copy in verified}:
            failure = _try_copy(ctx, archive.id, object_id, store, progress, should_stop)
            failures += [failure] if failure else []
    verified = _find_verified(ctx, object_id, stores)
    if len(verified) < archive.profile.copies:
        raise CopiesMissingError(
            f"{len(verified)} of {archive.profile.copies} copies of {object_id} are verified: {'; '.join(failures)}",
            verified=len(verified),
            wanted=archive.profile.copies,
        )
    return verified


def lacks_copies(ctx: Context, archive: Archive, copies: Collection[Copy]) -> bool:
    """Whether another copy of an object should be made by itself: enough stores are here, and there are too few.

    Not while one that was made within a day is broken already: each attempt keeps the one before in quarantine.
    """
    usable = {store.id for store in _admitted(ctx, archive.profile)}
    held = [copy for copy in copies if copy.store_id in usable]
    verified = sum(copy.state is CopyState.VERIFIED for copy in held)
    return verified < archive.profile.copies <= len(usable) and not any(was_tried(ctx, copy) for copy in held)


def was_tried(ctx: Context, copy: Copy) -> bool:
    """Whether a broken copy was written within a day and never verified: its store is in doubt, more than the copy."""
    is_new = copy.written_at is not None and copy.written_at > ctx.clock.now() - MEND_AGAIN_AFTER
    return copy.state in BROKEN and is_new and copy.verified_at is None


def mend_copies(
    ctx: Context, archive: Archive, object_id: str, *, should_stop: ShouldStop | None = None
) -> tuple[int, list[str]]:
    """Place broken copies anew from a verified one, also beyond the profile's number; how many, and what went wrong.

    The bytes of a suspect copy go to quarantine. Where no other copy is verified, nothing is touched.
    """
    broken = [store for store, _ in _find_mendable(ctx, object_id, require_stores(ctx, archive.profile))]
    tried = [_try_copy(ctx, archive.id, object_id, store, None, should_stop) for store in broken]
    return tried.count(None), [failure for failure in tried if failure is not None]


def keep_sound(ctx: Context, object_id: str, *, read_before: datetime) -> list[Copy]:
    """Read the copies of an object that is no archive's back from their media, and mend those that are broken.

    Left are those that were read since, and those that broke within a day of being written: their store is in doubt.
    Returns the copies that are broken after it; a store that cannot be reached keeps what it has.
    """
    stores = ctx.storage.stores()
    for store in _find_unread(ctx, object_id, stores, read_before):
        with suppress(TryAgainError, StoreFailedError):
            verify_one(ctx, None, object_id, store.id)
    for store, copy in _find_mendable(ctx, object_id, stores):
        if not was_tried(ctx, copy):
            _try_copy(ctx, None, object_id, store, None, None)
    return [copy for copy in _load(ctx, object_id) if copy.state in BROKEN]


def verify_one(
    ctx: Context,
    archive_id: UUID | None,
    object_id: str,
    store_id: UUID,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> VerifyReport:
    """Read one copy back and tell the outcome as an event."""
    report = ctx.storage.verify_copy(object_id, store_id, progress, should_stop)
    told: dict[str, object] = {"object": object_id, "store": str(store_id)}
    told |= {"files": report.files, "bytes": report.bytes}
    if not report.is_good:
        told["findings"] = [{"kind": f.kind.value, "content": f.content} for f in report.findings[:100]]
    event = events.COPY_VERIFIED if report.is_good else events.COPY_SUSPECTED
    with ctx.db.begin() as tx:
        ctx.events.record(tx, event, archive_id, SYSTEM, told)
    return report


def _admitted(ctx: Context, profile: Profile) -> list[StoreInfo]:
    """The stores that are here and that the profile allows, the primary first."""
    return [store for store in ctx.storage.stores() if profile.admits(store.name, store.location)]


def _find_mendable(ctx: Context, object_id: str, stores: Sequence[StoreInfo]) -> list[tuple[StoreInfo, Copy]]:
    """Broken copies beside which there is a verified one."""
    if not _find_verified(ctx, object_id, stores):
        return []
    here = {store.id: store for store in stores}
    broken = [copy for copy in _load(ctx, object_id) if copy.state in BROKEN]
    return [(here[copy.store_id], copy) for copy in broken if copy.store_id in here]


def _find_unread(ctx: Context, object_id: str, stores: Sequence[StoreInfo], before: datetime) -> list[StoreInfo]:
    readable = [copy for copy in _load(ctx, object_id) if copy.state in (CopyState.WRITTEN, CopyState.VERIFIED)]
    late = {copy.store_id for copy in readable if copy.verified_at is None or copy.verified_at < before}
    return [store for store in stores if store.id in late]


def _load(ctx: Context, object_id: str) -> list[Copy]:
    with ctx.db.begin() as tx:
        return ctx.storage.copies(tx, [object_id])[object_id]


def _try_copy(
    ctx: Context,
    archive_id: UUID | None,
    object_id: str,
    store: StoreInfo,
    progress: Progress | None,
    should_stop: ShouldStop | None,
) -> str | None:
    """Place and verify one copy; what went wrong, in words, or None."""
    try:
        is_mended = _place(ctx, object_id, store)
        report = verify_one(ctx, archive_id, object_id, store.id, progress, should_stop)
    except VerificationStoppedError:
        raise
    except (TryAgainError, StoreFailedError, DamagedError) as error:
        return f"{store.name}: {error.detail}"
    if report.is_good and is_mended:
        with ctx.db.begin() as tx:
            told = {"object": object_id, "store": str(store.id)}
            ctx.events.record(tx, events.COPY_MENDED, archive_id, SYSTEM, told)
    return None if report.is_good else f"{store.name}: the copy is damaged"


def _place(ctx: Context, object_id: str, store: StoreInfo) -> bool:
    """Place a copy, and tell whether it took the place of a suspect or lost one.

    Where there is none to place it from, the store's own in doubt is to be read once more: a medium that failed for a
    moment may give every byte now; what it gives is compared as ever.
    """
    own = next((copy.state for copy in _load(ctx, object_id) if copy.store_id == store.id), None)
    try:
        ctx.storage.place_copy(object_id, store.id)
    except NoGoodCopyError:
        if own is not CopyState.SUSPECT:
            raise
        return False
    return own in (CopyState.SUSPECT, CopyState.LOST)


def _find_verified(ctx: Context, object_id: str, stores: Sequence[StoreInfo]) -> list[Copy]:
    """Verified copies of the object's newest version in these stores."""
    with ctx.db.begin() as tx:
        stored = ctx.storage.find_object(tx, object_id)
        copies = ctx.storage.copies(tx, [object_id])[object_id]
    allowed = {store.id for store in stores}
    version = stored.version if stored else 0
    return [c for c in copies if c.state is CopyState.VERIFIED and c.store_id in allowed and c.version == version]
