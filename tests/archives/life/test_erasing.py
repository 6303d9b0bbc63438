"""What is kept of a person is told to him, and is gone when he is erased: from the tables, and from the stores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import text

from perdure.archives.exporting import export_events, export_registry
from perdure.archives.persons import Persons
from perdure.archives.rebuild import compare, rebuild
from perdure.archives.records import Context
from perdure.archives.transferring import Transferring
from perdure.identity import Grantee, Role
from perdure.identity.errors import (
    BadCredentialsError,
    ErasureRefusedError,
    FreshLoginRequiredError,
    IdentityEndedError,
    LastAdministratorError,
)
from perdure.jobs.worker import run_pending
from perdure.kernel.actor import Actor
from perdure.kernel.errors import BadInputError, NotAllowedError

from .house import PASSWORD, House

NAME = "Zsuzsanna Quillfeather"


@pytest.fixture
def zsu(house: House) -> Actor:
    house.ctx.identity.create_local_account(
        house.administrator, login="quillfeather", password=PASSWORD, display_name=NAME, email="zsu@example.org"
    )
    return house.ctx.identity.log_in("quillfeather", PASSWORD)[1]


def traces(house: House) -> list[str]:
    """Where in the database and the stores the person is named still."""
    words = (NAME.encode(), b"quillfeather", b"zsu@example.org")
    found = [
        str(path.relative_to(root))
        for root in house.roots
        for path in Path(root).rglob("*")
        if path.is_file() and any(word in path.read_bytes() for word in words)
    ]
    with house.ctx.db.begin() as tx:
        tables = "identities credentials accounts applications sessions tokens record_changes metadata_changes events"
        for table in tables.split():
            rows = tx.execute(text(f"SELECT to_jsonb(t)::text FROM {table} t")).scalars()  # noqa: S608  # our own
            found += [f"{table}: {row}" for row in rows if any(word.decode() in row for word in words)]
    return found


def test_all_that_is_kept_of_somebody_is_told_without_secrets(house: House, ada: Actor, zsu: Actor) -> None:
    identity = house.ctx.identity
    archive = house.open(ada)
    house.life.grant(ada, archive.id, Grantee(identity_id=zsu.identity_id), Role.READER)
    secret, _ = identity.create_token(zsu, "script", verbs=["read"])
    identity.create_group(zsu, "Mine")
    house.ctx.events.sequence_pending()
    told = Persons(house.ctx).export_own(zsu)
    whole = json.dumps(told)
    assert told["identity"] == {**told["identity"], "display_name": NAME, "email": "zsu@example.org"}  # type: ignore[dict-item]
    assert {"logins", "groups", "roles", "accounts", "sessions", "tokens", "archives", "transfers"} <= set(told)
    assert [one["id"] for one in told["archives"]] == [str(archive.id)]  # type: ignore[attr-defined]
    assert {one["type"] for one in told["events"]} >= {"session.opened", "token.created"}  # type: ignore[attr-defined]
    assert {one["type"] for one in told["events_about"]} >= {"grant.given", "identity.created"}  # type: ignore[attr-defined]
    assert secret not in whole
    assert "argon2" not in whole
    narrow, _ = identity.create_token(zsu, "narrow", verbs=["read"], archives=[archive.id])
    with pytest.raises(NotAllowedError):
        Persons(house.ctx).export_own(identity.authenticate(narrow))


def test_who_is_erased_is_in_no_table_and_no_store_and_does_not_come_back(
    house: House, ada: Actor, zsu: Actor, fresh: Context
) -> None:
    identity, persons, zsu_id = house.ctx.identity, Persons(house.ctx), zsu.identity_id
    assert zsu_id is not None
    archive = house.open(ada)
    house.life.grant(ada, archive.id, Grantee(identity_id=zsu_id), Role.OWNER)
    house.life.describe(zsu, archive.id, {"tags": ["by her"]})
    house.describing.patch_metadata(zsu, archive.id, b"", b'{"by":"her"}')
    house.heads.fold(archive.id)
    own = house.open(zsu)
    house.life.discard(zsu, own.id)
    secret, _ = identity.log_in("quillfeather", PASSWORD)
    token, _ = identity.create_token(zsu, "script", verbs=["read"])
    export_registry(house.ctx)
    assert traces(house)
    assert {change.actor_name for change in house.life.record_history(ada, archive.id).items} == {"Ada", NAME}
    persons.erase(zsu, zsu_id, dry_run=True)
    identity.authenticate(token)
    persons.erase(zsu, zsu_id)
    run_pending(house.ctx.jobs)

    assert traces(house) == []
    for one in (secret, token):
        with pytest.raises(BadCredentialsError):
            identity.authenticate(one)
    card = identity.get_identity(ada, zsu_id)
    assert (card.is_erased, card.display_name.startswith("erased person ")) == (True, True)
    changes = house.life.record_history(ada, archive.id).items
    assert {change.actor_name for change in changes if change.actor_id == zsu_id} == {card.display_name}
    assert [change.actor_name for change in house.describing.metadata_history(ada, archive.id)] == [card.display_name]
    assert not [one for one in house.life.list_grants(ada, archive.id) if one.to.identity_id == zsu_id]
    for act in (identity.enable_identity, identity.disable_identity):
        with pytest.raises(IdentityEndedError):
            act(house.administrator, zsu_id)
    again, _ = identity.create_local_account(
        house.administrator, login="quillfeather", password=PASSWORD, display_name="Another"
    )
    assert again.id != zsu_id
    export_registry(house.ctx)
    export_events(house.ctx)
    assert rebuild(fresh).problems == []
    assert compare(house.ctx.db, fresh.db) == []


def test_nobody_leaves_what_nobody_else_answers_for(house: House, ada: Actor, zsu: Actor) -> None:
    identity, persons, root, zsu_id = house.ctx.identity, Persons(house.ctx), house.administrator, zsu.identity_id
    assert zsu_id is not None
    archive = house.open(zsu)
    shared = identity.create_account(
        root, kind="group", name="Shared", owner_id=zsu_id, organisation_id=zsu.organisation_id or zsu_id
    )
    with pytest.raises(ErasureRefusedError, match="Scan of a leaf, Shared") as refused:
        persons.erase(zsu, zsu_id)
    assert [one["id"] for one in refused.value.extra["archives"]] == [str(archive.id)]  # type: ignore[attr-defined]
    to = ada.identity_id or zsu_id
    Transferring(house.ctx).accept(ada, Transferring(house.ctx).offer(zsu, archive.id, to).id)
    identity.transfer_account(zsu, shared.id, to)
    persons.erase(zsu, zsu_id)
    assert identity.get_identity(ada, zsu_id).is_erased
    with pytest.raises(IdentityEndedError):  # twice at once
        persons.erase(zsu, zsu_id)
    with pytest.raises(LastAdministratorError):
        persons.erase(root, root.identity_id or zsu_id)


def test_another_is_erased_by_who_manages_his_organisation(house: House, ada: Actor, zsu: Actor) -> None:
    persons, zsu_id, root = Persons(house.ctx), zsu.identity_id, house.administrator
    assert zsu_id is not None
    with pytest.raises(NotAllowedError):
        persons.erase(ada, zsu_id, "I want it.")
    with pytest.raises(BadInputError):
        persons.erase(root, zsu_id)
    house.clock.move(minutes=16)
    with pytest.raises(FreshLoginRequiredError):
        persons.erase(zsu, zsu_id)
    persons.erase(house.ctx.identity.log_in("root", PASSWORD)[1], zsu_id, "She asked for it by letter.")
    (told,) = [event for event in house.told() if event.type == "identity.erased"]
    assert (told.actor_id, told.data["identity"]) == (root.identity_id, str(zsu_id))


def test_a_machine_is_disabled_and_not_erased(house: House) -> None:
    identity, root = house.ctx.identity, house.administrator
    machine = identity.create_service(root, name="robot", purpose="Fills archives.", verbs=["read"])
    with pytest.raises(BadInputError, match="Only persons"):
        Persons(house.ctx).erase(root, machine.id, "It is old.")
    identity.change_service(root, machine.id, is_active=False)
    assert identity.get_identity(root, machine.id).is_erased is False
