"""What the use cases about oneself ask of the caller, and names that must be unique."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import UUID

from psycopg.errors import ForeignKeyViolation, UniqueViolation
from sqlalchemy.exc import IntegrityError

from perdure.identity.errors import FreshLoginRequiredError, NameTakenError, NotLoggedInError
from perdure.identity.model import Verb
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.errors import BadInputError, NotAllowedError

MAX_NAME_CHARACTERS = 200
FRESH_FOR = timedelta(minutes=15)  # after a password, a code or a login at an institution


def require_identity(actor: Actor) -> UUID:
    """The caller's identity; raises NotLoggedInError when there is none."""
    if actor.identity_id is None:
        raise NotLoggedInError("This is about yourself: log in first.")
    return actor.identity_id


def require_reader(actor: Actor) -> None:
    """Return for the system and for everybody logged in, unless by a token that may not read in general."""
    if actor.kind is ActorKind.SYSTEM:
        return
    require_identity(actor)
    scope = actor.scope
    if _is_limited(actor) or (scope.verbs is not None and Verb.READ not in scope.verbs):
        raise NotAllowedError("This token may not do that: it needs the verb read and no limit to archives.")


def require_self_reader(actor: Actor) -> UUID:
    """The identity of a caller who may see what belongs to it: by a session, or a token for all archives."""
    identity_id = require_identity(actor)
    verbs = actor.scope.verbs
    if _is_limited(actor) or (verbs is not None and verbs.isdisjoint({Verb.READ, Verb.MANAGE})):
        raise NotAllowedError("This token may not do that: it needs the verb read or manage and no limit to archives.")
    return identity_id


def require_self_management(actor: Actor) -> UUID:
    """The identity of a caller who may change what belongs to it: by a session, or a token that may `manage`."""
    identity_id = require_identity(actor)
    scope = actor.scope
    if _is_limited(actor) or (scope.verbs is not None and Verb.MANAGE not in scope.verbs):
        raise NotAllowedError("This token may not do that: it needs the verb manage and no limit to archives.")
    return identity_id


def _is_limited(actor: Actor) -> bool:
    """Whether he came with something that is good for some archives, or some of their content, only."""
    return actor.scope.archives is not None or actor.paths is not None


def require_session(actor: Actor) -> UUID:
    """The identity of a caller who gave his password: what a stolen token must not be able to do."""
    identity_id = require_identity(actor)
    if actor.scope.verbs is not None or _is_limited(actor):
        raise NotAllowedError("Log in with your password for this; a token is not enough.")
    return identity_id


def require_fresh(actor: Actor, now: datetime) -> UUID:
    """The identity of a caller who showed who he is a moment ago: what an open session left alone must not do.

    Raises FreshLoginRequiredError.
    """
    identity_id = require_session(actor)
    if actor.proven_at is None or actor.proven_at + FRESH_FOR < now:
        minutes = FRESH_FOR.seconds // 60
        raise FreshLoginRequiredError(
            f"This changes who may act as you: it needs a proof from the last {minutes} minutes.",
            within_seconds=FRESH_FOR.seconds,
        )
    return identity_id


def check_name(name: str, what: str) -> str:
    """The name without outer blanks; raises BadInputError when it is empty, too long or holds control characters."""
    cleaned = name.strip()
    if not cleaned or len(cleaned) > MAX_NAME_CHARACTERS or not cleaned.isprintable():
        raise BadInputError(
            f"The {what} needs 1 to {MAX_NAME_CHARACTERS} printable characters.", field=what.replace(" ", "_")
        )
    return cleaned


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Tells a broken constraint in the caller's words: NameTakenError, or BadInputError for an unknown reference."""
    try:
        yield
    except IntegrityError as error:
        if isinstance(error.orig, UniqueViolation):
            raise NameTakenError(f"The {what} is in use.") from error
        if isinstance(error.orig, ForeignKeyViolation):
            raise BadInputError("This names an organisation, identity or group that does not exist.") from error
        raise
