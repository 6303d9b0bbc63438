"""The main job against a single pass over the same files: `python bench/main_job.py [result.json]`.

The reference reads, digests (sha512) and writes the files with as many threads as there are processors, and
synchronises once at the end: what any tool has to do that keeps a digested, durable copy. Ours is a whole server of its
own process tree, with its database, on the same file system; closing also writes a second copy and reads both back from
the medium, which the reference does not.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import PAIRS, Comparison, compare, report, wall_seconds

from perdure_client import Client, connect
from perdure_client.settings import Session

_BLOCK = 4 << 20
_PER_FOLDER = 1000
_START_TIMEOUT = 120.0  # seconds


@dataclass(frozen=True)
class Shape:
    """So many files of one size in bytes."""

    name: str
    count: int
    size: int

    def make(self, folder: Path) -> None:
        """Write the files, of bytes that do not compress."""
        for number in range(self.count):
            place = folder / f"{number // _PER_FOLDER:04d}" / f"{number:06d}"
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("wb") as stream:
                for start in range(0, self.size, _BLOCK):
                    stream.write(os.urandom(min(_BLOCK, self.size - start)))


class Reference:
    """A single pass: read, digest, write in parallel, then one sync of the file system."""

    def __init__(self, source: Path, scratch: Path) -> None:
        self._files = [place.relative_to(source) for place in sorted(source.rglob("*")) if place.is_file()]
        self._source, self._scratch = source, scratch

    def __call__(self) -> float:
        target = Path(tempfile.mkdtemp(dir=self._scratch))
        seconds = wall_seconds(lambda: self._copy(target))
        shutil.rmtree(target)
        return seconds

    def _copy(self, target: Path) -> None:
        for folder in {name.parent for name in self._files}:
            (target / folder).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            digests = list(pool.map(lambda name: _copy_file(self._source / name, target / name), self._files))
        os.sync()
        assert len(digests) == len(self._files)


def _copy_file(source: Path, target: Path) -> str:
    digest = hashlib.sha512()
    with source.open("rb", buffering=0) as coming, target.open("xb", buffering=0) as going:
        while block := coming.read(_BLOCK):
            digest.update(block)
            going.write(block)
    return digest.hexdigest()


class Steps:
    """Each step of the job as a work of the harness: what it needs is made, and what it leaves removed, untimed."""

    def __init__(self, client: Client, source: Path, scratch: Path) -> None:
        self._client, self._source, self._scratch = client, source, scratch

    def _open(self) -> str:
        who = "Benchmark"
        opened = self._client.open_archive(title=who, creators=[{"name": who}], publisher=who, licence="CC0-1.0")
        return opened.id

    def ingest(self) -> float:
        archive = self._open()
        seconds = wall_seconds(lambda: self._client.ingest(archive, str(self._source)))
        self._client.discard(archive)
        return seconds

    def put(self) -> float:
        archive = self._open()
        seconds = wall_seconds(lambda: self._client.put(archive, self._source))
        self._client.discard(archive)
        return seconds

    def close(self) -> float:
        archive = self._open()
        self._client.ingest(archive, str(self._source))
        seconds = wall_seconds(lambda: self._client.close(archive))
        self._client.receipt(archive, wait_seconds=60)
        self._client.withdraw(archive, "The benchmark is over.")
        return seconds

    def get(self) -> Callable[[], float]:
        """The work of fetching an archive that is filled once."""
        archive = self._open()
        self._client.ingest(archive, str(self._source))

        def fetch() -> float:
            target = Path(tempfile.mkdtemp(dir=self._scratch))
            seconds = wall_seconds(lambda: self._client.get(archive, target))
            shutil.rmtree(target)
            return seconds

        return fetch


@contextmanager
def served(folder: Path, roots: Path) -> Iterator[Client]:
    """A server of our own on free ports, and a client that is logged in."""
    port, data_port = _free_port(), _free_port()
    settings = {
        "PERDURE_DATA_DIR": str(folder),
        "PERDURE_PORT": str(port),
        "PERDURE_DATA_PORT": str(data_port),
        "PERDURE_INGEST_ROOTS": str(roots),
    }
    program = Path(sys.executable).with_name("perdure")
    with (folder.parent / "server.log").open("wb") as log:
        server = subprocess.Popen([program, "serve"], env=os.environ | settings, stdout=log, stderr=log)
        try:
            password = _wait_for_login(folder / "first-login", server)
            url = f"http://127.0.0.1:{port}"
            with Client(Session(url, None)) as stranger:
                token = stranger.log_in("admin", password)["secret"]
            with connect(url, token=token) as client:
                yield client
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(60)


def _wait_for_login(place: Path, server: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + _START_TIMEOUT
    while not (place.exists() and place.stat().st_size):
        if server.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"The server did not start; see {place.parent.parent / 'server.log'}.")
        time.sleep(0.2)
    return place.read_text(encoding="utf-8").split()[-1]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def measure(client: Client, shape: Shape, folder: Path, pairs: int) -> list[Comparison]:
    """All steps of one shape."""
    source, scratch = folder / "sources" / shape.name, folder / "scratch"
    scratch.mkdir(exist_ok=True)
    shape.make(source)
    steps, reference = Steps(client, source, scratch), Reference(source, scratch)
    described = f"{shape.count} × {shape.size >> 10} KiB"
    works = {"ingest": steps.ingest, "put": steps.put, "close, 2 copies": steps.close, "get": steps.get()}
    return [compare(f"{name} {described}", work, "single pass", reference, pairs=pairs) for name, work in works.items()]


def main() -> None:
    """Measure the shapes, print the table, write JSON when a file is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", nargs="?", type=Path, help="a file for the result as JSON")
    parser.add_argument("--small", type=int, default=2000, help="how many files of 1 KiB")
    parser.add_argument("--large", type=int, default=4, help="how many files of 64 MiB")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="how many interleaved pairs")
    parser.add_argument("--folder", type=Path, help="on which file system to measure; a temporary folder without it")
    chosen = parser.parse_args()
    shapes = [Shape("small", chosen.small, 1 << 10), Shape("large", chosen.large, 64 << 20)]
    with tempfile.TemporaryDirectory(dir=chosen.folder, prefix="bench-") as name:
        folder = Path(name)
        (folder / "sources").mkdir()
        (folder / "data").mkdir()
        with served(folder / "data", folder / "sources") as client:
            found = [one for shape in shapes if shape.count for one in measure(client, shape, folder, chosen.pairs)]
    report(found, chosen.result)


if __name__ == "__main__":
    main()
