"""Accounts, grants and groups: who may change what, and who is told of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from perdure.identity import AccessClass, Account, Action, ArchiveThing, Grantee, Role
from perdure.identity.errors import LastOwnerError, NameTakenError, NotLoggedInError
from perdure.identity.model import Held
from perdure.kernel.actor import ANONYMOUS, SYSTEM, Actor
from perdure.kernel.errors import BadInputError, NotAllowedError, NotFoundError
from perdure.kernel.ids import new_id

from .house import House, own_id


def beamline(house: House, owner: Actor, name: str = "P05") -> Account:
    if house.administrator.organisation_id is None:
        raise AssertionError
    return house.identity.create_account(
        house.administrator,
        kind="beamline",
        name=name,
        owner_id=own_id(owner),
        organisation_id=house.administrator.organisation_id,
        quota_bytes=10**15,
    )


def archive_in(account: Account) -> ArchiveThing:
    return ArchiveThing(new_id(), account.id, account.organisation_id, AccessClass.PRIVATE, None, is_closed=False)


def to(actor: Actor) -> Grantee:
    return Grantee(identity_id=actor.identity_id)


def test_everybody_owns_a_personal_account(house: House) -> None:
    ana = house.join("ana")
    account = house.personal(ana)
    assert (account.kind, account.role, account.owner_id, account.quota_bytes) == (
        "personal",
        Role.OWNER,
        ana.identity_id,
        None,
    )
    assert house.identity.get_account(ana, account.id) == account


def test_accounts_are_listed_to_those_who_have_a_role_there(house: House) -> None:
    ana, ben = house.join("ana"), house.join("ben")
    account = beamline(house, ana)
    assert [(one.name, one.role) for one in house.identity.list_accounts(ana)] == [
        ("ana", Role.OWNER),
        ("P05", Role.OWNER),
    ]
    assert [one.name for one in house.identity.list_accounts(ben)] == ["ben"]
    house.identity.grant(ana, account.thing, to(ben), Role.READER)
    house.identity.grant(ana, account.thing, to(ben), Role.CONTRIBUTOR)
    assert [(one.name, one.role) for one in house.identity.list_accounts(ben)][1] == ("P05", Role.CONTRIBUTOR)
    everything = house.identity.list_accounts(house.administrator)
    assert [one.name for one in everything] == ["root", "ana", "ben", "P05"]
    rest = house.identity.list_accounts(house.administrator, after=everything[1].id, limit=1)
    assert [one.name for one in rest] == ["ben"]
    with pytest.raises(NotLoggedInError):
        house.identity.list_accounts(ANONYMOUS)


def test_an_account_that_one_may_not_see_is_not_there(house: House) -> None:
    ana, ben = house.join("ana"), house.join("ben")
    account = beamline(house, ana)
    for wanted in (account.id, new_id()):
        with pytest.raises(NotFoundError) as hidden:
            house.identity.get_account(ben, wanted)
        assert hidden.value.detail == "There is no such account, or you may not see it."
        with pytest.raises(NotFoundError):
            house.identity.change_account(ben, wanted, name="mine")


def test_quota_and_profiles_are_the_administrators_the_name_is_the_managers(house: House) -> None:
    ana = house.join("ana")
    account = beamline(house, ana)
    assert house.identity.change_account(ana, account.id, name="P06").name == "P06"
    with pytest.raises(NotAllowedError):
        house.identity.change_account(ana, account.id, quota_bytes=None)
    with pytest.raises(NotAllowedError):
        house.identity.change_account(ana, account.id, allowed_profiles=None)
    changed = house.identity.change_account(
        house.administrator, account.id, quota_bytes=None, allowed_profiles=["beamline"]
    )
    assert (changed.quota_bytes, changed.allowed_profiles, changed.name) == (None, frozenset({"beamline"}), "P06")
    seen = house.identity.get_account(ana, account.id)
    assert (seen.quota_bytes, seen.allowed_profiles) == (None, frozenset({"beamline"}))
    for quota in (-1, 1 << 63):
        with pytest.raises(BadInputError):
            house.identity.change_account(house.administrator, account.id, quota_bytes=quota)


def test_an_account_has_a_name_of_its_own_and_a_known_kind(house: House) -> None:
    ana = house.join("ana")
    beamline(house, ana)
    with pytest.raises(NameTakenError):
        beamline(house, ana, " p05 ")
    with pytest.raises(NotFoundError):
        house.identity.create_account(ana, kind="group", name="x", owner_id=own_id(ana), organisation_id=new_id())
    home = ana.organisation_id or new_id()
    with pytest.raises(NotAllowedError):
        house.identity.create_account(ana, kind="group", name="x", owner_id=own_id(ana), organisation_id=home)
    for kind, organisation in (("castle", ana.organisation_id), ("group", new_id())):
        with pytest.raises(BadInputError):
            house.identity.create_account(
                SYSTEM, kind=kind, name="x", owner_id=own_id(ana), organisation_id=organisation or new_id()
            )


def test_an_organisation_is_made_by_an_administrator_and_seen_by_its_own(house: House) -> None:
    ana = house.join("ana")
    with pytest.raises(NotAllowedError):
        house.identity.create_organisation(ana, "Institute")
    made = house.identity.create_organisation(house.administrator, "Institute", ror="https://ror.org/01js2sh04")
    assert made in house.identity.list_organisations(house.administrator)
    assert [one.id for one in house.identity.list_organisations(ana)] == [ana.organisation_id]
    with pytest.raises(NameTakenError):
        house.identity.create_organisation(house.administrator, "Institute")


def test_a_manager_gives_up_to_his_own_role_and_takes_no_more(house: House) -> None:
    ana, ben, cleo = house.join("ana"), house.join("ben"), house.join("cleo")
    archive = archive_in(house.personal(ana))
    house.identity.grant(ana, archive, to(ben), Role.MANAGER)
    house.identity.grant(ben, archive, to(cleo), Role.MANAGER)
    owner = house.identity.grant(ana, archive, to(cleo), Role.OWNER)
    with pytest.raises(NotAllowedError):
        house.identity.grant(ben, archive, to(ben), Role.OWNER)
    with pytest.raises(NotAllowedError):
        house.identity.revoke_grant(ben, archive, owner.id)
    house.identity.revoke_grant(ana, archive, owner.id)
    with house.db.begin() as tx:
        assert house.identity.find_roles(tx, cleo, archive) == {Held("archive", Role.MANAGER)}


def test_grants_are_seen_and_given_by_managers_only(house: House) -> None:
    ana, ben, cleo = house.join("ana"), house.join("ben"), house.join("cleo")
    archive = archive_in(house.personal(ana))
    house.identity.grant(ana, archive, to(ben), Role.CONTRIBUTOR)
    acts: list[tuple[Actor, type[Exception]]] = [
        (ben, NotAllowedError),
        (cleo, NotFoundError),
        (ANONYMOUS, NotFoundError),
    ]
    for actor, refusal in acts:
        with pytest.raises(refusal):
            house.identity.list_grants(actor, archive)
        with pytest.raises(refusal):
            house.identity.grant(actor, archive, to(cleo), Role.READER)
        with pytest.raises(refusal):
            house.identity.revoke_grant(actor, archive, new_id())
    with pytest.raises(NotFoundError):
        house.identity.revoke_grant(ana, archive, new_id())
    assert [grant.role for grant in house.identity.list_grants(ana, archive)] == [Role.CONTRIBUTOR]


def test_a_grant_of_another_thing_is_not_revoked_through_mine(house: House) -> None:
    ana, ben = house.join("ana"), house.join("ben")
    (foreign,) = house.identity.list_grants(ben, house.personal(ben).thing)
    with pytest.raises(NotFoundError):
        house.identity.revoke_grant(ana, house.personal(ana).thing, foreign.id)


def test_giving_the_same_role_again_sets_its_end_anew(house: House) -> None:
    ana, archive = house.join("ana"), archive_in(house.personal(house.administrator))
    end = house.clock.now() + timedelta(days=1)
    first = house.identity.grant(house.administrator, archive, to(ana), Role.READER)
    second = house.identity.grant(house.administrator, archive, to(ana), Role.READER, expires_at=end)
    assert (second.id, second.expires_at) == (first.id, end)
    assert len(house.identity.list_grants(house.administrator, archive)) == 1
    with pytest.raises(BadInputError):
        house.identity.grant(house.administrator, archive, to(ana), Role.READER, expires_at=house.clock.now())
    with pytest.raises(BadInputError):
        house.identity.grant(house.administrator, archive, Grantee(new_id()), Role.READER)


def test_everybody_may_lay_down_his_own_role(house: House) -> None:
    ana, archive = house.join("ana"), archive_in(house.personal(house.administrator))
    grant = house.identity.grant(house.administrator, archive, to(ana), Role.READER)
    house.identity.revoke_grant(ana, archive, grant.id)
    with house.db.begin() as tx:
        assert not house.identity.can(tx, ana, Action.READ, archive)


def test_an_account_keeps_a_lasting_owner(house: House) -> None:
    ana, ben = house.join("ana"), house.join("ben")
    account = beamline(house, ana)
    (last,) = house.identity.list_grants(ana, account.thing)
    end = house.clock.now() + timedelta(days=1)
    attempts: list[Callable[[], object]] = [
        lambda: house.identity.revoke_grant(ana, account.thing, last.id),
        lambda: house.identity.revoke_grant(house.administrator, account.thing, last.id),
        lambda: house.identity.grant(ana, account.thing, to(ana), Role.OWNER, expires_at=end),
    ]
    for attempt in attempts:
        with pytest.raises(LastOwnerError):
            attempt()
    house.identity.grant(ana, account.thing, to(ben), Role.OWNER, expires_at=end)
    with pytest.raises(LastOwnerError):
        house.identity.revoke_grant(ana, account.thing, last.id)
    house.identity.grant(ana, account.thing, to(ben), Role.OWNER)
    one, other = [grant.id for grant in house.identity.list_grants(house.administrator, account.thing)]
    house.identity.revoke_grant(house.administrator, account.thing, one)
    with pytest.raises(LastOwnerError):
        house.identity.revoke_grant(house.administrator, account.thing, other)


def test_two_owners_who_leave_at_once_do_not_leave_an_orphan(house: House) -> None:
    ana, ben = house.join("ana"), house.join("ben")
    account = beamline(house, ana)
    house.identity.grant(ana, account.thing, to(ben), Role.OWNER)
    owners = {grant.to.identity_id: grant.id for grant in house.identity.list_grants(ana, account.thing)}
    with ThreadPoolExecutor(1) as pool:
        with house.db.begin() as tx:
            house.identity.revoke_grant_in(tx, ana, account.thing, owners[ana.identity_id])
            second = pool.submit(house.identity.revoke_grant, ben, account.thing, owners[ben.identity_id])
            with pytest.raises(TimeoutError):
                second.result(timeout=0.2)  # it waits to see whether the first one leaves
        with pytest.raises(LastOwnerError):
            second.result(timeout=60)


def test_a_child_gets_its_parents_grants_by_value(house: House) -> None:
    ana, ben, root = house.join("ana"), house.join("ben"), house.administrator
    parent, child = (archive_in(house.personal(root)) for _ in range(2))
    kept = house.identity.grant(root, parent, to(ana), Role.MANAGER)
    house.identity.grant(root, parent, to(ben), Role.READER, expires_at=house.clock.now() + timedelta(hours=1))
    house.clock.move(timedelta(hours=2))
    with house.db.begin() as tx:
        assert house.identity.copy_grants(tx, parent.id, child.id) == 1
        assert house.identity.copy_grants(tx, new_id(), child.id) == 0
    house.identity.revoke_grant(root, parent, kept.id)
    with house.db.begin() as tx:
        assert house.identity.find_roles(tx, ana, child) == {Held("archive", Role.MANAGER)}
        assert not house.identity.find_roles(tx, ana, parent)
        assert house.identity.drop_grants_in(tx, child.id) == 1
        assert not house.identity.find_roles(tx, ana, child)


def test_a_group_is_changed_by_its_managers_and_seen_by_its_members(house: House) -> None:
    ana, ben, cleo = house.join("ana"), house.join("ben"), house.join("cleo")
    group = house.identity.create_group(ana, "Team")
    with pytest.raises(NotFoundError):
        house.identity.get_group(ben, group.id)
    with pytest.raises(NotFoundError):
        house.identity.add_member(ben, group.id, own_id(ben))
    house.identity.add_member(ana, group.id, own_id(ben))
    with pytest.raises(NotAllowedError):
        house.identity.add_member(ben, group.id, own_id(cleo))
    with pytest.raises(NotAllowedError):
        house.identity.remove_member(ben, group.id, own_id(ana))
    assert house.identity.get_group(ben, group.id).members == {ana.identity_id, ben.identity_id}
    house.identity.add_member(ana, group.id, own_id(ben), is_manager=True)
    house.identity.add_member(ben, group.id, own_id(cleo))
    assert house.identity.list_own_groups(cleo) == [group.id]
    house.identity.remove_member(cleo, group.id, own_id(cleo))
    house.identity.remove_member(cleo, group.id, own_id(cleo))
    assert house.identity.list_own_groups(cleo) == []
    assert [one.name for one in house.identity.list_groups(ben)] == ["Team"]
    assert house.identity.list_groups(cleo) == []
    assert [one.id for one in house.identity.list_groups(house.administrator)] == [group.id]
    with pytest.raises(NameTakenError):
        house.identity.create_group(cleo, "TEAM")
    with pytest.raises(BadInputError):
        house.identity.add_member(ana, group.id, new_id())


def test_somebody_is_found_by_his_login_by_those_inside_only(house: House) -> None:
    ana = house.join("ana")
    found = house.identity.find_identity(ana, "ROOT")
    assert found is not None
    assert found.id == house.administrator.identity_id
    assert found.is_administrator is None
    shown = house.identity.find_identity(house.administrator, "root")
    assert shown is not None
    assert shown.is_administrator is True
    assert house.identity.get_identity(ana, own_id(ana)).is_administrator is False
    assert house.identity.find_identity(ana, "nobody") is None
    assert house.identity.get_identity(ana, found.id) == found
    with pytest.raises(NotFoundError):
        house.identity.get_identity(ana, new_id())
    with pytest.raises(NotLoggedInError):
        house.identity.find_identity(ANONYMOUS, "root")
    with pytest.raises(NotAllowedError):
        house.identity.list_identities(ana)
    assert [one.display_name for one in house.identity.list_identities(house.administrator)] == ["root", "Ana"]
    assert house.identity.find_names(ana, [found.id, new_id()]) == {found.id: "root"}
    assert house.identity.find_names(ANONYMOUS, [found.id]) == {}


def test_every_change_is_told_with_who_made_it(house: House) -> None:
    before = len(house.told())
    ana = house.join("ana")
    archive = archive_in(house.personal(ana))
    grant = house.identity.grant(ana, archive, to(house.administrator), Role.READER)
    house.identity.revoke_grant(ana, archive, grant.id)
    told = house.told(since=before)
    assert [event.type for event in told] == [
        "identity.created",
        "account.created",
        "grant.given",
        "session.opened",
        "grant.given",
        "grant.revoked",
    ]
    assert [event.subject for event in told[-2:]] == [archive.id, archive.id]
    assert told[0].actor_id == house.administrator.identity_id
    assert {event.actor_id for event in told[3:]} == {ana.identity_id}
