"""Quotas, requests and reports over HTTP and by command."""

from __future__ import annotations

import csv
import io
import json
from itertools import count
from typing import Any

import pytest

from perdure.doors.api.quotas import prefers_csv, safe_cell

from .callers import Caller, Problem
from .test_people_by_command import Run, run  # noqa: F401  # a fixture

_numbers = count()


def token_of(caller: Caller) -> str:
    return str(caller.headers["authorization"]).removeprefix("Bearer ")


def account_of(caller: Caller) -> str:
    """The personal account of a newcomer, who has no other."""
    found = caller.get("/accounts").json()["items"]
    assert len(found) == 1
    return str(found[0]["id"])


@pytest.fixture
def team(root: Caller) -> dict[str, Any]:
    """An account of the administrator's in an organisation of its own, with a name that a spreadsheet would run."""
    number = next(_numbers)
    home = root.post("/organisations", json={"name": f"@Institute {number}"}).json()["id"]
    owner = root.get("/me").json()["identity"]["id"]
    form = {"kind": "beamline", "name": f'=HYPERLINK("http://x",{number})', "owner_id": owner, "organisation_id": home}
    made: dict[str, Any] = root.post("/accounts", json=form).json()
    return made


def test_a_quota_is_asked_for_and_given(root: Caller, newcomer: Caller, nobody: Caller, problem: Problem) -> None:
    account = account_of(newcomer)
    made = newcomer.post(f"/accounts/{account}/quota-requests", json={"asked_bytes": 500, "reason": "Tomography."})
    assert made.status_code == 201, made.text
    request = made.json()
    assert (request["state"], request["asked_bytes"], request["given_bytes"]) == ("pending", 500, None)
    again = newcomer.post(f"/accounts/{account}/quota-requests", json={"asked_bytes": 600})
    problem(again, 409, "quota_request_pending")
    problem(newcomer.post(f"/quota-requests/{request['id']}/approve", json={}), 403, "not_allowed")
    problem(newcomer.get("/quota-requests"), 403, "not_allowed")
    problem(nobody.get("/quota-requests"), 401, "not_logged_in")
    waiting = root.get("/quota-requests", params={"state": "pending", "limit": 1000}).json()["items"]
    assert request["id"] in {one["id"] for one in waiting}
    given = root.post(f"/quota-requests/{request['id']}/approve", json={"quota_bytes": 400, "note": "Take 400."})
    assert (given.status_code, given.json()["given_bytes"]) == (200, 400)
    problem(root.post(f"/quota-requests/{request['id']}/refuse", json={"note": ""}), 409, "quota_request_decided")
    assert newcomer.get(f"/accounts/{account}/usage").json()["quota_bytes"] == 400
    (seen,) = newcomer.get(f"/accounts/{account}/quota-requests").json()["items"]
    assert (seen["state"], seen["note"]) == ("approved", "Take 400.")


def test_strangers_see_no_request(newcomer: Caller, bob: Caller, problem: Problem) -> None:
    account = account_of(newcomer)
    request = newcomer.post(f"/accounts/{account}/quota-requests", json={"asked_bytes": 5}).json()["id"]
    problem(bob.get(f"/accounts/{account}/quota-requests"), 404, "not_found")
    there = problem(bob.post(f"/quota-requests/{request}/approve", json={}), 404, "not_found")
    absent = problem(bob.post(f"/quota-requests/{account}/approve", json={}), 404, "not_found")
    assert there["detail"] == absent["detail"]


def test_an_organisation_is_limited_by_administrators_only(
    root: Caller, ada: Caller, team: dict[str, Any], problem: Problem
) -> None:
    home = team["organisation_id"]
    problem(ada.patch(f"/organisations/{home}", json={"quota_bytes": 1}), 403, "not_allowed")
    problem(ada.get(f"/organisations/{home}/usage"), 404, "not_found")
    assert root.patch(f"/organisations/{home}", json={"quota_bytes": 10}).json()["quota_bytes"] == 10
    archive = root.open(account_id=team["id"])
    assert root.put_file(archive, "a", b"123456").status_code == 201
    problem(root.put_file(archive, "b", b"12345"), 413, "quota_exceeded")
    usage = {"bytes": 6, "reserved_bytes": 0, "files": 1, "quota_bytes": 10}
    assert root.get(f"/organisations/{home}/usage").json() == usage
    mine = ada.get("/organisations").json()["items"]
    assert {one["quota_bytes"] for one in mine} == {None}


def test_a_report_as_data_and_as_csv(root: Caller, ada: Caller, team: dict[str, Any], problem: Problem) -> None:
    archive = root.open(account_id=team["id"])
    assert root.put_file(archive, "a", b"123").status_code == 201
    report = root.get("/reports/usage", params={"by": "beamline"})
    assert report.headers["content-type"] == "application/json"
    lines = {one["id"]: one for one in report.json()["items"]}
    line = lines[team["id"]]
    assert (line["name"], line["bytes"], line["files"], line["archives_open"]) == (team["name"], 3, 1, 1)
    (total,) = report.json()["totals"]
    for column in ("bytes", "files", "archives_open", "archives_closed", "copy_bytes"):
        assert total[column] == sum(one[column] for one in lines.values())
    by_format = root.get("/reports/usage", params={"by": "beamline", "format": "csv"})
    by_accept = root.get("/reports/usage", params={"by": "beamline"}, headers={"accept": "text/csv"})
    assert by_format.text == by_accept.text
    assert by_accept.headers["content-type"].startswith("text/csv")
    rows = {row["id"] or row["by"]: row for row in csv.DictReader(io.StringIO(by_accept.text, newline=""))}
    assert rows[team["id"]]["name"] == f"'{team['name']}", "a spreadsheet takes it for text"
    assert int(rows["total"]["bytes"]) == total["bytes"]
    assert len(rows) == len(lines) + 1
    problem(ada.get("/reports/usage"), 403, "not_allowed")
    problem(root.get("/reports/usage", params={"from": "2026-01-02", "to": "2026-01-01"}), 422, "bad_period")
    assert root.get("/reports/usage", params={"to": "2001-01-01"}).json() == {
        "by": "account",
        "items": [],
        "totals": [],
    }


def test_a_manager_is_told_of_his_own_organisation(root: Caller, newcomer: Caller, team: dict[str, Any]) -> None:
    me = newcomer.get("/accounts").json()["items"][0]["owner_id"]
    grant = {"role": "manager", "identity_id": me}
    assert root.post(f"/organisations/{team['organisation_id']}/grants", json=grant).status_code == 201
    for by, names in (("account", {team["name"]}), ("kind", {"beamline"}), ("group", set())):
        report = newcomer.get("/reports/usage", params={"by": by}).json()
        assert {one["name"] for one in report["items"]} == names
    (line,) = newcomer.get("/reports/usage", params={"by": "organisation"}).json()["items"]
    assert line["id"] == team["organisation_id"]
    written = newcomer.get("/reports/usage", params={"by": "organisation", "format": "csv"}).text
    assert ",'@Institute" in written


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert safe_cell(text) == f"'{text}"
    assert safe_cell("a" + text) == "a" + text


@pytest.mark.parametrize(
    ("accept", "is_csv"),
    [("", False), ("*/*", False), ("text/csv", True), ("application/json, text/csv", False),
     ("application/json;q=0.5, text/csv", True), ("text/csv;q=0", False), ("text/csv;q=x", False)],
)  # fmt: skip
def test_who_asks_for_csv_gets_it(accept: str, is_csv: bool) -> None:
    assert prefers_csv(accept) is is_csv


def test_the_commands(run: Run, root: Caller, newcomer: Caller, team: dict[str, Any]) -> None:  # noqa: F811
    account, boss, own = account_of(newcomer), token_of(root), token_of(newcomer)
    request = run(own, "quota", "request", account, "700", "--reason", "More scans.").strip()
    assert request in run(boss, "quota", "requests", "--state", "pending")
    assert "More scans." in run(own, "quota", "requests", "--account", account)
    assert "approved" in run(boss, "quota", "approve", request, "--bytes", "600")
    other = run(own, "quota", "request", account, "800").strip()
    assert "refused" in run(boss, "quota", "refuse", other, "--note", "Not now.")
    assert run(boss, "quota", "set", account, "none", "--files", "12").strip() == "quota: 12 files"
    (shown,) = json.loads(run(own, "quota", "show", "--json"))
    assert (shown["quota_bytes"], shown["quota_files"], shown["bytes"]) == (None, 12, 0)
    assert "12 files" in run(own, "quota", "show", account)
    home = team["organisation_id"]
    assert "5" in run(boss, "organisation", "quota", home, "5000")
    (of_all,) = json.loads(run(boss, "quota", "show", "--organisation", home, "--json"))
    assert of_all["quota_bytes"] == 5000
    assert run(boss, "organisation", "quota", home, "none").strip() == "quota: no limit"
    assert run(boss, "quota", "report", "--by", "beamline", "--csv").startswith("day,by,id,name,")
    assert "total" in run(boss, "quota", "report", "--by", "kind")
    assert json.loads(run(boss, "quota", "report", "--to", "2001-01-01", "--json"))["items"] == []
