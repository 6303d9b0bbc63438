"""What is said of who reaches an archive is what `require` decides, person by person and action by action."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from itertools import product
from uuid import UUID

import pytest

from perdure.identity import AccessClass, Action, ArchiveThing, Grantee, Reach, Role
from perdure.identity.access import MOST_MEMBERS_NAMED
from perdure.identity.model import Through
from perdure.kernel.actor import ANONYMOUS, Actor
from perdure.kernel.ids import new_id

from .house import House, own_id
from .test_matrix import archive_of


def explain(house: House, on: ArchiveThing, actor: Actor | None = None, **page: object) -> list[Reach]:
    with house.db.begin() as tx:
        return house.identity.explain_access_in(tx, actor or house.administrator, on, **page)  # type: ignore[arg-type]


def actions_told(ways: Iterable[Reach], person: Actor) -> frozenset[Action]:
    """What a reader of the explanation concludes that the person may do."""
    found: frozenset[Action] = frozenset()
    for way in ways:
        named = {member.id for member in way.members} | ({way.to.identity_id} if way.to else set())
        if way.through is Through.ACCESS_CLASS or person.identity_id in named - {None}:
            found |= way.actions
    return found


@pytest.mark.parametrize(("access", "is_closed"), list(product(AccessClass, (True, False))))
def test_it_agrees_with_what_is_decided(house: House, access: AccessClass, is_closed: bool) -> None:
    people = {name: house.join(name) for name in ("ana", "ben", "cora", "dan", "eve", "fay", "gus")}
    root, identity = house.administrator, house.identity
    account = house.personal(people["ana"])
    archive = archive_of(account, access, is_closed=is_closed)
    group = identity.create_group(root, "Beamline team")
    for name in ("cora", "dan"):
        identity.add_member(root, group.id, own_id(people[name]))
    end = house.clock.now() + timedelta(hours=1)
    identity.grant(root, archive, Grantee(people["ben"].identity_id), Role.READER)
    identity.grant(root, archive, Grantee(people["ben"].identity_id), Role.MANAGER, expires_at=end)
    identity.grant(root, archive, Grantee(group_id=group.id), Role.CONTRIBUTOR)
    identity.grant(root, account.thing, Grantee(people["eve"].identity_id), Role.READER)
    identity.grant(root, archive, Grantee(people["fay"].identity_id), Role.OWNER)
    identity.disable_identity(root, own_id(people["fay"]))
    people = {name: house.log_in(name) for name in (*people, "root") if name != "fay"}
    for _ in range(2):
        ways = explain(house, archive)
        with house.db.begin() as tx:
            for person in (*people.values(), ANONYMOUS):
                assert actions_told(ways, person) == identity.actions(tx, person, archive), person.name
        assert "Fay" not in {way.name for way in ways}
        house.clock.move(timedelta(hours=2))  # then one of Ben's roles is over


def test_it_says_by_what(house: House) -> None:
    ana, ben = house.join("ana"), house.join("ben")
    account = house.personal(ana)
    archive = replace(
        archive_of(account, AccessClass.EMBARGOED), embargo_until=house.clock.now().date() + timedelta(days=1)
    )
    house.identity.grant(house.administrator, archive, Grantee(ben.identity_id), Role.READER)
    told = [(way.through, way.name, way.role) for way in explain(house, archive)]
    assert told == [
        (Through.ADMINISTRATOR, None, None),
        (Through.ACCOUNT, "Ana", Role.OWNER),
        (Through.ARCHIVE, "Ben", Role.READER),
    ]
    house.clock.move(timedelta(days=1))
    assert explain(house, archive)[0].through is Through.ACCESS_CLASS


def test_members_are_named_to_who_sees_the_group(house: House) -> None:
    ana, ben = house.join("ana"), house.join("ben")
    archive = archive_of(house.personal(ana))
    group = house.identity.create_group(ben, "Ben's")
    house.identity.grant(house.administrator, archive, Grantee(group_id=group.id), Role.READER)
    (way,) = [one for one in explain(house, archive, ana) if one.to and one.to.group_id]
    assert (way.name, way.member_count, way.members) == ("Ben's", 1, ())
    (way,) = [one for one in explain(house, archive, house.log_in("ben")) if one.to and one.to.group_id]
    assert [member.name for member in way.members] == ["Ben"]


def test_pages_make_up_the_whole_and_a_large_group_is_counted(house: House) -> None:
    archive = archive_of(house.personal(house.join("ana")))
    group = house.identity.create_group(house.administrator, "Many")
    names = [f"p{number:03}" for number in range(MOST_MEMBERS_NAMED + 5)]
    for name in names:
        house.identity.add_member(house.administrator, group.id, house.add(name)[0].id)
    house.identity.grant(house.administrator, archive, Grantee(group_id=group.id), Role.READER)
    for name in names[:5]:
        card = house.identity.find_identity(house.administrator, name)
        assert card is not None
        house.identity.grant(house.administrator, archive, Grantee(identity_id=card.id), Role.CONTRIBUTOR)
    whole = explain(house, archive)
    paged: list[Reach] = []
    after: UUID | None = None
    while page := explain(house, archive, after=after, limit=2):
        paged += page
        after = next((way.grant.id for way in reversed(page) if way.grant), None)
    assert paged == whole
    (team,) = [way for way in whole if way.to and way.to.group_id]
    assert (team.member_count, len(team.members)) == (len(names) + 1, MOST_MEMBERS_NAMED)  # and who made the group


def test_an_archive_that_nobody_made_is_reached_by_administrators_only(house: House) -> None:
    stray = ArchiveThing(new_id(), new_id(), new_id(), AccessClass.PRIVATE, None, is_closed=True)
    assert [way.through for way in explain(house, stray)] == [Through.ADMINISTRATOR]


def test_administrators_are_counted_and_named_to_each_other_only(house: House) -> None:
    ana = house.join("ana")
    archive = archive_of(house.personal(ana))
    told = [next(iter(explain(house, archive, actor))) for actor in (ana, house.administrator)]
    assert [(way.member_count, [member.name for member in way.members]) for way in told] == [(1, []), (1, ["root"])]
