"""Batches hold every item once and keep to the limits; they grow where they go fast and shrink where they do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure_client.local import LocalItem
from perdure_client.upload import Batches

MIB = 1 << 20


def make_items(sizes: list[int]) -> list[LocalItem]:
    return [LocalItem(b"%d" % number, "file", b"", size) for number, size in enumerate(sizes)]


@given(
    st.lists(st.integers(0, 20 * MIB), max_size=40),
    st.integers(1, 10),
    st.integers(1, 80 * MIB),
    st.lists(st.sampled_from([0.1, 5.0, 60.0]), min_size=1),
)
def test_each_item_goes_once_and_in_order(sizes: list[int], files: int, size: int, took: list[float]) -> None:
    items = make_items(sizes)
    batches, sent = Batches(items, files, size), list[LocalItem]()
    for number, batch in enumerate(batches):
        assert len(batch) <= files
        held = sum(item.size for item in batch)
        assert len(batch) == 1 or held <= size
        sent += batch
        batches.learn(took[number % len(took)], held)
    assert sent == items


@pytest.mark.parametrize(("took", "last"), [(0.5, 64 * MIB), (5.0, 16 * MIB), (30.0, MIB)])
def test_the_next_is_as_large_as_the_way_is_fast(took: float, last: int) -> None:
    batches = Batches(make_items([MIB] * 1000), 1000, 64 * MIB)
    for _ in range(8):
        batches.learn(took, sum(item.size for item in next(batches)))
    assert sum(item.size for item in next(batches)) == last


def test_a_batch_of_few_bytes_proves_nothing_of_a_large_one() -> None:
    batches = Batches(make_items([1000] * 5000 + [MIB] * 100), 1000, 64 * MIB)
    for _ in range(5):
        batches.learn(0.5, sum(item.size for item in next(batches)))
    assert sum(item.size for item in next(batches)) == 16 * MIB
