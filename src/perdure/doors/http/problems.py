"""Every failure of an HTTP door as a problem document (RFC 9457), whoever raised it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from perdure.doors.http.errors import (
    BodyTooLargeError,
    MalformedRequestError,
    MethodNotOfferedError,
    NoSuchAddressError,
)
from perdure.kernel.errors import BadInputError, PerdureError, TryAgainError

PROBLEM_TYPE = "application/problem+json"
_SHOWN_FAULTS = 20
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_log = structlog.get_logger(__name__)


def problem_document(error: PerdureError, request_id: str) -> dict[str, object]:
    """The error as RFC 9457 wants it; the fields of `extra` stand beside the fixed ones and never replace them."""
    return {**error.extra} | {
        "type": f"/api/v1/errors#{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "kind": error.kind.value,
        "next_step": error.next_step,
        "request_id": request_id,
    }


def problem_response(error: PerdureError, request_id: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer for an error; a page of the world outside never keeps it."""
    body = orjson.dumps(problem_document(error, request_id), default=str, option=orjson.OPT_NON_STR_KEYS)
    return Response(body, error.status, {**_headers_of(error), **(headers or {})}, PROBLEM_TYPE)


def _headers_of(error: PerdureError) -> dict[str, str]:
    headers = {"cache-control": "no-store"}
    if error.status == 401:
        headers["www-authenticate"] = 'Bearer, Basic realm="archives", charset="UTF-8"'
    if isinstance(error, TryAgainError):
        headers["retry-after"] = str(max(1, round(float(str(error.extra.get("retry_after", 5))))))
    if error.status == 416:
        headers["content-range"] = f"bytes */{error.extra.get('size', 0)}"
    if error.code == "tus_version":
        headers["tus-version"] = "1.0.0"
    return headers


def install_problems(app: FastAPI) -> None:
    """Answer every exception, of ours and of the framework, with a problem document."""
    app.add_exception_handler(PerdureError, answer_error)  # type: ignore[arg-type]  # Starlette types any error
    app.add_exception_handler(HTTPException, _on_framework_error)  # type: ignore[arg-type]  # Starlette types any error
    app.add_exception_handler(RequestValidationError, _on_validation_error)  # type: ignore[arg-type]  # Starlette types any error


def request_id_of(request: Request) -> str:
    return str(request.scope.get("archive.request_id", ""))


def answer_error(request: Request, error: PerdureError) -> Response:
    """The answer for an error that a use case raised; what is our own fault is logged."""
    if error.status >= 500 and not isinstance(error, TryAgainError):
        _log.error("request_failed", code=error.code, request_id=request_id_of(request), exc_info=error)
    return problem_response(error, request_id_of(request))


def _on_framework_error(request: Request, error: HTTPException) -> Response:
    translated = _translate(error, request)
    headers = {"allow": ", ".join(find_methods(request))} if translated.status == 405 else {}
    return problem_response(translated, request_id_of(request), headers)


def _translate(error: HTTPException, request: Request) -> PerdureError:
    if error.status_code == 404:
        return NoSuchAddressError("There is nothing at this address.")
    if error.status_code == 405:
        return MethodNotOfferedError(f"{request.method} is not offered here.")
    if error.status_code == 413:
        return BodyTooLargeError("The body is larger than this address takes.")
    if error.status_code < 500:
        return MalformedRequestError("The body cannot be read as what its content type says.")
    return PerdureError("The request could not be carried out.")


def find_methods(request: Request) -> list[str]:
    """Every method that some route takes at this address, sorted."""
    return [method for method in _METHODS if _is_offered(request, method)]


def _is_offered(request: Request, method: str) -> bool:
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


def _on_validation_error(request: Request, error: RequestValidationError) -> Response:
    faults = [_fault(fault) for fault in error.errors()]
    malformed = any(fault["type"] == "json_invalid" for fault in error.errors())
    kind = MalformedRequestError if malformed else BadInputError
    first = faults[0] if faults else {"field": "", "problem": "it is not what is expected"}
    detail = f"{first['field'] or 'body'}: {first['problem']}."
    return problem_response(
        kind(detail, faults=faults[:_SHOWN_FAULTS], fault_count=len(faults)), request_id_of(request)
    )


def _fault(fault: Mapping[str, Any]) -> dict[str, str]:  # Any: pydantic describes a fault so
    """Where and why, without the value: it may be a secret."""
    place, *inside = fault.get("loc", ("body",))
    if fault.get("type") == "json_invalid":
        return {"in": "body", "field": "", "problem": f"it is no JSON from position {inside[0] if inside else 0} on"}
    return {"in": str(place), "field": ".".join(str(step) for step in inside), "problem": str(fault.get("msg", ""))}
