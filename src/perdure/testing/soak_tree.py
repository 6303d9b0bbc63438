"""A real `perdure serve` on a folder of its own, to be killed in every way and started again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from perdure.storage.crash_points import SPRUNG, VARIABLE
from perdure.testing.processes import find_children, find_database_processes, free_ports, kill, words_of

_PROGRAM = (sys.executable, "-c", "from perdure_client.cli.main import main; main()")
_READY_WITHIN = 90.0  # seconds, on a machine that does other things besides


class TreeError(Exception):
    """The processes are not as they should be: that is a finding, too."""


class Tree:
    """The process tree. Its stores lie below `data/stores`, its traps in `traps`.

    What it says goes to `serve.out`, its log to `serve.log`.

    `prefix` are words before the command, such as `faketime` with its arguments; `settings` are those of the product.
    """

    def __init__(self, folder: Path, *, prefix: tuple[str, ...] = (), **settings: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "serve.log"
        self.out = folder / "serve.out"
        self.sources = folder / "sources"  # what server-side ingest may read
        self.prefix = prefix
        self._traps = folder / "traps"
        for made in (self.sources, self._traps):
            made.mkdir(parents=True, exist_ok=True)
        self.port, self.data_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = {
            "data_dir": str(self.data),
            "port": str(self.port),
            "data_port": str(self.data_port),
            "log_format": "json",
            "disk_reserve_bytes": "0",
            "web_processes": "1",  # a second one is no other program, and takes seconds to start
            "worker_processes": "1",
            "ingest_roots": str(self.sources),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a command for this installation is given."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PERDURE_")}
        return clean | {"HOME": str(self.folder)} | {f"PERDURE_{k.upper()}": v for k, v in self._settings.items()}

    @property
    def database_url(self) -> str:
        return f"postgresql://perdure@/perdure?host={self.data}/postgres/run"

    def start(self) -> None:
        """Start, and wait until everything answers; raises TreeError."""
        with self.log.open("a") as log, self.out.open("w") as out:
            self._process = subprocess.Popen(
                [*self.prefix, *_PROGRAM, "serve"],
                env=self.environment | {VARIABLE: str(self._traps)},
                cwd=self.folder,
                stdout=out,
                stderr=log,
                start_new_session=True,
            )
        self.wait_until_ready()

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def wait_until_ready(self) -> None:
        """Wait until both doors can do their work and a worker lives; raises TreeError."""

        def is_ready() -> bool:
            if self._process is None or self._process.poll() is not None:
                raise TreeError(f"`perdure serve` ended by itself: {self.last_words()}")
            return "worker" in self.children() and all(map(_is_ready, (self.port, self.data_port)))

        wait_until(is_ready, "the service is ready again", seconds=_READY_WITHIN)

    def stop(self) -> None:
        """Stop as a service manager does; raises TreeError unless everything ends, and well."""
        assert self._process is not None
        processes = [*self.children().values(), *self.database_processes()]
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(90)
        left = [pid for pid in processes if words_of(pid)]
        if code or left:
            raise TreeError(f"it ended with {code} and left the processes {left}: {self.last_words()}")
        self._process = None

    def kill(self) -> None:
        """End every process at once, the database server's too, as a power cut would."""
        if self._process is None:
            return
        self._process.kill()  # first, so that it starts nobody while we look for the others
        self._process.wait()
        victims = [*self.children().values(), *self.database_processes()]
        for pid in victims:
            kill(pid)
        wait_until(lambda: not any(map(words_of, victims)) and not self.children(), "the killed processes are gone")
        self._process = None

    def kill_child(self, role: str) -> int:
        """End one child at once, and wait for its end; its process number. The supervisor starts another."""
        wait_until(lambda: role in self.children(), f"there is a {role}")
        pid = self.children().get(role, 0)
        if pid:
            self._end(pid)
        return pid

    def kill_database(self, *, all_of_it: bool, chance: random.Random) -> int:
        """End the postmaster, or one of the processes below it; its process number."""
        processes = self.database_processes()
        if not processes:
            return 0
        pid = processes[0] if all_of_it else chance.choice(processes[1:] or processes)
        self._end(pid)
        return pid

    def children(self) -> Mapping[str, int]:
        """The process number of each child by its role."""
        return find_children(self.data)

    def database_processes(self) -> list[int]:
        """The postmaster and all below it, it first; none when it is not there."""
        return find_database_processes(self.data)

    def set_trap(self, point: str) -> None:
        """Let the process that comes to the crash point first end there."""
        (self._traps / point).touch()

    def traps(self) -> set[str]:
        """The traps that nobody came to yet."""
        return {path.name for path in self._traps.iterdir() if path.suffix != SPRUNG}

    def clear_traps(self) -> None:
        for path in self._traps.iterdir():
            path.unlink()

    def roots(self) -> list[Path]:
        """The storage roots."""
        return sorted(path / "root" for path in (self.data / "stores").iterdir())

    def password(self) -> str:
        """The administrator's, as it was made up at the first start."""
        kept = self.data / "first-login"
        wait_until(kept.exists, "the first login is told")
        return kept.read_text().split()[1]

    def run(
        self, *words: str, stdin: str = "", environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the operator's command on this installation; it may end in a trap."""
        return subprocess.run(
            [*_PROGRAM, *words],
            env=self.environment | {VARIABLE: str(self._traps)} | dict(environment or {}),
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def last_words(self, lines: int = 20) -> str:
        """The end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def _end(self, pid: int) -> None:
        kill(pid)
        wait_until(lambda: not words_of(pid), f"the process {pid} has ended")


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float = 60.0) -> None:
    """Raises TreeError when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TreeError(f"In {seconds:.0f} seconds it did not come true that {what}.")
        time.sleep(0.05)


def _is_ready(port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
