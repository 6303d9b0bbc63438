"""Mail leaves through the queue: it is kept, sealed, in the transaction that causes it, and sent by a worker.

Nobody reads it in the database: the key lies beside the data. It goes when it was sent, at the latest when it ends.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, delete, func, insert, select, update

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity.errors import BadSealError, MailNotConfiguredError, MailRefusedError, MailUnavailableError
from perdure.identity.letters import write_test
from perdure.identity.mail_keys import forget_ended_keys
from perdure.identity.model import Letter
from perdure.identity.names import check_address
from perdure.identity.ports import Mailer, Sealer
from perdure.identity.tables import mails
from perdure.jobs import JobContext, Jobs, RetryRule
from perdure.kernel.actor import SYSTEM
from perdure.kernel.clock import Clock
from perdure.kernel.ids import new_id

SEND_JOB = "identity.send_mail"
WAITING = "waiting"
_PURPOSE = "mail"
_LASTS = timedelta(days=2)
_PATIENCE = RetryRule(max_attempts=250, first_wait=timedelta(seconds=15))  # two days and a half


class Post:
    """Takes letters in; without a mailer it is closed. Functions with `_in` take part in the caller's transaction."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        events: EventLog,
        sealer: Sealer,
        jobs: Jobs | None,
        mailer: Mailer | None,
        url: str,
    ) -> None:
        self.url = url
        self._db = db
        self._clock = clock
        self._events = events
        self._sealer = sealer
        self._jobs = jobs
        self._mailer = mailer
        if jobs is not None:
            jobs.register(SEND_JOB, self._send, retry=_PATIENCE)

    @property
    def is_open(self) -> bool:
        """Whether mail can be sent at all."""
        return self._mailer is not None and self._jobs is not None

    def require_open(self) -> Mailer:
        """Raises MailNotConfiguredError when no mail can be sent."""
        if self._mailer is None or self._jobs is None:
            raise MailNotConfiguredError("No mail server is set.")
        return self._mailer

    def send_in(self, tx: Connection, letter: Letter, *, about: UUID | None = None, lasts: timedelta = _LASTS) -> None:
        """Have a letter sent once the transaction has its end; one about the same thing that still waits is dropped.

        It is tried again for as long as it `lasts`. Where no mail can be sent, nothing happens.
        """
        if not self.is_open:
            return
        if about is not None:
            self.drop_about_in(tx, about)
        self.keep_in(tx, letter.kind, asdict(letter), SEND_JOB, about=about, lasts=lasts)

    def keep_in(
        self,
        tx: Connection,
        kind: str,
        content: dict[str, Any],  # Any: JSON
        job: str,
        *,
        about: UUID | None = None,
        lasts: timedelta = _LASTS,
    ) -> None:
        """Keep something sealed for a job, which gets its id as `mail`."""
        mail_id, now = new_id(), self._clock.now()
        sealed = self._sealer.seal(json.dumps(content).encode(), _PURPOSE)
        row = {"id": mail_id, "kind": kind, "about": about, "sealed": sealed}
        tx.execute(insert(mails).values(**row, created_at=now, expires_at=now + lasts))
        if self._jobs is not None:
            self._jobs.defer(tx, job, {"mail": str(mail_id)})

    def open_kept(self, mail_id: UUID) -> dict[str, Any] | None:  # Any: JSON
        """What was kept; None when it is gone or has ended. Raises BadSealError."""
        lasting = select(mails.c.sealed).where(
            mails.c.id == mail_id, mails.c.problem.is_(None), mails.c.expires_at > self._clock.now()
        )
        with self._db.begin() as tx:
            sealed = tx.execute(lasting).scalar()
        if sealed is None:
            return None
        content: dict[str, Any] = json.loads(self._sealer.open(sealed, _PURPOSE))
        return content

    def drop_in(self, tx: Connection, mail_id: UUID) -> None:
        """Forget what was kept."""
        tx.execute(delete(mails).where(mails.c.id == mail_id))

    def drop_about_in(self, tx: Connection, about: UUID) -> None:
        """Do not send what still waits about something."""
        tx.execute(delete(mails).where(mails.c.about == about))

    def count_waiting_in(self, tx: Connection, kind: str) -> int:
        """How many of a kind wait."""
        return tx.execute(select(func.count()).where(mails.c.kind == kind, mails.c.problem.is_(None))).scalar_one()

    def find_troubles_in(self, tx: Connection, about: Collection[UUID]) -> dict[UUID, str]:
        """Of mail about these things: `waiting`, or why it was given up; nothing of what was sent."""
        found = tx.execute(select(mails.c.about, mails.c.problem).where(mails.c.about.in_(about)))
        return {row.about: row.problem or WAITING for row in found}

    def send_test(self, to: str) -> None:
        """Send a mail at once, past the queue; raises MailNotConfiguredError, and what the mailer raises."""
        self.require_open().deliver(write_test(self.url, check_address(to)), new_id())

    def forget_ended(self) -> int:
        """Give up mail that nobody took for as long as it lasted, and forget ended keys; for a periodic job."""
        ended = delete(mails).where(mails.c.expires_at <= self._clock.now()).returning(mails)
        with self._db.begin() as tx:
            rows = tx.execute(ended).all()
            for row in rows:
                if row.problem is None:
                    self._tell_failure(tx, row.id, row.kind, row.about, "ended")
            forget_ended_keys(tx, self._clock.now())
        return len(rows)

    def _send(self, job: JobContext, payload: dict[str, Any]) -> None:  # Any: see jobs.Handler
        mail_id = UUID(payload["mail"])
        try:
            content = self.open_kept(mail_id)
            if content is None:
                return
            if self._mailer is None:
                raise MailUnavailableError("No mail server is set any more.")
            self._mailer.deliver(Letter(**content), mail_id)
        except (MailRefusedError, BadSealError) as error:
            self._give_up(mail_id, error.detail)
            raise
        with self._db.begin() as tx:
            self.drop_in(tx, mail_id)

    def _give_up(self, mail_id: UUID, problem: str) -> None:
        given_up = update(mails).where(mails.c.id == mail_id).values(sealed="", problem=problem).returning(mails)
        with self._db.begin() as tx:
            row = tx.execute(given_up).first()
            if row is not None:
                self._tell_failure(tx, row.id, row.kind, row.about, "refused")

    def _tell_failure(self, tx: Connection, mail_id: UUID, kind: str, about: UUID | None, why: str) -> None:
        told = {"mail": str(mail_id), "kind": kind, "about": about and str(about), "why": why}
        self._events.record(tx, facts.MAIL_FAILED, None, SYSTEM, told)
