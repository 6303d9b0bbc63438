"""Lines of several parts in one order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from perdure.archives.manifests import SealedLines, merge_sealed


def _stream(paths: Sequence[bytes], block: int) -> Iterator[SealedLines]:
    for start in range(0, len(paths), block):
        some = paths[start : start + block]
        yield SealedLines([b"line of " + path for path in some], some)


@given(st.dictionaries(st.binary(min_size=1, max_size=3), st.integers(0, 4), max_size=40), st.integers(1, 5))
def test_parts_are_merged_by_path_whatever_lies_in_which(parts: dict[bytes, int], block: int) -> None:
    of_parts = [sorted(path for path, number in parts.items() if number == part) for part in range(5)]
    merged = list(merge_sealed([_stream(paths, block) for paths in of_parts]))
    assert [path for some in merged for path in some.paths] == sorted(parts)
    assert [line for some in merged for line in some.lines] == [b"line of " + path for path in sorted(parts)]
    assert all(some.paths for some in merged)
