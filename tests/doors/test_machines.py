"""Service accounts over HTTP, by command and on pages; tokens of the grid where bytes are moved and nowhere else."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from perdure.identity.model import Arrival, CredentialKind
from perdure.testing.app import RunningApplication, start_application
from perdure.testing.grid_issuer import GridIssuerDouble, running_issuer

from .callers import Caller, Problem

_PROGRAM = Path(sys.executable).parent / "perdure"


def make(root: Caller, name: str, **more: Any) -> dict[str, Any]:
    answer = root.post("/services", json={"name": name, "purpose": "Takes data.", **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def token_of(root: Caller, service: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = root.post(f"/services/{service['id']}/tokens", json={"name": "t", **more})
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    made: dict[str, Any] = answer.json()
    return made


def test_a_machine_fills_an_archive_and_its_token_is_rotated(
    running: RunningApplication, root: Caller, ada: Caller, archive: str, problem: Problem
) -> None:
    service = make(root, "daq-http")
    token = token_of(root, service)
    granted = ada.post(f"/archives/{archive}/grants", json={"role": "contributor", "identity_id": service["id"]})
    assert granted.json()["name"] == "daq-http"
    with Caller(running, token["secret"]) as machine:
        assert machine.put_file(archive, "run/1", b"data").status_code == 201
        assert machine.get("/me").json()["identity"]["kind"] == "service"
        problem(machine.post("/tokens", json={"name": "more"}), 403, "not_allowed")
        problem(machine.get(f"/services/{service['id']}"), 404, "not_found")
        place = f"/services/{service['id']}/tokens/{token['id']}/rotate"
        key = {"idempotency-key": "rotated-once"}
        rotated = root.post(place, json={"grace_seconds": 0}, headers=key)
        assert rotated.json()["replaces"] == token["id"]
        assert root.post(place, json={"grace_seconds": 0}, headers=key).json() == rotated.json()
        problem(machine.get("/me"), 401, "token_expired")
    shown = root.get(f"/services/{service['id']}").json()
    assert (shown["last_used_from"], shown["state"]) == ("127.0.0.1", "active")
    assert [one["replaces"] for one in root.get(f"/services/{service['id']}/tokens").json()["items"]] == [
        token["id"],
        None,
    ]
    (reached,) = [
        one for one in root.get(f"/services/{service['id']}/archives").json()["items"] if one["id"] == archive
    ]
    assert "fill" in reached["actions"]
    assert "manage" not in reached["actions"]
    told = root.get("/audit", params={"actor": service["id"], "type": "files.added"}).json()["items"]
    assert [(one["actor_name"], one["responsible_name"]) for one in told] == [("daq-http", "admin")]
    mine = root.get("/me").json()["identity"]["id"]
    assert root.get("/audit", params={"about": mine, "type": "files."}).json()["items"] == told
    problem(ada.get(f"/services/{service['id']}"), 404, "not_found")
    problem(ada.post("/services", json={"name": "x", "purpose": "x"}), 403, "not_allowed")


def test_an_orphan_is_refused_in_words_and_handed_over(
    running: RunningApplication, root: Caller, problem: Problem
) -> None:
    person = root.post("/identities", json={"login": "machine-keeper", "display_name": "Keeper"}).json()["id"]
    service = make(root, "orphan-to-be", responsible_id=person, addresses=["127.0.0.0/8"])
    with Caller(running, token_of(root, service)["secret"]) as machine:
        assert machine.get("/me").status_code == 200
        root.patch(f"/identities/{person}", json={"is_active": False})
        problem(machine.get("/me"), 403, "service_orphaned")
        assert root.get(f"/services/{service['id']}").json()["state"] == "orphaned"
        mine = root.get("/me").json()["identity"]["id"]
        place = f"/services/{service['id']}"
        assert root.patch(place, json={"responsible_id": mine}).json()["state"] == "active"
        assert machine.get("/me").status_code == 200
        assert root.patch(place, json={"addresses": ["192.0.2.1"]}).json()["addresses"] == ["192.0.2.1/32"]
        refused = problem(machine.get("/me"), 403, "address_not_allowed")
        assert "192.0.2.1" not in json.dumps(refused)


Run = Callable[..., str]


@pytest.fixture
def run(running: RunningApplication, root: Caller) -> Run:
    def call(*arguments: str) -> str:
        token = str(root.headers["authorization"]).removeprefix("Bearer ")
        environment = {**os.environ, "PERDURE_URL": running.url, "PERDURE_TOKEN": token}
        ran = subprocess.run([_PROGRAM, *arguments], env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return call


def test_the_command_makes_rotates_and_shows(
    run: Run, running: RunningApplication, root: Caller, ada: Caller, archive: str
) -> None:
    purpose = "Archives runs at night."
    made = run(
        "service", "create", "daq-cli", "--purpose", purpose, "--responsible", "ada", "--from", "127.0.0.1"
    ).strip()
    secret = run("service", "token", made, "night", "--days", "10").strip()
    with Caller(running, secret) as machine:
        assert machine.get("/me").status_code == 200
    granted = ada.post(f"/archives/{archive}/grants", json={"role": "reader", "identity_id": made})
    assert granted.status_code == 201
    run("service", "change", made, "--verb", "read", "--archive", archive)
    (token,) = root.get(f"/services/{made}/tokens").json()["items"]
    newer = run("service", "rotate", made, token["id"], "--grace-hours", "1").strip()
    assert newer not in ("", secret)
    shown = run("service", "show", made)
    for word in ("daq-cli", purpose, "Ada", "127.0.0.1/32", token["id"], archive):
        assert word in shown, word
    assert secret not in shown
    assert archive in run("service", "reach", made)
    run("service", "disable", made)
    assert "disabled" in run("service", "list")


def test_the_pages_show_them_to_who_may_know(
    running: RunningApplication, root: Caller, ada: Caller, nobody: Caller
) -> None:
    service = make(root, "daq <b>page</b>", verbs=["read"])
    token = token_of(root, service)
    listed = root.get(f"{running.url}/services")
    assert "daq &lt;b&gt;page&lt;/b&gt;" in listed.text
    assert "script" not in listed.text
    page = root.get(f"{running.url}/services/{service['id']}").text
    assert token["id"] in page
    assert token["secret"] not in page
    assert service["id"] not in ada.get(f"{running.url}/services").text
    assert ada.get(f"{running.url}/services/{service['id']}").status_code == 404
    assert nobody.get(f"{running.url}/services").status_code == 401
    assert root.get(f"{running.url}/services/nothing").status_code == 404


# Tokens of the grid


@pytest.fixture(scope="module")
def issuer() -> Iterator[GridIssuerDouble]:
    with running_issuer() as found:
        yield found


@pytest.fixture(scope="module")
def grid(
    postgres: Any, issuer: GridIssuerDouble, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApplication]:
    url = postgres.make_ready()
    trusted = [{"name": "grid", "issuer": issuer.url, "base_path": "/perdure"}]
    with start_application(tmp_path_factory.mktemp("grid"), database_url=url, token_issuers=trusted) as started:
        yield started
    postgres.drop(url)


@pytest.fixture(scope="module")
def owner(grid: RunningApplication, issuer: GridIssuerDouble) -> Iterator[Caller]:
    """A person who has linked the subject of the tokens."""
    with Caller(grid, grid.person("grid-owner")) as caller:
        identity = grid.application.identity
        made = identity.create_local_account(
            identity.log_in(grid.login, grid.password)[1],
            login="grid-robot",
            password="plum tractor ninety sea",
            display_name="Robot",
        )[0]
        actor = identity.log_in("grid-robot", "plum tractor ninety sea")[1]
        identity.link(actor, Arrival(CredentialKind.OIDC, f"{issuer.url} robot"))
        caller.headers["x-robot"] = str(made.id)
        yield caller


@pytest.fixture
def open_one(owner: Caller) -> str:
    archive = owner.open(title="On the grid")
    robot = {"role": "contributor", "identity_id": owner.headers["x-robot"]}
    assert owner.post(f"/archives/{archive}/grants", json=robot).status_code == 201
    for path in ("in/old", "inx/old", "out"):
        assert owner.put_file(archive, path, b"old").status_code == 201
    return archive


def bearer(grid: RunningApplication, issuer: GridIssuerDouble, *scopes: str, **changed: Any) -> Caller:
    return Caller(grid, issuer.sign(" ".join(scopes), **changed))


def status(answer: httpx.Response) -> int:
    assert answer.status_code < 500, answer.text
    return answer.status_code


def batch(caller: Caller, archive: str, *paths: str) -> dict[str, Any]:
    index = json.dumps({"items": [{"path": path, "size": 1} for path in paths]}).encode()
    body = len(index).to_bytes(4, "big") + index + b"x" * len(paths)
    headers = {"content-type": "application/vnd.archive.batch"}
    answer = caller.post(f"{caller.data}/archives/{archive}/batch", content=body, headers=headers)
    told: dict[str, Any] = answer.json()
    return told


def test_a_token_that_reads_reads_below_its_path_only(
    grid: RunningApplication, issuer: GridIssuerDouble, open_one: str
) -> None:
    with bearer(grid, issuer, f"storage.read:/perdure/{open_one}/in") as robot:
        assert robot.get_file(open_one, "in/old").content == b"old"
        for outside in ("inx/old", "out", "nothing", "in%2F..%2Fout"):
            assert status(robot.get_file(open_one, outside)) in (403, 404, 422), outside
        assert status(robot.put_file(open_one, "in/new", b"new")) == 403
        assert status(robot.delete(f"{robot.data}/archives/{open_one}/files/in/old")) == 403
        download = f"{robot.data}/archives/{open_one}/download"
        assert status(robot.get(download, params={"path": "in"})) == 200
        for wider in ({}, {"path": ["in", "out"]}, {"path": "inx"}):
            assert status(robot.get(download, params=wider)) in (403, 404)
        place = f"{robot.data}/archives/{open_one}/read-batch"
        assert b"old" in robot.post(place, json={"paths": ["in/old"]}).content
        assert status(robot.post(place, json={"paths": ["in/old", "out"]})) in (403, 404)


def test_a_narrow_token_takes_no_record_of_the_whole_along(
    grid: RunningApplication, issuer: GridIssuerDouble, owner: Caller, open_one: str
) -> None:
    owner.close_archive(open_one)
    names: dict[str, str] = {}
    for scope in (f"/perdure/{open_one}/in", "/perdure"):
        with bearer(grid, issuer, f"storage.read:{scope}") as robot:
            packed = robot.get(f"{robot.data}/archives/{open_one}/download", params={"path": "in", "format": "tar"})
            assert status(packed) == 200
            names[scope] = packed.text + packed.headers["content-disposition"]
    narrow, whole = names.values()
    for told in ("statement.json", "grid", "inx"):
        assert told not in narrow.lower(), told
        assert told in whole.lower() or told == "inx"


def test_a_token_that_creates_replaces_and_removes_nothing(
    grid: RunningApplication, issuer: GridIssuerDouble, owner: Caller, open_one: str, problem: Problem
) -> None:
    with bearer(grid, issuer, f"storage.create:/perdure/{open_one}/in") as robot:
        assert status(robot.put_file(open_one, "in/new", b"new")) == 201
        assert status(robot.put_file(open_one, "in/new", b"newer")) == 409
        assert status(robot.put_file(open_one, "inx/new", b"new")) in (403, 404)
        assert status(robot.delete(f"{robot.data}/archives/{open_one}/files/in/new")) in (403, 404)
        assert status(robot.get_file(open_one, "in/new")) in (403, 404)
        assert robot.head(f"{robot.data}/archives/{open_one}/files/in/new").headers["content-length"] == "3"
        assert status(robot.head(f"{robot.data}/archives/{open_one}/files/out")) in (403, 404)
        assert "stored" not in json.dumps(batch(robot, open_one, "in/b"))
    assert owner.get_file(open_one, "in/new").content == b"new"


def test_a_token_that_modifies_does_so_below_its_path(
    grid: RunningApplication, issuer: GridIssuerDouble, owner: Caller, open_one: str
) -> None:
    with bearer(grid, issuer, f"storage.modify:/perdure/{open_one}/in") as robot:
        assert status(robot.put_file(open_one, "in/old", b"newer")) == 201
        told = batch(robot, open_one, "in/b", "out", "inx/b", "in/c")
        assert [item["state"] for item in told["items"]] == ["stored", "refused", "refused", "stored"]
        assert "token" in told["items"][1]["reason"]
        uploads = f"{robot.data}/archives/{open_one}/uploads"

        def begin(path: str) -> httpx.Response:
            name = base64.b64encode(path.encode()).decode()
            return robot.post(uploads, headers={"upload-length": "3", "upload-metadata": f"path {name}"})

        assert status(begin("out/up")) in (403, 404)
        upload = begin("in/up")
        assert status(upload) == 201
        sent = {"upload-offset": "0", "content-type": "application/offset+octet-stream"}
        with bearer(grid, issuer, f"storage.modify:/perdure/{open_one}/inx") as other:
            assert status(other.patch(upload.headers["location"], content=b"abc", headers=sent)) in (403, 404)
            assert status(other.delete(upload.headers["location"])) in (403, 404)
        assert status(robot.patch(upload.headers["location"], content=b"abc", headers=sent)) == 204
        assert status(robot.delete(f"{robot.data}/archives/{open_one}/files/in/b")) == 204
        assert status(robot.delete(f"{robot.data}/archives/{open_one}/files/inx")) in (403, 404)
    assert owner.get_file(open_one, "in/up").content == b"abc"
    assert owner.get_file(open_one, "out").content == b"old"


def test_rights_stay_the_limit(
    grid: RunningApplication, issuer: GridIssuerDouble, owner: Caller, problem: Problem
) -> None:
    closed_to_robot = owner.open(title="Not the robot's")
    owner.put_file(closed_to_robot, "a", b"a")
    with bearer(grid, issuer, "storage.modify:/ storage.read:/") as robot:
        problem(robot.get_file(closed_to_robot, "a"), 404, "archive_not_found")
        problem(robot.put_file(closed_to_robot, "b", b"b"), 404, "archive_not_found")
    with bearer(grid, issuer, "storage.modify:/", sub="stranger") as stranger:
        problem(stranger.put_file(closed_to_robot, "b", b"b"), 403, "grid_subject_unknown")


def test_no_other_door_takes_such_a_token(
    grid: RunningApplication, issuer: GridIssuerDouble, open_one: str, problem: Problem
) -> None:
    data = {
        "read_file",
        "probe_file",
        "put_file",
        "remove_file",
        "put_batch",
        "read_batch",
        "download",
        "probe_download",
    }
    data |= {"create_upload", "probe_upload", "abort_upload", "continue_upload"}
    refused = set()
    with bearer(grid, issuer, "storage.modify:/ storage.read:/") as robot, Caller(grid, None) as stranger:
        assert status(robot.get_file(open_one, "out")) == 200
        for url in (grid.url, grid.data_url):
            for template, verbs in httpx.get(f"{url}/api/v1/openapi.json", timeout=60).json()["paths"].items():
                for verb, told in verbs.items():
                    if not template.startswith("/api") or told["operationId"] in data or verb == "options":
                        continue
                    address = url + template.replace("{archive_id}", open_one).replace("{path}", "out")
                    address = address.replace("{", "").replace("}", "")
                    answer, other = (
                        one.request(verb, address, json={} if verb != "get" else None) for one in (robot, stranger)
                    )
                    assert status(answer) >= 400 or answer.content == other.content, (verb, template, answer.text[:200])
                    refused |= {told["operationId"]} if answer.status_code == 401 else set()
        for page in ("/", "/services", "/login"):
            assert status(robot.get(grid.url + page)) in (200, 401)
        problem(robot.get("/me"), 401, "bad_credentials")
    assert {"get_me", "get_archive", "list_archives", "grant_on_archive", "read_metadata", "create_token"} <= refused


def test_a_wrong_token_is_refused_in_words(
    grid: RunningApplication, issuer: GridIssuerDouble, open_one: str, problem: Problem
) -> None:
    for changed in ({"exp": 1}, {"aud": "https://elsewhere.example.org"}, {"wlcg.ver": "9"}):
        with bearer(grid, issuer, "storage.read:/", **changed) as robot:
            problem(robot.get_file(open_one, "out"), 401, "grid_token_refused")
