"""Every operation of the API as everybody who may or may not: what the documentation says, held against the answers.

Whoever is refused sends what would change something, and in the end nothing is changed. Whoever may is believed where a
call would change something: other tests make those. Links that are in force have a test of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from perdure.doors.api.needs import NEEDS, Need, Standing
from perdure.identity import Action, Role, Verb
from perdure.identity.model import (
    ACCOUNT_ROLE_ACTIONS,
    ADMINISTRATOR_ACTIONS,
    ORGANISATION_ROLE_ACTIONS,
    PUBLIC_ACTIONS,
    ROLE_ACTIONS,
    VERB_ACTIONS,
)
from perdure.testing.app import RunningApplication

from .callers import Caller

PATH = "a/f.txt"
DEAD = ("revoked token", "ended session", "expired session", "revoked link", "expired link")
OUTSIDE = ("stranger", "outsider", "anonymous")
KINDS: dict[str, dict[str, Any]] = {
    "private, open": {"access": "private"},
    "public, open": {"access": "public"},
    "private, closed": {"access": "private"},
    "embargoed, closed": {"access": "embargoed", "embargo_until": "2099-01-01"},
    "public, closed": {"access": "public"},
}
NOTHING = frozenset[Action]()
OF_ARCHIVES, OF_ACCOUNTS = ROLE_ACTIONS[Role.OWNER], ACCOUNT_ROLE_ACTIONS[Role.OWNER]  # all that there are
# What each has on every archive by what he was given, from the tables that are also the documentation
ON_ARCHIVES: dict[str, frozenset[Action]] = {
    **{role.value: ROLE_ACTIONS[role] for role in Role},
    "member of a group": ROLE_ACTIONS[Role.CONTRIBUTOR],
    "organisation's manager": ORGANISATION_ROLE_ACTIONS[Role.MANAGER] & OF_ARCHIVES,
    "organisation's curator": ORGANISATION_ROLE_ACTIONS[Role.CURATOR] & OF_ARCHIVES,
    "administrator": ADMINISTRATOR_ACTIONS & OF_ARCHIVES,
    "owner, by a token to read": OF_ARCHIVES & VERB_ACTIONS[Verb.READ],
    "owner, by a token for another archive": NOTHING,
    **dict.fromkeys(OUTSIDE, NOTHING),
}
ON_ACCOUNT: dict[str, frozenset[Action]] = {
    **dict.fromkeys(ON_ARCHIVES, NOTHING),
    "owner": OF_ACCOUNTS,
    "organisation's manager": ORGANISATION_ROLE_ACTIONS[Role.MANAGER] & OF_ACCOUNTS,
    "organisation's curator": ORGANISATION_ROLE_ACTIONS[Role.CURATOR] & OF_ACCOUNTS,
    "administrator": ADMINISTRATOR_ACTIONS & OF_ACCOUNTS,
    "owner, by a token to read": OF_ACCOUNTS & VERB_ACTIONS[Verb.READ],
}
_MERGE = {"content-type": "application/merge-patch+json"}
_TUS = {"tus-resumable": "1.0.0"}
# Bodies that would change something, and headers
BODIES: dict[str, Any] = {
    "append_to_archive": {},
    "describe_archive": {"title": "Changed"},
    "change_profile": {"profile": "one-copy"},
    "extend_lifetime": {"keep_until": "2035-01-01"},
    "set_access": {"access": "public"},
    "grant_on_archive": {"role": "reader", "identity_id": str(uuid4())},
    "grant_on_account": {"role": "reader", "identity_id": str(uuid4())},
    "grant_on_organisation": {"role": "curator", "identity_id": str(uuid4())},
    "plan_upload": {"items": [{"path": "new", "size": 5}]},
    "remove_entries": {"paths": [PATH]},
    "hide_entries": {"paths": [PATH]},
    "read_batch": {"paths": [PATH]},
    "patch_metadata": {"changed": 1},
    "patch_file_metadata": {"changed": 1},
    "close_archive": {},
    "verify_archive": {},
    "ingest_folder": {"folder": "/srv/data"},
    "withdraw_archive": {"reason": "It was changed."},
    "make_link": {"kind": "read", "name": "changed"},
    "change_account": {"name": "Changed"},
    "request_quota": {"asked_bytes": 5},
    "create_organisation": {"name": "Changed"},
    "change_organisation": {"quota_bytes": 5},
    "publish_terms": {"text": "Changed."},
    "define_profile": {
        "name": "changed", "label": "Changed", "lifetime_default_days": 5, "lifetime_max_days": 5, "copies": 1
    },
    "set_password": {"old_password": "a long old password", "new_password": "a long new password"},
    "confirm_second_factor": {"code": "123456"},
    "remove_second_factor": {"code": "123456"},
    "renew_recovery_codes": {"code": "123456"},
    "create_token": {"name": "changed"},
    "link_login": {"ticket": "x" * 60},
    "create_group": {"name": "Changed"},
    "create_identity": {"login": "mx-changed", "display_name": "Changed"},
    "change_identity": {"display_name": "Changed"},
    "create_account": {"kind": "group", "name": "Changed", "owner_id": str(uuid4())},
    "approve_application": {},
    "refuse_application": {},
    "approve_quota_request": {},
    "refuse_quota_request": {"note": "No."},
    "offer_archive": {"identity_id": str(uuid4())},
    "transfer_archive": {"identity_id": str(uuid4())},
    "transfer_account": {"identity_id": str(uuid4())},
    "accept_transfer": {},
    "prove": {"password": "a long old password"},
    "create_service": {"name": "changed", "purpose": "Changes."},
    "change_service": {"purpose": "Changes."},
    "create_service_token": {"name": "changed"},
    "erase_own": {},
    "erase_identity": {"reason": "Changed."},
    "merge_own": {"session": "pds_" + "x" * 40},
    "merge_identities": {"identity_id": str(uuid4()), "reason": "Changed."},
    "invite": {"email": "changed@example.org"},
    "accept_invitation": {"key": "pdi_changed"},
    "change_address": {"email": "changed@example.org"},
    "add_member": {},
    "add_claim_rule": {"issuer": "https://login.example.org", "entitlement": "urn:x"},
}  # fmt: skip
HEADERS: dict[str, dict[str, str]] = {
    "patch_metadata": _MERGE,
    "patch_file_metadata": _MERGE,
    "describe_archive": _MERGE,
    "create_upload": {**_TUS, "upload-length": "5", "upload-metadata": "path bmV3"},
    "continue_upload": {**_TUS, "upload-offset": "0", "content-type": "application/offset+octet-stream"},
    "probe_upload": _TUS,
    "abort_upload": _TUS,
    "put_batch": {"content-type": "application/vnd.archive.batch"},
}
CONTENTS = {
    "put_file": b"changed",
    "continue_upload": b"chang",
    "put_batch": (35).to_bytes(4, "big") + b'{"items":[{"path":"new","size":5}]}' + b"chang",
}
# What tells of one archive when it is asked for it
ASKED_FOR_ONE = {"list_events": Action.SEE, "list_jobs": Action.READ}
REFUSALS = {"not_logged_in", "not_allowed", "token_too_narrow", "archive_not_found", "upload_unknown", "not_found"}
SAFE_POSTS = {"read_batch", "plan_upload"}


@dataclass
class Operation:
    name: str
    method: str
    url: str
    template: str
    is_for_anybody: bool  # who is not logged in reaches what decides; else he is told to log in at once

    @property
    def changes_something(self) -> bool:
        return self.method not in ("get", "head", "options") and self.name not in SAFE_POSTS


@dataclass
class Scene:
    callers: dict[str, httpx.Client]
    archives: dict[str, str]
    ids: dict[str, dict[str, str]]  # by kind of archive: what stands in the addresses
    links: dict[str, dict[str, httpx.Client]] = field(default_factory=dict)  # by kind of archive, those that ended
    operations: list[Operation] = field(default_factory=list)

    def ask(self, who: httpx.Client, operation: Operation, kind: str) -> httpx.Response:
        address = operation.template
        for name, value in self.ids[kind].items():
            address = address.replace(f"{{{name}}}", value)
        sent: dict[str, Any] = {"headers": HEADERS.get(operation.name, {})}
        if operation.name in CONTENTS:
            sent["content"] = CONTENTS[operation.name]
        elif operation.name in ("open_archive",):
            sent["json"] = {"title": "Changed", "account_id": self.ids[kind]["account_id"]}
        elif operation.method in ("post", "put", "patch") and operation.name not in ("create_upload",):
            sent["json"] = BODIES.get(operation.name, {})
        if operation.name in ASKED_FOR_ONE:
            address += f"?archive={self.archives[kind]}"
        return who.request(operation.method, operation.url + address, **sent)

    def select(self, *needs: Need) -> list[Operation]:
        return [one for one in self.operations if NEEDS[one.name] in needs]


@pytest.fixture(scope="module")
def scene(running: RunningApplication, root: Caller) -> Iterator[Scene]:
    identity, database = running.application.identity, running.application.db
    names = ["owner", *(role.value for role in Role if role is not Role.OWNER), "member", "boss", "warden", "stranger"]
    tokens = {name: running.person(f"mx-{name}") for name in names}
    other = root.post("/organisations", json={"name": "Matrix elsewhere"}).json()["id"]
    form = {"login": "mx-outsider", "display_name": "Outsider", "organisation_id": other}
    password = root.post("/identities", json=form).json()["password"]
    tokens["outsider"] = identity.log_in("mx-outsider", password)[0]

    owner = Caller(running, tokens["owner"])
    me = owner.get("/me").json()
    account, home = me["personal_account_id"], me["identity"]["organisation_id"]
    group = owner.post("/groups", json={"name": "Matrix group"}).json()["id"]
    with Caller(running, tokens["member"]) as caller:
        member = caller.get("/me").json()["identity"]["id"]
    assert owner.put(f"/groups/{group}/members/{member}", json={}).status_code in (200, 204)
    of_home: list[str] = []
    for login, role in (("mx-boss", "manager"), ("mx-warden", "curator")):
        given = root.post(f"/organisations/{home}/grants", json={"login": login, "role": role})
        assert given.status_code == 201, given.text
        of_home.append(given.json()["id"])

    scene = Scene({}, {}, {})
    for kind, fields in KINDS.items():
        made = scene.archives[kind] = owner.open(title=kind, **fields)
        assert owner.put_file(made, PATH, b"content").status_code == 201
        to = [({"login": f"mx-{role.value}"}, role.value) for role in Role if role is not Role.OWNER]
        for grantee, role in [*to, ({"group_id": group}, "contributor")]:
            given = owner.post(f"/archives/{made}/grants", json={**grantee, "role": role})
            assert given.status_code == 201, given.text
        begun = owner.post(f"{owner.data}/archives/{made}/uploads", headers=HEADERS["create_upload"])
        ended: dict[str, dict[str, Any]] = {
            name: owner.post(f"/archives/{made}/links", json=BODIES["make_link"]).json() for name in DEAD[3:]
        }
        assert owner.delete(f"/archives/{made}/links/{ended['revoked link']['id']}").status_code in (200, 204)
        with database.begin() as tx:
            late = "UPDATE links SET expires_at = now() - interval '1 hour' WHERE id = :id"
            tx.execute(text(late), {"id": UUID(ended["expired link"]["id"])})
        scene.links[kind] = {name: Caller(running, link["secret"]) for name, link in ended.items()}
        closing = "closed" in kind
        if closing:
            owner.finish(owner.post(f"/archives/{made}/close", json={"discard_uploads": True}))
        jobs = owner.get("/jobs", params={"archive": made}).json()["items"]
        scene.ids[kind] = {
            "archive_id": made,
            "path": PATH,
            "grant_id": owner.get(f"/archives/{made}/grants").json()["items"][0]["id"],
            "link_id": ended["revoked link"]["id"],
            "upload_id": str(uuid4()) if closing else begun.headers["location"].rsplit("/", 1)[1],
            "job_id": jobs[0]["id"] if jobs else str(uuid4()),
            "identity_id": me["identity"]["id"],
            "account_id": account,
            "organisation_id": home,
            "group_id": group,
            "name": "personal",
            "version": "1",
            **dict.fromkeys(("session_id", "token_id", "credential_id", "application_id"), str(uuid4())),
            **dict.fromkeys(("request_id", "rule_id", "transfer_id", "service_id", "invitation_id"), str(uuid4())),
        }

    owner_actor = identity.authenticate(tokens["owner"])
    narrow = identity.create_token(owner_actor, "to read", verbs=["read"])[0]
    verbs = ["read", "write", "manage"]
    elsewhere = identity.create_token(owner_actor, "for another", verbs=verbs, archives=[UUID(owner.open())])[0]
    dead_token, kept = identity.create_token(owner_actor, "revoked", verbs=verbs)
    identity.revoke_token(owner_actor, kept.id)
    left, expired = _sessions(running, me["identity"]["id"])
    scene.callers = {
        **{role.value: Caller(running, tokens[role.value]) for role in Role},
        "member of a group": Caller(running, tokens["member"]),
        "organisation's manager": Caller(running, tokens["boss"]),
        "organisation's curator": Caller(running, tokens["warden"]),
        "administrator": Caller(running, running.token()),
        "owner, by a token to read": Caller(running, narrow),
        "owner, by a token for another archive": Caller(running, elsewhere),
        "stranger": Caller(running, tokens["stranger"]),
        "outsider": Caller(running, tokens["outsider"]),
        "anonymous": Caller(running, None),
        "revoked token": Caller(running, dead_token),
        "ended session": Caller(running, left),
        "expired session": Caller(running, expired),
    }
    for url in (running.url, running.data_url):
        for template, verbs in httpx.get(f"{url}/api/v1/openapi.json", timeout=60).json()["paths"].items():
            if template.startswith("/api"):
                for verb, told in verbs.items():
                    is_for_anybody = {} in told.get("security", [])
                    scene.operations.append(Operation(told["operationId"], verb, url, template, is_for_anybody))
    yield scene
    for grant in of_home:  # others ask who has a role on everybody's organisation
        assert root.delete(f"/organisations/{home}/grants/{grant}").status_code in (200, 204)
    for client in [owner, *scene.callers.values(), *(one for links in scene.links.values() for one in links.values())]:
        client.close()


def _sessions(running: RunningApplication, identity_id: str) -> tuple[str, str]:
    """Secrets of two sessions of somebody: one that he ended, one that is past its time."""
    identity, database = running.application.identity, running.application.db
    administrator = identity.log_in(running.login, running.password)[1]
    password = "a long password of the matrix"
    identity.set_password(administrator, UUID(identity_id), password)
    ended, expired = (identity.log_in("mx-owner", password)[0] for _ in range(2))
    identity.log_out(ended)
    with database.begin() as tx:
        late = "UPDATE sessions SET expires_at = now() - interval '1 hour' WHERE identity_id = :id"
        tx.execute(text(late), {"id": UUID(identity_id)})
    return ended, expired


def test_every_operation_says_what_it_asks_for(scene: Scene) -> None:
    assert {one.name for one in scene.operations} == set(NEEDS)


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_operation_on_an_archive_as_everybody(scene: Scene, kind: str) -> None:
    owner = scene.callers["owner"]
    before = _look(owner, scene.archives[kind])
    needs: Mapping[str, Need] = {**NEEDS, **ASKED_FOR_ONE}
    asked = [one for one in scene.operations if _is_about_an_archive(one)]
    if "closed" in kind:  # it has no upload to ask for
        asked = [one for one in asked if "{upload_id}" not in one.template]
    assert len(asked) > 50
    everybody: dict[str, httpx.Client] = {**scene.callers, **scene.links[kind]}
    if kind in ("public, open", "embargoed, closed"):  # as the private ones for who has a role
        everybody = {name: everybody[name] for name in (*OUTSIDE, *DEAD)}
    for operation, (name, caller) in product(asked, everybody.items()):
        need = needs[operation.name]
        allowed = ON_ARCHIVES.get(name, NOTHING)
        if kind == "public, closed" and "another" not in name:
            allowed = allowed | PUBLIC_ACTIONS
        may = need in allowed and name not in DEAD and (operation.is_for_anybody or name != "anonymous")
        if may and operation.changes_something:
            continue
        answer = scene.ask(caller, operation, kind)
        context = (name, operation.name, operation.template, answer.status_code, answer.text[:300])
        if may:
            assert answer.status_code < 500, context
            assert _code(answer) not in REFUSALS, context
            if operation.method == "head":
                assert answer.status_code not in (401, 403), context
            continue
        if name in DEAD or (name == "anonymous" and (allowed or not operation.is_for_anybody)):
            expected = 401
        else:
            expected = 403 if allowed and operation.name != "get_job" else 404  # a job is not told of
        assert answer.status_code == expected, (expected, *context)
        assert scene.archives[kind].encode() not in answer.content.replace(answer.url.path.encode(), b""), context
    assert _look(owner, scene.archives[kind]) == before


def test_every_operation_on_an_account_an_organisation_and_the_instance_as_everybody(scene: Scene) -> None:
    kind = "private, open"
    account_needs = (Action.READ_ACCOUNT, Action.OPEN_ARCHIVE, Action.MANAGE_ACCOUNT)
    standings = set(Standing) - {Standing.ANYBODY, Standing.SHOWN}
    others: list[Need] = [Action.MANAGE_ORGANISATION, Action.ADMINISTER, *standings]
    owner = scene.callers["owner"]
    before = [owner.get(place).json() for place in ("/accounts", "/groups", "/tokens", "/archives", "/profiles")]
    for operation, (name, caller) in product(scene.select(*account_needs, *others), scene.callers.items()):
        need = NEEDS[operation.name]
        answer = None
        if need in account_needs:
            allowed = ON_ACCOUNT.get(name, NOTHING)
            if need in allowed and name not in DEAD:
                continue
            expected = {401} if name in DEAD or name == "anonymous" else {403} if allowed else {404}
        elif need is Standing.ONESELF:
            if name not in DEAD and name != "anonymous":
                continue
            expected = {401}
        elif need is Action.MANAGE_ORGANISATION:
            if name in ("organisation's manager", "administrator"):
                continue
            expected = (
                {401} if name in DEAD else {401, 404} if name == "anonymous" else {404} if name == "outsider" else {403}
            )
            if "token for another" in name:
                expected = {403, 404}
        else:
            is_trusted = name == "administrator" or (name == "organisation's manager" and need is not Action.ADMINISTER)
            if is_trusted or (need in (Standing.GROUP, Standing.ASKING) and name == "owner"):
                continue
            expected = {401} if name in DEAD else {401, 404} if name == "anonymous" else {403, 404}
        answer = scene.ask(caller, operation, kind)
        assert answer.status_code in expected, (expected, name, operation.name, answer.status_code, answer.text[:300])
    after = [owner.get(place).json() for place in ("/accounts", "/groups", "/tokens", "/archives", "/profiles")]
    assert [_without_use(one) for one in after] == [_without_use(one) for one in before]


def _is_about_an_archive(operation: Operation) -> bool:
    by_name = operation.name in ("get_job", "probe_upload", "abort_upload", "continue_upload", *ASKED_FOR_ONE)
    return (by_name or "{archive_id}" in operation.template) and operation.method != "options"


def _look(owner: httpx.Client, archive: str) -> list[Any]:
    places = ("", "/entries?recursive=true", "/grants", "/links", "/uploads", "/metadata")
    return [owner.get(f"/archives/{archive}{place}").json() for place in places]


def _code(answer: httpx.Response) -> str:
    is_problem = answer.headers.get("content-type") == "application/problem+json" and answer.content
    return str(answer.json()["code"]) if is_problem else ""


def _without_use(listed: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: value for name, value in one.items() if not name.startswith("last_")} for one in listed["items"]]
