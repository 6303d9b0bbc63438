"""Tokens of the grid, from a real issuer: who comes with one, and every way in which one is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from time import time
from typing import Any
from uuid import UUID

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey
from sqlalchemy import insert

from perdure.adapters.oidc import GridIssuer, GridIssuerSettings
from perdure.adapters.oidc import issuer as published
from perdure.events import EventLog
from perdure.identity import AccessClass, Action, ArchiveThing, Grantee, Identity, IdentitySettings, InstanceThing, Role
from perdure.identity.errors import (
    AddressNotAllowedError,
    BadCredentialsError,
    GridSubjectUnknownError,
    GridTokenRefusedError,
    ProviderUnavailableError,
    ServiceOrphanedError,
)
from perdure.identity.grid_scopes import GridProfile
from perdure.identity.tables import credentials
from perdure.kernel.actor import Actor
from perdure.kernel.errors import NotAllowedError
from perdure.kernel.ids import new_id
from perdure.testing.grid_issuer import GridIssuerDouble, running_issuer
from perdure.testing.sealing import MemorySealer

from .house import CHEAP, House, own_id

HERE = "https://data.example.org"
ALL = "storage.modify:/ storage.read:/"


@pytest.fixture(scope="module")
def running() -> Iterator[GridIssuerDouble]:
    with running_issuer() as found:
        yield found


@pytest.fixture
def issuer(running: GridIssuerDouble) -> GridIssuerDouble:
    running.is_away = False
    return running


@pytest.fixture
def house(house: House) -> House:
    house.clock.moment = datetime.now(UTC)
    return house


def settled(house: House, issuer: GridIssuerDouble, **settings: Any) -> Identity:
    """The use cases with this issuer configured."""
    chosen: dict[str, Any] = {"profile": GridProfile.WLCG, "audiences": frozenset({HERE}), **settings}
    adapter = GridIssuer(GridIssuerSettings("grid", issuer.url, **chosen), house.clock)
    events, limits = EventLog(house.db, house.clock), IdentitySettings(password_cost=CHEAP)
    return Identity(house.db, house.clock, events, MemorySealer(), limits, issuers=[adapter])


def link(house: House, actor: Actor, subject: str) -> None:
    row = {"id": new_id(), "identity_id": actor.identity_id, "kind": "oidc", "subject": subject}
    with house.db.begin() as tx:
        tx.execute(insert(credentials).values(**row, created_at=house.clock.now()))


def archive_of(house: House, actor: Actor, path: bytes | None = b"") -> ArchiveThing:
    account = house.personal(actor)
    return ArchiveThing(
        new_id(), account.id, account.organisation_id, AccessClass.PRIVATE, None, is_closed=False, path=path
    )


def actions(house: House, actor: Actor, thing: ArchiveThing | InstanceThing) -> frozenset[Action]:
    with house.db.begin() as tx:
        return house.identity.actions(tx, actor, thing)


def test_a_linked_subject_is_its_person_within_the_scopes(house: House, issuer: GridIssuerDouble) -> None:
    ada = house.join("ada")
    link(house, ada, f"{issuer.url} robot")
    identity, thing = settled(house, issuer), archive_of(house, ada)
    bearer = identity.authenticate_grid(issuer.sign(f"storage.read:/{thing.id}"))
    assert bearer.identity_id == ada.identity_id
    assert actions(house, bearer, thing) == {Action.READ}
    assert actions(house, bearer, archive_of(house, ada)) == frozenset()  # another archive of hers
    assert actions(house, bearer, archive_of(house, house.administrator)) == frozenset()
    with pytest.raises(NotAllowedError):
        identity.create_token(bearer, "more", verbs=["read"])
    for forbidden in (identity.list_tokens, identity.list_sessions, identity.list_groups, identity.list_accounts):
        with pytest.raises(NotAllowedError):
            forbidden(bearer)


def test_an_administrator_has_no_powers_by_such_a_token(house: House, issuer: GridIssuerDouble) -> None:
    link(house, house.administrator, f"{issuer.url} root")
    bearer = settled(house, issuer).authenticate_grid(issuer.sign(ALL, sub="root"))
    assert actions(house, bearer, InstanceThing()) == frozenset()
    assert actions(house, bearer, archive_of(house, house.join("ada"))) == frozenset()


def test_a_subject_that_nobody_has_is_nobody(house: House, issuer: GridIssuerDouble) -> None:
    link(house, house.join("ada"), f"{issuer.url} robot")
    identity = settled(house, issuer)
    for stranger in ("Robot", "robot ", "robot2", "x robot"):
        with pytest.raises(GridSubjectUnknownError):
            identity.authenticate_grid(issuer.sign(ALL, sub=stranger))


def make_service(house: House, **limits: Any) -> UUID:
    chosen: dict[str, Any] = {"verbs": ["read", "write"], **limits}
    return house.identity.create_service(house.administrator, name="daq", purpose="takes data", **chosen).id


def test_an_issuer_that_is_mapped_to_a_service_account_acts_as_it(house: House, issuer: GridIssuerDouble) -> None:
    ada = house.join("ada")
    service, thing = make_service(house, addresses=["192.0.2.0/24"]), archive_of(house, ada, b"run/1")
    house.identity.grant(ada, house.personal(ada).thing, Grantee(identity_id=service), Role.CONTRIBUTOR)
    identity = settled(house, issuer, service_id=service)
    token = issuer.sign(f"storage.create:/{thing.id}/run", sub="anybody")
    bearer = identity.authenticate_grid(token, address="192.0.2.7")
    assert (bearer.identity_id, bearer.responsible_id) == (service, house.administrator.identity_id)
    assert actions(house, bearer, thing) == {Action.FILL}
    with pytest.raises(AddressNotAllowedError):
        identity.authenticate_grid(token, address="198.51.100.7")
    house.identity.change_service(house.administrator, service, responsible_id=own_id(ada))
    house.identity.disable_identity(house.administrator, own_id(ada))
    with pytest.raises(ServiceOrphanedError):
        identity.authenticate_grid(token, address="192.0.2.7")
    person = settled(house, issuer, service_id=own_id(house.administrator))
    with pytest.raises(GridSubjectUnknownError):
        person.authenticate_grid(token)


def test_a_mapped_subject_and_a_disabled_person(house: House, issuer: GridIssuerDouble) -> None:
    ada = house.join("ada")
    identity = settled(house, issuer, subjects={"robot": own_id(ada)})
    assert identity.authenticate_grid(issuer.sign(ALL)).identity_id == ada.identity_id
    house.identity.disable_identity(house.administrator, own_id(ada))
    with pytest.raises(BadCredentialsError):
        identity.authenticate_grid(issuer.sign(ALL))


def test_groups_of_the_token_lead_into_groups_as_claims_do(house: House, issuer: GridIssuerDouble) -> None:
    ada, thing = house.join("ada"), archive_of(house, house.administrator)
    group = house.identity.create_group(house.administrator, "cms")
    house.identity.add_claim_rule(house.administrator, group.id, issuer=issuer.url, entitlement="/cms/*")
    space = house.personal(house.administrator).thing
    house.identity.grant(house.administrator, space, Grantee(group_id=group.id), Role.READER)
    identity = settled(house, issuer, subjects={"robot": own_id(ada)})
    for groups, allowed in ((["/cms/uscms"], {Action.READ}), (["/cmsx"], set()), ("/cms/uscms", set()), (None, set())):
        bearer = identity.authenticate_grid(issuer.sign(ALL, **{"wlcg.groups": groups}))
        assert actions(house, bearer, thing) == allowed
    assert house.identity.get_group(house.administrator, group.id).members == {house.administrator.identity_id}


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://elsewhere.example.org"},
        {"aud": "https://elsewhere.example.org"},
        {"aud": [f"{HERE}/more"]},
        {"aud": None},
        {"aud": {"any": "ANY"}},
        {"aud": "ANY"},
        {"wlcg.ver": None},
        {"wlcg.ver": "2.0"},
        {"wlcg.ver": 1.0},
        {"wlcg.ver": "1.0x"},
        {"exp": int(time()) - 3600},
        {"exp": None},
        {"exp": "tomorrow"},
        {"nbf": int(time()) + 3600},
        {"iat": int(time()) + 3600},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"scope": None},
        {"scope": ["storage.read:/"]},
        {"scope": "openid"},
        {"scope": "storage.read:/a/../b"},
    ],
    ids=lambda changed: f"{next(iter(changed))}-{type(next(iter(changed.values()))).__name__}",  # alike in each process
)
def test_a_token_that_says_something_else_is_refused(
    house: House, issuer: GridIssuerDouble, changed: dict[str, object]
) -> None:
    identity = settled(house, issuer, subjects={"robot": own_id(house.administrator)})
    identity.authenticate_grid(issuer.sign(ALL, aud=[HERE, "https://elsewhere.example.org"]))
    with pytest.raises(GridTokenRefusedError):
        identity.authenticate_grid(issuer.sign(**{"scope": ALL, **changed}))  # type: ignore[arg-type]  # wrong on purpose


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_a_token_that_the_issuer_did_not_sign_is_refused(house: House, issuer: GridIssuerDouble) -> None:
    identity = settled(house, issuer, subjects={"robot": own_id(house.administrator)})
    good, claims = issuer.sign(ALL), issuer.claims(ALL)
    head, body, signature = good.split(".")
    public = json.dumps(issuer.keys[0].as_dict(private=False))
    stranger = ECKey.generate_key("P-256", {"kid": "first"}, private=True)
    forged = [
        f"{_part({'alg': 'none'})}.{body}.",
        f"{_part({'alg': 'none'})}.{body}.{signature}",
        f"{head}.{_part({**claims, 'scope': 'storage.read:/'})}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}.{signature[:-8]}AAAAAAAA",
        jwt.encode({"alg": "ES256", "kid": "first"}, claims, stranger),
        jwt.encode({"alg": "ES256", "kid": "other"}, claims, stranger),
        jwt.encode({"alg": "ES256", "jwk": stranger.as_dict(private=False)}, claims, stranger),
        *(
            jwt.encode({"alg": "HS256", "kid": "first"}, claims, OctKey.import_key(text))
            for text in (public, issuer.url * 2)
        ),
        "eyJ.eyJ.x",
        "ey..",
        f"ey{'A' * 20_000}.{body}.{signature}",
    ]
    for token in forged:
        assert identity.is_grid_token(token)
        with pytest.raises(GridTokenRefusedError):
            identity.authenticate_grid(token)
    identity.authenticate_grid(good)


def test_a_scitoken_has_its_own_version_and_audience(house: House, issuer: GridIssuerDouble) -> None:
    subjects = {"robot": own_id(house.administrator)}
    identity = settled(house, issuer, profile=GridProfile.SCITOKENS, subjects=subjects)
    told: dict[str, object] = {"wlcg.ver": None, "ver": "scitoken:2.0", "aud": "ANY"}
    assert identity.authenticate_grid(issuer.sign("read:/ write:/", **told)).paths
    for wrong in ({"ver": "scitoken:1.0"}, {"ver": None}, {"aud": None}, {"aud": "https://wlcg.cern.ch/jwt/v1/any"}):
        with pytest.raises(GridTokenRefusedError):
            identity.authenticate_grid(issuer.sign("read:/", **{**told, **wrong}))
    strict = settled(house, issuer, profile=GridProfile.SCITOKENS, subjects=subjects, any_audience=False)
    with pytest.raises(GridTokenRefusedError):
        strict.authenticate_grid(issuer.sign("read:/", **told))
    assert strict.authenticate_grid(issuer.sign("read:/", **{**told, "aud": HERE})).paths


def test_new_keys_are_fetched_and_a_silent_issuer_is_worth_a_retry(
    house: House, issuer: GridIssuerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = settled(house, issuer, subjects={"robot": own_id(house.administrator)})
    issuer.is_away = True
    with pytest.raises(ProviderUnavailableError):
        identity.authenticate_grid(issuer.sign(ALL))
    issuer.is_away = False
    monkeypatch.setattr(published, "_LEFT_ALONE", 0.0)
    old = issuer.sign(ALL)
    identity.authenticate_grid(old)
    issuer.rotate("second")
    before = issuer.asked
    for _ in range(3):
        with pytest.raises(GridTokenRefusedError):  # keys were fetched a moment ago
            identity.authenticate_grid(issuer.sign(ALL))
    assert issuer.asked == before
    monkeypatch.setattr(published, "_KEYS_ANEW_EVERY", 0.0)
    identity.authenticate_grid(issuer.sign(ALL))
    issuer.is_away = True
    identity.authenticate_grid(issuer.sign(ALL))  # with the keys that are known
    with pytest.raises(ProviderUnavailableError):
        identity.authenticate_grid(old)  # whose key may be a new one
    identity.authenticate_grid(issuer.sign(ALL))
    issuer.is_away = False
    with pytest.raises(GridTokenRefusedError):
        identity.authenticate_grid(old)


def test_without_an_issuer_no_jwt_is_looked_at(house: House, issuer: GridIssuerDouble) -> None:
    assert not house.identity.is_grid_token(issuer.sign(ALL))
    with pytest.raises(BadCredentialsError):
        house.identity.authenticate(issuer.sign(ALL))
