"""Service accounts: identities of machines, each with a person who answers for it, and tokens for credentials."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, Select, func, insert, or_, select, update

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity.accounts import UNCHANGED, Unchanged
from perdure.identity.callers import check_name, naming, require_identity, require_self_management, require_self_reader
from perdure.identity.errors import (
    NotLoggedInError,
    ResponsibleError,
    ServiceIdleError,
    TokenEndedError,
    TokenRotatedError,
)
from perdure.identity.model import (
    Action,
    IdentityCard,
    OrganisationThing,
    ServiceAccount,
    ServiceState,
    Token,
    Verb,
    has_administrator_powers,
    is_scope_within,
    narrow_scope,
)
from perdure.identity.people import NewPerson, People
from perdure.identity.rights import Rights, require_living_in
from perdure.identity.tables import accounts, identities, service_accounts, terms, tokens
from perdure.identity.tokens import Tokens, check_scope, to_token
from perdure.kernel.actor import Actor, ActorKind, TokenScope
from perdure.kernel.clock import Clock, format_time
from perdure.kernel.errors import BadInputError, NotAllowedError, NotFoundError
from perdure.kernel.ids import new_id

_VERBS = frozenset({Verb.READ, Verb.WRITE, Verb.MANAGE})  # a machine is no administrator
_USUAL_LIFE = timedelta(days=90)
_LONGEST_GRACE = timedelta(days=90)
_MOST_ADDRESSES = 100
_MOST_TOKENS = 100
_LONGEST_PURPOSE = 2000
_THERE_IS_NONE = "There is no such service account, or you may not see it."


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """What an operator sets for the tokens of machines: their longest life, and for how long a replaced one goes on."""

    longest_life: timedelta = timedelta(days=365)
    grace: timedelta = timedelta(days=7)


class ServiceAccounts:
    """Those who manage the organisation make and change them; who is responsible makes and rotates their tokens."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        events: EventLog,
        rights: Rights,
        people: People,
        made_tokens: Tokens,
        limits: ServiceLimits,
    ) -> None:
        self._db = db
        self._clock = clock
        self._events = events
        self._rights = rights
        self._people = people
        self._tokens = made_tokens
        self._limits = limits

    def create_service(
        self,
        actor: Actor,
        *,
        name: str,
        purpose: str,
        verbs: Iterable[str],
        archives: Iterable[UUID] | None = None,
        addresses: Iterable[str] = (),
        responsible_id: UUID | None = None,
        organisation_id: UUID | None = None,
        quota_bytes: int | None = None,
    ) -> ServiceAccount:
        """Make a service account with a space of its own; for those who manage the organisation.

        The organisation is the caller's and the responsible person the caller himself, unless others are named. It
        has no right yet: roles are granted to it as to a person. Raises NameTakenError and ResponsibleError.
        """
        home = organisation_id or actor.organisation_id
        if home is None:
            raise NotLoggedInError("To make a service account you need to log in.")
        with naming("service name"), self._db.begin() as tx:
            self._rights.require(tx, actor, Action.MANAGE_ORGANISATION, OrganisationThing(home))
            scope, networks = _check_limit(verbs, archives), _check_addresses(addresses)
            card = IdentityCard(
                new_id(), home, ActorKind.SERVICE, check_name(name, "service name"), None, True, is_administrator=False
            )
            person = responsible_id or require_identity(actor)
            self._require_fit(tx, actor, person, home)
            self._people.create_in(tx, actor, NewPerson(card, None, card.display_name, None, None), quota_bytes)
            row = {
                "identity_id": card.id,
                "responsible_id": person,
                "purpose": _check_purpose(purpose),
                **_limit_columns(scope),
                "addresses": list(networks),
                "created_at": self._clock.now(),
            }
            tx.execute(insert(service_accounts).values(row))
            told = {"service": str(card.id), "responsible": str(person), **_told_limit(scope)}
            self._events.record(tx, facts.SERVICE_CREATED, None, actor, told)
            return self._load(tx, card.id)

    def get_service(self, actor: Actor, service_id: UUID) -> ServiceAccount:
        """One of those that `list_services` shows; raises NotFoundError."""
        with self._db.begin() as tx:
            return self._require_seen(tx, actor, service_id)

    def list_services(self, actor: Actor, *, after: UUID | None = None, limit: int = 1000) -> list[ServiceAccount]:
        """Those that the caller is responsible for, and those of organisations that he manages; oldest first."""
        query = self._select().order_by(identities.c.id).limit(limit)
        if actor.kind is not ActorKind.SYSTEM:
            identity_id = require_self_reader(actor)
            if not has_administrator_powers(actor):
                with self._db.begin() as tx:
                    managed = self._rights.managed_organisations(tx, actor)
                own = service_accounts.c.responsible_id == identity_id
                query = query.where(or_(own, identities.c.organisation_id.in_(managed)))
        with self._db.begin() as tx:
            rows = tx.execute(query if after is None else query.where(identities.c.id > after))
            return [_service(row) for row in rows]

    def change_service(
        self,
        actor: Actor,
        service_id: UUID,
        *,
        purpose: str | None = None,
        verbs: Iterable[str] | None = None,
        archives: Iterable[UUID] | Unchanged | None = UNCHANGED,
        addresses: Iterable[str] | None = None,
        is_active: bool | None = None,
        responsible_id: UUID | None = None,
    ) -> ServiceAccount:
        """Change what is given. What tokens may do and from where they may come counts for those that exist, too.

        Who is responsible may hand over and disable; the rest is for those who manage the organisation.
        """
        with self._db.begin() as tx:
            before = self._require_seen(tx, actor, service_id, lock=True)
            if actor.kind is not ActorKind.SYSTEM:
                require_self_management(actor)
            is_manager = self._is_manager(tx, actor, before.organisation_id)
            only_own = purpose is None and verbs is None and archives is UNCHANGED and addresses is None
            if not is_manager and not (only_own and not is_active):
                raise NotAllowedError(
                    "Who is responsible hands over and disables; the rest is for those who manage the organisation.",
                    action=Action.MANAGE_ORGANISATION.value,
                    role="manager",
                )
            self._change(tx, actor, before, purpose, verbs, archives, addresses)
            if responsible_id is not None and responsible_id != before.responsible_id:
                self._hand_over(tx, actor, before, responsible_id)
            if is_active is not None:
                self._set_active(tx, actor, before, is_active=is_active)
            return self._load(tx, service_id)

    def create_service_token(
        self,
        actor: Actor,
        service_id: UUID,
        name: str,
        *,
        verbs: Iterable[str] | None = None,
        archives: Iterable[UUID] | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[str, Token]:
        """Make a token for the machine and return its secret, which is shown this once, and its description.

        It may do no more than the service account, by default all of that, and no more than the caller's own token.
        """
        with self._db.begin() as tx:
            service = self._require_ready(tx, actor, service_id)
            wanted = TokenScope(
                service.scope.verbs if verbs is None else check_scope(verbs, None).verbs,
                service.scope.archives if archives is None else check_scope(["read"], archives).archives,
            )
            self._require_few(tx, service_id)
            return self._make(tx, actor, service, name, wanted, self._end(actor, expires_at, _USUAL_LIFE))

    def rotate_service_token(
        self,
        actor: Actor,
        service_id: UUID,
        token_id: UUID,
        *,
        grace: timedelta | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[str, Token]:
        """Make a token that takes over from one, which goes on for the time of `grace` and then ends.

        The new one may do what the old one may, and lives as long unless an end is given. Raises TokenRotatedError
        when another has taken over already, TokenEndedError when the old one has ended.
        """
        grace = self._limits.grace if grace is None else grace
        if not timedelta(0) <= grace <= _LONGEST_GRACE:
            raise BadInputError(f"A replaced token goes on for at most {_LONGEST_GRACE.days} days.", field="grace")
        now = self._clock.now()
        with self._db.begin() as tx:
            service = self._require_ready(tx, actor, service_id)
            old = self._find_token(tx, service_id, token_id)
            if old.revoked_at is not None or old.expires_at <= now:
                raise TokenEndedError("There is nothing to take over from.")
            following = (tokens.c.replaces == token_id) & tokens.c.revoked_at.is_(None)
            taken = tx.execute(select(tokens.c.id).where(following)).scalar()
            if taken is not None:
                raise TokenRotatedError("Another token takes over from this one.", replaced_by=str(taken))
            if grace:
                self._require_few(tx, service_id)
            until = self._end(actor, expires_at, old.expires_at - old.created_at)
            scope = narrow_scope(old.scope, service.scope)
            secret, token = self._make(tx, actor, service, old.name, scope, until, replaces=old)
            ending = min(old.expires_at, now + grace)
            tx.execute(update(tokens).where(tokens.c.id == old.id).values(expires_at=ending))
            told = {"token": str(token.id), "replaces": str(old.id), "service": str(service_id)}
            told |= {"expires_at": format_time(token.expires_at), "replaced_ends_at": format_time(ending)}
            self._events.record(tx, facts.TOKEN_ROTATED, None, actor, told)
        return secret, token

    def list_service_tokens(self, actor: Actor, service_id: UUID) -> list[Token]:
        """Its tokens, newest first, ended ones too."""
        query = select(tokens).where(tokens.c.identity_id == service_id).order_by(tokens.c.id.desc())
        with self._db.begin() as tx:
            self._require_seen(tx, actor, service_id)
            return [to_token(row) for row in tx.execute(query)]

    def revoke_service_token(self, actor: Actor, service_id: UUID, token_id: UUID) -> None:
        """End one of its tokens at once and for ever; safe to call twice."""
        with self._db.begin() as tx:
            self._require_seen(tx, actor, service_id)
            require_self_management(actor)
            if self._find_token(tx, service_id, token_id).revoked_at is None:
                self._tokens.revoke_in(tx, actor, token_id)

    def require_seen_in(self, tx: Connection, actor: Actor, service_id: UUID) -> ServiceAccount:
        """Return for who may see the service account; raises NotFoundError."""
        return self._require_seen(tx, actor, service_id)

    # Who may

    def _is_manager(self, tx: Connection, actor: Actor, home: UUID) -> bool:
        return self._rights.can(tx, actor, Action.MANAGE_ORGANISATION, OrganisationThing(home))

    def _require_seen(self, tx: Connection, actor: Actor, service_id: UUID, *, lock: bool = False) -> ServiceAccount:
        if actor.kind is not ActorKind.SYSTEM:
            require_self_reader(actor)
        if lock:
            mine = service_accounts.c.identity_id == service_id
            tx.execute(select(service_accounts.c.identity_id).where(mine).with_for_update())
        row = tx.execute(self._select().where(identities.c.id == service_id)).first()
        if row is None:
            raise NotFoundError(_THERE_IS_NONE)
        found = _service(row)
        if actor.identity_id == found.responsible_id and actor.kind is ActorKind.PERSON:
            return found
        if not self._is_manager(tx, actor, found.organisation_id):
            raise NotFoundError(_THERE_IS_NONE)
        return found

    def _require_ready(self, tx: Connection, actor: Actor, service_id: UUID) -> ServiceAccount:
        """The service account, locked, for who may make tokens for it."""
        found = self._require_seen(tx, actor, service_id, lock=True)
        require_self_management(actor)
        if found.state is not ServiceState.ACTIVE:
            raise ServiceIdleError(f"The service account is {found.state.value}.", state=found.state.value)
        return found

    def _require_fit(self, tx: Connection, actor: Actor, person_id: UUID, home: UUID) -> None:
        """Return for a person who can answer for a machine; until the transaction ends nobody disables him."""
        query = select(identities).where(identities.c.id == person_id).with_for_update(read=True)
        row = tx.execute(query).first()
        is_trusted = actor.kind is ActorKind.SYSTEM or has_administrator_powers(actor) or actor.identity_id == person_id
        if row is None or row.kind != ActorKind.PERSON.value or row.state != "active":
            raise ResponsibleError("This is no active person.", field="responsible_id")
        if row.organisation_id != home and not is_trusted:
            raise ResponsibleError("This person is of another organisation.", field="responsible_id")
        present = tx.execute(select(func.max(terms.c.version))).scalar()
        if present is not None and row.accepted_terms != present:
            raise ResponsibleError("This person has not accepted the present terms of use.", field="responsible_id")

    # What it does

    def _change(
        self,
        tx: Connection,
        actor: Actor,
        before: ServiceAccount,
        purpose: str | None,
        verbs: Iterable[str] | None,
        archives: Iterable[UUID] | Unchanged | None,
        addresses: Iterable[str] | None,
    ) -> None:
        values: dict[str, object] = {}
        if purpose is not None:
            values["purpose"] = _check_purpose(purpose)
        if verbs is not None or not isinstance(archives, Unchanged):
            scope = _check_limit(
                before.scope.verbs or () if verbs is None else verbs,
                before.scope.archives if isinstance(archives, Unchanged) else archives,
            )
            values |= _limit_columns(scope)
        if addresses is not None:
            values["addresses"] = list(_check_addresses(addresses))
        if not values:
            return
        tx.execute(update(service_accounts).where(service_accounts.c.identity_id == before.id).values(**values))
        after = self._load(tx, before.id)
        told = {"service": str(before.id), "changed": sorted(values), **_told_limit(after.scope)}
        self._events.record(tx, facts.SERVICE_CHANGED, None, actor, told)

    def _hand_over(self, tx: Connection, actor: Actor, before: ServiceAccount, to: UUID) -> None:
        self._require_fit(tx, actor, to, before.organisation_id)
        mine = service_accounts.c.identity_id == before.id
        tx.execute(update(service_accounts).where(mine).values(responsible_id=to))
        told = {"service": str(before.id), "from": str(before.responsible_id), "responsible": str(to)}
        self._events.record(tx, facts.SERVICE_HANDED_OVER, None, actor, told)

    def _set_active(self, tx: Connection, actor: Actor, before: ServiceAccount, *, is_active: bool) -> None:
        if is_active == (before.state is not ServiceState.DISABLED):
            return
        require_living_in(tx, before.id)
        state, fact = ("active", facts.IDENTITY_ENABLED) if is_active else ("disabled", facts.IDENTITY_DISABLED)
        tx.execute(update(identities).where(identities.c.id == before.id).values(state=state))
        self._events.record(tx, fact, None, actor, {"identity": str(before.id)})

    def _make(
        self,
        tx: Connection,
        actor: Actor,
        service: ServiceAccount,
        name: str,
        scope: TokenScope,
        until: datetime,
        *,
        replaces: Token | None = None,
    ) -> tuple[str, Token]:
        if not scope.verbs or not is_scope_within(scope, service.scope):
            raise NotAllowedError(
                "A token may do no more than its service account.", verbs=sorted(service.scope.verbs or ())
            )
        if not is_scope_within(scope, actor.scope):
            raise NotAllowedError("A token cannot make a token that may do more than itself.")
        return self._tokens.make_in(tx, actor, name, scope, until, service_id=service.id, replaces=replaces)

    def _end(self, actor: Actor, wanted: datetime | None, usual: timedelta) -> datetime:
        now, longest = self._clock.now(), self._limits.longest_life
        latest = actor.scope.ends_at
        until = wanted or now + min(usual, longest)
        if wanted is None and latest is not None:
            until = min(until, latest)
        if until.tzinfo is None or until <= now:
            raise BadInputError("The token's end needs a time zone and lies in the future.", field="expires_at")
        if until > now + longest:
            raise BadInputError(f"A token of a service account lives at most {longest.days} days.", field="expires_at")
        if latest is not None and until > latest:
            raise NotAllowedError(
                "A token cannot make one that outlives it; use a session for that.", ends_at=format_time(latest)
            )
        return until

    def _require_few(self, tx: Connection, service_id: UUID) -> None:
        living = (tokens.c.identity_id == service_id) & tokens.c.revoked_at.is_(None)
        living &= tokens.c.expires_at > self._clock.now()
        if tx.execute(select(func.count()).where(living)).scalar_one() >= _MOST_TOKENS:
            raise BadInputError(f"A service account has at most {_MOST_TOKENS} tokens that work; revoke some.")

    @staticmethod
    def _find_token(tx: Connection, service_id: UUID, token_id: UUID) -> Token:
        mine = (tokens.c.id == token_id) & (tokens.c.identity_id == service_id)
        row = tx.execute(select(tokens).where(mine).with_for_update()).first()
        if row is None:
            raise NotFoundError("The service account has no such token.")
        return to_token(row)

    def _load(self, tx: Connection, service_id: UUID) -> ServiceAccount:
        return _service(tx.execute(self._select().where(identities.c.id == service_id)).one())

    def _select(self) -> Select[Any]:  # Any: as `_service` reads it
        mine = tokens.c.identity_id == identities.c.id
        newest = select(tokens.c.last_used_from).where(mine, tokens.c.last_used_at.is_not(None))
        lives = mine & tokens.c.revoked_at.is_(None) & (tokens.c.expires_at > self._clock.now())
        return (
            select(
                identities,
                service_accounts,
                accounts.c.id.label("account_id"),
                _RESPONSIBLE.c.display_name.label("responsible_name"),
                _RESPONSIBLE.c.state.label("responsible_state"),
                select(func.max(tokens.c.last_used_at)).where(mine).scalar_subquery().label("last_used_at"),
                newest.order_by(tokens.c.last_used_at.desc()).limit(1).scalar_subquery().label("last_used_from"),
                select(func.max(tokens.c.expires_at)).where(lives).scalar_subquery().label("ends_at"),
            )
            .join_from(service_accounts, identities, identities.c.id == service_accounts.c.identity_id)
            .join(_RESPONSIBLE, _RESPONSIBLE.c.id == service_accounts.c.responsible_id)
            .join(accounts, (accounts.c.owner_id == identities.c.id) & (accounts.c.kind == "personal"))
        )


_RESPONSIBLE = identities.alias("responsible")


def _service(row: Row[Any]) -> ServiceAccount:  # Any: as selected above
    state = ServiceState.ACTIVE if row.responsible_state == "active" else ServiceState.ORPHANED
    return ServiceAccount(
        id=row.id,
        organisation_id=row.organisation_id,
        name=row.display_name,
        purpose=row.purpose,
        responsible_id=row.responsible_id,
        responsible_name=row.responsible_name,
        scope=TokenScope(frozenset(row.verbs), None if row.archives is None else frozenset(row.archives)),
        addresses=tuple(row.addresses),
        state=state if row.state == "active" else ServiceState.DISABLED,
        created_at=row.created_at,
        account_id=row.account_id,
        last_used_at=row.last_used_at,
        last_used_from=row.last_used_from or "",
        ends_at=row.ends_at,
    )


def _check_limit(verbs: Iterable[str], archives: Iterable[UUID] | None) -> TokenScope:
    scope = check_scope(verbs, archives)
    if not (scope.verbs or frozenset()) <= _VERBS:
        raise BadInputError("A machine may read, write and manage; it is no administrator.", field="verbs")
    return scope


def _check_addresses(addresses: Iterable[str]) -> tuple[str, ...]:
    try:
        found = tuple(dict.fromkeys(str(ip_network(text.strip())) for text in addresses))
    except ValueError as error:
        raise BadInputError(
            f"An address is one such as 192.0.2.7, or a network such as 10.1.0.0/16: {error}.", field="addresses"
        ) from None
    if len(found) > _MOST_ADDRESSES:
        raise BadInputError(f"At most {_MOST_ADDRESSES} addresses and networks are kept.", field="addresses")
    return found


def _check_purpose(purpose: str) -> str:
    cleaned = purpose.strip()
    if not cleaned or len(cleaned) > _LONGEST_PURPOSE or "\0" in cleaned:
        raise BadInputError(f"Say in 1 to {_LONGEST_PURPOSE} characters what the machine does.", field="purpose")
    return cleaned


def _limit_columns(scope: TokenScope) -> dict[str, object]:
    return {
        "verbs": sorted(scope.verbs or ()),
        "archives": None if scope.archives is None else sorted(scope.archives),
    }


def _told_limit(scope: TokenScope) -> dict[str, object]:
    archives = None if scope.archives is None else sorted(str(one) for one in scope.archives)
    return {"verbs": sorted(scope.verbs or ()), "archives": archives}
