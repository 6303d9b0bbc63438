"""Those who wait for an event leave room for the others."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from .callers import Caller


def test_many_who_wait_for_an_event_hold_nobody_up(ada: Caller, nobody: Caller, archive: str) -> None:
    of_archive: dict[str, str | int] = {"archive": archive, "wait": 20}
    opened = ada.get("/events", params={**of_archive, "after": 0}).json()["next_after"]
    with ThreadPoolExecutor(60) as crowd:
        waiting = [crowd.submit(ada.get, "/events", params={**of_archive, "after": opened}) for _ in range(60)]
        time.sleep(0.5)  # until they have come
        assert nobody.get("/keys").status_code == 200
        assert not any(one.done() for one in waiting), "who came later was answered after them"
        assert ada.patch(f"/archives/{archive}", json={"title": "Another"}).status_code == 200
    assert all(one.result().json()["next_after"] > opened for one in waiting)
