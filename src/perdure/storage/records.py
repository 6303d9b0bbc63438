"""The rows of stores, objects and copies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import cast
from uuid import UUID

from sqlalchemy import Connection, Row, Select, Update, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from perdure.storage.errors import ForeignStoreError
from perdure.storage.model import Abilities, Copy, CopyState, ObjectKind, StoredObject, StoreInfo
from perdure.storage.tables import copies, objects, stores


def save_store(tx: Connection, info: StoreInfo, abilities: Abilities) -> None:
    """Insert or renew a store's row; safe for several at once. Raises ForeignStoreError when its name is another's."""
    values = {**asdict(info), "abilities": asdict(abilities)}
    # No update in the same statement: it minds one key only, and two that begin at once collide in the other, too
    tx.execute(insert(stores).values(values).on_conflict_do_nothing())
    if not tx.execute(update(stores).where(stores.c.id == info.id).values(values)).rowcount:
        raise ForeignStoreError(f"Another store than {info.id} is called {info.name}.")


def find_store_id(tx: Connection, name: str) -> UUID | None:
    """The identity that the store of this name had when it was last prepared."""
    return tx.execute(select(stores.c.id).where(stores.c.name == name)).scalar_one_or_none()


def save_object(tx: Connection, stored: StoredObject) -> None:
    """Insert an object or renew it; safe to call twice."""
    values = {**asdict(stored), "kind": stored.kind.value}
    tx.execute(insert(objects).values(values).on_conflict_do_update(index_elements=["object_id"], set_=values))


def save_copy(tx: Connection, copy: Copy) -> None:
    """Insert a copy or renew it; safe to call twice."""
    values = {**asdict(copy), "state": copy.state.value, "evidence": dict(copy.evidence)}
    keys = ["object_id", "store_id"]
    tx.execute(insert(copies).values(values).on_conflict_do_update(index_elements=keys, set_=values))


def mark_copy(tx: Connection, object_id: str, store_id: UUID, state: CopyState, evidence: Mapping[str, object]) -> None:
    """Change the state of a copy, if there is such a copy."""
    tx.execute(
        update(copies)
        .where(copies.c.object_id == object_id, copies.c.store_id == store_id)
        .values(state=state.value, evidence=dict(evidence))
    )


def doubt_copy(tx: Connection, object_id: str, store_id: UUID, evidence: Mapping[str, object]) -> None:
    """Mark a copy suspect that was good to read; one that is being written or has left stays what it is."""
    tx.execute(
        update(copies)
        .where(copies.c.object_id == object_id, copies.c.store_id == store_id)
        .where(copies.c.state.in_([CopyState.WRITTEN.value, CopyState.VERIFIED.value]))
        .values(state=CopyState.SUSPECT.value, evidence=dict(evidence))
    )


def mark_verified(tx: Connection, copy: Copy, when: datetime, evidence: Mapping[str, object]) -> bool:
    """Mark a copy verified unless it was written again or doubted since it was loaded; whether it was marked."""
    values = {"state": CopyState.VERIFIED.value, "verified_at": when, "evidence": dict(evidence)}
    unchanged = _update_of_writing(copy).where(copies.c.state == copy.state.value)
    return tx.execute(unchanged.values(values)).rowcount > 0


def mark_suspect(tx: Connection, copy: Copy, evidence: Mapping[str, object]) -> bool:
    """Mark a copy suspect unless it was written again or removed since it was loaded; whether it was marked."""
    values = {"state": CopyState.SUSPECT.value, "evidence": dict(evidence)}
    doubtful = [CopyState.WRITTEN.value, CopyState.VERIFIED.value, CopyState.SUSPECT.value]
    return tx.execute(_update_of_writing(copy).where(copies.c.state.in_(doubtful)).values(values)).rowcount > 0


def _update_of_writing(copy: Copy) -> Update:
    """The update of a copy as long as it is what was written when it was loaded."""
    return update(copies).where(
        copies.c.object_id == copy.object_id,
        copies.c.store_id == copy.store_id,
        copies.c.version == copy.version,
        copies.c.written_at.is_not_distinct_from(copy.written_at),
    )


def find_object(tx: Connection, object_id: str) -> StoredObject | None:
    row = tx.execute(select(objects).where(objects.c.object_id == object_id)).one_or_none()
    return _to_object(row) if row is not None else None


def find_objects(tx: Connection, object_ids: Iterable[str]) -> list[StoredObject]:
    return [_to_object(row) for row in tx.execute(select(objects).where(objects.c.object_id.in_(list(object_ids))))]


def find_objects_of_archive(tx: Connection, archive_id: UUID) -> list[StoredObject]:
    query = select(objects).where(objects.c.archive_id == archive_id).order_by(objects.c.object_id)
    return [_to_object(row) for row in tx.execute(query)]


def find_objects_of_none(tx: Connection) -> list[StoredObject]:
    query = select(objects).where(objects.c.archive_id.is_(None)).order_by(objects.c.object_id)
    return [_to_object(row) for row in tx.execute(query)]


def load_copies(tx: Connection, object_ids: Iterable[str]) -> dict[str, list[Copy]]:
    """The copies of each object; an object without copies has an empty list."""
    found: dict[str, list[Copy]] = {object_id: [] for object_id in object_ids}
    query = select(copies).where(copies.c.object_id.in_(found)).order_by(copies.c.object_id, copies.c.store_id)
    for row in tx.execute(query):
        found[row.object_id].append(_to_copy(row))
    return found


def find_due_copies(tx: Connection, store_id: UUID, before: datetime, limit: int) -> list[Copy]:
    """Copies of a store that were last verified before a time or never, longest ago first."""
    query = (
        select(copies)
        .where(copies.c.store_id == store_id, copies.c.state.in_([CopyState.WRITTEN.value, CopyState.VERIFIED.value]))
        .where((copies.c.verified_at.is_(None)) | (copies.c.verified_at < before))
        .order_by(copies.c.verified_at.asc().nulls_first(), copies.c.object_id)
        .limit(limit)
    )
    return [_to_copy(row) for row in tx.execute(query)]


def find_broken_copies(
    tx: Connection, store_ids: Collection[UUID], written_before: datetime, limit: int
) -> list[tuple[UUID, str]]:
    """Archive and object of copies that nobody may read, but for those written since a time and never verified."""
    broken = [CopyState.WRITING.value, CopyState.SUSPECT.value, CopyState.LOST.value]
    query = (
        select(objects.c.archive_id, objects.c.object_id)
        .join(copies, copies.c.object_id == objects.c.object_id)
        .where(objects.c.archive_id.is_not(None), copies.c.store_id.in_(store_ids), copies.c.state.in_(broken))
        .where(
            copies.c.written_at.is_(None) | (copies.c.written_at < written_before) | copies.c.verified_at.is_not(None)
        )
        .order_by(objects.c.object_id)
        .limit(limit)
    )
    return [(row.archive_id, row.object_id) for row in tx.execute(query.distinct())]


def find_heads_behind(tx: Connection, store_ids: Sequence[UUID], limit: int) -> list[tuple[str, list[UUID]]]:
    """Objects of more than one version, with those of the stores that lack the newest and whose copy nobody doubts."""
    doubted = copies.c.state.in_([CopyState.SUSPECT.value, CopyState.LOST.value])
    behind = copies.c.object_id.is_(None) | ((copies.c.version < objects.c.version) & ~doubted)
    own = (copies.c.object_id == objects.c.object_id) & (copies.c.store_id == stores.c.id)
    query = (
        select(objects.c.object_id, func.array_agg(stores.c.id).label("store_ids"))
        .select_from(objects)
        .join(stores, stores.c.id.in_(store_ids))
        .outerjoin(copies, own)
        .where(objects.c.kind != ObjectKind.PART.value, behind)
        .group_by(objects.c.object_id)
        .limit(limit)
    )
    return [(row.object_id, list(row.store_ids)) for row in tx.execute(query)]


def select_copied_bytes() -> Select[UUID | None, Decimal]:
    """Each archive with the bytes of all copies of its objects that are good to read: a query for reports to join."""
    good = copies.c.state.in_([CopyState.WRITTEN.value, CopyState.VERIFIED.value])
    return (
        select(objects.c.archive_id, func.sum(objects.c.byte_count).label("byte_count"))
        .join(copies, copies.c.object_id == objects.c.object_id)
        .where(objects.c.archive_id.is_not(None), good)
        .group_by(objects.c.archive_id)
    )


def delete_copy(tx: Connection, object_id: str, store_id: UUID) -> None:
    tx.execute(delete(copies).where(copies.c.object_id == object_id, copies.c.store_id == store_id))


def delete_objects(tx: Connection, object_ids: Sequence[str]) -> None:
    """Forget objects and the copies of them."""
    tx.execute(delete(objects).where(objects.c.object_id.in_(object_ids)))


def lock_object(tx: Connection, object_id: str) -> None:
    """Let no other transaction of any process change this object until this one ends."""
    tx.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(object_id, 0))))


def try_lock_object(tx: Connection, object_id: str) -> bool:
    """The same lock, unless somebody else holds it."""
    return bool(tx.execute(select(func.pg_try_advisory_xact_lock(func.hashtextextended(object_id, 0)))).scalar_one())


def _to_object(row: Row[tuple[object, ...]]) -> StoredObject:
    values = cast("dict[str, object]", row._asdict())
    return StoredObject(**{**values, "kind": ObjectKind(str(values["kind"]))})  # type: ignore[arg-type]  # typed by the table


def _to_copy(row: Row[tuple[object, ...]]) -> Copy:
    values = cast("dict[str, object]", row._asdict())
    return Copy(**{**values, "state": CopyState(str(values["state"]))})  # type: ignore[arg-type]  # typed by the table
