"""What accounts use: counted once a day and kept, and reported by account, group, organisation or kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Select, case, func, literal, select
from sqlalchemy.dialects.postgresql import insert

from perdure.archives.errors import BadPeriodError
from perdure.archives.model import ArchiveState
from perdure.archives.records import Context
from perdure.archives.tables import account_usage, archives, usage_snapshots
from perdure.identity.model import Reportable
from perdure.kernel.actor import Actor

_ACCOUNTS_AT_ONCE = 5000
_LONGEST_PERIOD = 3660  # days
_OPEN = (ArchiveState.OPEN.value, ArchiveState.CLOSING.value)
_NUMBERS = ("byte_count", "file_count", "archives_open", "archives_closed", "copy_bytes")
_EVERYTHING = Reportable(None)


class By(StrEnum):
    """What a line of a report is about. A beamline is an account of that kind; a group holds the accounts that it has
    a role on, so that one account may stand in several lines."""

    ACCOUNT = "account"
    BEAMLINE = "beamline"
    GROUP = "group"
    ORGANISATION = "organisation"
    KIND = "kind"


@dataclass(frozen=True, slots=True)
class Use:
    """What is held: bytes and files of archives, how many archives are open and closed, and the bytes of all copies."""

    bytes: int = 0
    files: int = 0
    archives_open: int = 0
    archives_closed: int = 0
    copy_bytes: int = 0

    def plus(self, other: Use) -> Use:
        return Use(
            self.bytes + other.bytes,
            self.files + other.files,
            self.archives_open + other.archives_open,
            self.archives_closed + other.archives_closed,
            self.copy_bytes + other.copy_bytes,
        )


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a report: what it is about on a day (UTC). `id` is None for a kind; of a total only the day is set.

    A total counts each account once.
    """

    day: date
    use: Use
    id: UUID | None = None
    name: str = ""
    organisation_id: UUID | None = None
    is_total: bool = False


@dataclass(frozen=True, slots=True)
class Period:
    """Days (UTC), both included; None is this moment."""

    first: date
    last: date


@dataclass(frozen=True, slots=True)
class _Measured:
    """One account on one day."""

    day: date
    account_id: UUID
    organisation_id: UUID
    kind: str
    name: str
    use: Use


_Key = tuple[UUID | None, str, UUID | None]  # id, name and organisation of a line


class Reports:
    """Use of the accounts that the actor may have reported; safe to share between threads."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def report_usage(
        self, actor: Actor, by: By, *, first: date | None = None, last: date | None = None
    ) -> Iterator[Line]:
        """The lines of each day, then the day's total; for managers of organisations and administrators.

        Without days it tells of this moment, with days of what was counted on them: `first` without `last` means until
        today, `last` alone means that day. An account that held nothing has no line on a past day. Who may is looked at
        at once; the lines come as they are read, and whoever reads slowly holds no transaction open.
        """
        period = self._check_period(first, last)
        with self._ctx.db.begin() as tx:
            reportable = self._ctx.identity.require_reportable_in(tx, actor)
            names = self._ctx.identity.find_organisation_names_in(tx, reportable)
            grouped = self._ctx.identity.find_group_accounts_in(tx, reportable) if by is By.GROUP else {}
            days = [self._ctx.clock.now().date()] if period is None else _counted_days(tx, reportable, period)
        keys_of = _keys_of(by, names, grouped)
        if period is None:
            return self._iter_lines(days, lambda day, after: self._read_now(day, reportable, after), by, keys_of)
        return self._iter_lines(days, lambda day, after: self._read_day(day, reportable, after), by, keys_of)

    def _check_period(self, first: date | None, last: date | None) -> Period | None:
        if first is None and last is None:
            return None
        last = last or self._ctx.clock.now().date()
        period = Period(first or last, last)
        if not 0 <= (period.last - period.first).days < _LONGEST_PERIOD:
            raise BadPeriodError(
                f"The days go from {period.first} to {period.last}; at most {_LONGEST_PERIOD} in order."
            )
        return period

    @staticmethod
    def _iter_lines(
        days: Sequence[date],
        read: Callable[[date, UUID], list[_Measured]],
        by: By,
        keys_of: Callable[[_Measured], list[_Key]],
    ) -> Iterator[Line]:
        for day in days:
            total, sums = Use(), dict[_Key, Use]()
            for one in _iter_accounts(day, read):
                keys = keys_of(one)
                total = total.plus(one.use) if keys else total
                if by in (By.ACCOUNT, By.BEAMLINE):
                    yield from (Line(day, one.use, *key) for key in keys)
                    continue
                for key in keys:
                    sums[key] = sums.get(key, Use()).plus(one.use)
            for key in sorted(sums, key=lambda key: (key[1], str(key[0]))):
                yield Line(day, sums[key], *key)
            yield Line(day, total, is_total=True)

    def _read_now(self, day: date, reportable: Reportable, after: UUID) -> list[_Measured]:
        with self._ctx.db.begin() as tx:
            measured = _select_measured(self._ctx, reportable).subquery()
            query = select(measured).where(measured.c.account_id > after).order_by(measured.c.account_id)
            return [_measured(row, day) for row in tx.execute(query.limit(_ACCOUNTS_AT_ONCE)).mappings()]

    def _read_day(self, day: date, reportable: Reportable, after: UUID) -> list[_Measured]:
        known = self._ctx.identity.select_reportable_accounts(reportable).subquery()
        kept = usage_snapshots.c
        query = (
            select(usage_snapshots, known.c.name)
            .join(known, known.c.id == kept.account_id)
            .where(kept.day == day, kept.account_id > after)
            .order_by(kept.account_id)
            .limit(_ACCOUNTS_AT_ONCE)
        )
        with self._ctx.db.begin() as tx:
            return [_measured(row, day) for row in tx.execute(query).mappings()]


def count_usage(ctx: Context) -> int:
    """Keep what each account uses today; the last count of a day stands. A periodic job. How many accounts hold any."""
    today = ctx.clock.now().date()
    measured = _select_measured(ctx, _EVERYTHING).subquery()
    c = measured.c
    holds = (c.byte_count > 0) | (c.file_count > 0) | (c.archives_open + c.archives_closed > 0) | (c.copy_bytes > 0)
    columns = ("account_id", "organisation_id", "kind", *_NUMBERS)
    query = select(literal(today).label("day"), *(c[name] for name in columns)).where(holds)
    fresh = insert(usage_snapshots).from_select(["day", *columns], query)
    changed = {name: fresh.excluded[name] for name in columns if name != "account_id"}
    own = usage_snapshots.c.day == today
    with ctx.db.begin() as tx:
        tx.execute(fresh.on_conflict_do_update(index_elements=["day", "account_id"], set_=changed))
        emptied = usage_snapshots.c.account_id.not_in(select(c.account_id).where(holds))
        tx.execute(usage_snapshots.delete().where(own, emptied))
        return tx.execute(select(func.count()).select_from(usage_snapshots).where(own)).scalar_one()


def _select_measured(ctx: Context, reportable: Reportable) -> Select[Any]:  # Any: the columns of _Measured
    """What each of these accounts uses at this moment."""
    known = ctx.identity.select_reportable_accounts(reportable).subquery("known")
    copied = ctx.storage.select_copied_bytes().subquery("copied")
    is_open, is_closed = archives.c.state.in_(_OPEN), archives.c.state == ArchiveState.CLOSED.value
    counted = (
        select(
            archives.c.account_id,
            func.sum(case((is_open, 1), else_=0)).label("archives_open"),
            func.sum(case((is_closed, 1), else_=0)).label("archives_closed"),
            func.coalesce(func.sum(copied.c.byte_count), 0).label("copy_bytes"),
        )
        .outerjoin(copied, copied.c.archive_id == archives.c.id)
        .group_by(archives.c.account_id)
    )
    if reportable.organisation_ids is not None:
        counted = counted.where(archives.c.organisation_id.in_(reportable.organisation_ids))
    held = counted.subquery("held")
    usage = account_usage.c
    return (
        select(
            known.c.id.label("account_id"),
            known.c.organisation_id,
            known.c.kind,
            known.c.name,
            func.coalesce(usage.byte_count, 0).label("byte_count"),
            func.coalesce(usage.file_count, 0).label("file_count"),
            func.coalesce(held.c.archives_open, 0).label("archives_open"),
            func.coalesce(held.c.archives_closed, 0).label("archives_closed"),
            func.coalesce(held.c.copy_bytes, 0).label("copy_bytes"),
        )
        .outerjoin(account_usage, usage.account_id == known.c.id)
        .outerjoin(held, held.c.account_id == known.c.id)
    )


def _counted_days(tx: Connection, reportable: Reportable, period: Period) -> list[date]:
    kept = usage_snapshots.c
    query = select(kept.day).distinct().where(kept.day.between(period.first, period.last)).order_by(kept.day)
    if reportable.organisation_ids is not None:
        query = query.where(kept.organisation_id.in_(reportable.organisation_ids))
    return list(tx.execute(query).scalars())


def _iter_accounts(day: date, read: Callable[[date, UUID], list[_Measured]]) -> Iterator[_Measured]:
    after = UUID(int=0)
    while found := read(day, after):
        yield from found
        after = found[-1].account_id


def _keys_of(
    by: By, organisations: Mapping[UUID, str], grouped: Mapping[UUID, tuple[str, UUID, frozenset[UUID]]]
) -> Callable[[_Measured], list[_Key]]:
    """In which lines an account stands; one that stands in none is not in the total either."""
    groups_of: dict[UUID, list[_Key]] = {}
    for group_id, (name, organisation_id, accounts) in grouped.items():
        for account_id in accounts:
            groups_of.setdefault(account_id, []).append((group_id, name, organisation_id))

    def keys(one: _Measured) -> list[_Key]:
        if by is By.GROUP:
            return groups_of.get(one.account_id, [])
        if by is By.KIND:
            return [(None, one.kind, None)]
        if by is By.ORGANISATION:
            return [(one.organisation_id, organisations.get(one.organisation_id, ""), one.organisation_id)]
        if by is By.BEAMLINE and one.kind != By.BEAMLINE.value:
            return []
        return [(one.account_id, one.name, one.organisation_id)]

    return keys


def _measured(row: Mapping[Any, Any], day: date) -> _Measured:  # Any: columns by name
    use = Use(*(int(row[name]) for name in _NUMBERS))
    return _Measured(day, row["account_id"], row["organisation_id"], row["kind"], row["name"], use)
