"""Two writers never lose an acknowledged change (DESIGN I11)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from perdure.db import Database
from perdure.kernel.ids import new_id
from perdure.metadata import RevisionMismatchError

from .steps import ADA, METADATA, at, get, lines_of, put, rows_of

THREADS = 8
PATCHES = 200


def test_concurrent_patches_of_different_keys_lose_none(db: Database) -> None:
    thing = new_id()

    def patch(number: int) -> int:
        path = b"file" if number % 4 == 0 else b""
        with db.begin() as tx:
            return put(tx, thing, {"shared": {f"k{number}": number}}, path, second=number).sequence

    with ThreadPoolExecutor(THREADS) as pool:
        sequences = list(pool.map(patch, range(PATCHES)))
    assert sorted(sequences) == list(range(1, PATCHES + 1))
    with db.begin() as tx:
        of_file = {f"k{n}": n for n in range(0, PATCHES, 4)}
        assert get(tx, thing, b"file") == {"shared": of_file}
        assert get(tx, thing) == {"shared": {f"k{n}": n for n in range(PATCHES) if n % 4}}
        rows, history = rows_of(tx, thing), lines_of(tx, thing)
        METADATA.remove(tx, thing)
        METADATA.restore(tx, thing, history)
        assert rows_of(tx, thing) == rows


def test_of_two_writers_with_one_revision_exactly_one_wins(db: Database) -> None:
    thing = new_id()

    def patch(number: int) -> bool:
        try:
            with db.begin() as tx:
                text = b'{"winner":%d}' % number
                METADATA.patch(tx, thing, b"", text, actor=ADA, now=at(0), expected_revision=0)
        except RevisionMismatchError:
            return False
        return True

    with ThreadPoolExecutor(THREADS) as pool:
        won = list(pool.map(patch, range(THREADS)))
    assert sum(won) == 1
    with db.begin() as tx:
        assert get(tx, thing) == {"winner": won.index(True)}


def test_copies_in_both_directions_do_not_block_each_other(db: Database) -> None:
    one, other = new_id(), new_id()
    with db.begin() as tx:
        put(tx, one, {"a": 1})
        put(tx, other, {"b": 2})

    def copy(number: int) -> None:
        source, target = (one, other) if number % 2 else (other, one)
        with db.begin() as tx:
            METADATA.copy(tx, source, target, actor=ADA, now=at(number))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(copy, range(20)))
    with db.begin() as tx:
        assert get(tx, one) == get(tx, other) == {"a": 1, "b": 2}
