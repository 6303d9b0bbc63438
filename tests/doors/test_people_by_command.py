"""The commands that change contracts, accounts and groups, against the running application."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
