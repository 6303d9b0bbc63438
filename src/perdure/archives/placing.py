"""Room for what is to come: quotas, parts and reservations, before the first byte flows.

Every function runs in a transaction that holds the archive's row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from perdure.archives.copying import require_place
from perdure.archives.errors import NoRoomError, TooManyUploadsError
from perdure.archives.model import Archive, Part, PartState, UploadState, part_has_room
from perdure.archives.records import Context
from perdure.archives.tables import account_usage, archives, parts, uploads
from perdure.identity.model import Account, Limits, Reportable
from perdure.kernel.actor import Actor
from perdure.kernel.ids import new_id
from perdure.storage.model import PartRef

SEAL_JOB = "archives.seal"
ACTIVE_UPLOADS = (UploadState.RESERVED.value, UploadState.RECEIVING.value)
STREAM_LEASE = timedelta(seconds=60)
LINK_GRACE = timedelta(minutes=15)  # room that a link reserved waits so long for its first byte
MAX_LINK_UPLOADS = 32  # of one link at once
_HOLDER = "holder"
_LINK = "link"


@dataclass(frozen=True, slots=True)
class Reservation:
    """Room in one part for so many entries and bytes.

    Bytes go into the part itself only until `lease_until`, which may be renewed: after it the part may be sealed. An
    upload that goes on over many requests has a lease while it is finished only. `removals` is how many times something
    was taken out of the part before: what is noted in its log says so.
    """

    id: UUID
    part: PartRef
    number: int
    entries: int
    size: int
    lease_until: datetime | None
    removals: int
    opened_at: datetime


def reserve(
    tx: Connection,
    ctx: Context,
    actor: Actor,
    archive: Archive,
    *,
    entries: int,
    size: int,
    expires_at: datetime,
    path: bytes | None = None,
    attributes: Mapping[str, object] | None = None,
) -> Reservation:
    """Reserve room for entries of so many bytes in all; raises NoRoomError naming the limit.

    With a path it is an upload that may go on over many requests; without, `expires_at` is the end of its lease. Links
    have less: raises TooManyUploadsError, too.
    """
    require_place(ctx, archive.profile)
    _require_quota(tx, ctx, archive, entries, size)
    if actor.link is not None:
        _require_link_share(tx, ctx, archive, actor.link.link_id, size)
    part, removals = _take_part(tx, ctx, archive, entries, size)
    now, lease = ctx.clock.now(), expires_at if path is None else None
    reservation = Reservation(new_id(), PartRef(archive.id, part.id), part.number, entries, size, lease, removals, now)
    tx.execute(
        insert(uploads).values(
            id=reservation.id,
            archive_id=archive.id,
            part=part.number,
            path=path,
            state=UploadState.RESERVED.value,
            file_count=entries,
            byte_count=size,
            attributes={**(attributes or {}), **_holder(ctx), **_link(actor)},
            opened_by=actor.identity_id,
            opened_at=now,
            expires_at=expires_at,
            lease_until=lease,
        )
    )
    return reservation


def release(tx: Connection, ctx: Context, archive: Archive, upload_id: UUID, *, state: UploadState | None) -> bool:
    """End a reservation: it goes into `state`, or altogether; whether it was still active."""
    active = select(uploads.c.byte_count).where(uploads.c.id == upload_id, uploads.c.state.in_(ACTIVE_UPLOADS))
    size = tx.execute(active.with_for_update()).scalar_one_or_none()
    if size is None:
        return False
    if state is None:
        tx.execute(delete(uploads).where(uploads.c.id == upload_id))
    else:
        tx.execute(update(uploads).where(uploads.c.id == upload_id).values(state=state.value))
    add_usage(tx, archive.account_id, reserved=-size)
    _seal_when_complete(tx, ctx, archive.id)
    return True


def note_refusal(tx: Connection, upload_id: UUID) -> None:
    """Let nobody take an upload for stored that ended with its file refused; the log of its part is right."""
    refused = {"state": UploadState.ABANDONED.value, "lease_until": None}
    tx.execute(update(uploads).where(uploads.c.id == upload_id).values(**refused))


def keep_in_doubt(tx: Connection, upload_id: UUID, now: datetime) -> None:
    """Keep a reservation that ended until its part's log is put right, also when that was done once before."""
    lease_until = func.coalesce(uploads.c.lease_until, now)
    tx.execute(update(uploads).where(uploads.c.id == upload_id).values(lease_until=lease_until))


def renew_lease(tx: Connection, ctx: Context, reservation: Reservation, until: datetime) -> Reservation | None:
    """Let this process put bytes into the part for longer; None when the reservation has ended."""
    expires_at = func.greatest(uploads.c.expires_at, until)
    renewed = tx.execute(
        update(uploads)
        .where(uploads.c.id == reservation.id, uploads.c.state.in_(ACTIVE_UPLOADS))
        .values(lease_until=until, expires_at=expires_at, attributes=uploads.c.attributes.concat(_holder(ctx)))
    )
    return replace(reservation, lease_until=until) if renewed.rowcount else None


def is_leased(ctx: Context, upload: Row[Any], now: datetime) -> bool:  # Any: a row of the table
    """Whether bytes may go into the part by this reservation: its lease runs, and its process is not known as dead."""
    if upload.lease_until is None or upload.lease_until < now:
        return False
    holder = upload.attributes.get(_HOLDER)
    return ctx.lifelines is None or holder is None or not ctx.lifelines.has_ended(holder)


def link_deadline(opened_at: datetime, offset: int, size: int, lifetime: timedelta) -> datetime:
    """Until when a link has the room of a file: whoever sends nothing has it for minutes, and longer by the share of
    the file that came; one that is sent evenly within the `lifetime` of uploads is never late (pure).
    """
    return opened_at + min(lifetime, LINK_GRACE + lifetime * (offset / size if size else 1))


def prolong(tx: Connection, upload_id: UUID, now: datetime, until: datetime) -> None:
    """Give an upload that is neither ended nor late time until then, if it has not more."""
    active = (uploads.c.id == upload_id) & uploads.c.state.in_(ACTIVE_UPLOADS) & (uploads.c.expires_at > now)
    tx.execute(update(uploads).where(active).values(expires_at=func.greatest(uploads.c.expires_at, until)))


def is_of_link(upload: Row[Any]) -> bool:  # Any: a row of the table
    """Whether the bearer of a link reserved it."""
    return _LINK in upload.attributes


def is_begun_by(upload: Row[Any], link_id: UUID) -> bool:  # Any: a row of the table
    """Whether the bearer of this link reserved it."""
    return bool(upload.attributes.get(_LINK) == str(link_id))


def end_link_uploads(tx: Connection, archive_id: UUID, link_id: UUID, now: datetime) -> None:
    """Let the uploads that a link began be late from now on."""
    own = select_active_uploads(archive_id).with_only_columns(uploads.c.id).where(uploads.c.path.is_not(None))
    own = own.where(uploads.c.attributes[_LINK].as_string() == str(link_id))
    tx.execute(update(uploads).where(uploads.c.id.in_(own)).values(expires_at=func.least(uploads.c.expires_at, now)))


def _link(actor: Actor) -> dict[str, str]:
    return {} if actor.link is None else {_LINK: str(actor.link.link_id)}


def _holder(ctx: Context) -> dict[str, str]:
    """Which process has the lease, so that nobody waits for it when it has ended."""
    return {} if ctx.lifelines is None else {_HOLDER: ctx.lifelines.own_name()}


def add_usage(tx: Connection, account_id: UUID, *, files: int = 0, size: int = 0, reserved: int = 0) -> None:
    """Change what an account uses."""
    usage = account_usage.c
    statement = insert(account_usage).values(account_id=account_id)
    tx.execute(statement.on_conflict_do_nothing())
    tx.execute(
        update(account_usage)
        .where(usage.account_id == account_id)
        .values(
            byte_count=usage.byte_count + size,
            file_count=usage.file_count + files,
            reserved_bytes=usage.reserved_bytes + reserved,
        )
    )


def list_parts(tx: Connection, archive_id: UUID) -> list[Part]:
    """The archive's parts by number, with what they hold."""
    query = select(parts).where(parts.c.archive_id == archive_id).order_by(parts.c.number)
    return [_to_part(row, row.file_count, row.byte_count) for row in tx.execute(query)]


def select_active_uploads(archive_id: UUID) -> Select[Any]:  # Any: all columns of the table
    """The reservations of an archive that are not ended."""
    return select(uploads).where(uploads.c.archive_id == archive_id, uploads.c.state.in_(ACTIVE_UPLOADS))


def defer_seal(tx: Connection, ctx: Context, archive_id: UUID) -> None:
    """Have the archive's full parts sealed."""
    ctx.jobs.defer(
        tx,
        SEAL_JOB,
        {"archive": str(archive_id)},
        lock=f"archive {archive_id}",
        queueing_lock=f"seal {archive_id}",
        thing=archive_id,
    )


def _seal_when_complete(tx: Connection, ctx: Context, archive_id: UUID) -> None:
    """Have full parts sealed once nothing is on its way into them."""
    pending = select(1).where(
        uploads.c.archive_id == archive_id, uploads.c.part == parts.c.number, uploads.c.state.in_(ACTIVE_UPLOADS)
    )
    ready = select(parts.c.number).where(
        parts.c.archive_id == archive_id, parts.c.state == PartState.FULL.value, ~pending.exists()
    )
    if tx.execute(ready.limit(1)).first() is not None:
        defer_seal(tx, ctx, archive_id)


def _require_quota(tx: Connection, ctx: Context, archive: Archive, entries: int, size: int) -> None:
    profile = archive.profile
    add_usage(tx, archive.account_id, reserved=size)  # takes the account's row: two archives cannot share its last room
    usage = tx.execute(select(account_usage).where(account_usage.c.account_id == archive.account_id)).one()
    limits = ctx.identity.find_limits_in(tx, archive.account_id)
    _require_room("bytes of the account's quota", limits.bytes, usage.byte_count + usage.reserved_bytes)
    if limits.files is not None:
        coming = _coming_files(tx, archive.account_id)
        _require_room("files of the account's quota", limits.files, usage.file_count + coming + entries)
    if limits.organisation_bytes is not None and size:
        _require_room_of_all(tx, ctx, limits)
    if profile.archive_max_bytes is not None or profile.archive_max_files is not None:
        files, used = _archive_use(tx, archive.id)
        _require_room("bytes in one archive of this profile", profile.archive_max_bytes, used + size)
        _require_room("files in one archive of this profile", profile.archive_max_files, files + entries)
    if profile.total_max_bytes is not None:
        used = _profile_use(tx, archive)
        _require_room("bytes of this profile in the account", profile.total_max_bytes, used + size)


def _require_link_share(tx: Connection, ctx: Context, archive: Archive, link_id: UUID, size: int) -> None:
    """What strangers hold without having sent it leaves half of the room to everybody else.

    The account's row is taken: of two that come at once, the second is counted with the first.
    """
    mine = select_active_uploads(archive.id).where(uploads.c.attributes[_LINK].as_string() == str(link_id))
    if tx.execute(select(func.count()).select_from(mine.subquery())).scalar_one() >= MAX_LINK_UPLOADS:
        raise TooManyUploadsError(f"{MAX_LINK_UPLOADS} files are on their way by this link.")
    limits = ctx.identity.find_limits_in(tx, archive.account_id)
    usage = tx.execute(select(account_usage).where(account_usage.c.account_id == archive.account_id)).one()
    account = archives.c.account_id == archive.account_id
    _require_share(limits.bytes, usage.byte_count + usage.reserved_bytes, _linked_bytes(tx, account), size)
    if limits.organisation_bytes is not None:
        inside = ctx.identity.select_reportable_accounts(Reportable(frozenset({limits.organisation_id}))).subquery()
        held, reserved, _ = use_of_organisation(tx, ctx, limits.organisation_id)
        linked = _linked_bytes(tx, archives.c.account_id.in_(select(inside.c.id)))
        _require_share(limits.organisation_bytes, held + reserved, linked, size)
    profile = archive.profile
    if profile.archive_max_bytes is not None:
        linked = _linked_bytes(tx, archives.c.id == archive.id)
        _require_share(profile.archive_max_bytes, _archive_use(tx, archive.id)[1] + size, linked, size)
    if profile.total_max_bytes is not None:
        same = account & (archives.c.profile["name"].as_string() == profile.name)
        _require_share(profile.total_max_bytes, _profile_use(tx, archive) + size, _linked_bytes(tx, same), size)


def _require_share(limit: int | None, used: int, linked: int, size: int) -> None:
    """`used` is all that is held and reserved, this included; `linked` what links reserved before."""
    if limit is not None and 2 * (linked + size) > limit - (used - linked - size):
        raise NoRoomError("By links at most half of the room is taken before its bytes have come.")


def _linked_bytes(tx: Connection, where: ColumnElement[bool]) -> int:
    """Bytes that links have reserved in these archives."""
    coming = (
        select(func.coalesce(func.sum(uploads.c.byte_count), 0))
        .join(archives, archives.c.id == uploads.c.archive_id)
        .where(where, uploads.c.state.in_(ACTIVE_UPLOADS), uploads.c.attributes.has_key(_LINK))
    )
    return int(tx.execute(coming).scalar_one())


def require_account_room(tx: Connection, ctx: Context, archive: Archive, account: Account, size: int) -> None:
    """Return when an account has room for what it was just given of an archive that another account still has.

    Raises NoRoomError naming the limit.
    """
    usage = tx.execute(select(account_usage).where(account_usage.c.account_id == account.id)).one()
    limits = ctx.identity.find_limits_in(tx, account.id)
    _require_room("bytes of the account's quota", limits.bytes, usage.byte_count + usage.reserved_bytes)
    if limits.files is not None:
        coming = _coming_files(tx, account.id)
        _require_room("files of the account's quota", limits.files, usage.file_count + coming)
    if limits.organisation_bytes is not None and account.organisation_id != archive.organisation_id:
        _require_room_of_all(tx, ctx, limits)
    if archive.profile.total_max_bytes is not None:
        used = _profile_use(tx, replace(archive, account_id=account.id))
        _require_room("bytes of this profile in the account", archive.profile.total_max_bytes, used + size)


def _require_room(what: str, limit: int | None, wanted: int) -> None:
    if limit is not None and wanted > limit:
        raise NoRoomError(f"The limit is {limit} {what}; with this it would be {wanted}.", limit=limit, wanted=wanted)


def _require_room_of_all(tx: Connection, ctx: Context, limits: Limits) -> None:
    """The organisation's quota; how much others use is not told to whoever fills an archive."""
    assert limits.organisation_bytes is not None
    held, reserved, _ = use_of_organisation(tx, ctx, limits.organisation_id)
    if held + reserved > limits.organisation_bytes:
        raise NoRoomError("The quota of the organisation has no room for this.")


def use_of_organisation(tx: Connection, ctx: Context, organisation_id: UUID) -> tuple[int, int, int]:
    """Bytes, reserved bytes and files of all accounts of an organisation."""
    inside = ctx.identity.select_reportable_accounts(Reportable(frozenset({organisation_id}))).subquery()
    usage = account_usage.c
    total = select(
        func.coalesce(func.sum(usage.byte_count), 0),
        func.coalesce(func.sum(usage.reserved_bytes), 0),
        func.coalesce(func.sum(usage.file_count), 0),
    ).where(usage.account_id.in_(select(inside.c.id)))
    held, reserved, files = tx.execute(total).one()
    return int(held), int(reserved), int(files)


def _coming_files(tx: Connection, account_id: UUID) -> int:
    """Entries that are reserved in all archives of an account."""
    coming = (
        select(func.coalesce(func.sum(uploads.c.file_count), 0))
        .join(archives, archives.c.id == uploads.c.archive_id)
        .where(archives.c.account_id == account_id, uploads.c.state.in_(ACTIVE_UPLOADS))
    )
    return int(tx.execute(coming).scalar_one())


def _archive_use(tx: Connection, archive_id: UUID) -> tuple[int, int]:
    """Files and bytes, reserved ones included."""
    held = select(func.coalesce(func.sum(parts.c.file_count), 0), func.coalesce(func.sum(parts.c.byte_count), 0))
    coming = select_active_uploads(archive_id).with_only_columns(
        func.coalesce(func.sum(uploads.c.file_count), 0), func.coalesce(func.sum(uploads.c.byte_count), 0)
    )
    files, size = tx.execute(held.where(parts.c.archive_id == archive_id)).one()
    more_files, more = tx.execute(coming).one()
    return int(files + more_files), int(size + more)


def _profile_use(tx: Connection, archive: Archive) -> int:
    same = (archives.c.account_id == archive.account_id) & (
        archives.c.profile["name"].as_string() == archive.profile.name
    )
    held = select(func.coalesce(func.sum(parts.c.byte_count), 0)).join(archives, archives.c.id == parts.c.archive_id)
    coming = select(func.coalesce(func.sum(uploads.c.byte_count), 0)).join(
        archives, archives.c.id == uploads.c.archive_id
    )
    size = (
        tx.execute(held.where(same)).scalar_one()
        + tx.execute(coming.where(same, uploads.c.state.in_(ACTIVE_UPLOADS))).scalar_one()
    )
    return int(size)


def _take_part(tx: Connection, ctx: Context, archive: Archive, entries: int, size: int) -> tuple[Part, int]:
    """The part that takes this, a new one when the last one has no room; and the removals from it."""
    newest = select(parts).where(parts.c.archive_id == archive.id).order_by(parts.c.number.desc()).limit(1)
    row = tx.execute(newest).one_or_none()
    part = None if row is None else _to_part(row, row.assigned_files, row.assigned_bytes)
    if part is None or not part_has_room(part, entries, size):
        part = _add_part(tx, ctx, archive, part)
    taken = (
        update(parts)
        .where(parts.c.archive_id == archive.id, parts.c.number == part.number)
        .values(
            assigned_files=parts.c.assigned_files + entries,
            assigned_bytes=parts.c.assigned_bytes + size,
        )
        .returning(parts.c.removals)
    )
    return part, tx.execute(taken).scalar_one()


def _add_part(tx: Connection, ctx: Context, archive: Archive, last: Part | None) -> Part:
    number = 1 if last is None else last.number + 1
    part = Part(new_id(), archive.id, number, PartState.FILLING, 0, 0)
    tx.execute(insert(parts).values(archive_id=archive.id, number=number, id=part.id, state=part.state.value))
    if last is not None and last.state is PartState.FILLING:
        full = update(parts).where(parts.c.archive_id == archive.id, parts.c.number == last.number)
        tx.execute(full.values(state=PartState.FULL.value))
        _seal_when_complete(tx, ctx, archive.id)
    return part


def _to_part(row: Row[Any], files: int, size: int) -> Part:  # Any: a row of the table
    return Part(
        id=row.id,
        archive_id=row.archive_id,
        number=row.number,
        state=PartState(row.state),
        file_count=files,
        byte_count=size,
        inventory_digest=row.inventory_digest,
        manifest_digest=row.manifest_digest,
    )
