"""Identities and their local credentials, and the organisations that own them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from uuid import UUID

from sqlalchemy import Connection, Row, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import events as facts
from perdure.identity import throttle
from perdure.identity.accounts import Accounts
from perdure.identity.callers import MAX_NAME_CHARACTERS, check_name, naming, require_reader, require_session
from perdure.identity.errors import BadCredentialsError, LastAdministratorError
from perdure.identity.mail_keys import end_keys
from perdure.identity.model import (
    PASSKEY,
    WAYS,
    Account,
    Action,
    CredentialKind,
    IdentityCard,
    IdentityState,
    InstanceThing,
    Login,
    Organisation,
    OrganisationThing,
    fold_name,
    has_administrator_powers,
)
from perdure.identity.names import check_address
from perdure.identity.notices import Notices
from perdure.identity.passwords import Passwords
from perdure.identity.rights import Rights, require_living_in, things_granted
from perdure.identity.sessions import end_sessions
from perdure.identity.tables import accounts, credentials, identities, organisations, passkeys, service_accounts
from perdure.identity.tokens import revoke_tokens_of
from perdure.kernel.actor import SYSTEM, Actor, ActorKind
from perdure.kernel.clock import Clock
from perdure.kernel.errors import BadInputError, NotFoundError
from perdure.kernel.ids import new_id

_PASSWORD_BYTES = 15  # 20 characters of base 64
_OWN_SESSION = "own session"  # stands where the throttle has an address
_IS_PASSWORD = credentials.c.kind == CredentialKind.PASSWORD.value


@dataclass(frozen=True, slots=True)
class NewPerson:
    """Somebody to make: `name` is that of his personal account, `secret` the hash of a password."""

    card: IdentityCard
    email: str | None
    name: str
    secret: str | None
    kind: CredentialKind | None = CredentialKind.PASSWORD  # None: a service account, which has no login
    subject: str | None = None


class People:
    """Local accounts: an identity, its password and its personal account are made together."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        events: EventLog,
        rights: Rights,
        accounts: Accounts,
        passwords: Passwords,
        notices: Notices,
    ) -> None:
        self._db = db
        self._clock = clock
        self._events = events
        self._rights = rights
        self._accounts = accounts
        self._passwords = passwords
        self._notices = notices

    def bootstrap_administrator(
        self, login: str, password: str | None = None, *, organisation: str = "Local organisation"
    ) -> tuple[str, str | None]:
        """Make the first administrator; returns the login name and the password, None when the login exists already.

        Without a password one is made up. Safe to call at every start: an existing login is left as it is.
        """
        login = check_login(login)
        with self._db.begin() as tx:
            if _find_by_login(tx, login) is not None:
                return login, None
        password = password or secrets.token_urlsafe(_PASSWORD_BYTES)
        secret = self._passwords.hash_new(password, login)
        with naming("login name"), self._db.begin() as tx:
            restored = _find_restored_administrator(tx, login)
            if restored is not None:
                self._give_login_in(tx, SYSTEM, restored, login, secret)
            else:
                home = _put_organisation(tx, organisation)
                card = IdentityCard(new_id(), home, ActorKind.PERSON, login, None, True, True)
                self.create_in(tx, SYSTEM, NewPerson(card, None, login, secret), None)
        return login, password

    def has_administrator(self) -> bool:
        """Whether an active administrator can log in, in whatever way."""
        ways = credentials.c.kind.in_(sorted(WAYS))
        query = (
            select(identities.c.id)
            .join(credentials, credentials.c.identity_id == identities.c.id)
            .where(identities.c.is_administrator, identities.c.state == "active", ways)
            .limit(1)
        )
        with self._db.begin() as tx:
            return tx.execute(query).first() is not None

    def create_local_account(
        self,
        actor: Actor,
        *,
        login: str,
        password: str,
        display_name: str,
        email: str | None = None,
        orcid: str | None = None,
        organisation_id: UUID | None = None,
        is_administrator: bool = False,
        quota_bytes: int | None = None,
    ) -> tuple[IdentityCard, Account]:
        """Make a person with a password and a personal account; for those who manage its organisation.

        The organisation is the caller's unless another is named, for the system the only one there is. Administrators
        are made by administrators. Raises NameTakenError and WeakPasswordError.
        """
        with self._db.begin() as tx:
            home = organisation_id or actor.organisation_id or _find_only_organisation(tx)
            if home is None or is_administrator or actor.kind is ActorKind.ANONYMOUS:
                self._rights.require(tx, actor, Action.ADMINISTER, InstanceThing())
            if home is not None:
                self._rights.require(tx, actor, Action.MANAGE_ORGANISATION, OrganisationThing(home))
        if home is None:
            raise BadInputError("A person belongs to an organisation: name it.", field="organisation_id")
        card = IdentityCard(
            new_id(), home, ActorKind.PERSON, check_name(display_name, "display name"), orcid, True, is_administrator
        )
        address = None if email is None else check_address(email)
        person = NewPerson(card, address, check_login(login), self._passwords.hash_new(password, login))
        with naming("login name"), self._db.begin() as tx:
            return card, self.create_in(tx, actor, person, quota_bytes)

    def set_password(
        self,
        actor: Actor,
        identity_id: UUID,
        password: str,
        *,
        current: str | None = None,
        kept_session: str | None = None,
        revoke_tokens: bool = False,
    ) -> None:
        """Replace a password and end the sessions of that identity, but for the one that `kept_session` opens.

        One's own needs a session and the current password; another's needs who manages his organisation. Tokens stay,
        for the scripts that bear them, unless `revoke_tokens`.
        """
        login, stored = self._password_of(actor, identity_id)
        if actor.kind is not ActorKind.SYSTEM:
            require_session(actor)
        if identity_id == actor.identity_id:
            self._require_current(login, stored, current or "")
        secret = self._passwords.hash_new(password, login)
        mine = credentials.c.identity_id == identity_id
        with self._db.begin() as tx:
            tx.execute(select(identities.c.id).where(identities.c.id == identity_id).with_for_update())
            if identity_id != actor.identity_id:
                self._rights.require_over(tx, actor, identity_id)
            tx.execute(update(credentials).where(_IS_PASSWORD, mine).values(secret=secret))
            end_sessions(tx, identity_id, kept=kept_session)
            end_keys(tx, identity_id)
            self._events.record(tx, facts.PASSWORD_CHANGED, None, actor, {"identity": str(identity_id)})
            if identity_id != actor.identity_id:
                said = f"The password of {login} was set anew by who manages your organisation here."
                self._notices.tell_in(tx, identity_id, "Your password was set", said)
            revoked = revoke_tokens_of(tx, identity_id, self._clock.now()) if revoke_tokens else []
            for token_id in revoked:
                self._events.record(tx, facts.TOKEN_REVOKED, None, actor, {"token": str(token_id)})

    def give_login(self, actor: Actor, identity_id: UUID, *, login: str, password: str) -> None:
        """Give a login to an identity that has none, as after a rebuild; for those who manage its organisation."""
        with self._db.begin() as tx:
            self._rights.require_over(tx, actor, identity_id)
        secret = self._passwords.hash_new(password, login)
        with naming("login"), self._db.begin() as tx:
            tx.execute(select(identities.c.id).where(identities.c.id == identity_id).with_for_update())
            self._rights.require_over(tx, actor, identity_id)
            _require_person(tx, identity_id)
            require_living_in(tx, identity_id)
            self._give_login_in(tx, actor, identity_id, check_login(login), secret)

    def disable_identity(self, actor: Actor, identity_id: UUID) -> None:
        """Refuse this identity from now on and end its sessions; its grants and tokens wait. Safe to call twice."""
        self._change(actor, identity_id, facts.IDENTITY_DISABLED, self._rights.require_over, state="disabled")

    def enable_identity(self, actor: Actor, identity_id: UUID) -> None:
        """Let a disabled identity in again. Safe to call twice."""
        self._change(actor, identity_id, facts.IDENTITY_ENABLED, self._rights.require_over, state="active")

    def rename_identity(self, actor: Actor, identity_id: UUID, display_name: str) -> None:
        """Change the name that others see; one's own in a session, another's by who manages his organisation."""
        name = check_name(display_name, "display name")
        with self._db.begin() as tx:
            if identity_id == actor.identity_id:
                require_session(actor)
            else:
                self._rights.require_over(tx, actor, identity_id)
            require_living_in(tx, identity_id)  # no name comes back to who is erased at this moment
            tx.execute(update(identities).where(identities.c.id == identity_id).values(display_name=name))
            self._events.record(tx, facts.IDENTITY_RENAMED, None, actor, {"identity": str(identity_id)})

    def set_administrator(self, actor: Actor, identity_id: UUID, *, is_administrator: bool) -> None:
        """Give or take the powers of an administrator. Safe to call twice."""
        event_type = facts.ADMINISTRATOR_NAMED if is_administrator else facts.ADMINISTRATOR_DISMISSED
        self._change(actor, identity_id, event_type, self._require_administrator, is_administrator=is_administrator)

    def manages_any(self, actor: Actor) -> bool:
        """Whether the actor manages the people of some organisation, or of all."""
        with self._db.begin() as tx:
            is_administrator = self._rights.can(tx, actor, Action.ADMINISTER, InstanceThing())
            return is_administrator or bool(self._rights.managed_organisations(tx, actor))

    def find_identity(self, actor: Actor, login: str) -> IdentityCard | None:
        """Who has this login name, for those who are logged in; e-mail and the login itself are not told.

        Whether it is an administrator is told to administrators only.
        """
        require_reader(actor)
        with self._db.begin() as tx:
            found = _find_by_login(tx, login)
        return None if found is None else _shown_to(actor, found)

    def get_identity(self, actor: Actor, identity_id: UUID) -> IdentityCard:
        """One identity, shown as by `find_identity`; raises NotFoundError."""
        require_reader(actor)
        with self._db.begin() as tx:
            row = tx.execute(select(identities).where(identities.c.id == identity_id)).first()
        if row is None:
            raise NotFoundError("There is no such identity.")
        return _shown_to(actor, _card(row))

    def find_names(self, actor: Actor, identity_ids: Iterable[UUID]) -> dict[UUID, str]:
        """Display names for lists of events and grants; nobody's for callers who are not logged in."""
        if actor.kind in (ActorKind.ANONYMOUS, ActorKind.LINK):
            return {}
        with self._db.begin() as tx:
            return self.find_names_in(tx, identity_ids)

    def find_names_in(self, tx: Connection, identity_ids: Iterable[UUID]) -> dict[UUID, str]:
        """As `find_names`, without asking who wants to know."""
        query = select(identities.c.id, identities.c.display_name).where(identities.c.id.in_(list(identity_ids)))
        return {row.id: row.display_name for row in tx.execute(query)}

    def list_identities(
        self,
        actor: Actor,
        *,
        text: str | None = None,
        state: IdentityState | None = None,
        after: UUID | None = None,
        limit: int = 1000,
    ) -> list[IdentityCard]:
        """Identities, oldest first: all for administrators, else those of the organisations that one manages.

        `text` is part of a display name, or a whole login name, in whatever case.
        """
        query = select(identities).order_by(identities.c.id).limit(limit)
        if text is not None and text.strip():
            login = _IS_PASSWORD & (credentials.c.subject == fold_name(text))
            named = identities.c.display_name.regexp_match(_pattern_of(text.strip()))
            query = query.where(or_(named, identities.c.id.in_(select(credentials.c.identity_id).where(login))))
        if state is not None:
            query = query.where(identities.c.state == state.value)
        with self._db.begin() as tx:
            managed = self._rights.managed_organisations(tx, actor)
            if not self._rights.can(tx, actor, Action.ADMINISTER, InstanceThing()):
                if not managed:
                    self._rights.require(tx, actor, Action.ADMINISTER, InstanceThing())
                query = query.where(identities.c.organisation_id.in_(managed))
            rows = tx.execute(query if after is None else query.where(identities.c.id > after))
            return [_shown_to(actor, _card(row)) for row in rows]

    def list_logins_of(self, actor: Actor, identity_id: UUID) -> list[Login]:
        """In what ways somebody logs in, oldest first, and when each was last used; for who manages his organisation.

        Recovery codes are left out. Raises NotFoundError, IdentityEndedError.
        """
        ways = credentials.c.kind != CredentialKind.RECOVERY.value
        mine = select(credentials).where(credentials.c.identity_id == identity_id, ways)
        keys = select(passkeys).where(passkeys.c.identity_id == identity_id)
        with self._db.begin() as tx:
            self._rights.require_over(tx, actor, identity_id)
            found = [
                Login(row.kind, _told_subject(row.kind, row.subject), row.created_at, row.last_used_at)
                for row in tx.execute(mine)
            ]
            found += [Login(PASSKEY, "", row.created_at, row.last_used_at) for row in tx.execute(keys)]
        return sorted(found, key=lambda one: one.created_at)

    def create_organisation(self, actor: Actor, name: str, *, ror: str | None = None) -> Organisation:
        """Make an organisation; for administrators."""
        organisation = Organisation(new_id(), check_name(name, "organisation name"), ror)
        with naming("organisation name"), self._db.begin() as tx:
            self._rights.require(tx, actor, Action.ADMINISTER, InstanceThing())
            tx.execute(insert(organisations).values(id=organisation.id, name=organisation.name, ror=ror))
            self._events.record(tx, facts.ORGANISATION_CREATED, None, actor, {"organisation": str(organisation.id)})
        return organisation

    def get_organisation(self, actor: Actor, organisation_id: UUID) -> Organisation:
        """One of those that `list_organisations` shows; raises NotFoundError."""
        found = next((one for one in self.list_organisations(actor) if one.id == organisation_id), None)
        if found is None:
            raise NotFoundError("There is no such organisation, or you may not see it.")
        return found

    def list_organisations(self, actor: Actor) -> list[Organisation]:
        """All organisations for an administrator; for everybody else his own, and those on which he has a role."""
        require_reader(actor)
        query = select(organisations).order_by(organisations.c.id)
        if actor.kind is not ActorKind.SYSTEM and not has_administrator_powers(actor):
            granted = things_granted(actor, "organisation", self._clock.now())
            query = query.where(or_(organisations.c.id == actor.organisation_id, organisations.c.id.in_(granted)))
        with self._db.begin() as tx:
            managed = self._rights.managed_organisations(tx, actor)
            is_told = actor.kind is ActorKind.SYSTEM or has_administrator_powers(actor)
            return [
                Organisation(row.id, row.name, row.ror, row.quota_bytes if is_told or row.id in managed else None)
                for row in tx.execute(query)
            ]

    def create_in(self, tx: Connection, actor: Actor, person: NewPerson, quota_bytes: int | None) -> Account:
        """Make an identity with its first credential and its personal account, without asking who wants it."""
        card = person.card
        tx.execute(
            insert(identities).values(
                id=card.id,
                organisation_id=card.organisation_id,
                kind=card.kind.value,
                display_name=card.display_name,
                email=person.email,
                orcid=card.orcid,
                is_administrator=card.is_administrator,
            )
        )
        subject = fold_name(person.name) if person.subject is None else person.subject
        if person.kind is not None:
            self.add_credential_in(tx, card.id, person.kind, subject, person.secret)
        told = {"identity": str(card.id), "kind": card.kind.value, "is_administrator": card.is_administrator}
        self._events.record(tx, facts.IDENTITY_CREATED, None, actor, told)
        account = Account(new_id(), card.organisation_id, "personal", person.name, card.id, quota_bytes, None)
        return self._accounts.create_account_in(tx, actor, account)

    def _give_login_in(self, tx: Connection, actor: Actor, identity_id: UUID, login: str, secret: str) -> None:
        self.add_credential_in(tx, identity_id, CredentialKind.PASSWORD, fold_name(login), secret)
        self._events.record(tx, facts.LOGIN_GIVEN, None, actor, {"identity": str(identity_id)})

    def add_credential_in(
        self, tx: Connection, identity_id: UUID, kind: CredentialKind, subject: str, secret: str | None
    ) -> UUID:
        """Give an identity one more way in, without asking who wants it; returns its id."""
        credential_id = new_id()
        tx.execute(
            insert(credentials).values(
                id=credential_id,
                identity_id=identity_id,
                kind=kind.value,
                subject=subject,
                secret=secret,
                created_at=self._clock.now(),
            )
        )
        return credential_id

    def note_terms_in(self, tx: Connection, identity_id: UUID, version: int | None, at: datetime) -> None:
        """Keep which terms somebody accepted when he applied."""
        if version is not None:
            note = {"accepted_terms": version, "accepted_at": at}
            tx.execute(update(identities).where(identities.c.id == identity_id).values(**note))

    @staticmethod
    def find_free_name_in(tx: Connection, organisation_id: UUID, wanted: str) -> str:
        """A name for a personal account that nobody has there: the wanted one, or it with a number."""
        base = " ".join(wanted.split())[: MAX_NAME_CHARACTERS - 8] or "person"
        for number in count(1):
            name = base if number == 1 else f"{base} {number}"
            here = accounts.c.organisation_id == organisation_id
            taken = select(accounts.c.id).where(here, accounts.c.name_folded == fold_name(name))
            if tx.execute(taken).first() is None:
                return name
        raise AssertionError("the numbers never end")

    def _require_current(self, login: str, stored: str, current: str) -> None:
        with self._passwords.turn():
            with self._db.begin() as tx:  # a stolen session must not serve to guess the password either
                throttle.count_attempt(tx, login, _OWN_SESSION, is_known_address=True, now=self._clock.now())
            if not self._passwords.is_right(stored, current):
                raise BadCredentialsError("The current password is wrong.")
        with self._db.begin() as tx:
            throttle.forgive_attempt(tx, login, _OWN_SESSION, is_known_address=True)

    def _password_of(self, actor: Actor, identity_id: UUID) -> tuple[str, str]:
        query = select(credentials.c.subject, credentials.c.secret).where(
            _IS_PASSWORD, credentials.c.identity_id == identity_id
        )
        with self._db.begin() as tx:
            if identity_id != actor.identity_id:
                self._rights.require_over(tx, actor, identity_id)
            row = tx.execute(query).first()
        if row is None:
            raise NotFoundError("This identity has no password.")
        return row.subject, row.secret

    def _require_administrator(self, tx: Connection, actor: Actor, identity_id: UUID) -> None:
        self._rights.require(tx, actor, Action.ADMINISTER, InstanceThing())
        self._rights.require_over(tx, actor, identity_id)
        _require_person(tx, identity_id)

    def _change(
        self,
        actor: Actor,
        identity_id: UUID,
        event_type: str,
        require: Callable[[Connection, Actor, UUID], None],
        **values: object,
    ) -> None:
        with self._db.begin() as tx:
            lock_administrators(tx)
            require(tx, actor, identity_id)
            differs = or_(*(identities.c[name] != value for name, value in values.items()))
            if not tx.execute(
                update(identities).where(identities.c.id == identity_id, differs).values(**values)
            ).rowcount:
                return
            require_administrator(tx)
            if values.get("state") == "disabled":
                end_sessions(tx, identity_id)
            self._events.record(tx, event_type, None, actor, {"identity": str(identity_id)})
            if values.get("state") == "disabled":
                self._tell_orphans(tx, actor, identity_id)

    def _tell_orphans(self, tx: Connection, actor: Actor, identity_id: UUID) -> None:
        """Tell of each service account whose credentials stop working with who is responsible for it."""
        mine = service_accounts.c.responsible_id == identity_id
        query = select(service_accounts.c.identity_id).where(mine).order_by(service_accounts.c.identity_id)
        for service_id in tx.execute(query).scalars():
            told = {"service": str(service_id), "responsible": str(identity_id)}
            self._events.record(tx, facts.SERVICE_ORPHANED, None, actor, told)


def _pattern_of(text: str) -> str:
    """A regular expression of PostgreSQL for this text in whatever case, as Python knows cases."""
    forms = [sorted({one, one.lower(), one.upper()}) for one in text]
    return "".join(f"(?:{'|'.join(map(_literal, every))})" for every in forms)


def _literal(text: str) -> str:
    return "".join(one if one.isalnum() else f"\\{one}" for one in text)


def _told_subject(kind: str, subject: str) -> str:
    """What those who manage an organisation are told of a way in: see `Login`."""
    if kind in (CredentialKind.OIDC.value, CredentialKind.SAML.value, CredentialKind.LDAP.value):
        return subject.partition(" ")[0]
    return "" if kind == CredentialKind.TOTP.value else subject


def check_login(login: str) -> str:
    """A login name without blanks around or inside; raises BadInputError."""
    cleaned = check_name(login, "login name")
    if any(character.isspace() for character in cleaned):
        raise BadInputError("A login name has no blanks.", field="login_name")
    return cleaned


def _require_person(tx: Connection, identity_id: UUID) -> None:
    if tx.execute(select(identities.c.kind).where(identities.c.id == identity_id)).scalar() == ActorKind.SERVICE.value:
        raise BadInputError("A service account has tokens only: it does not log in, and is no administrator.")


def _put_organisation(tx: Connection, name: str) -> UUID:
    name = check_name(name, "organisation name")
    tx.execute(upsert(organisations).values(id=new_id(), name=name).on_conflict_do_nothing(index_elements=["name"]))
    found: UUID = tx.execute(select(organisations.c.id).where(organisations.c.name == name)).scalar_one()
    return found


def _find_only_organisation(tx: Connection) -> UUID | None:
    found = tx.execute(select(organisations.c.id).limit(2)).scalars().all()
    return found[0] if len(found) == 1 else None


def _find_by_login(tx: Connection, login: str) -> IdentityCard | None:
    row = tx.execute(
        select(identities)
        .join(credentials, credentials.c.identity_id == identities.c.id)
        .where(_IS_PASSWORD, credentials.c.subject == fold_name(login))
    ).first()
    return None if row is None else _card(row)


def _find_restored_administrator(tx: Connection, login: str) -> UUID | None:
    """An administrator who came back from the stores without his login: his personal account has its name."""
    found: UUID | None = tx.execute(
        select(identities.c.id)
        .join(accounts, accounts.c.owner_id == identities.c.id)
        .outerjoin(credentials, credentials.c.identity_id == identities.c.id)
        .where(
            identities.c.is_administrator,
            accounts.c.kind == "personal",
            accounts.c.name_folded == fold_name(login),
            credentials.c.id.is_(None),
        )
    ).scalar()
    return found


def lock_administrators(tx: Connection) -> None:
    """Hold off everybody else who names or dismisses administrators."""
    # Of two administrators who dismiss each other at once, the second waits and finds himself refused.
    tx.execute(select(identities.c.id).where(identities.c.is_administrator).order_by(identities.c.id).with_for_update())


def require_administrator(tx: Connection) -> None:
    """Raises LastAdministratorError when nobody is left."""
    active = select(identities.c.id).where(identities.c.is_administrator, identities.c.state == "active").limit(1)
    if tx.execute(active).first() is None:
        raise LastAdministratorError("This would leave the instance without an active administrator.")


def _shown_to(actor: Actor, card: IdentityCard) -> IdentityCard:
    """Whom to attack first is nobody's business but the administrators' and one's own."""
    is_trusted = actor.kind is ActorKind.SYSTEM or has_administrator_powers(actor) or actor.identity_id == card.id
    return card if is_trusted else replace(card, is_administrator=None)


def _card(row: Row[*tuple[object, ...]]) -> IdentityCard:
    return IdentityCard(
        id=row.id,
        organisation_id=row.organisation_id,
        kind=ActorKind(row.kind),
        display_name=row.display_name,
        orcid=row.orcid,
        is_active=row.state == "active",
        is_administrator=row.is_administrator,
        merged_into=row.merged_into,
        is_erased=row.state == IdentityState.ERASED.value,
    )
