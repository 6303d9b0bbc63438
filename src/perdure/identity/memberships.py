"""Who is in a group when, as a condition for whatever asks."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, FromClause, and_, or_

from perdure.identity.tables import group_members
from perdure.kernel.errors import BadInputError


def is_member_at(now: datetime | ColumnElement[datetime], members: FromClause = group_members) -> ColumnElement[bool]:
    """The memberships that count at this moment."""
    starts, ends = members.c.starts_at, members.c.ends_at
    return and_(or_(starts.is_(None), starts <= now), or_(ends.is_(None), ends > now))


def check_dates(starts_at: datetime | None, ends_at: datetime | None, now: datetime) -> None:
    """Raises BadInputError for a time that is over, runs backwards or has no zone."""
    for moment, field in ((starts_at, "starts_at"), (ends_at, "ends_at")):
        if moment is not None and moment.tzinfo is None:
            raise BadInputError("A beginning or an end needs a time zone.", field=field)
    if ends_at is not None and (ends_at <= now or (starts_at is not None and ends_at <= starts_at)):
        raise BadInputError("The end lies in the future, and after the beginning.", field="ends_at")
