"""A folder of the server goes in: every name is counted, and a second time nothing is sent."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from perdure.archives import ingesting
from perdure.archives.errors import FolderNotAllowedError
from perdure.archives.ingesting import Found, iter_batches, iter_found, open_without_links
from perdure.archives.model import Archive, EntryKind
from perdure.identity import Grantee, Role
from perdure.kernel.actor import Actor
from perdure.kernel.errors import BadInputError
from perdure.storage.copying import Looking
from perdure.storage.errors import SourceChangedError
from perdure.storage.staging import Staging

from .workshop import Workshop, digest_of, require_success


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "sources" / "run"
    for name, data in {"a.h5": b"alpha", "deep/er/b": b"beta", "deep/c": b"", "skip.tmp": b"no"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "hollow").mkdir()
    return root


def ingest(shop: Workshop, archive: Archive, folder: Path, **options: Any) -> dict[str, Any]:
    job = shop.filling.start_ingest(shop.ada, archive.id, str(folder), **options)
    shop.run()
    view = shop.job(job)
    require_success(view)
    assert view.result is not None
    result: dict[str, Any] = dict(view.result)
    assert result["counted"] == result["stored"] + result["present"] + result["refused"]
    return result


def test_a_folder_goes_in_once(shop: Workshop, source: Path) -> None:
    archive = shop.open()
    first = ingest(shop, archive, source, into=b"raw", exclude=["*.tmp"])
    assert (first["counted"], first["stored"], first["bytes"]) == (4, 4, 9)
    second = ingest(shop, archive, source, into=b"raw", exclude=["*.tmp"])
    assert (second["stored"], second["present"]) == (0, 4)
    (source / "a.h5").write_bytes(b"changed")
    assert ingest(shop, archive, source, into=b"raw", exclude=["*.tmp"])["stored"] == 1
    closed = shop.close(archive)
    assert shop.contents(closed) == {b"raw/a.h5": b"changed", b"raw/deep/er/b": b"beta", b"raw/deep/c": b""}
    entry = shop.tree(closed)[b"raw/a.h5"]
    assert entry.mtime_ns == (source / "a.h5").stat().st_mtime_ns
    assert shop.tree(closed)[b"raw/hollow"].kind is EntryKind.DIRECTORY


def test_what_is_no_file_is_refused_with_its_reason(
    shop: Workshop, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(source / "pipe")
    os.symlink("deep/c", source / "inside")
    os.symlink("../../elsewhere", source / "outside")
    os.symlink("/etc/passwd", source / "absolute")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(source)  # the address of a socket is short
        server.bind("socket")
    archive = shop.open()
    result = ingest(shop, archive, source)
    refused = {one["path"]: one["reason"] for one in result["refusals"]}
    assert refused.keys() == {"pipe", "outside", "absolute", "socket"}
    assert "pipe" in refused["pipe"]
    assert shop.tree(archive)[b"inside"].target == b"deep/c"


def test_hostile_names_go_in_as_they_are(shop: Workshop, source: Path) -> None:
    names = [b"new\nline", b"latin-\xe9", "nfd-e\u0301".encode(), "nfc-\u00e9".encode(), b"-rf", b"n" * 255, b"CON"]
    for name in names:
        (source / os.fsdecode(name)).write_bytes(name)
    archive = shop.open()
    ingest(shop, archive, source)
    closed = shop.close(archive)
    for name in names:
        assert shop.read(closed, name) == name


def test_a_file_that_changes_while_it_is_read_is_refused(
    shop: Workshop, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_in = Staging.copy_in

    def unlucky(staging: Staging, part: Any, name: bytes, *rest: Any) -> Any:
        if name == b"a.h5":
            raise SourceChangedError("a.h5 changed while it was read.")
        return copy_in(staging, part, name, *rest)

    monkeypatch.setattr(Staging, "copy_in", unlucky)
    result = ingest(shop, shop.open(), source)
    assert [one["path"] for one in result["refusals"]] == ["a.h5"]


@pytest.mark.parametrize("others", [0, 40])  # many at once are copied by a helper, where the store can have one
def test_what_was_read_is_told_and_not_what_was_found(
    shop: Workshop, source: Path, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    for number in range(others):
        (source / f"other-{number}").write_bytes(b"same")
    changed, find_batches = source / "a.h5", ingesting.iter_batches

    def change_what_was_found(walk: Iterator[Found]) -> Iterator[list[Found]]:
        for batch in find_batches(walk):
            changed.write_bytes(b"longer than it was")
            changed.chmod(0o640)
            os.utime(changed, ns=(7, 7))
            yield batch

    monkeypatch.setattr(ingesting, "iter_batches", change_what_was_found)
    archive = shop.open()
    ingest(shop, archive, source)
    entry = shop.tree(archive)[b"a.h5"]
    assert (entry.size, entry.mtime_ns, entry.mode) == (18, 7, 0o640)
    assert entry.digests["sha512"] == digest_of(b"longer than it was")


def test_many_small_files_go_in_beside_large_ones_links_and_folders(shop: Workshop, source: Path) -> None:
    contents = {f"many/{number % 7}/{number:04d}".encode(): b"%d" % number * 9 for number in range(600)}
    contents |= {b"many/large": os.urandom(3 << 20), b"many/3/caf\xe9": b"latin", b"many/3/new\nline": b""}
    for path, data in contents.items():
        place = os.fsencode(source) + b"/" + path
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as stream:
            stream.write(data)
    os.mkfifo(source / "many" / "fifo")
    archive = shop.open()
    result = ingest(shop, archive, source / "many")
    assert (result["stored"], result["refused"]) == (len(contents), 1)
    closed = shop.close(archive)
    assert shop.contents(closed) == {path.removeprefix(b"many/"): data for path, data in contents.items()}


def test_more_folders_are_walked_than_a_process_may_open(source: Path) -> None:
    for number in range(800):
        (source / f"folder-{number}").mkdir()
        (source / f"folder-{number}" / "x").touch()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 400, hard))
    try:
        found = [len(batch) for batch in iter_batches(iter_found(open_without_links(str(source)), Looking(None)))]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sum(found) == 805


@pytest.mark.parametrize("loss", ["role", "identity"])
def test_an_ingest_ends_with_the_right_of_him_who_asked(
    shop: Workshop, source: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    archive, bob = shop.open(), shop.join("bob")
    assert bob.identity_id is not None
    grant = shop.life.grant(shop.ada, archive.id, Grantee(identity_id=bob.identity_id), Role.CONTRIBUTOR)
    monkeypatch.setattr(ingesting, "_BATCH_FILES", 1)
    take = ingesting.Ingesting._take

    def take_and_lose(self: Any, actor: Actor, archive_id: UUID, *rest: Any) -> Any:
        taken = take(self, actor, archive_id, *rest)
        if loss == "role":
            shop.life.revoke(shop.ada, archive_id, grant.id)
        else:
            shop.ctx.identity.disable_identity(shop.administrator, actor.identity_id or archive_id)
        return taken

    monkeypatch.setattr(ingesting.Ingesting, "_take", take_and_lose)
    job = shop.filling.start_ingest(bob, archive.id, str(source))
    shop.run()
    assert (shop.job(job).error or {})["code"] == "not_allowed"
    assert len(shop.tree(archive)) == 1


def test_a_link_put_above_the_folder_after_the_look_is_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "root" / "way" / "scan", tmp_path / "outside" / "scan"
    inside.mkdir(parents=True)
    outside.mkdir(parents=True)
    looked_at = os.path.realpath(inside)
    found = open_without_links(looked_at)
    assert os.path.samestat(os.fstat(found.descriptor), os.stat(inside))
    (tmp_path / "root" / "way").rename(tmp_path / "root" / "aside")
    (tmp_path / "root" / "way").symlink_to(tmp_path / "outside")
    with pytest.raises(FolderNotAllowedError):
        open_without_links(looked_at)


def test_only_allowed_folders_are_read(shop: Workshop, source: Path, tmp_path: Path) -> None:
    archive = shop.open()
    os.symlink(tmp_path / "keys", source / "way-out")
    for folder in ("/etc", str(source / ".." / ".." / "keys"), str(source / "way-out"), str(tmp_path / "sources-2")):
        with pytest.raises(FolderNotAllowedError):
            shop.filling.start_ingest(shop.ada, archive.id, folder)
    with pytest.raises(BadInputError):
        shop.filling.start_ingest(shop.ada, archive.id, str(source / "missing"))
