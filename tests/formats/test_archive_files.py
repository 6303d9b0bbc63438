"""ZIP and tar files that other programs read, any range of which can be made by itself."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.formats.archive_files import (
    ShortContentError,
    ZipMember,
    iter_tar,
    iter_zip,
    iter_zip_range,
    tar_length,
    zip_length,
)

from .strategies import paths

GIB = 1 << 30
MTIME = 1_700_000_000


@dataclass(frozen=True, slots=True)
class Held(ZipMember):
    """A member that carries its content."""

    content: bytes = b""


def read_held(member: Held, offset: int, length: int) -> Iterator[bytes]:
    """In small pieces, so that joins are tested."""
    for start in range(offset, offset + length, 7):
        yield member.content[start : min(start + 7, offset + length)]


def held(name: bytes, content: bytes, mtime: int | None = MTIME, mode: int | None = 0o640) -> Held:
    return Held(name, len(content), zlib.crc32(content), mtime, mode, content=content)


SAMPLE = [
    held(b"a.txt", b"hello" * 100),
    held("dä/ö".encode(), b""),
    held(b"back\\slash", b"x", mtime=None, mode=None),
    held(b"old", b"y", mtime=-(1 << 40)),
    held(b"late", b"z", mtime=1 << 40, mode=0o755),
    Held(b"empty", kind="directory", mtime=MTIME),
    Held(b"link", kind="symlink", target=b"a.txt"),
]


def zip_of(members: list[Held]) -> bytes:
    return b"".join(iter_zip(lambda: members, read_held))


def test_zipfile_reads_names_content_times_and_modes() -> None:
    whole = zip_of(SAMPLE)
    assert len(whole) == zip_length(SAMPLE)
    with zipfile.ZipFile(io.BytesIO(whole)) as opened:
        assert opened.testzip() is None
        assert opened.namelist() == ["a.txt", "dä/ö", "back\\slash", "old", "late", "empty/", "link"]
        assert opened.read("a.txt") == b"hello" * 100
        assert opened.read("link") == b"a.txt"
        assert opened.getinfo("empty/").is_dir()
        assert stat.S_ISLNK(opened.getinfo("link").external_attr >> 16)
        assert stat.S_IMODE(opened.getinfo("a.txt").external_attr >> 16) == 0o640
        assert opened.getinfo("a.txt").date_time == (2023, 11, 14, 22, 13, 20)
        assert opened.getinfo("old").date_time == (1980, 1, 1, 0, 0, 0)
        assert opened.getinfo("late").date_time == (2107, 12, 31, 23, 59, 58)


@pytest.mark.skipif(not shutil.which("unzip"), reason="unzip: not installed")
def test_unzip_restores_files_links_times_and_modes(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(zip_of([*SAMPLE, held(b"caf\xe9", b"latin")]))
    command = ["unzip", "-q", "x.zip", "-d", "out"]
    assert subprocess.run(["unzip", "-tqq", "x.zip"], cwd=tmp_path, check=False).returncode == 0
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    out = tmp_path / "out"
    assert (out / "a.txt").read_bytes() == b"hello" * 100
    assert (out / "a.txt").stat().st_mtime == MTIME
    assert stat.S_IMODE((out / "a.txt").stat().st_mode) == 0o640
    assert (out / "link").readlink() == Path("a.txt")
    assert (out / "empty").is_dir()


members = st.lists(
    st.builds(held, paths, st.binary(max_size=40), st.none() | st.integers(-(1 << 40), 1 << 40), st.none()),
    max_size=6,
    unique_by=lambda member: member.name,
)


@given(members, st.integers(0, 2000), st.integers(0, 500))
def test_any_range_is_a_slice_of_the_whole(listed: list[Held], start: int, length: int) -> None:
    whole = zip_of(listed)
    assert len(whole) == zip_length(listed)
    assert b"".join(iter_zip_range(lambda: listed, start, start + length, read_held)) == whole[start : start + length]
    with zipfile.ZipFile(io.BytesIO(whole)) as opened:
        assert [opened.read(one) for one in opened.infolist()] == [member.content for member in listed]


def test_every_range_of_the_sample() -> None:
    whole = zip_of(SAMPLE)
    for start in range(0, len(whole), 13):
        for end in (start, start + 1, start + 50, len(whole)):
            assert b"".join(iter_zip_range(lambda: SAMPLE, start, end, read_held)) == whole[start:end]
    with pytest.raises(ValueError, match="range"):
        next(iter_zip_range(lambda: SAMPLE, 2, 1, read_held))


def zeros(_member: ZipMember, _offset: int, length: int) -> Iterator[bytes]:
    while length:
        yield bytes(min(length, 1 << 20))
        length -= min(length, 1 << 20)


class SparseZip(io.RawIOBase):
    """A ZIP of huge members as a file that is made where it is read."""

    def __init__(self, listed: list[ZipMember]) -> None:
        self._members, self._length, self._position = listed, zip_length(listed), 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        end = self._length if size is None or size < 0 else self._position + size
        data = b"".join(iter_zip_range(lambda: self._members, self._position, end, zeros))
        self._position += len(data)
        return data


@pytest.mark.parametrize("size", [(1 << 32) - 2, (1 << 32) - 1, 1 << 32, 5 * GIB])
def test_members_and_offsets_beyond_4_gib(size: int) -> None:
    small = ZipMember(b"small", 5, zlib.crc32(bytes(5)))
    listed = [ZipMember(b"huge", size, 7), small, ZipMember(b"huge2", size, 7), small, small]
    listed = [ZipMember(b"%d" % number, one.size, one.crc32) for number, one in enumerate(listed)]
    with zipfile.ZipFile(SparseZip(listed)) as opened:
        assert [one.file_size for one in opened.infolist()] == [size, 5, size, 5, 5]
        assert opened.read("1") == opened.read("3") == opened.read("4") == bytes(5)
        with opened.open("0") as huge:
            assert huge.read(10) == bytes(10)


@pytest.mark.slow
@pytest.mark.parametrize("count", [0xFFFE, 0xFFFF])
def test_more_members_than_16_bits_count(count: int) -> None:
    listed = [ZipMember(b"%d" % number) for number in range(count)]
    whole = b"".join(iter_zip(lambda: listed, zeros))
    assert len(whole) == zip_length(listed)
    with zipfile.ZipFile(io.BytesIO(whole)) as opened:
        assert len(opened.infolist()) == count
    assert (b"PK\6\6" in whole[-98:]) == (count >= 0xFFFF)


# In a process of its own: what other tests have left running would be counted, too
MEASURING = """
import tracemalloc
from perdure.formats.archive_files import ZipMember, iter_zip_range, zip_length

def many():
    return (ZipMember(b"folder/%07d" % number, 1000, 7, 1_700_000_000) for number in range(20_000))

length = zip_length(many())
tracemalloc.start()
tail = b"".join(iter_zip_range(many, length - 100, length, lambda member, offset, length: iter((bytes(length),))))
print(tracemalloc.get_traced_memory()[1], len(tail), tail[-22:-18].hex())
"""


def test_the_memory_of_a_range_does_not_grow_with_the_members() -> None:
    told = subprocess.run([sys.executable, "-c", MEASURING], capture_output=True, text=True, check=True).stdout.split()
    assert int(told[0]) < 1_000_000
    assert told[1:] == ["100", b"PK\5\6".hex()]


@pytest.mark.parametrize("given_bytes", [4, 6])
def test_content_of_another_length_is_never_passed_on(given_bytes: int) -> None:
    listed = [ZipMember(b"a", 5, 0)]
    with pytest.raises(ShortContentError):
        list(iter_zip(lambda: listed, lambda _member, _offset, _length: iter((bytes(given_bytes),))))
    with pytest.raises(ShortContentError):
        list(iter_tar(listed, lambda _member, _offset, _length: iter((bytes(given_bytes),))))


def test_content_outside_the_range_is_not_read() -> None:
    asked: list[tuple[bytes, int, int]] = []

    def read(member: Held, offset: int, length: int) -> Iterator[bytes]:
        asked.append((member.name, offset, length))
        return read_held(member, offset, length)

    list(iter_zip_range(lambda: SAMPLE, 100, 110, read))
    assert asked == [(b"a.txt", 100 - (30 + 5 + 9), 10)]


def test_members_that_change_between_two_readings_are_found() -> None:
    turns = iter([SAMPLE, SAMPLE[:-1]])
    with pytest.raises(ValueError, match="changed"):
        list(iter_zip(lambda: next(turns), read_held))


@pytest.mark.parametrize(
    "member", [{"name": b""}, {"name": b"a", "size": -1}, {"name": b"a" * 65536}, {"name": b"a", "target": b"b"}]
)
def test_a_member_that_cannot_be_stored_is_refused(member: dict[str, bytes | int]) -> None:
    with pytest.raises(ValueError, match="name"):
        ZipMember(**member)  # type: ignore[arg-type]  # the wrong values are the test


def test_tarfile_reads_names_content_times_and_links() -> None:
    listed = [
        *SAMPLE,
        held(b"n" * 300, b"long"),
        held(b"caf\xe9", b"latin"),
        Held(b"l", kind="symlink", target=b"\xff/.."),
    ]
    whole = b"".join(iter_tar(listed, read_held))
    assert len(whole) == tar_length(listed)
    assert len(whole) % 10_240 == 0
    with tarfile.open(fileobj=io.BytesIO(whole)) as opened:
        found = {os.fsencode(one.name): one for one in opened}
        assert list(found) == [member.name for member in listed]
        for member in listed:
            reader = opened.extractfile(found[member.name]) if member.kind == "file" else None
            assert (reader.read() if reader else b"") == member.content
            assert os.fsencode(found[member.name].linkname) == member.target
            assert int(found[member.name].mtime) == (member.mtime or 0)


def test_a_tar_has_a_header_for_files_beyond_8_gib() -> None:
    listed = [ZipMember(b"huge", 9 * GIB, 0, MTIME)]
    assert tar_length(listed) > 9 * GIB
    beginning = b"".join(islice(iter_tar(listed, zeros), 2))
    assert tarfile.TarFile(fileobj=io.BytesIO(beginning)).next().size == 9 * GIB  # type: ignore[union-attr]  # None fails the test


@pytest.mark.skipif(not shutil.which("tar"), reason="tar: not installed")
def test_tar_unpacks_it(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"".join(iter_tar(SAMPLE, read_held)))
    (tmp_path / "out").mkdir()
    command = ["tar", "-xf", "../x.tar"]
    assert subprocess.run(command, cwd=tmp_path / "out", capture_output=True, check=False).returncode == 0
    assert (tmp_path / "out/a.txt").read_bytes() == b"hello" * 100
    assert (tmp_path / "out/link").readlink() == Path("a.txt")


@given(members)
@settings(max_examples=30)
def test_the_length_of_a_tar_is_known_before(listed: list[Held]) -> None:
    assert len(b"".join(iter_tar(listed, read_held))) == tar_length(listed)
