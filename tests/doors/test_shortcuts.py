"""What is asked most goes a short way; it says what the long way says, also when it refuses."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import Any

import pytest
from fastapi import FastAPI

from perdure.doors.api.views import ArchiveRecord
from perdure.doors.http.shortcuts import ShortWay
from perdure.doors.http.threads import RequestThreads
from perdure.kernel.ids import parse_id, short_form
from perdure.testing.app import RunningApplication

from .callers import Caller

_OWN = {"x-request-id", "date", "ratelimit"}  # differs from request to request


@pytest.mark.parametrize("who", ["owner", "stranger", "nobody", "revoked"])
def test_the_short_way_says_what_the_long_way_says(
    running: RunningApplication, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    with Caller(running, running.person(f"owner-short-{who}")) as owner:
        archive = owner.open()
        token = owner.post("/tokens", json={"name": "one"}).json()
        assert owner.delete(f"/tokens/{token['id']}").status_code == 204
        own = owner.headers["authorization"].split()[1]
    stranger = running.person(f"stranger-short-{who}")
    secret = {"owner": own, "stranger": stranger, "nobody": None, "revoked": token["secret"]}[who]
    short_form_of = short_form(parse_id(archive))
    understood = [
        archive,
        archive.upper(),
        short_form_of,
        f"urn:uuid:{archive}",
        "01938c2f-7b3a-7c0e-9f1d-2b4a6c8e0f12",
    ]
    others = [f"{archive}0", "x", f"{archive}/", "1" * 101]
    answer, taken = ShortWay._answer, []

    async def note(*given: Any) -> None:
        taken.append(given[1].name)
        await answer(*given)

    monkeypatch.setattr(ShortWay, "_answer", note)
    with Caller(running, secret) as caller:
        said = [_tell(caller.get(f"/archives/{one}")) for one in understood + others]
        assert taken == ["get_archive"] * len(understood)
        monkeypatch.setattr(ShortWay, "__call__", lambda self, *given: self._app(*given))
        assert [_tell(caller.get(f"/archives/{one}")) for one in understood + others] == said
    assert said[0][0] == {"owner": 200, "stranger": 404, "nobody": 404, "revoked": 401}[who]


def test_a_record_has_the_members_that_its_description_has(running: RunningApplication) -> None:
    with Caller(running, running.person("described")) as caller:
        archive = caller.open()
        record, (listed, *_) = caller.get(f"/archives/{archive}").json(), caller.get("/archives").json()["items"]
    for told in (record, listed):
        assert list(told) == list(ArchiveRecord.model_fields)
        assert ArchiveRecord.model_validate(told).model_dump(mode="json") == told
    assert {**record, "identifier_is_test": None} == listed


def _tell(answer: Any) -> tuple[int, dict[str, str], object]:
    body = answer.json()
    body.pop("request_id", None)
    return answer.status_code, {name: value for name, value in answer.headers.items() if name not in _OWN}, body


def test_a_crash_on_the_short_way_is_answered_and_tells_nothing(
    running: RunningApplication, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("nobody foresaw the secret")

    with Caller(running, running.person("crashing")) as caller:
        archive = caller.open()
        monkeypatch.setattr("perdure.archives.finding.get_record", crash)
        answer = caller.get(f"/archives/{archive}")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "foresaw the secret" not in answer.text


_whose: ContextVar[str] = ContextVar("whose")


def test_threads_keep_to_the_context_of_who_asks_and_to_their_number() -> None:
    threads, meeting, names = RequestThreads(3), threading.Barrier(3), set()

    def work() -> str:
        meeting.wait(10)  # three at once, or it breaks
        names.add(threading.current_thread().name)
        return _whose.get()

    async def ask(who: str) -> str:
        _whose.set(who)
        return await threads.run(work)

    async def ask_all() -> list[str]:
        return await asyncio.gather(*(ask(str(number)) for number in range(9)))

    assert asyncio.run(ask_all()) == [str(number) for number in range(9)]
    assert len(names) == 3
    threads.close()


def test_threads_hand_back_errors_and_outlive_who_went_away() -> None:
    threads, may_end = RequestThreads(1), threading.Event()

    def fail() -> None:
        raise ValueError("as asked")

    async def ask() -> int:
        with pytest.raises(ValueError, match="as asked"):
            await threads.run(fail)
        gone = asyncio.ensure_future(threads.run(lambda: may_end.wait(10)))
        await asyncio.sleep(0.01)
        gone.cancel()
        may_end.set()
        return await threads.run(lambda: 7)

    assert asyncio.run(ask()) == 7
    threads.close()


def test_the_framework_has_the_rings_that_ours_stand_for() -> None:
    """Ours are built by hand; one that is new there may be needed here."""
    rings, ring = [], FastAPI.build_middleware_stack(FastAPI())
    while hasattr(ring, "app"):
        rings.append(type(ring).__name__)
        ring = ring.app
    assert rings == [
        "ServerErrorMiddleware",
        "ExceptionTelemetryMiddleware",
        "AppBodyLimitMiddleware",
        "ExceptionMiddleware",
        "AsyncExitStackMiddleware",
        "APIRouter",
    ], "the framework has other rings now: see perdure.doors.http.app"
