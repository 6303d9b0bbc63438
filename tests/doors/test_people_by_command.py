"""The commands that change contracts, accounts and groups, against the running application."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from perdure.kernel.actor import SYSTEM
from perdure.testing.app import RunningApplication

from .callers import Caller

Run = Callable[..., str]
_PROGRAM = Path(sys.executable).parent / "perdure"


@pytest.fixture
def run(running: RunningApplication) -> Run:
    def call(token: str, *arguments: str) -> str:
        environment = {**os.environ, "PERDURE_URL": running.url, "PERDURE_TOKEN": token}
        ran = subprocess.run([_PROGRAM, *arguments], env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return call


def _token(caller: Caller) -> str:
    return str(caller.headers["authorization"]).removeprefix("Bearer ")


def _record(run: Run, caller: Caller, *arguments: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(run(_token(caller), "archive", *arguments, "--json"))
    return record


def test_contract_lifetime_and_access_are_changed(run: Run, ada: Caller, archive: str) -> None:
    assert (
        _record(run, ada, "set-access", archive, "embargoed", "--embargo-until", "2031-01-31")["access"] == "embargoed"
    )
    assert _record(run, ada, "set-profile", archive, "beamline")["profile"] == "beamline"
    assert _record(run, ada, "extend", archive, "2045-01-01")["keep_until"] == "2045-01-01"
    assert "access: public" in run(_token(ada), "archive", "set-access", archive, "public")


def test_an_account_is_made_for_a_person_and_a_group_is_filled(
    run: Run, root: Caller, ada: Caller, bob: Caller
) -> None:
    made = run(
        _token(root), "account", "create", "X05LA", "--kind", "beamline", "--owner", "ada", "--quota", "1000",
        "--profile", "beamline",
    ).strip()  # fmt: skip
    assert made in run(_token(ada), "account", "list")
    shown = json.loads(run(_token(ada), "account", "show", made, "--json"))
    assert (shown["quota_bytes"], shown["allowed_profiles"], shown["usage"]["bytes"]) == (1000, ["beamline"], 0)
    assert "0 files" in run(_token(ada), "account", "show", made)
    group = run(_token(ada), "group", "create", "Night shift").strip()
    run(_token(ada), "group", "add", group, "bob")
    assert "Night shift" in run(_token(bob), "group", "list")
    run(_token(ada), "group", "remove", group, "bob")
    assert "Night shift" not in run(_token(bob), "group", "list")


def test_who_reaches_what_is_told(run: Run, root: Caller, ada: Caller, bob: Caller, archive: str) -> None:
    run(_token(ada), "grant", "give", archive, "reader", "bob")
    told = run(_token(ada), "who", archive)
    assert [line.split()[0] for line in told.splitlines() if "a role on the archive" in line] == ["Ada", "Bob"]
    assert "they look after the installation" in told
    assert [one["through"] for one in json.loads(run(_token(ada), "who", archive, "--json"))][-1] == "archive"
    assert archive in run(_token(root), "reach", "bob")
    assert archive in {one["id"] for one in json.loads(run(_token(root), "reach", "bob", "--json"))}


def test_sessions_are_listed_and_ended(run: Run, root: Caller, nobody: Caller) -> None:
    made = root.post("/identities", json={"login": "ingrid", "display_name": "I"}).json()
    login = {"login": "ingrid", "password": made["password"]}
    secret = nobody.post("/login", json=login, headers={"user-agent": "a browser"}).json()["secret"]
    token = nobody.post(
        "/tokens", json={"name": "t", "verbs": ["read", "manage"]}, headers={"authorization": f"Bearer {secret}"}
    ).json()["secret"]
    assert "a browser" in run(token, "session", "list")
    (open_one,) = json.loads(run(token, "session", "list", "--json"))
    assert "Ended." in run(token, "session", "end", open_one["id"])
    assert nobody.get("/me", headers={"authorization": f"Bearer {secret}"}).status_code == 401


def test_somebody_is_in_a_group_for_a_time_and_passes_a_role_on_within_it(
    run: Run, ada: Caller, bob: Caller, archive: str
) -> None:
    group = run(_token(ada), "group", "create", "Beamtime of March").strip()
    told = run(_token(ada), "group", "add", group, "bob", "--from", "2126-03-01", "--until", "2126-03-08")
    assert "from 2126-03-01 on" in told
    assert "Beamtime of March" not in run(_token(bob), "group", "list")
    (line,) = [one for one in run(_token(ada), "group", "show", group).splitlines() if one.startswith("Bob")]
    assert ("2126-03-01" in line, "2126-03-08" in line, "local" in line) == (True, True, True)
    run(_token(ada), "grant", "give", archive, "manager", "bob", "--pass-on", f"group:{group}")
    assert f"group {group}" in run(_token(ada), "grant", "list", archive)
    run(_token(bob), "grant", "give", archive, "reader", group, "--as", "group")
    given = {one["role"]: one["pass_on"] for one in json.loads(run(_token(ada), "grant", "list", archive, "--json"))}
    assert given["reader"] == {"to": "nobody", "id": None}


def test_an_archive_is_offered_and_taken_over(run: Run, root: Caller, ada: Caller, bob: Caller, archive: str) -> None:
    assert "Offered to bob" in run(_token(ada), "archive", "transfer", archive, "bob")
    (waiting,) = json.loads(run(_token(bob), "archive", "transfers", "--json"))
    assert (waiting["from_name"], waiting["archive_id"]) == ("Ada", archive)
    assert "Ada" in run(_token(bob), "archive", "transfers")
    assert "You own" in run(_token(bob), "archive", "accept", waiting["id"])
    assert ada.get(f"/archives/{archive}").status_code == 404
    assert "ada owns" in run(_token(root), "archive", "transfer", archive, "ada", "--at-once")
    run(_token(ada), "archive", "transfer", archive, "bob", "--keep-account")
    (again,) = json.loads(run(_token(ada), "archive", "transfers", "--json"))
    assert "gone" in run(_token(ada), "archive", "decline", again["id"])
    shared = run(_token(root), "account", "create", "Handed over", "--owner", "ada").strip()
    assert "bob owns" in run(_token(ada), "account", "transfer", shared, "bob")
    assert json.loads(run(_token(bob), "account", "show", shared, "--json"))["role"] == "owner"


def test_offers_stand_on_the_page_of_who_is_logged_in(running: RunningApplication, ada: Caller, archive: str) -> None:
    identity = running.application.identity
    with httpx.Client(base_url=running.url, headers={"sec-fetch-site": "same-origin"}) as page:
        running.person("olga")
        password = "correct horse battery"
        identity.set_password(SYSTEM, _id_of(ada, "olga"), password)
        page.post("/login", data={"login": "olga", "password": password})
        assert ada.post(f"/archives/{archive}/transfers", json={"login": "olga"}).status_code == 201
        shown = page.get("/account").text
        assert ("Take it over" in shown, "from Ada" in shown, "<script" in shown) == (True, True, False)
        offer = page.get("/api/v1/transfers").json()["items"][0]["id"]
        foreign = {"sec-fetch-site": "cross-site"}
        form = {"transfer_id": offer, "answer": "accept"}
        assert page.post("/account/transfer", data=form, headers=foreign).status_code == 403
        assert page.post("/account/transfer", data=form).status_code == 303
        assert page.get(f"/api/v1/archives/{archive}").json()["actions"]


def _id_of(caller: Caller, login: str) -> UUID:
    return UUID(caller.get("/identities", params={"login": login}).json()["items"][0]["id"])


def test_two_identities_become_one_after_the_plan_was_shown(running: RunningApplication, root: Caller) -> None:
    password = "correct horse battery"
    ids = {}
    for login in ("twin", "twin2"):
        form = {"login": login, "display_name": login.title(), "password": password}
        ids[login] = root.post("/identities", json=form).json()["id"]
    words = [str(_PROGRAM), "identity", "merge", "twin2", "--login", "twin"]
    environment = {**os.environ, "PERDURE_URL": running.url}
    asked = {"env": environment, "capture_output": True, "text": True, "check": False}
    shy = subprocess.run(words, input=f"{password}\n{password}\nn\n", **asked)  # type: ignore[call-overload]
    assert (shy.returncode, "There is no way back" in shy.stderr) == (130, True), shy.stderr
    assert "Ways in that end: password twin2." in shy.stderr
    assert root.get(f"/identities/{ids['twin2']}").json()["is_active"]
    done = subprocess.run([*words, "--yes"], input=f"{password}\n{password}\n", **asked)  # type: ignore[call-overload]
    assert "is Twin" in done.stdout, done.stderr
    assert root.get(f"/identities/{ids['twin2']}").json()["merged_into"] == ids["twin"]
    third = root.post("/identities", json={"login": "twin3", "display_name": "Three"}).json()["id"]
    dry = root.post(f"/identities/{ids['twin']}/merge", json={"identity_id": third, "dry_run": True}).json()
    assert (dry["is_done"], dry["gone_name"]) == (False, "Three")
    by_token = root.post(f"/identities/{ids['twin']}/merge", json={"identity_id": third, "reason": "One person."})
    assert by_token.status_code == 403


def test_what_is_kept_of_one_is_written_to_a_file_and_erased(
    running: RunningApplication, root: Caller, nobody: Caller, tmp_path: Path
) -> None:
    password = "correct horse battery"
    form = {"login": "fleeting", "display_name": "Fleeting", "password": password, "email": "f@example.org"}
    made = root.post("/identities", json=form).json()["id"]
    secret = nobody.post("/login", json={"login": "fleeting", "password": password}).json()["secret"]
    kept = tmp_path / "me.json"
    environment = {**os.environ, "PERDURE_URL": running.url, "PERDURE_TOKEN": secret}
    for expected in (0, 2):
        words = [str(_PROGRAM), "identity", "export", str(kept)]
        ran = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == expected, ran.stderr
    assert json.loads(kept.read_text())["identity"]["email"] == "f@example.org"
    assert kept.stat().st_mode & 0o777 == 0o600
    words = [str(_PROGRAM), "identity", "erase", "--login", "fleeting"]
    asked = {"env": environment, "capture_output": True, "text": True, "check": False}
    shy = subprocess.run(words, input=f"{password}\nno\n", **asked)  # type: ignore[call-overload]
    assert "Nothing was erased" in shy.stderr
    done = subprocess.run(words, input=f"{password}\nerase you\n", **asked)  # type: ignore[call-overload]
    assert done.stdout == "Erased.\n", done.stderr
    seen = root.get(f"/identities/{made}").json()
    assert (seen["is_erased"], "Fleeting" in seen["display_name"]) == (True, False)
    assert nobody.post("/login", json={"login": "fleeting", "password": password}).status_code == 401
