"""Those who wait for an event leave room for the others."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from .callers import Caller


def test_many_who_wait_for_an_event_hold_nobody_up(ada: Caller, nobody: Caller) -> None:
    with ThreadPoolExecutor(60) as crowd:
        waiting = [crowd.submit(ada.get, "/events", params={"after": 10**12, "wait": 2}) for _ in range(60)]
        time.sleep(0.5)
        begun = time.monotonic()
        assert nobody.get("/keys").status_code == 200
        assert time.monotonic() - begun < 1.5
    assert {one.result().json()["next_after"] for one in waiting} == {10**12}
