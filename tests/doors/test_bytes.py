"""Bytes over HTTP: in by stream, batch and resumable upload, out whole, by range and packed."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import socket
import struct
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from perdure.archives import receiving
from perdure.archives.model import Entry
from perdure.archives.receiving import UploadReceiver
from perdure.storage.errors import StoreFailedError

from .callers import Caller, Problem

CHUNK = {"content-type": "application/offset+octet-stream", "tus-resumable": "1.0.0"}


def b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def make_batch(items: list[dict[str, object]], contents: bytes) -> bytes:
    index = json.dumps({"items": items}).encode()
    return struct.pack(">I", len(index)) + index + contents


def put_batch(ada: Caller, archive: str, body: bytes, kind: str = "application/vnd.archive.batch") -> object:
    return ada.post(f"{ada.data}/archives/{archive}/batch", content=body, headers={"content-type": kind})


def test_a_file_comes_back_as_it_went(ada: Caller, archive: str) -> None:
    content = b"0123456789" * 1_000_000
    stored = ada.put_file(archive, "scan/a.h5", content, **{"X-Mtime-Ns": "1700000000123456789", "X-Mode": "640"})
    assert stored.status_code == 201
    record = stored.json()
    assert (record["size"], record["mtime_ns"], record["mode"]) == (len(content), 1700000000123456789, 0o640)
    read = ada.get(stored.headers["location"])
    assert read.content == content
    digest = hashlib.sha512(content)
    assert read.headers["etag"] == f'"{digest.hexdigest()[:64]}"'
    assert read.headers["repr-digest"] == f"sha-512=:{b64(digest.digest())}:"
    assert read.headers["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert read.headers["content-disposition"].startswith('attachment; filename="a.h5"')


def test_head_tells_and_sends_nothing(ada: Caller, closed: str) -> None:
    answer = ada.head(f"{ada.data}/archives/{closed}/files/scan/a.h5", headers={"want-digest": "crc32"})
    assert answer.headers["content-length"] == "3000000"
    assert answer.headers["digest"].startswith("crc32=")
    assert answer.headers["accept-ranges"] == "bytes"


def test_ranges_of_a_file(ada: Caller, closed: str, problem: Problem) -> None:
    whole = ada.get_file(closed, "scan/a.h5")
    part = ada.get_file(closed, "scan/a.h5", range="bytes=2999990-")
    assert (part.status_code, part.content) == (206, b"a" * 10)
    assert part.headers["content-range"] == "bytes 2999990-2999999/3000000"
    fresh = {"range": "bytes=0-0", "if-range": whole.headers["etag"]}
    assert ada.get_file(closed, "scan/a.h5", **fresh).status_code == 206
    assert ada.get_file(closed, "scan/a.h5", **{**fresh, "if-range": '"other"'}).status_code == 200
    beyond = ada.get_file(closed, "scan/a.h5", range="bytes=3000000-")
    problem(beyond, 416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == "bytes */3000000"
    assert ada.get_file(closed, "scan/a.h5", **{"if-none-match": whole.headers["etag"]}).status_code == 304
    problem(ada.get_file(closed, "scan/a.h5", **{"if-match": '"other"'}), 412, "condition_failed")


def test_an_empty_file_has_no_range(ada: Caller, archive: str) -> None:
    assert ada.put_file(archive, "empty", b"").status_code == 201
    assert ada.get_file(archive, "empty").content == b""
    assert ada.get_file(archive, "empty", range="bytes=0-0").status_code == 416


@pytest.mark.parametrize("path", ["new%0Aline", "%ff%fe", "e%CC%81", "%C3%A9", "a%20b", "a+b", "%23%3F%25", "-"])
def test_strange_names_are_kept(ada: Caller, archive: str, path: str) -> None:
    assert ada.put_file(archive, path, path.encode()).status_code == 201
    assert ada.get_file(archive, path).content == path.encode()
    assert len(ada.get(f"/archives/{archive}/entries").json()["items"]) == 1
    assert ada.delete(f"{ada.data}/archives/{archive}/files/{path}").status_code == 204
    assert ada.get_file(archive, path).status_code == 404


@pytest.mark.parametrize("path", ["a%2Fb", "%00", "a//b", "a%", "%2e%2e/x", "x/"])
def test_names_that_mislead_are_refused(ada: Caller, archive: str, path: str, problem: Problem) -> None:
    problem(ada.put_file(archive, path, b"x"), 422, "bad_path")


def test_a_folder_may_have_any_name_in_a_query(ada: Caller, archive: str) -> None:
    for path in ("100%25/a", "%FF/b", "a%2Bb/c"):
        ada.put_file(archive, path, b"x")
        folder = path.rpartition("/")[0]
        listed = ada.get(f"/archives/{archive}/entries?folder={folder}").json()["items"]
        assert len(listed) == 1


def test_the_length_is_said_beforehand(ada: Caller, archive: str, problem: Problem) -> None:
    answer = ada.put(f"{ada.data}/archives/{archive}/files/x", content=iter([b"chunk"]))
    problem(answer, 411, "length_required")


def test_wrong_digests_are_found_and_nothing_is_kept(ada: Caller, archive: str, problem: Problem) -> None:
    wrong = f"sha-512=:{b64(hashlib.sha512(b'other').digest())}:"
    answer = ada.put_file(archive, "x", b"content", **{"Repr-Digest": wrong})
    assert answer.status_code in (409, 422)
    assert ada.get_file(archive, "x").status_code == 404
    right = f"sha-512=:{b64(hashlib.sha512(b'content').digest())}:"
    assert ada.put_file(archive, "x", b"content", **{"Content-Digest": right}).status_code == 201


def test_none_match_keeps_what_is_there(ada: Caller, archive: str) -> None:
    assert ada.put_file(archive, "x", b"first", **{"If-None-Match": "*"}).status_code == 201
    assert ada.put_file(archive, "x", b"second", **{"If-None-Match": "*"}).status_code in (409, 412)
    assert ada.get_file(archive, "x").content == b"first"
    assert ada.put_file(archive, "x", b"third").status_code == 201
    assert ada.get_file(archive, "x").content == b"third"


def test_who_goes_away_leaves_nothing_and_gets_his_room_back(newcomer: Caller) -> None:
    archive = newcomer.open()
    account = newcomer.get(f"/archives/{archive}").json()["account_id"]
    place, token = urlsplit(newcomer.data), newcomer.headers["authorization"]
    with socket.create_connection((place.hostname or "", place.port or 0)) as connection:
        head = f"PUT {place.path}/archives/{archive}/files/x HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"
        connection.sendall(head.encode() + b"Content-Length: 50000000\r\n\r\n" + b"x" * 6_000_000)
        _wait_for(lambda: newcomer.get(f"/accounts/{account}/usage").json()["reserved_bytes"] >= 50_000_000)
    _wait_for(lambda: newcomer.get(f"/accounts/{account}/usage").json()["reserved_bytes"] == 0)
    assert newcomer.get_file(archive, "x").status_code == 404
    assert newcomer.put_file(archive, "x", b"again").status_code == 201


def test_a_download_may_be_left_in_the_middle(ada: Caller, closed: str) -> None:
    for _ in range(40):  # more than there are threads: a leaking one would stop the rest
        with ada.stream("GET", f"{ada.data}/archives/{closed}/files/scan/a.h5") as answer:
            next(answer.iter_raw(1024))
    assert len(ada.get_file(closed, "scan/a.h5").content) == 3_000_000


def test_a_batch_accounts_for_every_item(ada: Caller, archive: str) -> None:
    items: list[dict[str, object]] = [
        {
            "path": "a.txt",
            "size": 3,
            "mtime_ns": 5,
            "mode": 0o600,
            "digests": {"sha512": hashlib.sha512(b"abc").hexdigest()},
        },
        {"path": "folder", "kind": "directory"},
        {"path": "link", "kind": "symlink", "target": "a.txt"},
        {"path_b64": b64(b"\xff.txt"), "size": 2},
        {"path": "../out", "size": 1},
        {"path": "wrong", "size": 1, "digests": {"sha256": "0" * 64}},
    ]
    answer = ada.post(
        f"{ada.data}/archives/{archive}/batch",
        content=make_batch(items, b"abc" + b"de" + b"f" + b"g"),
        headers={"content-type": "application/vnd.archive.batch"},
    )
    told = answer.json()
    assert [item["state"] for item in told["items"]] == ["stored"] * 4 + ["refused"] * 2
    assert (told["stored"], told["refused"], told["bytes"]) == (4, 2, 5)
    assert all(item["reason"] for item in told["items"] if item["state"] == "refused")
    assert base64.b64decode(told["items"][3]["path_b64"]) == b"\xff.txt"
    assert ada.get_file(archive, "%FF.txt").content == b"de"


@pytest.mark.parametrize(
    "body",
    [b"", b"\0\0", b"\xff\xff\xff\xff{}", struct.pack(">I", 2) + b"{}", struct.pack(">I", 3) + b"[1]",
     make_batch([{"path": "a", "size": 3}], b"ab"), make_batch([{"path": "a", "size": 1}], b"ab"),
     make_batch([{"path": "a", "size": -1}], b""), make_batch([{"path_b64": "!", "size": 0}], b"")],
)  # fmt: skip
def test_a_batch_that_is_none_is_refused(ada: Caller, archive: str, body: bytes, problem: Problem) -> None:
    answer = ada.post(
        f"{ada.data}/archives/{archive}/batch", content=body, headers={"content-type": "application/vnd.archive.batch"}
    )
    problem(answer, 400, "malformed_request")


def test_a_plan_asks_only_for_what_is_missing(ada: Caller, archive: str) -> None:
    ada.put_file(archive, "here", b"12345", **{"X-Mtime-Ns": "7"})
    items = [{"path": "here", "size": 5, "mtime_ns": 7}, {"path": "new", "size": 1}, {"path": "here", "size": 6}]
    told = ada.post(f"/archives/{archive}/plan", json={"items": items}).json()
    assert told["present"] == 1
    assert [(item["index"], item["verdict"]) for item in told["items"]] == [(1, "missing"), (2, "different")]


def test_an_upload_goes_on_where_it_stopped(ada: Caller, archive: str, problem: Problem) -> None:
    told = f"path {b64(b'big/one')},mtime_ns {b64(b'5')},mode {b64(b'420')}"
    made = ada.post(f"{ada.data}/archives/{archive}/uploads", headers={"Upload-Length": "10", "Upload-Metadata": told})
    assert made.status_code == 201
    place = made.headers["location"]
    first = ada.patch(place, content=b"01234", headers={**CHUNK, "Upload-Offset": "0"})
    assert (first.status_code, first.headers["upload-offset"]) == (204, "5")
    problem(ada.patch(place, content=b"x", headers={**CHUNK, "Upload-Offset": "0"}), 409, "upload_offset")
    wrong = {"Upload-Offset": "5", "Upload-Checksum": f"sha1 {b64(b'x' * 20)}"}
    problem(ada.patch(place, content=b"56", headers={**CHUNK, **wrong}), 460, "checksum_mismatch")
    assert ada.head(place).headers["upload-offset"] == "5"
    problem(ada.patch(place, content=b"567890", headers={**CHUNK, "Upload-Offset": "5"}), 413, "body_too_large")
    listed = ada.get(f"/archives/{archive}/uploads").json()["items"]
    assert [(upload["url"], upload["offset"], upload["mtime_ns"]) for upload in listed] == [(place, 5, 5)]
    right = {"Upload-Offset": "5", "Upload-Checksum": f"sha1 {b64(hashlib.sha1(b'56789').digest())}"}  # tus wants it
    last = ada.patch(place, content=b"56789", headers={**CHUNK, **right})
    assert last.headers["repr-digest"] == f"sha-512=:{b64(hashlib.sha512(b'0123456789').digest())}:"
    assert ada.get_file(archive, "big/one").content == b"0123456789"


def test_nothing_is_kept_of_a_long_chunk_whose_checksum_is_wrong(
    ada: Caller, archive: str, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "CHECKPOINT_EVERY", 1)
    told = {"Upload-Length": "9000000", "Upload-Metadata": f"path {b64(b'x')}"}
    place = ada.post(f"{ada.data}/archives/{archive}/uploads", headers=told).headers["location"]
    wrong = {"Upload-Offset": "0", "Upload-Checksum": f"sha1 {b64(b'x' * 20)}"}
    problem(ada.patch(place, content=b"1" * 8_999_999, headers={**CHUNK, **wrong}), 460, "checksum_mismatch")
    assert ada.head(place).headers["upload-offset"] == "0"
    content = b"2" * 9_000_000
    right = {"Upload-Offset": "0", "Upload-Checksum": f"md5 {b64(hashlib.md5(content).digest())}"}
    assert ada.patch(place, content=content, headers={**CHUNK, **right}).status_code == 204
    assert ada.get_file(archive, "x").content == content


def test_an_upload_of_nothing_is_an_empty_file_at_once(ada: Caller, archive: str) -> None:
    told = {"Upload-Length": "0", "Upload-Metadata": f"path {b64(b'empty')}"}
    assert ada.post(f"{ada.data}/archives/{archive}/uploads", headers=told).status_code == 201
    found = ada.get_file(archive, "empty")
    assert (found.status_code, found.content) == (200, b"")
    assert ada.get(f"/archives/{archive}/uploads").json()["items"] == []


def test_an_upload_cut_off_keeps_what_arrived(ada: Caller, archive: str) -> None:
    made = ada.post(
        f"{ada.data}/archives/{archive}/uploads",
        headers={"Upload-Length": "9000000", "Upload-Metadata": f"path {b64(b'x')}"},
    )
    location, token = urlsplit(made.headers["location"]), ada.headers["authorization"]
    with socket.create_connection((location.hostname or "", location.port or 0)) as connection:
        head = f"PATCH {location.path} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nUpload-Offset: 0\r\n"
        head += f"Content-Type: {CHUNK['content-type']}\r\nContent-Length: 9000000\r\n\r\n"
        connection.sendall(head.encode() + b"y" * 5_000_000)
        time.sleep(0.2)
    place = made.headers["location"]
    _wait_for(lambda: int(ada.head(place).headers["upload-offset"]) > 0)
    offset = 0
    while offset < 9_000_000:
        offset = int(ada.head(place).headers["upload-offset"])
        rest = ada.patch(place, content=b"y" * (9_000_000 - offset), headers={**CHUNK, "Upload-Offset": str(offset)})
        if rest.status_code == 204:
            break
        assert rest.status_code == 409, rest.text  # the broken request has not let go yet
        time.sleep(0.05)
    assert ada.get_file(archive, "x").content == b"y" * 9_000_000


def test_who_is_told_of_all_bytes_has_his_file(ada: Caller, archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of the protocol are done when all bytes are there, whatever became of the request that brought them."""
    headers = {"Upload-Length": "5", "Upload-Metadata": f"path {b64(b'x')}"}
    place = ada.post(f"{ada.data}/archives/{archive}/uploads", headers=headers).headers["location"]

    def end(receiver: UploadReceiver) -> Entry:
        receiver.checkpoint()
        raise StoreFailedError("The disk is gone for a moment.")

    with monkeypatch.context() as failing:
        failing.setattr(UploadReceiver, "finish", end)
        assert ada.patch(place, content=b"12345", headers={**CHUNK, "Upload-Offset": "0"}).status_code >= 500
    assert ada.get_file(archive, "x").status_code == 404
    told = ada.head(place)
    assert (told.status_code, told.headers["upload-offset"]) == (200, "5")
    assert ada.get_file(archive, "x").content == b"12345"
    assert ada.head(place).headers["upload-offset"] == "5"


def test_all_bytes_are_not_told_while_another_request_has_them(
    ada: Caller, archive: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Upload-Length": "5", "Upload-Metadata": f"path {b64(b'x')}"}
    place = ada.post(f"{ada.data}/archives/{archive}/uploads", headers=headers).headers["location"]
    has_all, may_end, finishing = threading.Event(), threading.Event(), UploadReceiver.finish

    def wait(receiver: UploadReceiver) -> Entry:
        receiver.checkpoint()
        has_all.set()
        assert may_end.wait(60)
        return finishing(receiver)

    monkeypatch.setattr(UploadReceiver, "finish", wait)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(ada.patch, place, content=b"12345", headers={**CHUNK, "Upload-Offset": "0"})
        assert has_all.wait(60)
        try:
            assert ada.head(place).status_code == 409
        finally:
            may_end.set()
        assert sent.result().status_code == 204
    assert ada.head(place).headers["upload-offset"] == "5"


def test_an_upload_can_be_given_up(ada: Caller, archive: str, problem: Problem) -> None:
    problem(ada.post(f"{ada.data}/archives/{archive}/uploads"), 411, "length_required")
    headers = {"Upload-Length": "5", "Upload-Metadata": f"path {b64(b'x')}"}
    place = ada.post(f"{ada.data}/archives/{archive}/uploads", headers=headers).headers["location"]
    problem(ada.delete(place, headers={"tus-resumable": "0.2"}), 412, "tus_version")
    assert ada.delete(place).status_code == 204
    assert ada.patch(place, content=b"12345", headers={**CHUNK, "Upload-Offset": "0"}).status_code in (404, 409, 410)
    spoken = ada.options(place).headers
    assert spoken["tus-extension"] == "creation,expiration,checksum,termination"


def test_a_closed_archive_proves_itself(ada: Caller, nobody: Caller, closed: str, problem: Problem) -> None:
    statement = nobody.get(f"/archives/{closed}/statement").json()
    keys = {key["key_id"] for key in nobody.get("/keys").json()["keys"]}
    assert statement["key_id"] in keys
    proof = nobody.get(f"/archives/{closed}/proof/notes.txt").json()
    assert proof["root"] == statement["merkle"]["root"]
    lines = nobody.get(f"/archives/{closed}/manifest-sha512.txt").text.splitlines()
    assert lines[0].endswith("  notes.txt")
    copies = nobody.get(f"/archives/{closed}/copies").json()["items"]
    assert {copy["state"] for copy in copies} == {"verified"}
    assert not any("location" in copy for copy in copies)
    assert nobody.get(f"/archives/{closed}/datacite").json()
    assert nobody.get(f"/archives/{closed}/ro-crate").json()["@graph"]
    assert {"append", "withdraw"} <= set(ada.get(f"/archives/{closed}").json()["actions"])
    assert not {"fill", "close"} & set(ada.get(f"/archives/{closed}").json()["actions"])
    problem(ada.put_file(closed, "late", b"x"), 409, "archive_closed")
    problem(ada.delete(f"{ada.data}/archives/{closed}/files/notes.txt"), 409, "archive_closed")


def test_a_zip_resumes_by_range(nobody: Caller, closed: str) -> None:
    place = f"{nobody.data}/archives/{closed}/download"
    whole = nobody.get(place)
    assert whole.headers["content-length"] == str(len(whole.content))
    rest = nobody.get(place, headers={"range": "bytes=1500-", "if-range": whole.headers["etag"]})
    assert rest.status_code == 206
    assert rest.content == whole.content[1500:]
    with zipfile.ZipFile(io.BytesIO(whole.content)) as packed:
        assert packed.testzip() is None
        assert any(name.endswith("scan/a.h5") for name in packed.namelist())
    one = nobody.get(f"{place}?path=notes.txt")
    with zipfile.ZipFile(io.BytesIO(one.content)) as packed:
        assert not any(name.endswith("a.h5") for name in packed.namelist())
    assert nobody.head(place).headers["content-length"] == whole.headers["content-length"]
    assert nobody.get(f"{place}?format=tar").headers["content-type"] == "application/x-tar"


def _wait_for(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.02)


def read_batch(caller: Caller, archive: str, paths: list[object]) -> tuple[list[dict[str, object]], bytes]:
    answer = caller.post(f"{caller.data}/archives/{archive}/read-batch", json={"paths": paths})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/vnd.archive.batch"
    (length,) = struct.unpack_from(">I", answer.content)
    assert int(answer.headers["content-length"]) == len(answer.content)
    return json.loads(answer.content[4 : 4 + length])["items"], answer.content[4 + length :]


def test_many_files_come_in_one_answer(ada: Caller, archive: str) -> None:
    contents = {"a": b"abc", "folder/b": b"", "c": b"\x00" * 2_000_000}
    for path, content in contents.items():
        assert ada.put_file(archive, path, content).status_code == 201
    assert ada.put_file(archive, "%FF", b"odd").status_code == 201
    items, body = read_batch(ada, archive, ["c", "folder", "nowhere", {"path_b64": b64(b"\xff")}, "a", "folder/b"])
    assert [item["state"] for item in items] == ["sent", "refused", "refused", "sent", "sent", "sent"]
    assert all(item["reason"] for item in items if item["state"] == "refused")
    assert body == contents["c"] + b"odd" + contents["a"]
    assert items[4]["digests"]["sha512"] == hashlib.sha512(b"abc").hexdigest()  # type: ignore[index]  # it is JSON
    assert base64.b64decode(str(items[3]["path_b64"])) == b"\xff"


def test_a_batch_that_is_full_says_so(ada: Caller, archive: str) -> None:
    assert ada.put_file(archive, "large", b"x" * (9 << 20)).status_code == 201
    items, body = read_batch(ada, archive, ["large", "large", "large"])
    assert [item["state"] for item in items] == ["sent", "refused", "refused"]
    assert len(body) == 9 << 20


def test_a_batch_shows_what_its_reader_may_see(
    ada: Caller, bob: Caller, nobody: Caller, archive: str, closed: str, problem: Problem
) -> None:
    ada.put_file(archive, "a", b"abc")
    refused = bob.post(f"{bob.data}/archives/{archive}/read-batch", json={"paths": ["a"]})
    problem(refused, 404, "archive_not_found")
    assert read_batch(nobody, closed, ["notes.txt"])[1] == b"<b>bold</b>"
    many = ada.post(f"{ada.data}/archives/{archive}/read-batch", json={"paths": ["a"] * 1001})
    problem(many, 413, "too_many_items")
