"""The OpenAPI document: whole, and true when strange requests are made from it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.core.result import Ok

from perdure.testing.app import RunningApplication

from .callers import Caller

CHECKS = [
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
# These would end the credential of the run, or the archive it is about.
ENDING = {
    "log_out",
    "set_password",
    "discard_archive",
    "withdraw_archive",
    "revoke_token",
    "list_events",
    "publish_terms",
}
MARK = "Zq7-private-mark"
# Bodies of bytes, which no schema describes: tests/doors/test_bytes.py has them.
BYTES = {"put_batch", "continue_upload", "put_file"}


@pytest.fixture(scope="module")
def document(running: RunningApplication) -> dict[str, Any]:
    """The documents of both planes as one."""
    whole: dict[str, Any] = httpx.get(f"{running.url}/api/v1/openapi.json", timeout=60).json()
    data = httpx.get(f"{running.data_url}/api/v1/openapi.json", timeout=60).json()
    for path, operations in data["paths"].items():
        whole["paths"].setdefault(path, {}).update(operations)
    whole["components"]["schemas"] |= data["components"]["schemas"]
    return whole


def iter_operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, verb, found) for path, verbs in document["paths"].items() for verb, found in verbs.items()]


def test_every_operation_is_named_and_says_what_can_go_wrong(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    names = [operation["operationId"] for _, _, operation in iter_operations(document)]
    assert len(names) == len(set(names))
    for path, _, operation in iter_operations(document):
        assert operation["summary"], path
        if not path.startswith("/api"):
            continue
        for status in ("400", "401", "404", "422", "500", "503"):
            answer = operation["responses"][status]
            assert answer["content"].keys() == {"application/problem+json"}, (path, status)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    led: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                place: Any = document
                for step in node["$ref"].removeprefix("#/").split("/"):
                    assert step in place, node["$ref"]
                    place = place[step]
                led.add(node["$ref"])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(document)
    assert "#/components/schemas/Problem" in led


def test_bodies_refuse_what_they_do_not_know(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        if name.endswith(("Form", "Patch")):
            assert schema["additionalProperties"] is False, name


def test_nothing_in_any_body_is_taken_unknown(document: dict[str, Any]) -> None:
    """Forms in forms, too: what is said in no document must not set anything."""
    schemas = document["components"]["schemas"]
    waiting = [
        content["schema"]
        for _, _, operation in iter_operations(document)
        for kind, content in operation.get("requestBody", {}).get("content", {}).items()
        if kind == "application/json" and "schema" in content
    ]
    seen: set[str] = set()
    loose: set[str] = set()
    assert len(waiting) > 40
    while waiting:
        schema = waiting.pop()
        name = schema.get("$ref", "").rpartition("/")[2]
        if name in seen:
            continue
        if name:
            seen.add(name)
            waiting.append(schemas[name])
            continue
        if "properties" in schema and schema.get("additionalProperties") is not False:
            loose.add(schema.get("title", str(schema)[:80]))
        waiting += schema.get("properties", {}).values()
        waiting += [one for word in ("anyOf", "oneOf", "allOf") for one in schema.get(word, ())]
        waiting += [schema["items"]] if isinstance(schema.get("items"), dict) else []
    assert not loose


def test_every_path_parameter_is_described(document: dict[str, Any]) -> None:
    for path, _, operation in iter_operations(document):
        wanted = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        given_names = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
        assert wanted == given_names, path


@pytest.mark.slow
def test_strange_requests_get_documented_answers_and_tell_nobody_of_others(
    running: RunningApplication, root: Caller, ada: Caller, document: dict[str, Any]
) -> None:
    """No answer is a 500, of another type, or of another form than the document says; what is private stays so.

    Whatever a stranger and somebody without login ask of a person's private archive, no answer has the mark that stands
    in its record, metadata, names, links and roles.
    """
    archive = root.open(title="For strange requests")
    root.put_file(archive, "f.txt", b"content")
    schema = schemathesis.openapi.from_dict(document)
    callers = [
        (archive, {"Authorization": f"Bearer {running.token()}"}),
        (private := _make_marked(ada), {"Authorization": f"Bearer {running.person('stranger-to-strange')}"}),
        (private, {}),
    ]
    tried = 0
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        name = operation.definition.raw["operationId"]
        if name in ENDING | BYTES or not operation.path.startswith("/api"):
            continue
        is_data = "data" in operation.definition.raw.get("tags", ())
        _try(operation.as_strategy(), running.data_url if is_data else running.url, callers)
        tried += 1
    assert tried > 60


def _make_marked(owner: Caller) -> str:
    private = owner.open(title=MARK, description=MARK, tags=[MARK], access="private")
    assert owner.put_file(private, f"{MARK}/f.txt", MARK.encode()).status_code == 201
    patch = {"content-type": "application/merge-patch+json"}
    assert owner.patch(f"/archives/{private}/metadata", json={MARK: MARK}, headers=patch).status_code == 200
    assert owner.post("/groups", json={"name": MARK}).status_code == 201
    link = owner.post(f"/archives/{private}/links", json={"kind": "read", "name": MARK})
    assert link.status_code == 201
    token = owner.post("/tokens", json={"name": MARK, "verbs": ["read"]})
    assert token.status_code == 201, token.text
    return private


def _try(cases: st.SearchStrategy[Any], url: str, callers: list[tuple[str, dict[str, str]]]) -> None:
    @given(cases)
    @settings(
        max_examples=4,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def attempt(case: Any) -> None:
        for number, (archive, login) in enumerate(callers):
            if "archive_id" in case.path_parameters:
                case.path_parameters["archive_id"] = archive
            answer = case.call_and_validate(base_url=url, headers=login, checks=CHECKS, timeout=20)
            if number:
                assert MARK.encode() not in answer.content, (case.operation.label, answer.content[:500])

    attempt()
