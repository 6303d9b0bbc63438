"""The audit trail: who did what, for administrators, and for managers of an organisation about their own."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from sqlalchemy import ColumnElement, String, cast, or_, select

from perdure.archives.records import Context
from perdure.archives.tables import archives
from perdure.events import Event, Search, search_events
from perdure.events.searching import SearchedColumns, SeenEvents
from perdure.identity.model import Action, InstanceThing
from perdure.kernel.actor import Actor


class Trail:
    """Searches in the log of events."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def search(self, actor: Actor, search: Search) -> list[Event]:
        """The events that are asked for.

        Who manages organisations is told those by or about their identities, and of their archives. Raises
        NotAllowedError for everybody else but administrators.
        """
        with self._ctx.db.begin() as tx:
            if search.actor is not None:  # who did something under an identity that was merged since did it
                search = replace(search, aliases=self._ctx.identity.list_aliases_in(tx, search.actor))
            if self._ctx.identity.can(tx, actor, Action.ADMINISTER, InstanceThing()):
                return search_events(tx, search)
            managed = self._ctx.identity.managed_organisations(tx, actor)
            if not managed:
                self._ctx.identity.require(tx, actor, Action.ADMINISTER, InstanceThing())
            return search_events(tx, search, seen=self._of(managed))

    def _of(self, organisations: frozenset[UUID]) -> SeenEvents:
        people = self._ctx.identity.select_people_of(organisations)
        own = select(archives.c.id).where(archives.c.organisation_id.in_(organisations))

        def seen(columns: SearchedColumns) -> ColumnElement[bool]:
            named = columns.named.in_(select(cast(people.subquery().c.id, String)))
            return or_(columns.actor.in_(people), columns.subject.in_(own), named)

        return seen
