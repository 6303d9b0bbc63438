"""What the supervisor does when its database dies, and who goes first when processors are short."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from perdure.app.supervisor import DatabaseCare, choose_ports
from perdure.app.web import listen_with_others
from perdure.db.embedded import EmbeddedServer
from perdure.db.errors import EmbeddedServerError
from perdure.settings import load_settings


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Mortal(EmbeddedServer):
    """A server that dies whenever it is told to, and starts only where it may."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        super().__init__(folder)
        self.clock = clock
        self.is_up, self.may_start = True, True
        self.starts: list[float] = []

    def is_running(self) -> bool:
        return self.is_up

    def start(self) -> str:
        self.starts.append(self.clock.now)
        if not self.may_start:
            raise EmbeddedServerError("no room")
        self.is_up = True
        return ""


def watch(care: DatabaseCare, clock: Clock, seconds: float, between: Callable[[], None] = lambda: None) -> None:
    """Look five times a second, as the supervisor does."""
    for _ in range(int(seconds * 5)):
        between()
        with capture_logs():
            care.look()
        clock.now += 0.2


def test_a_database_that_died_is_started_at_once(tmp_path: Path) -> None:
    clock = Clock()
    server = Mortal(tmp_path, clock)
    care = DatabaseCare(server, clock=clock)
    watch(care, clock, 60)
    server.is_up = False
    died = clock.now
    watch(care, clock, 60)
    assert server.starts == [died]
    server.is_up = False
    watch(care, clock, 1)
    assert len(server.starts) == 2


def test_a_database_that_cannot_start_is_tried_ever_more_slowly_and_at_once_when_it_worked_again(
    tmp_path: Path,
) -> None:
    clock = Clock()
    server = Mortal(tmp_path, clock)
    server.is_up = server.may_start = False
    care = DatabaseCare(server, clock=clock)
    watch(care, clock, 300)
    pauses = [later - sooner for sooner, later in zip(server.starts, server.starts[1:], strict=False)]
    assert len(server.starts) < 20
    assert pauses[0] < 1
    assert pauses == sorted(pauses)
    assert 25 < pauses[-1] < 35
    server.may_start = True
    watch(care, clock, 60)
    assert server.is_up
    before = len(server.starts)
    server.is_up = False
    watch(care, clock, 1)
    assert len(server.starts) == before + 1


def test_a_database_that_dies_again_and_again_is_started_ever_more_slowly(tmp_path: Path) -> None:
    clock = Clock()
    server = Mortal(tmp_path, clock)
    care = DatabaseCare(server, clock=clock)

    def die() -> None:
        server.is_up = False

    watch(care, clock, 300, die)
    assert 5 < len(server.starts) < 25


GIVING_WAY = """
    import os
    from pathlib import Path
    from perdure.app.priority import give_way
    give_way()
    group = Path("/proc/self/autogroup")
    told = group.read_text().split() if group.exists() else []
    print(os.nice(0), os.sched_getscheduler(0) == os.SCHED_BATCH, *told[-1:])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="linux: there are classes and groups of processes")
@pytest.mark.parametrize("leads_session", [True, False])
def test_a_process_gives_way_with_its_session_only_where_that_is_its_own(leads_session: bool) -> None:
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(GIVING_WAY)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        start_new_session=leads_session,
    ).stdout.split()
    assert said[:2] == [str(min(19, os.nice(0) + 10)), "True"]
    group = Path("/proc/self/autogroup")
    if group.exists():
        own = group.read_text().split()[-1:]  # none, where our session began before the system had groups
        assert said[2:] == (["10"] if leads_session else own)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="linux: the system spreads connections")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_several_processes_listen_on_one_port_and_a_stranger_does_not(host: str) -> None:
    with listen_with_others(host, 0) as one, listen_with_others(host, one.getsockname()[1]) as other:
        assert one.getsockname() == other.getsockname()
        with socket.socket(one.family) as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(one.getsockname())


def test_an_address_that_was_given_stays_when_a_free_port_is_taken(tmp_path: Path) -> None:
    given = {"HOME": str(tmp_path)}
    made = choose_ports(load_settings(given, port=0, data_port=0))
    assert made.public_url == made.data_url == f"http://127.0.0.1:{made.port}"
    named = choose_ports(load_settings(given, port=0, data_port=0, public_url="https://archive.example.org"))
    assert named.port
    assert named.public_url == named.data_url == "https://archive.example.org"
