"""An archive gets another owner in one act: who may, what moves, what it needs room for, and what a rebuild finds."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import text

from perdure.archives.errors import (
    NoRoomError,
    ProfileNotOfferedError,
    TransferNotFoundError,
    TransferPendingError,
    TransferVoidError,
    UploadsUnfinishedError,
)
from perdure.archives.exporting import export_events, export_registry
from perdure.archives.filling import Filling
from perdure.archives.finding import use_of
from perdure.archives.model import Archive
from perdure.archives.rebuild import compare, rebuild
from perdure.archives.records import Context
from perdure.archives.transferring import Transferring
from perdure.identity import Action, Grantee, OrganisationThing, PassOn, PassOnLimit, Role
from perdure.identity.errors import PassingOnError
from perdure.kernel.actor import Actor
from perdure.kernel.errors import BadInputError, NotAllowedError, NotFoundError

from .house import House


def may(house: House, actor: Actor, archive: Archive) -> frozenset[Action]:
    with house.ctx.db.begin() as tx:
        return house.ctx.identity.actions(tx, actor, house.look(archive.id).thing())


def used(house: House, actor: Actor) -> tuple[int, int]:
    usage = use_of(house.ctx, actor, house.ctx.identity.get_personal_account(actor).id)
    return usage.files, usage.bytes


def test_who_accepts_owns_it_in_his_own_account(house: House, ada: Actor, bob: Actor, fresh: Context) -> None:
    transferring = Transferring(house.ctx)
    archive = house.open(ada)
    house.fill(archive, {b"a": b"12345", b"b": b"678"})
    house.close(archive)
    offered = transferring.offer(ada, archive.id, bob.identity_id or archive.id)
    with pytest.raises(TransferPendingError):
        transferring.offer(ada, archive.id, house.join("cleo").identity_id or archive.id)
    assert not may(house, bob, archive)
    assert [one.id for one in transferring.list_offers(bob)] == [offered.id]
    assert (used(house, ada), used(house, bob)) == ((2, 8), (0, 0))
    moved = transferring.accept(bob, offered.id)
    assert moved.account_id == house.ctx.identity.get_personal_account(bob).id
    assert Action.WITHDRAW in may(house, bob, archive)
    assert not may(house, ada, archive)
    assert (used(house, ada), used(house, bob)) == ((0, 0), (2, 8))
    with pytest.raises(TransferNotFoundError):
        transferring.accept(bob, offered.id)
    (told,) = [event.data for event in house.told(archive.id) if event.type == "archive.transferred"]
    assert (told["from"], told["to"]) == ([str(ada.identity_id)], str(bob.identity_id))
    export_registry(house.ctx)
    export_events(house.ctx)
    assert rebuild(fresh).problems == []
    assert compare(house.ctx.db, fresh.db) == []


def test_the_account_may_stay_and_the_other_roles_do(house: House, ada: Actor, bob: Actor) -> None:
    transferring, cleo = Transferring(house.ctx), house.join("cleo")
    home = house.ctx.identity.get_personal_account(ada)
    archive = house.open(ada)
    house.life.grant(ada, archive.id, Grantee(identity_id=ada.identity_id), Role.OWNER)
    house.life.grant(ada, archive.id, Grantee(identity_id=cleo.identity_id), Role.READER)
    offered = transferring.offer(ada, archive.id, bob.identity_id or home.id, keeps_account=True)
    assert transferring.accept(bob, offered.id).account_id == home.id
    roles = {(one.to.identity_id, one.role) for one in house.life.list_grants(bob, archive.id)}
    assert roles == {(bob.identity_id, Role.OWNER), (cleo.identity_id, Role.READER)}


def test_who_may_not_give_it_or_cannot_hold_it_is_told(house: House, ada: Actor, bob: Actor) -> None:
    transferring, identity = Transferring(house.ctx), house.ctx.identity
    archive = house.open(ada)
    house.fill(archive, {b"a": b"12345"})
    to = bob.identity_id or archive.id
    with pytest.raises(NotFoundError):
        transferring.offer(bob, archive.id, to)
    manager = house.join("cleo")
    grant = house.life.grant(ada, archive.id, Grantee(identity_id=manager.identity_id), Role.MANAGER)
    with pytest.raises(NotAllowedError):
        transferring.offer(manager, archive.id, to)
    for nobody in (ada.identity_id, grant.id):
        with pytest.raises(BadInputError):
            transferring.offer(ada, archive.id, nobody or to)
    offered = transferring.offer(ada, archive.id, to)
    with pytest.raises(TransferNotFoundError):
        transferring.accept(manager, offered.id)
    account = identity.get_personal_account(bob)
    identity.change_account(house.administrator, account.id, quota_bytes=4)
    with pytest.raises(NoRoomError, match="4 bytes of the account"):
        transferring.accept(bob, offered.id)
    identity.change_account(house.administrator, account.id, quota_bytes=None, allowed_profiles=["beamline"])
    with pytest.raises(ProfileNotOfferedError):
        transferring.accept(bob, offered.id)
    identity.change_account(house.administrator, account.id, allowed_profiles=None, quota_files=0)
    with pytest.raises(NoRoomError, match="0 files"):
        transferring.accept(bob, offered.id)
    identity.change_account(house.administrator, account.id, quota_files=None)
    upload = Filling(house.ctx).begin_file(ada, archive.id, b"b", 3)
    with pytest.raises(UploadsUnfinishedError):
        transferring.accept(bob, offered.id)
    upload.abort()
    assert (used(house, ada), used(house, bob)) == ((1, 5), (0, 0))
    assert transferring.accept(bob, offered.id).account_id == account.id


def test_an_offer_ends_and_is_answered(house: House, ada: Actor, bob: Actor) -> None:
    transferring = Transferring(house.ctx)
    archive = house.open(ada)
    to = bob.identity_id or archive.id
    first = transferring.offer(ada, archive.id, to)
    transferring.decline(bob, first.id)
    second = transferring.offer(ada, archive.id, to)
    transferring.decline(ada, second.id)
    third = transferring.offer(ada, archive.id, to)
    house.clock.move(days=30)
    with pytest.raises(TransferNotFoundError):
        transferring.accept(bob, third.id)
    fourth = transferring.offer(ada, archive.id, to)
    transferring.transfer_now(house.administrator, archive.id, house.administrator.identity_id or to)
    assert not transferring.list_offers(bob)
    with pytest.raises(TransferNotFoundError):
        transferring.accept(bob, fourth.id)
    other = house.open(ada)
    void = transferring.offer(ada, other.id, to)
    house.ctx.identity.disable_identity(house.administrator, ada.identity_id or to)
    with pytest.raises(TransferVoidError):
        transferring.accept(bob, void.id)


def test_those_who_manage_the_organisation_do_it_at_once(house: House, ada: Actor, bob: Actor) -> None:
    transferring, identity, cleo = Transferring(house.ctx), house.ctx.identity, house.join("cleo")
    archive, home = house.open(ada), ada.organisation_id
    assert home is not None
    to = bob.identity_id or home
    with pytest.raises(NotAllowedError):
        transferring.transfer_now(ada, archive.id, to)
    identity.grant(house.administrator, OrganisationThing(home), Grantee(identity_id=cleo.identity_id), Role.MANAGER)
    assert transferring.transfer_now(cleo, archive.id, to).account_id == identity.get_personal_account(bob).id
    away = identity.create_organisation(house.administrator, "Away").id
    foreign = identity.create_account(
        house.administrator, kind="group", name="Foreign", owner_id=to, organisation_id=away, quota_bytes=None
    )
    with pytest.raises(NotFoundError):
        transferring.transfer_now(cleo, archive.id, to, account_id=foreign.id)
    moved = transferring.transfer_now(house.administrator, archive.id, to, account_id=foreign.id)
    assert (moved.account_id, moved.organisation_id) == (foreign.id, away)


def test_of_two_who_move_at_once_nothing_is_counted_twice(house: House, ada: Actor, bob: Actor) -> None:
    """There and back again by two threads: no deadlock, and each byte is in one account."""
    transferring = Transferring(house.ctx)
    mine, his = house.open(ada), house.open(bob)
    house.fill(mine, {b"a": b"12345"})
    house.fill(his, {b"a": b"123"})
    offers = [
        (bob, transferring.offer(ada, mine.id, bob.identity_id or mine.id)),
        (ada, transferring.offer(bob, his.id, ada.identity_id or his.id)),
    ]
    failed: list[Exception] = []

    def accept(who: Actor, offer_id: object) -> None:
        try:
            transferring.accept(who, offer_id)  # type: ignore[arg-type]  # an id
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=accept, args=(who, offer.id)) for who, offer in offers for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [type(error) for error in failed] == [TransferNotFoundError] * 2
    assert (used(house, ada), used(house, bob)) == ((1, 3), (1, 5))
    with house.ctx.db.begin() as tx:
        assert tx.execute(text("SELECT count(*) FROM events WHERE type = 'archive.transferred'")).scalar() == 2


def test_what_is_passed_on_to_some_only_goes_no_further_by_another_owner(house: House, ada: Actor, bob: Actor) -> None:
    """Whoever gets the archive into his account owns it by that, so such a role moves it into none."""
    transferring, identity, root = Transferring(house.ctx), house.ctx.identity, house.administrator
    home, cleo = ada.organisation_id, house.join("cleo")
    assert home is not None
    to = cleo.identity_id or home
    archive = house.open(ada)
    limit = PassOnLimit(PassOn.ORGANISATION, home)
    house.life.grant(ada, archive.id, Grantee(identity_id=bob.identity_id), Role.OWNER, pass_on=limit)
    with pytest.raises(PassingOnError, match="stays in its account"):
        transferring.offer(bob, archive.id, to)
    transferring.accept(cleo, transferring.offer(bob, archive.id, to, keeps_account=True).id)
    (given,) = [one for one in house.life.list_grants(cleo, archive.id) if one.to.identity_id == to]
    assert (given.role, given.pass_on) == (Role.OWNER, PassOnLimit(PassOn.NOBODY))
    with pytest.raises(PassingOnError):
        house.life.grant(cleo, archive.id, Grantee(identity_id=bob.identity_id), Role.READER)
    other = house.open(ada)
    wide = house.life.grant(ada, other.id, Grantee(identity_id=bob.identity_id), Role.OWNER)
    offered = transferring.offer(bob, other.id, to)
    house.life.grant(root, other.id, wide.to, Role.OWNER, pass_on=limit)
    with pytest.raises(TransferVoidError):
        transferring.accept(cleo, offered.id)
    account = identity.create_account(root, kind="group", name="Shared", owner_id=to, organisation_id=home)
    identity.grant(root, account.thing, wide.to, Role.OWNER, pass_on=limit)
    identity.transfer_account(bob, account.id, ada.identity_id or home)
    (made,) = [one for one in identity.list_grants(root, account.thing) if one.to.identity_id == ada.identity_id]
    assert made.pass_on == PassOnLimit(PassOn.NOBODY)


def test_who_manages_the_organisation_for_a_time_takes_nothing_for_ever(house: House, ada: Actor, bob: Actor) -> None:
    archive, home = house.open(ada), OrganisationThing(ada.organisation_id or house.open(ada).id)
    tomorrow = house.clock.now() + timedelta(days=1)
    to = Grantee(identity_id=bob.identity_id)
    house.ctx.identity.grant(house.administrator, home, to, Role.MANAGER, expires_at=tomorrow)
    with pytest.raises(PassingOnError, match="Your own role ends"):
        Transferring(house.ctx).transfer_now(bob, archive.id, bob.identity_id or home.id)
