"""A walk of a folder accounts for everything it sees, and what changes while it is read is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perdure_client.errors import SourceChangedError, UsageError
from perdure_client.local import open_source, read_whole, scan_sources


def test_everything_seen_is_sent_or_refused_with_a_reason(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "empty").mkdir(parents=True)
    (top / "sub").mkdir()
    (top / "sub/file").write_text("x")
    (top / "inside").symlink_to("sub/file")
    (top / "outside").symlink_to("../../secret")
    (top / "absolute").symlink_to("/etc/passwd")
    os.mkfifo(top / "pipe")
    os.close(os.open(os.fsencode(top) + b"/latin-\xe9", os.O_CREAT | os.O_WRONLY))
    tree = scan_sources([str(top)])
    assert {item.path: item.kind for item in tree.items} == {
        b"empty": "directory",
        b"sub/file": "file",
        b"inside": "symlink",
        b"latin-\xe9": "file",
    }
    assert {path for path, _ in tree.refused} == {b"outside", b"absolute", b"pipe"}
    assert all(reason for _, reason in tree.refused)


def test_a_file_goes_by_its_name_and_into_is_put_before(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("1")
    assert [item.path for item in scan_sources([str(tmp_path / "one.txt")], b"in/to").items] == [b"in/to/one.txt"]


def test_two_sources_with_one_path_are_not_silently_merged(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same").write_text(name)
    tree = scan_sources([str(tmp_path / "a"), str(tmp_path / "b")])
    assert len(tree.items) == 1
    assert "two sources" in tree.refused[0][1]


def test_a_missing_source_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        scan_sources([str(tmp_path / "none")])


def test_a_file_that_changed_since_the_walk_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "f"
    place.write_bytes(b"12345")
    (item,) = scan_sources([str(place)]).items
    room = memoryview(bytearray(8))
    assert bytes(read_whole(item, room)) == b"12345"
    place.write_bytes(b"123456")
    with pytest.raises(SourceChangedError):
        read_whole(item, room)


def test_a_file_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    place, secret = tmp_path / "f", tmp_path / "secret"
    place.write_bytes(b"12345")
    secret.write_bytes(b"54321")
    (item,) = scan_sources([str(place)]).items
    place.unlink()
    place.symlink_to(secret)
    with pytest.raises(SourceChangedError):
        open_source(item)


def test_a_folder_that_cannot_be_listed_is_refused_not_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = tmp_path / "top" / "locked"
    locked.mkdir(parents=True)
    opening = os.open

    def refuse(path: bytes, flags: int) -> int:
        if path.endswith(b"locked"):
            raise PermissionError(13, "Permission denied")
        return opening(path, flags)

    monkeypatch.setattr(os, "open", refuse)  # a mode of 0 does not stop root, as whom tests may run
    tree = scan_sources([str(tmp_path / "top")])
    assert tree.refused == [(b"locked", "the folder cannot be read: Permission denied")]


@pytest.mark.parametrize("place", ["elsewhere", "link"])
def test_a_folder_that_gives_way_to_another_is_not_walked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Between the look at it and its listing: nobody leads the walk to what was not meant."""
    top, secret = tmp_path / "top", tmp_path / "secret"
    for folder in (top / "a", top / "b", secret):
        folder.mkdir(parents=True)
    (top / "b/file").write_text("meant")
    (secret / "key").write_text("not meant")
    opening = os.open

    def swap(path: bytes, flags: int) -> int:
        if path.endswith(b"/b") and (top / "b/file").exists():
            (top / "b").rename(tmp_path / "aside")
            if place == "link":
                (top / "b").symlink_to(secret)
            else:
                secret.rename(top / "b")
        return opening(path, flags)

    monkeypatch.setattr(os, "open", swap)
    tree = scan_sources([str(top)])
    assert [item.path for item in tree.items] == [b"a"]
    assert [path for path, _ in tree.refused] == [b"b"]


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    place = tmp_path / "f"
    place.write_bytes(b"12345")
    (item,) = scan_sources([str(place)]).items
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(SourceChangedError):
        read_whole(item, memoryview(bytearray(8)))


def test_a_link_that_vanishes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to("target")

    def vanish(path: bytes, *, dir_fd: int | None = None) -> bytes:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "readlink", vanish)
    assert [path for path, _ in scan_sources([str(tmp_path)]).refused] == [b"link"]
