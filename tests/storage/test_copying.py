"""Many small files come in through processes beside ours, and everything out of the ordinary by our own hands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perdure.adapters.posix import copier, files
from perdure.adapters.posix.copier import CopierProcess
from perdure.adapters.posix.syncing import Syncer
from perdure.kernel.digests import digest_bytes
from perdure.storage.copying import CopyIn, SourceFile
from perdure.storage.errors import SourceRefusedError
from perdure.storage.model import DATA_PREFIX, Received
from perdure.storage.ports import Buffer
from perdure.storage.staging import SMALL, tree_of

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
    with CopierProcess(os.fsencode(lab.folder / "first" / "staging")) as process:
        found = process.copy(tree_of(lab.part), sources, lab.digests)
    assert None not in found
    require_copied(lab, source, sources, list(found))  # type: ignore[arg-type]  # None is not in it


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
    made: list[CopierProcess] = []

    class Short(CopierProcess):
        def __init__(self, staging: bytes) -> None:
            super().__init__(staging)
            made.append(self)
            os.kill(self.pid, signal.SIGKILL)

    monkeypatch.setattr("perdure.adapters.posix.store.CopierProcess", Short)
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
        act(os.fsencode(source / "0005"))
        return put(path, top, data, syncer)

    monkeypatch.setattr(files, "put", slow)
    top = os.fsencode(lab.folder / "first" / "staging")
    names = sorted(lab.digests)
    assert copier.try_copy(top, tree_of(lab.part), opened, b"0005", b"in/0005", names) is None
    assert not os.path.lexists(top + f"/{tree_of(lab.part)}/{DATA_PREFIX}in/0005".encode())


def test_no_process_outlives_its_parent(tmp_path: Path) -> None:
    program = (
        "import os\n"
        "from perdure.adapters.posix.copier import CopierProcess\n"
        f"print(CopierProcess({os.fsencode(tmp_path)!r}).pid, flush=True)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    child = Path("/proc") / done.stdout.strip()
    deadline = time.monotonic() + 30
    while child.exists() and b"serve_parent" in (child / "cmdline").read_bytes():
        assert time.monotonic() < deadline, "the copier goes on without its parent"
        time.sleep(0.02)


def test_few_files_start_no_process(lab: Lab, source: Path, opened: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.adapters.posix.store.CopierProcess", None)
    sources = all_of(source, opened)[:5]
    with lab.storage.copying() as copy_in:
        assert isinstance(copy_in, CopyIn)
        require_copied(lab, source, sources, copy_in.copy(lab.part, sources, lab.digests))
