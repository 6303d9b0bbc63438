"""A link as a credential at every operation of the OpenAPI documents: what it reaches is in the table below, and
nothing else. What lies outside answers as what is not there."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from perdure.testing.app import RunningApplication

from .callers import Caller
from .test_links import make

INSIDE = {"a/in/one.txt": b"one", "a/in/deep/two.bin": b"two"}
OUTSIDE = {"a/in-between": b"MARK", "a/other.txt": b"MARK2", "MARK/three.txt": b"MARK3", "a/inside.txt": b"MARK4"}
NOWHERE = "a/in/nothing.txt"
OUTSIDE_NOWHERE = "b/nothing.txt"
FORGED = [
    base64.urlsafe_b64encode(json.dumps(["entries", position]).encode()).decode().rstrip("=")
    for position in ("00", b"MARK".hex(), b"a".hex(), b"a/in".hex(), b"a/in-".hex(), b"zz".hex(), b"../../MARK".hex())
]

# By kind: the operations that answer a link of it otherwise than everybody, for what lies inside it.
BY_PATH = {"get_entry", "read_file", "probe_file", "read_file_metadata"}
SELECTED = {"list_entries", "download", "probe_download", "read_batch"}
RECORD = {"get_archive", "read_metadata"}
PROOF = {
    "get_statement",
    "get_receipt",
    "list_copies",
    "get_proof",
    "get_ro_crate",
    "get_datacite",
    "get_manifest",
    "get_checksums",
}
ALLOWED: dict[str, set[str]] = {
    "folder": BY_PATH | SELECTED,
    "file": (BY_PATH | SELECTED) - {"list_entries"},
    "read": BY_PATH | SELECTED | RECORD | PROOF | {"list_metadata_history"},
    "review": BY_PATH | SELECTED | {"read_metadata"},
    "metadata": RECORD,
}
LINKS: dict[str, dict[str, Any]] = {
    "folder": {"path": "a/in"},
    "file": {"path": "a/in/one.txt"},
    "read": {},
    "review": {"kind": "review"},
    "metadata": {"kind": "metadata"},
}
WHOLE = {"read", "review"}


class Attempt(NamedTuple):
    operation: str
    method: str
    address: str
    body: dict[str, Any] | None
    path: str | None  # what content it asks for, `""` for all, None: it names no path


@pytest.fixture(scope="module")
def shared(ada: Caller) -> str:
    made = ada.open(title="MARK title", access="private")
    for path, content in {**INSIDE, **OUTSIDE}.items():
        assert ada.put_file(made, path, content).status_code == 201
    patch = {"content-type": "application/merge-patch+json"}
    for place in ("metadata", "file-metadata/a/other.txt"):
        assert ada.patch(f"/archives/{made}/{place}", json={"said": "MARK"}, headers=patch).status_code == 200
    ada.close_archive(made)
    return made


@pytest.fixture(scope="module")
def operations(running: RunningApplication) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Method, address with its plane, path template and description of each operation."""
    found = []
    for url in (running.url, running.data_url):
        document = httpx.get(f"{url}/api/v1/openapi.json", timeout=60).json()
        for template, verbs in document["paths"].items():
            if template.startswith("/api"):
                found += [(verb, url, template, told) for verb, told in verbs.items()]
    return found


def iter_attempts(
    archive: str, ids: dict[str, str], template: str, verb: str, told: dict[str, Any]
) -> Iterator[Attempt]:
    """What is tried at an operation: every path, and every way that it knows to ask for one."""
    name = told["operationId"]
    paths = [*INSIDE, *OUTSIDE, "a", "a/in", "MARK", NOWHERE, OUTSIDE_NOWHERE]
    filled = template.replace("{archive_id}", archive)
    for parameter, value in ids.items():
        filled = filled.replace(f"{{{parameter}}}", value)
    queries = {one["name"] for one in told.get("parameters", ()) if one["in"] == "query"}
    if "{path}" in template:
        for path in paths:
            yield Attempt(name, verb, filled.replace("{path}", quote(path)), _body(name, path), path)
        return
    yield Attempt(name, verb, filled, _body(name, "a/other.txt"), "" if name in SELECTED else None)
    for query in queries & {"folder", "path"}:
        for path in paths:
            yield Attempt(name, verb, f"{filled}?{query}={quote(path)}", None, path)
    if "path" in queries:
        yield Attempt(name, verb, f"{filled}?path=a/in/one.txt&path=a/other.txt", None, "a")
    if name == "list_entries":
        for cursor in FORGED:
            for recursive in ("true", "false"):
                yield Attempt(name, verb, f"{filled}?folder=a/in&recursive={recursive}&cursor={cursor}", None, "a/in")
        yield Attempt(name, verb, f"{filled}?recursive=true&layers=own", None, "")
    if name == "read_batch":
        for path in paths:
            yield Attempt(name, verb, filled, {"paths": [path]}, path)
        yield Attempt(name, verb, filled, {"paths": ["a/in/one.txt", "a/in-between"]}, "a")
    for query, value in (("q", "MARK"), ("q", "other"), ("archive", archive), ("cursor", FORGED[0])):
        if query in queries:
            yield Attempt(name, verb, f"{filled}?{query}={value}", None, None)


def _body(name: str, path: str) -> dict[str, Any] | None:
    known: dict[str, dict[str, Any]] = {
        "plan_upload": {"items": [{"path": path, "size": 5}]},
        "remove_entries": {"paths": [path]},
        "hide_entries": {"paths": [path]},
        "read_batch": {"paths": list(INSIDE) + list(OUTSIDE)},
        "set_access": {"access": "public"},
        "make_link": {"kind": "read", "name": "further"},
        "describe_archive": {"title": "another"},
        "patch_metadata": {"a": 1},
        "patch_file_metadata": {"a": 1},
        "append_to_archive": {},
        "close_archive": {},
    }
    return known.get(name, {})


def is_inside(kind: str, path: str | None) -> bool:
    """The oracle: whether what is asked for lies in what the link is for."""
    if kind == "metadata" or path is None or kind in WHOLE:
        return kind in WHOLE or path is None
    below = LINKS[kind]["path"]
    return path == below or path.startswith(f"{below}/")


@pytest.mark.parametrize("kind", list(LINKS))
def test_a_link_reaches_what_it_is_for_and_nothing_else(
    kind: str,
    running: RunningApplication,
    ada: Caller,
    shared: str,
    operations: list[tuple[str, str, str, dict[str, Any]]],
) -> None:
    link = make(ada, shared, **LINKS[kind])
    me = ada.get("/me").json()["identity"]
    ids = {
        "link_id": link["id"],
        "identity_id": str(me["id"]),
        "grant_id": ada.get(f"/archives/{shared}/grants").json()["items"][0]["id"],
        "account_id": ada.get(f"/archives/{shared}").json()["account_id"],
        "organisation_id": ada.get(f"/archives/{shared}").json()["organisation_id"],
        "job_id": ada.get("/jobs", params={"archive": shared}).json()["items"][0]["id"],
        "name": "personal",
        "version": "1",
        **dict.fromkeys(
            ("upload_id", "session_id", "token_id", "group_id", "application_id", "credential_id", "request_id"),
            str(uuid4()),
        ),
    }
    reached: set[str] = set()
    refused: dict[str, set[tuple[int, str]]] = {}
    with httpx.Client(timeout=60) as stranger, httpx.Client(timeout=60) as bearer:
        bearer.headers["authorization"] = f"Bearer {link['secret']}"
        for verb, url, template, told in operations:
            for attempt in iter_attempts(shared, ids, template, verb, told):
                address = url + attempt.address
                body = attempt.body if verb in ("post", "put", "patch") else None
                answer = bearer.request(verb, address, json=body)
                context = (kind, verb, attempt.address, attempt.body, answer.status_code, answer.text[:300])
                assert answer.status_code < 500, context
                if answer.status_code < 300 and verb != "options":
                    said = stranger.request(verb, address, json=body)
                    if said.status_code == answer.status_code and said.content == answer.content:
                        continue  # everybody is told that
                    if attempt.operation in ("get_instance", "list_archives"):
                        assert b"MARK" not in answer.content, context
                        continue
                    assert attempt.operation in ALLOWED[kind], context
                    assert is_inside(kind, attempt.path), context
                    reached.add(attempt.operation)
                if kind in ("folder", "file"):
                    shown = answer.content.replace(attempt.address.encode(), b"")
                    for mark in (b"MARK", b"other.txt", b"in-between", b"inside.txt"):
                        assert mark not in shown, context
                if kind == "review":
                    assert b"Ada" not in answer.content, context
                    assert str(me["id"]).encode() not in answer.content or str(me["id"]) in attempt.address, context
                if attempt.path and not is_inside(kind, attempt.path) and answer.status_code >= 400:
                    about = answer.json() if answer.content else {}
                    refused.setdefault(f"{verb} {attempt.operation}", set()).add(
                        (answer.status_code, str(about.get("detail")))
                    )
    assert reached | {"get_receipt"} == ALLOWED[kind] | {"get_receipt"}  # it comes some time after the close
    # What is there and what is not look alike from outside
    assert {name: answers for name, answers in refused.items() if len(answers) > 1} == {}


def test_the_archive_is_as_it_was(ada: Caller, shared: str) -> None:
    """No link changed anything in the tests before."""
    assert ada.get(f"/archives/{shared}").json()["title"] == "MARK title"
    assert ada.get(f"/archives/{shared}").json()["access"] == "private"


def test_an_ended_link_reaches_nothing(ada: Caller, shared: str, running: RunningApplication) -> None:
    made = make(ada, shared)
    with Caller(running, made["secret"]) as bearer:
        assert bearer.get(f"/archives/{shared}").status_code == 200
        ada.delete(f"/archives/{shared}/links/{made['id']}")
        assert bearer.get(f"/archives/{shared}").status_code == 401
