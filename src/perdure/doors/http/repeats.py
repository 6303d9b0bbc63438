"""`Idempotency-Key` on requests that create: sent again with the same key, the first answer comes again.

An answer may hold a secret that is shown once. It is therefore kept sealed under the credential of the request, which
is stored nowhere.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import Depends, Header, Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from perdure.archives.repeating import Repeats
from perdure.doors.http.auth import KnownCaller, KnownDataCaller, find_secret, identity_of
from perdure.doors.http.errors import AnswerSealedError
from perdure.doors.http.services import Given, Services
from perdure.identity.grid import LONGEST_GRID_TOKEN
from perdure.kernel.actor import Actor

_NONCE_BYTES = 12
_TOLD_IN_HEADERS = ("upload-length", "upload-metadata")  # requests without a body say there what they want

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="Sent again with the same request, the same answer comes and nothing is made twice.",
    ),
]


@dataclass(frozen=True, slots=True)
class _Claim:
    """The right to carry out a request that nobody else carries out."""

    repeats: Repeats
    identity_id: UUID
    key: str
    secret: str

    def keep(self, response: Response) -> None:
        self.repeats.keep(self.identity_id, self.key, {"sealed": _seal(self._lock(), _render(response))})

    def give_up(self) -> None:
        self.repeats.give_up(self.identity_id, self.key)

    def recall(self, request: Mapping[str, object]) -> Response | None:
        kept = self.repeats.begin(self.identity_id, self.key, request)
        return None if kept is None else _parse(_unseal(self._lock(), str(kept["sealed"])))

    def _lock(self) -> bytes:
        return hmac.digest(self.secret.encode(), b"answer " + self.key.encode(), "sha256")


class _AnsweredBeforeError(Exception):
    """Leaves the framework's handler with the answer that is already there; never leaves the route."""

    def __init__(self, response: Response) -> None:
        super().__init__("answered before")
        self.response = response


async def _claim(
    request: Request, caller: KnownCaller, services: Given, idempotency_key: IdempotencyKey = None
) -> None:
    await _begin(request, caller, services, idempotency_key)


async def _begin(request: Request, caller: Actor, services: Services, idempotency_key: str | None) -> None:
    secret = find_secret(request, longest=LONGEST_GRID_TOKEN)
    if idempotency_key is None or secret is None:
        return
    claim = _Claim(services.archives.repeats, identity_of(caller), idempotency_key, secret)
    response = await run_in_threadpool(claim.recall, await _describe(request))
    if response is not None:
        raise _AnsweredBeforeError(response)
    request.state.claim = claim


async def _claim_data(
    request: Request, caller: KnownDataCaller, services: Given, idempotency_key: IdempotencyKey = None
) -> None:
    await _begin(request, caller, services, idempotency_key)


ONCE = [Depends(_claim)]
DATA_ONCE = [Depends(_claim_data)]  # where tokens of the grid are taken


class CreatingRoute(APIRoute):
    """The route class of routers with creating operations; each of those names the dependency `ONCE`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:  # Any: as FastAPI types it
        answer = super().get_route_handler()

        async def answer_once(request: Request) -> Response:
            try:
                response = await answer(request)
            except _AnsweredBeforeError as before:
                return before.response
            except BaseException:
                await _end(request, None)
                raise
            await _end(request, response)
            return response

        return answer_once


async def _end(request: Request, response: Response | None) -> None:
    claim: _Claim | None = getattr(request.state, "claim", None)
    if claim is None:
        return
    if response is None or response.status_code >= 400:
        await run_in_threadpool(claim.give_up)
    else:
        await run_in_threadpool(claim.keep, response)


async def _describe(request: Request) -> dict[str, object]:
    """What makes two requests the same. A body is read only where the operation has one: others may be long."""
    has_body = getattr(request.scope.get("route"), "body_field", None) is not None
    body = await request.body() if has_body else b""
    return {
        "method": request.method,
        "address": f"{request.url.path}?{request.url.query}",
        "headers": {name: request.headers.get(name, "") for name in _TOLD_IN_HEADERS},
        "body": hashlib.sha256(body).hexdigest(),
    }


def _render(response: Response) -> bytes:
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    return orjson.dumps([response.status_code, headers, base64.b64encode(bytes(response.body)).decode()])


def _parse(kept: bytes) -> Response:
    status, headers, body = orjson.loads(kept)
    return Response(base64.b64decode(body), status, headers)


def _seal(key: bytes, plain: bytes) -> str:
    nonce = os.urandom(_NONCE_BYTES)
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, plain, None)).decode()


def _unseal(key: bytes, sealed: str) -> bytes:
    kept = base64.b64decode(sealed)
    try:
        return AESGCM(key).decrypt(kept[:_NONCE_BYTES], kept[_NONCE_BYTES:], None)
    except InvalidTag:
        raise AnswerSealedError("The answer was given to another session or token of yours.") from None
