"""What proves an archive: statement, receipt, copies, manifests, proofs of inclusion, and its records for others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from perdure.archives.reading import CopyView
from perdure.doors.api.fields import ArchiveId
from perdure.doors.api.views import answer_json, page_json
from perdure.doors.http.auth import Caller
from perdure.doors.http.openapi import ANYONE, Answers, problems
from perdure.doors.http.paths import TailPath
from perdure.doors.http.sending import attachment, send_stream
from perdure.doors.http.services import Given, Services

router = APIRouter(tags=["evidence"])
stream_router = APIRouter(tags=["evidence"])

Layers = Annotated[
    Literal["union", "own"], Query(description="`union`: with what is inherited; `own`: this layer only.")
]
_OBJECT: dict[str, Any] = {"content": {"application/json": {"schema": {"type": "object"}}}}  # Any: OpenAPI's free form
_READ: Answers = problems(403, 409, 410, beside={200: {"description": "The document", **_OBJECT}})
_LIST = {
    "type": "object",
    "required": ["items", "next_cursor"],
    "properties": {
        "items": {"type": "array", "items": {"type": "object"}},
        "next_cursor": {"type": ["string", "null"]},
    },
}


@router.get(
    "/archives/{archive_id}/statement",
    operation_id="get_statement",
    summary="The signed closing statement",
    response_class=Response,
    responses=_READ,
    openapi_extra=ANYONE,
)
def get_statement(archive_id: ArchiveId, caller: Caller, services: Given) -> Response:
    return answer_json(services.archives.reading.statement(caller, archive_id))


@router.get(
    "/archives/{archive_id}/receipt",
    operation_id="get_receipt",
    summary="The signed receipt that the source may be deleted",
    response_class=Response,
    responses=_READ,
    openapi_extra=ANYONE,
)
def get_receipt(archive_id: ArchiveId, caller: Caller, services: Given) -> Response:
    return answer_json(services.archives.reading.receipt(caller, archive_id))


@router.get(
    "/archives/{archive_id}/copies",
    operation_id="list_copies",
    summary="Where the copies are and when each was last read back",
    response_class=Response,
    responses=problems(
        403, 409, 410, beside={200: {"description": "The copies", "content": {"application/json": {"schema": _LIST}}}}
    ),
    openapi_extra=ANYONE,
)
def list_copies(archive_id: ArchiveId, caller: Caller, services: Given) -> Response:
    return page_json([_copy(copy) for copy in services.archives.reading.copies(caller, archive_id)])


@router.get(
    "/archives/{archive_id}/proof/{path}",
    operation_id="get_proof",
    summary="The proof that the statement covers this path",
    response_class=Response,
    responses=_READ,
    openapi_extra=ANYONE,
)
def get_proof(archive_id: ArchiveId, path: TailPath, caller: Caller, services: Given) -> Response:
    proof = services.archives.reading.inclusion_proof(caller, archive_id, path)
    return answer_json({**asdict(proof), "line": proof.line.decode()})


@router.get(
    "/archives/{archive_id}/ro-crate",
    operation_id="get_ro_crate",
    summary="The archive's RO-Crate",
    response_class=Response,
    responses=_READ,
    openapi_extra=ANYONE,
)
def get_ro_crate(archive_id: ArchiveId, caller: Caller, services: Given) -> Response:
    return Response(
        services.archives.life.read_head_document(caller, archive_id, "ro-crate-metadata.json"),
        media_type="application/json",
    )


@router.get(
    "/archives/{archive_id}/datacite",
    operation_id="get_datacite",
    summary="The archive's DataCite record",
    response_class=Response,
    responses=_READ,
    openapi_extra=ANYONE,
)
def get_datacite(archive_id: ArchiveId, caller: Caller, services: Given) -> Response:
    return Response(
        services.archives.life.read_head_document(caller, archive_id, "datacite.json"), media_type="application/json"
    )


@stream_router.get(
    "/archives/{archive_id}/manifest",
    operation_id="get_manifest",
    summary="The manifest: one JSON line for each entry, in the order of their bytes",
    response_class=Response,
    responses=problems(
        403,
        409,
        410,
        beside={200: {"description": "Lines", "content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
    ),
    openapi_extra=ANYONE,
)
def get_manifest(
    archive_id: ArchiveId, request: Request, caller: Caller, services: Given, layers: Layers = "union"
) -> Response:
    read = partial(services.archives.reading.iter_manifest, caller, archive_id, layers)
    return _stream(request, services, read, "application/x-ndjson", b"manifest.ndjson")


@stream_router.get(
    "/archives/{archive_id}/manifest-sha512.txt",
    operation_id="get_checksums",
    summary="Digests as coreutils write them",
    response_class=Response,
    responses=problems(
        403, 409, 410, beside={200: {"description": "Lines", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    ),
    openapi_extra=ANYONE,
)
def get_checksums(
    archive_id: ArchiveId, request: Request, caller: Caller, services: Given, layers: Layers = "union"
) -> Response:
    read = partial(services.archives.reading.iter_checksums, caller, archive_id, layers)
    return _stream(request, services, read, "text/plain; charset=utf-8", b"manifest-sha512.txt")


def _copy(copy: CopyView) -> dict[str, object]:
    """A copy without the folder it lies in: that is the operator's matter."""
    return {
        "part": copy.part,
        "store": copy.store,
        "medium": copy.medium,
        "state": copy.state.value,
        "written_at": copy.written_at,
        "verified_at": copy.verified_at,
        "evidence": dict(copy.evidence),
    }


def _stream(
    request: Request, services: Services, read: Callable[[], Iterator[bytes]], kind: str, name: bytes
) -> Response:
    headers = {"content-type": kind, "content-disposition": attachment(name), "cache-control": "private, no-cache"}
    return send_stream(request, services.threads, read, headers)
