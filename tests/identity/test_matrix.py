"""Every role, access class and credential against every action, through the grants; and listings against `can`."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import product
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Boolean, Connection, Date, Text, Uuid, cast, column, select, values

from perdure.identity import (
    AccessClass,
    Account,
    Action,
    ArchiveThing,
    Grantee,
    InstanceThing,
    OrganisationThing,
    Role,
    Thing,
    Verb,
)
from perdure.identity.errors import NotLoggedInError
from perdure.identity.model import (
    ACCOUNT_ROLE_ACTIONS,
    ADMINISTRATOR_ACTIONS,
    ORGANISATION_ROLE_ACTIONS,
    ROLE_ACTIONS,
    Held,
    actions_on,
    roles_on,
)
from perdure.kernel.actor import ANONYMOUS, SYSTEM, Actor, TokenScope
from perdure.kernel.clock import format_time
from perdure.kernel.errors import BadInputError, NotAllowedError, NotFoundError
from perdure.kernel.ids import new_id

from .house import House, own_id


def archive_of(account: Account, access: AccessClass = AccessClass.PRIVATE, *, is_closed: bool = True) -> ArchiveThing:
    return ArchiveThing(new_id(), account.id, account.organisation_id, access, None, is_closed=is_closed)


def assert_exactly(house: House, tx: Connection, actor: Actor, thing: Thing, expected: frozenset[Action]) -> None:
    """The actor may do what is expected and nothing else, and the refusals are of the right kind."""
    for action in Action:
        if action in expected:
            house.identity.require(tx, actor, action, thing)
            continue
        kind: type[Exception] = NotAllowedError
        is_known = isinstance(thing, InstanceThing) or thing == OrganisationThing(actor.organisation_id or UUID(int=0))
        if not expected and not is_known:
            kind = NotFoundError
        elif actor is ANONYMOUS:
            kind = NotLoggedInError
        with pytest.raises(kind):
            house.identity.require(tx, actor, action, thing)
    assert house.identity.actions(tx, actor, thing) == expected


def test_roles_on_an_archive_and_its_account_by_every_way_of_granting(house: House) -> None:
    team = house.personal(house.administrator)
    ana = house.join("ana")
    group = house.identity.create_group(house.administrator, "Beamline team")
    house.identity.add_member(house.administrator, group.id, own_id(ana))
    ana = house.log_in("ana")
    ways = (Grantee(identity_id=ana.identity_id), Grantee(group_id=group.id))
    for role, to, on_account in product(Role, ways, (False, True)):
        archive = archive_of(team)
        on = team.thing if on_account else archive
        grant = house.identity.grant(house.administrator, on, to, role)
        with house.db.begin() as tx:
            assert_exactly(house, tx, ana, archive, ROLE_ACTIONS[role])
            expected = ACCOUNT_ROLE_ACTIONS[role] if on_account else frozenset[Action]()
            assert_exactly(house, tx, ana, team.thing, expected)
            assert_exactly(house, tx, ana, InstanceThing(), frozenset())
        house.identity.revoke_grant(house.administrator, on, grant.id)
        with house.db.begin() as tx:
            assert_exactly(house, tx, ana, archive, frozenset())


def test_roles_on_an_organisation_by_every_way_of_granting(house: House) -> None:
    team = house.personal(house.administrator)
    home, elsewhere = OrganisationThing(team.organisation_id), OrganisationThing(new_id())
    group = house.identity.create_group(house.administrator, "Curators")
    house.identity.add_member(house.administrator, group.id, own_id(house.join("ana")))
    ana = house.log_in("ana")
    archive = archive_of(team)
    foreign = replace(archive, organisation_id=elsewhere.id)
    for role, to in product(roles_on("organisation"), (Grantee(ana.identity_id), Grantee(group_id=group.id))):
        grant = house.identity.grant(house.administrator, home, to, role)
        given = ORGANISATION_ROLE_ACTIONS[role]
        with house.db.begin() as tx:
            inside: list[Thing] = [archive, team.thing, home]
            outside: list[Thing] = [foreign, elsewhere, InstanceThing()]
            for thing in inside:
                assert_exactly(house, tx, ana, thing, given & actions_on(thing))
            for thing in outside:
                assert_exactly(house, tx, ana, thing, frozenset())
        house.identity.revoke_grant(house.administrator, home, grant.id)
    with pytest.raises(BadInputError, match="curator"):
        house.identity.grant(house.administrator, home, Grantee(ana.identity_id), Role.OWNER)


def test_those_without_a_role_by_access_class(house: House) -> None:
    account = house.personal(house.administrator)
    stranger = house.join("stranger")
    for access, is_closed in product(AccessClass, (True, False)):
        archive = archive_of(account, access, is_closed=is_closed)
        read = frozenset({Action.SEE, Action.READ} if is_closed and access is AccessClass.PUBLIC else set())
        with house.db.begin() as tx:
            assert_exactly(house, tx, stranger, archive, read)
            assert_exactly(house, tx, ANONYMOUS, archive, read)
            assert_exactly(house, tx, ANONYMOUS, account.thing, frozenset())
            assert_exactly(house, tx, SYSTEM, archive, ROLE_ACTIONS[Role.OWNER])


def test_an_embargo_passes_with_its_day(house: House) -> None:
    archive = replace(
        archive_of(house.personal(house.administrator), AccessClass.EMBARGOED),
        embargo_until=house.clock.now().date() + timedelta(days=1),
    )
    with house.db.begin() as tx:
        assert not house.identity.can(tx, ANONYMOUS, Action.READ, archive)
        house.clock.move(timedelta(hours=12))
        assert house.identity.can(tx, ANONYMOUS, Action.READ, archive)


def test_an_administrator_sees_and_manages_but_touches_no_content(house: House) -> None:
    account = house.personal(house.join("ana"))
    with house.db.begin() as tx:
        admin = house.administrator
        assert_exactly(house, tx, admin, archive_of(account), frozenset({Action.SEE, Action.READ, Action.MANAGE}))
        assert_exactly(house, tx, admin, account.thing, frozenset({Action.READ_ACCOUNT, Action.MANAGE_ACCOUNT}))
        assert_exactly(house, tx, admin, InstanceThing(), frozenset({Action.ADMINISTER}))
        assert house.identity.actions(tx, admin, archive_of(account)) <= ADMINISTRATOR_ACTIONS


def test_a_grant_ends_at_its_moment(house: House) -> None:
    ana, archive = house.join("ana"), archive_of(house.personal(house.administrator))
    end = house.clock.now() + timedelta(hours=1)
    house.identity.grant(house.administrator, archive, Grantee(ana.identity_id), Role.MANAGER, expires_at=end)
    house.identity.grant(house.administrator, archive, Grantee(ana.identity_id), Role.READER)
    with house.db.begin() as tx:
        assert Held("archive", Role.MANAGER) in house.identity.find_roles(tx, ana, archive)
        assert house.identity.find_roles(tx, ana, archive, now=end) == {Held("archive", Role.READER)}


def test_a_refusal_names_the_role_and_tells_a_stranger_nothing(house: House) -> None:
    ana, archive = house.join("ana"), archive_of(house.personal(house.administrator))
    with house.db.begin() as tx:
        with pytest.raises(NotFoundError) as hidden:
            house.identity.require(tx, ana, Action.CLOSE, archive)
        assert str(archive.id) not in str(hidden.value)
    house.identity.grant(house.administrator, archive, Grantee(ana.identity_id), Role.READER)
    with house.db.begin() as tx, pytest.raises(NotAllowedError) as refused:
        house.identity.require(tx, ana, Action.CLOSE, archive)
    assert refused.value.extra["role"] == "contributor"


HALL = "issuer https://login.example.org"


def test_a_grant_may_name_who_was_never_here(house: House) -> None:
    ana, archive = house.join("ana"), archive_of(house.personal(house.administrator))
    grant = house.identity.grant
    with pytest.raises(BadInputError, match="issuer"):
        grant(house.administrator, archive, Grantee(named="entitlement urn:x:beamline"), Role.CURATOR)
    grant(house.administrator, archive, Grantee(named="x509 /C=DE/O=Grid/CN=Ana"), Role.READER)
    grant(house.administrator, archive, Grantee(named="entitlement urn:x:beamline"), Role.CURATOR, requires=[HALL])
    dn, entitled = "x509 CN=Ana,O=Grid,C=DE", "entitlement urn:x:beamline"
    for names, roles in (
        (frozenset[str](), set[Role]()),
        ({dn}, {Role.READER}),
        ({entitled}, {Role.CURATOR}),
        ({dn, entitled}, {Role.READER, Role.CURATOR}),
        ({"x509 CN=Ana", "oidc https://a.example ana"}, set[Role]()),
    ):
        actor = replace(ana, known_as=frozenset(names), proofs=frozenset({"oidc", HALL}))
        with house.db.begin() as tx:
            assert {one.role for one in house.identity.find_roles(tx, actor, archive)} == roles


def test_a_grant_may_demand_how_one_logs_in(house: House) -> None:
    ana, account = house.join("ana"), house.personal(house.administrator)
    archive = archive_of(account)
    home = "issuer https://login.example.org"
    to = Grantee(ana.identity_id)
    house.identity.grant(house.administrator, archive, to, Role.READER, requires=["second_factor"])
    house.identity.grant(house.administrator, archive, to, Role.CONTRIBUTOR, requires=["oidc", home, "second_factor"])
    for proofs, roles in (
        ({"password"}, set[Role]()),
        ({"password", "second_factor"}, {Role.READER}),
        ({"oidc", home}, set[Role]()),
        ({"oidc", home, "second_factor"}, {Role.READER, Role.CONTRIBUTOR}),
    ):
        actor = replace(ana, proofs=frozenset(proofs))
        with house.db.begin() as tx:
            assert {one.role for one in house.identity.find_roles(tx, actor, archive)} == roles
    house.identity.grant(house.administrator, archive, to, Role.READER)
    with house.db.begin() as tx:
        assert house.identity.can(tx, ana, Action.READ, archive)
    with pytest.raises(BadInputError):
        house.identity.grant(house.administrator, archive, to, Role.READER, requires=["telephone"])


ARCHIVES = [UUID(int=number) for number in range(1, 7)]
ACCOUNTS = [UUID(int=number) for number in range(101, 104)]
ORGANISATIONS = [UUID(int=number) for number in range(201, 203)]
on_things = st.sampled_from(
    [("archive", one) for one in ARCHIVES]
    + [("account", one) for one in ACCOUNTS]
    + [("organisation", one) for one in ORGANISATIONS]
)
scopes = st.builds(
    TokenScope,
    verbs=st.none() | st.frozensets(st.sampled_from([verb.value for verb in Verb])),
    archives=st.none() | st.frozensets(st.sampled_from(ARCHIVES)),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_listing_shows_exactly_what_may_be_seen_or_read(house: House, data: st.DataObject) -> None:
    draw = data.draw
    ana, today = house.administrator, house.clock.now().date()
    group = UUID(int=500)
    things = [
        ArchiveThing(
            id=archive,
            account_id=draw(st.sampled_from(ACCOUNTS)),
            organisation_id=draw(st.sampled_from(ORGANISATIONS)),
            access=draw(st.sampled_from(list(AccessClass))),
            embargo_until=draw(st.sampled_from([None, today, today - timedelta(1), today + timedelta(1)])),
            is_closed=draw(st.booleans()),
        )
        for archive in ARCHIVES
    ]
    actor = replace(
        ana,
        is_administrator=draw(st.sampled_from([False, False, True])),
        scope=draw(scopes),
        known_as=draw(st.sampled_from([frozenset[str](), frozenset({_NAMED, "x509 CN=Other"})])),
        proofs=draw(st.sampled_from([frozenset({"password"}), frozenset({"password", "second_factor"})])),
    )
    with house.db.begin() as tx:
        savepoint = tx.begin_nested()
        house.identity.restore_groups(tx, _groups(ana, group, draw(st.sampled_from([None, 0, 1, _MANY_GROUPS]))))
        house.identity.restore_grants(tx, _grants(house, group, draw(st.lists(_grant_facts, max_size=6))))
        for caller, action in product((actor, SYSTEM, ANONYMOUS), (Action.SEE, Action.READ)):
            expected = {one.id for one in things if house.identity.can(tx, caller, action, one)}
            assert _listed(house, tx, caller, things, action) == expected
        savepoint.rollback()


_MANY_GROUPS = 101  # the rights of who is in so many are asked for in another way
_NAMED = "entitlement urn:x:beamline"
_grant_facts = st.tuples(
    on_things,
    st.sampled_from(["identity_id", "group_id", "named"]),
    st.sampled_from([None, -1, 0, 1]),
    st.sampled_from(list(Role)),
    st.sampled_from([(), ("second_factor",), ("oidc",)]),
)
Fact = tuple[tuple[str, UUID], str, int | None, Role, tuple[str, ...]]


def _groups(member: Actor, group: UUID, others: int | None) -> list[dict[str, object]]:
    """One group and others as the stores keep them, with somebody in all of them; None: not in the one."""
    ids = [*(UUID(int=number) for number in range(1, 1 + (others or 0))), group]
    into = [] if others is None else [{"identity_id": str(member.identity_id), "is_manager": False}]
    home = str(member.organisation_id)
    return [{"id": str(one), "organisation_id": home, "name": f"g{one}", "members": into} for one in ids]


def _grants(house: House, group: UUID, facts: list[Fact]) -> list[dict[str, object]]:
    """Rows as the stores keep them: on what, for whom, ending hours from now, which role, by which login."""
    now = house.clock.now()
    grantees = {"identity_id": str(own_id(house.administrator)), "group_id": str(group), "named": _NAMED}
    by_key = {(on, grantee, role): (end, requires) for on, grantee, end, role, requires in facts}
    return [
        {
            "id": str(new_id()),
            "on_kind": kind,
            "on_id": str(on_id),
            **{name: to if name == grantee else None for name, to in grantees.items()},
            "requires": list(requires),
            "role": role.value,
            "granted_by": None,
            "granted_at": format_time(now),
            "expires_at": None if end is None else format_time(now + timedelta(hours=end)),
        }
        for ((kind, on_id), grantee, role), (end, requires) in by_key.items()
        if kind != "organisation" or role in roles_on("organisation")
    ]


def _listed(house: House, tx: Connection, actor: Actor, things: list[ArchiveThing], action: Action) -> set[UUID]:
    ids = (column("id", Uuid), column("account_id", Uuid), column("organisation_id", Uuid))
    rest = (column("access", Text), column("until", Date), column("is_closed", Boolean))
    rows = [
        (one.id, one.account_id, one.organisation_id, one.access.value, one.embargo_until, one.is_closed)
        for one in things
    ]
    archives = values(*ids, *rest, name="archives").data(rows)
    survey = house.identity.survey(tx, actor)
    assert survey.roles is not None
    found = []
    for known in (None, survey, replace(survey, roles=None)):  # by the query, by what was asked before, with too much
        visible = house.identity.visible(
            actor,
            action=action,
            archive_id=archives.c.id,
            account_id=archives.c.account_id,
            organisation_id=archives.c.organisation_id,
            access=archives.c.access,
            embargo_until=cast(archives.c.until, Date),  # VALUES with nothing but NULL has no type
            is_closed=archives.c.is_closed,
            survey=known,
        )
        found.append(set(tx.execute(select(archives.c.id).where(visible)).scalars()))
    assert found[0] == found[1] == found[2]
    return found[0]


def test_the_log_says_by_what_somebody_was_named_and_not_how(house: House) -> None:
    archive = archive_of(house.personal(house.administrator))
    given = house.identity.grant(house.administrator, archive, Grantee(named="x509 CN=Ada,O=Grid"), Role.READER)
    house.identity.revoke_grant(house.administrator, archive, given.id)
    told = [event for event in house.told() if event.type.startswith("grant.") and event.subject == archive.id]
    assert [event.data["named"] for event in told] == ["x509", "x509"]
