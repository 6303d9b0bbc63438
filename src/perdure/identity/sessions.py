"""Logging in and out, and who bears a secret."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    and_,
    any_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from perdure.db import Database, Question
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity import throttle
from perdure.identity.callers import require_self_management, require_self_reader, require_session
from perdure.identity.errors import (
    AddressNotAllowedError,
    BadCodeError,
    BadCredentialsError,
    SecondFactorNeededError,
    ServiceOrphanedError,
    TermsNotAcceptedError,
    TokenExpiredError,
)
from perdure.identity.model import (
    ENTITLEMENT,
    NAMEABLE,
    SECOND_FACTOR,
    Client,
    CredentialKind,
    Origin,
    Session,
    fold_name,
    is_address_within,
    narrow_scope,
)
from perdure.identity.origins import origin_columns
from perdure.identity.passwords import Passwords
from perdure.identity.rights import hold_in, require_living_in
from perdure.identity.second_factor import SecondFactor
from perdure.identity.secrets import SESSION_PREFIX, TOKEN_PREFIX, digest_secret, new_secret
from perdure.identity.tables import credentials, grants, identities, service_accounts, sessions, tokens
from perdure.identity.terms import TermsOfUse
from perdure.kernel.actor import ANONYMOUS, Actor, ActorKind, TokenScope
from perdure.kernel.clock import Clock
from perdure.kernel.errors import BadInputError, NotFoundError, PerdureError
from perdure.kernel.ids import new_id

_USE_NOTED_EVERY = timedelta(minutes=1)
_ADDRESS_REMEMBERED = timedelta(days=90)  # after the session's end
_LONGEST_CLIENT_TEXT = 200
_NO_CLIENT = Client()
_OWN_SESSION = "own session"  # stands where the throttle has an address


class Sessions:
    """Sessions are opened by a login; `authenticate` also takes API tokens."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        events: EventLog,
        passwords: Passwords,
        second_factor: SecondFactor,
        terms: TermsOfUse,
        lifetime: timedelta,
    ) -> None:
        self._db = db
        self._clock = clock
        self._events = events
        self._passwords = passwords
        self._second_factor = second_factor
        self._terms = terms
        self._lifetime = lifetime

    def log_in(
        self,
        login: str,
        password: str,
        client: Client = _NO_CLIENT,
        *,
        code: str | None = None,
        accept_terms: int | None = None,
    ) -> tuple[str, Actor]:
        """Open a session and return its secret, which is shown this once, and who that is.

        Raises BadCredentialsError without saying what was wrong, LoginThrottledError after many failures, and, to who
        has the right password, SecondFactorNeededError, BadCodeError and TermsNotAcceptedError.
        """
        client = Client(client.address[:_LONGEST_CLIENT_TEXT], client.agent[:_LONGEST_CLIENT_TEXT])
        with self._passwords.turn():
            with self._db.begin() as tx:
                known, is_known_address = self._begin_attempt(tx, login, client)
            is_right = self._passwords.is_right(known.secret if known else None, password)
            fresh_hash = self._passwords.find_rehash(known.secret, password) if known and is_right else None
        refusal: PerdureError = BadCredentialsError("The login name or the password is wrong.")
        with self._db.begin() as tx:
            if (
                known
                and is_right
                and known.state == "active"
                and _use_password(tx, known, fresh_hash, self._clock.now())
            ):
                proofs = self._prove(tx, known.identity_id, code, accept_terms)
                if not isinstance(proofs, PerdureError):
                    throttle.forgive_attempt(tx, login, client.address, is_known_address=is_known_address)
                    return self._open(tx, known.identity_id, client, proofs, proven_at=self._clock.now())
                if not isinstance(proofs, BadCodeError):
                    throttle.take_back_attempt(tx, login, client.address, is_known_address=is_known_address)
                refusal = proofs
            if isinstance(refusal, (BadCredentialsError, BadCodeError)):
                self.tell_refusal_in(tx, known.identity_id if known else None)
        raise refusal

    def _prove(
        self, tx: Connection, identity_id: UUID, code: str | None, accept_terms: int | None
    ) -> set[str] | PerdureError:
        """What a right password and this code prove; or the error to raise, once the transaction has its end."""
        has_factor = self._second_factor.has_second_factor_in(tx, identity_id)
        if has_factor and code is None:
            return SecondFactorNeededError("This identity has a second factor.")
        try:
            self._terms.require_accepted_in(tx, identity_id, accept_terms)
        except TermsNotAcceptedError as error:  # before the code is used up, which is good once
            return error
        if has_factor and not self._second_factor.use_code_in(tx, identity_id, code or ""):
            return BadCodeError("This is not the code of your device, or it was used already.")
        return {CredentialKind.PASSWORD.value, *([SECOND_FACTOR] if has_factor else [])}

    def open_in(
        self,
        tx: Connection,
        identity_id: UUID,
        client: Client,
        proofs: Collection[str],
        entitlements: Collection[str] = (),
        *,
        accept_terms: int | None = None,
        code: str | None = None,
        asks_code: bool = False,
        proven_at: datetime | None = None,
        origin: Origin | None = None,
    ) -> tuple[str, Actor]:
        """Open a session for who was shown to be an active identity; raises TermsNotAcceptedError.

        `proven_at` is when the person himself did something to show it, where that is known. With `asks_code` who has a
        second factor has to show it: SecondFactorNeededError, BadCodeError.
        """
        has_factor = asks_code and self._second_factor.has_second_factor_in(tx, identity_id)
        if has_factor and code is None:
            raise SecondFactorNeededError("This identity has a second factor.")
        self._terms.require_accepted_in(tx, identity_id, accept_terms)
        if has_factor and not self._second_factor.use_code_in(tx, identity_id, code or ""):
            raise BadCodeError("This is not the code of your device, or it was used already.")
        proofs = {*proofs, SECOND_FACTOR} if has_factor else proofs
        return self._open(tx, identity_id, client, proofs, entitlements, proven_at=proven_at, origin=origin)

    def prove(self, actor: Actor, secret: str, *, password: str | None = None, code: str | None = None) -> datetime:
        """Let the owner of the session that `secret` opens show by a password or a code that it is him; the moment.

        Raises BadCredentialsError, BadCodeError and LoginThrottledError: a stolen session must not serve to guess.
        """
        identity_id = require_session(actor)
        if (password is None) == (code is None):
            raise BadInputError("Send the password or a code of your device.", field="password")
        if password is not None:
            self._require_password(identity_id, password)
        with self._db.begin() as tx:
            if code is not None:
                throttle.count_attempt(
                    tx, f"code of {identity_id}", _OWN_SESSION, is_known_address=True, now=self._clock.now()
                )
        with self._db.begin() as tx:
            if code is not None and not self._second_factor.use_code_in(tx, identity_id, code):
                raise BadCodeError("This is not the code of your device, or it was used already.")
            by = CredentialKind.PASSWORD.value if code is None else SECOND_FACTOR
            return self.note_proof_in(tx, actor, secret, by=by, at=self._clock.now())

    def note_proof_in(self, tx: Connection, actor: Actor, secret: str, *, by: str, at: datetime) -> datetime:
        """Note that the caller showed at this moment who he is, in the session that this secret opens."""
        mine = (sessions.c.digest == digest_secret(secret)) & (sessions.c.identity_id == actor.identity_id)
        found = tx.execute(update(sessions).where(mine).values(proven_at=at).returning(sessions.c.id)).scalar()
        if found is None:
            raise NotFoundError("You have no such session.")
        self._events.record(tx, facts.SESSION_PROVEN, None, actor, {"session": str(found), "by": by})
        return at

    def _require_password(self, identity_id: UUID, password: str) -> None:
        with self._passwords.turn():
            with self._db.begin() as tx:
                known = tx.execute(_OWN_PASSWORD, {"identity": identity_id}).first()
                login = known.subject if known else f"password of {identity_id}"
                throttle.count_attempt(tx, login, _OWN_SESSION, is_known_address=True, now=self._clock.now())
            if not self._passwords.is_right(known.secret if known else None, password):
                raise BadCredentialsError("The password is wrong, or you have none here.")
        with self._db.begin() as tx:
            throttle.forgive_attempt(tx, login, _OWN_SESSION, is_known_address=True)

    def is_known_address_in(self, tx: Connection, identity_id: UUID, address: str) -> bool:
        """Whether the identity has had a session from there."""
        known: bool = tx.execute(_ADDRESS_SEEN, {"identity": identity_id, "address": address}).scalar_one()
        return known

    def log_out(self, secret: str) -> str | None:
        """End the session, or revoke the token, that this secret opens; safe to call twice.

        Answers the provider where it began, at which there may be a session still.
        """
        try:
            actor = _actor(self._find_bearer(secret)[1])
        except (BadCredentialsError, TokenExpiredError):
            return None
        digest = digest_secret(secret)
        with self._db.begin() as tx:
            closing = delete(sessions).where(sessions.c.digest == digest)
            ended = tx.execute(closing.returning(sessions.c.id, sessions.c.provider)).first()
            if ended:
                self._events.record(tx, facts.SESSION_CLOSED, None, actor, {"session": str(ended.id)})
            revoked = tx.execute(
                update(tokens)
                .where(tokens.c.digest == digest, tokens.c.revoked_at.is_(None))
                .values(revoked_at=self._clock.now())
                .returning(tokens.c.id, tokens.c.provider)
            ).first()
            if revoked:
                self._events.record(tx, facts.TOKEN_REVOKED, None, actor, {"token": str(revoked.id)})
        gone = ended or revoked
        return None if gone is None else gone.provider

    def authenticate(self, secret: str, *, address: str = "") -> Actor:
        """Who bears this session secret or API token, and its scope: one query.

        Raises BadCredentialsError for a secret that is not known, TokenExpiredError for one that has ended; for a
        token of a service account ServiceOrphanedError, and AddressNotAllowedError when it comes from elsewhere.
        """
        table, row = self._find_bearer(secret)
        if row.responsible_id is not None:
            self.require_service(row, address)
        now = self._clock.now()
        if row.last_used_at is None or row.last_used_at + _USE_NOTED_EVERY < now:
            with self._db.begin() as tx:
                _note_use(tx, table, row.credential_id, now, address[:_LONGEST_CLIENT_TEXT])
        return _actor(row)

    def authenticate_identity(self, identity_id: UUID, *, address: str = "") -> Actor:
        """Who an identity is that was shown by other means than a secret of ours; raises what `authenticate` raises."""
        with self._db.begin() as tx:
            row = tx.execute(_BY_ITSELF, {"identity": identity_id}).first()
        if row is None or row.state != "active":
            raise BadCredentialsError("This identity is not known, or it is disabled.")
        if row.responsible_id is not None:
            self.require_service(row, address)
        return _actor(row)

    def _find_bearer(self, secret: str) -> tuple[Table, Any]:  # Any: a row, as `_bearer_query` selects it
        table = _TABLES.get(secret[: len(SESSION_PREFIX)])
        if table is None:
            raise BadCredentialsError("This is neither a session nor a token.")
        row = self._db.ask(_BEARER_QUESTIONS[table.name], {"digest": digest_secret(secret)})
        if row is None or row.state != "active":
            raise BadCredentialsError("This session or token is not known.")
        if row.expires_at <= self._clock.now() or row.revoked_at is not None:
            raise TokenExpiredError("This session or token has ended.")
        return table, row

    def require_service(self, row: Any, address: str) -> None:  # Any: a row with the columns of a service account
        """Return for a machine that somebody answers for, and that calls from where it may."""
        if row.responsible_state != "active":
            raise ServiceOrphanedError("The person who was responsible for this service account is disabled.")
        if not row.addresses or is_address_within(address, row.addresses):
            return
        with self._db.begin() as tx:
            times = throttle.count_refusal(tx, row.id, self._clock.now())
            if times:
                told = {"service": str(row.id), "times": times}
                self._events.record(tx, facts.TOKEN_REFUSED, None, ANONYMOUS, told)
        raise AddressNotAllowedError("The service account has a list of addresses, and this one is not in it.")

    def find_actor_in(self, tx: Connection, identity_id: UUID, *, asked_as: Actor | None = None) -> Actor | None:
        """Who an active identity is at this moment: for work that goes on in its name.

        It has the login by which it asked for the work, if that is given, else none. One that was merged since is who
        it was merged into.
        """
        row = tx.execute(_BY_ITSELF, {"identity": identity_id}).first()
        if row is not None and row.merged_into is not None:
            row = tx.execute(_BY_ITSELF, {"identity": row.merged_into}).first()
        if row is None or row.state != "active" or row.responsible_state not in (None, "active"):
            return None
        found = _actor(row)
        if asked_as is None:
            return found
        brought = frozenset(name for name in asked_as.known_as if name.startswith(f"{ENTITLEMENT} "))
        return replace(found, proofs=asked_as.proofs, known_as=found.known_as | brought)

    def best_login_in(self, tx: Connection) -> Actor:
        """One that proves all that any grant demands, for `find_actor_in`."""
        demanded = select(func.unnest(grants.c.requires)).distinct()
        return replace(ANONYMOUS, proofs=frozenset(tx.execute(demanded).scalars()))

    def list_sessions(self, actor: Actor) -> list[Session]:
        """The caller's open sessions, newest first; not told to a token that is limited to archives."""
        identity_id = require_self_reader(actor)
        query = (
            select(sessions)
            .where(sessions.c.identity_id == identity_id, sessions.c.expires_at > self._clock.now())
            .order_by(sessions.c.id.desc())
        )
        with self._db.begin() as tx:
            return [_session(row) for row in tx.execute(query)]

    def revoke_session(self, actor: Actor, session_id: UUID, *, present: str | None = None) -> str | None:
        """End one of the caller's sessions; raises NotFoundError when he has no such session.

        Answers the provider where it began if it is the one that the secret `present` opens: a browser can end no other
        session there than its own.
        """
        identity_id = require_self_management(actor)
        mine = (sessions.c.id == session_id) & (sessions.c.identity_id == identity_id)
        closing = delete(sessions).where(mine).returning(sessions.c.digest, sessions.c.provider)
        with self._db.begin() as tx:
            gone = tx.execute(closing).first()
            if gone is None:
                raise NotFoundError("You have no such session.")
            self._events.record(tx, facts.SESSION_CLOSED, None, actor, {"session": str(session_id)})
        return gone.provider if present is not None and gone.digest == digest_secret(present) else None

    def forget_ended(self) -> int:
        """Remove what is kept of sessions long ended and of old failures; for a daily job."""
        now = self._clock.now()
        with self._db.begin() as tx:
            gone = tx.execute(delete(sessions).where(sessions.c.expires_at < now - _ADDRESS_REMEMBERED)).rowcount
            ended = func.least(tokens.c.expires_at, tokens.c.revoked_at) < now - _ADDRESS_REMEMBERED
            tx.execute(update(tokens).where(ended, tokens.c.last_used_from != "").values(last_used_from=""))
            return gone + throttle.forget_attempts(tx, now)

    def tell_refusal_in(self, tx: Connection, identity_id: UUID | None) -> None:
        """Tell of a login that was refused, if it is time to; with the same work for a name that nobody has."""
        times = throttle.count_refusal(tx, identity_id, self._clock.now())
        # Taken back rather than left out: the time of the answer must not tell whether the name exists.
        with tx.begin_nested() as telling:
            told = {"identity": identity_id and str(identity_id), "times": times}
            self._events.record(tx, facts.SESSION_REFUSED, None, ANONYMOUS, told)
            if not times:
                telling.rollback()

    def _begin_attempt(
        self, tx: Connection, login: str, client: Client
    ) -> tuple[Row[*tuple[object, ...]] | None, bool]:
        known = tx.execute(_CREDENTIAL, {"subject": fold_name(login)}).first()
        is_known_address = tx.execute(
            _ADDRESS_SEEN, {"identity": known.identity_id if known else None, "address": client.address}
        ).scalar_one()
        throttle.count_attempt(tx, login, client.address, is_known_address=is_known_address, now=self._clock.now())
        return known, is_known_address

    def _open(
        self,
        tx: Connection,
        identity_id: UUID,
        client: Client,
        proofs: Collection[str],
        entitlements: Collection[str] = (),
        *,
        proven_at: datetime | None,
        origin: Origin | None = None,
    ) -> tuple[str, Actor]:
        client = Client(client.address[:_LONGEST_CLIENT_TEXT], client.agent[:_LONGEST_CLIENT_TEXT])
        now, secret, session_id = self._clock.now(), new_secret(SESSION_PREFIX), new_id()
        require_living_in(tx, identity_id)
        tx.execute(
            insert(sessions).values(
                id=session_id,
                digest=digest_secret(secret),
                identity_id=identity_id,
                client_address=client.address,
                client_agent=client.agent,
                proofs=sorted(proofs),
                entitlements=sorted(entitlements),
                created_at=now,
                expires_at=now + self._lifetime,
                last_used_at=now,
                proven_at=proven_at and min(proven_at, now),
                **origin_columns(origin),
            )
        )
        actor = _actor(tx.execute(_BEARERS[sessions.name], {"digest": digest_secret(secret)}).one())
        told = {"session": str(session_id), "proofs": sorted(proofs)}
        self._events.record(tx, facts.SESSION_OPENED, None, actor, told)
        return secret, actor


def end_sessions(tx: Connection, identity_id: UUID, *, kept: str | None = None) -> None:
    """End every session of an identity, as after a new password, but for the one that the secret `kept` opens."""
    ending = delete(sessions).where(sessions.c.identity_id == identity_id)
    tx.execute(ending if kept is None else ending.where(sessions.c.digest != digest_secret(kept)))


def _use_password(tx: Connection, known: Row[*tuple[object, ...]], fresh_hash: str | None, now: datetime) -> bool:
    """Note the use; False when the password was changed since it was compared, or nobody is there any more.

    The identity is held first, as by who erases or merges it: whoever begins with the login would wait in a circle.
    """
    hold_in(tx, known.identity_id)
    change = (
        update(credentials)
        .where(credentials.c.id == known.id, credentials.c.secret == known.secret)
        .values(last_used_at=now, secret=fresh_hash or known.secret)
    )
    return tx.execute(change).rowcount == 1


def _identity_columns() -> tuple[ColumnElement[Any], ...]:  # Any: each column has its own type
    names_of = select(credentials.c.kind + literal(" ") + credentials.c.subject).where(
        credentials.c.identity_id == identities.c.id, credentials.c.kind == any_(literal(sorted(NAMEABLE), ARRAY(Text)))
    )
    return (
        identities.c.id,
        identities.c.kind,
        identities.c.display_name,
        identities.c.organisation_id,
        identities.c.is_administrator,
        identities.c.state,
        identities.c.merged_into,
        func.array(names_of.scalar_subquery()).label("names"),
    )


_RESPONSIBLE = identities.alias("responsible")
_SERVICE_COLUMNS = {
    "responsible_id": service_accounts.c.responsible_id,
    "service_verbs": service_accounts.c.verbs,
    "service_archives": service_accounts.c.archives,
    "addresses": service_accounts.c.addresses,
    "responsible_state": _RESPONSIBLE.c.state,
}


def _service_columns() -> list[ColumnElement[Any]]:  # Any: each column has its own type
    return [column.label(name) for name, column in _SERVICE_COLUMNS.items()]


def _with_service(query: Select[*tuple[Any, ...]]) -> Select[Any]:  # Any: as given
    """The same with what is kept of an identity that is a service account, and of who is responsible for it."""
    return query.outerjoin(service_accounts, service_accounts.c.identity_id == identities.c.id).outerjoin(
        _RESPONSIBLE, _RESPONSIBLE.c.id == service_accounts.c.responsible_id
    )


def _bearer_query(table: Table) -> Select[Any]:  # Any: as `_actor` reads it
    is_token = table is tokens
    query = (
        select(
            table.c.id.label("credential_id"),
            table.c.expires_at,
            table.c.last_used_at,
            (table.c.revoked_at if is_token else null()).label("revoked_at"),
            (table.c.verbs if is_token else null()).label("verbs"),
            (table.c.archives if is_token else null()).label("archives"),
            (null() if is_token else table.c.entitlements).label("entitlements"),
            (null() if is_token else table.c.proven_at).label("proven_at"),
            table.c.proofs,
            *_identity_columns(),
            *(_service_columns() if is_token else [null().label(name) for name in _SERVICE_COLUMNS]),
        )
        .join_from(table, identities, identities.c.id == table.c.identity_id)
        .where(table.c.digest == bindparam("digest"))
    )
    return _with_service(query) if is_token else query


def _note_use(tx: Connection, table: Table, credential_id: UUID, now: datetime, address: str) -> None:
    # The condition is asked again in the update: of many requests that come at once, one writes.
    stale: ColumnElement[bool] = or_(table.c.last_used_at.is_(None), table.c.last_used_at < now - _USE_NOTED_EVERY)
    used = {"last_used_at": now, **({"last_used_from": address} if table is tokens else {})}
    tx.execute(update(table).where(and_(table.c.id == credential_id, stale)).values(**used))


def _actor(row: Any) -> Actor:  # Any: a row with the columns of an identity and a service account
    scope = TokenScope(
        verbs=None if row.verbs is None else frozenset(row.verbs),
        archives=None if row.archives is None else frozenset(row.archives),
        ends_at=None if row.verbs is None else row.expires_at,
    )
    if row.responsible_id is not None:
        archives = None if row.service_archives is None else frozenset(row.service_archives)
        scope = narrow_scope(scope, TokenScope(frozenset(row.service_verbs), archives))
    return Actor(
        kind=ActorKind(row.kind),
        identity_id=row.id,
        name=row.display_name,
        organisation_id=row.organisation_id,
        is_administrator=row.is_administrator,
        scope=scope,
        known_as=frozenset(row.names).union(row.entitlements or ()),
        proofs=frozenset(row.proofs or ()),
        proven_at=row.proven_at,
        responsible_id=row.responsible_id,
    )


def _session(row: Row[*tuple[object, ...]]) -> Session:
    return Session(
        row.id,
        Client(row.client_address, row.client_agent),
        row.created_at,
        row.expires_at,
        row.last_used_at,
        frozenset(row.proofs),
        row.proven_at,
        row.provider,
    )


_TABLES = {SESSION_PREFIX: sessions, TOKEN_PREFIX: tokens}
_BEARERS = {table.name: _bearer_query(table) for table in (sessions, tokens)}
_BEARER_QUESTIONS = {name: Question(query) for name, query in _BEARERS.items()}

_BY_ITSELF = _with_service(
    select(
        *(null().label(name) for name in ("expires_at", "verbs", "archives", "entitlements", "proofs", "proven_at")),
        *_identity_columns(),
        *_service_columns(),
    ).where(identities.c.id == bindparam("identity"))
)

_CREDENTIAL = (
    select(credentials.c.id, credentials.c.identity_id, credentials.c.secret, identities.c.state)
    .join_from(credentials, identities, identities.c.id == credentials.c.identity_id)
    .where(
        credentials.c.kind == CredentialKind.PASSWORD.value,
        credentials.c.subject == bindparam("subject"),
        identities.c.kind == ActorKind.PERSON.value,  # a machine never logs in as people do
    )
)

_OWN_PASSWORD = select(credentials.c.subject, credentials.c.secret).where(
    credentials.c.kind == CredentialKind.PASSWORD.value, credentials.c.identity_id == bindparam("identity")
)

_ADDRESS_SEEN = select(
    exists().where(
        sessions.c.identity_id == bindparam("identity"),
        sessions.c.client_address == bindparam("address"),
        sessions.c.client_address != "",
    )
)
