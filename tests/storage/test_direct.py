"""Files written in blocks past the page cache are the same files, wherever the blocks are cut and whatever fails."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.adapters.posix import direct
from perdure.adapters.posix.direct import DIRECT_BLOCK, BlockWriter

CONTENT = os.urandom(3 * DIRECT_BLOCK + 4711)
_pwrite = os.pwrite


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        yield fd, tmp_path / "file"
    finally:
        os.close(fd)


def write(fd: int, content: bytes, *, offset: int = 0, piece: int = 700_001) -> None:
    writer = BlockWriter(fd, offset)
    try:
        for start in range(0, len(content), piece):
            writer.write(content[start : start + piece])
        writer.flush()
    finally:
        writer.close()


@given(
    piece=st.integers(4096, 3 * DIRECT_BLOCK),
    size=st.integers(0, len(CONTENT)),
    split=st.integers(0, len(CONTENT)),
)
@settings(max_examples=25, deadline=None)
def test_pieces_make_up_the_file(tmp_path_factory: pytest.TempPathFactory, piece: int, size: int, split: int) -> None:
    place = tmp_path_factory.mktemp("direct") / "file"
    split = min(split, size)
    fd = os.open(place, os.O_RDWR | os.O_CREAT)
    try:
        write(fd, CONTENT[:split], piece=piece)
        write(fd, CONTENT[split:size], offset=split, piece=piece)
    finally:
        os.close(fd)
    assert place.read_bytes() == CONTENT[:size]


@given(sizes=st.lists(st.sampled_from([1, 511, 4096, 700_001, DIRECT_BLOCK, DIRECT_BLOCK + 1]), max_size=8))
@settings(max_examples=25, deadline=None)
def test_writing_goes_on_after_a_flush(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    place = tmp_path_factory.mktemp("direct") / "file"
    fd = os.open(place, os.O_RDWR | os.O_CREAT)
    writer, done = BlockWriter(fd), 0
    try:
        for size in sizes:
            writer.write(CONTENT[done : done + size])
            writer.flush()
            done = min(done + size, len(CONTENT))
            assert os.fstat(fd).st_size == done
    finally:
        writer.close()
        os.close(fd)
    assert place.read_bytes() == CONTENT[:done]


@pytest.mark.parametrize("refused", [0, 1, 2])
def test_a_medium_that_refuses_a_block_gets_it_through_the_cache(
    place: tuple[int, Path], monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    blocks: list[int] = []

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        if fd != place[0]:
            blocks.append(fd)
            if len(blocks) > refused:
                raise OSError(errno.EINVAL, "other alignment")
        return _pwrite(fd, data, offset)

    monkeypatch.setattr("perdure.adapters.posix.direct.os.pwrite", pwrite)
    write(place[0], CONTENT)
    assert place[1].read_bytes() == CONTENT


def test_short_writes_are_gone_on_with(place: tuple[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "perdure.adapters.posix.direct.os.pwrite",
        lambda fd, data, offset: _pwrite(fd, data[: max(512, len(data) // 2)], offset),
    )
    write(place[0], CONTENT)
    assert place[1].read_bytes() == CONTENT


def test_a_file_system_that_is_not_known_is_written_through_its_cache(
    place: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "_LOCAL", frozenset[int]())
    assert direct.open_direct(place[0]) is None
    write(place[0], CONTENT)
    assert place[1].read_bytes() == CONTENT


def test_a_failing_medium_is_told(place: tuple[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("perdure.adapters.posix.direct.os.pwrite", pwrite)
    with pytest.raises(OSError, match="full"):
        write(place[0], CONTENT)


def test_what_was_not_flushed_is_not_in_the_file(place: tuple[int, Path]) -> None:
    writer = BlockWriter(place[0])
    writer.write(CONTENT[:100])
    writer.close()
    writer.close()
    assert os.fstat(place[0]).st_size in (0, 100)  # 100 where no block is gathered


@pytest.mark.parametrize("kept", [0, 100])
def test_a_full_disk_is_told_as_one_by_however_many_writers(
    place: tuple[int, Path], monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """The memory of a write that failed is still looked at by its traceback when it is given back."""
    monkeypatch.setattr(direct, "_kept_blocks", [mmap.mmap(-1, direct.DIRECT_BLOCK) for _ in range(kept)])

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    writer = BlockWriter(place[0])
    monkeypatch.setattr("perdure.adapters.posix.direct.os.pwrite", pwrite)
    with pytest.raises(OSError, match="full"), closing(writer):
        writer.write(CONTENT)
