"""Two identities of one person become one: what moves, what ends, what stays true, and what is refused."""

from __future__ import annotations

import threading
import time
from base64 import b32decode
from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from sqlalchemy import text

from perdure.archives.exporting import export_events, export_registry
from perdure.archives.persons import Persons
from perdure.archives.rebuild import compare, rebuild
from perdure.archives.records import Context, load
from perdure.archives.trail import Trail
from perdure.archives.transferring import Transferring
from perdure.events import Search
from perdure.identity import Action, Arrival, CredentialKind, Grantee, OrganisationThing, Role
from perdure.identity.errors import (
    BadCredentialsError,
    FreshLoginRequiredError,
    IdentityEndedError,
    MergeRefusedError,
    SecondFactorNeededError,
)
from perdure.identity.model import Client
from perdure.kernel.actor import Actor
from perdure.kernel.errors import BadInputError, NotAllowedError, NotFoundError

from .house import PASSWORD, House

ELSEWHERE = Arrival(CredentialKind.OIDC, "https://login.example.org ada", proofs=frozenset({"oidc"}))


def again(house: House, login: str) -> Actor:
    return house.ctx.identity.log_in(login, PASSWORD)[1]


def test_what_is_in_force_moves_and_what_was_done_stays_true(
    house: House, ada: Actor, bob: Actor, fresh: Context
) -> None:
    identity, persons = house.ctx.identity, Persons(house.ctx)
    identity.link(bob, ELSEWHERE)
    ada_id, bob_id = ada.identity_id, bob.identity_id
    assert ada_id is not None
    assert bob_id is not None
    mine, his, gone = house.open(ada), house.open(bob), house.open(bob)
    house.life.discard(bob, gone.id)
    house.close(his)
    house.life.describe(bob, his.id, {"tags": ["by bob"]})
    house.life.grant(ada, mine.id, Grantee(identity_id=bob_id), Role.READER)
    house.life.grant(
        ada, mine.id, Grantee(identity_id=ada_id), Role.READER, expires_at=house.clock.now() + timedelta(1)
    )
    group = identity.create_group(bob, "Bob's team")
    token, _ = identity.create_token(bob, "script", verbs=["read"])
    session, _ = identity.log_in("bob", PASSWORD)
    plan = persons.plan_own_merge(ada, bob)
    assert (plan.roles, plan.groups, plan.ending_logins) == (4, 1, ("password bob",))
    assert [name for _, name in plan.accounts] == ["bob"]
    assert persons.merge_own(ada, bob) == plan

    assert "login.example.org" in str(identity.list_credentials(ada))
    assert identity.arrive(ELSEWHERE, Client())[1].identity_id == ada_id
    for secret in (session, token):
        with pytest.raises(NotAllowedError):
            identity.authenticate(secret)
    with pytest.raises(BadCredentialsError):
        identity.log_in("bob", PASSWORD)
    with house.ctx.db.begin() as tx:
        assert Action.WITHDRAW in identity.actions(tx, ada, house.look(his.id).thing())
        assert identity.list_own_groups(ada) == [group.id]
    (readers,) = [one for one in house.life.list_grants(ada, mine.id) if one.role is Role.READER]
    assert (readers.to.identity_id, readers.expires_at) == (ada_id, None)
    accounts = {(one.name, one.kind, one.role) for one in identity.list_accounts(ada)}
    assert accounts == {("ada", "personal", Role.OWNER), ("bob", "group", Role.OWNER)}

    history = house.life.record_history(ada, his.id).items
    assert {one.actor_id for one in history} >= {bob_id}
    card = identity.get_identity(ada, bob_id)
    assert (card.display_name, card.merged_into, card.is_active) == ("Bob", ada_id, False)
    house.ctx.events.sequence_pending()
    by_ada = Trail(house.ctx).search(house.administrator, Search(actor=ada_id))
    assert {event.actor_id for event in by_ada} == {ada_id, bob_id}
    (told,) = [event for event in house.told() if event.type == "identity.merged"]
    assert (told.data["identity"], told.data["merged"]) == (str(ada_id), str(bob_id))

    export_registry(house.ctx)
    export_events(house.ctx)
    assert rebuild(fresh).problems == []
    assert compare(house.ctx.db, fresh.db) == []


def test_an_alias_is_given_nothing_and_does_not_come_back(house: House, ada: Actor, bob: Actor) -> None:
    identity, persons, cleo = house.ctx.identity, Persons(house.ctx), house.join("cleo")
    persons.merge_own(ada, bob)
    to = bob.identity_id or house.open(ada).id
    archive = house.open(ada)
    acts: list[Callable[[], object]] = [
        lambda: house.life.grant(ada, archive.id, Grantee(identity_id=to), Role.READER),
        lambda: identity.add_member(house.administrator, identity.create_group(house.administrator, "G").id, to),
        lambda: identity.enable_identity(house.administrator, to),
        lambda: identity.give_login(house.administrator, to, login="bobby", password=PASSWORD),
        lambda: persons.merge(house.administrator, cleo.identity_id or to, to, "Again."),
        lambda: identity.link(bob, ELSEWHERE),  # he was asked who he is just before
        lambda: identity.create_account(
            house.administrator, kind="group", name="G", owner_id=to, organisation_id=bob.organisation_id or to
        ),
    ]
    for act in acts:
        with pytest.raises(IdentityEndedError):
            act()
    with house.ctx.db.begin() as tx:
        assert identity.find_actor_in(tx, to) == identity.find_actor_in(tx, ada.identity_id or to)
    persons.merge_own(cleo, again(house, "ada"))
    assert identity.get_identity(cleo, to).merged_into == cleo.identity_id


def test_merging_needs_both_and_reasons(house: House, ada: Actor, bob: Actor) -> None:
    identity, persons, root = house.ctx.identity, Persons(house.ctx), house.administrator
    kept, gone = ada.identity_id, bob.identity_id
    assert kept is not None
    assert gone is not None
    with pytest.raises(NotAllowedError):
        persons.merge(ada, kept, gone, "I say so.")
    for reason in ("", "x" * 2001):
        with pytest.raises(BadInputError):
            persons.merge(root, kept, gone, reason)
    with pytest.raises(MergeRefusedError, match="administrator"):
        persons.merge_own(ada, again(house, "root"))
    with pytest.raises(MergeRefusedError, match="one and the same"):
        persons.merge_own(ada, ada)
    identity.disable_identity(root, gone)
    with pytest.raises(MergeRefusedError, match="disabled"):
        persons.merge(root, kept, gone, "One person.")
    identity.enable_identity(root, gone)
    away = identity.create_organisation(root, "Away").id
    other, _ = identity.create_local_account(
        root, login="far", password=PASSWORD, display_name="Far", organisation_id=away
    )
    manager = house.join("maja")
    home = OrganisationThing(manager.organisation_id or away)
    identity.grant(root, home, Grantee(identity_id=manager.identity_id), Role.MANAGER)
    with pytest.raises(NotFoundError):
        persons.merge(manager, kept, other.id, "One person.")
    house.clock.move(minutes=16)
    bob_again = again(house, "bob")
    stale_acts: list[Callable[[], object]] = [
        lambda: persons.merge_own(ada, bob_again),
        lambda: persons.merge(root, kept, gone, "Yes."),
    ]
    for stale in stale_acts:
        with pytest.raises(FreshLoginRequiredError):
            stale()
    assert persons.merge(again(house, "maja"), kept, gone, "One person.").gone_id == gone


def test_of_two_approvals_of_one_person_one_counts_and_offers_to_himself_end(
    house: House, ada: Actor, bob: Actor
) -> None:
    transferring = Transferring(house.ctx)
    archive, offered = house.close(house.open(ada)), house.open(ada)
    house.life.grant(ada, archive.id, Grantee(identity_id=bob.identity_id), Role.OWNER)
    house.ctx.identity.disable_identity(house.administrator, house.join("idle").identity_id or archive.id)
    with house.ctx.db.begin() as tx:
        profile = text("UPDATE archives SET profile = profile || '{\"withdraw_approvals\": 3}' WHERE id = :id")
        tx.execute(profile, {"id": archive.id})
    for person in (ada, bob):
        house.life.request_withdrawal(person, archive.id, "Wrong.")
    waiting = transferring.offer(ada, offered.id, bob.identity_id or archive.id)
    Persons(house.ctx).merge_own(ada, bob)
    assert [one.identity_id for one in house.life.get_withdrawal(ada, archive.id).approvals] == [ada.identity_id]
    assert waiting.id not in {one.id for one in transferring.list_offers(ada)}


def test_two_merges_at_once_and_a_role_given_meanwhile_leave_nothing_behind(
    house: House, ada: Actor, bob: Actor
) -> None:
    persons, cleo = Persons(house.ctx), house.join("cleo")
    archives = [house.open(ada) for _ in range(3)]
    failed: list[BaseException] = []

    def run(act: object, *arguments: object) -> None:
        try:
            act(*arguments)  # type: ignore[operator]  # a function
        except Exception as error:
            failed.append(error)

    def give(number: int) -> None:
        house.life.grant(ada, archives[number].id, Grantee(identity_id=bob.identity_id), Role.READER)

    work = [(persons.merge_own, cleo, bob), (persons.merge_own, ada, bob), *((give, number) for number in range(3))]
    threads = [threading.Thread(target=run, args=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {type(error) for error in failed} <= {IdentityEndedError}
    assert sum(isinstance(error, IdentityEndedError) for error in failed) >= 1
    with house.ctx.db.begin() as tx:
        left = text("SELECT count(*) FROM grants WHERE identity_id = :id")
        assert tx.execute(left, {"id": bob.identity_id}).scalar() == 0
        lagging = text("SELECT count(*) FROM archives WHERE journalled < revision")
        assert tx.execute(lagging).scalar() == 0


@pytest.mark.parametrize("is_begun_by_both", [False, True])
def test_a_second_factor_that_was_begun_takes_the_place_of_none(
    house: House, ada: Actor, bob: Actor, *, is_begun_by_both: bool
) -> None:
    identity, persons = house.ctx.identity, Persons(house.ctx)
    key, _ = identity.begin_second_factor(bob, issuer="x")
    if not is_begun_by_both:
        device = TOTP(b32decode(key), 6, SHA1(), 30)  # noqa: S303  # what every device speaks
        identity.confirm_second_factor(bob, device.generate(int(house.clock.now().timestamp())).decode())
    identity.begin_second_factor(ada, issuer="x")
    plan = persons.merge_own(ada, bob)
    if is_begun_by_both:
        assert plan.second_factor is None
        assert again(house, "ada").identity_id == ada.identity_id
        return
    assert plan.second_factor == "moved"
    with pytest.raises(SecondFactorNeededError):
        again(house, "ada")


def test_who_may_is_asked_again_once_both_are_held(house: House, ada: Actor, bob: Actor) -> None:
    """Else somebody who is made an administrator meanwhile would get the logins that his manager chooses."""
    identity, persons, root, manager = house.ctx.identity, Persons(house.ctx), house.administrator, house.join("maja")
    archive, kept, gone = house.open(bob), ada.identity_id, bob.identity_id
    assert kept is not None
    assert gone is not None
    home = OrganisationThing(manager.organisation_id or kept)
    identity.grant(root, home, Grantee(identity_id=manager.identity_id), Role.MANAGER)
    failed: list[Exception] = []

    def merge() -> None:
        try:
            persons.merge(manager, kept, gone, "One person.")
        except Exception as error:
            failed.append(error)

    waiting = threading.Thread(target=merge)
    with house.ctx.db.begin() as tx:
        load(tx, archive.id, lock=True)
        waiting.start()
        until = time.monotonic() + 10
        while not _is_somebody_waiting(house) and time.monotonic() < until:
            time.sleep(0.02)
        identity.set_administrator(root, kept, is_administrator=True)
    waiting.join()
    assert [type(error) for error in failed] == [NotAllowedError]
    assert identity.get_identity(root, gone).merged_into is None


def _is_somebody_waiting(house: House) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with house.ctx.db.begin() as tx:
        return bool(tx.execute(text(query)).scalar())
