"""A whole server of its own process tree on a fresh data folder, and what an archive goes through there, timed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, LiteralString

import httpx
import psycopg
from harness import Cost, own_cpu, run_program
from processes import Tree
from sources import Source, discard

from perdure.db.embedded import EmbeddedServer
from perdure_client import Client, connect
from perdure_client.records import Job
from perdure_client.settings import Session

PROGRAM = Path(sys.executable).with_name("perdure")
ONE_COPY = "one-copy"
_START_TIMEOUT = 120.0  # seconds
_STOP_TIMEOUT = 90.0
_SETTLE_TIMEOUT = 600.0
_WHO = "Benchmark"
_ONE_COPY_PROFILE = {
    "name": ONE_COPY,
    "label": "One copy without limits, for measuring",
    "copies": 1,
    "lifetime_default_days": 3653,
    "lifetime_max_days": 3653,
}


class Server:
    """`perdure serve` with the settings of a new installation; `roots` may be ingested from."""

    def __init__(self, folder: Path, roots: Path, **settings: object) -> None:
        self.data = Path(tempfile.mkdtemp(dir=folder, prefix="data-"))
        self.log = self.data.with_suffix(".log")
        self.port, self.data_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        chosen = {
            "data_dir": self.data,
            "port": self.port,
            "data_port": self.data_port,
            "ingest_roots": roots,
            **settings,
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PERDURE_")}
        self.environment = clean | {f"PERDURE_{name.upper()}": str(value) for name, value in chosen.items()}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start everything and wait until it answers; raises RuntimeError with the end of its log."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, "serve"], env=self.environment, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_TIMEOUT
        while b"is ready at" not in self.log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {self.last_words()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop as a service manager does; what does not end is killed, and the database of a dead server stopped."""
        if self._process is None:
            return
        left = self.tree.pids()
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            for pid in left:
                _send(pid, signal.SIGKILL)
            self._process.wait()
        self._process = None
        named = self.data / "postgres" / "cluster" / "postmaster.pid"
        if named.exists():
            _send(int(named.read_text(encoding="ascii").split()[0]), signal.SIGQUIT)

    @property
    def tree(self) -> Tree:
        assert self._process is not None
        return Tree(self._process.pid)

    @property
    def database_url(self) -> str:
        return EmbeddedServer(self.data / "postgres").url

    @property
    def stores(self) -> Path:
        return self.data / "stores"

    def token(self) -> str:
        """A session of the administrator."""
        password = (self.data / "first-login").read_text(encoding="utf-8").split()[-1]
        with Client(Session(self.url, None)) as stranger:
            return str(stranger.log_in("admin", password)["secret"])

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])

    def ask_database(self, statement: LiteralString) -> tuple[Any, ...]:  # Any: a row
        """The first row of the answer, if there is one."""
        with psycopg.connect(self.database_url, autocommit=True) as database:
            cursor = database.execute(statement)
            return (cursor.fetchone() if cursor.description else None) or ()

    def settle(self) -> None:
        """Wait until no job is left, and until the disk is."""
        deadline = time.monotonic() + _SETTLE_TIMEOUT
        while left := self.ask_database("SELECT count(*) FROM jobs WHERE finished_at IS NULL")[0]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{left} jobs have not ended after {_SETTLE_TIMEOUT:.0f} seconds")
            time.sleep(0.1)
        os.sync()


@dataclass(frozen=True)
class Bench:
    """A server that runs, a client of it, and the works that are timed there.

    What a work needs is made, and what it leaves is removed, outside of its time. CPU seconds are those of the server's
    whole tree, database included, and of the client.
    """

    server: Server
    client: Client
    token: str
    http: httpx.Client

    def open(self, profile: str = ONE_COPY) -> str:
        creators = [{"name": _WHO}]
        opened = self.client.open_archive(
            profile=profile, title=_WHO, creators=creators, publisher=_WHO, licence="CC0-1.0"
        )
        return opened.id

    def ingest_and_close(self, source: Source, profile: str = ONE_COPY) -> Cost:
        """Server-side from nothing to a closed archive; `stages` tells the seconds of the jobs and of their steps."""
        source.warm()
        archive = self.open(profile)
        self.server.settle()
        jobs: dict[str, Job] = {}

        def work() -> None:
            jobs["ingest"] = self.client.ingest(archive, str(source.folder))
            jobs["close"] = self.client.close(archive)

        cost = self.timed(work)
        stages = {name: job_seconds(job) for name, job in jobs.items()}
        stages |= {f"{name}.{stage}": took for name, job in jobs.items() for stage, took in stage_seconds(job).items()}
        self.client.receipt(archive, wait_seconds=120)
        if not source.shape.is_many:
            self.remove(archive)
        return Cost(stages["ingest"] + stages["close"], cost.cpu, stages)

    def put(self, source: Source) -> Cost:
        """By HTTP with the command, its start included, into an open archive: durable when it ends."""
        source.warm()
        archive = self.open()
        self.server.settle()
        cost = self.timed(lambda: self.command("put", archive, str(source.folder), "--json"))
        held = self.client.archive(archive)
        if (held.file_count, held.byte_count) != (source.shape.count, source.shape.total):
            raise RuntimeError(f"{held.file_count} files and {held.byte_count} bytes arrived")
        if not source.shape.is_many:
            self.remove(archive)
        return cost

    def remove(self, archive: str) -> None:
        """Discard an open archive, withdraw a closed one; its bytes are gone at the end."""
        if self.client.archive(archive).state == "open":
            self.client.discard(archive)
        else:
            self.client.withdraw(archive, "The benchmark is over.")
        self.server.settle()

    def timed(self, work: Callable[[], object]) -> Cost:
        """Seconds and CPU seconds of a work that the server and this process, with its children, do."""
        tree = self.server.tree
        before, started = tree.cpu_seconds() + own_cpu(), time.perf_counter()
        work()
        took = time.perf_counter() - started
        return Cost(took, tree.cpu_seconds() + own_cpu() - before)

    def request(
        self, method: str, place: str, *, params: Mapping[str, object] | None = None, body: object = None
    ) -> dict[str, Any]:  # Any: JSON
        """A request that the client has no verb for, below /api/v1."""
        asked = {name: str(value) for name, value in (params or {}).items() if value is not None}
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"{self.server.url}/api/v1{place}"
        answer = self.http.request(method, url, params=asked, json=body, headers=headers)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def command(self, *words: str) -> None:
        """Run the command `perdure` as the administrator."""
        run_program(PROGRAM, *words, environment={"PERDURE_URL": self.server.url, "PERDURE_TOKEN": self.token})


@contextmanager
def serving(folder: Path, **settings: object) -> Iterator[Bench]:
    """A running server that may ingest from `folder`, and its works; at the end everything of it is gone."""
    server = Server(folder, folder, **settings)
    try:
        server.start()
        token = server.token()
        with connect(server.url, token=token) as client, httpx.Client(trust_env=False, timeout=60) as http:
            bench = Bench(server, client, token, http)
            bench.request("POST", "/profiles", body=_ONE_COPY_PROFILE)
            yield bench
    except Exception:
        print(f"  last words of the server: {server.last_words()}", file=sys.stderr)
        raise
    finally:
        server.stop()
        discard(server.data, is_many=True)


def _send(pid: int, sign: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, sign)


def job_seconds(job: Job) -> float:
    """From the asking to the end of a job, by the server's clock."""
    asked, ended = (datetime.fromisoformat(str(job.raw[name])) for name in ("created_at", "finished_at"))
    return (ended - asked).total_seconds()


def stage_seconds(job: Job) -> Mapping[str, float]:
    """The seconds of each stage, where the job tells them."""
    told = job.result.get("seconds")
    return told if isinstance(told, dict) else {}


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
