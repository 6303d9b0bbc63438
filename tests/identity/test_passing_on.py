"""To whom a role may be passed on, and what it demands of whom it is passed on to."""

from __future__ import annotations

from datetime import timedelta

import pytest

from perdure.identity import Grantee, OrganisationThing, PassOn, PassOnLimit, Role
from perdure.identity.errors import PassingOnError
from perdure.kernel.errors import BadInputError, NotAllowedError

from .house import PASSWORD, House, own_id
from .test_matrix import archive_of


def test_a_limited_role_is_passed_on_inside_its_limit_and_no_further(house: House) -> None:
    identity, root = house.identity, house.administrator
    home = root.organisation_id
    assert home is not None
    away = identity.create_organisation(root, "Away").id
    archive, ana, ben = archive_of(house.personal(root)), house.join("ana"), house.join("ben")
    stranger, _ = identity.create_local_account(
        root, login="eve", password=PASSWORD, display_name="Eve", organisation_id=away
    )
    limit = PassOnLimit(PassOn.ORGANISATION, home)
    identity.grant(root, archive, Grantee(own_id(ana)), Role.MANAGER, pass_on=limit)
    for outside in (Grantee(stranger.id), Grantee(named="orcid 0000-0002-1825-0097")):
        with pytest.raises(PassingOnError, match="to some only"):
            identity.grant(ana, archive, outside, Role.READER)
    given = identity.grant(ana, archive, Grantee(own_id(ben)), Role.MANAGER)
    assert given.pass_on == PassOnLimit(PassOn.NOBODY)
    with pytest.raises(PassingOnError):
        identity.grant(ben, archive, Grantee(own_id(house.join("cleo"))), Role.READER)
    with pytest.raises(PassingOnError, match="only what you gave"):
        identity.revoke_grant(ben, archive, identity.grant(root, archive, Grantee(stranger.id), Role.READER).id)
    with pytest.raises(PassingOnError, match="Somebody else"):
        identity.grant(ana, archive, Grantee(own_id(ana)), Role.MANAGER)
    identity.revoke_grant(ana, archive, given.id)
    told = [event.data["pass_on"] for event in house.told() if event.type == "grant.given" and event.data["pass_on"]]
    assert told == [f"organisation {home}", "nobody"]


def test_a_group_may_be_the_limit(house: House) -> None:
    identity, root = house.identity, house.administrator
    archive, ana, ben = archive_of(house.personal(root)), house.join("ana"), house.join("ben")
    group, other = identity.create_group(root, "Team"), identity.create_group(root, "Others")
    identity.grant(root, archive, Grantee(own_id(ana)), Role.OWNER, pass_on=PassOnLimit(PassOn.GROUP, group.id))
    for outside in (Grantee(own_id(ben)), Grantee(group_id=other.id)):
        with pytest.raises(PassingOnError):
            identity.grant(ana, archive, outside, Role.READER)
    identity.add_member(root, group.id, own_id(ben))
    identity.grant(ana, archive, Grantee(own_id(ben)), Role.READER)
    identity.grant(ana, archive, Grantee(group_id=group.id), Role.CONTRIBUTOR)
    with pytest.raises(BadInputError, match="no such group"):
        identity.grant(
            root, archive, Grantee(own_id(ben)), Role.MANAGER, pass_on=PassOnLimit(PassOn.GROUP, own_id(ana))
        )
    with house.db.begin() as tx, pytest.raises(PassingOnError, match="link"):
        identity.require_passing_on_in(tx, ana, archive, until=None)


def test_another_role_without_a_limit_counts_as_it_did(house: House) -> None:
    identity, root = house.identity, house.administrator
    archive, ana, ben = archive_of(house.personal(root)), house.join("ana"), house.join("ben")
    identity.grant(root, archive, Grantee(own_id(ana)), Role.OWNER, pass_on=PassOnLimit(PassOn.NOBODY))
    with pytest.raises(PassingOnError):
        identity.grant(ana, archive, Grantee(own_id(ben)), Role.READER)
    identity.grant(root, archive, Grantee(own_id(ana)), Role.MANAGER)
    assert identity.grant(ana, archive, Grantee(own_id(ben)), Role.READER).pass_on is None
    with pytest.raises(PassingOnError):
        identity.grant(ana, archive, Grantee(own_id(ben)), Role.OWNER)


def test_what_a_role_demands_is_demanded_of_whom_it_is_passed_on_to(house: House) -> None:
    identity, root = house.identity, house.administrator
    archive, ana, ben = archive_of(house.personal(root)), house.join("ana"), house.join("ben")
    identity.grant(root, archive, Grantee(own_id(ana)), Role.MANAGER, requires=["password"])
    with pytest.raises(PassingOnError, match="login by password"):
        identity.grant(ana, archive, Grantee(own_id(ben)), Role.READER)
    identity.grant(ana, archive, Grantee(own_id(ben)), Role.READER, requires=["password", "second_factor"])


def test_who_manages_an_organisation_for_a_time_gives_no_longer(house: House) -> None:
    identity, root = house.identity, house.administrator
    ana = house.join("ana")
    home = ana.organisation_id
    assert home is not None
    limit = PassOnLimit(PassOn.ORGANISATION, home)
    identity.grant(root, OrganisationThing(home), Grantee(own_id(ana)), Role.MANAGER, pass_on=limit)
    archive = archive_of(house.personal(root))
    given = identity.grant(ana, archive, Grantee(own_id(ana)), Role.READER)
    assert given.pass_on == PassOnLimit(PassOn.NOBODY)
    with pytest.raises(NotAllowedError):
        identity.grant(ana, archive, Grantee(named="orcid 0000-0002-1825-0097"), Role.READER)


GROUP_LIMIT = "a group"  # stands for a limit that names one


@pytest.mark.parametrize(
    ("held", "moved", "is_moved_kept"),
    [
        ((None, None), ("nobody", None), False),
        (("nobody", None), (None, None), True),
        (("nobody", None), (GROUP_LIMIT, None), True),
        ((GROUP_LIMIT, None), ("nobody", None), False),
        (("organisation", None), (GROUP_LIMIT, None), False),
        ((None, 5), ("nobody", None), True),  # or an account could lose its lasting owner
        ((None, None), ("nobody", 5), False),
        ((None, 5), ("nobody", 5), False),
    ],
)
def test_of_two_roles_of_one_person_the_wider_stays(
    house: House,
    held: tuple[str | None, int | None],
    moved: tuple[str | None, int | None],
    is_moved_kept: bool,
) -> None:
    """Each is to whom it is passed on, and in how many days it ends."""
    identity, root = house.identity, house.administrator
    archive, ana, ben = archive_of(house.personal(root)), house.join("ana"), house.join("ben")
    group = identity.create_group(root, "Team")
    assert root.organisation_id is not None
    limits = {
        None: None,
        "nobody": PassOnLimit(PassOn.NOBODY),
        GROUP_LIMIT: PassOnLimit(PassOn.GROUP, group.id),
        "organisation": PassOnLimit(PassOn.ORGANISATION, root.organisation_id),
    }
    given = []
    for person, (to, days) in ((ana, held), (ben, moved)):
        ends_at = None if days is None else house.clock.now() + timedelta(days=days)
        terms = {"expires_at": ends_at, "pass_on": limits[to]}
        given.append(identity.grant(root, archive, Grantee(own_id(person)), Role.MANAGER, **terms))  # type: ignore[arg-type]
    with house.db.begin() as tx:
        assert identity.move_grants_in(tx, own_id(ben), own_id(ana), [archive.id]) == 1
        (left,) = identity.list_grants_in(tx, archive.id)
    assert left.id == given[is_moved_kept].id
    assert (left.to.identity_id, left.pass_on) == (own_id(ana), given[is_moved_kept].pass_on)
