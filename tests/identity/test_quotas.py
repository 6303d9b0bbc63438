"""Quotas are asked for by those who work in an account and decided by those who manage its organisation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Thread
from uuid import UUID

import pytest

from perdure.db import Database
from perdure.identity import Account, Grantee, OrganisationThing, Role
from perdure.identity.errors import QuotaRequestDecidedError, QuotaRequestPendingError
from perdure.identity.model import RequestState
from perdure.kernel.actor import ANONYMOUS, SYSTEM, Actor
from perdure.kernel.errors import BadInputError, NotAllowedError, NotFoundError, PerdureError

from .house import PASSWORD, House, own_id


@pytest.fixture
def elsewhere(house: House) -> UUID:
    """A second organisation."""
    return house.identity.create_organisation(house.administrator, "Elsewhere").id


@pytest.fixture
def maja(house: House, elsewhere: UUID) -> Actor:
    """Who manages the second organisation."""
    made = join(house, "maja", elsewhere)
    house.identity.grant(house.administrator, OrganisationThing(elsewhere), Grantee(own_id(made)), Role.MANAGER)
    return made


@pytest.fixture
def nils(house: House, elsewhere: UUID) -> Actor:
    """Who belongs to it."""
    return join(house, "nils", elsewhere)


def join(house: House, login: str, organisation_id: UUID) -> Actor:
    house.identity.create_local_account(
        house.administrator, login=login, password=PASSWORD, display_name=login, organisation_id=organisation_id
    )
    return house.log_in(login)


def ask(house: House, actor: Actor, account: Account, size: int = 100) -> UUID:
    return house.identity.request_quota(actor, account.id, asked_bytes=size, reason="A new detector.").id


def quota_of(house: House, account: Account) -> int | None:
    with house.db.begin() as tx:
        return house.identity.get_account_in(tx, account.id).quota_bytes


def test_an_approval_sets_the_quota_with_its_events(house: House, maja: Actor, nils: Actor) -> None:
    account = house.personal(nils)
    first = ask(house, nils, account)
    with pytest.raises(QuotaRequestPendingError):
        ask(house, nils, account, 7)
    approved = house.identity.approve_quota_request(maja, first)
    assert (approved.state, approved.given_bytes, quota_of(house, account)) == (RequestState.APPROVED, 100, 100)
    assert approved.decided_by == own_id(maja)
    second = ask(house, nils, account, 200)
    assert house.identity.approve_quota_request(maja, second, given_bytes=150, note="For now.").given_bytes == 150
    assert quota_of(house, account) == 150
    told = [event for event in house.told() if event.type.startswith("quota.")]
    kinds = ["quota.requested", "quota.approved"] * 2
    assert [event.type for event in told] == kinds
    assert told[-1].data == {"request": str(second), "account": str(account.id), "quota_bytes": 150}
    assert "detector" not in str([event.data for event in told])
    assert [one.id for one in house.identity.list_quota_requests_of(nils, account.id)] == [first, second]


def test_a_refusal_leaves_the_quota_and_says_why(house: House, maja: Actor, nils: Actor) -> None:
    account = house.personal(nils)
    house.identity.change_account(maja, account.id, quota_bytes=5)
    request = ask(house, nils, account)
    refused = house.identity.refuse_quota_request(maja, request, note="No room this year.")
    assert (refused.state, refused.given_bytes, quota_of(house, account)) == (RequestState.REFUSED, None, 5)
    identity = house.identity
    acts: list[Callable[[], object]] = [
        partial(identity.approve_quota_request, maja, request),
        partial(identity.refuse_quota_request, maja, request, note=""),
    ]
    for act in acts:
        with pytest.raises(QuotaRequestDecidedError):
            act()
    assert quota_of(house, account) == 5
    assert house.identity.list_quota_requests_of(nils, account.id)[0].note == "No room this year."


def test_only_those_who_work_in_an_account_ask_for_it(house: House, maja: Actor, nils: Actor) -> None:
    account = house.personal(nils)
    helper, reader = house.join("helper"), house.join("reader")
    house.identity.grant(nils, account.thing, Grantee(own_id(helper)), Role.CONTRIBUTOR)
    house.identity.grant(nils, account.thing, Grantee(own_id(reader)), Role.READER)
    with pytest.raises(NotAllowedError):
        ask(house, reader, account)
    for stranger in (house.join("stranger"), ANONYMOUS):
        with pytest.raises(NotFoundError):
            ask(house, stranger, account)
    with pytest.raises(BadInputError):
        ask(house, helper, account, -1)
    for actor in (helper, nils, maja, house.administrator):
        house.identity.refuse_quota_request(maja, ask(house, actor, account), note="")


def test_strangers_see_and_decide_nothing(house: House, maja: Actor, nils: Actor) -> None:
    account, request = house.personal(nils), ask(house, nils, house.personal(nils))
    stranger = house.join("stranger")
    for actor in (stranger, ANONYMOUS):
        with pytest.raises(NotFoundError) as missing:
            house.identity.approve_quota_request(actor, own_id(nils))
        acts: list[Callable[[], object]] = [
            partial(house.identity.approve_quota_request, actor, request),
            partial(house.identity.refuse_quota_request, actor, request, note=""),
        ]
        for act in acts:
            with pytest.raises(NotFoundError) as refused:
                act()
            assert str(refused.value) == str(missing.value), "a request that is there looks like one that is not"
        with pytest.raises(NotFoundError):
            house.identity.list_quota_requests_of(actor, account.id)
        with pytest.raises(PerdureError):
            house.identity.list_quota_requests(actor)
    with pytest.raises(NotAllowedError):
        house.identity.approve_quota_request(nils, request)
    home = house.administrator.organisation_id
    assert home is not None
    house.identity.grant(house.administrator, OrganisationThing(home), Grantee(own_id(stranger)), Role.MANAGER)
    assert house.identity.list_quota_requests(house.log_in("stranger")) == [], "of another organisation"
    for decider in (maja, house.administrator, SYSTEM):
        assert [one.id for one in house.identity.list_quota_requests(decider)] == [request]
    assert house.identity.list_quota_requests(maja, state=RequestState.APPROVED) == []
    assert quota_of(house, account) is None


def test_one_of_many_deciders_decides(house: House, maja: Actor, nils: Actor) -> None:
    account, request = house.personal(nils), ask(house, nils, house.personal(nils))
    outcomes: list[int | None] = []

    def approve(size: int) -> None:
        try:
            outcomes.append(house.identity.approve_quota_request(maja, request, given_bytes=size).given_bytes)
        except QuotaRequestDecidedError:
            outcomes.append(None)

    threads = [Thread(target=approve, args=(size,)) for size in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    given = [size for size in outcomes if size is not None]
    assert (len(outcomes), len(given)) == (6, 1)
    assert quota_of(house, account) == given[0]


def test_two_requests_at_once_for_an_account_are_one(house: House, nils: Actor) -> None:
    account, outcomes = house.personal(nils), list[bool]()

    def request() -> None:
        try:
            ask(house, nils, account)
            outcomes.append(True)
        except QuotaRequestPendingError:
            outcomes.append(False)

    threads = [Thread(target=request) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == [False] * 4 + [True]


def test_only_administrators_limit_an_organisation_and_only_those_who_manage_it_know(
    house: House, maja: Actor, nils: Actor, elsewhere: UUID
) -> None:
    for actor in (maja, nils, ANONYMOUS):
        with pytest.raises(NotAllowedError):
            house.identity.change_organisation(actor, elsewhere, quota_bytes=9)
    assert house.identity.change_organisation(house.administrator, elsewhere, quota_bytes=9).quota_bytes == 9
    with pytest.raises(BadInputError):
        house.identity.change_organisation(house.administrator, elsewhere, quota_bytes=-1)
    with pytest.raises(NotFoundError):
        house.identity.change_organisation(house.administrator, own_id(nils), quota_bytes=1)
    seen = {
        actor: house.identity.get_organisation(actor, elsewhere).quota_bytes
        for actor in (maja, nils, house.administrator)
    }
    assert seen == {maja: 9, nils: None, house.administrator: 9}
    assert [event.data["quota_bytes"] for event in house.told() if event.type == "organisation.changed"] == [9]


def test_a_quota_in_files_is_kept_and_changed(house: House, maja: Actor, nils: Actor) -> None:
    account = house.personal(nils)
    assert house.identity.change_account(maja, account.id, quota_files=3).quota_files == 3
    with pytest.raises(NotAllowedError):
        house.identity.change_account(nils, account.id, quota_files=None)
    with pytest.raises(BadInputError, match="files"):
        house.identity.change_account(maja, account.id, quota_files=-1)
    assert house.identity.change_account(nils, account.id, name="Nils's").quota_files == 3


def test_an_older_registry_brings_no_limits(house: House, make_database: Callable[[], Database]) -> None:
    with house.db.begin() as tx:
        registry = house.identity.export_registry(tx)
    for row in registry["organisations"]:
        del row["quota_bytes"]
    for row in registry["accounts"]:
        del row["quota_files"]
    lost = make_database()
    with lost.begin() as tx:
        house.identity.restore_registry(tx, registry)
        account = house.identity.get_account_in(tx, house.personal(house.administrator).id)
        limits = house.identity.find_limits_in(tx, account.id)
    assert (account.quota_files, limits.organisation_bytes) == (None, None)
