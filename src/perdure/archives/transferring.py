"""Handing an archive over in one act: the owner's role, and with it the account that holds it if that is wished.

An owner offers and the new one accepts, so that nobody is given what fills his quota; those who manage the
organisation do it at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, insert, or_, select, update

from perdure.archives import events
from perdure.archives.errors import (
    ProfileNotOfferedError,
    TransferNotFoundError,
    TransferPendingError,
    TransferVoidError,
    UploadsUnfinishedError,
)
from perdure.archives.model import Archive, ArchiveState
from perdure.archives.placing import add_usage, require_account_room, select_active_uploads
from perdure.archives.profiles import may_choose
from perdure.archives.records import Context, load, require_archive, require_state, save_change
from perdure.archives.roles import change_grants, require_mandatory_roles
from perdure.archives.tables import parts, transfers
from perdure.identity.callers import require_identity, require_self_management, require_self_reader
from perdure.identity.errors import PassingOnError
from perdure.identity.model import Account, Action, Grantee, OrganisationThing, PassOnLimit, Role
from perdure.kernel.actor import Actor, ActorKind
from perdure.kernel.errors import BadInputError, NotAllowedError, NotFoundError
from perdure.kernel.ids import new_id

OFFER_LASTS = timedelta(days=30)
_PENDING = "pending"
_STATES = (ArchiveState.OPEN, ArchiveState.CLOSED)
_MOST_LISTED = 1000


@dataclass(frozen=True, slots=True)
class Transfer:
    """An offer; with `keeps_account` the archive stays where it is, and only the owner's role moves."""

    id: UUID
    archive_id: UUID
    title: str
    size: int
    from_id: UUID
    to_id: UUID
    keeps_account: bool
    state: str
    offered_at: datetime
    expires_at: datetime


class Transferring:
    """Offers, their answers, and transfers at once; safe to share between threads."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def offer(self, actor: Actor, archive_id: UUID, to_id: UUID, *, keeps_account: bool = False) -> Transfer:
        """Offer an archive that one owns to somebody, who has a month to accept; raises TransferPendingError."""
        ctx, now = self._ctx, self._ctx.clock.now()
        with ctx.db.begin() as tx:
            archive = require_archive(tx, ctx, actor, Action.MANAGE, archive_id, lock=True)
            from_id = require_identity(actor)
            self._require_passing_on(tx, actor, archive, to_id, keeps_account=keeps_account)
            require_state(archive, *_STATES)
            if to_id == from_id or self._find_person(tx, to_id) is None:
                raise BadInputError("Name somebody else, who can log in here.", field="to")
            over = (transfers.c.archive_id == archive_id) & (transfers.c.state == _PENDING)
            tx.execute(
                update(transfers).where(over, transfers.c.expires_at <= now).values(state="taken_back", decided_at=now)
            )
            if tx.execute(select(transfers.c.id).where(over)).first() is not None:
                raise TransferPendingError("The archive is offered to somebody already.")
            row = {
                "id": new_id(),
                "archive_id": archive_id,
                "from_id": from_id,
                "to_id": to_id,
                "keeps_account": keeps_account,
                "state": _PENDING,
                "offered_at": now,
                "expires_at": now + OFFER_LASTS,
            }
            made = tx.execute(insert(transfers).values(row).returning(transfers)).one()
            told = {"transfer": str(made.id), "to": str(to_id), "keeps_account": keeps_account}
            ctx.events.record(tx, events.TRANSFER_OFFERED, archive_id, actor, told)
            return _transfer(made, archive)

    def list_offers(self, actor: Actor) -> list[Transfer]:
        """The offers that wait, to the caller and by him, newest first."""
        identity_id = require_self_reader(actor)
        c = transfers.c
        mine = or_(c.from_id == identity_id, c.to_id == identity_id)
        query = select(transfers).where(mine, c.state == _PENDING, c.expires_at > self._ctx.clock.now())
        with self._ctx.db.begin() as tx:
            rows = tx.execute(query.order_by(c.id.desc()).limit(_MOST_LISTED)).all()
            return [_transfer(row, load(tx, row.archive_id)) for row in rows]

    def accept(self, actor: Actor, transfer_id: UUID, *, account_id: UUID | None = None) -> Archive:
        """Take over what was offered, into one's personal account unless another is named or it stays where it is.

        Raises TransferVoidError when who offered it may not give it any more, NoRoomError when the account cannot hold
        it, and ProfileNotOfferedError, UploadsUnfinishedError.
        """
        ctx, identity_id = self._ctx, require_self_management(actor)
        with ctx.db.begin() as tx:
            archive_id = self._require_offer(tx, identity_id, transfer_id).archive_id
        with ctx.changing(archive_id) as tx:
            archive = load(tx, archive_id, lock=True)
            row = self._require_offer(tx, identity_id, transfer_id, lock=True)
            require_state(archive, *_STATES)
            pass_on = self._require_giver(tx, archive, row)
            account = None if row.keeps_account else self._choose_account(tx, actor, account_id)
            self._hand_over(tx, actor, archive, [row.from_id], identity_id, account, pass_on)
            self._decide(tx, row.id, "accepted")
        with ctx.db.begin() as tx:
            return load(tx, archive_id)

    def decline(self, actor: Actor, transfer_id: UUID) -> None:
        """Say no to an offer, or take back one's own."""
        identity_id = require_self_management(actor)
        with self._ctx.db.begin() as tx:
            row = self._require_offer(tx, identity_id, transfer_id, lock=True, is_own_too=True)
            is_own = row.from_id == identity_id
            self._decide(tx, row.id, "taken_back" if is_own else "declined")
            event = events.TRANSFER_TAKEN_BACK if is_own else events.TRANSFER_DECLINED
            self._ctx.events.record(tx, event, row.archive_id, actor, {"transfer": str(row.id)})

    def transfer_now(
        self,
        actor: Actor,
        archive_id: UUID,
        to_id: UUID,
        *,
        keeps_account: bool = False,
        account_id: UUID | None = None,
    ) -> Archive:
        """Make somebody the owner at once, in the place of all who own the archive by themselves; for those who manage
        its organisation. It moves into his personal account unless another is named or it stays where it is.

        Raises what `accept` raises.
        """
        ctx = self._ctx
        with ctx.changing(archive_id) as tx:
            archive = require_archive(tx, ctx, actor, Action.MANAGE, archive_id, lock=True)
            home = OrganisationThing(archive.organisation_id)
            ctx.identity.require(tx, actor, Action.MANAGE_ORGANISATION, home)
            require_state(archive, *_STATES)
            person = self._find_person(tx, to_id)
            if person is None:
                raise BadInputError("Nobody who can log in here has this identity.", field="to")
            pass_on = self._require_passing_on(tx, actor, archive, to_id, keeps_account=keeps_account)
            account = None if keeps_account else self._choose_account(tx, person, account_id)
            if account is not None:
                away = OrganisationThing(account.organisation_id)
                ctx.identity.require(tx, actor, Action.MANAGE_ORGANISATION, away)
            owners = [
                grant.to.identity_id
                for grant in ctx.identity.list_grants_in(tx, archive_id)
                if grant.role is Role.OWNER and grant.to.identity_id is not None
            ]
            self._hand_over(tx, actor, archive, owners, to_id, account, pass_on)
            pending = (transfers.c.archive_id == archive_id) & (transfers.c.state == _PENDING)
            over = update(transfers).where(pending).values(state="taken_back", decided_at=ctx.clock.now())
            tx.execute(over)
        with ctx.db.begin() as tx:
            return load(tx, archive_id)

    def _find_person(self, tx: Connection, identity_id: UUID) -> Actor | None:
        found = self._ctx.identity.find_actor_in(tx, identity_id)
        return found if found is not None and found.kind is ActorKind.PERSON else None

    def _require_offer(
        self, tx: Connection, identity_id: UUID, transfer_id: UUID, *, lock: bool = False, is_own_too: bool = False
    ) -> Row[Any]:  # Any: all columns
        query = select(transfers).where(transfers.c.id == transfer_id)
        row = tx.execute(query.with_for_update() if lock else query).first()
        people = set() if row is None else {row.to_id, *([row.from_id] if is_own_too else [])}
        if row is None or identity_id not in people:
            raise TransferNotFoundError("There is no such offer.")
        if row.state != _PENDING or row.expires_at <= self._ctx.clock.now():
            raise TransferNotFoundError("The offer was answered or taken back, or it has ended.")
        return row

    def _require_passing_on(
        self, tx: Connection, giver: Actor, archive: Archive, to_id: UUID, *, keeps_account: bool
    ) -> PassOnLimit | None:
        """To whom its new owner may pass the role on; raises PassingOnError.

        Whoever has the archive in his account owns it without a limit, so a limited role moves it into none.
        """
        to = Grantee(identity_id=to_id)
        limit = self._ctx.identity.require_giver_in(tx, giver, archive.thing(), to, Role.OWNER)
        if limit is not None and not keeps_account:
            raise PassingOnError("Your role here may be passed on to some only: the archive stays in its account.")
        return limit

    def _require_giver(self, tx: Connection, archive: Archive, row: Row[Any]) -> PassOnLimit | None:  # Any: an offer
        """Who offered it must be able to give it still; to whom it may be passed on."""
        ctx = self._ctx
        giver = ctx.identity.find_actor_in(tx, row.from_id, asked_as=ctx.identity.best_login_in(tx))
        try:
            if giver is None:
                raise NotAllowedError("He cannot log in any more.")
            ctx.identity.require(tx, giver, Action.MANAGE, archive.thing())
            return self._require_passing_on(tx, giver, archive, row.to_id, keeps_account=row.keeps_account)
        except (NotAllowedError, NotFoundError):
            raise TransferVoidError("Who offered this archive does not own it any more.") from None

    def _choose_account(self, tx: Connection, owner: Actor, account_id: UUID | None) -> Account:
        identity = self._ctx.identity
        if account_id is None:
            account = identity.get_personal_account_in(tx, require_identity(owner))
        else:
            account = identity.get_account_in(tx, account_id)
        identity.require(tx, owner, Action.OPEN_ARCHIVE, account.thing)
        return account

    def _hand_over(
        self,
        tx: Connection,
        actor: Actor,
        archive: Archive,
        from_ids: list[UUID],
        to_id: UUID,
        account: Account | None,
        pass_on: PassOnLimit | None,
    ) -> None:
        ctx = self._ctx
        thing = archive.thing()
        hand_over = partial(ctx.identity.hand_over_in, tx, actor, thing, from_ids, to_id, pass_on=pass_on)
        moved = archive = change_grants(tx, ctx, actor, archive, hand_over)
        if account is not None and account.id != archive.account_id:
            self._move_usage(tx, archive, account)
            moved = replace(archive, account_id=account.id, organisation_id=account.organisation_id)
            moved = save_change(tx, ctx, actor, archive, moved, event=None)
        require_mandatory_roles(tx, ctx, moved, moved.profile)
        told = {
            "from": [str(one) for one in sorted(from_ids)],
            "to": str(to_id),
            "from_account": str(archive.account_id),
            "account": str(moved.account_id),
        }
        ctx.events.record(tx, events.ARCHIVE_TRANSFERRED, archive.id, actor, told)

    def _move_usage(self, tx: Connection, archive: Archive, account: Account) -> None:
        """Let another account hold what the archive has, if it may and can."""
        if not may_choose(account, archive.profile.name):
            raise ProfileNotOfferedError(f"The account {account.name} may not have the profile {archive.profile.name}.")
        waiting = tx.execute(select_active_uploads(archive.id).with_only_columns(func.count())).scalar_one()
        if waiting:
            raise UploadsUnfinishedError(f"{waiting} uploads into the archive are going on.")
        held = select(func.coalesce(func.sum(parts.c.file_count), 0), func.coalesce(func.sum(parts.c.byte_count), 0))
        files, size = map(int, tx.execute(held.where(parts.c.archive_id == archive.id)).one())
        given, taken = {"files": -files, "size": -size}, {"files": files, "size": size}
        # In one order for all: two that go crosswise would wait for each other
        for account_id, change in sorted({archive.account_id: given, account.id: taken}.items()):
            add_usage(tx, account_id, **change)
        require_account_room(tx, self._ctx, archive, account, size)

    def _decide(self, tx: Connection, transfer_id: UUID, state: str) -> None:
        own = update(transfers).where(transfers.c.id == transfer_id)
        tx.execute(own.values(state=state, decided_at=self._ctx.clock.now()))


def _transfer(row: Row[Any], archive: Archive) -> Transfer:  # Any: all columns
    return Transfer(
        id=row.id,
        archive_id=row.archive_id,
        title=archive.description.title,
        size=archive.byte_count,
        from_id=row.from_id,
        to_id=row.to_id,
        keeps_account=row.keeps_account,
        state=row.state,
        offered_at=row.offered_at,
        expires_at=row.expires_at,
    )
