"""A real `perdure serve` and the real command, each a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import urlopen

import ocfl
import pytest
from prometheus_client.parser import text_string_to_metric_families

from perdure.testing.soak_tree import Tree
from perdure_client import Client
from perdure_client.settings import Session

PROGRAM = Path(sys.executable).parent / "perdure"
DESCRIPTION = ("--creator", "Ada Example; 0000-0002-1825-0097", "--publisher", "Example Source", "--licence", "CC0-1.0")
# How a command exits
USAGE, NOT_ALLOWED, NOT_THERE, CONFLICT, TRY_AGAIN, DAMAGED, PARTLY = 2, 3, 4, 5, 6, 7, 8
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


class Server(Tree):
    """A process tree on a data folder of its own, with separate ports for API and bytes, whose words are read, too."""

    def start(self) -> None:
        super().start()
        said = wait_for(self.out.read_text)
        assert said.startswith(f"Perdure is ready at {self.url} "), said

    def stop(self) -> None:
        """Stop as a service manager does; fails unless everything ends, and well."""
        super().stop()
        assert self.out.read_text().endswith("Stopped.\n")

    def client(self, *, login: str = "admin", password: str | None = None) -> Client:
        """A client with a fresh session."""
        with Client(Session(self.url, None)) as visitor:
            secret = visitor.log_in(login, password or self.password())["secret"]
        return Client(Session(self.url, secret))

    def admin(self, *words: str, stdin: str = "", code: int = 0) -> str:
        """What a command of the operator says, given the server's settings."""
        ran = self.run(*words, stdin=stdin)
        assert ran.returncode == code, f"{words} ended with {ran.returncode}: {ran.stdout}{ran.stderr}"
        return ran.stdout + ran.stderr


@dataclass(frozen=True)
class Numbers:
    """What is told to Prometheus at a port of this machine."""

    port: int

    def scrape(self) -> dict[str, Any]:  # Any: the families of the parser, which has no types for its samples
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            return {family.name: family for family in text_string_to_metric_families(answer.read().decode())}

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples with these labels, whatever other labels they have."""
        samples = [sample for family in self.scrape().values() for sample in family.samples]
        return float(sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items()))


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


def fill(folder: Path) -> Path:
    """A folder with small files, one for the resumable way, an empty file and folder, a link, and an odd name."""
    (folder / "scans").mkdir(parents=True)
    (folder / "nothing here").mkdir()
    for number in range(5):
        (folder / "scans" / f"{number}.csv").write_text(f"{number},{number * number}\n")
    (folder / "scans" / "frames.bin").write_bytes(os.urandom(5 << 20))
    (folder / "empty").touch()
    (folder / "line\nbreak \\ 'é'").write_text("odd\n")
    (folder / "latest").symlink_to("scans/4.csv")
    return folder


@contextmanager
def running(**settings: str) -> Iterator[Server]:
    """A server on a new folder; in the end it is stopped, and every storage root that it leaves must be valid."""
    with tempfile.TemporaryDirectory(prefix="e2e-") as folder:  # short: a socket lies in it
        server = Server(Path(folder), prefix=(), **settings)
        try:
            server.start()
            yield server
        except BaseException:
            print(f"The log of {server.url}:\n{server.last_words(60)}", file=sys.stderr)
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
