"""Hostile names and files through every door: each is stored as it is or refused with its reason, nowhere else (I5)."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from perdure.kernel.paths import find_path_problem
from perdure.testing.app import start_application

from .doors_in import DOORS, Account, House, digest_of, digest_tree, place_file, walk

pytestmark = pytest.mark.slow
Judge = Callable[[Path], None]
_numbers = count()

KEPT = [
    b"new\nline", b"return\r", b"tab\t", b"escape\x1b[31m", b"bell\x07", b"delete\x7f", b"\x01", b" ", b"  leading",
    b"trailing ", b"trailing.", b"...", b"..x", b"x..", b"x/..y", b".hidden", b"-rf", b"--", b"~", b"~root/x",
    b"$(reboot)", b"`id`", b"*?<>|", b"'", b'"', b"\\", b"C:\\x", b"a:stream", b"CON", b"con/x", b"nul.txt",
    b"LPT1", b"%2F", b"%00", b"%", b"%zz", b"%25", b"a%2Fb", b"+", b"a b", b"a?b#c", b"&amp;", b"<script>",
    b"inventory.json", b"inventory.json.sha512", b"0=ocfl_object_1.1", b"v1/content/x", b"v1/inventory.json",
    b"extensions/x", b"data/x", b"meta/manifest.ndjson.gz", b"manifest.ndjson", b"statement.json",
    b"_/" + b"0" * 64, b"staging/x", b".nfs0001", b"x.part", b"Case", b"case", b"CASE/x", b"cAse2/x", b"Case2/x",
    "caf\u00e9".encode(), "cafe\u0301".encode(), "\u00c5".encode(), "A\u030a".encode(), "\u212b".encode(),
    "ﬁle".encode(), b"file", b"latin-\xe9", b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80",
    b"half\xe2\x82", "😀/🏳️‍🌈".encode(), "\u202ereversed".encode(), "\u200b".encode(), "\ufeff".encode(),
    "\u2028".encode(), "ß".encode(), b"ss", "İ".encode(), "ı".encode(), b"n" * 255, b"long/" + b"n" * 255,
    b"d/" * 499 + b"f", (b"p" * 249 + b"/") * 9 + b"q" * 250,
]  # fmt: skip
REFUSED = [
    b"..", b".", b"../x", b"x/../y", b"x/./y", b"x/..", b"/etc/x", b"//x", b"x//y", b"x/", b"/", b"nul\0",
    b"nul\0/x", b"n" * 256, b"x/" + b"n" * 256, (b"p" * 249 + b"/") * 10 + b"q", (b"p" * 249 + b"/") * 20 + b"q",
]  # fmt: skip


@pytest.fixture(scope="module")
def top() -> Iterator[Path]:
    """A folder that another program removes: Python's own removal recurses too deep for what lies in it."""
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture(scope="module")
def house(postgres: Any, top: Path, require_valid: Judge) -> Iterator[House]:
    folder = top
    sources = folder / "sources"
    sources.mkdir()
    url = postgres.make_ready()
    with start_application(folder / "data", database_url=url, ingest_roots=[str(sources)]) as running:
        made = House(running, sources)
        with made.client:
            yield made
    for name in ("first", "second"):
        require_valid(folder / "data" / "stores" / name / "root")
    postgres.drop(url)


@pytest.fixture
def tmp_path(top: Path) -> Path:
    folder = top / f"test-{next(_numbers)}"
    folder.mkdir()
    return folder


@pytest.fixture
def source(house: House) -> Path:
    """An empty folder that the server may read."""
    folder = house.sources / str(next(_numbers))
    folder.mkdir()
    return folder


def number(paths: list[bytes]) -> dict[bytes, bytes]:
    """A content of its own for each path."""
    return {path: b"content %d" % index for index, path in enumerate(paths)}


def bring_in(house: House, files: Mapping[bytes, bytes], source: Path) -> dict[str, tuple[str, Account]]:
    """The same files through every door, each into an archive of its own; on disk only what can be there."""
    for path, data in files.items():
        place_file(source, path, data)
    archives = {door: house.open(door) for door in DOORS}
    accounts = {door: house.bring(door, archives[door], files, source) for door in DOORS}
    for account in accounts.values():
        account.require_whole()
    return {name: (archives[name], account) for name, account in accounts.items()}


def test_a_name_has_one_verdict_at_every_door_and_comes_back_as_it_went(
    house: House, source: Path, tmp_path: Path
) -> None:
    files = number(KEPT + REFUSED)
    assert len(files) == len(KEPT) + len(REFUSED), "a name is in the lists twice"
    expected = {path: digest_of(files[path]) for path in KEPT}
    for door, (archive, account) in bring_in(house, files, source).items():
        wanted = expected if door not in ("put", "ingest") else {p: d for p, d in expected.items() if p in walk(source)}
        assert len(wanted) == len(expected), "every good name can be on a disk"
        assert account.stored == set(KEPT), door
        for path, reason in account.refused.items():
            assert (find_path_problem(path) or "?") in reason or "File name too long" in reason, (door, path, reason)
        assert house.digests(archive) == wanted
        if door in ("stream", "ingest"):
            assert house.by_read(archive) == wanted
            house.client.close(archive)
            require_identical(house, archive, wanted, tmp_path / door)


def require_identical(house: House, archive: str, expected: Mapping[bytes, str], folder: Path) -> None:
    """In the list, by `perdure get`, in the ZIP and in the tar: the same names with the same bytes."""
    assert house.digests(archive) == expected
    assert house.by_get(archive, folder) == expected
    for packed in (house.by_zip(archive), house.by_tar(archive)):
        assert {path: packed.get(path) for path in expected} == expected


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("first", "second"), [(b"a", b"a/b"), (b"a/b", b"a"), (b"a/b/c", b"a/b")])
def test_a_file_and_a_folder_of_one_name_do_not_meet(
    house: House, source: Path, door: str, first: bytes, second: bytes
) -> None:
    archive = house.open(door)
    for turn, path in enumerate((first, second)):
        folder = source / str(turn)
        folder.mkdir()
        assert place_file(folder, path, b"%d" % turn)
        account = house.bring(door, archive, {path: b"%d" % turn}, folder)
        assert (path in account.refused) is bool(turn), account
    assert house.digests(archive) == {first: digest_of(b"0")}


def make_zoo(folder: Path) -> tuple[dict[bytes, str], set[bytes]]:
    """Everything that can lie in a folder; what must be stored, by kind, and what must be refused."""
    (folder / "sub/inner").mkdir(parents=True)
    (folder / "empty-folder/nested").mkdir(parents=True)
    (folder / "file").write_bytes(b"x")
    (folder / "empty").write_bytes(b"")
    (folder / "sub/inner/deep").write_bytes(b"y")
    os.link(folder / "file", folder / "hard-link")
    with (folder / "sparse").open("wb") as stream:
        stream.seek(24 << 20)
        stream.write(b"end")
    kept = dict.fromkeys((b"file", b"empty", b"sub/inner/deep", b"hard-link", b"sparse"), "file")
    kept[b"empty-folder/nested"] = "directory"
    links = {
        "to-file": "file", "to-folder": "sub", "dangling": "nothing", "loop": "loop", "to-self": ".",
        "sub/up": "../file",
        "sub/round": "../sub/inner/../../file",
    }  # fmt: skip
    out = {
        "out": "../secret",
        "sub/far-out": "../../secret",
        "absolute": "/etc/passwd",
        "sub/etc": "/",
        "sly": "sub/../../x",
    }
    for name, target in {**links, **out}.items():
        (folder / name).symlink_to(target)
    os.symlink(b"\xff\xfe", os.fsencode(folder) + b"/to-bytes")
    kept |= {os.fsencode(name): "symlink" for name in (*links, "to-bytes")}
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(folder, os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    refused = {*map(os.fsencode, out), b"pipe", b"socket"}
    with suppress(PermissionError):
        os.mknod(folder / "device", stat.S_IFCHR | 0o600, os.makedev(1, 5))  # endless zeros
        refused.add(b"device")
    return kept, refused


@pytest.mark.parametrize("door", ["put", "ingest"])
def test_everything_in_a_folder_is_kept_or_refused(house: House, source: Path, tmp_path: Path, door: str) -> None:
    kept, refused = make_zoo(source)
    archive = house.open(door)
    account = house.bring(door, archive, {}, source)
    account.require_whole()
    assert account.refused.keys() == refused
    listed = {entry.path: entry for entry in house.client.entries(archive, recursive=True)}
    assert {path: entry.kind for path, entry in listed.items()} == kept
    for path, kind in kept.items():
        if kind == "symlink":
            assert listed[path].target == os.readlink(os.fsencode(source) + b"/" + path)
    house.client.close(archive)
    report = house.client.get(archive, tmp_path / "back")
    assert report.refused == []
    wanted = {path: mode for path, mode in walk(source).items() if path in kept}
    assert walk(tmp_path / "back").keys() == wanted.keys()
    assert digest_tree(tmp_path / "back") == {p: d for p, d in digest_tree(source).items() if p in kept}


@pytest.mark.parametrize("door", ["put", "ingest"])
def test_what_moves_while_it_is_read_is_one_state_of_it_or_refused(
    house: House, source: Path, tmp_path: Path, door: str
) -> None:
    """Somebody writes, cuts, replaces and moves all the time, and puts a link in the place of a folder."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "inside").write_bytes(b"not meant")
    (source / "folder").mkdir()
    (source / "folder/inside").write_bytes(b"meant")
    restless = Restless(source, secret)
    archive = house.open(door)
    with restless:
        for _ in range(6):
            account = house.bring(door, archive, {}, source)
            assert all(account.refused.values())
            for path in house.digests(archive):
                data = house.client.read(archive, path)
                assert restless.was(path, data), (path, len(data), data[:20])
    house.client.close(archive)


class Restless:
    """Changes files below a folder in a thread for as long as the block lasts."""

    _PATTERN = bytes(range(251)) * 1000

    def __init__(self, folder: Path, secret: Path) -> None:
        self._folder, self._secret = folder, secret
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def was(self, path: bytes, data: bytes) -> bool:
        """Whether the file at a path ever had this content."""
        if path in (b"grows", b"shrinks"):
            return self._PATTERN.startswith(data)
        wanted = {
            b"comes-and-goes": {b"here"},
            b"swapped": {b"one" * 1000, b"two" * 1000},
            b"folder/inside": {b"meant"},
        }
        return data in wanted[path]

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        folder, turn = self._folder, 0
        while not self._stop.is_set():
            turn += 1
            self._write("grows", self._PATTERN[: turn * 997 % len(self._PATTERN)])
            self._write("shrinks", self._PATTERN)
            os.truncate(folder / "shrinks", turn * 991 % len(self._PATTERN))
            (folder / "comes-and-goes").write_bytes(b"here")
            (folder / ".swap").write_bytes(b"one" * 1000 if turn % 2 else b"two" * 1000)
            (folder / ".swap").rename(folder / "swapped")
            (folder / "folder").rename(folder.parent / f"{folder.name}-aside")
            (folder / "folder").symlink_to(self._secret)
            (folder / "folder").unlink()
            (folder.parent / f"{folder.name}-aside").rename(folder / "folder")
            (folder / "comes-and-goes").unlink()

    def _write(self, name: str, data: bytes) -> None:
        """Let a file grow by pieces of what it will be, from nothing."""
        with (self._folder / name).open("wb") as stream:
            for start in range(0, len(data), 50_000):
                stream.write(data[start : start + 50_000])
                stream.flush()


@pytest.mark.parametrize("door", ["put", "ingest"])
def test_what_cannot_be_read_is_refused_and_the_rest_is_kept(
    house: House, source: Path, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mode of 0 does not stop root, as whom tests may run; a descriptor of no file does."""
    (source / "good").write_bytes(b"good")
    (source / "locked").mkdir()
    (source / "locked/file").write_bytes(b"x")
    opening = os.open

    def refuse(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if isinstance(path, bytes) and path.rpartition(b"/")[2] == b"locked":
            raise PermissionError(13, "Permission denied")
        return opening(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    archive = house.open(door)
    account = house.bring(door, archive, {}, source)
    monkeypatch.undo()
    account.require_whole()
    assert account.stored == {b"good"}
    assert [reason for reason in account.refused.values() if "Permission denied" in reason]


@pytest.mark.parametrize("door", ["put", "ingest"])
def test_more_folders_than_a_process_may_have_open(house: House, source: Path, door: str) -> None:
    """A folder for each scan, as instruments make them, and one that is nested as deep as a path may be."""
    folders = 1100
    for index in range(folders):
        (source / f"{index:04d}").mkdir()
        (source / f"{index:04d}/f").write_bytes(b"%d" % index)
    assert place_file(source, b"d/" * 1200 + b"f", b"deep")
    archive = house.open(door)
    account = house.bring(door, archive, {}, source)
    account.require_whole()
    assert account.refused == {}
    assert len(account.stored) == folders + 1


def test_real_files_are_the_same_by_every_door(house: House, source: Path, nexus_data: Path, tmp_path: Path) -> None:
    found = sorted((path for path in nexus_data.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)[:4]
    files = {os.fsencode(path.name): path.read_bytes() for path in found}
    expected = {path: digest_of(data) for path, data in files.items()}
    for door, (archive, account) in bring_in(house, files, source).items():
        assert account.refused == {}
        require_identical(house, archive, expected, tmp_path / door)
