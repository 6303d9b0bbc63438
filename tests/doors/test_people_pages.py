"""Pages for those who manage people: finding them, what they reach, applications, and the audit trail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from perdure.identity.model import Arrival, CredentialKind
from perdure.testing.app import RunningApplication

from .browsing import Browser, browsing, find_hidden, find_links, read_text
from .callers import CITABLE, Caller, Problem

OWN = {"sec-fetch-site": "same-origin"}
_PROGRAM = Path(sys.executable).parent / "perdure"


@pytest.fixture(scope="module")
def boss(running: RunningApplication) -> Iterator[Browser]:
    """An administrator."""
    with browsing(running, "people-boss", is_administrator=True) as browser:
        yield browser


@pytest.fixture(scope="module")
def manager(running: RunningApplication, boss: Browser) -> Iterator[Browser]:
    """Who manages an organisation of its own, in which there is one more person."""
    made = boss.post("/api/v1/organisations", json={"name": "Institute of pages"}, headers=OWN).json()
    with browsing(running, "people-manager", organisation_id=made["id"]) as browser:
        grant = {"role": "manager", "identity_id": browser.id}
        given = boss.post(f"/api/v1/organisations/{made['id']}/grants", json=grant, headers=OWN)
        assert given.status_code == 201, given.text
        person = {"login": "page-inside", "display_name": "Inga Ünsal <i>", "organisation_id": made["id"]}
        assert boss.post("/api/v1/identities", json=person, headers=OWN).status_code == 201
        yield browser


def person_of(boss: Browser, login: str) -> str:
    return str(boss.get("/api/v1/identities", params={"login": login}).json()["items"][0]["id"])


def test_people_are_found_by_part_of_a_name_or_a_login(boss: Browser, manager: Browser) -> None:
    inside = person_of(boss, "page-inside")
    for asked in ("ünsal <", "ÜNSAL", "inga ü", "PAGE-inside"):
        page = manager.get("/people", params={"text": asked})
        assert f"/people/{inside}" in find_links(page), asked
        assert "Inga Ünsal &lt;i&gt;" in page.text
    for asked in ("page-insid", ".*", "(", "Inga.Ünsal", "In\\w", "%", "_"):
        assert "Nobody fits" in read_text(manager.get("/people", params={"text": asked})), asked
    mine = manager.read("/people")
    assert "People-Manager" in mine
    assert "People-Boss" not in mine
    assert f"/people/{inside}" not in find_links(manager.get("/people?state=disabled"))
    found = boss.get("/api/v1/identities", params={"text": "ÜNSAL", "state": "active"}).json()["items"]
    assert [one["id"] for one in found] == [inside]
    assert boss.get("/api/v1/identities", params={"text": "ÜNSAL", "state": "erased"}).json()["items"] == []


def test_a_person_is_shown_and_changed_by_who_manages_him(
    running: RunningApplication, boss: Browser, manager: Browser
) -> None:
    inside = f"/people/{person_of(boss, 'page-inside')}"
    text = manager.read(inside)
    for shown in ("password, login name page-inside", "never used", "Institute of pages", "Last logged in never"):
        assert shown in text, shown
    assert "What it can reach" not in text  # what lies outside the organisation is not for its managers
    assert "Name administrator" not in text
    manager.send_form(inside, act="rename", display_name="Inga Unsal")
    assert "Inga Unsal" in manager.read(inside)
    manager.send_form(inside, act="rename", display_name="Inga Ünsal <i>")
    manager.send_form(inside, act="disable")
    assert "○ disabled" in manager.read(inside)
    assert manager.get(f"/api/v1{inside.replace('people', 'identities')}").json()["is_active"] is False
    manager.send_form(inside, act="enable")
    assert "● active" in manager.read(inside)
    assert "Choose one" in read_text(manager.send_form(inside, act="praise", status=422))
    manager.send_form(inside, act="name", status=403)
    outside = f"/people/{boss.id}"
    assert manager.get(outside).status_code == 403
    manager.send_form(outside, act="disable", status=403)
    assert boss.get("/account").status_code == 200


def test_administrators_see_what_somebody_reaches(running: RunningApplication, boss: Browser) -> None:
    with browsing(running, "page-reaching") as person:
        opened = person.post("/api/v1/archives", json={**CITABLE, "title": "In reach"}, headers=OWN).json()
        page = boss.get(f"/people/{person.id}")
        assert f"/archives/{opened['short_id']}" in find_links(page)
        assert "fill, manage, read, see" in read_text(page)
        assert "Last logged in never" not in read_text(page)
        boss.send_form(f"/people/{person.id}", act="name")
        assert "administrator" in read_text(boss.get(f"/people/{person.id}")).split("Ways in")[0]
        boss.send_form(f"/people/{person.id}", act="dismiss")
        boss.send_form(f"/people/{person.id}", act="disable")
        assert "Nothing while it is disabled." in boss.read(f"/people/{person.id}")


def test_pages_of_people_are_for_those_who_manage(
    running: RunningApplication, ada: Caller, nobody: Caller, boss: Browser
) -> None:
    for place in (
        "/people",
        f"/people/{boss.id}",
        "/applications",
        "/audit",
        "/audit?type=X",
        f"/audit?actor={boss.id}",
    ):
        assert ada.get(f"{running.url}{place}").status_code == 403, place
        assert nobody.get(f"{running.url}{place}").headers["location"].startswith("/login?"), place
    answer = ada.post(f"{running.url}/people/{boss.id}", data={"act": "disable"}, headers=OWN)
    assert answer.status_code == 403
    assert boss.get("/people/nothing").status_code == 404
    assert boss.get("/people?cursor=x").status_code in (400, 422)
    assert boss.get("/people?state=odd").status_code == 422


def test_a_list_of_many_people_has_pages(running: RunningApplication, boss: Browser, manager: Browser) -> None:
    home = manager.get("/api/v1/me").json()["identity"]["organisation_id"]
    for number in range(51):
        person = {"login": f"page-crowd-{number}", "display_name": f"Crowd {number:02}", "organisation_id": home}
        assert boss.post("/api/v1/identities", json={**person, "password": "a long password 7"}, headers=OWN).is_success
    first = manager.get("/people?text=crowd")
    (further,) = [one for one in find_links(first) if "cursor=" in one]
    assert "Crowd 49" in first.text
    assert "Crowd 50" not in first.text
    assert "Crowd 50" in manager.read(further)


def test_ways_in_are_told_to_those_who_manage(
    running: RunningApplication, boss: Browser, manager: Browser, ada: Caller, problem: Problem
) -> None:
    with browsing(running, "page-ways") as person:
        actor = running.application.identity.log_in(person.login, person.password)[1]
        running.application.identity.link(actor, Arrival(CredentialKind.OIDC, "https://login.example.org secret-sub"))
        told = boss.get(f"/api/v1/identities/{person.id}/logins").json()["items"]
        assert [(one["kind"], one["subject"]) for one in told] == [
            ("password", "page-ways"),
            ("oidc", "https://login.example.org"),
        ]
        assert told[0]["last_used_at"] is not None
        assert "secret-sub" not in boss.get(f"/people/{person.id}").text
        problem(ada.get(f"/identities/{person.id}/logins"), 403, "not_allowed")
        assert manager.get(f"/api/v1/identities/{person.id}/logins").status_code == 404


def test_who_asks_to_be_let_in_is_let_in_or_not(running: RunningApplication, boss: Browser, manager: Browser) -> None:
    home = manager.get("/api/v1/me").json()["identity"]["organisation_id"]
    with httpx.Client(base_url=f"{running.url}/api/v1") as stranger:
        for login in ("page-asks-one", "page-asks-two"):
            asked = {"login": login, "password": "plum tractor ninety sea", "display_name": f"{login} <u>"}
            sent = stranger.post("/applications/local", json={**asked, "reason": "Beam", "organisation_id": home})
            assert sent.status_code == 202, sent.text
    page = manager.get("/applications")
    assert "page-asks-one &lt;u&gt;" in page.text
    assert "2 applications to be let in wait" in manager.read("/people")
    one, _, two, _ = find_hidden(page, "application_id")
    wrong = manager.send_form("/applications", application_id=one, answer="approve", size="lots", status=422)
    assert 'value="lots"' in wrong.text
    manager.send_form("/applications", application_id=one, answer="approve", organisation_id=home, size="2")
    account = boss.get("/api/v1/accounts", params={"limit": 1000}).json()["items"]
    assert [one["quota_bytes"] for one in account if one["name"] == "page-asks-one"] == [2_000_000_000]
    manager.send_form("/applications", application_id=two, answer="refuse", note="Not this year.")
    assert "page-asks" not in manager.read("/applications")
    manager.send_form("/applications", application_id=two, answer="approve", organisation_id=home, status=409)


def test_the_audit_trail_is_searched_by_person_kind_archive_and_day(
    running: RunningApplication, boss: Browser, manager: Browser
) -> None:
    with browsing(running, "page-trailed") as person:
        opened = person.post("/api/v1/archives", json=CITABLE, headers=OWN).json()
        deadline = time.monotonic() + 30
        while "archive.opened" not in boss.read("/audit?actor=page-trailed"):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        text = boss.read("/audit?actor=page-trailed&type=archive")
        assert opened["short_id"] in text
        assert "session.opened" not in text.split("When")[1]
        assert "Page-Trailed" in text
        by_id = boss.read(f"/audit?actor={person.id}&archive={opened['short_id']}")
        assert "archive.opened" in by_id.split("When")[1]
        about = boss.read(f"/audit?about={person.id}&type=identity.created")
        assert "Page-Trailed" in about
        today = running.application.clock.now().date()
        assert "archive.opened" in boss.read(f"/audit?actor=page-trailed&since={today}&until={today}").split("When")[1]
        assert "No event fits." in boss.read("/audit?actor=page-trailed&until=2020-01-01")
        assert person.id not in manager.get(f"/audit?actor={person.id}").text.split("</form>")[1]
        for odd in ("type=Odd!", "actor=no-such-login", "archive=x", "since=soon", "after=x", "after=" + "9" * 30):
            answer = boss.get(f"/audit?{odd}")
            assert (answer.status_code, "archive.opened" in answer.text.split("</form>")[1]) == (422, False), odd


def test_the_audit_trail_has_pages(running: RunningApplication, boss: Browser) -> None:
    with browsing(running, "page-busy") as person:
        identity = running.application.identity
        actor = identity.log_in(person.login, person.password)[1]
        for number in range(102):
            identity.rename_identity(actor, UUID(person.id), f"B {number}")
        deadline = time.monotonic() + 30
        while True:
            first = boss.get("/audit?actor=page-busy&type=identity.renamed")
            further = [one for one in find_links(first) if "after=" in one]
            if further or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        (older,) = further
        assert first.text.count("identity.renamed</td>") == 100
        deadline = time.monotonic() + 30
        while (count := boss.get(older).text.count("identity.renamed</td>")) != 2 and time.monotonic() < deadline:
            first = boss.get("/audit?actor=page-busy&type=identity.renamed")
            (older,) = [one for one in find_links(first) if "after=" in one]
            time.sleep(0.2)
        assert count == 2


def test_people_and_their_ways_in_are_listed_by_command(running: RunningApplication, boss: Browser) -> None:
    with browsing(running, "page-by-command", display_name="Øystein By Command") as person:
        environment = {**os.environ, "PERDURE_URL": running.url, "PERDURE_TOKEN": running.token()}

        def run(*words: str) -> str:
            ran = subprocess.run([_PROGRAM, "identity", *words], env=environment, capture_output=True, text=True)
            assert ran.returncode == 0, ran.stderr
            return ran.stdout

        assert run("list", "ØYSTEIN", "--state", "active").count("Øystein By Command") == 1
        assert person.id in run("list", "PAGE-by-command")
        assert person.id not in run("list", "øystein", "--state", "disabled")
        assert "page-by-command" in run("logins", "page-by-command")
        assert json.loads(run("logins", person.id, "--json"))[0]["kind"] == "password"
