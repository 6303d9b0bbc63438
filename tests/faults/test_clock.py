"""The clock of the whole machine is a year off, forward and back: nothing is lost, the order holds, work goes on."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from uuid import UUID

import pytest

from perdure.testing.invariants import KnownArchive
from perdure.testing.soak import Soak
from perdure.testing.soak_tree import Tree
from perdure_client import Client
from perdure_client.settings import Session

pytestmark = pytest.mark.slow
YEAR = 366 * 86400


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that shifts the clock of a process; what is there (faketime) breaks Python's sleep."""
    compiler = shutil.which("cc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("cc: the clock is shifted by a library that is compiled for it, on Linux")
    made = tmp_path_factory.mktemp("clock") / "shifted_clock.so"
    source = Path(__file__).with_name("shifted_clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(made), str(source), "-ldl"], check=True)
    return made


def restart(soak: Soak, shim: Path, shift: int) -> None:
    """Stop it, and start it with the clock so many seconds off."""
    soak.tree.stop()
    soak.tree.prefix = ("env", f"LD_PRELOAD={shim}", f"CLOCK_SHIFT={shift}") if shift else ()
    soak.tree.start()
    with Client(Session(soak.tree.url, None)) as visitor:
        secret = visitor.log_in("admin", soak.tree.password())["secret"]
    with Client(Session(soak.tree.url, secret)) as client:
        soak.token = client.create_token("again", verbs=["read", "write", "manage", "admin"])["secret"]


def live(soak: Soak, name: str, filling: KnownArchive, parent: KnownArchive) -> None:
    """Everything that may stumble over the clock."""
    person = soak.person(name)
    person.put_one(filling)
    person.patch_metadata(filling)
    whole = person.open()
    person.put_large(whole)
    person.close(whole)
    child = person.append(parent)
    person.put_batch(child)
    person.close(child)
    assert person.take_breaches() == []
    assert person.client.receipt(whole.id, wait_seconds=60)["source_may_be_deleted"]


@pytest.mark.timeout(400)
def test_a_clock_that_is_a_year_off_and_is_mended(shim: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="clock-") as folder:  # short: a socket lies in it
        soak = Soak(Tree(Path(folder)), 1)
        try:
            soak.begin()
            person = soak.person("before")
            filling, parent = person.open(), person.open()
            for known in (filling, parent):
                person.put_batch(known)
            person.close(parent)
            for number, shift in enumerate((YEAR, 0, -YEAR)):
                restart(soak, shim, shift)
                live(soak, f"clock{number}", filling, parent)
                soak.look()
            with Client(Session(soak.tree.url, soak.token)) as client:
                events = list(client.events())
            numbered = [event["numbered_at"] for event in events]
            assert numbered == sorted(numbered), "an event of a day whose root is signed"
            assert len({UUID(event["id"]) for event in events}) == len(events)
            soak.finish()
        except BaseException:
            print(soak.tree.last_words(40))
            raise
        finally:
            soak.end()
