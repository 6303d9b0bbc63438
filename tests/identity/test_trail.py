"""Each act that matters for security leaves one event, which names who did it and to what, and nobody's secrets."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from perdure.events.model import find_ids
from perdure.identity import Client, Grantee, Role
from perdure.identity.errors import BadCredentialsError
from perdure.identity.model import Arrival, CredentialKind
from perdure.kernel.actor import Actor

from .house import PASSWORD, House, own_id
from .test_second_factor import turn_on

ADDRESS = "192.0.2.199"
CLIENT = Client(ADDRESS, "Browser of Ada")
MAIL = "ada.secret@example.org"
SUBJECT = "CN=Ada Private,O=Example"
ARRIVAL = Arrival(CredentialKind.X509, SUBJECT, "Ada Private", MAIL)
NEW_PASSWORD = "seven quiet lanterns here"
# in no event: names, logins, addresses, secrets, words that somebody wrote
PRIVATE = [
    "lotte",
    "eve",
    ADDRESS,
    "browser",
    "private",
    "example",
    PASSWORD,
    "lanterns",
    "because",
    "terms that",
    "perdure_",
]


@dataclass
class Stage:
    """Where an act begins: what was made for it, and the secrets that came of it."""

    house: House
    ada: Actor
    made: dict[str, Any] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)

    @property
    def root(self) -> Actor:
        return self.house.administrator

    @property
    def ada_id(self) -> UUID:
        return own_id(self.ada)


Act = Callable[[Stage], tuple[Actor | None, UUID | None]]  # who did it, to what
ACTS: dict[str, tuple[str, Callable[[Stage], None] | None, Act]] = {}


def act(event_type: str, prepare: Callable[[Stage], None] | None = None) -> Callable[[Act], Act]:
    def take(function: Act) -> Act:
        ACTS[function.__name__] = (event_type, prepare, function)
        return function

    return take


@act("session.opened")
def log_in(stage: Stage) -> tuple[Actor | None, UUID | None]:
    secret, actor = stage.house.identity.log_in("lotte", PASSWORD, CLIENT)
    stage.secrets.append(secret)
    return actor, stage.house.identity.list_sessions(actor)[0].id


@act("session.refused")
def log_in_with_a_wrong_password(stage: Stage) -> tuple[Actor | None, UUID | None]:
    with pytest.raises(BadCredentialsError):
        stage.house.identity.log_in("lotte", NEW_PASSWORD, CLIENT)
    return None, stage.ada_id


@act("session.refused")
def log_in_as_nobody(stage: Stage) -> tuple[Actor | None, UUID | None]:
    with pytest.raises(BadCredentialsError):
        stage.house.identity.log_in("eve", PASSWORD, CLIENT)
    return None, None


def _open_session(stage: Stage) -> None:
    secret, _ = stage.house.identity.log_in("lotte", PASSWORD, CLIENT)
    stage.secrets.append(secret)
    stage.made["session"] = stage.house.identity.list_sessions(stage.ada)[0].id


@act("session.closed", _open_session)
def log_out(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.log_out(stage.secrets[0])
    return stage.ada, stage.made["session"]


@act("session.closed", _open_session)
def end_a_session(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.revoke_session(stage.ada, stage.made["session"])
    return stage.ada, stage.made["session"]


@act("password.changed")
def change_ones_password(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.set_password(stage.ada, stage.ada_id, NEW_PASSWORD, current=PASSWORD)
    return stage.ada, stage.ada_id


@act("password.changed")
def change_the_password_of_another(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.set_password(stage.root, stage.ada_id, NEW_PASSWORD)
    return stage.root, stage.ada_id


@act("token.created")
def make_a_token(stage: Stage) -> tuple[Actor | None, UUID | None]:
    secret, token = stage.house.identity.create_token(stage.ada, "private script", verbs=["read"])
    stage.secrets.append(secret)
    return stage.ada, token.id


def _make_token(stage: Stage) -> None:
    secret, stage.made["token"] = stage.house.identity.create_token(stage.ada, "private script", verbs=["read"])
    stage.secrets.append(secret)


@act("token.revoked", _make_token)
def revoke_a_token(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.revoke_token(stage.ada, stage.made["token"].id)
    return stage.ada, stage.made["token"].id


def _make_account(stage: Stage) -> None:
    stage.made["account"] = stage.house.personal(stage.ada)
    stage.made["eve"] = stage.house.add("eve")[0]


@act("grant.given", _make_account)
def give_a_role(stage: Stage) -> tuple[Actor | None, UUID | None]:
    on = stage.made["account"].thing
    stage.house.identity.grant(stage.ada, on, Grantee(identity_id=stage.made["eve"].id), Role.READER)
    return stage.ada, stage.made["eve"].id


def _give_role(stage: Stage) -> None:
    _make_account(stage)
    on = stage.made["account"].thing
    to = Grantee(identity_id=stage.made["eve"].id)
    stage.made["grant"] = stage.house.identity.grant(stage.ada, on, to, Role.READER)


@act("grant.revoked", _give_role)
def take_a_role(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.revoke_grant(stage.ada, stage.made["account"].thing, stage.made["grant"].id)
    return stage.ada, stage.made["account"].id


@act("account.changed", _make_account)
def change_a_quota(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.change_account(stage.root, stage.made["account"].id, quota_bytes=5_000)
    return stage.root, stage.made["account"].id


@act("account.changed", _make_account)
def rename_an_account(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.change_account(stage.ada, stage.made["account"].id, name="Private space")
    return stage.ada, stage.made["account"].id


@act("quota.requested", _make_account)
def ask_for_room(stage: Stage) -> tuple[Actor | None, UUID | None]:
    account = stage.made["account"].id
    stage.house.identity.request_quota(stage.ada, account, asked_bytes=9_000, reason="because of Ada")
    return stage.ada, account


@act("second_factor.added")
def turn_a_second_factor_on(stage: Stage) -> tuple[Actor | None, UUID | None]:
    _, codes = turn_on(stage.house, stage.ada)
    stage.secrets += codes
    return stage.ada, stage.ada_id


def _turn_on(stage: Stage) -> None:
    _, stage.secrets = turn_on(stage.house, stage.ada)


@act("second_factor.removed", _turn_on)
def turn_a_second_factor_off(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.remove_second_factor(stage.ada, stage.ada_id, code=stage.secrets[0])
    return stage.ada, stage.ada_id


@act("second_factor.removed", _turn_on)
def take_the_second_factor_of_another(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.remove_second_factor(stage.root, stage.ada_id)
    return stage.root, stage.ada_id


@act("credential.linked")
def link_a_login(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.link(stage.ada, ARRIVAL)
    return stage.ada, stage.ada_id


def _link(stage: Stage) -> None:
    stage.made["credential"] = stage.house.identity.link(stage.ada, ARRIVAL)


@act("credential.unlinked", _link)
def unlink_a_login(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.unlink(stage.ada, stage.made["credential"].id)
    return stage.ada, stage.ada_id


def _put_application(stage: Stage) -> None:
    stage.made["application"] = stage.house.identity.apply_with_password(
        login="eve",
        password=PASSWORD,
        display_name="Eve Private",
        email=MAIL,
        reason="because",
        organisation_id=stage.ada.organisation_id,
    )


@act("application.received")
def apply(stage: Stage) -> tuple[Actor | None, UUID | None]:
    _put_application(stage)
    return None, stage.made["application"].id


@act("application.refused", _put_application)
def refuse_an_application(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.refuse_application(stage.root, stage.made["application"].id, note="because of this")
    return stage.root, stage.made["application"].id


@act("application.approved", _put_application)
def approve_an_application(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.made["others"] = {"identity.created", "login.given", "account.created", "grant.given"}
    stage.house.identity.approve_application(stage.root, stage.made["application"].id)
    return stage.root, stage.made["application"].id


@act("administrator.named")
def name_an_administrator(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.set_administrator(stage.root, stage.ada_id, is_administrator=True)
    return stage.root, stage.ada_id


@act(
    "administrator.dismissed",
    lambda stage: stage.house.identity.set_administrator(stage.root, stage.ada_id, is_administrator=True),
)
def dismiss_an_administrator(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.set_administrator(stage.root, stage.ada_id, is_administrator=False)
    return stage.root, stage.ada_id


@act("identity.disabled")
def disable(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.disable_identity(stage.root, stage.ada_id)
    return stage.root, stage.ada_id


@act("identity.renamed")
def rename(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.rename_identity(stage.root, stage.ada_id, "Ada Private")
    return stage.root, stage.ada_id


@act("terms.published")
def publish_terms(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.publish_terms(stage.root, "Terms that nobody reads.")
    return stage.root, None


@act(
    "terms.accepted",
    lambda stage: stage.made.update(terms=stage.house.identity.publish_terms(stage.root, "Terms that …")),
)
def accept_terms(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.made["others"] = {"session.opened"}
    version = stage.made["terms"].version
    secret, actor = stage.house.identity.log_in("lotte", PASSWORD, CLIENT, accept_terms=version)
    stage.secrets.append(secret)
    return actor, stage.ada_id


def _make_group(stage: Stage) -> None:
    stage.made["group"] = stage.house.identity.create_group(stage.ada, "Private group")
    stage.made["eve"] = stage.house.add("eve")[0]


@act("group.member_added", _make_group)
def take_into_a_group(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.add_member(stage.ada, stage.made["group"].id, stage.made["eve"].id)
    return stage.ada, stage.made["eve"].id


def _fill_group(stage: Stage) -> None:
    _make_group(stage)
    take_into_a_group(stage)


@act("group.member_removed", _fill_group)
def take_out_of_a_group(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.remove_member(stage.ada, stage.made["group"].id, stage.made["eve"].id)
    return stage.ada, stage.made["eve"].id


def _make_service(stage: Stage) -> None:
    make = stage.house.identity.create_service
    service = make(stage.root, name="Private machine", purpose="Because.", verbs=["read"], responsible_id=stage.ada_id)
    secret, token = stage.house.identity.create_service_token(stage.ada, service.id, "Private token")
    stage.secrets.append(secret)
    stage.made |= {"service": service.id, "token": token.id}


@act("service.created")
def make_a_service_account(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.made["others"] = {"identity.created", "account.created", "grant.given", "token.created"}
    _make_service(stage)
    return stage.root, stage.made["service"]


@act("service.changed", _make_service)
def let_a_machine_come_from_one_address(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.change_service(stage.root, stage.made["service"], addresses=[ADDRESS], purpose="Private")
    return stage.root, stage.made["service"]


@act("service.handed_over", _make_service)
def hand_a_machine_over(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.house.identity.change_service(stage.ada, stage.made["service"], responsible_id=own_id(stage.root))
    return stage.ada, stage.made["service"]


@act("service.orphaned", _make_service)
def disable_who_answers_for_a_machine(stage: Stage) -> tuple[Actor | None, UUID | None]:
    stage.made["others"] = {"identity.disabled"}
    stage.house.identity.disable_identity(stage.root, stage.ada_id)
    return stage.root, stage.made["service"]


@act("token.rotated", _make_service)
def rotate_the_token_of_a_machine(stage: Stage) -> tuple[Actor | None, UUID | None]:
    rotate = stage.house.identity.rotate_service_token
    stage.secrets.append(rotate(stage.ada, stage.made["service"], stage.made["token"])[0])
    return stage.ada, stage.made["service"]


@pytest.mark.parametrize("name", ACTS)
def test_an_act_leaves_one_event_that_names_who_and_what_and_nothing_private(house: House, name: str) -> None:
    event_type, prepare, do = ACTS[name]
    stage = Stage(house, house.join("lotte"))
    if prepare is not None:
        prepare(stage)
    told = house.told()
    actor, thing = do(stage)
    new = house.told(since=told[-1].number)
    assert {event.type for event in new} - stage.made.get("others", set()) == {event_type}
    (event,) = [event for event in new if event.type == event_type]
    assert event.actor_id == (actor.identity_id if actor else None)
    assert thing is None or thing in find_ids(event.data)
    text = json.dumps([dict(one.data) for one in new]).casefold()
    assert [one for one in [*PRIVATE, *stage.secrets] if one.casefold() in text] == []


def test_a_log_out_of_what_has_ended_is_not_told_again(house: House) -> None:
    stage = Stage(house, house.join("lotte"))
    _open_session(stage)
    log_out(stage)
    before = house.told()[-1].number
    log_out(stage)
    assert house.told(since=before) == []
