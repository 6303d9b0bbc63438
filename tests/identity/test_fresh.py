"""What changes who may act as somebody needs a proof from a moment ago, whatever session is open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from perdure.identity import Client
from perdure.identity.errors import (
    BadCodeError,
    BadCredentialsError,
    FreshLoginRequiredError,
    LoginNotConfirmedError,
    LoginThrottledError,
)
from perdure.kernel.actor import Actor
from perdure.kernel.errors import BadInputError, NotAllowedError, NotFoundError

from .house import PASSWORD, House, SetClock, make_federation
from .test_arrivals import ADA, Echo, let_in
from .test_second_factor import turn_on

HERE = Client("192.0.2.1", "browser")
ACTS: list[Callable[[House, Actor], object]] = [
    lambda house, actor: house.identity.link(actor, replace(ADA, subject="https://login.example.org other")),
    lambda house, actor: house.identity.begin_second_factor(actor, issuer="x"),
    lambda house, actor: house.identity.create_token(actor, "t", verbs=["read"]),
    lambda house, actor: house.identity.create_token(
        actor, "t", verbs=["read"], expires_at=house.clock.now() + timedelta(days=92)
    ),
]


@pytest.mark.parametrize("act", ACTS)
def test_an_open_session_that_was_left_alone_makes_nobody_else_its_owner(
    house: House, act: Callable[[House, Actor], object]
) -> None:
    house.add("ana")
    secret, ana = house.identity.log_in("ana", PASSWORD)
    house.clock.move(timedelta(minutes=15))
    house.identity.create_token(ana, "short", verbs=["read"], expires_at=house.clock.now() + timedelta(days=90))
    house.clock.move(timedelta(seconds=1))
    with pytest.raises(FreshLoginRequiredError, match="15 minutes"):
        act(house, ana)
    with pytest.raises(BadCredentialsError):
        house.identity.prove(ana, secret, password="not mine at all")
    with pytest.raises(FreshLoginRequiredError):
        act(house, house.identity.authenticate(secret))
    house.identity.prove(ana, secret, password=PASSWORD)
    act(house, house.identity.authenticate(secret))
    told = [event for event in house.told() if event.type == "session.proven"]
    assert [(event.actor_id, event.data["by"]) for event in told] == [(ana.identity_id, "password")]


def test_a_proof_is_given_in_ones_own_session_and_guesses_are_slowed_down(house: House) -> None:
    house.add("ana")
    secret, ana = house.identity.log_in("ana", PASSWORD)
    other, root = house.identity.log_in("root", PASSWORD)
    token, _ = house.identity.create_token(ana, "t", verbs=["manage"])
    with pytest.raises(NotAllowedError):
        house.identity.prove(house.identity.authenticate(token), token, password=PASSWORD)
    with pytest.raises(NotFoundError):
        house.identity.prove(ana, other, password=PASSWORD)
    with pytest.raises(BadInputError):
        house.identity.prove(ana, secret)
    with pytest.raises(BadCodeError):
        house.identity.prove(root, other, code="000000")
    refused: list[type[Exception]] = []
    for _ in range(30):
        try:
            house.identity.prove(ana, secret, password="wrong wrong wrong")
        except (BadCredentialsError, LoginThrottledError) as error:
            refused.append(type(error))
    assert refused.count(LoginThrottledError) >= 20


def test_a_code_is_a_proof_as_well(house: House) -> None:
    house.add("ana")
    secret, ana = house.identity.log_in("ana", PASSWORD)
    device, _ = turn_on(house, ana)
    house.clock.move(timedelta(hours=1))
    house.identity.prove(ana, secret, code=device.code())
    assert house.identity.authenticate(secret).proven_at == house.clock.now()


def test_a_login_elsewhere_is_a_proof_when_it_is_known_to_be_new(house: House) -> None:
    let_in(house, replace(ADA, proven_at=None))
    secret, ada = house.identity.arrive(replace(ADA, proven_at=None), HERE)
    another = replace(ADA, subject="https://login.example.org other", proven_at=house.clock.now())
    for wrong in (
        replace(ADA, proven_at=None),
        another,
        replace(ADA, proven_at=house.clock.now() - timedelta(hours=1)),
    ):
        with pytest.raises(LoginNotConfirmedError):
            house.identity.prove_by(ada, secret, wrong)
    with pytest.raises(FreshLoginRequiredError):
        house.identity.link(ada, another)
    house.identity.prove_by(ada, secret, replace(ADA, proven_at=house.clock.now()))
    house.identity.link(house.identity.authenticate(secret), another)


def test_a_session_at_the_provider_is_no_proof() -> None:
    clock = SetClock()
    provider = Echo()
    federation = make_federation(clock, [provider])  # type: ignore[list-item]  # no device, no token
    begun = federation.begin_login("hall", redirect_uri="https://a/b", return_to="/", browser="mine", proves=uuid4())
    assert provider.was_asked_anew
    state = begun.address.partition("#")[2]
    provider.arrival = replace(ADA, proven_at=clock.now() - timedelta(minutes=2))
    with pytest.raises(LoginNotConfirmedError, match="anew"):
        federation.finish_login(provider="hall", state=state, code="good", browser="mine")
    provider.arrival = replace(ADA, proven_at=clock.now())
    assert federation.finish_login(provider="hall", state=state, code="good", browser="mine").proves is not None
