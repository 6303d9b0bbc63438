"""Taking bytes in: names, digests, sources that change, uploads that die half-way."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from perdure.adapters.posix.store import PosixStore
from perdure.db import Database
from perdure.kernel.ids import new_id
from perdure.storage.errors import (
    SourceChangedError,
    SourceRefusedError,
    StoreFullError,
    UnknownObjectError,
    UnknownUploadError,
    UploadBusyError,
    WrongSizeError,
)
from perdure.storage.model import PartRef, Received
from perdure.storage.service import Storage
from perdure.storage.staging import Staging
from perdure.testing.memory_store import MemoryStore
from perdure.testing.stores import INSTANCE

if TYPE_CHECKING:
    from tests.storage.conftest import Lab

DIGESTS = frozenset({"sha512", "crc32", "md5"})
PART = PartRef(new_id(), new_id())


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    store = PosixStore("first", tmp_path / "store")
    store.prepare(INSTANCE)
    return Staging(store)


def read(staging: Staging, received: Received) -> bytes:
    tree = f"{PART.archive_id}/{PART.part_id}"
    return b"".join(staging.store.read_file(tree, f"v1/content/data/{received.content}"))


def expect(data: bytes) -> dict[str, str]:
    return {
        "sha512": hashlib.sha512(data).hexdigest(),
        "md5": hashlib.md5(data).hexdigest(),
        "crc32": f"{zlib.crc32(data):08x}",
    }


def test_a_file_lies_under_its_own_name(staging: Staging) -> None:
    writer = staging.begin_file(PART, b"scan 1/\xc3\xa9.h5", DIGESTS)
    for piece in (b"abc", b"", memoryview(b"def")):
        writer.write(piece)
    received = writer.finish(6)
    assert received == Received("scan 1/é.h5", 6, expect(b"abcdef"))
    assert read(staging, received) == b"abcdef"


@pytest.mark.parametrize(
    "path", [b"caf\xe9", b"e\xcc\x81", b"a\nb", b"con", b"x" * 255, b"_/a", b"a:b", b"a/" * 400 + b"a"]
)
def test_a_name_that_cannot_be_carried_is_replaced(staging: Staging, path: bytes) -> None:
    received = staging.write_small(PART, path, b"1", DIGESTS)
    assert received.content.startswith(f"_/{hashlib.sha256(path).hexdigest()}.")
    assert read(staging, received) == b"1"


def test_a_name_that_is_taken_gets_a_neighbour(staging: Staging) -> None:
    first = staging.write_small(PART, b"a/b", b"1", DIGESTS)
    second = staging.write_small(PART, b"a/b", b"2", DIGESTS)
    folder = staging.write_small(PART, b"a", b"3", DIGESTS)
    below = staging.begin_file(PART, b"a/b/c", DIGESTS).finish()
    assert first.content == "a/b"
    assert len({first.content, second.content, folder.content, below.content}) == 4
    assert [read(staging, r) for r in (first, second, folder, below)] == [b"1", b"2", b"3", b""]


def test_a_wrong_size_leaves_nothing(staging: Staging) -> None:
    writer = staging.begin_file(PART, b"a", DIGESTS)
    writer.write(b"1234")
    with pytest.raises(WrongSizeError):
        writer.finish(5)
    assert list(staging.store.walk_tree(f"{PART.archive_id}/{PART.part_id}")) == []


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 3 * (4 << 20), (17 << 20) + 5])
def test_copying_in_gives_the_bytes_of_the_source(staging: Staging, tmp_path: Path, size: int) -> None:
    data = os.urandom(1 << 16) * (size // (1 << 16) + 1)
    source = tmp_path / "source"
    source.write_bytes(data[:size])
    source.chmod(0o604)
    received = staging.copy_in(PART, source, b"dir/copy", DIGESTS, None)
    assert (received.size, received.digests) == (size, expect(data[:size]))
    assert (received.mtime_ns, received.mode) == (source.stat().st_mtime_ns, 0o604)
    assert read(staging, received) == data[:size]


def test_many_threads_copy_in_at_once(staging: Staging, tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"f{number}").write_bytes(bytes([number]) * ((5 << 20) + number))
    taken: dict[int, Received] = {}

    def copy(number: int) -> None:
        taken[number] = staging.copy_in(PART, tmp_path / f"f{number}", b"f%d" % number, DIGESTS, None)

    threads = [threading.Thread(target=copy, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(6):
        assert taken[number].digests == expect(bytes([number]) * ((5 << 20) + number))


def test_copying_in_from_an_open_folder(staging: Staging, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert staging.copy_in(PART, b"f", b"f", DIGESTS, fd).size == 1
    finally:
        os.close(fd)


def test_only_regular_files_are_copied_in(staging: Staging, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", "", "/dev/null"):
        with pytest.raises(SourceRefusedError):
            staging.copy_in(PART, tmp_path / name, b"x", DIGESTS, None)
    with pytest.raises(SourceChangedError):
        staging.copy_in(PART, tmp_path / "gone", b"x", DIGESTS, None)


@pytest.mark.parametrize("size", [10, 5 << 20])
@pytest.mark.parametrize("how", ["grow", "cut", "touch", "replace", "remove"])
def test_a_source_that_changes_is_refused(
    staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, size: int
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * size)

    def meddle() -> None:
        if how == "grow":
            with source.open("ab") as stream:
                stream.write(b"more")
        elif how == "cut":
            os.truncate(source, size // 2)
        elif how == "touch":
            os.utime(source, ns=(1, 1))
        elif how == "remove":
            source.unlink()
        else:
            other = tmp_path / "other"
            other.write_bytes(b"y" * size)
            other.replace(source)

    name = "put_file" if size == 10 else "create_file"
    real = getattr(staging.store, name)

    def meddling(*args: object) -> object:
        meddle()
        return real(*args)

    monkeypatch.setattr(staging.store, name, meddling)
    with pytest.raises(SourceChangedError):
        staging.copy_in(PART, source, b"x", DIGESTS, None)
    assert list(staging.store.walk_tree(f"{PART.archive_id}/{PART.part_id}")) == []


# Uploads


def test_an_upload_resumes_with_the_right_digest(staging: Staging) -> None:
    """Also when another process goes on, which has no state of the digest."""
    upload_id, data = new_id(), os.urandom(5 << 20)
    staging.begin_upload(PART, upload_id, b"big/file", DIGESTS)
    writer = staging.open_upload(PART, upload_id)
    writer.write(data[: 2 << 20])
    assert writer.flush_durable() == 2 << 20
    writer.write(b"never acknowledged")
    writer.close()
    assert staging.upload_offset(PART, upload_id) == 2 << 20
    other = Staging(staging.store)
    writer = other.open_upload(PART, upload_id)
    assert writer.offset == writer.durable_offset == 2 << 20
    writer.write(data[2 << 20 : 3 << 20])
    writer.flush_durable()
    writer.close()
    writer = other.open_upload(PART, upload_id)
    writer.write(data[3 << 20 :])
    received = writer.finish(len(data))
    writer.close()
    other.forget_upload(PART, upload_id)
    assert received == Received("big/file", len(data), expect(data))
    assert read(staging, received) == data
    with pytest.raises(UnknownUploadError):
        staging.open_upload(PART, upload_id)


def test_an_upload_has_one_writer_and_a_size(staging: Staging) -> None:
    upload_id = new_id()
    with pytest.raises(UnknownUploadError):
        staging.upload_offset(PART, upload_id)
    staging.begin_upload(PART, upload_id, b"f", DIGESTS)
    writer = staging.open_upload(PART, upload_id)
    with pytest.raises(UploadBusyError):
        staging.open_upload(PART, upload_id)
    writer.write(b"123")
    with pytest.raises(WrongSizeError):
        writer.finish(4)
    writer.write(b"4")
    assert writer.finish(4).digests == expect(b"1234")
    writer.close()


def test_an_empty_upload_finishes(staging: Staging) -> None:
    upload_id = new_id()
    staging.begin_upload(PART, upload_id, b"empty", DIGESTS)
    for _ in range(2):
        writer = staging.open_upload(PART, upload_id)
        assert writer.finish(0) == Received("empty", 0, expect(b""))
        writer.close()


@pytest.mark.parametrize("point", ["upload.flushed", "upload.noted", "upload.moved"])
def test_an_upload_that_dies_while_finishing_is_finished_again(lab: Lab, point: str) -> None:
    upload_id, data = new_id(), b"bytes" * 1000
    lab.storage.begin_upload(lab.part, upload_id, b"file", digests=DIGESTS)

    def act(storage: Storage) -> None:
        writer = storage.open_upload(lab.part, upload_id)
        writer.write(data[writer.offset :])
        writer.finish(len(data))

    assert lab.crash_at(point, act)
    writer = lab.storage.open_upload(lab.part, upload_id)
    writer.write(data[writer.offset :]) if writer.offset else None
    received = writer.finish(len(data))
    writer.close()
    assert received == Received("file", len(data), expect(data))
    assert b"".join(lab.storage.read_staged(lab.part, "file")) == data


KILLED = """
import sys
from pathlib import Path
from uuid import UUID
from perdure.adapters.posix.store import PosixStore
from perdure.storage.model import PartRef
from perdure.storage.staging import Staging
from perdure.testing.stores import INSTANCE
store = PosixStore("first", Path(sys.argv[1]))
store.prepare(INSTANCE)
writer = Staging(store).open_upload(PartRef(UUID(sys.argv[2]), UUID(sys.argv[3])), UUID(sys.argv[4]))
data = Path(sys.argv[5]).read_bytes()
for start in range(writer.offset, len(data), 65536):
    writer.write(data[start:start + 65536])
    if start // 65536 % 4 == 3:
        print(writer.flush_durable(), flush=True)
"""


def test_a_killed_upload_goes_on_and_has_the_right_digest(staging: Staging, tmp_path: Path) -> None:
    data, upload_id = os.urandom(48 << 20), new_id()
    (tmp_path / "data").write_bytes(data)
    staging.begin_upload(PART, upload_id, b"file", DIGESTS)
    names = [str(tmp_path / "store"), str(PART.archive_id), str(PART.part_id), str(upload_id), str(tmp_path / "data")]
    with subprocess.Popen([sys.executable, "-c", KILLED, *names], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(3)][-1]
        time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    writer = staging.open_upload(PART, upload_id)
    assert acknowledged <= writer.offset <= len(data)
    writer.write(data[writer.offset :])
    received = writer.finish(len(data))
    writer.close()
    assert received.digests == expect(data)
    assert read(staging, received) == data


# Room


@pytest.fixture
def tight(tmp_path: Path) -> Iterator[PosixStore]:
    """A store on a file system of 8 MiB."""
    place = tmp_path / "tight"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount: a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        store = PosixStore("tight", place / "store")
        store.prepare(INSTANCE)
        yield store
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_said_and_leaves_nothing(tight: PosixStore, tmp_path: Path) -> None:
    staging = Staging(tight)
    kept = staging.write_small(PART, b"kept", b"k" * 1000, DIGESTS)
    writer = staging.begin_file(PART, b"stream", DIGESTS)
    with pytest.raises(StoreFullError):
        writer.write(b"x" * (20 << 20))
    with pytest.raises(StoreFullError):
        staging.write_small(PART, b"small", b"x" * (9 << 20), DIGESTS)
    (tmp_path / "source").write_bytes(b"y" * (12 << 20))
    with pytest.raises(StoreFullError):
        staging.copy_in(PART, tmp_path / "source", b"copied", DIGESTS, None)
    tree = f"{PART.archive_id}/{PART.part_id}"
    assert dict(tight.walk_tree(tree)) == {"v1/content/data/kept": 1000}
    tight.sync_tree(tree)
    assert read(staging, kept) == b"k" * 1000
    assert staging.write_small(PART, b"after", b"a", DIGESTS).size == 1


def test_an_upload_that_meets_a_full_disk_goes_on_when_there_is_room(tight: PosixStore, tmp_path: Path) -> None:
    staging, upload_id, data = Staging(tight), new_id(), os.urandom(6 << 20)
    hog = staging.begin_file(PART, b"hog", DIGESTS)
    hog.write(b"h" * (4 << 20))
    staging.begin_upload(PART, upload_id, b"file", DIGESTS)
    writer = staging.open_upload(PART, upload_id)
    writer.write(data[: 1 << 20])
    writer.flush_durable()
    with pytest.raises(StoreFullError):
        writer.write(data[1 << 20 :])
    writer.close()
    hog.abort()
    writer = staging.open_upload(PART, upload_id)
    assert writer.offset == 1 << 20
    writer.write(data[1 << 20 :])
    assert writer.finish(len(data)).digests == expect(data)
    writer.close()


def test_the_reserve_is_refused_before_bytes_flow(module_db: Database) -> None:
    with module_db.begin() as tx:
        tx.exec_driver_sql("TRUNCATE stores, objects, copies CASCADE")
    storage = Storage(module_db, [MemoryStore(capacity=1000)], instance_id=INSTANCE)
    storage.prepare()
    storage.check_room(950)
    with pytest.raises(StoreFullError):
        storage.check_room(951)


def test_staged_files_are_read_and_discarded(lab: Lab) -> None:
    lab.stage({b"a": b"12345", b"b": b""})
    assert b"".join(lab.storage.read_staged(lab.part, "a", 1, 3)) == b"234"
    assert lab.storage.staged_size(lab.part, "a") == 5
    assert lab.storage.discard_staged(lab.part, ["a", "a"]) == 1
    with pytest.raises(UnknownObjectError):
        lab.storage.staged_size(lab.part, "a")
    with pytest.raises(UnknownObjectError):
        next(lab.storage.read_staged(lab.part, "a"))
    lab.storage.log_staged(lab.part, [b"{}"])
    assert [staged.part for staged in lab.storage.iter_staged()] == [lab.part]
    lab.storage.discard_archive(lab.part.archive_id)
    assert list(lab.storage.iter_staged()) == []
    assert lab.storage.read_staged_log(lab.part).lines == []
