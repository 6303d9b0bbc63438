"""Records over HTTP: who may, what is told, and what two writers cannot do to each other."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha512

import httpx
import pytest

from perdure.formats.canonical import canonical_json
from perdure.testing.app import RunningApplication

from .callers import CITABLE, Caller, Problem


def test_it_tells_where_it_is(nobody: Caller, running: RunningApplication) -> None:
    told = nobody.get(f"{running.url}/api/v1").json()
    assert told["api_url"] == running.url
    assert told["data_url"] == running.data_url
    assert told["limits"]["batch_files"] == 1000


def test_health_and_readiness(running: RunningApplication) -> None:
    for address in (running.url, running.data_url):
        assert httpx.get(f"{address}/healthz").json() == {"status": "alive"}
        components = httpx.get(f"{address}/readyz").json()["components"]
        assert components["database"] is None
        assert components["stores"] is None


def test_every_failure_is_a_problem_document(ada: Caller, nobody: Caller, problem: Problem) -> None:
    problem(ada.get("/nothing"), 404, "no_such_address")
    assert problem(ada.delete("/me"), 405, "method_not_offered")
    assert ada.delete("/me").headers["allow"] == "GET"
    problem(nobody.get("/me"), 401, "not_logged_in")
    problem(ada.post("/archives", content=b"{", headers={"content-type": "application/json"}), 400, "malformed_request")
    faults = problem(ada.post("/archives", json={"title": 1, "typo": 2}), 422, "bad_input")["faults"]
    assert {fault["field"] for fault in faults} == {"title", "typo"}
    problem(ada.post("/archives", json={"title": "a\0b"}), 422, "bad_input")
    problem(ada.get("/archives", params={"cursor": "AAAA"}), 422, "bad_cursor")
    problem(
        ada.post("/archives", content=b" " * 33_554_433, headers={"content-type": "application/json"}),
        413,
        "body_too_large",
    )


def test_a_secret_never_comes_back_in_an_error(nobody: Caller) -> None:
    secret = "correct horse battery staple"  # of nobody
    for body in ({"login": "ada", "password": secret}, {"login": 1, "password": secret}, {"password": [secret]}):
        assert secret not in nobody.post("/login", json=body).text


def test_wrong_credentials_are_never_anonymous(running: RunningApplication, closed: str, problem: Problem) -> None:
    place = f"{running.url}/api/v1/archives/{closed}"
    assert httpx.get(place).status_code == 200
    answer = httpx.get(place, headers={"authorization": "Bearer wrong"})
    problem(answer, 401, "bad_credentials")
    assert "Bearer" in answer.headers["www-authenticate"]
    for header in ("Basic !!", "Bearer", "Digest x", "Basic Og=="):
        assert httpx.get(place, headers={"authorization": header}).status_code == 401


def test_a_token_works_as_a_basic_password(running: RunningApplication, archive: str, ada: Caller) -> None:
    token = ada.headers["authorization"].removeprefix("Bearer ")
    answer = httpx.get(f"{running.url}/api/v1/archives/{archive}", auth=("whoever", token))
    assert answer.status_code == 200


def test_log_in_and_out(running: RunningApplication, nobody: Caller) -> None:
    session = nobody.post("/login", json={"login": running.login, "password": running.password}).json()
    bearer = {"authorization": f"Bearer {session['secret']}"}
    assert nobody.get("/me", headers=bearer).json()["identity"]["id"] == session["identity"]["id"]
    assert nobody.post("/logout", headers=bearer).status_code == 204
    assert nobody.get("/me", headers=bearer).status_code == 401


def test_tokens_are_shown_once_and_end(ada: Caller, nobody: Caller) -> None:
    made = ada.post("/tokens", json={"name": "beamline", "verbs": ["read"]})
    assert made.status_code == 201
    bearer = {"authorization": f"Bearer {made.json()['secret']}"}
    listed = {token["id"]: token for token in ada.get("/tokens").json()["items"]}
    assert "secret" not in listed[made.json()["id"]]
    assert nobody.post("/archives", json=CITABLE, headers=bearer).status_code == 403
    assert ada.delete(made.headers["location"].removeprefix("/api/v1")).status_code == 204
    assert nobody.get("/me", headers=bearer).status_code == 401


def test_what_one_may_not_see_looks_like_what_is_not_there(bob: Caller, nobody: Caller, archive: str) -> None:
    absent = "01938c2f-7b3a-7c0e-9f1d-2b4a6c8e0f12"
    for caller in (bob, nobody):
        for rest in ("", "/entries", "/metadata", "/grants", "/manifest", "/files/x", "/entry/x"):
            hidden, missing = caller.get(f"/archives/{archive}{rest}"), caller.get(f"/archives/{absent}{rest}")
            assert hidden.status_code == missing.status_code
            assert hidden.json()["code"] == missing.json()["code"]
        assert archive not in caller.get("/archives").text


def test_a_key_makes_opening_safe_to_repeat(ada: Caller, problem: Problem) -> None:
    key = {"Idempotency-Key": "a-key-of-this-test"}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ada.post("/archives", json=CITABLE, headers=key), range(4)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert answers[0].headers["location"].endswith(answers[0].json()["id"])
    problem(ada.post("/archives", json={**CITABLE, "title": "Another"}, headers=key), 409, "idempotency_key_reused")


def test_of_two_writers_who_read_the_same_one_is_told(ada: Caller, archive: str, problem: Problem) -> None:
    etag = ada.get(f"/archives/{archive}").headers["etag"]
    bodies = [{"title": "One"}, {"title": "Two"}]
    with ThreadPoolExecutor(2) as pool:
        answers = list(
            pool.map(lambda body: ada.patch(f"/archives/{archive}", json=body, headers={"if-match": etag}), bodies)
        )
    assert sorted(answer.status_code for answer in answers) == [200, 412]
    problem(next(a for a in answers if a.status_code == 412), 412, "revision_conflict")


def test_a_reader_with_the_present_state_gets_no_body(ada: Caller, archive: str) -> None:
    etag = ada.get(f"/archives/{archive}").headers["etag"]
    answer = ada.get(f"/archives/{archive}", headers={"if-none-match": etag})
    assert (answer.status_code, answer.content) == (304, b"")


def test_lists_go_on_with_their_cursor(newcomer: Caller) -> None:
    made = [newcomer.open(title=f"Number {number}") for number in range(5)]
    seen: list[str] = []
    params: dict[str, str] = {"limit": "2", "state": "open"}
    while True:
        page = newcomer.get("/archives", params=params).json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == made[::-1]


def test_metadata_is_patched_in_one_step(ada: Caller, archive: str, problem: Problem) -> None:
    place = f"/archives/{archive}/metadata"
    energy = {"energy": {"value": 12.4, "unit": "keV"}}
    changed = ada.patch(place, json=energy, headers={"content-type": "application/merge-patch+json"})
    assert changed.json()["revision"] == 1
    read = ada.get(place)
    assert read.json() == energy
    assert read.headers["etag"] == '"m1"'
    assert read.headers["x-metadata-digest"]
    problem(ada.patch(place, json={"x": 1}, headers={"if-match": '"m0"'}), 412, "revision_mismatch")
    problem(ada.patch(place, content=b"x=1", headers={"content-type": "text/plain"}), 415, "unsupported_content_type")
    operations = [{"op": "test", "path": "/energy/value", "value": 1}]
    patch = {"content-type": "application/json-patch+json"}
    assert ada.patch(place, json=operations, headers=patch).status_code == 409
    history = ada.get(f"/archives/{archive}/metadata-history").json()["items"]
    assert [change["revision"] for change in history] == [1]


def test_a_files_metadata_hangs_on_its_bytes_not_its_text(ada: Caller, archive: str) -> None:
    assert ada.put_file(archive, "%FF", b"x").status_code == 201
    place = f"/archives/{archive}/file-metadata/%FF"
    assert ada.patch(place, json={"good": True}).status_code == 200
    assert ada.get(place).json() == {"good": True}
    history = ada.get(f"/archives/{archive}/metadata-history?path=%FF").json()["items"]
    assert base64.b64decode(history[0]["path_b64"]) == b"\xff"


def test_a_role_opens_the_door_and_closes_it(ada: Caller, bob: Caller, archive: str) -> None:
    granted = ada.post(f"/archives/{archive}/grants", json={"role": "reader", "login": "bob"})
    assert granted.json()["name"]
    assert granted.json()["name"] in {one["name"] for one in ada.get(f"/archives/{archive}/grants").json()["items"]}
    assert granted.status_code == 201
    assert bob.get(f"/archives/{archive}").json()["actions"] == ["read", "see"]
    assert bob.patch(f"/archives/{archive}", json={"title": "Mine"}).status_code == 403
    assert ada.delete(f"/archives/{archive}/grants/{granted.json()['id']}").status_code == 204
    assert bob.get(f"/archives/{archive}").status_code == 404


def test_people_groups_and_accounts(root: Caller, ada: Caller, problem: Problem) -> None:
    made = root.post("/identities", json={"login": "carol", "display_name": "Carol"})
    assert made.status_code == 201
    assert len(made.json()["password"]) >= 12
    carol = made.json()["id"]
    assert ada.get("/identities", params={"login": "carol"}).json()["items"][0]["id"] == carol
    problem(ada.get("/identities"), 403, "not_allowed")
    group = ada.post("/groups", json={"name": "team"}).json()
    assert carol in ada.put(f"/groups/{group['id']}/members/{carol}").json()["members"]
    assert ada.delete(f"/groups/{group['id']}/members/{carol}").status_code == 204
    account = root.post("/accounts", json={"kind": "beamline", "name": "X02DA", "owner_id": carol, "quota_bytes": 10})
    assert account.status_code == 201
    changed = root.patch(f"/accounts/{account.json()['id']}", json={"quota_bytes": None})
    assert changed.json()["quota_bytes"] is None
    assert root.get(f"/accounts/{account.json()['id']}/usage").json()["bytes"] == 0


def test_events_come_in_order(ada: Caller, archive: str) -> None:
    found = ada.get("/events", params={"archive": archive, "wait": 5}).json()
    assert "archive.opened" in [event["type"] for event in found["items"]]
    assert {event["subject"] for event in found["items"]} == {archive}
    assert found["next_after"] == found["items"][-1]["number"]


NAMES_OF_NOW = ("actor_name", "responsible_name")  # told beside an event, which holds ids


def test_an_administrator_follows_the_chain_of_events_without_a_gap(root: Caller, archive: str) -> None:
    assert archive
    digest, number = bytes(64), 0
    while events := root.get("/events", params={"after": number, "limit": 1000, "wait": 0}).json()["items"]:
        for event in events:
            covered = {name: value for name, value in event.items() if name not in ("chain", *NAMES_OF_NOW)}
            digest, number = sha512(digest + canonical_json(covered)).digest(), number + 1
            assert (event["number"], event["chain"]) == (number, digest.hex())
    assert number > 0


def test_the_catalogue_names_every_code_once(nobody: Caller) -> None:
    codes = [error["code"] for error in nobody.get("/errors").json()["items"]]
    assert codes == sorted(set(codes))
    assert {"archive_closed", "bad_path", "revision_conflict"} <= set(codes)


def test_answers_carry_safe_headers(nobody: Caller) -> None:
    headers = nobody.get(
        "/errors", headers={"x-request-id": "chosen-by-the-caller", "origin": "https://evil.example"}
    ).headers
    assert headers["x-request-id"] == "chosen-by-the-caller"
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers
    strange = nobody.get("/errors", headers={"x-request-id": "with blank and <tag>"}).headers["x-request-id"]
    assert "<" not in strange


@pytest.mark.parametrize("what", ["close", "verify", "withdraw"])
def test_long_acts_ask_for_the_right_first(bob: Caller, archive: str, what: str) -> None:
    body = {"reason": "wrong"} if what == "withdraw" else {}
    assert bob.post(f"/archives/{archive}/{what}", json=body).status_code == 404
