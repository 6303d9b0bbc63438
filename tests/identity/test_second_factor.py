"""A second factor is asked for, each code is good once, and guessing is slow."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from perdure.identity import Grantee, OrganisationThing, Role
from perdure.identity.errors import (
    BadCodeError,
    BadCredentialsError,
    LoginThrottledError,
    SecondFactorExistsError,
    SecondFactorNeededError,
)
from perdure.identity.model import SECOND_FACTOR
from perdure.kernel.actor import Actor
from perdure.kernel.errors import NotAllowedError, NotFoundError

from .house import PASSWORD, House, own_id

WRONG = "000000"


class Device:
    """Shows codes, as a telephone does: made from the address that it read."""

    def __init__(self, house: House, address: str) -> None:
        secret = parse_qs(urlsplit(address).query)["secret"][0]
        self._totp = TOTP(base64.b32decode(secret), 6, SHA1(), 30)  # noqa: S303  # what every device speaks
        self._house = house

    def code(self) -> str:
        return self._totp.generate(int(self._house.clock.now().timestamp())).decode()


def turn_on(house: House, actor: Actor) -> tuple[Device, list[str]]:
    key, address = house.identity.begin_second_factor(actor, issuer="Perdure of tests")
    assert key in address
    device = Device(house, address)
    return device, house.identity.confirm_second_factor(actor, device.code())


def guess(act: Callable[[], object]) -> int:
    """How many wrong codes are heard until it is to be waited."""
    for number in range(30):
        try:
            act()
        except BadCodeError:
            continue
        except LoginThrottledError:
            return number
    return 30


def test_a_login_needs_the_code_and_says_so_to_who_has_the_password_only(house: House) -> None:
    device, _ = turn_on(house, house.join("ana"))
    house.clock.move(timedelta(minutes=1))
    with pytest.raises(SecondFactorNeededError):
        house.identity.log_in("ana", PASSWORD)
    with pytest.raises(BadCredentialsError):
        house.identity.log_in("ana", "wrong but long enough", code=device.code())
    with pytest.raises(BadCodeError):
        house.identity.log_in("ana", PASSWORD, code=WRONG)
    _, ana = house.identity.log_in("ana", PASSWORD, code=device.code())
    assert SECOND_FACTOR in ana.proofs


def test_a_code_is_good_once(house: House) -> None:
    device, _ = turn_on(house, house.join("ana"))
    with pytest.raises(BadCodeError):
        house.identity.log_in("ana", PASSWORD, code=device.code())
    house.clock.move(timedelta(seconds=30))
    house.identity.log_in("ana", PASSWORD, code=f" {device.code()[:3]} {device.code()[3:]}")
    with pytest.raises(BadCodeError):
        house.identity.log_in("ana", PASSWORD, code=device.code())


@pytest.mark.parametrize(("seconds", "is_good"), [(-60, False), (-30, True), (30, True), (60, False)])
def test_a_clock_may_be_off_by_half_a_minute(house: House, seconds: int, is_good: bool) -> None:
    device, _ = turn_on(house, house.join("ana"))
    house.clock.move(timedelta(minutes=5))
    code = device.code()
    house.clock.move(timedelta(seconds=-seconds))
    if is_good:
        house.identity.log_in("ana", PASSWORD, code=code)
    else:
        with pytest.raises(BadCodeError):
            house.identity.log_in("ana", PASSWORD, code=code)


def test_a_recovery_code_is_good_once_and_new_ones_end_the_old(house: House) -> None:
    ana = house.join("ana")
    device, codes = turn_on(house, ana)
    assert len(set(codes)) == 10
    house.identity.log_in("ana", PASSWORD, code=codes[0].upper())
    with pytest.raises(BadCodeError):
        house.identity.log_in("ana", PASSWORD, code=codes[0])
    house.clock.move(timedelta(minutes=1))
    fresh = house.identity.renew_recovery_codes(ana, device.code())
    with pytest.raises(BadCodeError):
        house.identity.log_in("ana", PASSWORD, code=codes[1])
    house.identity.log_in("ana", PASSWORD, code=fresh[0])


def test_asking_for_the_code_counts_no_failure_and_guessing_it_does(house: House) -> None:
    turn_on(house, house.join("ana"))
    for _ in range(30):
        with pytest.raises(SecondFactorNeededError):
            house.identity.log_in("ana", PASSWORD)
    assert guess(lambda: house.identity.log_in("ana", PASSWORD, code=WRONG)) < 30


def test_asking_in_between_forgives_no_guess(house: House) -> None:
    turn_on(house, house.join("ana"))

    def guess_and_ask() -> None:
        with pytest.raises(SecondFactorNeededError):
            house.identity.log_in("ana", PASSWORD)
        house.identity.log_in("ana", PASSWORD, code=WRONG)

    assert guess(guess_and_ask) < 30


def test_a_stolen_session_guesses_no_code(house: House) -> None:
    ana = house.join("ana")
    turn_on(house, ana)
    assert guess(lambda: house.identity.remove_second_factor(ana, own_id(ana), code=WRONG)) < 30
    with pytest.raises(SecondFactorNeededError):
        house.identity.log_in("ana", PASSWORD)


def test_what_is_not_confirmed_is_not_asked_for(house: House) -> None:
    ana = house.join("ana")
    house.identity.begin_second_factor(ana, issuer="x")
    house.identity.log_in("ana", PASSWORD)
    with pytest.raises(BadCodeError):
        house.identity.confirm_second_factor(ana, WRONG)
    house.identity.log_in("ana", PASSWORD)
    turn_on(house, ana)
    with pytest.raises(SecondFactorExistsError):
        house.identity.begin_second_factor(ana, issuer="x")


def test_it_ends_with_a_code_or_by_who_manages_the_organisation(house: House) -> None:
    ana, ben = house.join("ana"), house.join("ben")
    device, _ = turn_on(house, ana)
    with pytest.raises(NotAllowedError):
        house.identity.remove_second_factor(ben, own_id(ana))
    house.clock.move(timedelta(minutes=1))
    house.identity.remove_second_factor(ana, own_id(ana), code=device.code())
    house.identity.log_in("ana", PASSWORD)
    turn_on(house, ana)
    home = OrganisationThing(ana.organisation_id or UUID(int=0))
    house.identity.grant(house.administrator, home, Grantee(own_id(ben)), Role.MANAGER)
    house.identity.remove_second_factor(ben, own_id(ana))
    house.identity.log_in("ana", PASSWORD)
    kinds = [event.type for event in house.told() if event.type.startswith("second_factor")]
    assert kinds == ["second_factor.added", "second_factor.removed"] * 2


def test_a_token_is_too_weak_to_change_it(house: House) -> None:
    ana = house.join("ana")
    secret, _ = house.identity.create_token(ana, "t", verbs=["read", "write", "manage"])
    bearer = house.identity.authenticate(secret)
    with pytest.raises(NotAllowedError):
        house.identity.begin_second_factor(bearer, issuer="x")
    with pytest.raises(NotFoundError):
        house.identity.confirm_second_factor(ana, WRONG)
