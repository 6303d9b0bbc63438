"""Tokens of the grid: who comes with one, and what is left of his rights inside its scopes."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, or_, select, update

from perdure.db import Database
from perdure.identity.claims import find_groups_of
from perdure.identity.errors import GridSubjectUnknownError, GridTokenRefusedError
from perdure.identity.grid_scopes import read_scopes
from perdure.identity.model import ENTITLEMENT, CredentialKind, Verb, narrow_scope
from perdure.identity.names import MAX_SUBJECT_CHARACTERS, issuer_proof, name_of
from perdure.identity.ports import GridToken, TokenIssuer
from perdure.identity.sessions import Sessions
from perdure.identity.tables import credentials, identities
from perdure.kernel.actor import Actor, ActorKind, PathScope, TokenScope
from perdure.kernel.clock import Clock

LONGEST_GRID_TOKEN = 16 * 1024  # characters
_USE_NOTED_EVERY = timedelta(minutes=1)
_VERBS = frozenset({Verb.READ.value, Verb.WRITE.value})
_MOST_GROUPS = 1000


class GridTokens:
    """Issuers whose tokens are taken where bytes are moved. A token gives no right: it narrows those of its bearer."""

    def __init__(self, db: Database, clock: Clock, sessions: Sessions, issuers: Sequence[TokenIssuer]) -> None:
        self._db = db
        self._clock = clock
        self._sessions = sessions
        self._issuers = {issuer.issuer: issuer for issuer in issuers}

    def is_grid_token(self, secret: str) -> bool:
        """Whether this has the form of a JWT, where any issuer of them is configured."""
        return bool(self._issuers) and secret.startswith("ey") and secret.count(".") == 2

    def authenticate_grid(self, token: str, *, address: str = "") -> Actor:
        """Who comes with the token: whom its subject is linked to, else the service account of its issuer.

        He may read and fill inside the token's scopes what he may without them, and nothing else. Raises
        GridTokenRefusedError, GridSubjectUnknownError, ProviderUnavailableError, and what `authenticate` raises.
        """
        issuer = self._find_issuer(token)
        shown = issuer.read_token(token)
        paths = read_scopes(issuer.profile, shown.scope, issuer.places)
        if not paths:
            raise GridTokenRefusedError("The token has no scope of storage that leads to an archive here.")
        with self._db.begin() as tx:
            identity_id = self._find_identity(tx, issuer, shown)
            groups = find_groups_of(tx, issuer.issuer, shown.groups, self._clock.now())
        bearer = self._sessions.authenticate_identity(identity_id, address=address)
        if identity_id == issuer.service_id and bearer.kind is not ActorKind.SERVICE:
            raise GridSubjectUnknownError("The issuer is mapped to an identity that is no service account.")
        return _narrowed(bearer, shown, paths, groups)

    def _find_issuer(self, token: str) -> TokenIssuer:
        named = _read_issuer(token) if len(token) <= LONGEST_GRID_TOKEN else None
        issuer = self._issuers.get(named or "")
        if issuer is None:
            raise GridTokenRefusedError("No issuer whose tokens are taken here has made it.")
        return issuer

    def _find_identity(self, tx: Connection, issuer: TokenIssuer, shown: GridToken) -> UUID:
        mapped = issuer.subjects.get(shown.subject)
        if mapped is not None:
            return mapped
        kind, subject = CredentialKind.OIDC.value, f"{issuer.issuer} {shown.subject}"
        mine = (credentials.c.kind == kind) & (credentials.c.subject == subject)
        person = identities.c.kind == ActorKind.PERSON.value
        query = select(credentials.c.id, credentials.c.identity_id).join(identities).where(mine, person)
        known = tx.execute(query).first()
        if known is not None:
            now = self._clock.now()
            stale = or_(credentials.c.last_used_at.is_(None), credentials.c.last_used_at < now - _USE_NOTED_EVERY)
            tx.execute(update(credentials).where(credentials.c.id == known.id, stale).values(last_used_at=now))
            return UUID(str(known.identity_id))
        if issuer.service_id is None:
            raise GridSubjectUnknownError("The subject of the token is linked to nobody here.")
        return issuer.service_id


def _narrowed(bearer: Actor, shown: GridToken, paths: tuple[PathScope, ...], groups: frozenset[UUID]) -> Actor:
    limit = TokenScope(_VERBS, None)
    brought = {name_of(ENTITLEMENT, one) for one in sorted(shown.groups)[:_MOST_GROUPS] if _is_entitlement(one)}
    return replace(
        bearer,
        is_administrator=False,
        scope=replace(narrow_scope(bearer.scope, limit), ends_at=shown.expires_at),
        known_as=bearer.known_as | brought,
        proofs=frozenset({CredentialKind.OIDC.value, issuer_proof(shown.issuer)}),
        paths=paths,
        brought_groups=groups,
    )


def _is_entitlement(text: str) -> bool:
    return 0 < len(text) <= MAX_SUBJECT_CHARACTERS and text.isprintable() and " " not in text


def _read_issuer(token: str) -> str | None:
    """Who says of itself that it made the token: decides only whose keys are tried."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        return None
    named = claims.get("iss") if isinstance(claims, dict) else None
    return named if isinstance(named, str) else None
