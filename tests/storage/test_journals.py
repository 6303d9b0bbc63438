"""Journals: what was acknowledged is read, what was torn is set aside, damage is said."""

from __future__ import annotations

import threading
import zlib
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure.adapters.posix.logs import decode_log, encode_lines
from perdure.adapters.posix.store import PosixStore
from perdure.kernel.ids import new_id
from perdure.storage.errors import JournalDamagedError
from perdure.testing.memory_store import MemoryStore

if TYPE_CHECKING:
    from tests.storage.conftest import Lab

    from perdure.storage.service import Storage


@pytest.fixture
def archive() -> UUID:
    return new_id()


def journal(lab: Lab, archive: UUID, store: str = "first") -> Path:
    return lab.folder / store / "journal" / f"{archive}.ndjson"


def test_many_lines_are_encoded_as_each_is() -> None:
    assert encode_lines([b"one", b""]) == b"%08x one\n%08x \n" % (zlib.crc32(b"one"), zlib.crc32(b""))
    for lines in ([b"1\n"], [b"1", b"2\n3"]):
        with pytest.raises(ValueError, match="newline"):
            encode_lines(lines)


def test_lines_are_in_every_store(lab: Lab, archive: UUID) -> None:
    lab.storage.append_journal(archive, [b"1", b"2"])
    lab.storage.append_journal(archive, [b"3"])
    assert lab.storage.read_journal(archive).lines == [b"1", b"2", b"3"]
    assert journal(lab, archive, "second").read_bytes() == journal(lab, archive).read_bytes()
    lab.storage.reset_journal(archive, [b"3"])
    assert lab.storage.read_journal(archive).lines == [b"3"]
    lab.storage.reset_journal(archive, [])
    assert not journal(lab, archive, "second").exists()


def test_a_torn_end_is_told_and_set_aside(lab: Lab, archive: UUID) -> None:
    lab.storage.append_journal(archive, [b"1"])
    whole = journal(lab, archive).read_bytes()
    journal(lab, archive).write_bytes(whole + encode_lines([b"2"])[:-3])
    found = lab.storage.read_journal(archive)
    assert (found.lines, found.torn) == ([b"1"], encode_lines([b"2"])[:-3])
    lab.open().append_journal(archive, [b"3"])
    assert lab.storage.read_journal(archive).lines == [b"1", b"3"]
    aside = [path.read_bytes() for path in (lab.folder / "first" / "quarantine").iterdir()]
    assert aside == [encode_lines([b"2"])[:-3]]


def test_damage_before_the_end_is_not_skipped(lab: Lab, archive: UUID) -> None:
    lab.storage.append_journal(archive, [b"one", b"two", b"three"])
    journal(lab, archive).write_bytes(journal(lab, archive).read_bytes().replace(b"two", b"two!"))
    found = lab.storage.read_journal(archive)
    assert found.lines == [b"one", b"two", b"three"]
    assert found.damaged.keys() == {"first"}
    with pytest.raises(JournalDamagedError):
        lab.open().append_journal(archive, [b"four"])


@pytest.mark.parametrize("whole", [0, 1])
def test_a_journal_that_is_behind_does_not_stand_in_for_a_damaged_one(lab: Lab, archive: UUID, whole: int) -> None:
    lab.storage.append_journal(archive, [b"one", b"two", b"three", b"four"])
    journal(lab, archive).write_bytes(journal(lab, archive).read_bytes().replace(b"three", b"three!"))
    journal(lab, archive, "second").write_bytes(encode_lines([b"one"]) * whole)
    with pytest.raises(JournalDamagedError):
        lab.storage.read_journal(archive)


def test_a_damaged_last_line_is_not_taken_for_a_torn_one(lab: Lab, archive: UUID) -> None:
    lab.storage.append_journal(archive, [b"one", b"two"])
    journal(lab, archive).write_bytes(journal(lab, archive).read_bytes().replace(b"two", b"tvo"))
    found = lab.storage.read_journal(archive)
    assert found.lines == [b"one", b"two"]
    assert found.damaged.keys() == {"first"}


def test_damage_in_every_store_is_not_skipped(lab: Lab, archive: UUID) -> None:
    lab.storage.append_journal(archive, [b"one", b"two", b"three"])
    for store in ("first", "second"):
        path = journal(lab, archive, store)
        path.write_bytes(path.read_bytes().replace(b"two", b"two!"))
    with pytest.raises(JournalDamagedError):
        lab.storage.read_journal(archive)


def test_a_store_that_was_down_catches_up(lab: Lab, archive: UUID) -> None:
    other = MemoryStore("other")
    storage = lab.open([PosixStore("first", lab.folder / "first"), other])
    storage.append_journal(archive, [b"1"])
    other.is_down = True
    storage.append_journal(archive, [b"2"])
    storage.reset_journal(archive, [b"2"])
    other.is_down = False
    storage.append_journal(archive, [b"3"])
    assert other.logs[f"journal/{archive}.ndjson"] == [b"2", b"3"]


def test_a_lost_primary_leaves_the_journal_of_the_others(lab: Lab, archive: UUID) -> None:
    lab.storage.append_journal(archive, [b"1"])
    journal(lab, archive).unlink()
    assert lab.storage.read_journal(archive).lines == [b"1"]


def test_an_append_that_was_interrupted_stands_or_does_not(lab: Lab, archive: UUID) -> None:
    lab.storage.append_journal(archive, [b"1"])
    assert lab.crash_at("journal.appended", lambda storage: storage.append_journal(archive, [b"2"]))
    assert lab.storage.read_journal(archive).lines == [b"1", b"2"]
    lab.storage.append_journal(archive, [b"3"])
    assert journal(lab, archive, "second").read_bytes() == journal(lab, archive).read_bytes()


def test_many_writers_and_a_reset_lose_no_line(lab: Lab, archive: UUID) -> None:
    storages = [lab.open() for _ in range(4)]

    def append(storage: Storage, name: int) -> None:
        for number in range(10):
            storage.append_journal(archive, [b"%d-%d" % (name, number)])

    threads = [threading.Thread(target=append, args=(storage, i)) for i, storage in enumerate(storages)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {b"%d-%d" % (name, number) for name in range(4) for number in range(10)}
    assert len(lab.storage.read_journal(archive).lines) == 40
    assert set(lab.storage.read_journal(archive).lines) == expected


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line), max_size=6), st.data())
def test_any_cut_gives_a_prefix_and_the_rest(lines: list[bytes], data: st.DataObject) -> None:
    whole = encode_lines(lines)
    cut = data.draw(st.integers(0, len(whole)))
    found = decode_log(whole[:cut], "log")
    assert found.lines == lines[: len(found.lines)]
    assert encode_lines(found.lines) + found.torn == whole[:cut]
