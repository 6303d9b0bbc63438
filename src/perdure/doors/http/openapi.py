"""The OpenAPI document without gaps: every problem an operation can answer stands in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from threading import Lock
from typing import Any, Final

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from perdure.doors.http.problems import PROBLEM_TYPE

# Any request can meet these: unreadable, without a valid credential, about a thing that is not there or not shown,
# with a wrong field, one of too many, on a bad day of ours, at a moment when the database or a store does not answer.
_ALWAYS: Final = (400, 401, 404, 413, 422, 429, 500, 503)
_PROBLEM_REF: Final = {"$ref": "#/components/schemas/Problem"}
_METHODS: Final = frozenset({"get", "put", "post", "delete", "options", "head", "patch"})
ANYONE: Final[dict[str, Any]] = {"security": [{}]}  # beside a token or a password, nothing is enough
READER: Final[dict[str, Any]] = {"security": [{"password": []}, {}]}  # beside a token, a password or nothing is enough


class Problem(BaseModel):
    """A failure as RFC 9457 describes it. Fields beside these depend on `code`."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "/api/v1/errors#archive_closed",
                    "title": "The archive is closed: its content never changes",
                    "status": 409,
                    "detail": "The archive was closed on 2026-11-20.",
                    "code": "archive_closed",
                    "kind": "conflict",
                    "next_step": "Append to it: open a new archive with this one as its parent.",
                    "request_id": "01938c2f7b3a7c0e9f1d2b4a6c8e0f12",
                }
            ]
        },
    )

    type: str = Field(description="A relative reference to the entry of the catalogue of errors.")
    title: str = Field(description="What this code means, the same words each time.")
    status: int = Field(description="The HTTP status, repeated for those who only keep the body.")
    detail: str = Field(description="What happened this time.")
    code: str = Field(description="Stable; programs decide by it.")
    kind: str = Field(description="Only 'try again' is worth repeating without a change.")
    next_step: str = Field(description="What to do, in words.")
    request_id: str = Field(description="What the operator finds this request by.")


Answers = dict[int | str, dict[str, Any]]  # Any: OpenAPI's own free form, here and below


def problems(*statuses: int, beside: Answers | None = None) -> Answers:
    """The `responses` of an operation: these, what every operation can answer, and what is no problem `beside`."""
    answers: Answers = {status: _problem_answer(status) for status in sorted({*_ALWAYS, *statuses})}
    return (beside or {}) | answers


def _problem_answer(status: int) -> dict[str, Any]:  # Any: as above
    return {"description": _phrase(status), "content": {PROBLEM_TYPE: {"schema": _PROBLEM_REF}}}


def _phrase(status: int) -> str:
    return "Checksum Mismatch" if status == 460 else HTTPStatus(status).phrase


def install_openapi(app: FastAPI, address: str) -> None:
    """Serve the document at the address, with the schema of problems and what each operation asks for.

    It is built when it is first asked for: that takes a second, in which others are answered.
    """
    turn = Lock()

    def build() -> dict[str, Any]:  # Any: as above
        if app.openapi_schema is None:
            app.openapi_schema = _complete(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    openapi_version="3.1.0",
                    summary=app.summary,
                    description=app.description,
                    routes=app.routes,
                    tags=app.openapi_tags,
                    license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
                ),
                getattr(app.state, "needs", {}),
            )
        return app.openapi_schema

    def serve(_: Request) -> Response:  # not async: in a thread
        with turn:
            document = app.openapi()
        return Response(orjson.dumps(document), media_type="application/json")

    app.openapi = build  # type: ignore[method-assign]  # the way that FastAPI documents for extending its document
    app.add_route(address, serve, include_in_schema=False)


def _complete(document: dict[str, Any], needs: Mapping[str, str]) -> dict[str, Any]:  # Any: as above
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for operation in _iter_operations(document):
        need = needs.get(operation["operationId"])
        if need is not None:
            operation["description"] = "\n\n".join(filter(None, [operation.get("description"), f"Asks for {need}."]))
        for answer in operation["responses"].values():
            answer.setdefault("headers", {})["X-Request-Id"] = {
                "description": "What the operator finds this request by.",
                "schema": {"type": "string"},
            }
    return document


def _iter_operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:  # Any: as above
    for path in document["paths"].values():
        yield from (operation for method, operation in path.items() if method in _METHODS)
