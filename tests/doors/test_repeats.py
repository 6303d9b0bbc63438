"""Creating requests that come twice, by `Idempotency-Key`."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure.testing.app import RunningApplication

from .callers import Caller, Problem


def _token(name: str) -> dict[str, Any]:
    return {"name": name, "expires_at": (datetime.now(UTC) + timedelta(days=1)).isoformat()}


def test_a_token_is_made_once_and_its_secret_comes_again(ada: Caller) -> None:
    body, key = _token("repeated"), {"Idempotency-Key": "token-once"}
    first, second = (ada.post("/tokens", json=body, headers=key) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json() == first.json()
    assert second.headers["location"] == first.headers["location"]
    assert sum(token["name"] == "repeated" for token in ada.get("/tokens").json()["items"]) == 1


def test_the_kept_answer_cannot_be_read_without_the_credential(
    running: RunningApplication, ada: Caller, problem: Problem
) -> None:
    body, key = _token("sealed"), {"Idempotency-Key": "token-sealed"}
    secret = ada.post("/tokens", json=body, headers=key).json()["secret"]
    with Caller(running, secret) as same_person:
        problem(same_person.post("/tokens", json=body, headers=key), 409, "answer_sealed")


def test_the_same_key_for_another_request_is_refused(ada: Caller, problem: Problem) -> None:
    key = {"Idempotency-Key": "one-group"}
    assert ada.post("/groups", json={"name": "first group"}, headers=key).status_code == 201
    problem(ada.post("/groups", json={"name": "second group"}, headers=key), 409, "idempotency_key_reused")
    assert "second group" not in {group["name"] for group in ada.get("/groups").json()["items"]}


def test_a_request_that_failed_may_come_again(root: Caller, problem: Problem) -> None:
    key = {"Idempotency-Key": "an-account"}
    person = root.post("/identities", json={"login": "dora", "display_name": "Dora"}).json()["id"]
    body = {"kind": "group", "name": "Shelf", "owner_id": "019ad0f0-0000-7000-8000-000000000000"}
    assert root.post("/accounts", json=body, headers=key).status_code in (404, 409, 422)
    body["owner_id"] = person
    assert root.post("/accounts", json=body, headers=key).status_code == 201


@pytest.mark.parametrize("place", ["/organisations", "/groups"])
def test_twins_at_the_same_moment_make_one(root: Caller, place: str) -> None:
    key = {"Idempotency-Key": f"twins{place}"}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: root.post(place, json={"name": "The twins"}, headers=key), range(4)))
    made = [answer for answer in answers if answer.status_code == 201]
    assert made
    assert {answer.json()["id"] for answer in made} == {made[0].json()["id"]}
    assert {answer.json()["code"] for answer in answers if answer not in made} <= {"request_under_way"}


def test_an_upload_and_a_grant_are_made_once(ada: Caller, bob: Caller, archive: str) -> None:
    path = base64.b64encode(b"big.h5").decode()
    headers = {"Idempotency-Key": "upload", "Upload-Length": "10", "Upload-Metadata": f"path {path}"}
    places = {ada.post(f"{ada.data}/archives/{archive}/uploads", headers=headers).headers["location"] for _ in "ab"}
    assert len(places) == 1
    assert len(ada.get(f"/archives/{archive}/uploads").json()["items"]) == 1
    body, key = {"role": "reader", "login": "bob"}, {"Idempotency-Key": "grant"}
    grants = [ada.post(f"/archives/{archive}/grants", json=body, headers=key) for _ in range(2)]
    assert grants[0].json() == grants[1].json()


def test_every_creating_operation_tells_that_it_takes_a_key(nobody: Caller) -> None:
    paths = nobody.get("/openapi.json").json()["paths"] | nobody.get(f"{nobody.data}/openapi.json").json()["paths"]
    creating = [methods["post"] for methods in paths.values() if "201" in methods.get("post", {}).get("responses", {})]
    assert len(creating) >= 11
    for operation in creating:
        assert "Idempotency-Key" in {parameter["name"] for parameter in operation["parameters"]}, operation
