"""A forgotten password, reset by its owner: whoever asks is answered alike, and only a mail tells more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, and_, or_, select, update

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity.errors import MailKeyEndedError
from perdure.identity.letters import write_no_password, write_reset
from perdure.identity.mail_keys import KeyKind, count_keys, end_keys, find_key, make_key, use_key
from perdure.identity.model import WAYS, CredentialKind, fold_name
from perdure.identity.names import fold_address
from perdure.identity.notices import Notices
from perdure.identity.passwords import Passwords
from perdure.identity.post import Post
from perdure.identity.sessions import end_sessions
from perdure.identity.tables import credentials, identities
from perdure.identity.tokens import revoke_tokens_of
from perdure.jobs import JobContext, Jobs
from perdure.kernel.actor import ANONYMOUS, Actor, ActorKind
from perdure.kernel.clock import Clock
from perdure.kernel.errors import TryAgainError

LOOK_JOB = "identity.look_for_owner"
_ASKED = "reset_asked"
_GOOD_FOR = timedelta(hours=1)
_MOST_KEYS = 3  # at a time for one identity
_MOST_FOUND = 5  # identities of one address
_MOST_WAITING = 2000  # whoever floods us with questions shall not fill the database
_LONGEST_NAME = 500
_IS_PASSWORD = credentials.c.kind == CredentialKind.PASSWORD.value


class Recovery:
    """Asking leaves a sealed note and nothing else: a worker looks who is meant, so that no answer or time tells it."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        events: EventLog,
        passwords: Passwords,
        post: Post,
        notices: Notices,
        jobs: Jobs | None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._events = events
        self._passwords = passwords
        self._post = post
        self._notices = notices
        if jobs is not None:
            jobs.register(LOOK_JOB, self._look)

    def ask_for_reset(self, name: str) -> None:
        """Have a mail sent to the confirmed address of who has this login name or address, if anybody has.

        Raises MailNotConfiguredError, and TryAgainError when very many ask at once.
        """
        self._post.require_open()
        with self._db.begin() as tx:
            if self._post.count_waiting_in(tx, _ASKED) >= _MOST_WAITING:
                raise TryAgainError("Too many ask for a new password at this moment.")
            self._post.keep_in(tx, _ASKED, {"name": name[:_LONGEST_NAME]}, LOOK_JOB)

    def require_key(self, key: str) -> None:
        """Return while the key of a mail is good; raises MailKeyEndedError."""
        with self._db.begin() as tx:
            find_key(tx, KeyKind.RESET, key, self._clock.now())

    def reset_password(self, key: str, password: str, *, revoke_tokens: bool = False) -> None:
        """Set a new password by the key of a mail, once, and end all sessions; a second factor stays.

        Raises MailKeyEndedError, and WeakPasswordError, after which the key is still good.
        """
        with self._db.begin() as tx:
            owner, _ = find_key(tx, KeyKind.RESET, key, self._clock.now())
            login = _login_of(tx, owner)
        secret = self._passwords.hash_new(password, login)
        with self._db.begin() as tx:
            now = self._clock.now()
            tx.execute(select(identities.c.id).where(identities.c.id == owner).with_for_update())
            use_key(tx, KeyKind.RESET, key, now)
            _login_of(tx, owner)
            mine = credentials.c.identity_id == owner
            tx.execute(update(credentials).where(_IS_PASSWORD, mine).values(secret=secret))
            end_keys(tx, owner)
            end_sessions(tx, owner)
            who = Actor(ActorKind.PERSON, owner)
            self._events.record(tx, facts.PASSWORD_RESET, None, who, {"identity": str(owner)})
            for token_id in revoke_tokens_of(tx, owner, now) if revoke_tokens else []:
                self._events.record(tx, facts.TOKEN_REVOKED, None, who, {"token": str(token_id)})
            said = f"The password of {login} was reset by a link that was sent to this address. All sessions are ended."
            self._notices.tell_in(tx, owner, "Your password was reset", said)

    def _look(self, job: JobContext, payload: dict[str, Any]) -> None:  # Any: see jobs.Handler
        mail_id = UUID(payload["mail"])
        kept = self._post.open_kept(mail_id)
        if kept is None:
            return
        with self._db.begin() as tx:
            for row in _find_owners(tx, kept["name"]):
                self._send_key(tx, row)
            self._post.drop_in(tx, mail_id)

    def _send_key(self, tx: Connection, owner: Row[Any]) -> None:  # Any: see `_find_owners`
        now = self._clock.now()
        if count_keys(tx, owner.id, KeyKind.RESET, now) >= _MOST_KEYS:
            return
        ends_at = now + _GOOD_FOR
        key = make_key(tx, KeyKind.RESET, owner.id, owner.email, now, ends_at)
        if owner.login is None:  # the key is told to nobody: it counts how many mails he was sent
            mine = (credentials.c.identity_id == owner.id, credentials.c.kind.in_(sorted(WAYS)))
            ways = tx.execute(select(credentials.c.kind).distinct().where(*mine).order_by(credentials.c.kind)).scalars()
            self._post.send_in(tx, write_no_password(self._post.url, owner.email, list(ways)), about=owner.id)
            return
        letter = write_reset(self._post.url, owner.email, owner.login, key, ends_at)
        self._post.send_in(tx, letter, lasts=_GOOD_FOR)
        told = {"identity": str(owner.id)}
        self._events.record(tx, facts.PASSWORD_RESET_ASKED, None, ANONYMOUS, told)


def _find_owners(tx: Connection, name: str) -> list[Row[Any]]:  # Any: three columns
    """The active identities of a login name or a confirmed address, that have a confirmed address."""
    passwords = and_(credentials.c.identity_id == identities.c.id, _IS_PASSWORD)
    meant = or_(identities.c.email_folded == fold_address(name.strip()), credentials.c.subject == fold_name(name))
    query = (
        select(identities.c.id, identities.c.email, credentials.c.subject.label("login"))
        .outerjoin(credentials, passwords)
        .where(identities.c.email_confirmed_at.is_not(None), identities.c.state == "active", meant)
        .order_by(identities.c.id)
        .limit(_MOST_FOUND)
    )
    return list(tx.execute(query))


def _login_of(tx: Connection, identity_id: UUID) -> str:
    active = (identities.c.id == identity_id, identities.c.state == "active")
    query = (
        select(credentials.c.subject)
        .join_from(credentials, identities, identities.c.id == credentials.c.identity_id)
        .where(_IS_PASSWORD, *active)
    )
    login: str | None = tx.execute(query).scalar()
    if login is None:
        raise MailKeyEndedError("This identity has no password to reset.")
    return login
