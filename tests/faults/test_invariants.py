"""The checker of invariants sees what does not hold, and nothing where all holds."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.testing.app import RunningApplication, start_application
from perdure.testing.invariants import Breach, KnownArchive, Ledger, find_breaches, find_breaches_in_roots, judge_root
from perdure_client import Client
from perdure_client.settings import Session

RECORD: dict[str, Any] = {"creators": [{"name": "Ada Example"}], "publisher": "Example Source", "licence": "CC0-1.0"}
CONTENT = b"what was acknowledged"
DIGEST = hashlib.sha512(CONTENT).hexdigest()
OTHER = hashlib.sha512(b"other").hexdigest()


@pytest.fixture
def running(database_url: str, fast_folder: Path) -> Iterator[RunningApplication]:
    with start_application(fast_folder, database_url=database_url) as application:
        yield application


@pytest.fixture
def client(running: RunningApplication) -> Iterator[Client]:
    with Client(Session(running.url, running.token())) as client:
        yield client


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def known(client: Client, ledger: Ledger, tmp_path: Path) -> KnownArchive:
    """A closed archive with a receipt, and everything about it acknowledged."""
    known = ledger.add(client.open_archive(title="Known", **RECORD).id)
    (tmp_path / "file").write_bytes(CONTENT)
    with known.promising({b"file": DIGEST}):
        client.put(known.id, tmp_path / "file")
    client.patch_metadata(known.id, {"n": 1})
    known.metadata["n"] = 1
    client.close(known.id)
    known.is_closed = True
    client.receipt(known.id, wait_seconds=30)
    return known


def roots(running: RunningApplication) -> list[Path]:
    return sorted(path / "root" for path in (running.data_dir / "stores").iterdir())


def broken(breaches: list[Breach]) -> set[str]:
    return {breach.invariant for breach in breaches}


def test_nothing_is_found_where_all_holds(
    client: Client, ledger: Ledger, known: KnownArchive, running: RunningApplication, tmp_path: Path
) -> None:
    child = ledger.add(client.append(known.id).id, known)
    with child.promising({b"file": None}):
        client.remove(child.id, [b"file"])
    assert find_breaches(client, ledger) == []
    assert find_breaches(client, ledger) == [], "the second look compares with the first"
    assert find_breaches_in_roots(roots(running), ledger) == []


def test_both_outcomes_of_a_request_without_an_answer_are_allowed(
    client: Client, ledger: Ledger, known: KnownArchive
) -> None:
    with pytest.raises(ConnectionError), known.promising({b"file": OTHER, b"never": OTHER}):
        raise ConnectionError
    assert known.settled() == []
    assert find_breaches(client, ledger) == []


def test_what_is_lost_strange_or_other_is_found(client: Client, ledger: Ledger, known: KnownArchive) -> None:
    known.files = {b"file": frozenset({OTHER})}
    assert broken(find_breaches(client, ledger, thorough=False)) == {"I1"}
    known.files = {b"file": frozenset({DIGEST}), b"lost": frozenset({DIGEST})}
    assert broken(find_breaches(client, ledger, thorough=False)) == {"I1"}
    known.files = {}
    assert broken(find_breaches(client, ledger, thorough=False)) == {"I5"}


def test_a_union_that_is_no_overlay_is_found(client: Client, ledger: Ledger, known: KnownArchive) -> None:
    child = ledger.add(client.append(known.id).id, known)
    assert find_breaches(client, ledger, thorough=False) == []
    child.parent = None
    assert broken(find_breaches(client, ledger, thorough=False)) == {"I5"}
    known.files[b"inherited"] = frozenset({DIGEST})
    child.parent = known
    assert broken(find_breaches(client, ledger, thorough=False)) == {"I1", "I8"}


def test_a_lost_change_and_another_statement_are_found(client: Client, ledger: Ledger, known: KnownArchive) -> None:
    known.metadata["m"] = 2
    known.sealed = {"statement": {}, "receipt": {}}
    assert broken(find_breaches(client, ledger, thorough=False)) == {"I2", "I11"}


def test_an_archive_that_is_open_again_is_found(client: Client, ledger: Ledger) -> None:
    ledger.add(client.open_archive(title="Open").id).is_closed = True
    assert broken(find_breaches(client, ledger, thorough=False)) == {"I2"}


def test_a_changed_or_shorter_log_of_events_is_found(client: Client, ledger: Ledger, known: KnownArchive) -> None:
    assert find_breaches(client, ledger) == []
    ledger.chain[2] = "0" * 128
    assert broken(find_breaches(client, ledger)) == {"I6"}
    ledger.chain = dict.fromkeys(range(1, 1000), "")
    assert "I6" in broken(find_breaches(client, ledger))


def test_damage_and_loss_in_a_root_are_found(
    client: Client, ledger: Ledger, known: KnownArchive, running: RunningApplication
) -> None:
    assert find_breaches(client, ledger) == []
    first, second = roots(running)
    [file] = first.rglob("content/data/file")
    file.write_bytes(CONTENT.upper())
    assert judge_root(first)
    assert not judge_root(second)
    shutil.rmtree(file.parents[3])
    assert broken(find_breaches_in_roots([first, second], ledger)) >= {"I3"}
