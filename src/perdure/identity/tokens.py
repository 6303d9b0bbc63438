"""API tokens: opaque, scoped, expiring, revocable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, Row, insert, select, update

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity.callers import (
    check_name,
    require_fresh,
    require_identity,
    require_self_management,
    require_self_reader,
)
from perdure.identity.model import Token, Verb, is_scope_within
from perdure.identity.origins import find_origin_columns
from perdure.identity.rights import require_living_in
from perdure.identity.secrets import TOKEN_PREFIX, digest_secret, new_secret, shown_part
from perdure.identity.tables import tokens
from perdure.kernel.actor import Actor, ActorKind, TokenScope
from perdure.kernel.clock import Clock, format_time
from perdure.kernel.errors import BadInputError, NotAllowedError, NotFoundError
from perdure.kernel.ids import new_id

# A token that lives longer than this is as good as one without end: an open session that was left alone makes none.
_LONG_LIVED = timedelta(days=91)


class Tokens:
    """Each belongs to one identity and never does more than its owner could."""

    def __init__(
        self, db: Database, clock: Clock, events: EventLog, default_life: timedelta, longest_life: timedelta
    ) -> None:
        self._db = db
        self._clock = clock
        self._events = events
        self._default_life = default_life
        self._longest_life = longest_life

    def create_token(
        self,
        actor: Actor,
        name: str,
        *,
        verbs: Iterable[str],
        archives: Iterable[UUID] | None = None,
        expires_at: datetime | None = None,
        in_place_of: str | None = None,
    ) -> tuple[str, Token]:
        """Make a token for the caller and return its secret, which is shown this once, and its description.

        `archives` None means all that the caller may reach. A token cannot make one that is wider than itself or
        outlives it. In a session a token for more than three months needs a fresh proof (FreshLoginRequiredError).
        One that is made `in_place_of` the session that this secret opens ends where that would, when the provider where
        it began says so.
        """
        require_self_management(actor)
        if actor.kind is ActorKind.SERVICE:
            raise NotAllowedError("The tokens of a service account are made by who is responsible for it.")
        scope = check_scope(verbs, archives)
        if not is_scope_within(scope, actor.scope):
            raise NotAllowedError("A token cannot make a token that may do more than itself.")
        until = self._check_expiry(expires_at, self._clock.now(), actor.scope.ends_at)
        with self._db.begin() as tx:
            began = {} if in_place_of is None else find_origin_columns(tx, in_place_of)
            return self.make_in(tx, actor, name, scope, until, began=began)

    def make_in(
        self,
        tx: Connection,
        actor: Actor,
        name: str,
        scope: TokenScope,
        expires_at: datetime,
        *,
        service_id: UUID | None = None,
        replaces: Token | None = None,
        began: Mapping[str, object] | None = None,
    ) -> tuple[str, Token]:
        """Make a token for the caller or a service account, without asking who may; one that replaces is not told."""
        secret = new_secret(TOKEN_PREFIX)
        token = Token(
            id=new_id(),
            name=check_name(name, "token name"),
            prefix=shown_part(secret),
            scope=scope,
            created_at=self._clock.now(),
            expires_at=expires_at,
            revoked_at=None,
            last_used_at=None,
            replaces=None if replaces is None else replaces.id,
        )
        if actor.scope.verbs is None and expires_at > token.created_at + _LONG_LIVED:
            require_fresh(actor, token.created_at)
        row = _row(token, owner_id := service_id or require_identity(actor), digest_secret(secret))
        require_living_in(tx, owner_id)
        # How a person logged in proves nothing of a machine
        proofs = sorted(actor.proofs) if service_id is None else []
        tx.execute(insert(tokens).values({**row, **(began or {}), "proofs": proofs}))
        if replaces is None:
            told = _told(token) | ({} if service_id is None else {"service": str(service_id)})
            self._events.record(tx, facts.TOKEN_CREATED, None, actor, told)
        return secret, token

    def list_tokens(self, actor: Actor) -> list[Token]:
        """The caller's tokens, newest first, ended ones too; not told to a token that is limited to archives."""
        identity_id = require_self_reader(actor)
        query = select(tokens).where(tokens.c.identity_id == identity_id).order_by(tokens.c.id.desc())
        with self._db.begin() as tx:
            return [to_token(row) for row in tx.execute(query)]

    def revoke_token(self, actor: Actor, token_id: UUID) -> None:
        """End one of the caller's tokens for ever; safe to call twice. Raises NotFoundError when he has no such."""
        identity_id = require_self_management(actor)
        mine = (tokens.c.id == token_id) & (tokens.c.identity_id == identity_id)
        with self._db.begin() as tx:
            row = tx.execute(select(tokens.c.revoked_at).where(mine).with_for_update()).first()
            if row is None:
                raise NotFoundError("You have no such token.")
            if row.revoked_at is None:
                self.revoke_in(tx, actor, token_id)

    def revoke_in(self, tx: Connection, actor: Actor, token_id: UUID) -> None:
        """End a token, without asking whose it is."""
        tx.execute(update(tokens).where(tokens.c.id == token_id).values(revoked_at=self._clock.now()))
        self._events.record(tx, facts.TOKEN_REVOKED, None, actor, {"token": str(token_id)})

    def _check_expiry(self, expires_at: datetime | None, now: datetime, latest: datetime | None) -> datetime:
        """The end that was asked for, or the usual one; not after `latest`, the end of the token that makes it."""
        usual = now + self._default_life
        expiry = expires_at or (usual if latest is None else min(usual, latest))
        if expiry.tzinfo is None or expiry <= now:
            raise BadInputError("The token's end needs a time zone and lies in the future.", field="expires_at")
        if expiry > now + self._longest_life:
            raise BadInputError(f"A token lives at most {self._longest_life.days} days.", field="expires_at")
        if latest is not None and expiry > latest:
            raise NotAllowedError(
                "A token cannot make one that outlives it; use a session for that.", ends_at=format_time(latest)
            )
        return expiry


def revoke_tokens_of(tx: Connection, identity_id: UUID, now: datetime) -> list[UUID]:
    """Revoke all tokens of an identity that have not ended; returns their ids."""
    living = (tokens.c.identity_id == identity_id) & tokens.c.revoked_at.is_(None) & (tokens.c.expires_at > now)
    return list(tx.execute(update(tokens).where(living).values(revoked_at=now).returning(tokens.c.id)).scalars())


def check_scope(verbs: Iterable[str], archives: Iterable[UUID] | None) -> TokenScope:
    """The scope of these words; raises BadInputError."""
    known = {verb.value for verb in Verb}
    scope = TokenScope(frozenset(str(verb) for verb in verbs), None if archives is None else frozenset(archives))
    if not scope.verbs or not scope.verbs <= known:
        raise BadInputError(f"A token needs at least one of the verbs {', '.join(sorted(known))}.", field="verbs")
    if scope.archives is not None and not scope.archives:
        raise BadInputError("Name at least one archive, or leave the list out.", field="archives")
    return scope


def _row(token: Token, identity_id: UUID, digest: bytes) -> dict[str, object]:
    return {
        "id": token.id,
        "digest": digest,
        "identity_id": identity_id,
        "name": token.name,
        "prefix": token.prefix,
        "verbs": sorted(token.scope.verbs or ()),
        "archives": None if token.scope.archives is None else sorted(token.scope.archives),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "replaces": token.replaces,
    }


def to_token(row: Row[*tuple[object, ...]]) -> Token:
    """The token of a row of the table."""
    return Token(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        scope=TokenScope(frozenset(row.verbs), None if row.archives is None else frozenset(row.archives)),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        last_used_from=row.last_used_from,
        replaces=row.replaces,
    )


def _told(token: Token) -> dict[str, object]:
    archives = token.scope.archives
    return {
        "token": str(token.id),
        "verbs": sorted(token.scope.verbs or ()),
        "archives": None if archives is None else sorted(str(archive) for archive in archives),
        "expires_at": format_time(token.expires_at),
    }
