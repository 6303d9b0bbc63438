"""A real provider, the running application, a browser and the command: from a stranger to somebody who is let in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from perdure.testing.app import RunningApplication, start_application

from .signing_in import CLIENT_ID, CLIENT_SECRET, Browser, Hall, find_tools, running_hall

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_tools() is not None, reason=f"npm: {find_tools()}"),
]
PROGRAM = Path(sys.executable).with_name("perdure")


@pytest.fixture(scope="module")
def hall() -> Iterator[Hall]:
    with running_hall() as found:
        yield found


@pytest.fixture(scope="module")
def running(hall: Hall) -> Iterator[RunningApplication]:
    provider = {"name": "hall", "label": "The hall", "issuer": hall.issuer, "client_id": CLIENT_ID}
    with start_application(providers=[{**provider, "client_secret": CLIENT_SECRET}]) as started:
        yield started


@pytest.fixture
def page(running: RunningApplication) -> Iterator[httpx.Client]:
    """A browser at our pages, with cookies, that says where its requests come from."""
    with httpx.Client(base_url=running.url, trust_env=False, headers={"sec-fetch-site": "same-origin"}) as client:
        yield client


@pytest.fixture
def root(running: RunningApplication) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {running.token()}"}
    with httpx.Client(base_url=f"{running.url}/api/v1", trust_env=False, headers=headers) as client:
        yield client


def log_in_at(page: httpx.Client, who: str, path: str = "/login/hall?return_to=/archives/x") -> httpx.Response:
    """Follow the login through the provider; our answer to who comes back."""
    begun = page.get(path)
    assert begun.status_code == 303
    back = f"{str(page.base_url).rstrip('/')}/login/hall/callback"
    brought = Browser(who).go(begun.headers["location"], stop_at=back)
    return page.get("/login/hall/callback", params=brought)


def fields_of(text: str) -> dict[str, str]:
    return {name: unescape(value) for name, value in re.findall(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"', text)}


def let_in(root: httpx.Client, name: str) -> None:
    """Approve the application of that name."""
    (asked,) = [one for one in root.get("/applications?state=pending").json()["items"] if one["display_name"] == name]
    organisation = root.get("/organisations").json()["items"][0]["id"]
    answer = root.post(f"/applications/{asked['id']}/approve", json={"organisation_id": organisation})
    assert answer.status_code == 200, answer.text


def test_a_stranger_is_let_in_by_a_browser(page: httpx.Client, root: httpx.Client, running: RunningApplication) -> None:
    assert "The hall" in page.get("/login").text
    met = log_in_at(page, "ada")
    assert "not known here yet" in met.text
    assert "perdure-session" not in page.cookies
    answer = page.post("/login/apply", data={**fields_of(met.text), "reason": "My beamtime."})
    assert answer.status_code == 202, answer.text
    assert "waits to be decided" in log_in_at(page, "ada").text
    let_in(root, "Ada Example")
    back = log_in_at(page, "ada")
    assert (back.status_code, back.headers["location"]) == (303, "/archives/x")
    kept = back.headers["set-cookie"].lower()
    assert "httponly" in kept
    assert "samesite=lax" in kept
    me = page.get("/api/v1/me").json()
    assert me["identity"]["display_name"] == "Ada Example"
    assert "logged in as Ada Example" in page.get("/login").text
    sessions = page.get("/api/v1/sessions").json()["items"]
    assert "oidc" in sessions[0]["proofs"]
    assert "You are logged out here" in page.post("/logout", data={}).text
    assert page.get("/api/v1/me").status_code == 401


def test_a_browser_shows_anew_who_it_is_and_links_a_login(
    page: httpx.Client, root: httpx.Client, running: RunningApplication
) -> None:
    made = root.post("/identities", json={"login": "linda", "display_name": "Linda"}).json()
    form = {"login": "linda", "password": made["password"]}
    assert page.post("/login", data=form).status_code == 303
    assert "/login/hall?link=true" in unescape(page.get("/account").text)
    assert log_in_at(page, "linda", "/login/hall?link=true&return_to=/account").headers["location"] == "/account"
    assert "/linda" in page.get("/account").text or "linda" in page.get("/account").text
    with running.application.db.begin() as tx:
        tx.execute(text("UPDATE sessions SET proven_at = proven_at - interval '16 minutes'"))
    shown = unescape(page.get("/account").text)
    assert "/login/hall?prove=true" in shown
    assert "?link=true" not in shown
    refused = page.get("/login/hall?link=true")
    assert (refused.status_code, "Show once more" in refused.text) == (403, True)
    assert log_in_at(page, "linda", "/login/hall?prove=true&return_to=/account").status_code == 303
    assert "?link=true" in unescape(page.get("/account").text)
    assert page.post("/account/prove", data={"password": "wrong"}).status_code == 401
    assert page.post("/account/prove", data={"password": made["password"]}).status_code == 303
    foreign = {"sec-fetch-site": "cross-site"}
    assert page.get("/login/hall?link=true", headers=foreign).status_code == 403


def test_a_cookie_changes_nothing_for_another_site(page: httpx.Client, running: RunningApplication) -> None:
    form = {"login": running.login, "password": running.password}
    foreign = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    assert page.post("/login", data=form, headers=foreign).status_code == 403
    assert page.post("/login", data=form).status_code == 303
    body = {"title": "x"}
    for headers in (foreign, {"sec-fetch-site": "same-site"}, {"sec-fetch-site": "none"}):
        assert page.post("/api/v1/archives", json=body, headers=headers).status_code == 403
    with httpx.Client(base_url=running.url, trust_env=False, cookies=page.cookies) as old:
        assert old.post("/api/v1/archives", json=body).status_code == 403
        assert old.post("/api/v1/archives", json=body, headers={"origin": running.url}).status_code == 201
        assert old.get("/api/v1/me").status_code == 200
    assert page.post("/api/v1/archives", json=body).status_code == 201
    assert page.post("/logout", data={}, headers=foreign).status_code == 403


def test_a_secret_that_was_put_into_a_browser_is_not_taken_over(
    page: httpx.Client, running: RunningApplication
) -> None:
    page.cookies.set("perdure-session", "pds_" + "A" * 43, domain="127.0.0.1", path="/")
    assert page.get("/").status_code == 200
    assert page.post("/login", data={"login": running.login, "password": running.password}).status_code == 303
    assert page.cookies["perdure-session"] != "pds_" + "A" * 43


def test_a_login_that_another_browser_began_ends_here(page: httpx.Client, running: RunningApplication) -> None:
    begun = page.get("/login/hall")
    brought = Browser("ada").go(begun.headers["location"], stop_at=f"{running.url}/login/hall/callback")
    with httpx.Client(base_url=running.url, trust_env=False) as victim:
        answer = victim.get("/login/hall/callback", params=brought)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    for wrong in ({"state": "x", "code": "y"}, {"error": "access_denied"}, {}):
        assert page.get("/login/hall/callback", params=wrong).status_code in (401, 422)


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/\\evil.example"])
def test_one_is_sent_nowhere_else(page: httpx.Client, running: RunningApplication, target: str) -> None:
    form = {"login": running.login, "password": running.password, "return_to": target}
    assert page.post("/login", data=form).headers["location"] == "/"


def perdure(running: RunningApplication, home: Path, *words: str, said: str = "") -> subprocess.Popen[str]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PERDURE_")},
        "PERDURE_URL": running.url,
        "PERDURE_CREDENTIALS": str(home / "credentials.json"),
    }
    process = subprocess.Popen(
        [PROGRAM, *words],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(said)
    process.stdin.close()
    return process


def confirm(process: subprocess.Popen[str], who: str) -> tuple[str, str]:
    """Do what the command tells on its standard error, and wait for it; what it said."""
    with process:
        assert process.stderr is not None
        assert process.stdout is not None
        told = ""
        for line in process.stderr:
            told += line
            if found := re.search(r"http://\S+user_code=\S+", line):
                threading.Thread(target=Browser(who).confirm_device, args=(found[0],)).start()
                break
        return process.stdout.read(), told + process.stderr.read()


def test_the_command_logs_in_without_a_browser_of_its_own(
    running: RunningApplication, root: httpx.Client, tmp_path: Path
) -> None:
    listed, told = confirm(perdure(running, tmp_path, "providers", "--json"), "nobody")
    assert json.loads(listed)[0]["name"] == "hall", told
    asking = perdure(running, tmp_path, "login", "--provider", "hall", said="y\nMy beamtime.\n")
    _, told = confirm(asking, "bob")
    assert asking.returncode == 2, told
    assert "Your application is sent" in told
    let_in(root, "Bob Example")
    coming = perdure(running, tmp_path, "login", "--provider", "hall", "--json")
    out, told = confirm(coming, "bob")
    assert coming.returncode == 0, told
    assert json.loads(out)["login"] == "Bob Example"
    shown, told = confirm(perdure(running, tmp_path, "logins", "list", "--json"), "bob")
    assert json.loads(shown)[0]["kind"] == "oidc", told


def test_the_command_links_a_login_and_unlinks_it(running: RunningApplication, tmp_path: Path) -> None:
    secret = f"{running.password}\n"
    words = ("logins", "link", "hall", "--login", running.login)
    linking = perdure(running, tmp_path, *words, said=secret)
    out, told = confirm(linking, "eve")
    assert linking.returncode == 0, told
    assert "is you from now on" in out
    again = perdure(running, tmp_path, *words, said=secret)
    _, told = confirm(again, "eve")
    assert again.returncode == 2, told
    assert "belongs to somebody here already" in told
    coming = perdure(running, tmp_path, "login", "--provider", "hall", "--json")
    _, told = confirm(coming, "eve")
    assert coming.returncode == 0, told
    listed, told = confirm(perdure(running, tmp_path, "logins", "list", "--json"), "eve")
    linked = {one["kind"]: one["id"] for one in json.loads(listed)}
    assert set(linked) == {"password", "oidc"}, told
    gone = perdure(running, tmp_path, "logins", "unlink", linked["oidc"], "--login", running.login, said=secret)
    out, told = confirm(gone, "eve")
    assert out == "Unlinked.\n", told


def test_a_rule_is_made_and_taken_back(root: httpx.Client, hall: Hall) -> None:
    group = root.post("/groups", json={"name": "Beamline"}).json()["id"]
    body = {"issuer": hall.issuer, "entitlement": "urn:x:example.org:group:*"}
    made = root.post(f"/groups/{group}/rules", json=body)
    assert made.status_code == 201, made.text
    assert [one["entitlement"] for one in root.get(f"/groups/{group}/rules").json()["items"]] == [body["entitlement"]]
    assert root.post(f"/groups/{group}/rules", json=body).status_code == 409
    assert root.delete(f"/groups/{group}/rules/{made.json()['id']}").status_code == 204
    assert root.delete(f"/groups/{group}/rules/{made.json()['id']}").status_code == 404


def test_terms_are_published_and_met(root: httpx.Client, running: RunningApplication) -> None:
    assert root.get("/terms").status_code == 404
    form = {"login": "terry", "display_name": "Terry"}
    password = root.post("/identities", json=form).json()["password"]
    made = root.post("/terms", json={"text": "Be kind."}).json()
    own = {"login": "terry", "password": password}
    with httpx.Client(base_url=running.url, trust_env=False, headers={"sec-fetch-site": "same-origin"}) as page:
        refused = page.post("/api/v1/login", json=own)
        assert (refused.status_code, refused.json()["version"]) == (403, made["version"])
        assert "Be kind." in page.post("/login", data=own).text
        assert page.post("/login", data={**own, "accept_terms": str(made["version"])}).status_code == 303
        assert page.get("/api/v1/me").json()["identity"]["display_name"] == "Terry"
    with running.application.db.begin() as tx:
        tx.exec_driver_sql("DELETE FROM terms")


def test_a_machine_brings_a_token(running: RunningApplication, root: httpx.Client, hall: Hall) -> None:
    for wrong in ("", "x", "a.b.c"):
        answer = root.post("/login/token", json={"provider": "hall", "subject_token": wrong})
        assert answer.status_code in (401, 422)
    answer = root.post("/login/token", json={"provider": "nowhere", "subject_token": "a.b.c"})
    assert answer.status_code == 404
