"""Two web processes answer on one port; one of them dies, and nobody who asks again is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from urllib.request import Request, urlopen

from perdure.testing.processes import free_ports

from .running import Numbers, running, wait_for

_ASKED = 40  # each over a connection of its own: that one process gets all of them has a chance of 2 in 2 ** 40
_BOTH = ("web", "web-2")


def test_two_web_processes_share_a_port_and_one_may_die() -> None:
    (port,) = free_ports(1)
    with running(web_processes="2", worker_processes="2", metrics_port=str(port)) as server, server.client() as client:
        numbers = Numbers(port)
        headers = {"Authorization": f"Bearer {client.session.token}"}
        request = Request(f"{server.url}/api/v1/me", headers=headers)  # noqa: S310  # our own address
        wait_for(lambda: all(count(numbers, "perdure_process_up", name) == 1 for name in (*_BOTH, "worker-2")))
        wait_for(lambda: ask(request) and all(answered(numbers, name) for name in _BOTH))
        before = sum(answered(numbers, name) for name in _BOTH)
        for _ in range(_ASKED):
            ask(request)
        wait_for(lambda: sum(answered(numbers, name) for name in _BOTH) >= before + _ASKED)

        with asking(request) as answers:
            killed = server.kill_child("web-2")
            so_far = len(answers)
            wait_for(lambda: len(answers) > so_far + 10)
            wait_for(lambda: server.children().get("web-2", killed) != killed)
            wait_for(lambda: answered(numbers, "web-2") > 0)
        assert set(answers) == {200}
        assert count(numbers, "perdure_process_starts_total", "web-2") == 2
        assert count(numbers, "perdure_process_starts_total", "web") == 1


def count(numbers: Numbers, name: str, process: str) -> float:
    return numbers.value(name, process=process)


def answered(numbers: Numbers, process: str) -> float:
    return numbers.value("perdure_http_requests_total", process=process, operation="get_me", status="2xx")


def ask(request: Request) -> int:
    """The status of the answer, over a new connection; asked once more where one broke, a moment later."""
    try:
        return _ask(request)
    except (OSError, HTTPException):
        time.sleep(0.2)  # a dying process may break what still reaches its end of the port
        return _ask(request)


def _ask(request: Request) -> int:
    with urlopen(request, timeout=10) as answer:  # noqa: S310
        answer.read()
        return int(answer.status)


@contextmanager
def asking(request: Request) -> Iterator[list[int]]:
    """Ask again and again while the block runs; the list grows by each answer, by a 0 where there was none."""
    answers: list[int] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.01):
            try:
                answers.append(ask(request))
            except (OSError, HTTPException):
                answers.append(0)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield answers
    finally:
        stop.set()
        thread.join()
