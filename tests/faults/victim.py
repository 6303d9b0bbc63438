"""A process that forks a child for each act, and the child ends at a crash point as by a power cut.

Forking from here costs milliseconds and is safe: nothing here has threads or connections. Run as a module with the
number of an open socket.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

from perdure.storage import crash_points

from . import acts
from .acts import Died, Outcome
from .doing import Installation, do, start

PATIENCE = 60  # seconds for one act


class VictimError(Exception):
    """The child ended neither by its act nor at a crash point; its traceback is the text."""


class Countdown:
    """Is equal to the name of the crash point that is met after so many others, or to a name."""

    __hash__ = None  # type: ignore[assignment]  # it is equal to different things at different times

    def __init__(self, wanted: int | str) -> None:
        self.wanted = wanted
        self.seen = 0
        self.met = ""

    def __eq__(self, name: object) -> bool:
        self.seen += 1
        self.met = str(name)
        return self.met == self.wanted if isinstance(self.wanted, str) else self.seen > self.wanted


class Victims:
    """Has acts done by children of a process of its own."""

    def __init__(self) -> None:
        ours, theirs = Pipe()
        package = __name__.rpartition(".")[0]
        top = Path(__file__).resolve().parents[package.count(".") + 1]
        paths = os.pathsep.join([str(top), *filter(None, sys.path)])
        with theirs:
            self._process = subprocess.Popen(  # our own file
                [sys.executable, "-m", f"{package}.victim", str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": paths},
                pass_fds=[theirs.fileno()],
            )
        self._line = ours

    def do(self, place: Installation, act: acts.Act, crash: int | str) -> Outcome:
        """Do the act, and die at the named crash point, or the one after so many; else it is acknowledged."""
        self._line.send((place, act, crash))
        answer: Outcome | str = self._line.recv()
        if isinstance(answer, str):
            raise VictimError(answer)
        return answer

    def close(self) -> None:
        self._line.close()
        self._process.wait(PATIENCE)


def serve(line: Connection) -> None:
    """Take acts until the other side closes the line."""
    while True:
        try:
            place, act, crash = line.recv()
        except EOFError:
            return
        line.send(_fork(place, act, crash))


def _fork(place: Installation, act: acts.Act, crash: int | str) -> Outcome | str:
    theirs, ours = Pipe(duplex=False)
    child = os.fork()
    if not child:
        theirs.close()
        _live(place, act, crash, ours)
    ours.close()
    with theirs:
        try:
            answer: Outcome | str = theirs.recv()
        except EOFError:
            answer = "it ended without a word"
    _, status = os.waitpid(child, 0)
    return answer if os.waitstatus_to_exitcode(status) in (0, crash_points.EXIT_STATUS) else f"{answer} ({status})"


def _live(place: Installation, act: acts.Act, crash: int | str, line: Connection) -> None:
    signal.alarm(PATIENCE)
    try:
        instance = start(place)
        _set_trap(crash, line)
        line.send(do(instance, act))
    except BaseException:
        line.send(traceback.format_exc())
    os._exit(0)


def _set_trap(crash: int | str, line: Connection) -> None:
    """From here on a crash point ends the process."""
    countdown = Countdown(crash)

    def end(status: int) -> None:
        line.send(Died(countdown.met))
        os._exit(status)

    environment = SimpleNamespace(get=lambda name, default=None: countdown)
    crash_points.os = SimpleNamespace(environ=environment, _exit=end)  # type: ignore[assignment, attr-defined]  # all that it asks for


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
