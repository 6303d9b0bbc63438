"""The history as an outsider sees it: lines that chain, and rows that come back from them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from uuid import UUID

import pytest

from perdure.db import Database
from perdure.kernel.ids import new_id
from perdure.metadata import BrokenHistoryError, change_to_line, line_to_change
from perdure.metadata.history import CHAIN_START, seal
from perdure.metadata.nodes import LeafChange

from .steps import METADATA, get, lines_of, put, rows_of


@pytest.fixture
def thing() -> UUID:
    return new_id()


def fill(db: Database, thing: UUID) -> list[bytes]:
    with db.begin() as tx:
        put(tx, thing, {"a": {"b": 1, "é": "ü"}, "t": {"date": "2026-11-20"}}, second=1)
        put(tx, thing, {"n": {"value": 1.25, "unit": "m"}}, b"not \xff utf-8", second=2)
        put(tx, thing, {"a": {"b": None, "é": None}}, second=3)
        put(tx, thing, {"a": 7}, second=4)
        return lines_of(tx, thing)


def test_the_chain_is_computed_with_nothing_but_the_lines(module_db: Database, thing: UUID) -> None:
    digest = bytes(64)
    for line in fill(module_db, thing):
        text = line.rstrip(b"\n")
        digest = hashlib.sha512(digest + text[:-141] + b"}").digest()
        assert text[-141:] == b',"digest":"%b"}' % digest.hex().encode()
    with module_db.begin() as tx:
        assert METADATA.state(tx, thing).chain_digest == digest.hex()


def test_lines_are_read_as_they_were_written(module_db: Database, thing: UUID) -> None:
    lines = fill(module_db, thing)
    assert [change_to_line(line_to_change(line)) for line in lines] == lines
    assert b'"path_bytes":"bm90IP8gdXRmLTg="' in lines[1]
    assert line_to_change(lines[1]).path == b"not \xff utf-8"
    assert line_to_change(lines[2].rstrip(b"\n")) == line_to_change(lines[2])


def test_rows_come_back_from_the_lines_in_any_portions(module_db: Database, thing: UUID) -> None:
    lines = fill(module_db, thing)
    with module_db.begin() as tx:
        rows = rows_of(tx, thing)
        METADATA.remove(tx, thing)
        METADATA.restore(tx, thing, lines[:2])
        state = METADATA.restore(tx, thing, lines[1:])
        assert (state.sequence, METADATA.restore(tx, thing, lines)) == (4, state)
        assert rows_of(tx, thing) == rows
        assert get(tx, thing) == {"a": 7, "t": {"date": "2026-11-20"}}


def test_lines_that_come_twice_are_taken_once(module_db: Database, thing: UUID) -> None:
    """A process that ends between the writing of its lines and the note of it leaves them to be written again."""
    lines = fill(module_db, thing)
    with module_db.begin() as tx:
        rows = rows_of(tx, thing)
        METADATA.remove(tx, thing)
        assert METADATA.restore(tx, thing, [lines[number] for number in (0, 0, 1, 2, 0, 1, 2, 3)]).sequence == 4
        assert rows_of(tx, thing) == rows


@pytest.mark.parametrize(
    "wrong", [b"", b"{}", b"[]", b"\xff", b"null", b'{"a":', b'{"a":1,"a":2}', b'{"sequence":true}']
)
def test_what_is_no_line_is_refused(wrong: bytes) -> None:
    with pytest.raises(BrokenHistoryError):
        line_to_change(wrong)


def test_every_changed_byte_is_found(module_db: Database, thing: UUID) -> None:
    lines = fill(module_db, thing)
    line = lines[2]
    for place in range(0, len(line) - 1, 3):
        damaged = line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]
        with module_db.begin() as tx:
            METADATA.remove(tx, thing)
            with pytest.raises(BrokenHistoryError):
                METADATA.restore(tx, thing, [*lines[:2], damaged, lines[3]])


@pytest.mark.parametrize("order", [[1, 2, 3], [0, 2, 3], [0, 2, 1, 3], [0, 1, 1, 2, 3, 0, 3, 5]])
def test_lines_that_are_missing_or_out_of_order_are_refused(module_db: Database, thing: UUID, order: list[int]) -> None:
    lines = [*fill(module_db, thing), b"", b""]
    with module_db.begin() as tx:
        METADATA.remove(tx, thing)
        with pytest.raises(BrokenHistoryError):
            METADATA.restore(tx, thing, [lines[place] for place in order])


def test_lines_of_another_thing_are_refused(module_db: Database, thing: UUID) -> None:
    lines = fill(module_db, thing)
    with module_db.begin() as tx, pytest.raises(BrokenHistoryError):
        METADATA.restore(tx, new_id(), lines)


def test_a_line_that_differs_from_the_one_that_is_kept_is_refused(module_db: Database, thing: UUID) -> None:
    lines = fill(module_db, thing)
    forged = seal(replace(line_to_change(lines[0]), actor_name="Eve"), CHAIN_START)
    with module_db.begin() as tx, pytest.raises(BrokenHistoryError):
        METADATA.restore(tx, thing, [change_to_line(forged)])


@pytest.mark.parametrize(
    "changes",
    [
        (LeafChange("/t", '"never there"', "1"),),
        (LeafChange("/absent", "1", None),),
        (LeafChange("/t", None, "1"),),
        (LeafChange("/t/deep", None, "1"),),
        (LeafChange("/a", None, "1"),),
    ],
)
def test_a_chained_line_that_does_not_fit_the_values_is_refused(
    module_db: Database, thing: UUID, changes: tuple[LeafChange, ...]
) -> None:
    first, *_ = (line_to_change(line) for line in fill(module_db, thing))
    forged = seal(replace(first, sequence=2, revision=2, changes=changes), first.digest)
    with module_db.begin() as tx:
        METADATA.remove(tx, thing)
        with pytest.raises(BrokenHistoryError):
            METADATA.restore(tx, thing, [change_to_line(first), change_to_line(forged)])
