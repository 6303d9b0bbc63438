"""The framework alone, for comparing with: one route that answers with a record of the usual size."""

from __future__ import annotations

from fastapi import FastAPI

_MEMBERS = {f"member_{number}": "x" * 24 for number in range(28)}
_RECORD: dict[str, object] = {"id": "0" * 36, "title": "Benchmark", "members": _MEMBERS}

app = FastAPI(openapi_url=None)


@app.get("/")
def read() -> dict[str, object]:
    """The record."""
    return _RECORD
