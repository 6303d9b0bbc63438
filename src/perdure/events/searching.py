"""Find events of the log by what they tell: for whoever asks who did what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, Text, cast, func, literal, select, union_all

from perdure.events.model import Event
from perdure.events.service import to_event
from perdure.events.tables import events


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked of the log; what is None may be anything.

    `type` is a whole type, or its first word with the dot (`session.`). `about` is an id that the event's data holds.
    `since` is the first moment of recording that counts, `until` the first that does not. `after` is the number of the
    last event that is known, in the order that is asked for.
    """

    type: str | None = None
    actor: UUID | None = None
    subject: UUID | None = None
    about: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: int | None = None
    is_newest_first: bool = True
    limit: int = 100
    aliases: frozenset[UUID] = frozenset()  # other ids of the actor


@dataclass(frozen=True, slots=True)
class SearchedColumns:
    """What a condition on who may see an event can be made of; `named` is the identity that it is about, as text."""

    subject: ColumnElement[UUID | None]
    actor: ColumnElement[UUID | None]
    named: ColumnElement[str | None]


SeenEvents = Callable[[SearchedColumns], ColumnElement[bool]]
_COLUMNS = SearchedColumns(events.c.subject, events.c.actor_id, cast(events.c.data["identity"].astext, Text))


def search_events(tx: Connection, search: Search, *, seen: SeenEvents | None = None) -> list[Event]:
    """The numbered events that are asked for, in the order of their numbers or against it, at most `limit`."""
    types = None if search.type is None else _find_types(tx, search.type)
    if types is not None and not types:
        return []
    found = _select(search, seen)
    if types is None:
        query = found
    elif search.actor or search.subject or search.about:  # any of which has few events
        query = found.where(events.c.type.in_(types))
    else:  # the next of each type by its index: a rare type is not searched for among all others
        each = [found.where(events.c.type == one).subquery() for one in types]
        together = union_all(*(select(one) for one in each)).subquery()
        query = select(together).order_by(_in_order(together.c.number, search)).limit(search.limit)
    return [to_event(row) for row in tx.execute(query)]


def _select(search: Search, seen: SeenEvents | None) -> Select[*tuple[object, ...]]:
    query = select(events).where(events.c.number.is_not(None))
    if search.after is not None:
        is_newest = search.is_newest_first
        query = query.where(events.c.number < search.after if is_newest else events.c.number > search.after)
    if search.actor is not None:
        query = query.where(events.c.actor_id.in_([search.actor, *sorted(search.aliases)]))
    if search.subject is not None:
        query = query.where(events.c.subject == search.subject)
    if search.about is not None:
        query = query.where(events.c.about.contains([search.about]))
    if search.since is not None:
        query = query.where(events.c.recorded_at >= search.since)
    if search.until is not None:
        query = query.where(events.c.recorded_at < search.until)
    if seen is not None:
        query = query.where(seen(_COLUMNS))
    return query.order_by(_in_order(events.c.number, search)).limit(search.limit)


def _in_order(number: ColumnElement[int | None], search: Search) -> ColumnElement[int | None]:
    return number.desc() if search.is_newest_first else number.asc()


def _find_types(tx: Connection, wanted: str) -> list[str]:
    """The types of this name, or of this first word with its dot, that the log has."""
    if not wanted.endswith("."):
        return [wanted]
    is_numbered = events.c.number.is_not(None)
    known = select(func.min(events.c.type).label("type")).where(is_numbered).cte("known", recursive=True)
    following = select(func.min(events.c.type)).where(events.c.type > known.c.type, is_numbered).scalar_subquery()
    known = known.union_all(select(following).where(known.c.type.is_not(None)))  # from type to type by the index
    fitting = func.starts_with(known.c.type, literal(wanted))
    return list(tx.execute(select(known.c.type).where(fitting)).scalars())
