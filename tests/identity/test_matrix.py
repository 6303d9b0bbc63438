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

from perdure.identity import AccessClass, Account, Action, ArchiveThing, Grantee, InstanceThing, Role, Thing, Verb
from perdure.identity.errors import NotLoggedInError
from perdure.identity.model import ACCOUNT_ROLE_ACTIONS, ADMINISTRATOR_ACTIONS, ROLE_ACTIONS
from perdure.kernel.actor import ANONYMOUS, SYSTEM, Actor, TokenScope
from perdure.kernel.clock import format_time
from perdure.kernel.errors import NotAllowedError, NotFoundError
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
        if not expected and not isinstance(thing, InstanceThing):
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


def test_those_without_a_role_by_access_class(house: House) -> None:
    account = house.personal(house.administrator)
    stranger = house.join("stranger")
    for access, is_closed in product(AccessClass, (True, False)):
        archive = archive_of(account, access, is_closed=is_closed)
        read = frozenset({Action.READ} if is_closed and access is AccessClass.PUBLIC else set())
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
        assert_exactly(house, tx, admin, archive_of(account), frozenset({Action.READ, Action.MANAGE}))
        assert_exactly(house, tx, admin, account.thing, frozenset({Action.READ_ACCOUNT, Action.MANAGE_ACCOUNT}))
        assert_exactly(house, tx, admin, InstanceThing(), frozenset({Action.ADMINISTER}))
        assert house.identity.actions(tx, admin, archive_of(account)) <= ADMINISTRATOR_ACTIONS


def test_a_grant_ends_at_its_moment(house: House) -> None:
    ana, archive = house.join("ana"), archive_of(house.personal(house.administrator))
    end = house.clock.now() + timedelta(hours=1)
    house.identity.grant(house.administrator, archive, Grantee(ana.identity_id), Role.MANAGER, expires_at=end)
    house.identity.grant(house.administrator, archive, Grantee(ana.identity_id), Role.READER)
    with house.db.begin() as tx:
        assert house.identity.find_role(tx, ana, archive) is Role.MANAGER
        assert house.identity.find_role(tx, ana, archive, now=end) is Role.READER


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


ARCHIVES = [UUID(int=number) for number in range(1, 7)]
ACCOUNTS = [UUID(int=number) for number in range(101, 104)]
on_things = st.sampled_from([("archive", one) for one in ARCHIVES] + [("account", one) for one in ACCOUNTS])
scopes = st.builds(
    TokenScope,
    verbs=st.none() | st.frozensets(st.sampled_from([verb.value for verb in Verb])),
    archives=st.none() | st.frozensets(st.sampled_from(ARCHIVES)),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_listing_shows_exactly_what_may_be_read(house: House, data: st.DataObject) -> None:
    draw = data.draw
    ana, today = house.administrator, house.clock.now().date()
    group = UUID(int=500)
    things = [
        ArchiveThing(
            id=archive,
            account_id=draw(st.sampled_from(ACCOUNTS)),
            organisation_id=UUID(int=1),
            access=draw(st.sampled_from(list(AccessClass))),
            embargo_until=draw(st.sampled_from([None, today, today - timedelta(1), today + timedelta(1)])),
            is_closed=draw(st.booleans()),
        )
        for archive in ARCHIVES
    ]
    actor = replace(
        ana,
        is_administrator=draw(st.sampled_from([False, False, True])),
        group_ids=draw(st.sampled_from([frozenset[UUID](), frozenset({group}), frozenset({group, UUID(int=501)})])),
        scope=draw(scopes),
    )
    with house.db.begin() as tx:
        savepoint = tx.begin_nested()
        house.identity.restore_groups(
            tx, [{"id": str(group), "organisation_id": str(ana.organisation_id), "name": "g", "members": []}]
        )
        house.identity.restore_grants(tx, _grants(house, group, draw(st.lists(_grant_facts, max_size=6))))
        for caller in (actor, SYSTEM, ANONYMOUS):
            expected = {one.id for one in things if house.identity.can(tx, caller, Action.READ, one)}
            assert _listed(house, tx, caller, things) == expected
        savepoint.rollback()


_grant_facts = st.tuples(on_things, st.booleans(), st.sampled_from([None, -1, 0, 1]), st.sampled_from(list(Role)))


def _grants(
    house: House, group: UUID, facts: list[tuple[tuple[str, UUID], bool, int | None, Role]]
) -> list[dict[str, object]]:
    """Rows as the stores keep them: on what, for the person or the group, ending hours from now, which role."""
    now = house.clock.now()
    by_key = {(on, is_group, role): end for on, is_group, end, role in facts}
    return [
        {
            "id": str(new_id()),
            "on_kind": kind,
            "on_id": str(on_id),
            "identity_id": None if is_group else str(own_id(house.administrator)),
            "group_id": str(group) if is_group else None,
            "role": role.value,
            "granted_by": None,
            "granted_at": format_time(now),
            "expires_at": None if end is None else format_time(now + timedelta(hours=end)),
        }
        for ((kind, on_id), is_group, role), end in by_key.items()
    ]


def _listed(house: House, tx: Connection, actor: Actor, things: list[ArchiveThing]) -> set[UUID]:
    typed = (column("id", Uuid), column("account_id", Uuid), column("access", Text), column("until", Date))
    rows = [(one.id, one.account_id, one.access.value, one.embargo_until, one.is_closed) for one in things]
    archives = values(*typed, column("is_closed", Boolean), name="archives").data(rows)
    readable = house.identity.readable(
        actor,
        archive_id=archives.c.id,
        account_id=archives.c.account_id,
        access=archives.c.access,
        embargo_until=cast(archives.c.until, Date),  # VALUES with nothing but NULL has no type
        is_closed=archives.c.is_closed,
    )
    return set(tx.execute(select(archives.c.id).where(readable)).scalars())
