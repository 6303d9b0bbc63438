"""A real `perdure serve` and the real command, each a process of its own."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ocfl
import pytest

from perdure_client import Client
from perdure_client.settings import Session

PROGRAM = Path(sys.executable).parent / "perdure"
CHILD = "perdure.app.process"
DESCRIPTION = ("--creator", "Ada Example; 0000-0002-1825-0097", "--publisher", "Example Source", "--licence", "CC0-1.0")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Ran:
    """What a command that has ended said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # Any: the JSON of every command
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """One JSON value a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The error that a command with --json writes to standard error."""
        found: dict[str, Any] = json.loads(self.err.splitlines()[-1])["error"]
        return found


class Server:
    """A process tree on a data folder of its own, with separate ports for API and bytes."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "serve.log"
        self.port, self.data_port = _free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        chosen = {
            "data_dir": str(self.data),
            "port": str(self.port),
            "data_port": str(self.data_port),
            "log_format": "json",
            "disk_reserve_bytes": "0",
            **settings,
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PERDURE_")}
        self.environment = clean | {"HOME": str(folder)} | {f"PERDURE_{key.upper()}": chosen[key] for key in chosen}
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [str(PROGRAM), "serve"],
                env=self.environment,
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said.startswith(f"Perdure is ready at {self.url} "), f"{said}{_tail(self.log)}"

    def stop(self) -> None:
        """Stop as a service manager does; fails unless everything ends, and well."""
        assert self._process is not None
        processes = [*self.children().values(), self.postmaster()]
        self._process.send_signal(signal.SIGTERM)
        said, _ = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, _tail(self.log)
        assert said.endswith("Stopped.\n")
        assert not [pid for pid in processes if _words(pid)]
        self._process = None

    def kill(self) -> None:
        """End every process of the tree at once, the database server's too, as a power cut would."""
        if self._process is None:
            return
        self._process.kill()  # first, so that it starts nobody while we look for the others
        self._process.wait()
        backends = _descendants(self.postmaster())
        for pid in (*self.children().values(), *backends):
            _kill(pid)
        self._process.communicate()
        wait_for(lambda: (not self.children() and not [pid for pid in backends if _words(pid)]) or None)
        self._process = None

    def kill_child(self, role: str) -> None:
        """End one child at once, as soon as there is one, and wait for its end; the supervisor starts another."""
        pid = wait_for(lambda: self.children().get(role))
        _kill(pid)
        wait_for(lambda: not _words(pid))

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def children(self) -> dict[str, int]:
        """The process number of each child by its role."""
        found = {}
        for proc in Path("/proc").iterdir():
            words = _words(int(proc.name)) if proc.name.isdecimal() else []
            if CHILD in words and f"PERDURE_DATA_DIR={self.data}" in _environment(int(proc.name)):
                found[words[-1]] = int(proc.name)
        return found

    def postmaster(self) -> int:
        """The process number of the database server, 0 when there is none."""
        named = self.data / "postgres" / "cluster" / "postmaster.pid"
        return int(named.read_text().splitlines()[0]) if named.exists() else 0

    @property
    def database_url(self) -> str:
        """The embedded database."""
        return f"postgresql://perdure@/perdure?host={self.data}/postgres/run"

    def password(self) -> str:
        return (self.data / "first-login").read_text().split()[1]

    def client(self, *, login: str = "admin", password: str | None = None) -> Client:
        """A client with a fresh session."""
        with Client(Session(self.url, None)) as visitor:
            secret = visitor.log_in(login, password or self.password())["secret"]
        return Client(Session(self.url, secret))

    def roots(self) -> list[Path]:
        return sorted(path / "root" for path in (self.data / "stores").iterdir())

    def admin(self, *words: str, stdin: str = "", code: int = 0) -> str:
        """What a command of the operator says, given the server's settings."""
        ran = subprocess.run(
            [str(PROGRAM), *words],
            env=self.environment,
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == code, f"{words} ended with {ran.returncode}: {ran.stdout}{ran.stderr}"
        return ran.stdout + ran.stderr


class Command:
    """The command of one person: a folder to work in and a file of credentials of his own."""

    def __init__(self, folder: Path, url: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PERDURE_")}
        kept = {"PERDURE_CREDENTIALS": str(folder / "credentials.json"), "PERDURE_URL": url, "HOME": str(folder)}
        self.environment = clean | kept | {"TZ": "UTC", "PYTHONWARNINGS": "error"}

    def __call__(
        self, *words: str, stdin: str = "", code: int = 0, environment: Mapping[str, str] | None = None
    ) -> Ran:
        """Run the command; fails unless it ends with this exit code, and with a sentence where that is not 0."""
        ran = subprocess.run(
            [str(PROGRAM), *words],
            env={**self.environment, **(environment or {})},
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=90,
            check=False,
        )
        told = f"{words} ended with {ran.returncode}, not {code}:\n{ran.stdout}\n{ran.stderr}"
        assert ran.returncode == code, told
        assert "Something went wrong" not in ran.stderr, told
        assert "Traceback" not in ran.stderr, told
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def log_in(self, password: str, login: str = "admin") -> None:
        self("login", "--login", login, "--password-stdin", stdin=f"{password}\n")

    def create(self, title: str) -> str:
        """The short form of a new archive that may be closed."""
        return self("archive", "create", title, *DESCRIPTION).out.strip()


@contextmanager
def running(**settings: str) -> Iterator[Server]:
    """A server on a new folder; in the end it is stopped, and every storage root that it leaves must be valid."""
    with tempfile.TemporaryDirectory(prefix="e2e-") as folder:  # short: a socket lies in it
        server = Server(Path(folder), **settings)
        try:
            server.start()
            yield server
        except BaseException:
            print(f"The log of {server.url}:\n{_tail(server.log)}", file=sys.stderr)
            server.kill()
            raise
        if server.is_running:
            server.stop()
        for root in server.roots():
            require_valid(root)


def require_valid(root: Path) -> None:
    """Fail unless ocfl-py finds the storage root and all its objects valid."""
    judge = ocfl.StorageRoot(root=str(root))
    is_sound = judge.validate()
    if not is_sound or judge.good_objects != judge.num_objects:  # its answer tells of the root's structure only
        pytest.fail(f"{root}: {judge.errors} {judge.log.status_str() if judge.log else ''}")


def wait_for(condition: Callable[[], Value | None], seconds: float = 60.0) -> Value:
    """The first answer that is something; fails when none comes in time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)
    return found


def _tail(log: Path) -> str:
    return "\n".join(log.read_text().splitlines()[-60:]) if log.exists() else "(none)"


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, and that the system gives to no outgoing connection until we do."""
    found: set[int] = set()
    while len(found) < count:
        port = random.SystemRandom().randrange(20_000, 32_000)  # below those of outgoing connections
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.add(port)
    return sorted(found)


def _words(pid: int) -> list[str]:
    try:
        return [word for word in Path(f"/proc/{pid}/cmdline").read_text().split("\0") if word]
    except OSError:
        return []


def _environment(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_text().split("\0")
    except OSError:
        return []


def _descendants(pid: int) -> list[int]:
    """The process and all below it, it first; none for 0."""
    if not pid:
        return []
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *(one for child in children for one in _descendants(int(child)))]


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
