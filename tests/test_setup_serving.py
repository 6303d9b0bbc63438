"""`perdure serve` as a process: it comes up, mends itself, stops whole, and leaves nothing when it is killed."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import psycopg
import pytest

from perdure.testing.certificates import make_certificate
from perdure.testing.processes import find_children, words_of

PERDURE = Path(sys.executable).parent / "perdure"
ROLES = ["web", "worker", "worker-2"]


class Tree:
    """A running `perdure serve` on a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PERDURE_")}
        self.environment = clean | {"PERDURE_DATA_DIR": str(folder), "PERDURE_LOG_FORMAT": "json", "HOME": str(folder)}
        self.environment |= {"PERDURE_WORKER_PROCESSES": "2"}
        self.log = folder.parent / "log"
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *options: str) -> subprocess.Popen[str]:
        with self.log.open("a") as log:
            process = subprocess.Popen(
                [str(PERDURE), "serve", "--port", "0", "--data-port", "0", *options],
                env=self.environment,
                cwd=self.folder.parent,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "is ready at" in line, (line, self.log.read_text())
        self.url = line.split("ready at ")[1].split()[0]
        return process

    def end(self) -> None:
        for process in self.started:
            process.terminate()
            process.communicate(timeout=60)

    def postmaster(self) -> int:
        return int((self.folder / "postgres" / "cluster" / "postmaster.pid").read_text().splitlines()[0])

    def answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/healthz", timeout=5) as answer:  # noqa: S310  # our own address
                return bool(answer.status == 200)
        except OSError:
            return False

    def database_answers(self) -> bool:
        url = f"postgresql://perdure@/perdure?host={self.folder}/postgres/run"
        try:
            with psycopg.connect(url, connect_timeout=2) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


@pytest.fixture
def tree() -> Iterator[Tree]:
    if not sys.platform.startswith("linux"):
        pytest.skip("linux: the processes are found in /proc")
    with tempfile.TemporaryDirectory(prefix="serve-") as folder:
        tree = Tree(Path(folder) / "data")
        try:
            yield tree
        finally:
            tree.end()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_mends_itself_refuses_a_second_survives_its_own_murder_and_stops_whole(tree: Tree) -> None:
    process = tree.start()
    assert tree.answers()
    assert process.stdout is not None
    told, password = process.stdout.readline(), (tree.folder / "first-login").read_text().split()[1]
    assert "first-login" in told
    assert password not in told  # a pipe may lead to a log
    wait_for(lambda: sorted(find_children(tree.folder)) == ROLES)
    first = find_children(tree.folder)
    _second_is_refused(tree, process)

    for pid in first.values():
        os.kill(pid, signal.SIGKILL)
    wait_for(
        lambda: (
            sorted(find_children(tree.folder)) == ROLES
            and not {*first.values()} & {*find_children(tree.folder).values()}
        )
    )
    wait_for(tree.answers)

    children = find_children(tree.folder)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(words_of(pid) for pid in children.values()))
    again = tree.start()
    assert tree.answers()

    postmaster = tree.postmaster()
    os.kill(postmaster, signal.SIGKILL)
    wait_for(tree.database_answers)
    assert tree.postmaster() != postmaster

    children, postmaster = find_children(tree.folder), tree.postmaster()
    again.send_signal(signal.SIGINT)
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 0, tree.log.read_text()
    assert output.endswith("Stopped.\n")
    assert not any(words_of(pid) for pid in (*children.values(), postmaster))
    assert {json.loads(line)["event"] for line in tree.log.read_text().splitlines()} >= {"child_died", "stopping"}


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_it_answers_over_tls(tree: Tree, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "certificate.pem")
    tree.start("--tls-cert", str(certificate))
    assert tree.url.startswith("https://127.0.0.1:")
    with urlopen(f"{tree.url}/readyz", timeout=5, context=ssl.create_default_context(cafile=certificate)) as answer:  # noqa: S310  # our own address
        assert answer.status == 200


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--host", "0.0.0.0"], "tls_cert"),  # noqa: S104  # refused
        (["--tls-cert", "/nowhere.pem"], "/nowhere.pem"),
    ],
)
def test_what_would_go_in_clear_or_cannot_be_enciphered_is_refused(tree: Tree, options: list[str], named: str) -> None:
    refused = subprocess.run(
        [str(PERDURE), "serve", "--port", "0", "--data-port", "0", *options],
        env=tree.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert refused.returncode == 2
    assert named in refused.stderr
    assert not (tree.folder / "postgres").exists()


def _second_is_refused(tree: Tree, first: subprocess.Popen[str]) -> None:
    second = subprocess.run(
        [str(PERDURE), "serve", "--port", "0", "--data-port", "0"],
        env=tree.environment,
        cwd=tree.folder.parent,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 5
    assert f"process {first.pid}" in second.stderr
