"""What a listing tells of many archives at once is what asking for each of them tells."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from random import Random

from perdure.identity import AccessClass, ArchiveThing, Grantee, OrganisationThing, Role
from perdure.kernel.actor import ANONYMOUS, SYSTEM, TokenScope
from perdure.kernel.ids import new_id

from .house import House, own_id


def test_many_archives_at_once_are_as_each_by_itself(house: House) -> None:
    random, identity = Random(4), house.identity
    ada, bob, eve = (house.join(name) for name in ("ada", "bob", "eve"))
    group = identity.create_group(ada, "Team")
    identity.add_member(ada, group.id, own_id(bob))
    homes = [house.personal(person) for person in (ada, bob, eve)]
    things = [
        ArchiveThing(
            new_id(), home.id, home.organisation_id, random.choice(list(AccessClass)), None, is_closed=number % 2 == 0
        )
        for number in range(10)
        for home in homes
    ]
    roles = [Role.READER, Role.CONTRIBUTOR, Role.MANAGER]
    for thing in things:
        for to in random.sample([Grantee(identity_id=own_id(bob)), Grantee(group_id=group.id)], random.randrange(3)):
            end = random.choice([None, house.clock.now() + timedelta(days=1)])
            needs = random.choice([(), ("x509",)])
            identity.grant(house.administrator, thing, to, random.choice(roles), expires_at=end, requires=needs)
    identity.grant(house.administrator, homes[2].thing, Grantee(group_id=group.id), Role.READER)
    identity.grant(
        house.administrator, OrganisationThing(homes[0].organisation_id), Grantee(identity_id=own_id(eve)), Role.CURATOR
    )
    bob = house.log_in("bob")
    narrow = replace(bob, scope=TokenScope(frozenset({"read"}), frozenset(thing.id for thing in things[::3])))
    proven = replace(bob, proofs=frozenset({"x509"}))
    for _ in range(2):
        for actor in (ada, bob, eve, narrow, proven, house.administrator, ANONYMOUS, SYSTEM):
            with house.db.begin() as tx:
                each = [identity.actions(tx, actor, thing) for thing in things]
                survey = identity.survey(tx, actor)
                assert identity.actions_on_each(tx, survey, things) == each
                assert identity.actions_on_each(tx, replace(survey, roles=None), things) == each
        house.clock.move(timedelta(days=2))
    with house.db.begin() as tx:
        assert identity.actions_on_each(tx, identity.survey(tx, bob), []) == []
