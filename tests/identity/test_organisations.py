"""Those who manage an organisation act inside it and nowhere else, and never over an administrator."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest

from perdure.identity import Grantee, OrganisationThing, Role
from perdure.kernel.actor import Actor, TokenScope
from perdure.kernel.errors import BadInputError, NotAllowedError, NotFoundError

from .house import PASSWORD, House, own_id
from .test_matrix import archive_of

OTHER = "copper lantern sixty reeds"


@pytest.fixture
def elsewhere(house: House) -> UUID:
    """A second organisation."""
    return house.identity.create_organisation(house.administrator, "Elsewhere").id


@pytest.fixture
def maja(house: House, elsewhere: UUID) -> Actor:
    """Who manages the second organisation and belongs to it."""
    card, _ = house.identity.create_local_account(
        house.administrator, login="maja", password=PASSWORD, display_name="Maja", organisation_id=elsewhere
    )
    house.identity.grant(house.administrator, OrganisationThing(elsewhere), Grantee(card.id), Role.MANAGER)
    return house.log_in("maja")


def make(house: House, actor: Actor, login: str, **more: object) -> UUID:
    return house.identity.create_local_account(
        actor,
        login=login,
        password=PASSWORD,
        display_name=login,
        **more,  # type: ignore[arg-type]  # tests only
    )[0].id


def test_a_manager_makes_people_and_accounts_inside_only(house: House, maja: Actor, elsewhere: UUID) -> None:
    here = house.administrator.organisation_id
    assert here is not None
    nils = make(house, maja, "nils")
    assert house.identity.get_identity(maja, nils).organisation_id == elsewhere
    for more in ({"organisation_id": here}, {"is_administrator": True}):
        with pytest.raises((NotAllowedError, NotFoundError)):
            make(house, maja, "olga", **more)
    account = house.identity.create_account(
        maja, kind="group", name="Team", owner_id=nils, organisation_id=elsewhere, quota_bytes=5
    )
    assert house.identity.change_account(maja, account.id, quota_bytes=7).quota_bytes == 7
    with pytest.raises(NotFoundError):
        house.identity.create_account(maja, kind="group", name="Team", owner_id=nils, organisation_id=here)
    with pytest.raises(NotFoundError):
        house.identity.change_account(maja, house.personal(house.administrator).id, quota_bytes=7)
    seen = {one.id for one in house.identity.list_accounts(maja)}
    assert account.id in seen
    assert house.personal(house.administrator).id not in seen


def test_a_manager_sees_and_changes_the_people_inside_only(house: House, maja: Actor) -> None:
    nils, root = make(house, maja, "nils"), own_id(house.administrator)
    ana = own_id(house.join("ana"))
    assert {one.id for one in house.identity.list_identities(maja)} == {own_id(maja), nils}
    assert {one.is_administrator for one in house.identity.list_identities(maja)} == {None, False}
    house.identity.set_password(maja, nils, OTHER)
    house.identity.rename_identity(maja, nils, "Nils B.")
    house.identity.disable_identity(maja, nils)
    house.identity.enable_identity(maja, nils)
    for stranger in (ana, root):
        acts: list[Callable[[UUID], object]] = [
            lambda one: house.identity.set_password(maja, one, OTHER),
            lambda one: house.identity.rename_identity(maja, one, "X"),
            lambda one: house.identity.disable_identity(maja, one),
            lambda one: house.identity.give_login(maja, one, login="x", password=OTHER),
        ]
        for act in acts:
            with pytest.raises((NotAllowedError, NotFoundError)):
                act(stranger)
    house.identity.log_in("root", PASSWORD)


def test_no_manager_takes_over_an_administrator(house: House, maja: Actor, elsewhere: UUID) -> None:
    boss = make(house, house.administrator, "boss", organisation_id=elsewhere, is_administrator=True)
    acts: list[Callable[[], object]] = [
        lambda: house.identity.set_password(maja, boss, OTHER),
        lambda: house.identity.disable_identity(maja, boss),
        lambda: house.identity.set_administrator(maja, own_id(maja), is_administrator=True),
    ]
    for act in acts:
        with pytest.raises(NotAllowedError):
            act()
    assert house.identity.log_in("boss", PASSWORD)[1].is_administrator


def test_a_manager_hands_over_what_is_inside(house: House, maja: Actor, elsewhere: UUID) -> None:
    nils = make(house, maja, "nils")
    account = house.identity.get_personal_account(house.log_in("nils"))
    inside, outside = archive_of(account), archive_of(house.personal(house.administrator))
    house.identity.grant(maja, inside, Grantee(own_id(maja)), Role.OWNER)
    house.identity.grant(maja, OrganisationThing(elsewhere), Grantee(nils), Role.CURATOR)
    with pytest.raises(NotFoundError):
        house.identity.grant(maja, outside, Grantee(own_id(maja)), Role.READER)
    told = [event for event in house.told() if event.type == "grant.given" and event.subject == inside.id]
    assert [event.data["role"] for event in told] == ["owner"]


def test_a_manager_looks_after_the_groups_inside(house: House, maja: Actor) -> None:
    nils = make(house, maja, "nils")
    inside = house.identity.create_group(house.log_in("nils"), "Team")
    outside = house.identity.create_group(house.administrator, "Team")
    house.identity.add_member(maja, inside.id, own_id(maja))
    house.identity.remove_member(maja, inside.id, nils)
    with pytest.raises(NotFoundError):
        house.identity.add_member(maja, outside.id, own_id(maja))
    assert outside.id not in {one.id for one in house.identity.list_groups(maja)}


def test_a_token_manages_only_with_the_verb_for_it(house: House, maja: Actor) -> None:
    for verbs, may in ((["read", "write"], False), (["read", "manage"], True)):
        secret, _ = house.identity.create_token(maja, "t", verbs=verbs)
        bearer = house.identity.authenticate(secret)
        if may:
            make(house, bearer, "by-token")
            assert house.identity.list_identities(bearer)
            continue
        for act in (lambda: make(house, bearer, "by-token"), lambda: house.identity.list_identities(bearer)):  # noqa: B023
            with pytest.raises(NotAllowedError):
                act()
    assert maja.scope == TokenScope()


def test_an_organisation_that_one_has_nothing_to_do_with_is_not_there(house: House, elsewhere: UUID) -> None:
    ana = house.join("ana")
    with pytest.raises(NotFoundError):
        house.identity.get_organisation(ana, elsewhere)
    with pytest.raises(NotFoundError):
        house.identity.list_grants(ana, OrganisationThing(elsewhere))
    own = OrganisationThing(ana.organisation_id or elsewhere)
    with pytest.raises(NotAllowedError):
        house.identity.list_grants(ana, own)
    house.identity.grant(house.administrator, OrganisationThing(elsewhere), Grantee(own_id(ana)), Role.CURATOR)
    assert elsewhere in {one.id for one in house.identity.list_organisations(ana)}


def test_a_role_is_of_its_kind_of_thing(house: House) -> None:
    ana = house.join("ana")
    on = OrganisationThing(ana.organisation_id or UUID(int=0))
    for role in (Role.OWNER, Role.READER, Role.CONTRIBUTOR):
        with pytest.raises(BadInputError):
            house.identity.grant(house.administrator, on, Grantee(own_id(ana)), role)
