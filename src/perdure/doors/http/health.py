"""For whoever keeps the service running: is the process alive, and can it do its work?"""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from perdure.doors.http.services import Given

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    status: str


class Readiness(BaseModel):
    """`components` names what is needed and what is wrong with it, null where nothing is."""

    status: str
    components: dict[str, str | None]


@router.get("/healthz", operation_id="get_health", summary="Whether the process is alive")
async def get_health() -> Alive:
    return Alive(status="alive")


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Whether database, schema and stores let the process work",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Not ready"}},
)
def get_readiness(services: Given) -> JSONResponse:
    faults = dict(services.find_faults())
    ready = not any(faults.values())
    body = {"status": "ready" if ready else "not ready", "components": faults}
    return JSONResponse(body, 200 if ready else 503, headers={"cache-control": "no-store"})
