"""Who knocks at the doors in these tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx

from perdure.testing.app import RunningApplication

CITABLE = {
    "title": "Scan of a leaf",
    "creators": [{"name": "Ada Example", "orcid": "0000-0002-1825-0097", "affiliation": "Example Institute"}],
    "publisher": "Example Institute",
    "licence": "CC-BY-4.0",
    "description": "A leaf in 1,200 projections.",
    "subjects": ["leaf", "tomography"],
}


class Caller(httpx.Client):
    """A client of the API, and of the data plane below `data`."""

    def __init__(self, running: RunningApplication, token: str | None) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        super().__init__(base_url=f"{running.url}/api/v1", headers=headers, timeout=90)
        self.data = f"{running.data_url}/api/v1"

    def open(self, **fields: Any) -> str:
        """Open an archive and return its id."""
        answer = self.post("/archives", json={**CITABLE, **fields})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def put_file(self, archive: str, path: str, content: bytes, **headers: str) -> httpx.Response:
        return self.put(f"{self.data}/archives/{archive}/files/{path}", content=content, headers=headers)

    def get_file(self, archive: str, path: str, **headers: str) -> httpx.Response:
        return self.get(f"{self.data}/archives/{archive}/files/{path}", headers=headers)

    def finish(self, accepted: httpx.Response) -> dict[str, Any]:
        """Wait until the job of a 202 is over."""
        assert accepted.status_code == 202, accepted.text
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.get(f"/jobs/{accepted.json()['id']}").json()
            if job["state"] in ("succeeded", "failed", "cancelled"):
                assert job["state"] == "succeeded", job
                return job
            time.sleep(0.05)
        raise AssertionError("the job does not end")

    def close_archive(self, archive: str) -> None:
        self.finish(self.post(f"/archives/{archive}/close", json={}))


Problem = Callable[[httpx.Response, int, str], dict[str, Any]]
