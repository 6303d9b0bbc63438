"""A passkey is a login and its second factor; what is copied, old, foreign or used is refused."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from perdure.db import Database
from perdure.identity import Client, Passkey
from perdure.identity.errors import (
    BadSealError,
    FreshLoginRequiredError,
    PasskeyRefusedError,
    PasskeysUnavailableError,
    TermsNotAcceptedError,
)
from perdure.kernel.actor import Actor
from perdure.kernel.errors import BadInputError, NotAllowedError, NotFoundError, PerdureError

from .house import PASSWORD, House, own_id
from .soft_key import SoftKey, from_text, to_text

ORIGIN = "https://archive.example.org"
HERE = Client("10.0.0.1", "tests")


@dataclass
class Owner:
    """Somebody with a session of this moment, and a device."""

    house: House
    actor: Actor
    device: SoftKey

    def add(self, name: str = "Telephone", origin: str = ORIGIN) -> Passkey:
        identity = self.house.identity
        options, ticket = identity.begin_passkey(self.actor, origin=origin, site="Tests")
        return identity.add_passkey(self.actor, ticket, self.device.make(options), origin=origin, name=name)

    def begin(self) -> tuple[dict[str, Any], str]:
        options, ticket = self.house.identity.begin_passkey_login(origin=ORIGIN)
        self.device.count += 1
        return self.device.sign(options), ticket

    def enter(self, answer: dict[str, Any], ticket: str, **more: Any) -> tuple[str, Actor]:
        return self.house.identity.log_in_by_passkey(ticket, answer, HERE, **{"origin": ORIGIN, **more})


@pytest.fixture
def ana(house: House) -> Owner:
    house.add("ana")
    return Owner(house, house.identity.log_in("ana", PASSWORD, HERE)[1], SoftKey(ORIGIN))


def test_a_passkey_lets_its_owner_in_with_a_second_factor(ana: Owner) -> None:
    made = ana.add("  Telephone ")
    secret, actor = ana.enter(*ana.begin())
    assert actor.identity_id == ana.actor.identity_id
    assert actor.proofs == {"passkey", "second_factor"}
    assert ana.house.identity.authenticate(secret).identity_id == ana.actor.identity_id
    (shown,) = ana.house.identity.list_passkeys(actor)
    assert (shown.name, shown.is_synced, shown.last_used_at) == ("Telephone", False, ana.house.clock.now())
    assert ana.house.identity.rename_passkey(actor, made.id, "Old telephone").name == "Old telephone"
    ana.house.identity.remove_passkey(actor, made.id)
    with pytest.raises(PasskeyRefusedError):
        ana.enter(*ana.begin())
    told = [event.type for event in ana.house.told() if event.type.startswith(("passkey", "session.refused"))]
    assert told == ["passkey.added", "passkey.removed", "session.refused"]


def test_an_answer_opens_one_session(ana: Owner) -> None:
    ana.add()
    answer, ticket = ana.begin()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: _is_let_in(lambda: ana.enter(answer, ticket)), range(4)))
    assert results.count(True) == 1
    ana.house.clock.move(timedelta(minutes=31))
    answer, ticket = ana.begin()
    ana.house.clock.move(timedelta(minutes=31))
    with pytest.raises(BadSealError):
        ana.enter(answer, ticket)


def test_a_key_whose_count_does_not_grow_was_copied(ana: Owner) -> None:
    ana.add()
    ana.enter(*ana.begin())
    ana.device.count -= 1
    with pytest.raises(PasskeyRefusedError):
        ana.enter(*ana.begin())
    ana.enter(*ana.begin())


def test_a_device_that_does_not_count_is_let_in_again_and_again(ana: Owner) -> None:
    ana.add()
    for _ in range(2):
        ana.device.count = -1
        ana.enter(*ana.begin())


def _spoil_signature(answer: dict[str, Any]) -> None:
    answer["response"]["signature"] = to_text(from_text(answer["response"]["signature"])[:-1] + b"\0")


@pytest.mark.parametrize(
    "spoil",
    [
        _spoil_signature,
        lambda answer: answer.update(id="AAAA", rawId="AAAA"),
        lambda answer: answer.update(id=7),
        lambda answer: answer.update(id="a" * 5000),
        lambda answer: answer.pop("response"),
        lambda answer: answer["response"].pop("userHandle"),
        lambda answer: answer["response"].update(userHandle=to_text(b"x" * 16)),
        lambda answer: answer["response"].update(authenticatorData="AAAA"),
        lambda answer: answer["response"].update(clientDataJSON=to_text(b"{}")),
        lambda answer: answer.clear(),
    ],
)
def test_an_answer_that_is_spoilt_is_refused(ana: Owner, spoil: Callable[[dict[str, Any]], object]) -> None:
    ana.add()
    answer, ticket = ana.begin()
    spoil(answer)
    with pytest.raises(PasskeyRefusedError):
        ana.enter(answer, ticket)


def test_neither_another_place_nor_another_challenge_nor_an_absent_owner_counts(ana: Owner) -> None:
    ana.add()
    answer, _ = ana.begin()
    _, other = ana.begin()
    with pytest.raises(PasskeyRefusedError):
        ana.enter(answer, other)
    ana.device.verifies = False
    with pytest.raises(PasskeyRefusedError):
        ana.enter(*ana.begin())
    ana.device.verifies, ana.device.origin = True, "https://archive.example.org.evil.example"
    with pytest.raises(PasskeyRefusedError):
        ana.enter(*ana.begin())
    ana.device.origin = ORIGIN
    ana.enter(*ana.begin())
    for origin in ("https://10.0.0.1", "http://archive.example.org", "https://[::1]:8440"):
        with pytest.raises(PasskeysUnavailableError):
            ana.house.identity.begin_passkey_login(origin=origin)
    assert ana.house.identity.begin_passkey_login(origin="http://localhost:8440")[0]["rpId"] == "localhost"


def test_only_who_showed_a_moment_ago_who_he_is_changes_passkeys(ana: Owner) -> None:
    made, identity = ana.add(), ana.house.identity
    token, _ = identity.create_token(ana.actor, "t", verbs=("read", "write", "manage"))
    with pytest.raises(NotAllowedError):
        identity.remove_passkey(identity.authenticate(token), made.id)
    with pytest.raises(NotAllowedError):
        identity.begin_passkey(identity.authenticate(token), origin=ORIGIN, site="x")
    ben = ana.house.join("ben")
    for change in (
        lambda: identity.remove_passkey(ben, made.id),
        lambda: identity.rename_passkey(ben, made.id, "mine"),
    ):
        with pytest.raises(NotFoundError):
            change()
    ana.house.clock.move(timedelta(minutes=16))
    with pytest.raises(FreshLoginRequiredError):
        identity.remove_passkey(ana.actor, made.id)
    with pytest.raises(FreshLoginRequiredError):
        ana.add("Another")
    _, anew = ana.enter(*ana.begin())  # which is a proof of this moment
    identity.remove_passkey(anew, made.id)


def test_ones_own_passkey_shows_once_more_who_one_is(ana: Owner) -> None:
    ana.add()
    identity = ana.house.identity
    ana.house.add("ben")
    for login, is_own in (("ana", True), ("ben", False)):
        secret, _ = identity.log_in(login, PASSWORD)
        ana.house.clock.move(timedelta(minutes=16))
        answer, ticket = ana.begin()
        if is_own:
            identity.prove_by_passkey(identity.authenticate(secret), secret, ticket, answer, origin=ORIGIN)
        else:
            with pytest.raises(PasskeyRefusedError, match="not one of yours"):
                identity.prove_by_passkey(identity.authenticate(secret), secret, ticket, answer, origin=ORIGIN)
        assert (identity.authenticate(secret).proven_at == ana.house.clock.now()) is is_own


def test_a_device_is_taken_once_and_names_are_told_apart(ana: Owner) -> None:
    ana.add()
    with pytest.raises(PerdureError):
        ana.add("The same device again")
    ana.device = SoftKey(ORIGIN, credential_id=b"\x02" * 16)
    with pytest.raises(PerdureError, match="in use"):
        ana.add()
    with pytest.raises(BadInputError):
        ana.add("\n")
    ana.device.verifies = False
    with pytest.raises(PasskeyRefusedError):
        ana.add("PIN-less")
    ben = ana.house.join("ben")
    options, ticket = ana.house.identity.begin_passkey(ana.actor, origin=ORIGIN, site="x")
    with pytest.raises(PasskeyRefusedError, match="somebody else"):
        ana.house.identity.add_passkey(ben, ticket, ana.device.make(options), origin=ORIGIN, name="x")


def test_a_disabled_identity_and_new_terms_are_met_as_at_every_login(ana: Owner, db: Database) -> None:
    ana.add()
    terms = ana.house.identity.publish_terms(ana.house.administrator, "Be kind.")
    answer, ticket = ana.begin()
    with pytest.raises(TermsNotAcceptedError):
        ana.enter(answer, ticket)
    ana.enter(answer, ticket, accept_terms=terms.version)
    ana.house.identity.disable_identity(ana.house.administrator, own_id(ana.actor))
    with pytest.raises(PasskeyRefusedError):
        ana.enter(*ana.begin())


def _is_let_in(enter: Callable[[], object]) -> bool:
    try:
        enter()
    except PasskeyRefusedError:
        return False
    return True
