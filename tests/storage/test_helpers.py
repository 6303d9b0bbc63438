"""Many small files come in through processes beside ours, and everything out of the ordinary by our own hands."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from perdure.adapters.posix import files, medium, small_copies, small_digests
from perdure.adapters.posix.helper import HelperProcess
from perdure.adapters.posix.medium import ManyReader, MediumReader
from perdure.adapters.posix.store import PosixStore
from perdure.adapters.posix.syncing import Syncer
from perdure.adapters.posix.system import filesystem_of
from perdure.kernel.digests import digest_bytes
from perdure.storage.copying import CopyIn
from perdure.storage.errors import SourceRefusedError
from perdure.storage.helpers import SourceFile
from perdure.storage.model import DATA_PREFIX, Received
from perdure.storage.ports import Buffer
from perdure.storage.source_files import SMALL
from perdure.storage.staging import tree_of

from .conftest import Lab

MANY = 100


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(MANY):
        (folder / f"{number:04d}").write_bytes(os.urandom(number))
    return folder


@pytest.fixture
def opened(source: Path) -> Iterator[int]:
    descriptor = os.open(source, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def start_helper(lab: Lab) -> HelperProcess:
    store = os.fsencode(lab.folder / "first")
    return HelperProcess(store + b"/staging", store + b"/root", "direct")


def all_of(source: Path, opened: int) -> list[SourceFile]:
    return [SourceFile(name, opened, b"in/" + name) for name in sorted(os.listdir(os.fsencode(source)))]


def require_copied(lab: Lab, source: Path, sources: list[SourceFile], found: list[Received | Exception]) -> None:
    for one, received in zip(sources, found, strict=True):
        assert isinstance(received, Received), received
        place = Path(os.fsdecode(os.fsencode(source) + b"/" + one.name))
        data, status = place.read_bytes(), place.stat()
        assert b"".join(lab.storage.read_staged(lab.part, received.content)) == data
        assert received.digests == digest_bytes(data, lab.digests)
        assert (received.size, received.mtime_ns) == (len(data), status.st_mtime_ns)
        assert received.mode == status.st_mode & 0o7777


def test_many_files_are_copied_by_another_process(lab: Lab, source: Path, opened: int) -> None:
    (source / "mode").touch(0o600)
    for name in (b"caf\xe9", b"new\nline", "café".encode(), b"CON"):
        with open(os.fsencode(source) + b"/" + name, "wb") as stream:
            stream.write(name)
    sources = all_of(source, opened)
    with start_helper(lab) as process:
        found = process.copy(tree_of(lab.part), sources, lab.digests)
    assert None not in found
    require_copied(lab, source, sources, list(found))  # type: ignore[arg-type]  # None is not in it


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_folder_is_looked_at_as_we_do(lab: Lab, tmp_path: Path, count: int) -> None:
    folder = tmp_path / "seen"
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}").write_bytes(b"x" * number)
    descriptor = os.open(folder, os.O_RDONLY)
    with start_helper(lab) as helper:
        names = helper.list_names(descriptor)
        assert names == [b"%d" % number for number in range(count)]
        found = [os.stat(folder / os.fsdecode(name)) for name in names]
        expected = [(one.st_mode, one.st_size, one.st_mtime_ns) for one in found]
        assert helper.look(descriptor, [*names, b"gone"]) == [*expected, None]
    os.close(descriptor)


def test_what_is_out_of_the_ordinary_is_done_here(lab: Lab, source: Path, opened: int) -> None:
    (source / "large").write_bytes(os.urandom(SMALL + 1))
    os.mkfifo(source / "fifo")
    (source / "link").symlink_to("0001")
    taken = lab.storage.begin_file(lab.part, b"in/0007", digests=lab.digests)
    taken.finish()
    sources = [*all_of(source, opened), SourceFile(b"missing", opened, b"in/missing")]
    with lab.storage.copying() as copy_in:
        found = copy_in.copy(lab.part, sources, lab.digests)
    failed = {one.name for one, result in zip(sources, found, strict=True) if isinstance(result, Exception)}
    assert failed == {b"fifo", b"link", b"missing"}
    assert any(isinstance(result, SourceRefusedError) for result in found)
    good = [(one, result) for one, result in zip(sources, found, strict=True) if isinstance(result, Received)]
    require_copied(lab, source, [one for one, _ in good], [result for _, result in good])


def test_a_process_that_ends_is_missed_by_nobody(
    lab: Lab, source: Path, opened: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[HelperProcess] = []

    class Short(HelperProcess):
        def __init__(self, staging: bytes, root: bytes, medium_read: str) -> None:
            super().__init__(staging, root, medium_read)
            made.append(self)
            os.kill(self.pid, signal.SIGKILL)

    monkeypatch.setattr("perdure.adapters.posix.store.HelperProcess", Short)
    sources = all_of(source, opened)
    with lab.storage.copying() as copy_in:
        found = copy_in.copy(lab.part, sources, lab.digests)
    require_copied(lab, source, sources, found)
    assert len(made) == 1


def overwrite(path: bytes) -> None:
    Path(os.fsdecode(path)).write_bytes(b"other")


@pytest.mark.parametrize("act", [os.unlink, overwrite])
def test_a_file_that_changes_while_it_is_copied_leaves_nothing(
    lab: Lab, source: Path, opened: int, monkeypatch: pytest.MonkeyPatch, act: Callable[[bytes], object]
) -> None:
    put = files.put

    def slow(path: bytes, top: bytes, data: Buffer, syncer: Syncer | None) -> bool:
        with suppress(FileNotFoundError):
            act(os.fsencode(source / "0005"))
        return put(path, top, data, syncer)

    monkeypatch.setattr(files, "put", slow)
    top = os.fsencode(lab.folder / "first" / "staging")
    data = top + f"/{tree_of(lab.part)}/{DATA_PREFIX}".encode()
    names = [b"0004", b"0005", b"0006"]
    contents = [f"in/{os.fsdecode(name)}" for name in names]
    copying = small_copies.Copying(os.getppid())
    found = copying.copy_files([opened], top, data, sorted(lab.digests), names, bytes(3), contents)
    assert [None if one is None else one[0] for one in found] == [4, None, 6]
    assert sorted(os.listdir(data + b"in")) == [b"0004", b"0006"]


def test_nothing_is_written_for_a_parent_that_is_gone(lab: Lab, opened: int) -> None:
    top = os.fsencode(lab.folder / "first" / "staging")
    data = top + f"/{tree_of(lab.part)}/{DATA_PREFIX}".encode()
    with pytest.raises(EOFError):
        small_copies.Copying(os.getpid()).copy_files([opened], top, data, ["crc32"], [b"0005"], b"\0", ["0005"])
    assert not os.path.lexists(data)


def test_no_process_outlives_its_parent(tmp_path: Path) -> None:
    program = (
        "import os\n"
        "from perdure.adapters.posix.helper import HelperProcess\n"
        f"print(HelperProcess(*[{os.fsencode(tmp_path)!r}] * 2, 'direct').pid, flush=True)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    child = Path("/proc") / done.stdout.strip()
    deadline = time.monotonic() + 30
    while child.exists() and b"serve_parent" in (child / "cmdline").read_bytes():
        assert time.monotonic() < deadline, "the helper goes on without its parent"
        time.sleep(0.02)


def test_few_files_start_no_process(lab: Lab, source: Path, opened: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.adapters.posix.store.HelperProcess", None)
    sources = all_of(source, opened)[:5]
    with lab.storage.copying() as copy_in:
        assert isinstance(copy_in, CopyIn)
        require_copied(lab, source, sources, copy_in.copy(lab.part, sources, lab.digests))


def verify(lab: Lab) -> tuple[int, int, list[tuple[str, str]]]:
    report = lab.storage.verify_copy(lab.part.object_id, lab.first)
    return report.files, report.bytes, sorted((one.kind.value, one.content) for one in report.findings)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Helpers are started for few files."""
    monkeypatch.setattr("perdure.storage.verifying._FILES_FOR_A_HELPER", 10)


def make_damaged_part(lab: Lab, damaged: set[str]) -> None:
    damaged.add("first")
    final = lab.make_part({b"%04d" % number: os.urandom(number * 90) for number in range(MANY)} | {b"odd\n": b"odd"})
    folder = lab.object_folder("first") / "v1" / "content" / "data"
    flipped = bytearray((folder / "0050").read_bytes())
    flipped[7] ^= 1
    (folder / "0050").write_bytes(flipped)
    (folder / "0060").write_bytes((folder / "0060").read_bytes() + b"longer")
    (folder / "0070").write_bytes((folder / "0071").read_bytes())
    (folder / "0080").unlink()
    (folder / final[b"odd\n"]).write_bytes(b"ODD")


@pytest.mark.usefixtures("eager")
def test_helpers_find_the_damage_that_we_find(lab: Lab, damaged: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    make_damaged_part(lab, damaged)
    asked: list[int] = []
    digest = HelperProcess.digest

    def counted(self: HelperProcess, object_id: str, paths: Sequence[str], algorithm: str) -> object:
        found = digest(self, object_id, paths, algorithm)
        asked.append(sum(one is not None for one in found))
        return found

    monkeypatch.setattr(HelperProcess, "digest", counted)
    beside = verify(lab)
    assert sum(asked) >= MANY
    monkeypatch.setattr(PosixStore, "start_helper", lambda self: None)
    assert verify(lab) == beside
    assert len(beside[2]) == 5


@pytest.mark.usefixtures("eager")
def test_damage_is_found_when_the_helpers_die(lab: Lab, damaged: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    make_damaged_part(lab, damaged)
    killed: list[int] = []

    class Short(HelperProcess):
        def __init__(self, staging: bytes, root: bytes, medium_read: str) -> None:
            super().__init__(staging, root, medium_read)
            os.kill(self.pid, signal.SIGKILL)
            killed.append(self.pid)

    expected = verify(lab)
    monkeypatch.setattr("perdure.adapters.posix.store.HelperProcess", Short)
    assert verify(lab) == expected
    assert killed


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 1 << 20, (4 << 20) + 1])
@pytest.mark.parametrize("method", ["direct", "dropped"])
def test_the_medium_gives_files_of_every_size(tmp_path: Path, size: int, method: str) -> None:
    path, data = tmp_path / "file", os.urandom(size)
    path.write_bytes(data)
    found = small_digests.try_digest(MediumReader(method), os.fsencode(path), "sha512")
    assert found == (digest_bytes(data, ("sha512",))["sha512"], size)


SIZES = [0, 1, 4095, 4096, 4097, 65536, (1 << 20) - 1, 1 << 20, (4 << 20) - 4096, (4 << 20) - 4095]


@pytest.fixture
def many() -> Iterator[ManyReader]:
    try:
        reader = ManyReader()
    except OSError as error:
        pytest.skip(f"this system reads files one by one: {error}")
    yield reader
    reader.close()


def make_files(folder: Path, contents: Sequence[bytes]) -> list[bytes]:
    for number, data in enumerate(contents):
        (folder / f"{number:04d}").write_bytes(data)
    return [b"%04d" % number for number in range(len(contents))]


def read_many(many: ManyReader, folder: Path, names: Sequence[bytes]) -> list[bytes | None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return [None if data is None else bytes(data) for some in many.iter_read(descriptor, names) for data in some]
    finally:
        os.close(descriptor)


def test_many_files_are_read_with_few_calls_in_any_sizes(many: ManyReader, tmp_path: Path) -> None:
    contents = [os.urandom(size) for size in (*SIZES, *range(300), *SIZES)]
    names = make_files(tmp_path, contents)
    found = read_many(many, tmp_path, names)
    for data, expected in zip(found, contents, strict=True):
        assert data == (expected if len(expected) <= (4 << 20) - 4096 else None)
    assert read_many(many, tmp_path, names[::-1]) == found[::-1]


def test_what_is_no_file_at_rest_is_not_among_many(many: ManyReader, tmp_path: Path) -> None:
    names = make_files(tmp_path, [b"0", b"1", b"2"])
    (tmp_path / "link").symlink_to("0000")
    (tmp_path / "folder").mkdir()
    odd = [b"0000", b"missing", b"0001", b"link", b"folder", b"0002"]
    assert read_many(many, tmp_path, odd) == [b"0", None, b"1", None, None, b"2"]
    assert read_many(many, tmp_path, []) == []
    assert read_many(many, tmp_path, names) == [b"0", b"1", b"2"]


@pytest.mark.parametrize("size", [0, 4096, 5000, 9000])
def test_a_file_of_another_size_than_it_said_is_not_among_many(
    many: ManyReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    names = make_files(tmp_path, [b"a" * 100, b"b" * 4096, b"c" * 100])
    fstat = os.fstat

    def stale(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        if found.st_size == 4096:
            os.truncate(tmp_path / "0001", size)
        return found

    monkeypatch.setattr(os, "fstat", stale)
    found = read_many(many, tmp_path, names)
    assert found == [b"a" * 100, (b"b" * 4096 if size == 4096 else None), b"c" * 100]


def test_many_files_come_from_the_medium_and_not_from_the_cache(many: ManyReader, tmp_path: Path) -> None:
    if filesystem_of(tmp_path) not in ("ext4", "xfs"):
        pytest.skip("whether the medium was read is not told here")
    names = make_files(tmp_path, [os.urandom(1000) for _ in range(MANY)])
    os.sync()
    for name in names:
        (tmp_path / os.fsdecode(name)).read_bytes()
    before = read_from_medium()
    read_many(many, tmp_path, names)
    assert read_from_medium() - before >= MANY * 1000


def read_from_medium() -> int:
    """The bytes that this process had the devices read."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["read_bytes"])


@pytest.mark.parametrize("refused", ["setup", "submit", "half"])
def test_a_system_that_refuses_to_read_many_files_is_asked_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    call = medium._call
    setup, submit, *_ = medium._CALLS[os.uname().machine]

    def confined(number: int, *arguments: Any) -> int:
        if (number, refused) in ((setup, "setup"), (submit, "submit")):
            raise OSError(errno.EAGAIN, "not for you")
        if (number, refused) == (submit, "half"):
            context, asked, places = arguments
            return call(number, context, ctypes.c_long(asked.value // 2), places)
        return call(number, *arguments)

    contents = [os.urandom(number) for number in range(MANY)]
    names = make_files(tmp_path, contents)
    monkeypatch.setattr(medium, "_call", confined)
    found = small_digests.Digesting().digest_files([], os.fsencode(tmp_path), "direct", "sha512", names)
    assert found == [(digest_bytes(data, ("sha512",))["sha512"], len(data)) for data in contents]


@pytest.mark.parametrize("method", ["direct", "dropped", "plain"])
def test_what_is_not_given_is_none_among_what_is(tmp_path: Path, method: str) -> None:
    names = make_files(tmp_path, [b"0", b"1"])
    digesting, folder = small_digests.Digesting(), os.fsencode(tmp_path)
    found = digesting.digest_files([], folder, method, "sha256", [names[0], b"missing", names[1]])
    assert found == [
        (digest_bytes(b"0", ("sha256",))["sha256"], 1),
        None,
        (digest_bytes(b"1", ("sha256",))["sha256"], 1),
    ]
    assert digesting.digest_files([], folder + b"/no", method, "sha256", names) == [None, None]
    assert digesting.digest_files([], folder, method, "md5", names) == [None, None]
