"""Membership with dates: one is in a group from then until then, whoever or whatever put him there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.identity import Action, Grantee, Role
from perdure.identity.model import find_interval
from perdure.kernel.errors import BadInputError, NotAllowedError, NotFoundError

from .house import House, own_id
from .test_arrivals import ADA, GROUP, HERE, ISSUER, let_in
from .test_matrix import archive_of

DAY = timedelta(days=1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_place_in_a_group_counts_between_its_dates(house: House) -> None:
    identity, root, start = house.identity, house.administrator, house.clock.now()
    group, ana = identity.create_group(root, "Beamtime 4711"), house.join("ana")
    archive = archive_of(house.personal(root))
    identity.grant(root, archive, Grantee(group_id=group.id), Role.READER)
    identity.add_member(root, group.id, own_id(ana), starts_at=start + DAY, ends_at=start + 3 * DAY)

    def sees() -> bool:
        with house.db.begin() as tx:
            may = identity.can(tx, ana, Action.READ, archive)
            (each,) = identity.actions_on_each(tx, identity.survey(tx, ana), [archive])
            named = any(
                own_id(ana) in {one.id for one in way.members} for way in identity.explain_access_in(tx, root, archive)
            )
        is_member = own_id(ana) in identity.get_group(root, group.id).members
        assert {may, Action.READ in each, named, is_member, identity.list_own_groups(ana) == [group.id]} == {may}
        return may

    seen = []
    for _ in range(5):
        seen.append(sees())
        house.clock.move(DAY)
    assert seen == [False, True, True, False, False]
    assert [one.identity_id for one in identity.get_group(root, group.id).memberships if one.ends_at] == [own_id(ana)]
    assert identity.forget_ended_memberships() == 1
    told = [event.data for event in house.told() if event.type.startswith("group.member")][-2:]
    assert told[0]["ends_at"] == "2026-03-04T12:00:00.000000Z"
    assert told[1]["by"] == "end"


def test_a_manager_whose_time_is_over_manages_nothing(house: House) -> None:
    identity, start = house.identity, house.clock.now()
    group, ana = identity.create_group(house.administrator, "Team"), house.join("ana")
    identity.add_member(house.administrator, group.id, own_id(ana), is_manager=True, ends_at=start + DAY)
    identity.add_member(ana, group.id, own_id(house.join("ben")))
    house.clock.move(DAY)
    with pytest.raises(NotFoundError):
        identity.add_member(ana, group.id, own_id(house.join("cleo")))


def test_a_manager_for_a_time_makes_his_own_time_no_longer(house: House) -> None:
    identity, start = house.identity, house.clock.now()
    group, ana, ben = identity.create_group(house.administrator, "Team"), house.join("ana"), house.join("ben")
    identity.add_member(house.administrator, group.id, own_id(ana), is_manager=True, ends_at=start + 2 * DAY)
    for person, is_manager, ends_at in ((ana, True, None), (ana, False, start + 3 * DAY), (ben, True, None)):
        with pytest.raises(NotAllowedError, match="Your own place in the group ends"):
            identity.add_member(ana, group.id, own_id(person), is_manager=is_manager, ends_at=ends_at)
    identity.add_member(ana, group.id, own_id(ben), is_manager=True, ends_at=start + 2 * DAY)
    identity.add_member(ana, group.id, own_id(ana), is_manager=True, ends_at=start + DAY)
    identity.add_member(house.administrator, group.id, own_id(ana), is_manager=True)


@pytest.mark.parametrize(
    ("starts_at", "ends_at"),
    [(None, NOON), (NOON + 2 * DAY, NOON + DAY), (None, (NOON + DAY).replace(tzinfo=None))],
)
def test_dates_that_make_no_sense_are_refused(
    house: House, starts_at: datetime | None, ends_at: datetime | None
) -> None:
    group = house.identity.create_group(house.administrator, "Team")
    with pytest.raises(BadInputError):
        house.identity.add_member(
            house.administrator, group.id, own_id(house.join("ana")), starts_at=starts_at, ends_at=ends_at
        )
    with pytest.raises(BadInputError):
        house.identity.add_claim_rule(
            house.administrator, group.id, entitlement=GROUP, issuer=ISSUER, starts_at=starts_at, ends_at=ends_at
        )


def test_a_rule_with_dates_needs_no_login_to_begin_or_to_end(house: House) -> None:
    identity, root, start = house.identity, house.administrator, house.clock.now()
    group = identity.create_group(root, "Beamtime 4711")
    for entitlement, first, last in ((GROUP, 1, 2), (GROUP[:-1] + "*", 2, 3), (GROUP[:-2] + "*", 5, 6)):
        dates = {"starts_at": start + first * DAY, "ends_at": start + last * DAY}
        identity.add_claim_rule(root, group.id, entitlement=entitlement, issuer=ISSUER, **dates)
    ada = let_in(house)
    held = []
    for _ in range(7):
        held.append(identity.list_own_groups(ada) == [group.id])
        house.clock.move(DAY)
    assert held == [False, True, True, False, False, False, False]  # the later time is met at the next login
    house.clock.moment = start + 4 * DAY
    identity.arrive(replace(ADA, proven_at=None), HERE)
    house.clock.move(DAY)
    assert identity.list_own_groups(ada) == [group.id]


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5)), max_size=6),
    st.integers(0, 25),
)
def test_the_time_that_is_found_holds_nothing_that_no_rule_gives(spans: list[tuple[int, int]], at: int) -> None:
    intervals = [(NOON + start * DAY, NOON + (start + length) * DAY) for start, length in spans]
    now = NOON + at * DAY
    found = find_interval(intervals, now)
    if found is None:
        assert all(end <= now for _, end in intervals)
        return
    start, end = found
    assert start is not None
    assert end is not None
    assert end > now
    assert any(first <= now < last for first, last in intervals) == (start <= now)
    day = start
    while day < end:
        assert any(first <= day < last for first, last in intervals)
        day += DAY


def test_a_role_is_passed_on_for_as_long_as_one_has_it(house: House) -> None:
    identity, root, start = house.identity, house.administrator, house.clock.now()
    archive, ana, ben = archive_of(house.personal(root)), house.join("ana"), house.join("ben")
    identity.grant(root, archive, Grantee(own_id(ana)), Role.CONTRIBUTOR)  # lasts, and passes on nothing
    identity.grant(root, archive, Grantee(own_id(ana)), Role.MANAGER, expires_at=start + 5 * DAY)
    for too_long in (None, start + 5 * DAY + timedelta(seconds=1)):
        with pytest.raises(NotAllowedError, match="ends at 2026-03-06"):
            identity.grant(ana, archive, Grantee(own_id(ben)), Role.READER, expires_at=too_long)
    identity.grant(ana, archive, Grantee(own_id(ben)), Role.READER, expires_at=start + 5 * DAY)
    group = identity.create_group(root, "Shift")
    identity.add_member(root, group.id, own_id(ben), ends_at=start + 2 * DAY)
    identity.grant(root, archive, Grantee(group_id=group.id), Role.MANAGER)
    with pytest.raises(NotAllowedError, match="2026-03-03"):
        identity.grant(ben, archive, Grantee(own_id(house.join("cleo"))), Role.READER, expires_at=start + 3 * DAY)
    identity.grant(ben, archive, Grantee(own_id(house.log_in("cleo"))), Role.READER, expires_at=start + 2 * DAY)
