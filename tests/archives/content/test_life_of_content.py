"""From an empty archive to a closed one and back: what goes in comes out, and proves itself."""

from __future__ import annotations

import io
import threading
import zipfile
from datetime import timedelta
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from perdure.archives.errors import (
    ArchiveClosedError,
    DigestMismatchError,
    EmptyArchiveError,
    EntryNotFoundError,
    NoRoomError,
    PathTakenError,
    RecordIncompleteError,
    RefusedItemError,
    UploadEndedError,
    UploadOffsetError,
    UploadsUnfinishedError,
)
from perdure.archives.filling import Attributes
from perdure.archives.items import BatchItem, PlanItem, Verdict
from perdure.archives.model import ArchiveState, Description, EntryKind, UploadState
from perdure.archives.stages import Stages
from perdure.formats.manifest import line_to_entry
from perdure.formats.merkle import merkle_root, verify_inclusion
from perdure.formats.statement import parse_public_key, verify_signature
from perdure.storage.model import object_uri

from .workshop import Workshop, digest_of

CONTENTS: dict[bytes, bytes] = {
    b"a.txt": b"alpha",
    b"scan/frame-1.h5": b"one" * 1000,
    b"scan/frame-2.h5": b"two" * 1000,
    b"scan-2/x": b"",
    "caf\u00e9".encode(): b"nfc",
    "cafe\u0301".encode(): b"nfd",
    b"A.TXT": b"a twin but for case",
    b"latin-\xe9": b"not UTF-8",
    b"new\nline": b"newline",
    b"inventory.json": b"{}",
    b"con": b"reserved elsewhere",
    b"-rf": b"dash",
}


def public_key(shop: Workshop) -> Ed25519PublicKey:
    return parse_public_key(str(shop.closing.public_keys()[-1]["public_key"]).encode())


def test_closing_tells_how_long_each_stage_took(shop: Workshop) -> None:
    archive = shop.open()
    shop.put(archive, b"a", b"1")
    job = shop.closing.close(shop.ada, archive.id)
    shop.run()
    result = shop.job(job).result
    assert result is not None
    seconds = result["seconds"]
    assert isinstance(seconds, dict)
    assert seconds.keys() == {"seal", "copies", "statement", "commit"}
    assert all(isinstance(value, float) and value >= 0 for value in seconds.values())


def test_stages_add_up() -> None:
    ticks = iter([10.0, 11.0, 13.5, 14.0])
    stages = Stages(lambda: next(ticks))
    for name in ("copy", "sync", "copy"):
        stages.end(name)
    assert stages.as_json() == {"copy": 1.5, "sync": 2.5}


def test_an_archive_of_another_digest_closes(shop: Workshop) -> None:
    shop.define("quick", digests=("sha256",))
    archive = shop.open(profile="quick")
    shop.put_all(archive, CONTENTS)
    closed = shop.close(archive)
    listed = shop.ctx.storage.read_head_file(object_uri(archive.id), "manifest-sha256.txt")
    assert f"{sha256(b'alpha').hexdigest()}  a.txt\n".encode() in listed
    assert closed.statement is not None
    assert shop.contents(closed) == CONTENTS


def test_what_goes_in_comes_out_of_the_closed_archive(shop: Workshop) -> None:
    archive = shop.open()
    results = shop.put_all(archive, {**CONTENTS, b"empty": None})
    assert all(result.stored for result in results)
    assert results[0].digests["sha512"] == digest_of(b"alpha")
    assert shop.contents(archive) == CONTENTS

    closed = shop.close(archive)

    assert closed.state is ArchiveState.CLOSED
    assert shop.contents(closed) == CONTENTS
    assert shop.tree(closed)[b"empty"].kind is EntryKind.DIRECTORY
    names = [name for name, _ in shop.told(archive)]
    wanted = ["archive.opened", "files.added", "archive.closing", "part.sealed", "archive.closed", "receipt.issued"]
    assert [name for name in names if name in wanted] == wanted
    assert names.count("copy.verified") == 2


def test_the_statement_proves_the_content(shop: Workshop) -> None:
    archive = shop.open()
    shop.put_all(archive, CONTENTS)
    shop.close(archive)

    statement = dict(shop.reading.statement(shop.ada, archive.id))
    lines = list(shop.reading.iter_manifest(shop.ada, archive.id))

    assert verify_signature(statement, public_key(shop))
    assert not verify_signature({**statement, "title": "another"}, public_key(shop))
    assert statement["merkle"] == {"algorithm": "rfc6962-sha512", "size": len(CONTENTS), "root": merkle_root(lines)}
    assert [line_to_entry(line).path for line in lines] == sorted(CONTENTS)
    proof = shop.reading.inclusion_proof(shop.ada, archive.id, b"scan/frame-1.h5")
    assert verify_inclusion(proof.line, proof.index, proof.size, proof.steps, proof.root)
    receipt = dict(shop.reading.receipt(shop.ada, archive.id))
    assert verify_signature(receipt, public_key(shop))
    assert receipt["source_may_be_deleted"] is True
    assert {copy.state.value for copy in shop.reading.copies(shop.ada, archive.id)} == {"verified"}


def test_closing_again_answers_the_same_job(shop: Workshop) -> None:
    archive = shop.open()
    shop.put(archive, b"a", b"1")
    job = shop.closing.close(shop.ada, archive.id)
    assert shop.closing.close(shop.ada, archive.id) == job
    shop.run()
    assert shop.closing.close(shop.ada, archive.id) == job


def test_a_closed_archive_takes_nothing(shop: Workshop) -> None:
    archive = shop.open()
    shop.put(archive, b"a", b"1")
    receiver = shop.filling.begin_file(shop.ada, archive.id, b"late", 4)
    receiver.write(b"late")
    job = shop.closing.close(shop.ada, archive.id, discard_uploads=True)
    with pytest.raises(Exception, match="closing"):
        receiver.finish()
    shop.run()
    assert shop.job(job).state.value == "succeeded"

    for attempt in (
        lambda: shop.put(archive, b"b", b"2"),
        lambda: shop.filling.begin_batch(shop.ada, archive.id, [BatchItem(b"b", EntryKind.FILE, 1)]),
        lambda: shop.filling.create_upload(shop.ada, archive.id, b"b", 1),
        lambda: shop.filling.remove(shop.ada, archive.id, [b"a"]),
        lambda: shop.filling.plan(shop.ada, archive.id, [PlanItem(b"a")]),
    ):
        with pytest.raises(ArchiveClosedError):
            attempt()
    assert shop.contents(archive) == {b"a": b"1"}


def test_closing_refuses_what_is_not_ready(shop: Workshop) -> None:
    bare = shop.open(description=Description(title="only a title"))
    with pytest.raises(EmptyArchiveError):
        shop.closing.close(shop.ada, bare.id)
    shop.put(bare, b"a", b"1")
    with pytest.raises(RecordIncompleteError) as refused:
        shop.closing.close(shop.ada, bare.id)
    assert refused.value.extra["missing"] == ["creators", "publisher", "licence"]

    archive = shop.open()
    shop.put(archive, b"a", b"1")
    upload = shop.filling.create_upload(shop.ada, archive.id, b"big", 10)
    with pytest.raises(UploadsUnfinishedError) as unfinished:
        shop.closing.close(shop.ada, archive.id)
    assert unfinished.value.extra["uploads"] == [{"id": str(upload.id), "path": "big"}]
    shop.close(archive, discard_uploads=True)
    assert shop.contents(archive) == {b"a": b"1"}


def test_replaced_and_removed_files_leave_nothing_behind(shop: Workshop) -> None:
    archive = shop.open()
    shop.put(archive, b"a", b"first")
    shop.put(archive, b"a", b"second, longer")
    shop.put(archive, b"dir/b", b"b")
    shop.put(archive, b"dir/c", b"c")
    report = shop.filling.remove(shop.ada, archive.id, [b"dir", b"nothing"])
    assert (report.removed, report.hidden, report.missing) == (2, 0, (b"nothing",))
    assert shop.contents(archive) == {b"a": b"second, longer"}
    usage = shop.look(archive)
    assert (usage.file_count, usage.byte_count) == (1, len(b"second, longer"))
    closed = shop.close(archive)
    assert shop.contents(closed) == {b"a": b"second, longer"}
    staged = [path for path in (shop.roots[0] / "staging").rglob("*") if path.is_file()]
    assert staged == []


def test_paths_that_contradict_each_other_are_refused(shop: Workshop) -> None:
    archive = shop.open()
    shop.put(archive, b"a/b", b"1")
    with pytest.raises(PathTakenError):
        shop.put(archive, b"a", b"a folder has this name")
    with pytest.raises(PathTakenError):
        shop.put(archive, b"a/b/c", b"a file has the folder's name")
    with pytest.raises(PathTakenError):
        shop.put(archive, b"a/b", b"2", replace=False)
    results = shop.put_all(archive, {b"x": b"1", b"x/y": b"2", b"a/b/c": b"3", b"a//b": b"4", b"ok": b"5"})
    assert [result.stored for result in results] == [True, False, False, False, True]
    assert shop.contents(archive) == {b"a/b": b"1", b"x": b"1", b"ok": b"5"}


def test_stated_digests_are_compared(shop: Workshop) -> None:
    archive = shop.open()
    with pytest.raises(DigestMismatchError):
        shop.put(archive, b"a", b"1", stated_digests={"md5": "0" * 32})
    with pytest.raises(RefusedItemError):
        shop.put(archive, b"a", b"1", stated_digests={"sha3": "00"})
    shop.put(archive, b"a", b"1", stated_digests={"sha512": digest_of(b"1").upper()})
    items = [BatchItem(b"b", EntryKind.FILE, 1, digests={"sha512": "0" * 128}), BatchItem(b"c", EntryKind.FILE, 1)]
    receiver = shop.filling.begin_batch(shop.ada, archive.id, items)
    receiver.write(b"23")
    assert [result.stored for result in receiver.finish()] == [False, True]
    assert shop.contents(archive) == {b"a": b"1", b"c": b"3"}


def test_links_stay_inside(shop: Workshop) -> None:
    archive = shop.open()
    targets = {b"a/ok": b"../b", b"a/out": b"../../b", b"a/abs": b"/etc/passwd"}
    items = [BatchItem(path, EntryKind.SYMLINK, target=target) for path, target in targets.items()]
    receiver = shop.filling.begin_batch(shop.ada, archive.id, items)
    assert [result.stored for result in receiver.finish()] == [True, False, False]
    shop.close(archive)
    assert shop.tree(archive)[b"a/ok"].target == b"../b"


def test_the_plan_names_what_is_missing_or_different(shop: Workshop) -> None:
    archive = shop.open()
    shop.put(archive, b"same", b"1", mtime_ns=5)
    shop.put(archive, b"other", b"1", mtime_ns=5)
    answers = shop.filling.plan(
        shop.ada,
        archive.id,
        [
            PlanItem(b"same", 1, 5),
            PlanItem(b"same", 1, 6, {"sha512": digest_of(b"1")}),
            PlanItem(b"same", 1, 5, {"sha512": digest_of(b"2")}),
            PlanItem(b"other", 2, 5),
            PlanItem(b"other", 1),
            PlanItem(b"new", 1, 5),
            PlanItem(b"../up", 1, 5),
        ],
    )
    different = Verdict.DIFFERENT
    assert [answer.verdict for answer in answers] == [
        Verdict.PRESENT, Verdict.PRESENT, different, different, different, Verdict.MISSING, Verdict.REFUSED,
    ]  # fmt: skip


def test_quotas_are_kept_before_bytes_flow(shop: Workshop) -> None:
    shop.define("tight", archive_max_bytes=10, archive_max_files=3, total_max_bytes=15)
    archive = shop.open(profile="tight")
    shop.put(archive, b"a", b"12345")
    held = shop.filling.begin_file(shop.ada, archive.id, b"b", 5)
    with pytest.raises(NoRoomError):
        shop.put(archive, b"c", b"1")
    held.abort()
    shop.put_all(archive, {b"b": b"1", b"c": b"2"})
    with pytest.raises(NoRoomError):
        shop.put(archive, b"d", b"")
    second = shop.open(profile="tight")
    with pytest.raises(NoRoomError):
        shop.put(second, b"x", b"123456789")


def test_an_upload_resumes_at_its_durable_offset(shop: Workshop) -> None:
    archive = shop.open()
    data = bytes(range(256)) * 5000
    attributes = Attributes(mtime_ns=7, mode=0o640, digests={"sha512": digest_of(data)})
    upload = shop.filling.create_upload(shop.ada, archive.id, b"big/file", len(data), attributes)
    first = shop.filling.open_upload(shop.ada, upload.id, 0)
    first.write(data[:1000])
    assert first.checkpoint() == 1000
    first.write(data[1000:2000])
    first.close()
    offset = shop.filling.get_upload(shop.ada, upload.id).offset
    assert offset in (1000, 2000)
    with pytest.raises(UploadOffsetError) as wrong:
        shop.filling.open_upload(shop.ada, upload.id, 5)
    found = wrong.value.extra["offset"]
    assert isinstance(found, int)
    second = shop.filling.open_upload(shop.ada, upload.id, found)
    second.write(data[found:])
    second.checkpoint()
    entry = second.finish()
    second.close()
    assert (entry.mtime_ns, entry.mode, entry.digests["sha512"]) == (7, 0o640, digest_of(data))
    assert shop.read(archive, b"big/file") == data
    done = shop.filling.get_upload(shop.ada, upload.id)
    assert (done.state, done.offset) == (UploadState.FINISHED, len(data))
    with pytest.raises(UploadEndedError):
        shop.filling.open_upload(shop.ada, upload.id, len(data))


def test_reservations_end_in_time(shop: Workshop) -> None:
    archive = shop.open()
    shop.filling.create_upload(shop.ada, archive.id, b"never", 10)
    stale = shop.filling.begin_file(shop.ada, archive.id, b"stale", 5)
    shop.clock.ahead = timedelta(days=3)
    assert shop.filling.expire_uploads() == 2
    stale_error = pytest.raises(UploadEndedError)
    with stale_error:
        stale.write(b"12345")
    assert shop.filling.list_uploads(shop.ada, archive.id) == []


def test_folders_page_by_page(shop: Workshop) -> None:
    archive = shop.open()
    paths = [b"a", b"a-b", b"d/1", b"d/2/x", b"d/2/y", b"d-e/z", b"d0", b"e/f/g"]
    shop.put_all(archive, {path: path for path in paths} | {b"d.empty": None})
    names: list[bytes] = []
    cursor = None
    while True:
        page = shop.reading.list_entries(shop.ada, archive.id, cursor=cursor, limit=2)
        names += [entry.path for entry in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(names) == [b"a", b"a-b", b"d", b"d-e", b"d.empty", b"d0", b"e"]
    inside = shop.reading.list_entries(shop.ada, archive.id, folder=b"d").items
    assert [(entry.path, entry.kind) for entry in inside] == [
        (b"d/1", EntryKind.FILE),
        (b"d/2", EntryKind.DIRECTORY),
    ]
    assert shop.reading.stat(shop.ada, archive.id, b"e/f").kind is EntryKind.DIRECTORY
    with pytest.raises(EntryNotFoundError):
        shop.reading.list_entries(shop.ada, archive.id, folder=b"nothing")


def test_a_zip_of_a_closed_archive_resumes(shop: Workshop) -> None:
    archive = shop.open()
    shop.put_all(archive, {**CONTENTS, b"manifest.ndjson": b"a user's own"})
    shop.close(archive)
    download = shop.downloading.plan_download(shop.ada, archive.id)
    assert download.length is not None
    assert download.etag is not None
    whole = b"".join(download.read(0, None))
    assert len(whole) == download.length
    cut = download.length // 3
    assert b"".join(download.read(0, cut)) + b"".join(download.read(cut, download.length)) == whole
    with zipfile.ZipFile(io.BytesIO(whole)) as packed:
        assert packed.testzip() is None
        top = download.filename.removesuffix(".zip")
        assert packed.read(f"{top}/scan/frame-1.h5") == CONTENTS[b"scan/frame-1.h5"]
        assert packed.read(f"{top}/manifest.ndjson") == b"a user's own"
        lines = packed.read(f"{top}/_manifest.ndjson")
    assert lines == b"".join(shop.reading.iter_manifest(shop.ada, archive.id))
    some = shop.downloading.plan_download(shop.ada, archive.id, [b"scan", b"scan/frame-1.h5"])
    with zipfile.ZipFile(io.BytesIO(b"".join(some.read(0, None)))) as packed:
        assert len(packed.namelist()) == 2 + 3
    assert some.etag != download.etag


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_an_open_archive_is_packed_as_it_is(shop: Workshop, form: str) -> None:
    archive = shop.open()
    shop.put_all(archive, CONTENTS)
    download = shop.downloading.plan_download(shop.ada, archive.id, [], form)  # type: ignore[arg-type]  # one of both
    assert download.length is None
    assert CONTENTS[b"scan/frame-1.h5"] in b"".join(download.read(0, None))


def test_uploads_are_listed_while_others_begin_and_end(shop: Workshop) -> None:
    archive = shop.open()
    stop, failures = threading.Event(), list[BaseException]()

    def look() -> None:
        while not stop.is_set():
            try:
                shop.filling.list_uploads(shop.ada, archive.id)
            except BaseException as error:  # told by the assertion below
                failures.append(error)
                return

    watchers = [threading.Thread(target=look) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    for number in range(60):
        upload = shop.filling.create_upload(shop.ada, archive.id, b"f%d" % number, 3)
        receiver = shop.filling.open_upload(shop.ada, upload.id, 0)
        receiver.write(b"abc")
        receiver.finish()
        receiver.close()
    stop.set()
    for watcher in watchers:
        watcher.join()
    assert not failures
