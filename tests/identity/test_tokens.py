"""API tokens: shown once, never wider than their maker, ended by time and by revocation."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from perdure.identity import AccessClass, Action, ArchiveThing, InstanceThing
from perdure.identity.errors import BadCredentialsError, NotLoggedInError, TokenExpiredError, TokenTooNarrowError
from perdure.kernel.actor import ANONYMOUS, Actor
from perdure.kernel.errors import BadInputError, NotAllowedError, NotFoundError
from perdure.kernel.ids import new_id

from .house import House

ALL = ["read", "write", "manage", "admin"]


def bearer(house: House, **wanted: object) -> Actor:
    token, _ = house.identity.create_token(house.administrator, "test", **wanted)  # type: ignore[arg-type]  # by name
    return house.identity.authenticate(token)


def test_a_token_acts_for_its_owner_within_its_scope(house: House) -> None:
    account = house.personal(house.administrator)
    one, two = (
        ArchiveThing(new_id(), account.id, account.organisation_id, AccessClass.PRIVATE, None, is_closed=False)
        for _ in range(2)
    )
    reader = bearer(house, verbs=["read"], archives=[one.id])
    with house.db.begin() as tx:
        assert house.identity.actions(tx, reader, one) == {Action.SEE, Action.READ}
        assert house.identity.actions(tx, reader, two) == frozenset()
        assert house.identity.actions(tx, reader, account.thing) == frozenset()
        assert house.identity.actions(tx, bearer(house, verbs=["admin"]), InstanceThing()) == {Action.ADMINISTER}
        writer = bearer(house, verbs=["write"])
        assert house.identity.actions(tx, writer, one) == {
            Action.VERIFY,
            Action.FILL,
            Action.DESCRIBE,
            Action.CLOSE,
            Action.APPEND,
        }


def test_a_token_ends_a_year_later_unless_told_otherwise(house: House) -> None:
    token, shown = house.identity.create_token(house.administrator, "t", verbs=["read"])
    assert shown.expires_at == house.clock.now() + timedelta(days=365)
    house.clock.move(timedelta(days=365))
    with pytest.raises(TokenExpiredError):
        house.identity.authenticate(token)


def test_a_revoked_token_stays_in_the_list_and_out_of_the_house(house: House) -> None:
    token, shown = house.identity.create_token(house.administrator, "t", verbs=["read"])
    house.identity.revoke_token(house.administrator, shown.id)
    house.identity.revoke_token(house.administrator, shown.id)
    with pytest.raises(TokenExpiredError):
        house.identity.authenticate(token)
    (listed,) = house.identity.list_tokens(house.administrator)
    assert listed.revoked_at == house.clock.now()
    assert [event.type for event in house.told()].count("token.revoked") == 1


def test_a_token_can_log_itself_out(house: House) -> None:
    token, _ = house.identity.create_token(house.administrator, "t", verbs=["read"])
    house.identity.log_out(token)
    with pytest.raises(TokenExpiredError):
        house.identity.authenticate(token)


def test_nobody_revokes_the_token_of_another(house: House) -> None:
    _, shown = house.identity.create_token(house.administrator, "t", verbs=["read"])
    ana = house.join("ana")
    with pytest.raises(NotFoundError):
        house.identity.revoke_token(ana, shown.id)
    assert house.identity.list_tokens(ana) == []
    with pytest.raises(NotLoggedInError):
        house.identity.list_tokens(ANONYMOUS)


@pytest.mark.parametrize(
    "wanted",
    [
        {"verbs": []},
        {"verbs": ["fly"]},
        {"verbs": ["read"], "archives": []},
        {"verbs": ["read"], "days": -1},
        {"verbs": ["read"], "days": 365 * 3},
    ],
)
def test_a_token_that_makes_no_sense_is_refused(house: House, wanted: dict[str, object]) -> None:
    days = wanted.pop("days", None)
    if isinstance(days, int):
        wanted = {**wanted, "expires_at": house.clock.now() + timedelta(days=days)}
    with pytest.raises(BadInputError):
        bearer(house, **wanted)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"verbs": ["read", "manage"]}, "has not the verb admin"),
        ({"verbs": ALL, "archives": [new_id()]}, "is limited to some archives"),
    ],
)
def test_an_administrator_is_told_that_it_is_the_token(house: House, wanted: dict[str, object], said: str) -> None:
    with house.db.begin() as tx:
        with pytest.raises(TokenTooNarrowError, match=said) as refused:
            house.identity.require(tx, bearer(house, **wanted), Action.ADMINISTER, InstanceThing())
        assert "--verb admin" in refused.value.next_step
        with pytest.raises(NotAllowedError, match="for administrators") as other:
            house.identity.require(tx, house.join("ben"), Action.ADMINISTER, InstanceThing())
    assert not isinstance(other.value, TokenTooNarrowError)


def test_a_token_makes_no_wider_token(house: House) -> None:
    manager = bearer(house, verbs=["read", "manage"])
    house.identity.create_token(manager, "narrower", verbs=["read"])
    attempts: list[Callable[[], object]] = [
        lambda: house.identity.create_token(manager, "wider", verbs=["read", "admin"]),
        lambda: house.identity.create_token(bearer(house, verbs=["read"]), "same", verbs=["read"]),
        lambda: house.identity.create_token(
            bearer(house, verbs=ALL, archives=[new_id()]), "all archives", verbs=["read"]
        ),
        lambda: house.identity.create_group(bearer(house, verbs=["write"]), "group"),
        lambda: house.identity.list_accounts(bearer(house, verbs=["write"])),
    ]
    for attempt in attempts:
        with pytest.raises(NotAllowedError):
            attempt()


def test_a_token_makes_no_token_that_outlives_it(house: House) -> None:
    end = house.clock.now() + timedelta(days=30)
    manager = bearer(house, verbs=["read", "manage"], expires_at=end)
    with pytest.raises(NotAllowedError):
        house.identity.create_token(manager, "longer", verbs=["read"], expires_at=end + timedelta(seconds=1))
    secret, shown = house.identity.create_token(manager, "usual", verbs=["read", "manage"])
    assert shown.expires_at == end
    _, third = house.identity.create_token(house.identity.authenticate(secret), "again", verbs=["read"])
    assert third.expires_at == end
    _, shorter = house.identity.create_token(manager, "shorter", verbs=["read"], expires_at=end - timedelta(days=1))
    assert shorter.expires_at == end - timedelta(days=1)


def test_a_token_limited_to_archives_knows_nothing_of_other_tokens_and_sessions(house: House) -> None:
    _, other = house.identity.create_token(house.administrator, "other", verbs=["read"])
    limited = bearer(house, verbs=ALL, archives=[new_id()])
    attempts: list[Callable[[], object]] = [
        lambda: house.identity.list_tokens(limited),
        lambda: house.identity.list_sessions(limited),
        lambda: house.identity.revoke_token(limited, other.id),
        lambda: house.identity.list_tokens(bearer(house, verbs=["write"])),
    ]
    for attempt in attempts:
        with pytest.raises(NotAllowedError):
            attempt()
    assert other.id in {token.id for token in house.identity.list_tokens(bearer(house, verbs=["manage"]))}


def test_neither_secrets_nor_logins_nor_addresses_stand_in_events_or_repr(house: House) -> None:
    card, _ = house.identity.create_local_account(
        house.administrator,
        login="ana.secretive",
        password=house.password,
        display_name="Ana Meyer",
        email="ana@example.org",
    )
    session, ana = house.identity.log_in("ana.secretive", house.password)
    token, shown = house.identity.create_token(ana, "my laptop", verbs=["read"])
    with pytest.raises(BadCredentialsError):
        house.identity.log_in("ana.secretive", "typed into the wrong field")
    house.identity.set_password(house.administrator, card.id, "another good password")
    told = repr(house.told()) + repr(shown) + repr(ana) + repr(card)
    for secret in (session, token, session[4:], token[10:], house.password, "ana.secretive", "example.org", "typed"):
        assert secret not in told
    assert "Meyer" not in repr(house.told())
    assert {"session.opened", "session.refused", "token.created", "password.changed", "identity.created"} <= {
        event.type for event in house.told()
    }
