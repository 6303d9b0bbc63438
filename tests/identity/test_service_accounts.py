"""Service accounts: who may make them, what their tokens may do and from where, and that somebody answers for each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from perdure.identity import (
    AccessClass,
    Action,
    ArchiveThing,
    Client,
    Grantee,
    OrganisationThing,
    Role,
    ServiceAccount,
    ServiceState,
    service_accounts,
)
from perdure.identity.errors import (
    AddressNotAllowedError,
    BadCredentialsError,
    IdentityEndedError,
    NameTakenError,
    NotLoggedInError,
    ResponsibleError,
    ServiceIdleError,
    ServiceOrphanedError,
    TokenEndedError,
    TokenExpiredError,
    TokenRotatedError,
)
from perdure.kernel.actor import ANONYMOUS, Actor, ActorKind
from perdure.kernel.errors import BadInputError, NotAllowedError, NotFoundError, PerdureError
from perdure.kernel.ids import new_id

from .house import PASSWORD, House, own_id


def make(house: House, actor: Actor | None = None, name: str = "daq", **more: Any) -> ServiceAccount:
    chosen: dict[str, Any] = {"purpose": "Takes data.", "verbs": ["read", "write"], **more}
    return house.identity.create_service(actor or house.administrator, name=name, **chosen)


def token_of(house: House, service: ServiceAccount, actor: Actor | None = None, **more: Any) -> tuple[str, UUID]:
    secret, token = house.identity.create_service_token(actor or house.administrator, service.id, "t", **more)
    return secret, token.id


def manager_of(house: House, login: str) -> Actor:
    manager = house.join(login)
    assert manager.organisation_id is not None
    house.identity.grant(
        house.administrator,
        OrganisationThing(manager.organisation_id),
        Grantee(identity_id=own_id(manager)),
        Role.MANAGER,
    )
    return manager


def actions(house: House, actor: Actor, thing: ArchiveThing) -> frozenset[Action]:
    with house.db.begin() as tx:
        return house.identity.actions(tx, actor, thing)


def test_managers_make_them_and_others_do_not_know_of_them(house: House) -> None:
    manager, ada = manager_of(house, "mia"), house.join("ada")
    with pytest.raises(NotAllowedError):
        make(house, ada)
    with pytest.raises((NotLoggedInError, NotFoundError)):
        make(house, ANONYMOUS)
    service = make(house, manager, responsible_id=own_id(ada), quota_bytes=1000)
    assert (service.responsible_name, service.state, service.ends_at) == ("Ada", ServiceState.ACTIVE, None)
    assert house.identity.get_account(house.administrator, service.account_id).quota_bytes == 1000
    with pytest.raises(NameTakenError):
        make(house, manager)
    ben = house.join("ben")
    elsewhere = house.identity.create_organisation(house.administrator, "Elsewhere")
    with pytest.raises(NotFoundError):
        make(house, manager, name="other", organisation_id=elsewhere.id)
    for actor, seen in ((manager, 1), (ada, 1), (house.administrator, 1), (ben, 0)):
        assert len(house.identity.list_services(actor)) == seen
    for hidden in (service.id, new_id()):
        with pytest.raises(NotFoundError, match="no such service account"):
            house.identity.get_service(ben, hidden)
        with pytest.raises(NotFoundError, match="no such service account"):
            house.identity.change_service(ben, hidden, is_active=False)
        with pytest.raises(NotFoundError, match="no such service account"):
            house.identity.create_service_token(ben, hidden, "t")


@pytest.mark.parametrize(
    "wrong",
    [
        {"verbs": []},
        {"verbs": ["admin"]},
        {"verbs": ["fly"]},
        {"archives": []},
        {"addresses": ["10.0.0.1/8"]},
        {"addresses": ["here"]},
        {"addresses": ["10.0.0.1"] * 2 + [f"10.1.{one}.0/24" for one in range(101)]},
        {"purpose": "  "},
        {"name": ""},
        {"responsible_id": UUID(int=7)},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(house: House, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInputError):
        make(house, **wrong)
    assert house.identity.list_services(house.administrator) == []


def test_a_machine_has_tokens_only(house: House) -> None:
    service = make(house, verbs=["read", "write", "manage"])
    secret, _ = token_of(house, service)
    machine = house.identity.authenticate(secret)
    assert (machine.kind, machine.responsible_id) == (ActorKind.SERVICE, own_id(house.administrator))
    with pytest.raises(BadCredentialsError):
        house.identity.log_in("daq", PASSWORD)
    with pytest.raises(BadInputError):
        house.identity.give_login(house.administrator, service.id, login="daq", password=PASSWORD)
    with pytest.raises(BadInputError):
        house.identity.set_administrator(house.administrator, service.id, is_administrator=True)
    with pytest.raises(NotAllowedError, match="who is responsible"):
        house.identity.create_token(machine, "more", verbs=["read"])
    with pytest.raises(NotFoundError):
        house.identity.create_service_token(machine, service.id, "more")
    with pytest.raises(ResponsibleError):
        make(house, name="second", responsible_id=service.id)


def test_a_token_may_do_no_more_than_its_account_even_when_that_is_narrowed_later(house: House) -> None:
    ada = house.join("ada")
    account = house.personal(ada)
    one, two = (
        ArchiveThing(new_id(), account.id, account.organisation_id, AccessClass.PRIVATE, None, is_closed=False)
        for _ in range(2)
    )
    service = make(house, archives=[one.id, two.id])
    house.identity.grant(ada, account.thing, Grantee(identity_id=service.id), Role.OWNER)
    for wider in ({"verbs": ["manage"]}, {"archives": [new_id()]}, {"archives": [one.id, new_id()]}):
        with pytest.raises(NotAllowedError):
            token_of(house, service, **wider)
    narrow = house.identity.authenticate(token_of(house, service, verbs=["read"], archives=[one.id])[0])
    assert actions(house, narrow, one) == {Action.SEE, Action.READ}
    assert actions(house, narrow, two) == frozenset()
    secret, _ = token_of(house, service)
    assert Action.FILL in actions(house, house.identity.authenticate(secret), two)
    house.identity.change_service(house.administrator, service.id, verbs=["read"], archives=[one.id])
    after = house.identity.authenticate(secret)
    assert actions(house, after, one) == {Action.SEE, Action.READ}
    assert actions(house, after, two) == frozenset()
    house.identity.change_service(house.administrator, service.id, archives=[new_id()])
    assert actions(house, house.identity.authenticate(secret), one) == frozenset()


def test_a_token_of_the_maker_bounds_what_he_makes(house: House) -> None:
    service = make(house)
    weak, _ = house.identity.create_token(house.administrator, "w", verbs=["manage"])
    with pytest.raises(NotAllowedError):
        token_of(house, service, house.identity.authenticate(weak))
    short, _ = house.identity.create_token(
        house.administrator,
        "s",
        verbs=["read", "write", "manage"],
        expires_at=house.clock.now() + timedelta(days=1),
    )
    bearer = house.identity.authenticate(short)
    _, token = house.identity.create_service_token(bearer, service.id, "t")
    assert token.expires_at == house.clock.now() + timedelta(days=1)
    with pytest.raises(NotAllowedError):
        token_of(house, service, bearer, expires_at=house.clock.now() + timedelta(days=2))


def test_a_token_has_an_end_and_no_late_one(house: House) -> None:
    service = make(house)
    secret, _ = token_of(house, service)
    assert house.identity.get_service(house.administrator, service.id).ends_at == house.clock.now() + timedelta(days=90)
    with pytest.raises(BadInputError, match="at most 365 days"):
        token_of(house, service, expires_at=house.clock.now() + timedelta(days=366))
    house.clock.move(timedelta(days=90))
    with pytest.raises(TokenExpiredError):
        house.identity.authenticate(secret)


def test_the_old_token_goes_on_for_a_while_after_a_rotation(house: House) -> None:
    service = make(house)
    old, old_id = token_of(house, service, verbs=["read"], expires_at=house.clock.now() + timedelta(days=30))
    house.clock.move(timedelta(days=10))
    new, token = house.identity.rotate_service_token(house.administrator, service.id, old_id, grace=timedelta(days=2))
    assert (token.replaces, token.scope.verbs) == (old_id, frozenset({"read"}))
    assert token.expires_at == house.clock.now() + timedelta(days=30)
    listed = house.identity.list_service_tokens(house.administrator, service.id)
    assert [(one.id, one.replaces) for one in listed] == [(token.id, old_id), (old_id, None)]
    for secret in (old, new):
        house.identity.authenticate(secret)
    with pytest.raises(TokenRotatedError) as twice:
        house.identity.rotate_service_token(house.administrator, service.id, old_id)
    assert twice.value.extra["replaced_by"] == str(token.id)
    house.clock.move(timedelta(days=2))
    house.identity.authenticate(new)
    with pytest.raises(TokenExpiredError):
        house.identity.authenticate(old)
    with pytest.raises(TokenEndedError):
        house.identity.rotate_service_token(house.administrator, service.id, old_id)


def test_a_lost_rotation_is_repeated_after_its_token_is_revoked(house: House) -> None:
    service = make(house)
    old, old_id = token_of(house, service)
    _, lost = house.identity.rotate_service_token(house.administrator, service.id, old_id)
    house.identity.revoke_service_token(house.administrator, service.id, lost.id)
    house.identity.revoke_service_token(house.administrator, service.id, lost.id)
    _, again = house.identity.rotate_service_token(house.administrator, service.id, old_id, grace=timedelta(0))
    assert again.replaces == old_id
    with pytest.raises(TokenExpiredError):
        house.identity.authenticate(old)


def test_a_rotation_adds_no_token_past_the_limit(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_accounts, "_MOST_TOKENS", 2)
    service = make(house)
    token_of(house, service)
    _, old_id = token_of(house, service)
    with pytest.raises(BadInputError, match="at most 2"):
        house.identity.rotate_service_token(house.administrator, service.id, old_id)
    house.identity.rotate_service_token(house.administrator, service.id, old_id, grace=timedelta(0))


def test_of_two_rotations_at_once_one_wins(house: House) -> None:
    service = make(house)
    _, old_id = token_of(house, service)

    def rotate(_: int) -> str:
        try:
            return house.identity.rotate_service_token(house.administrator, service.id, old_id)[0]
        except TokenRotatedError:
            return ""

    with ThreadPoolExecutor(4) as pool:
        made = [secret for secret in pool.map(rotate, range(4)) if secret]
    assert len(made) == 1


def test_a_token_comes_from_its_addresses_only_and_tells_where_it_was_used(house: House) -> None:
    service = make(house, addresses=["192.0.2.0/24", "2001:db8::/32", "10.0.0.7"])
    secret, token_id = token_of(house, service)
    for good in ("192.0.2.9", "::ffff:192.0.2.9", "2001:db8::1", "10.0.0.7"):
        house.identity.authenticate(secret, address=good)
    shown = house.identity.get_service(house.administrator, service.id)
    assert (shown.last_used_from, shown.last_used_at) == ("192.0.2.9", house.clock.now())
    before = house.told()[-1].number
    for wrong in ("192.0.3.9", "2001:db9::1", "10.0.0.8", "", "somewhere", "192.0.2.9.evil", "::ffff:10.0.0.8"):
        with pytest.raises(AddressNotAllowedError):
            house.identity.authenticate(secret, address=wrong)
    (refused,) = house.told(since=before)  # the others within the minute are counted only
    assert (refused.type, refused.data) == ("token.refused", {"service": str(service.id), "times": 1})
    house.identity.change_service(house.administrator, service.id, addresses=[])
    house.clock.move(timedelta(minutes=2))
    house.identity.authenticate(secret, address="203.0.113.5")
    (token,) = house.identity.list_service_tokens(house.administrator, service.id)
    assert (token.id, token.last_used_from) == (token_id, "203.0.113.5")
    house.clock.move(timedelta(days=90 + 91))
    house.identity.forget_ended()
    assert house.identity.list_service_tokens(house.administrator, service.id)[0].last_used_from == ""


def test_credentials_rest_while_nobody_is_responsible(house: House) -> None:
    ada, ben = house.join("ada"), house.join("ben")
    service = make(house, responsible_id=own_id(ada))
    secret, token_id = token_of(house, service, ada)
    before = house.told()[-1].number
    house.identity.disable_identity(house.administrator, own_id(ada))
    told = [(event.type, event.data.get("service")) for event in house.told(since=before)]
    assert told == [("identity.disabled", None), ("service.orphaned", str(service.id))]
    assert house.identity.list_services(house.administrator)[0].state is ServiceState.ORPHANED
    with pytest.raises(ServiceOrphanedError):
        house.identity.authenticate(secret)
    with house.db.begin() as tx:
        assert house.identity.find_actor_in(tx, service.id) is None
    with pytest.raises(ServiceIdleError):
        house.identity.rotate_service_token(house.administrator, service.id, token_id)
    with pytest.raises(ResponsibleError):
        house.identity.change_service(house.administrator, service.id, responsible_id=new_id())
    house.identity.change_service(house.administrator, service.id, responsible_id=own_id(ben))
    assert house.identity.authenticate(secret).responsible_id == ben.identity_id
    handed = house.told()[-1]
    assert handed.type == "service.handed_over"
    assert handed.data == {"service": str(service.id), "from": str(own_id(ada)), "responsible": str(own_id(ben))}


def test_who_is_responsible_uses_and_disables_but_widens_nothing(house: House) -> None:
    ada, ben = house.join("ada"), house.join("ben")
    service = make(house, responsible_id=own_id(ada))
    _, token_id = token_of(house, service, ada)
    house.identity.rotate_service_token(ada, service.id, token_id)
    widenings: list[dict[str, Any]] = [{"verbs": ["read"]}, {"archives": None}, {"addresses": []}, {"purpose": "x"}]
    for widening in widenings:
        with pytest.raises(NotAllowedError):
            house.identity.change_service(ada, service.id, **widening)
    assert house.identity.change_service(ada, service.id, is_active=False).state is ServiceState.DISABLED
    with pytest.raises(NotAllowedError):
        house.identity.change_service(ada, service.id, is_active=True)
    house.identity.change_service(house.administrator, service.id, is_active=True)
    house.identity.change_service(ada, service.id, responsible_id=own_id(ben))
    with pytest.raises(NotFoundError):
        house.identity.get_service(ada, service.id)
    reader = house.identity.authenticate(house.identity.create_token(ben, "r", verbs=["read"])[0])
    assert house.identity.get_service(reader, service.id).id == service.id
    with pytest.raises(NotAllowedError):
        house.identity.create_service_token(reader, service.id, "t")
    changes: list[dict[str, Any]] = [{"is_active": False}, {"responsible_id": own_id(ada)}, {}]
    for change in changes:  # to read does not mean to change
        with pytest.raises(NotAllowedError):
            house.identity.change_service(reader, service.id, **change)
    assert house.identity.get_service(ben, service.id).state is ServiceState.ACTIVE
    keeper = house.identity.authenticate(house.identity.create_token(ben, "m", verbs=["manage"])[0])
    assert house.identity.change_service(keeper, service.id, is_active=False).state is ServiceState.DISABLED


def test_a_disabled_service_account_is_refused_as_one_that_is_not_known(house: House) -> None:
    service = make(house)
    secret, _ = token_of(house, service)
    house.identity.change_service(house.administrator, service.id, is_active=False)
    with pytest.raises(BadCredentialsError):
        house.identity.authenticate(secret)
    with pytest.raises(ServiceIdleError):
        token_of(house, service)


def test_an_erased_service_account_stays_erased(house: House) -> None:
    service = make(house)
    with house.db.begin() as tx:
        house.identity.erase_in(tx, house.administrator, service.id, "It was never used.")
    with pytest.raises(IdentityEndedError):
        house.identity.change_service(house.administrator, service.id, is_active=True)
    assert house.identity.get_service(house.administrator, service.id).state is ServiceState.DISABLED


def test_a_person_of_elsewhere_is_named_by_administrators_only(house: House) -> None:
    manager = manager_of(house, "mia")
    elsewhere = house.identity.create_organisation(house.administrator, "Elsewhere")
    stranger, _ = house.identity.create_local_account(
        house.administrator, login="zoe", password=PASSWORD, display_name="Zoe", organisation_id=elsewhere.id
    )
    with pytest.raises(ResponsibleError):
        make(house, manager, responsible_id=stranger.id)
    assert make(house, responsible_id=stranger.id).responsible_id == stranger.id


def test_who_answers_for_a_machine_has_accepted_the_terms(house: House) -> None:
    ada = house.join("ada")
    house.identity.publish_terms(house.administrator, "Be kind.")
    with pytest.raises(ResponsibleError, match="terms"):
        make(house, responsible_id=own_id(ada))
    house.identity.log_in("ada", PASSWORD, Client(), accept_terms=1)
    secret, _ = token_of(house, make(house, responsible_id=own_id(ada)))
    house.identity.authenticate(secret)


def test_the_log_names_the_machine_and_who_answers_for_it(house: House) -> None:
    ada = house.join("ada")
    service = make(house, responsible_id=own_id(ada), verbs=["read", "write", "manage"])
    machine = house.identity.authenticate(token_of(house, service)[0])
    house.identity.create_group(machine, "made by a machine")
    made = next(event for event in house.told() if event.type == "group.created")
    assert (made.actor_kind, made.actor_id) == (ActorKind.SERVICE, service.id)
    assert made.data["responsible"] == str(own_id(ada))


def test_it_comes_back_from_the_stores_without_its_tokens(house: House) -> None:
    service = make(house, archives=[new_id()], addresses=["192.0.2.0/24"])
    with house.db.begin() as tx:
        kept = house.identity.export_registry(tx)
        house.identity.restore_registry(tx, kept)
        assert house.identity.export_registry(tx) == kept
        house.identity.restore_registry(tx, {name: rows for name, rows in kept.items() if name != "service_accounts"})
    assert kept["service_accounts"][0]["identity_id"] == str(service.id)
    assert house.identity.get_service(house.administrator, service.id) == service


def test_a_service_identity_that_nobody_manages_is_no_service_account(house: House) -> None:
    with pytest.raises(PerdureError):
        house.identity.get_service(house.administrator, own_id(house.administrator))
