"""Who did what is found by administrators, and by managers about their own; by the API and by the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure.testing.app import RunningApplication

from .callers import Caller, Problem

_PROGRAM = Path(sys.executable).parent / "perdure"


def search(caller: Caller, **asked: str | int | None) -> list[dict[str, Any]]:
    """What is found, once it has its numbers."""
    answer = caller.get("/audit", params={name: value for name, value in asked.items() if value is not None})
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def wait_for(ask: Callable[[], list[dict[str, Any]]], count: int = 1) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 30
    while len(found := ask()) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(found) >= count
    return found


def own_id(caller: Caller) -> str:
    return str(caller.get("/me").json()["identity"]["id"])


@dataclass
class Institute:
    """An organisation with a manager and a member."""

    id: str
    manager: Caller
    member: Caller


@pytest.fixture(scope="module")
def institute(running: RunningApplication, root: Caller, nobody: Caller) -> Iterator[Institute]:
    home = root.post("/organisations", json={"name": "Institute of trails"}).json()["id"]
    callers = []
    for login in ("trail-manager", "trail-member"):
        form = {"login": login, "display_name": login.title(), "organisation_id": home}
        made = root.post("/identities", json=form).json()
        if login == "trail-manager":
            root.post(f"/organisations/{home}/grants", json={"role": "manager", "identity_id": made["id"]})
        form = {"login": login, "password": made["password"]}
        callers.append(Caller(running, nobody.post("/login", json=form).json()["secret"]))
    with callers[0], callers[1]:
        yield Institute(home, *callers)


def test_only_administrators_and_managers_are_answered(
    ada: Caller, nobody: Caller, institute: Institute, running: RunningApplication, archive: str, problem: Problem
) -> None:
    problem(nobody.get("/audit"), 401, "not_logged_in")
    problem(ada.get("/audit"), 403, "not_allowed")
    problem(ada.get("/audit", params={"archive": archive}), 403, "not_allowed")
    problem(institute.member.get("/audit"), 403, "not_allowed")
    for narrow in ({"verbs": ["read", "write", "manage"]}, {"archives": [archive]}):
        with Caller(running, running.token(**narrow)) as caller:
            problem(caller.get("/audit"), 403, "token_too_narrow")


def test_what_was_done_to_an_archive_is_found_by_type_actor_and_time(root: Caller, ada: Caller, bob: Caller) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    archive, ada_id, bob_id = ada.open(), own_id(ada), own_id(bob)
    grant = ada.post(f"/archives/{archive}/grants", json={"role": "reader", "identity_id": bob_id}).json()["id"]
    ada.delete(f"/archives/{archive}/grants/{grant}")
    found = wait_for(lambda: search(root, archive=archive, type="grant.", about=bob_id), 2)
    assert [event["type"] for event in found] == ["grant.revoked", "grant.given"]
    assert {(event["actor_id"], event["actor_name"], event["subject"]) for event in found} == {(ada_id, "Ada", archive)}
    assert found[0]["data"]["id"] == grant
    oldest = search(root, archive=archive, order="oldest")
    assert "archive.opened" in [event["type"] for event in oldest[:2]]
    assert [event["number"] for event in oldest] == sorted(event["number"] for event in oldest)
    assert search(root, about=grant, actor=ada_id, since=before.isoformat()) == found
    assert search(root, about=grant, until=before.isoformat()) == []
    assert search(root, about=grant, actor=bob_id) == []
    assert search(root, about=grant, type="grant.given") == found[1:]


def test_pages_follow_each_other_without_gap_or_repetition(root: Caller, ada: Caller) -> None:
    archive = ada.open()
    for number in range(5):
        ada.patch(
            f"/archives/{archive}/metadata",
            json={"n": number},
            headers={"content-type": "application/merge-patch+json"},
        )
    whole = wait_for(lambda: search(root, archive=archive, limit=1000), 6)
    for order in ("newest", "oldest"):
        paged: list[int] = []
        after: int | None = None
        while True:
            params = {"archive": archive, "order": order, "limit": 2, **({} if after is None else {"after": after})}
            page = root.get("/audit", params=params).json()
            paged += [event["number"] for event in page["items"]]
            after = page["next_after"]
            if after is None:
                break
        assert paged == sorted(set(paged), reverse=order == "newest")
        assert {event["number"] for event in whole} <= set(paged)  # more may have come since


@pytest.mark.parametrize(
    "asked",
    [
        {"type": "session"},
        {"type": "session.%"},
        {"type": "Session.opened"},
        {"actor": "ada"},
        {"since": "yesterday"},
        {"until": "2026-01-01"},
        {"order": "random"},
        {"limit": "0"},
        {"limit": "1001"},
        {"after": "-1"},
        {"after": str(2**63)},
    ],
)
def test_what_cannot_be_asked_is_refused(root: Caller, problem: Problem, asked: dict[str, str]) -> None:
    problem(root.get("/audit", params=asked), 422, "bad_input")


def test_a_refused_log_in_is_found_without_what_was_typed(root: Caller, nobody: Caller, problem: Problem) -> None:
    made = root.post("/identities", json={"login": "trail-victim", "display_name": "V"}).json()
    wrong = {"login": "trail-victim", "password": "guessed lanterns at sea"}
    problem(nobody.post("/login", json=wrong), 401, "bad_credentials")
    (event,) = wait_for(lambda: search(root, type="session.refused", about=made["id"]))
    assert (event["actor_kind"], event["actor_id"]) == ("anonymous", None)
    assert "lanterns" not in json.dumps(event)
    assert "127.0.0.1" not in json.dumps(event)


def test_managers_find_what_concerns_their_organisation_and_nothing_else(
    root: Caller, ada: Caller, nobody: Caller, institute: Institute
) -> None:
    member, own = own_id(institute.member), institute.member.open()
    shared, hidden = ada.open(), ada.open()
    ada.post(f"/archives/{shared}/grants", json={"role": "contributor", "identity_id": member})
    institute.member.post("/tokens", json={"name": "script", "verbs": ["read"]})
    root.patch(f"/identities/{member}", json={"display_name": "Renamed"})
    nobody.post("/login", json={"login": "trail-member", "password": "guessed lanterns at sea"})
    assert institute.member.put_file(shared, "a", b"a").status_code == 201
    wait_for(lambda: search(root, archive=shared, type="files.added"))

    def types(**asked: str) -> set[str]:
        return {event["type"] for event in search(institute.manager, limit=1000, **asked)}

    wait_for(lambda: search(institute.manager, type="session.refused", about=member))
    assert {"archive.opened", "grant.given"} <= types(archive=own)
    assert types(archive=shared) == {"files.added"}  # what a person of his own did there, no more
    assert types(archive=hidden) == set()
    assert {"session.opened", "token.created", "files.added", "archive.opened"} <= types(actor=member)
    assert {"identity.created", "identity.renamed", "session.refused"} <= types(about=member)
    assert types(actor=own_id(ada)) == set()
    assert types(type="profile.") == set()
    found = search(institute.manager, limit=1000)
    assert {event["actor_id"] for event in found} <= {own_id(root), own_id(institute.manager), member, None}


@pytest.fixture
def run(running: RunningApplication) -> Callable[..., subprocess.Popen[str]]:
    def start(*arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PERDURE_URL": running.url, "PERDURE_TOKEN": running.token()}
        words = [str(_PROGRAM), "audit", *arguments]
        return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def test_the_command_searches_and_follows(run: Callable[..., subprocess.Popen[str]], root: Caller, ada: Caller) -> None:
    archive, since = ada.open(), (datetime.now(UTC) - timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%S%z")
    wait_for(lambda: search(root, archive=archive, type="archive.opened"))
    said, errors = run("--archive", archive, "--actor", "ada", "--type", "archive.", "--since", since).communicate()
    assert ("archive.opened" in said, "Ada" in said, archive in said) == (True, True, True), errors
    nothing, _ = run("--archive", archive, "--until", since).communicate()
    assert nothing == ""
    wrong = run("--actor", "nobody-of-this-name")
    assert "nobody-of-this-name" in wrong.communicate()[1]
    assert wrong.returncode == 2
    following = run("--archive", archive, "--json", "--follow")
    try:
        assert following.stdout is not None
        first = json.loads(following.stdout.readline())
        ada.patch(f"/archives/{archive}", json={"title": "Another"})
        lines = [first]
        while lines[-1]["type"] != "archive.changed":
            lines.append(json.loads(following.stdout.readline()))
        numbers = [line["number"] for line in lines]
        assert numbers == sorted(set(numbers))
    finally:
        following.terminate()
        following.communicate()
