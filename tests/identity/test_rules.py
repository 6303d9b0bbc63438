"""Roles, scopes and access classes: the table of rights by example and property, without a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.identity.model import (
    ACCOUNT_ROLE_ACTIONS,
    CLIENT_BACKOFF,
    LOGIN_BACKOFF,
    ORGANISATION_ROLE_ACTIONS,
    ROLE_ACTIONS,
    VERB_ACTIONS,
    AccessClass,
    AccountThing,
    Action,
    ArchiveThing,
    Backoff,
    Grantee,
    Held,
    InstanceThing,
    OnKind,
    OrganisationThing,
    Role,
    Thing,
    Verb,
    actions_on,
    allowed_actions,
    find_password_problem,
    is_role_grantable,
    is_scope_within,
    weakest_role_for,
)
from perdure.kernel.actor import ANONYMOUS, SYSTEM, Actor, ActorKind, TokenScope

TODAY = date(2026, 3, 1)
IDS = [UUID(int=number) for number in range(1, 5)]
held = st.frozensets(
    st.builds(Held, on_kind=st.sampled_from(["archive", "account", "organisation"]), role=st.sampled_from(list(Role)))
)
scopes = st.builds(
    TokenScope,
    verbs=st.none() | st.frozensets(st.sampled_from([verb.value for verb in Verb])),
    archives=st.none() | st.frozensets(st.sampled_from(IDS)),
)
archives = st.builds(
    ArchiveThing,
    id=st.sampled_from(IDS),
    account_id=st.just(UUID(int=9)),
    organisation_id=st.just(UUID(int=8)),
    access=st.sampled_from(list(AccessClass)),
    embargo_until=st.none() | st.dates(TODAY - timedelta(3), TODAY + timedelta(3)),
    is_closed=st.booleans(),
)
things: st.SearchStrategy[Thing] = st.one_of(
    archives,
    st.just(AccountThing(UUID(int=9), UUID(int=8))),
    st.just(OrganisationThing(UUID(int=8))),
    st.just(InstanceThing()),
)
actors = st.builds(
    Actor, kind=st.just(ActorKind.PERSON), identity_id=st.just(IDS[0]), is_administrator=st.booleans(), scope=scopes
)


def test_the_roles_on_an_archive_give_what_the_manual_says() -> None:
    curator, reader, contributor, manager, owner = (ROLE_ACTIONS[role] for role in Role)
    assert curator == {Action.SEE, Action.DESCRIBE}
    assert reader == {Action.SEE, Action.READ}
    assert contributor - reader == {Action.VERIFY, Action.FILL, Action.DESCRIBE, Action.CLOSE, Action.APPEND}
    assert manager - contributor == {Action.MANAGE}
    assert owner - manager == {Action.WITHDRAW}


@pytest.mark.parametrize("table", [ROLE_ACTIONS, ACCOUNT_ROLE_ACTIONS])
def test_a_stronger_role_gives_all_that_a_weaker_one_does(table: dict[Role, frozenset[Action]]) -> None:
    ordered = [table[role] for role in Role if role is not Role.CURATOR]
    assert all(weaker <= stronger for weaker, stronger in pairwise(ordered))
    assert table[Role.CURATOR] <= table[Role.CONTRIBUTOR]


def test_a_role_on_an_organisation_reads_no_content() -> None:
    for actions in ORGANISATION_ROLE_ACTIONS.values():
        assert actions.isdisjoint({Action.READ, Action.FILL, Action.CLOSE, Action.APPEND, Action.WITHDRAW})


def test_every_action_belongs_to_exactly_one_verb() -> None:
    claimed = [action for actions in VERB_ACTIONS.values() for action in actions]
    assert sorted(claimed) == sorted(Action)


@given(actors, things, held)
def test_a_narrower_scope_never_gains(actor: Actor, thing: Thing, own: frozenset[Held]) -> None:
    whole = replace(actor, scope=TokenScope())
    allowed = allowed_actions(actor, thing, own, today=TODAY)
    assert allowed <= allowed_actions(whole, thing, own, today=TODAY)
    assert allowed <= actions_on(thing)


@given(actors, scopes, things, held)
def test_a_scope_within_another_allows_no_more(
    actor: Actor, inner: TokenScope, thing: Thing, own: frozenset[Held]
) -> None:
    if is_scope_within(inner, actor.scope):
        narrowed = allowed_actions(replace(actor, scope=inner), thing, own, today=TODAY)
        assert narrowed <= allowed_actions(actor, thing, own, today=TODAY)


@given(actors, things, held, held)
def test_roles_add_up(actor: Actor, thing: Thing, one: frozenset[Held], other: frozenset[Held]) -> None:
    apart = [allowed_actions(actor, thing, own, today=TODAY) for own in (one, other)]
    assert allowed_actions(actor, thing, one | other, today=TODAY) == apart[0] | apart[1]


@given(archives)
def test_a_stranger_reads_what_is_public_and_nothing_else(archive: ArchiveThing) -> None:
    is_public = archive.is_closed and (
        archive.access is AccessClass.PUBLIC
        or (
            archive.access is AccessClass.EMBARGOED
            and archive.embargo_until is not None
            and archive.embargo_until <= TODAY
        )
    )
    expected = {Action.SEE, Action.READ} if is_public else set()
    for stranger in (ANONYMOUS, Actor(ActorKind.PERSON, IDS[0])):
        assert allowed_actions(stranger, archive, (), today=TODAY) == expected


@given(things)
def test_the_system_may_all_and_an_administrator_no_content(thing: Thing) -> None:
    assert allowed_actions(SYSTEM, thing, (), today=TODAY) == actions_on(thing)
    administrator = Actor(ActorKind.PERSON, IDS[0], is_administrator=True)
    assert allowed_actions(administrator, thing, (), today=TODAY).isdisjoint(
        {Action.FILL, Action.CLOSE, Action.APPEND, Action.DESCRIBE, Action.WITHDRAW, Action.OPEN_ARCHIVE}
    )


@pytest.mark.parametrize("verbs", [{"read"}, {"write", "manage"}, set()])
def test_an_administrators_token_has_his_powers_only_with_the_verb_admin(verbs: set[str]) -> None:
    bearer = Actor(ActorKind.PERSON, IDS[0], is_administrator=True, scope=TokenScope(frozenset(verbs)))
    private = ArchiveThing(IDS[1], IDS[2], IDS[3], AccessClass.PRIVATE, None, is_closed=True)
    assert not allowed_actions(bearer, private, (), today=TODAY)
    assert not allowed_actions(bearer, InstanceThing(), (), today=TODAY)


@pytest.mark.parametrize("on_kind", ["archive", "account"])
def test_nobody_grants_above_his_own_role(on_kind: OnKind) -> None:
    for own in Role:
        for given_role in Role:
            expected = ROLE_ACTIONS[given_role] <= ROLE_ACTIONS[own]
            assert is_role_grantable([Held(on_kind, own)], given_role, is_administrator=False) == expected
    assert not is_role_grantable([], Role.READER, is_administrator=False)
    assert is_role_grantable([], Role.OWNER, is_administrator=True)
    assert not is_role_grantable([Held(on_kind, Role.MANAGER)], Role.OWNER, is_administrator=False)
    assert is_role_grantable([Held("organisation", Role.MANAGER)], Role.OWNER, is_administrator=False)
    assert not is_role_grantable([Held("organisation", Role.CURATOR)], Role.CURATOR, is_administrator=False)


def test_a_refusal_names_the_weakest_role_that_suffices() -> None:
    archive = ArchiveThing(IDS[0], IDS[1], IDS[2], AccessClass.PRIVATE, None, is_closed=False)
    account = AccountThing(IDS[1], IDS[2])
    assert weakest_role_for(Action.DESCRIBE, archive) is Role.CURATOR
    assert weakest_role_for(Action.MANAGE_ORGANISATION, OrganisationThing(IDS[2])) is Role.MANAGER
    assert weakest_role_for(Action.CLOSE, archive) is Role.CONTRIBUTOR
    assert weakest_role_for(Action.WITHDRAW, archive) is Role.OWNER
    assert weakest_role_for(Action.OPEN_ARCHIVE, account) is Role.CONTRIBUTOR
    assert weakest_role_for(Action.ADMINISTER, archive) is None


@pytest.mark.parametrize("backoff", [CLIENT_BACKOFF, LOGIN_BACKOFF])
@given(failures=st.integers(0, 10_000))
def test_the_wait_grows_and_has_an_end(backoff: Backoff, failures: int) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    wait = backoff.wait_until(failures, now) - now
    assert timedelta(0) <= wait <= backoff.longest
    assert wait <= backoff.wait_until(failures + 1, now) - now
    assert (wait == timedelta(0)) == (failures < backoff.free)


@pytest.mark.parametrize(
    ("password", "login"),
    [
        ("short", "ana"),
        ("elevenchars", "ana"),
        ("ana.meyer.desy", "Ana.Meyer.DESY"),
        ("anameyeranameyer", "anameyer"),
        ("abababababab", "ana"),
        ("x" * 2000, "ana"),
    ],
)
def test_weak_passwords_are_told_why(password: str, login: str) -> None:
    assert find_password_problem(password, login)


def test_a_long_password_needs_no_digits_or_signs() -> None:
    assert find_password_problem("plum tractor ninety sea", "ana") is None


def test_a_grant_names_exactly_one_grantee() -> None:
    for wrong in ((None, None, None), (IDS[0], IDS[1], None), (IDS[0], None, "x509 CN=Ada")):
        with pytest.raises(ValueError, match="an identity, a group or a credential"):
            Grantee(*wrong)
