"""Invitations by mail: to be an identity of an organisation, or to a role that waits until its key is used.

Only the key in the mail proves the address: none that somebody claims, or a provider says of him, leads to a role.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, insert, or_, select, true, update

from perdure.archives import roles
from perdure.archives.records import Context, require_archive
from perdure.identity import events as facts
from perdure.identity.callers import naming, require_identity, require_reader, require_self_management
from perdure.identity.errors import ApplicationPendingError, ApplicationRefusedError, UnknownPersonError
from perdure.identity.joining import Joiner
from perdure.identity.model import (
    ENTITLEMENT,
    Action,
    Arrival,
    Client,
    GrantedThing,
    Grantee,
    InstanceThing,
    OnKind,
    OrganisationThing,
    Reportable,
    Role,
    manage_action,
    places_of,
)
from perdure.identity.names import check_address, fold_address
from perdure.identity.secrets import digest_secret, new_secret
from perdure.kernel.actor import SYSTEM, Actor
from perdure.kernel.clock import format_time
from perdure.kernel.errors import BadInputError, ConflictError, NotAllowedError, NotFoundError
from perdure.kernel.ids import new_id
from perdure.sharing.errors import (
    GuestsNotTakenError,
    InvitationDecidedError,
    InvitationEndedError,
    InvitationNotFoundError,
    KnownAlreadyError,
    TooManyInvitationsError,
)
from perdure.sharing.letters import write_invitation
from perdure.sharing.model import Invitation, InvitationCard, InvitationState
from perdure.sharing.tables import invitations

KEY_PREFIX = "pdi_"
_LONGEST_NOTE = 500
_MOST_A_DAY = 200  # mails for one identity, those that another sent again too
_MOST_SENT = 10  # mails of one invitation
_FORGET_AFTER = timedelta(days=90)
_GUEST_QUOTA = 0


@dataclass(frozen=True, slots=True)
class InvitationSettings:
    """What an operator may choose: how long keys are good, and whether who invites to a role may bring in newcomers."""

    lasts: timedelta = timedelta(days=14)
    with_guests: bool = True


@dataclass(frozen=True, slots=True)
class InvitationRequest:
    """Whom to invite to what: a role on something, or, without one, to be an identity of the organisation."""

    address: str
    organisation_id: UUID | None = None
    on_kind: OnKind | None = None
    on_id: UUID | None = None
    role: Role | None = None
    role_until: datetime | None = None
    requires: tuple[str, ...] = ()
    note: str = ""


class Invitations:
    """Made by those who may give what it promises, which is asked again when it is accepted."""

    def __init__(self, ctx: Context, settings: InvitationSettings) -> None:
        self._ctx = ctx
        self._settings = settings

    # Who invites

    def invite(self, actor: Actor, wanted: InvitationRequest) -> Invitation:
        """Send an invitation; one that waits for the same address and role is renewed, and its older mail ends.

        Raises MailNotConfiguredError, TooManyInvitationsError, and what giving the role raises.
        """
        inviter = require_identity(actor)
        if (wanted.on_id is None) != (wanted.role is None) or (wanted.on_id is None) != (wanted.on_kind is None):
            raise BadInputError("A role needs what it is on, and the other way round.", field="role")
        now = self._ctx.clock.now()
        with self._ctx.db.begin() as tx:
            home, label, requires = self._require_giver(tx, actor, wanted)
            self._ctx.identity.require_post()
            note, is_manager = _check_note(wanted.note), self._manages(tx, actor, home)
            made = Invitation(
                id=new_id(),
                address=check_address(wanted.address),
                organisation_id=home,
                on_kind=wanted.on_kind,
                on_id=wanted.on_id,
                label=label,
                role=wanted.role,
                role_until=wanted.role_until,
                requires=requires,
                note=note,
                by_manager=is_manager,
                quota_bytes=None if is_manager else _GUEST_QUOTA,
                invited_by=inviter,
                invited_at=now,
                sent_at=now,
                expires_at=now + self._settings.lasts,
                revoked_at=None,
                accepted_at=None,
                accepted_by=None,
            )
            _wait_for_turn(tx, inviter)
            waiting = self._find_alike(tx, made)
            sent = self._require_room(tx, inviter, waiting)
            if waiting is not None:
                made = replace(made, id=waiting)
                tx.execute(delete(invitations).where(invitations.c.id == waiting))
            key = new_secret(KEY_PREFIX)
            tx.execute(insert(invitations).values(**_row(made, actor), digest=digest_secret(key), sent=sent + 1))
            self._send(tx, actor, made, key)
        return replace(made, trouble="waiting")

    def resend(self, actor: Actor, invitation_id: UUID) -> Invitation:
        """Send a new mail with a new key, good from now on; the key before it ends. Raises InvitationDecidedError."""
        with self._ctx.db.begin() as tx:
            inviter = tx.execute(select(invitations.c.invited_by).where(invitations.c.id == invitation_id)).scalar()
            if inviter is not None:
                _wait_for_turn(tx, inviter)
            one = self._require_over(tx, actor, invitation_id)
            self._ctx.identity.require_post()
            now = self._ctx.clock.now()
            if one.state(now) in (InvitationState.ACCEPTED, InvitationState.REVOKED):
                raise InvitationDecidedError(f"The invitation is {one.state(now).value}.")
            sent = self._require_room(tx, one.invited_by, one.id)
            one = replace(one, sent_at=now, expires_at=now + self._settings.lasts, trouble="waiting")
            key = new_secret(KEY_PREFIX)
            renewed = {"sent_at": now, "sent": sent + 1, "expires_at": one.expires_at, "digest": digest_secret(key)}
            tx.execute(update(invitations).where(invitations.c.id == one.id).values(**renewed))
            self._send(tx, actor, one, key)
        return one

    def revoke(self, actor: Actor, invitation_id: UUID) -> None:
        """End an invitation; safe to call twice. Raises InvitationDecidedError when it was accepted."""
        with self._ctx.db.begin() as tx:
            one = self._require_over(tx, actor, invitation_id)
            if one.accepted_at is not None:
                raise InvitationDecidedError("The invitation was accepted; take the role back instead.")
            if one.revoked_at is not None:
                return
            ended = {"revoked_at": self._ctx.clock.now()}
            tx.execute(update(invitations).where(invitations.c.id == one.id).values(**ended))
            self._ctx.identity.drop_mail_in(tx, one.id)
            self._record(tx, facts.INVITATION_REVOKED, actor, one)

    def list_invitations(
        self,
        actor: Actor,
        *,
        on_kind: OnKind | None = None,
        on_id: UUID | None = None,
        home_id: UUID | None = None,
        state: InvitationState | None = None,
        is_newest_first: bool = False,
        after: UUID | None = None,
        limit: int = 1000,
    ) -> list[Invitation]:
        """Those on one thing to who manages it, else one's own and those of organisations one manages.

        `home_id` is the organisation whose they are, `after` the last one that is known, in the order asked for.
        """
        with self._ctx.db.begin() as tx:
            if on_kind is not None and on_id is not None:
                self._find_thing(tx, actor, on_kind, on_id)
                meant: ColumnElement[bool] = and_(invitations.c.on_kind == on_kind, invitations.c.on_id == on_id)
            else:
                require_reader(actor)
                managed = self._ctx.identity.managed_organisations(tx, actor)
                is_shown_all = self._ctx.identity.can(tx, actor, Action.ADMINISTER, InstanceThing())
                mine = invitations.c.invited_by == actor.identity_id
                meant = true() if is_shown_all else or_(mine, invitations.c.organisation_id.in_(managed))
            number = invitations.c.id
            query = select(invitations).where(meant).order_by(number.desc() if is_newest_first else number).limit(limit)
            if home_id is not None:
                query = query.where(invitations.c.organisation_id == home_id)
            if state is not None:
                query = query.where(_is_in(state, self._ctx.clock.now()))
            if after is not None:
                query = query.where(number < after if is_newest_first else number > after)
            return self._load(tx, query)

    def list_pending(self, actor: Actor, archive_id: UUID) -> list[Invitation]:
        """What waits to give somebody a role on an archive, or on what it belongs to; for those who manage it."""
        with self._ctx.db.begin() as tx:
            archive = require_archive(tx, self._ctx, actor, Action.MANAGE, archive_id)
            open_ones = (
                invitations.c.accepted_at.is_(None),
                invitations.c.revoked_at.is_(None),
                invitations.c.on_id.in_(places_of(archive.thing())),
            )
            found = self._load(tx, select(invitations).where(*open_ones).order_by(invitations.c.id))
        now = self._ctx.clock.now()
        return [one for one in found if one.state(now) is InvitationState.PENDING]

    # Who is invited

    def look(self, key: str) -> InvitationCard:
        """What an invitation is about, for whoever has its key; raises InvitationEndedError."""
        with self._ctx.db.begin() as tx:
            return self._card(tx, self._require_key(tx, key))

    def accept(self, actor: Actor, key: str) -> Invitation:
        """Take the role as who is logged in; safe to call twice. Raises InvitationEndedError, KnownAlreadyError."""
        identity_id = require_self_management(actor)
        with self._redeeming(key, accepted_by=identity_id) as (tx, one):
            if one.accepted_at is not None:
                return one
            if one.role is None:
                raise KnownAlreadyError("This invitation is for somebody who has no login here yet.")
            return self._redeem(tx, one, actor)

    def join_with_password(
        self,
        key: str,
        *,
        login: str,
        password: str,
        display_name: str,
        client: Client,
        accept_terms: int | None = None,
    ) -> tuple[str, Actor]:
        """Become an identity with a login of one's choice, take the role, and open a session.

        Raises InvitationEndedError, GuestsNotTakenError, TermsNotAcceptedError, WeakPasswordError, NameTakenError; the
        key is good after all but the first.
        """
        self._require_joinable(self.look(key))
        joiner = self._ctx.identity.joins_with_password(login, password, display_name)
        return self._join(key, joiner, client, accept_terms)

    def join_from_outside(
        self,
        key: str,
        arrival: Arrival,
        *,
        client: Client,
        display_name: str | None = None,
        accept_terms: int | None = None,
    ) -> tuple[str, Actor]:
        """As who one was shown to be elsewhere: log in, or become an identity, and take the role."""
        card = self.look(key)
        try:
            secret, actor = self._ctx.identity.arrive(arrival, client, accept_terms=accept_terms)
        except (UnknownPersonError, ApplicationPendingError, ApplicationRefusedError):
            self._require_joinable(card)
            joiner = self._ctx.identity.joins_from_outside(arrival, display_name)
            return self._join(key, joiner, client, accept_terms)
        if card.invitation.role is not None:
            self.accept(actor, key)
        return secret, actor

    def forget_decided(self) -> int:
        """Remove what was decided or ended long ago, with the addresses in it; for a daily job."""
        old = self._ctx.clock.now() - _FORGET_AFTER
        with self._ctx.db.begin() as tx:
            return tx.execute(delete(invitations).where(invitations.c.expires_at < old)).rowcount

    # Within

    def _join(self, key: str, joiner: Joiner, client: Client, accept_terms: int | None) -> tuple[str, Actor]:
        with naming("login name"), self._redeeming(key) as (tx, one):
            inviter = self._require_inviter(tx, one)
            if one.by_manager and not self._manages(tx, inviter, one.organisation_id):
                one = replace(one, by_manager=False, quota_bytes=_GUEST_QUOTA)  # he was, and is not any more
            self._require_joinable(self._card(tx, one))
            secret, actor = self._ctx.identity.join_in(
                tx,
                inviter,
                joiner,
                organisation_id=one.organisation_id,
                address=one.address,
                quota_bytes=one.quota_bytes,
                client=client,
                accept_terms=accept_terms,
            )
            self._redeem(tx, one, actor)
        return secret, actor

    @contextmanager
    def _redeeming(self, key: str, *, accepted_by: UUID | None = None) -> Iterator[tuple[Connection, Invitation]]:
        """A transaction in which nobody else uses the key; its journal is safe at the end, where an archive changes."""
        with self._ctx.db.begin() as tx:
            known = self._require_key(tx, key, accepted_by=accepted_by)
        is_archive = known.on_kind == "archive" and known.on_id is not None
        begin: Callable[[], Any] = self._ctx.db.begin  # Any: both are context managers of a connection
        with self._ctx.changing(cast(UUID, known.on_id)) if is_archive else begin() as tx:
            yield tx, self._require_key(tx, key, lock=True, accepted_by=accepted_by)

    def _require_key(
        self, tx: Connection, key: str, *, lock: bool = False, accepted_by: UUID | None = None
    ) -> Invitation:
        query = select(invitations).where(invitations.c.digest == digest_secret(key))
        row = tx.execute(query.with_for_update() if lock else query).first()
        one = None if row is None else _invitation(row)
        if one is not None and one.accepted_by is not None and one.accepted_by == accepted_by:
            return one
        if one is None or one.state(self._ctx.clock.now()) is not InvitationState.PENDING:
            raise InvitationEndedError("This invitation is not good.")
        return one

    def _redeem(self, tx: Connection, one: Invitation, actor: Actor) -> Invitation:
        identity_id = require_identity(actor)
        inviter = self._require_inviter(tx, one)
        with _ending_where_it_cannot_be_given():
            self._give(tx, inviter, one, identity_id)
        now = self._ctx.clock.now()
        accepted = {"accepted_at": now, "accepted_by": identity_id}
        tx.execute(update(invitations).where(invitations.c.id == one.id).values(**accepted))
        self._ctx.identity.drop_mail_in(tx, one.id)
        self._record(tx, facts.INVITATION_ACCEPTED, actor, one, identity=str(identity_id))
        return replace(one, accepted_at=now, accepted_by=identity_id)

    def _give(self, tx: Connection, inviter: Actor, one: Invitation, identity_id: UUID) -> None:
        """Give the role in the name of who invited, if he still may; a lasting one that is there stays lasting."""
        identity = self._ctx.identity
        if one.role is None or one.on_id is None or one.on_kind is None:
            identity.require(tx, inviter, Action.MANAGE_ORGANISATION, OrganisationThing(one.organisation_id))
            return
        for grant in identity.list_grants_in(tx, one.on_id):
            is_lasting = grant.expires_at is None and not grant.requires
            if grant.to.identity_id == identity_id and grant.role is one.role and is_lasting:
                return
        to, ending = Grantee(identity_id=identity_id), {"expires_at": one.role_until, "requires": one.requires}
        if one.on_kind == "archive":
            roles.grant_in(tx, self._ctx, inviter, one.on_id, to, one.role, **ending)  # type: ignore[arg-type]
            return
        thing, _, _ = self._find_thing(tx, inviter, one.on_kind, one.on_id)
        identity.grant_in(tx, inviter, thing, to, one.role, **ending)  # type: ignore[arg-type]

    def _require_inviter(self, tx: Connection, one: Invitation) -> Actor:
        row = tx.execute(
            select(invitations.c.proofs, invitations.c.entitlements).where(invitations.c.id == one.id)
        ).one()
        login = replace(SYSTEM, proofs=frozenset(row.proofs), known_as=frozenset(row.entitlements))
        inviter = self._ctx.identity.find_actor_in(tx, one.invited_by, asked_as=login)
        if inviter is None:
            raise InvitationEndedError("Who invited you is not here any more.")
        return inviter

    def _require_giver(
        self, tx: Connection, actor: Actor, wanted: InvitationRequest
    ) -> tuple[UUID, str, frozenset[str]]:
        """The organisation, what the thing is called, and what the role demands, when the actor may invite to it."""
        identity = self._ctx.identity
        if wanted.on_kind is None or wanted.on_id is None or wanted.role is None:
            home = wanted.organisation_id or actor.organisation_id
            if home is None:
                raise BadInputError("Say to which organisation.", field="organisation_id")
            identity.require(tx, actor, Action.MANAGE_ORGANISATION, OrganisationThing(home))
            return home, self._organisation_name(tx, home), frozenset()
        thing, home, label = self._find_thing(tx, actor, wanted.on_kind, wanted.on_id)
        if wanted.on_kind == "archive":
            roles.require_grantable(tx, self._ctx, actor, wanted.on_id)
        demands = identity.check_grant_in(
            tx, actor, thing, wanted.role, expires_at=wanted.role_until, requires=wanted.requires
        )
        return home, label, demands

    def _find_thing(self, tx: Connection, actor: Actor, on_kind: OnKind, on_id: UUID) -> tuple[GrantedThing, UUID, str]:
        """The thing, its organisation and what it is called, when the actor gives and takes roles on it."""
        identity = self._ctx.identity
        if on_kind == "archive":
            archive = require_archive(tx, self._ctx, actor, Action.MANAGE, on_id)
            found = archive.thing()
            return found, found.organisation_id, archive.description.title
        if on_kind == "account":
            account = identity.get_account_in(tx, on_id)
            identity.require(tx, actor, manage_action(account.thing), account.thing)
            return account.thing, account.organisation_id, account.name
        thing = OrganisationThing(on_id)
        identity.require(tx, actor, manage_action(thing), thing)
        return thing, on_id, self._organisation_name(tx, on_id)

    def _require_over(self, tx: Connection, actor: Actor, invitation_id: UUID) -> Invitation:
        """The invitation, locked, for who sent it or may give what it gives."""
        row = tx.execute(select(invitations).where(invitations.c.id == invitation_id).with_for_update()).first()
        if row is None:
            require_identity(actor)
            raise InvitationNotFoundError("There is no such invitation.")
        one = _invitation(row)
        if one.invited_by == actor.identity_id:
            require_self_management(actor)
            return one
        try:
            if one.on_kind is None or one.on_id is None:
                home = OrganisationThing(one.organisation_id)
                self._ctx.identity.require(tx, actor, Action.MANAGE_ORGANISATION, home)
            else:
                self._find_thing(tx, actor, one.on_kind, one.on_id)
        except (NotFoundError, NotAllowedError):
            require_identity(actor)
            raise InvitationNotFoundError("There is no such invitation.") from None
        return one

    def _require_joinable(self, card: InvitationCard) -> None:
        if not card.may_join:
            raise GuestsNotTakenError("Who invited you does not manage the organisation.")

    def _require_room(self, tx: Connection, inviter: UUID, renewed: UUID | None) -> int:
        """How many mails were sent of the renewed one; raises TooManyInvitationsError."""
        since = self._ctx.clock.now() - timedelta(days=1)
        mine = (invitations.c.invited_by == inviter, invitations.c.sent_at > since)
        if tx.execute(select(func.coalesce(func.sum(invitations.c.sent), 0)).where(*mine)).scalar_one() >= _MOST_A_DAY:
            raise TooManyInvitationsError(f"At most {_MOST_A_DAY} invitations a day are sent for one person.")
        sent = tx.execute(select(invitations.c.sent).where(invitations.c.id == renewed)).scalar() or 0
        if sent >= _MOST_SENT:
            raise TooManyInvitationsError(f"This invitation was sent {_MOST_SENT} times.")
        return sent

    def _find_alike(self, tx: Connection, made: Invitation) -> UUID | None:
        """A pending one for the same address and role, locked."""
        alike = (
            func.lower(invitations.c.address) == fold_address(made.address),
            invitations.c.invited_by == made.invited_by,
            invitations.c.organisation_id == made.organisation_id,
            invitations.c.on_id.is_not_distinct_from(made.on_id),
            invitations.c.role.is_not_distinct_from(made.role and made.role.value),
            invitations.c.accepted_at.is_(None),
            invitations.c.revoked_at.is_(None),
        )
        found: UUID | None = tx.execute(select(invitations.c.id).where(*alike).limit(1).with_for_update()).scalar()
        return found

    def _send(self, tx: Connection, actor: Actor, one: Invitation, key: str) -> None:
        letter = write_invitation(self._ctx.settings.public_url, self._card(tx, one), key)
        self._ctx.identity.send_mail_in(tx, letter, about=one.id)
        self._record(tx, facts.INVITATION_SENT, actor, one)

    def _card(self, tx: Connection, one: Invitation) -> InvitationCard:
        names = self._ctx.identity.find_names_in(tx, [one.invited_by])
        return InvitationCard(
            invitation=one,
            organisation=self._organisation_name(tx, one.organisation_id),
            inviter=names.get(one.invited_by, "Somebody"),
            may_join=one.by_manager or self._settings.with_guests,
        )

    def _organisation_name(self, tx: Connection, organisation_id: UUID) -> str:
        only = Reportable(frozenset({organisation_id}))
        return self._ctx.identity.find_organisation_names_in(tx, only).get(organisation_id, "")

    def _manages(self, tx: Connection, actor: Actor, organisation_id: UUID) -> bool:
        home = OrganisationThing(organisation_id)
        return self._ctx.identity.can(tx, actor, Action.MANAGE_ORGANISATION, home)

    def _load(self, tx: Connection, query: Any) -> list[Invitation]:  # Any: a query of all columns
        found = [_invitation(row) for row in tx.execute(query)]
        troubles = self._ctx.identity.find_mail_troubles_in(tx, [one.id for one in found])
        return [replace(one, trouble=troubles.get(one.id)) for one in found]

    def _record(self, tx: Connection, event_type: str, actor: Actor, one: Invitation, **more: object) -> None:
        subject = one.on_id if one.on_kind == "archive" else None
        told = {
            "invitation": str(one.id),
            "organisation": str(one.organisation_id),
            "on_kind": one.on_kind,
            "on_id": one.on_id and str(one.on_id),
            "role": one.role and one.role.value,
            **more,
        }
        self._ctx.events.record(tx, event_type, subject, actor, told)


def _is_in(state: InvitationState, now: datetime) -> ColumnElement[bool]:
    """As `Invitation.state`, for a query."""
    c = invitations.c
    if state is InvitationState.ACCEPTED:
        return c.accepted_at.is_not(None)
    if state is InvitationState.REVOKED:
        return and_(c.accepted_at.is_(None), c.revoked_at.is_not(None))
    ends = func.least(c.expires_at, c.role_until)
    undecided = and_(c.accepted_at.is_(None), c.revoked_at.is_(None))
    return and_(undecided, ends <= now if state is InvitationState.ENDED else ends > now)


def _wait_for_turn(tx: Connection, inviter: UUID) -> None:
    """Let the mails for one person be counted one after the other, until the transaction ends; before any row is
    locked, so that nobody waits in a circle.
    """
    tx.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"invitations of {inviter}", 0))))


@contextmanager
def _ending_where_it_cannot_be_given() -> Iterator[None]:
    """Tell who is invited no more of a thing that he may not see yet than that he came too late."""
    try:
        yield
    except InvitationEndedError:
        raise
    except (NotAllowedError, NotFoundError, ConflictError) as error:
        raise InvitationEndedError("Who invited you may not give this any more, or it is gone.") from error


def _row(one: Invitation, actor: Actor) -> dict[str, object]:
    return {
        "id": one.id,
        "address": one.address,
        "organisation_id": one.organisation_id,
        "on_kind": one.on_kind,
        "on_id": one.on_id,
        "label": one.label,
        "role": one.role and one.role.value,
        "role_until": one.role_until,
        "requires": sorted(one.requires),
        "note": one.note,
        "by_manager": one.by_manager,
        "quota_bytes": one.quota_bytes,
        "invited_by": one.invited_by,
        "proofs": sorted(actor.proofs),
        "entitlements": sorted(name for name in actor.known_as if name.startswith(f"{ENTITLEMENT} ")),
        "invited_at": one.invited_at,
        "sent_at": one.sent_at,
        "expires_at": one.expires_at,
    }


def _invitation(row: Row[Any]) -> Invitation:  # Any: all columns
    return Invitation(
        id=row.id,
        address=row.address,
        organisation_id=row.organisation_id,
        on_kind=row.on_kind,
        on_id=row.on_id,
        label=row.label,
        role=None if row.role is None else Role(row.role),
        role_until=row.role_until,
        requires=frozenset(row.requires),
        note=row.note,
        by_manager=row.by_manager,
        quota_bytes=row.quota_bytes,
        invited_by=row.invited_by,
        invited_at=row.invited_at,
        sent_at=row.sent_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        accepted_at=row.accepted_at,
        accepted_by=row.accepted_by,
    )


def _check_note(note: str) -> str:
    if len(note) > _LONGEST_NOTE or "\0" in note:
        raise BadInputError(f"The note has at most {_LONGEST_NOTE} characters.", field="note")
    return note


def list_invitations_of(tx: Connection, identity_id: UUID) -> list[dict[str, object]]:
    """The invitations that somebody sent or accepted, oldest first, for his export."""
    mine = or_(invitations.c.invited_by == identity_id, invitations.c.accepted_by == identity_id)
    return [
        {
            "id": str(row.id),
            "address": row.address if row.accepted_by == identity_id else None,  # that of another is not told
            "label": row.label,
            "role": row.role,
            "sent_by_you": row.invited_by == identity_id,
            "sent_at": format_time(row.sent_at),
            "accepted_at": format_time(row.accepted_at) if row.accepted_at else None,
        }
        for row in tx.execute(select(invitations).where(mine).order_by(invitations.c.id))
    ]


def forget_invitations_of(tx: Connection, identity_ids: list[UUID]) -> None:
    """Remove the addresses to which persons who are erased were invited."""
    came = invitations.c.accepted_by.in_(identity_ids)
    tx.execute(update(invitations).where(came).values(address="", note=""))
