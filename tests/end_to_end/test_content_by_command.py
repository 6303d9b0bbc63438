"""Content by command: it goes in and comes back, is proved without the server, and is refused once it is closed."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from perdure_client import ApiError, Client

from .running import (
    CONFLICT,
    DAMAGED,
    NOT_ALLOWED,
    NOT_THERE,
    PARTLY,
    USAGE,
    Command,
    Server,
    fill,
    wait_for,
)


def digests(folder: Path) -> dict[str, str]:
    """Every path below a folder: the digest of a file, the target of a link, the mark of a folder."""
    found = {}
    for place in sorted(folder.rglob("*")):
        name = str(place.relative_to(folder))
        if place.is_symlink():
            found[name] = f"-> {place.readlink()}"
        else:
            found[name] = hashlib.sha512(place.read_bytes()).hexdigest() if place.is_file() else "folder"
    return found


@pytest.fixture
def fetched(perdure: Command, closed: tuple[str, Path]) -> Path:
    """The closed archive fetched with its proof into `copy` and `copy.proof`."""
    perdure("get", closed[0], "--to", "copy", "--proof")
    return perdure.folder / "copy"


# Content


def test_put_again_sends_nothing_and_get_again_fetches_nothing(perdure: Command) -> None:
    source, archive = fill(perdure.folder / "source"), perdure.create("Twice")
    (source / "pipe").touch()
    os.unlink(source / "pipe")
    os.mkfifo(source / "pipe")
    (source / "outside").symlink_to("/etc/passwd")
    first = perdure("put", archive, "source", "--json", code=PARTLY).json
    assert (first["seen"], first["stored"], first["present"]) == (12, 10, 0)
    assert {one["path"] for one in first["refused"]} == {"pipe", "outside"}
    os.unlink(source / "pipe")
    os.unlink(source / "outside")
    again = perdure("put", archive, "source", "--json").json
    assert (again["stored"], again["present"], again["bytes_sent"], again["refused"]) == (0, 10, 0, [])
    assert "10 files were there already" in perdure("put", archive, "source", "--checksum").out

    got = perdure("get", archive, "--to", "copy", "--json").json
    assert (got["fetched"], got["kept"], got["refused"]) == (8, 0, [])
    assert digests(perdure.folder / "copy") == digests(source)
    assert (perdure.folder / "copy" / "empty").stat().st_mtime_ns == (source / "empty").stat().st_mtime_ns
    again = perdure("get", archive, "--to", "copy", "--json").json
    assert (again["fetched"], again["kept"], again["bytes_received"]) == (0, 8, 0)
    (perdure.folder / "copy" / "scans" / "1.csv").write_text("x")
    assert "7 files already here" in perdure("get", archive, "--to", "copy").out
    assert digests(perdure.folder / "copy") == digests(source)
    some = perdure("get", archive, "scans/2.csv", "latest", "--to", "some", "--json").json
    assert some["fetched"] == 1
    assert sorted(digests(perdure.folder / "some")) == ["latest", "scans", "scans/2.csv"]
    perdure("get", archive, "not there", code=NOT_THERE)


def test_what_is_different_is_sent_and_what_is_removed_is_gone(perdure: Command) -> None:
    (perdure.folder / "a").write_text("one")
    archive = perdure.create("Changing")
    perdure("put", archive, "a")
    perdure("put", archive, "a", "--into", "below/here")
    (perdure.folder / "a").write_text("two")
    assert perdure("put", archive, "a", "--json").json["stored"] == 1
    assert [one["path"] for one in perdure("ls", archive, "--json").lines] == ["a", "below"]
    assert perdure("ls", archive, "below").out == "below/here/\n"
    assert perdure("ls", archive, "below", "-R").out == "below/here/a\n"
    long = perdure("ls", archive, "-l").out.splitlines()
    assert long[0].split() == ["mode", "size", "modified", "digest", "path"]
    assert hashlib.sha512(b"two").hexdigest()[:12] in long[1]
    removed = perdure("rm", archive, "below", "not there", "--json").json
    assert (removed["removed"], removed["hidden"], removed["missing"]) == (1, 0, [{"path": "not there"}])
    assert perdure("rm", archive, "a").out == "Removed 1, hidden 0.\n"
    assert perdure("ls", archive, "-R").out == ""
    perdure("archive", "discard", archive, "--yes")


def test_ingest_reads_a_folder_of_the_server(perdure: Command, ingest_root: Path) -> None:
    source, archive = fill(ingest_root / "run 1"), perdure.create("Ingested")
    perdure("ingest", archive, "/etc", code=NOT_ALLOWED)
    assert "10 stored, 0 present, 0 refused" in perdure("ingest", archive, str(source)).out
    os.mkfifo(source / "pipe")
    result = perdure("ingest", archive, str(source), "--json", code=PARTLY).json["result"]
    assert (result["counted"], result["stored"], result["present"], result["refused"]) == (11, 0, 10, 1)
    assert "refused: pipe" in perdure("ingest", archive, str(source), code=PARTLY).err
    os.unlink(source / "pipe")
    job = perdure("ingest", archive, str(source), "--into", "again", "--no-wait", "--json").json
    perdure("job", "wait", job["id"])
    assert perdure("put", archive, str(source), "--into", "again", "--json").json["stored"] == 0
    assert len(perdure("ls", archive, "again", "-R", "--json").lines) == 10
    perdure("archive", "discard", archive, "--yes")
    shutil.rmtree(source)


def test_a_file_that_changes_while_it_is_sent_is_refused_and_keeps_no_room(perdure: Command, client: Client) -> None:
    archive = perdure.create("Restless")
    place = perdure.folder / "restless.bin"
    place.write_bytes(bytes(200 << 20))
    with _growing(place):
        said = perdure("put", archive, "restless.bin", "--json", code=PARTLY).json
    assert (said["stored"], [one["path"] for one in said["refused"]]) == (0, ["restless.bin"])
    assert client._transport.json("GET", f"/archives/{archive}/uploads")["items"] == []
    assert perdure("ls", archive).out == ""


@contextmanager
def _growing(place: Path) -> Iterator[None]:
    """A file that gets a further byte every few milliseconds."""
    is_over = threading.Event()

    def grow() -> None:
        with place.open("ab", buffering=0) as file:
            while not is_over.wait(0.005):
                file.write(b"x")

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


# Closing and what proves it


def test_a_closed_archive_shows_what_it_is(perdure: Command, closed: tuple[str, Path], server: Server) -> None:
    archive = closed[0]
    shown = perdure("archive", "show", archive, "--json").json
    assert (shown["state"], shown["file_count"]) == ("closed", 8)
    assert {(copy["store"], copy["state"]) for copy in shown["copies"]} == {
        ("first", "verified"),
        ("second", "verified"),
    }
    told = perdure("archive", "show", archive).out
    assert "a local test identifier" in told
    assert "copy in second: 2 of 2 objects verified" in told
    receipt = wait_for(lambda: perdure("archive", "receipt", archive).json)
    assert receipt["source_may_be_deleted"] is True
    again = perdure("archive", "close", archive, "--json").json
    assert (again["kind"], again["state"]) == ("archives.close", "succeeded")
    assert "copies of objects are good" in perdure("verify", archive).out
    assert perdure("verify", archive, "--json").json["result"]["good"] is True


def test_closing_may_be_left_and_watched(perdure: Command) -> None:
    archive = perdure.create("Watched")
    (perdure.folder / "a").write_text("a")
    perdure("put", archive, "a")
    job = perdure("archive", "close", archive, "--no-wait", "--json").json
    assert perdure("job", "wait", job["id"], "--json").json["state"] == "succeeded"
    assert "archives.close: succeeded" in perdure("job", "show", job["id"]).out
    assert perdure("job", "show", job["id"], "--json").json["error"] is None
    perdure("archive", "withdraw", archive, "--reason", "made for a test", stdin="wrong\n", code=USAGE)
    withdrawn = perdure("archive", "withdraw", archive, "--reason", "made for a test", "--yes", "--json").json
    assert withdrawn["state"] == "succeeded"
    assert "made for a test" in perdure("archive", "show", archive).out
    assert perdure("archive", "show", archive, "--json").json["state"] == "withdrawn"
    perdure("get", archive, code=NOT_THERE)
    types = [event["type"] for event in perdure("events", "--archive", archive, "--json").lines]
    assert [one for one in types if one in ("archive.opened", "archive.closed", "archive.withdrawn")] == [
        "archive.opened",
        "archive.closed",
        "archive.withdrawn",
    ]
    assert "archive.withdrawn" in perdure("events", "--archive", archive, "--after", "1").out


def test_a_fetched_folder_is_proved_without_the_server(
    perdure: Command, fetched: Path, closed: tuple[str, Path]
) -> None:
    assert digests(fetched) == digests(closed[1])
    alone = {"PERDURE_URL": "http://127.0.0.1:9", "PERDURE_CREDENTIALS": str(perdure.folder / "none.json")}
    proof = perdure.folder / "copy.proof"
    good = perdure("verify", "copy", "--proof", "copy.proof", "--json", environment=alone).json
    assert (good["good"], good["files"], len(good["statements"])) == (True, 8, 1)
    assert "none is missing" in perdure("verify", "copy", "--proof", "copy.proof", environment=alone).out
    checksums = ("--manifest", "copy.proof/manifest-sha512.txt")
    assert perdure("verify", "copy", *checksums, "--json", environment=alone).json["good"] is True
    subprocess.run(["sha512sum", "--quiet", "--strict", "-c", proof / "manifest-sha512.txt"], cwd=fetched, check=True)

    one = next(proof.glob("*.ndjson"))
    words = (
        "--manifest",
        str(one),
        "--statement",
        str(one.with_suffix(".json")),
        "--key",
        str(next(proof.glob("*.pem"))),
    )
    perdure("verify", "copy", *words, environment=alone)
    with gzip.open(perdure.folder / "m.gz", "wb") as packed:
        packed.write(one.read_bytes())
    perdure("verify", "copy", "--manifest", "m.gz", *words[2:], environment=alone)
    perdure("verify", "copy", "--statement", words[3], environment=alone, code=USAGE)
    perdure("verify", "copy", *words[:4], environment=alone, code=USAGE)


def test_a_flipped_bit_a_missing_and_an_extra_file_are_found(perdure: Command, fetched: Path) -> None:
    place = fetched / "scans" / "frames.bin"
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    stamp = place.stat()
    place.write_bytes(content)
    os.utime(place, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    (fetched / "scans" / "3.csv").unlink()
    (fetched / "scans" / "new").touch()
    found = perdure("verify", "copy", "--proof", "copy.proof", "--json", code=DAMAGED).json
    assert (found["changed"], found["missing"], found["extra"]) == (
        ["scans/frames.bin"],
        ["scans/3.csv"],
        ["scans/new"],
    )
    told = perdure("verify", "copy", "--proof", "copy.proof", code=DAMAGED)
    assert "1 changed, 1 missing, 1 extra, 0 unreadable of 8 files" in told.out
    assert "changed: scans/frames.bin" in told.err
    plain = subprocess.run(
        ["sha512sum", "--quiet", "-c", "../copy.proof/manifest-sha512.txt"],
        cwd=fetched,
        capture_output=True,
        text=True,
        check=False,
    )
    assert plain.returncode == 1
    assert "frames.bin: FAILED" in plain.stdout
    assert "3.csv: FAILED open or read" in plain.stdout


def test_a_proof_that_was_changed_proves_nothing(perdure: Command, fetched: Path) -> None:
    proof = perdure.folder / "copy.proof"
    manifest = next(proof.glob("*.ndjson"))
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(lines[1:]))
    assert "not the one that was signed" in perdure("verify", "copy", "--proof", "copy.proof", code=DAMAGED).err
    manifest.write_bytes(b"".join(lines))
    statement = manifest.with_suffix(".json")
    document: dict[str, Any] = json.loads(statement.read_text())
    statement.write_text(json.dumps({**document, "closed_at": "2020-01-01T00:00:00Z"}))
    assert "changed after it was signed" in perdure("verify", "copy", "--proof", "copy.proof", code=DAMAGED).err
    statement.write_text(json.dumps(document))
    perdure("verify", "copy", "--proof", "copy.proof")
    assert fetched.is_dir()


def test_a_rotated_key_leaves_old_statements_provable(
    perdure: Command, server: Server, fetched: Path, closed: tuple[str, Path]
) -> None:
    old = perdure("archive", "close", closed[0], "--json").json
    assert "signs" in server.admin("admin", "rotate-key")
    assert old["state"] == "succeeded"
    assert fetched.is_dir()
    (perdure.folder / "a").write_text("a")
    archive = perdure.create("After the rotation")
    perdure("put", archive, "a")
    perdure("archive", "close", archive)
    perdure("get", archive, "--to", "late", "--proof")
    perdure("verify", "late", "--proof", "late.proof")
    perdure("get", closed[0], "--to", "early", "--proof")
    perdure("verify", "early", "--proof", "early.proof")
    keys = {path.name for folder in ("late.proof", "early.proof") for path in (perdure.folder / folder).glob("*.pem")}
    assert len(keys) == 2


def test_a_damaged_copy_on_the_server_is_found(perdure: Command, server: Server) -> None:
    (perdure.folder / "data.bin").write_bytes(os.urandom(100_000))
    archive = perdure.create("Damaged")
    perdure("put", archive, "data.bin")
    perdure("archive", "close", archive)
    perdure("meta", "set", archive, "a=1")
    digest = hashlib.sha512((perdure.folder / "data.bin").read_bytes()).digest()
    (place,) = [
        path
        for path in (server.data / "stores" / "second" / "root").rglob("data.bin")
        if hashlib.sha512(path.read_bytes()).digest() == digest
    ]
    good = place.read_bytes()
    place.chmod(0o600)
    place.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    try:
        job = perdure("verify", archive, "--json", code=DAMAGED).json
        bad = [copy for copy in job["result"]["copies"] if not copy["good"]]
        assert [(copy["store"], copy["part"]) for copy in bad] == [("second", 1)]
        assert "data.bin" in perdure("verify", archive, code=DAMAGED).err
        assert "copy in second: 1 of 2 objects verified" in perdure("archive", "show", archive).out
        perdure("get", archive, "--to", "copy")
        assert (perdure.folder / "copy" / "data.bin").read_bytes() == good
    finally:
        place.write_bytes(good)


# Appending


def test_an_appended_archive_shows_and_proves_the_union(perdure: Command, closed: tuple[str, Path]) -> None:
    parent, source = closed
    child = perdure("archive", "append", parent, "--title", "December", "--json").json
    assert (child["title"], child["publisher"]) == ("December", "Example Source")
    assert perdure("put", child["short_id"], str(source), "--json").json["stored"] == 0
    (perdure.folder / "scans").mkdir()
    (perdure.folder / "scans" / "1.csv").write_text("replaced\n")
    (perdure.folder / "scans" / "5.csv").write_text("added\n")
    assert perdure("put", child["short_id"], "scans", "--into", "scans", "--json").json["stored"] == 2
    assert perdure("rm", child["short_id"], "scans/2.csv").out == "Removed 0, hidden 1.\n"
    own = perdure("ls", child["short_id"], "-R", "--own", "--json").lines
    assert [one["path"] for one in own] == ["scans/1.csv", "scans/5.csv"]
    perdure("archive", "close", child["short_id"])
    perdure("get", child["short_id"], "--to", "union", "--proof")
    expected = digests(source)
    expected |= {f"scans/{name}": hashlib.sha512(text).hexdigest() for name, text in (("1.csv", b"replaced\n"),)}
    expected |= {"scans/5.csv": hashlib.sha512(b"added\n").hexdigest()}
    del expected["scans/2.csv"]
    assert digests(perdure.folder / "union") == expected
    good = perdure("verify", "union", "--proof", "union.proof", "--json").json
    assert (good["good"], len(good["statements"])) == (True, 2)
    subprocess.run(
        ["sha512sum", "--quiet", "-c", "../union.proof/manifest-sha512.txt"], cwd=perdure.folder / "union", check=True
    )
    perdure("get", parent, "--to", "parent")
    assert digests(perdure.folder / "parent") == digests(source)
    perdure("archive", "withdraw", parent, "--reason", "children", "--yes", code=CONFLICT)
    perdure("archive", "append", perdure.create("Open"), code=CONFLICT)


# A closed archive refuses every change of its content


def test_a_closed_archive_refuses_every_way_in(
    perdure: Command, server: Server, client: Client, closed: tuple[str, Path], ingest_root: Path
) -> None:
    archive, source = closed
    before = perdure("ls", archive, "-R", "--json").out
    (perdure.folder / "new").write_text("new")
    (perdure.folder / "large").write_bytes(bytes(5 << 20))
    for words in (("put", archive, "new"), ("put", archive, "large"), ("put", archive, str(source), "--into", "x")):
        assert perdure(*words, "--json", code=CONFLICT).error["code"] == "archive_closed"
    assert perdure("rm", archive, "empty", "--json", code=CONFLICT).error["code"] == "archive_closed"
    assert perdure("ingest", archive, str(ingest_root), "--json", code=CONFLICT).error["code"] == "archive_closed"
    perdure("archive", "discard", archive, "--yes", code=CONFLICT)
    data = f"http://127.0.0.1:{server.data_port}/api/v1/archives/{archive}"
    index = b'{"items":[{"path":"new","kind":"file","size":1}]}'
    tus = {"Tus-Resumable": "1.0.0", "Upload-Length": "3", "Upload-Metadata": "path bmV3"}
    tries: list[tuple[str, str, bytes | None, dict[str, str]]] = [
        ("PUT", f"{data}/files/new", b"x", {}),
        ("PUT", f"{data}/files/empty", b"x", {}),
        ("DELETE", f"{data}/files/empty", None, {}),
        (
            "POST",
            f"{data}/batch",
            len(index).to_bytes(4, "big") + index + b"x",
            {"Content-Type": "application/vnd.archive.batch"},
        ),
        ("POST", f"{data}/uploads", b"", tus),
        ("POST", f"/archives/{archive}/remove", b'{"paths":["empty"]}', {"Content-Type": "application/json"}),
        ("POST", f"/archives/{archive}/hide", b'{"paths":["empty"]}', {"Content-Type": "application/json"}),
        (
            "POST",
            f"/archives/{archive}/plan",
            b'{"items":[{"path":"new","size":1}]}',
            {"Content-Type": "application/json"},
        ),
    ]
    for method, place, content, headers in tries:
        with pytest.raises(ApiError) as caught:
            client._transport.request(
                method, place, content=content, headers=headers, plane="data" if "http" in place else "api"
            )
        assert (caught.value.status, caught.value.code) == (409, "archive_closed"), (method, place)
    assert perdure("ls", archive, "-R", "--json").out == before
