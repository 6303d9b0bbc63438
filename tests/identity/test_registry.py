"""The registry leaves for the stores and comes back into an empty database, without a secret on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import cast

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import (
    AccessClass,
    ArchiveThing,
    Grantee,
    Identity,
    IdentitySettings,
    OrganisationThing,
    Role,
)
from perdure.identity.model import Held
from perdure.kernel.ids import new_id
from perdure.testing.sealing import MemorySealer

from .house import CHEAP, House, own_id

Registry = dict[str, list[dict[str, object]]]


def furnish(house: House) -> ArchiveThing:
    """Some of everything that the registry holds; returns an archive with a grant on it."""
    ana = house.join("ana")
    group = house.identity.create_group(ana, "Team")
    house.identity.add_member(ana, group.id, own_id(house.administrator))
    account = house.personal(ana)
    house.identity.change_account(house.administrator, account.id, quota_bytes=7, allowed_profiles=["b", "a"])
    house.identity.grant(ana, account.thing, Grantee(group_id=group.id), Role.CONTRIBUTOR)
    house.identity.add_claim_rule(
        house.administrator, group.id, entitlement="urn:x:*", issuer="https://login.example.net"
    )
    home = OrganisationThing(account.organisation_id)
    house.identity.grant(house.administrator, home, Grantee(ana.identity_id), Role.CURATOR)
    archive = ArchiveThing(new_id(), account.id, account.organisation_id, AccessClass.PRIVATE, None, is_closed=False)
    house.identity.grant(ana, archive, Grantee(house.administrator.identity_id), Role.READER)
    return archive


def restored(house: House, database: Database, archive: ArchiveThing) -> Identity:
    with house.db.begin() as tx:
        registry = cast(Registry, json.loads(json.dumps(house.identity.export_registry(tx))))
        grants = house.identity.export_grants(tx, archive.id)
    identity = Identity(
        database, house.clock, EventLog(database, house.clock), MemorySealer(), IdentitySettings(password_cost=CHEAP)
    )
    for _ in range(2):
        with database.begin() as tx:
            identity.restore_registry(tx, registry)
            identity.restore_grants(tx, grants)
    return identity


def test_the_registry_comes_back_as_it_was(house: House, make_database: Callable[[], Database]) -> None:
    archive, lost = furnish(house), make_database()
    identity = restored(house, lost, archive)
    with house.db.begin() as tx, lost.begin() as other:
        assert identity.export_registry(other) == house.identity.export_registry(tx)
        assert identity.export_grants(other, archive.id) == house.identity.export_grants(tx, archive.id)
        assert Held("account", Role.CONTRIBUTOR) in identity.find_roles(other, house.log_in("root"), archive)


def test_a_restored_administrator_gets_his_login_back(house: House, make_database: Callable[[], Database]) -> None:
    archive, lost = furnish(house), make_database()
    identity = restored(house, lost, archive)
    login, password = identity.bootstrap_administrator("root")
    assert password is not None
    _, actor = identity.log_in(login, password)
    assert (actor.identity_id, actor.is_administrator) == (house.administrator.identity_id, True)
    ana = identity.find_identity(actor, "ana")
    assert ana is None
    (card,) = [one for one in identity.list_identities(actor) if one.display_name == "Ana"]
    identity.give_login(actor, card.id, login="ana", password=house.password)
    assert len(identity.list_own_groups(identity.log_in("ana", house.password)[1])) == 1


def test_the_registry_holds_no_secret_and_no_address(house: House) -> None:
    furnish(house)
    house.identity.create_local_account(
        house.administrator, login="eve", password=house.password, display_name="Eve", email="eve@example.org"
    )
    with house.db.begin() as tx:
        text = json.dumps(house.identity.export_registry(tx))
    assert "argon2" not in text
    assert "example.org" not in text


def test_the_terms_and_who_accepted_them_come_back(house: House, make_database: Callable[[], Database]) -> None:
    version = house.identity.publish_terms(house.administrator, "Be kind.").version
    house.identity.log_in("root", house.password, accept_terms=version)
    with house.db.begin() as tx:
        registry = cast(Registry, json.loads(json.dumps(house.identity.export_registry(tx))))
    database = make_database()
    identity = Identity(database, house.clock, EventLog(database, house.clock), MemorySealer())
    with database.begin() as tx:
        identity.restore_registry(tx, registry)
        assert identity.export_registry(tx) == registry
    assert identity.get_terms().text == "Be kind."
    del registry["terms"]
    for row in registry["identities"]:
        del row["accepted_terms"], row["accepted_at"]
    with database.begin() as tx:
        identity.restore_registry(tx, registry)
