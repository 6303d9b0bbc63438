"""Many small entries in one request or one answer: an index, then the contents one behind the other."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import ClientDisconnect

from perdure.archives.items import MAX_BATCH_BYTES, MAX_BATCH_FILES, BatchItem, ItemResult
from perdure.archives.model import EntryKind
from perdure.archives.reading import BatchPart
from perdure.doors.api.fields import ArchiveId, Form
from perdure.doors.api.forms import PathsForm, PlanItemForm
from perdure.doors.api.views import answer_json, path_fields
from perdure.doors.http.auth import DataCaller, KnownDataCaller
from perdure.doors.http.errors import BodyTooLargeError, MalformedRequestError, UnsupportedContentError
from perdure.doors.http.openapi import ANYONE, problems
from perdure.doors.http.receiving import IncompleteBodyError, Receiver, receive_all, require_length
from perdure.doors.http.services import Given, Services
from perdure.doors.http.streams import Body, iter_in_threads
from perdure.kernel.actor import Actor

router = APIRouter(tags=["data"])

BATCH_TYPE = "application/vnd.archive.batch"
_BATCH_BODY = {BATCH_TYPE: {"schema": {"type": "string", "format": "binary"}}}
_LENGTH_BYTES = 4
_KINDS = {kind.value: kind for kind in EntryKind}
_LARGEST_INDEX = 16 * 1024 * 1024  # a thousand items with paths of 4,096 escaped bytes


class BatchIndex(Form):
    """What stands before the contents; the contents follow in the order of the files here."""

    items: Annotated[list[PlanItemForm], Field(max_length=MAX_BATCH_FILES)]


class ItemResultView(BaseModel):
    """What became of one item; `reason` says why it was refused."""

    path: str
    path_b64: str | None = None
    state: Literal["stored", "refused"]
    reason: str | None = None
    digests: dict[str, str] = {}


class BatchView(BaseModel):
    """Every item is accounted for: stored and refused make up all that was sent. `bytes` are those stored."""

    items: list[ItemResultView]
    stored: int
    refused: int
    bytes: int


@router.post(
    "/archives/{archive_id}/batch",
    operation_id="put_batch",
    summary="Store many small files, folders and links at once",
    description="The body: four bytes, big-endian, with the length of the index; the index as JSON "
    '(`{"items": [{"path" or "path_b64", "kind", "size", "mtime_ns", "mode", "target", "digests"}]}`); '
    "then the contents of the files, concatenated in the order of the index. Sent again, it changes nothing.",
    response_model=BatchView,
    responses=problems(403, 409, 410, 411, 415, 507),
    openapi_extra={"requestBody": {"required": True, "content": _BATCH_BODY}},
)
async def put_batch(archive_id: ArchiveId, request: Request, caller: KnownDataCaller, services: Given) -> Response:
    _require_type(request)
    length = require_length(request)
    if length > _LENGTH_BYTES + _LARGEST_INDEX + MAX_BATCH_BYTES:
        raise BodyTooLargeError(f"A batch holds {MAX_BATCH_BYTES} bytes of content.", limit=MAX_BATCH_BYTES)
    body = Body(request, length)
    try:
        index = await _take_index(body)
        begin = partial(_begin, services, caller, archive_id, index, body.left)
        items, receiver = await services.threads.run(begin)
        results = await receive_all(body, receiver, services.threads, is_roomy=True)
    except ClientDisconnect:
        raise IncompleteBodyError("The body ends before the index does.") from None
    finally:
        body.close()
    return await services.threads.run(partial(_answer, items, results))


@router.post(
    "/archives/{archive_id}/read-batch",
    operation_id="read_batch",
    summary="The contents of many small files at once",
    description="The answer: four bytes, big-endian, with the length of the index; the index as JSON "
    '(`{"items": [{"path" and "path_b64", "state", "size", "digests", "reason"}]}`), in the order of the request; '
    "then the contents of the items whose `state` is `sent`, concatenated in that order. An item that is `refused` "
    "says why: read it by itself. Compare each content with its digest: the contents are sent as they are stored.",
    response_class=Response,
    responses=problems(
        403, 409, 410, beside={200: {"description": "The index and the contents", "content": _BATCH_BODY}}
    ),
    openapi_extra=ANYONE,
)
def read_batch(archive_id: ArchiveId, form: PathsForm, caller: DataCaller, services: Given) -> Response:
    batch = services.archives.reading.open_batch(caller, archive_id, form.path_bytes())
    index = orjson.dumps({"items": [_part_fields(part) for part in batch.parts]})
    head = len(index).to_bytes(_LENGTH_BYTES, "big") + index
    contents: Iterator[bytes] = chain((head,), batch.read())
    headers = {"content-length": str(len(head) + batch.size), "cache-control": "private, no-store"}
    return StreamingResponse(iter_in_threads(contents, services.threads), 200, headers, BATCH_TYPE)


def _part_fields(part: BatchPart) -> dict[str, Any]:  # Any: JSON
    if part.entry is None:
        return {**path_fields(part.path), "state": "refused", "reason": part.reason}
    return {
        **path_fields(part.path),
        "state": "sent",
        "size": part.entry.size,
        "digests": dict(part.entry.digests),
    }


async def _take_index(body: Body) -> bytes:
    """The index as it stands before the contents."""
    if body.left < _LENGTH_BYTES:
        raise MalformedRequestError("The body ends before the length of the index.")
    size = int.from_bytes(await body.take(_LENGTH_BYTES), "big")
    if size > min(_LARGEST_INDEX, body.left):
        raise MalformedRequestError("The index is longer than the body, or than an index may be.")
    return await body.take(size)


# A thousand items take as long to read as many requests: not in the event loop


def _begin(
    services: Services, caller: Actor, archive_id: UUID, index: bytes, contents: int
) -> tuple[list[BatchItem], Receiver[list[ItemResult]]]:
    items = _read_index(index, contents)
    return items, services.archives.filling.begin_batch(caller, archive_id, items)


def _read_index(index: bytes, contents: int) -> list[BatchItem]:
    """The items of the index; raises when their sizes are not those of the contents that follow it."""
    try:
        form = BatchIndex.model_validate_json(index)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise MalformedRequestError(
            f"The index is not what it should be: {where}: {first['msg']}.", field=where
        ) from None
    items = [_batch_item(item) for item in form.items]
    size = sum(item.size for item in items)
    if size != contents:
        raise MalformedRequestError(f"The sizes in the index add up to {size} bytes; {contents} follow it.")
    if size > MAX_BATCH_BYTES:
        raise BodyTooLargeError(f"A batch holds {MAX_BATCH_BYTES} bytes of content.", limit=MAX_BATCH_BYTES)
    return items


def _batch_item(item: PlanItemForm) -> BatchItem:
    return BatchItem(
        path=item.path_bytes(),
        kind=_KINDS[item.kind],
        size=item.size if item.kind == "file" else 0,
        mtime_ns=item.mtime_ns,
        mode=item.mode,
        target=item.target_bytes(),
        digests=item.digests,
    )


def _answer(items: list[BatchItem], results: list[ItemResult]) -> Response:
    sizes = [item.size for item, result in zip(items, results, strict=True) if result.stored]
    rendered = [
        {
            **path_fields(result.path),
            "state": "stored" if result.stored else "refused",
            "reason": result.reason,
            "digests": dict(result.digests),
        }
        for result in results
    ]
    return answer_json(
        {"items": rendered, "stored": len(sizes), "refused": len(results) - len(sizes), "bytes": sum(sizes)}
    )


def _require_type(request: Request) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != BATCH_TYPE:
        raise UnsupportedContentError(f"This address takes {BATCH_TYPE}.")
