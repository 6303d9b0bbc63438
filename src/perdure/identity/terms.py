"""The terms of use: versions of a text, and who accepted which when. Nobody logs in without the present one."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, func, insert, select, update

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity.errors import TermsNotAcceptedError
from perdure.identity.model import Action, InstanceThing, Terms
from perdure.identity.rights import Rights
from perdure.identity.tables import identities, terms
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.clock import Clock
from perdure.kernel.errors import BadInputError, NotFoundError

_LONGEST_TEXT = 200_000


class TermsOfUse:
    """Published by administrators; an installation without terms asks nobody."""

    def __init__(self, db: Database, clock: Clock, events: EventLog, rights: Rights) -> None:
        self._db = db
        self._clock = clock
        self._events = events
        self._rights = rights

    def publish_terms(self, actor: Actor, text: str) -> Terms:
        """A new version, which everybody meets at his next login; for administrators."""
        if not text.strip() or len(text) > _LONGEST_TEXT or "\0" in text:
            raise BadInputError(f"Terms of use are 1 to {_LONGEST_TEXT} characters of text.", field="text")
        with self._db.begin() as tx:
            self._rights.require(tx, actor, Action.ADMINISTER, InstanceThing())
            tx.exec_driver_sql("LOCK TABLE terms IN SHARE ROW EXCLUSIVE MODE")
            version = (tx.execute(select(func.max(terms.c.version))).scalar() or 0) + 1
            made = Terms(version, text, self._clock.now())
            tx.execute(insert(terms).values(version=version, text=text, published_at=made.published_at))
            self._events.record(tx, facts.TERMS_PUBLISHED, None, actor, {"version": version})
        return made

    def get_terms(self, version: int | None = None) -> Terms:
        """The present version, or an earlier one; for everybody. Raises NotFoundError when there is none."""
        with self._db.begin() as tx:
            found = _find(tx, version)
        if found is None:
            raise NotFoundError("There are no such terms of use.")
        return found

    def require_accepted_in(self, tx: Connection, identity_id: UUID, accepted: int | None) -> None:
        """Note the acceptance that comes with a login; raises TermsNotAcceptedError when one is still needed."""
        present = _find(tx, None)
        if present is None:
            return
        before = tx.execute(select(identities.c.accepted_terms).where(identities.c.id == identity_id)).scalar_one()
        if before == present.version:
            return
        require_version(present, accepted)
        note = {"accepted_terms": present.version, "accepted_at": self._clock.now()}
        tx.execute(update(identities).where(identities.c.id == identity_id).values(**note))
        told = {"identity": str(identity_id), "version": present.version}
        who = Actor(ActorKind.PERSON, identity_id)
        self._events.record(tx, facts.TERMS_ACCEPTED, None, who, told)

    def require_acceptance_in(self, tx: Connection, accepted: int | None) -> int | None:
        """The version that somebody accepts who is not known yet; raises TermsNotAcceptedError when one is needed."""
        present = _find(tx, None)
        if present is None:
            return None
        require_version(present, accepted)
        return present.version


def require_version(present: Terms, accepted: int | None) -> None:
    """Raises TermsNotAcceptedError unless it is the present version that was accepted."""
    if accepted != present.version:
        raise TermsNotAcceptedError(
            "Before you log in, read and accept the terms of use.",
            version=present.version,
            terms=f"/terms/{present.version}",
        )


def _find(tx: Connection, version: int | None) -> Terms | None:
    query = (
        select(terms).where(terms.c.version == version)
        if version is not None
        else select(terms).order_by(terms.c.version.desc())
    )
    row = tx.execute(query.limit(1)).first()
    return None if row is None else Terms(row.version, row.text, row.published_at)
