"""Links: what each kind opens, by curl and wget too, and that nothing else is reached by one."""

from __future__ import annotations

import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from hashlib import sha512
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import pytest
import structlog
from sqlalchemy import text

from perdure.sharing.upkeep import tell_use
from perdure.testing.app import RunningApplication

from .callers import Caller, Problem

CONTENT = {
    "a/in/one.txt": b"one",
    "a/in/deep/two.bin": b"2" * 2_000_000,
    "a/in/odd name %.txt": b"odd",
    "a/in-between": b"outside-one",
    "a/other.txt": b"outside-two",
    "secret/three.txt": b"outside-three",
    "manifest.ndjson": b"outside-four",
}
INSIDE = "a/in"


@pytest.fixture(scope="module")
def shared(ada: Caller) -> str:
    """A closed archive that nobody but ada sees."""
    made = ada.open(title="Outside title", access="private")
    for path, content in CONTENT.items():
        put = ada.put_file(made, httpx.URL("http://x/").join(path).raw_path.decode()[1:].replace("%.", "%25."), content)
        assert put.status_code == 201, put.text
    ada.patch(
        f"/archives/{made}/metadata",
        json={"outside": "of the archive"},
        headers={"content-type": "application/merge-patch+json"},
    )
    ada.close_archive(made)
    return made


def make(caller: Caller, archive: str, **fields: Any) -> dict[str, Any]:
    answer = caller.post(f"/archives/{archive}/links", json={"kind": "read", "name": "for Eve", **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


@pytest.fixture
def web(running: RunningApplication) -> Iterator[httpx.Client]:
    """A browser without any login."""
    with httpx.Client(base_url=running.url, timeout=60) as client:
        yield client


def program(folder: Path, *words: str) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# What each kind opens


def test_a_link_to_a_folder_shows_and_gives_the_folder(ada: Caller, web: httpx.Client, shared: str) -> None:
    made = make(ada, shared, path=INSIDE)
    page = web.get(made["url"])
    assert page.status_code == 200
    assert "one.txt" in page.text
    assert "deep" in page.text
    for outside in ("Outside title", "other.txt", "in-between", "secret"):
        assert outside not in page.text
    inner = web.get(made["url"], params={"folder": "deep"})
    assert "two.bin" in inner.text
    packed = web.get(f"{made['url']}/zip")
    names = ZipFile(BytesIO(packed.content)).namelist()
    assert {name.partition("/")[2] for name in names} == {
        "a/in/one.txt",
        "a/in/deep/two.bin",
        "a/in/odd name %.txt",
        "manifest-sha512.txt",
        "manifest.ndjson",
    }
    assert b"outside" not in packed.content
    checksums = web.get(f"{made['url']}/checksums").text
    assert f"{sha512(b'one').hexdigest()}  one.txt\n" in checksums
    assert len(checksums.splitlines()) == 3


def test_every_answer_below_a_link_keeps_it_secret(ada: Caller, web: httpx.Client, shared: str) -> None:
    url = make(ada, shared)["url"]
    for address in (url, f"{url}/zip", f"{url}/files/a/other.txt", f"{url}/files/nothing", f"{url}x", f"{url}/odd"):
        answer = web.head(address)
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "no-store" in answer.headers["cache-control"]
        assert "noindex" in answer.headers["x-robots-tag"]


def test_paths_do_not_lead_out_of_a_link(ada: Caller, web: httpx.Client, shared: str) -> None:
    url = make(ada, shared, path=INSIDE)["url"]
    for path in ("../other.txt", "%2e%2e/other.txt", "..%2fother.txt", "a/other.txt", "a/in/one.txt", "-between"):
        answer = web.send(web.build_request("GET", f"{url}/files/", extensions={"target": _target(url, path)}))
        assert answer.status_code in (404, 422), path
        assert b"outside" not in answer.content
    for folder in ("..", "a", "../../secret"):
        assert web.get(f"{url}/zip", params={"folder": folder}).status_code in (404, 422)
        assert web.get(url, params={"folder": folder}).status_code in (404, 422)


def _target(url: str, path: str) -> bytes:
    return httpx.URL(url).raw_path + b"/files/" + path.encode()


def test_a_link_to_a_file_gives_the_file_alone(ada: Caller, web: httpx.Client, shared: str) -> None:
    url = make(ada, shared, path="a/in/one.txt")["url"]
    got = web.get(f"{url}/files/one.txt")
    assert (got.status_code, got.content) == (200, b"one")
    assert "one.txt" in web.get(url).text
    assert web.get(f"{url}/checksums").text == f"{sha512(b'one').hexdigest()}  one.txt\n"
    assert web.get(f"{url}/files/other.txt").status_code == 404


def test_a_link_to_metadata_shows_the_record_and_no_content(
    ada: Caller, web: httpx.Client, shared: str, problem: Problem
) -> None:
    url = make(ada, shared, kind="metadata")["url"]
    page = web.get(url)
    assert "Outside title" in page.text
    assert "of the archive" in page.text
    assert "other.txt" not in page.text
    for below in ("zip", "tar", "checksums", "files/a/other.txt"):
        problem(web.get(f"{url}/{below}"), 404, "archive_not_found")


def test_a_reviewer_is_not_told_who(ada: Caller, web: httpx.Client, shared: str, running: RunningApplication) -> None:
    made = make(ada, shared, kind="review")
    page = web.get(made["url"]).text
    assert "Outside title" in page
    packed = web.get(f"{made['url']}/zip").content
    assert "statement.json" not in " ".join(ZipFile(BytesIO(packed)).namelist())
    with Caller(running, made["secret"]) as reviewer:
        told = [page.encode(), packed]
        for address in ("", "/history", "/ro-crate", "/datacite", "/statement", "/metadata/history", "/grants"):
            answer = reviewer.get(f"/archives/{shared}{address}")
            assert answer.status_code in (401, 404), address
            told.append(answer.content)
        told.append(reviewer.get(f"/archives/{shared}/entries").content)
        told.append(reviewer.get("/events").content)
    for answer_ in told:
        assert b"Ada" not in answer_
        assert b"Example Institute" not in answer_


def test_files_are_dropped_and_nothing_is_seen_or_replaced(
    ada: Caller, web: httpx.Client, archive: str, problem: Problem, running: RunningApplication
) -> None:
    ada.put_file(archive, "inbox/there.txt", b"there")
    ada.put_file(archive, "inbox/folder/x", b"x")
    made = make(ada, archive, kind="drop", path="inbox")
    url = made["url"]
    assert "there.txt" not in web.get(url).text
    put = web.put(f"{url}/files/new/mine.txt", content=b"mine")
    assert put.status_code == 201
    assert put.json()["digests"]["sha512"] == sha512(b"mine").hexdigest()
    assert ada.get_file(archive, "inbox/new/mine.txt").content == b"mine"
    answers = [
        problem(web.put(f"{url}/files/{path}", content=b"other"), 409, "drop_refused")
        for path in ("there.txt", "new/mine.txt", "folder", "there.txt/below")
    ]
    assert len({answer["detail"] for answer in answers}) == 1
    assert ada.get_file(archive, "inbox/there.txt").content == b"there"
    assert web.get(f"{url}/files/there.txt").status_code == 404
    assert web.get(f"{url}/zip").status_code == 404
    assert web.get(f"{url}/checksums").status_code == 404
    with Caller(running, made["secret"]) as bearer:
        problem(bearer.get(f"/archives/{archive}"), 403, "link_address_needed")
    # where the files go is not told either
    wrong = {"repr-digest": f"sha-256=:{b64encode(bytes(32)).decode()}:"}
    untold = [
        problem(web.put(f"{url}/files/odd", content=b"odd", headers=wrong), 422, "digest_mismatch"),
        problem(web.put(f"{url}/files/{'/'.join(['x' * 249] * 10)}", content=b"odd"), 422, "bad_path"),
    ]
    told = f"path {b64encode(b'odd').decode()},sha256 {b64encode(b'0' * 64).decode()}"
    begun = web.post(f"{url}/uploads", headers={**TUS, "upload-length": "3", "upload-metadata": told})
    sent = web.patch(begun.headers["location"], content=b"odd", headers={**CHUNK, "upload-offset": "0"})
    untold.append(problem(sent, 422, "digest_mismatch"))
    assert "inbox" not in str(untold)
    ada.close_archive(archive)
    problem(web.put(f"{url}/files/late", content=b"late"), 404, "link_not_found")


TUS = {"tus-resumable": "1.0.0"}
CHUNK = {**TUS, "content-type": "application/offset+octet-stream"}


def begin(web: httpx.Client, url: str, path: str, size: int) -> httpx.Response:
    told = b64encode(path.encode()).decode()
    return web.post(f"{url}/uploads", headers={**TUS, "upload-length": str(size), "upload-metadata": f"path {told}"})


def test_a_dropped_file_goes_on_where_it_stopped(
    ada: Caller, web: httpx.Client, archive: str, problem: Problem, running: RunningApplication
) -> None:
    ada.put_file(archive, "inbox/there.txt", b"there")
    made = make(ada, archive, kind="drop", path="inbox")
    url, content = made["url"], os.urandom(9_000_000)  # more than a body may have that is read whole
    begun = begin(web, url, "new/mine.bin", len(content))
    assert begun.status_code == 201
    place = begun.headers["location"]
    assert place.startswith(f"/s/{made['secret']}/uploads/")
    for data in (content[:2_000_000], content[2_000_000:4_000_000]):
        offset = web.head(place, headers=TUS).headers["upload-offset"]
        sent = web.patch(place, content=data, headers={**CHUNK, "upload-offset": offset})
        assert sent.status_code == 204, sent.text
    problem(web.patch(place, content=b"x", headers={**CHUNK, "upload-offset": "5"}), 409, "upload_offset")
    last = web.patch(place, content=content[4_000_000:], headers={**CHUNK, "upload-offset": "4000000"})
    assert last.headers["repr-digest"].startswith("sha-512=:")
    assert ada.get_file(archive, "inbox/new/mine.bin").content == content
    assert ada.get(f"/archives/{archive}/links").json()["items"][0]["uses"] == 1
    assert begin(web, url, "empty", 0).status_code == 201
    assert ada.get_file(archive, "inbox/empty").content == b""


def test_an_upload_by_a_drop_replaces_nothing_and_is_its_own(
    ada: Caller, web: httpx.Client, archive: str, problem: Problem, running: RunningApplication
) -> None:
    ada.put_file(archive, "inbox/there.txt", b"there")
    url, other = (make(ada, archive, kind="drop", path="inbox")["url"] for _ in range(2))
    problem(begin(web, url, "there.txt", 5), 409, "drop_refused")
    problem(begin(web, url, "../out", 5), 422, "bad_path")
    late = begin(web, url, "late.txt", 5).headers["location"]
    ada.put_file(archive, "inbox/late.txt", b"first")  # while it is under way
    problem(web.patch(late, content=b"other", headers={**CHUNK, "upload-offset": "0"}), 409, "drop_refused")
    assert ada.get_file(archive, "inbox/late.txt").content == b"first"
    ended = web.head(late, headers=TUS)  # who asks after a lost answer is not told that his file is stored
    assert (ended.status_code, ended.headers.get("upload-offset")) == (410, None)
    mine = begin(web, url, "mine.txt", 5).headers["location"].rsplit("/", 1)[1]
    hers = ada.post(
        f"{ada.data}/archives/{archive}/uploads",
        headers={**TUS, "upload-length": "5", "upload-metadata": f"path {b64encode(b'inbox/hers').decode()}"},
    ).headers["location"]
    for place in (f"{other}/uploads/{mine}", f"{url}/uploads/{hers.rsplit('/', 1)[1]}"):
        problem(web.patch(place, content=b"other", headers={**CHUNK, "upload-offset": "0"}), 404, "upload_unknown")
        problem(web.delete(place, headers=TUS), 404, "upload_unknown")
        assert web.head(place, headers=TUS).status_code == 404
    reading = make(ada, archive)["url"]
    problem(begin(web, reading, "x", 5), 404, "link_not_found")
    problem(web.delete(f"{reading}/uploads/{mine}", headers=TUS), 404, "link_not_found")
    left = begin(web, url, "left.txt", 5).headers["location"]
    assert web.delete(left, headers=TUS).status_code == 204
    ada.finish(ada.post(f"/archives/{archive}/close", json={"discard_uploads": True}))
    problem(begin(web, url, "too late", 5), 404, "link_not_found")


def test_a_stranger_fills_no_quota_with_promises(
    web: httpx.Client, newcomer: Caller, root: Caller, problem: Problem, running: RunningApplication
) -> None:
    archive = newcomer.open()
    account = newcomer.get(f"/archives/{archive}").json()["account_id"]
    assert root.patch(f"/accounts/{account}", json={"quota_bytes": 1000}).status_code == 200
    made = make(newcomer, archive, kind="drop")
    refused = problem(begin(web, made["url"], "large", 501), 413, "quota_exceeded")
    assert "501" not in refused["detail"]
    begun = begin(web, made["url"], "half", 500)
    ends = parsedate_to_datetime(begun.headers["upload-expires"])
    assert timedelta(0) < ends - datetime.now(UTC) < timedelta(minutes=20)
    assert newcomer.put_file(archive, "mine", b"m" * 500).status_code == 201
    assert newcomer.delete(f"/archives/{archive}/links/{made['id']}").status_code == 204
    running.application.archives.filling.expire_uploads()
    assert newcomer.put_file(archive, "more", b"m" * 500).status_code == 201
    assert root.patch(f"/accounts/{account}", json={"quota_bytes": 3000}).status_code == 200
    other = make(newcomer, archive, kind="drop")["url"]
    assert {begin(web, other, f"{number}", 1).status_code for number in range(32)} == {201}
    problem(begin(web, other, "too many", 1), 429, "too_many_uploads")


def test_the_page_of_a_drop_runs_its_own_script_alone(ada: Caller, web: httpx.Client, archive: str) -> None:
    page = web.get(make(ada, archive, kind="drop")["url"])
    assert "script-src 'self'; connect-src 'self'" in page.headers["content-security-policy"]
    script = web.get(page.text.split('<script src="')[1].split('"')[0])
    assert script.headers["content-type"].startswith("text/javascript")
    assert "script-src" not in web.get(make(ada, archive)["url"]).headers["content-security-policy"]


def test_other_links_take_no_files(ada: Caller, web: httpx.Client, archive: str, problem: Problem) -> None:
    url = make(ada, archive)["url"]
    problem(web.put(f"{url}/files/x", content=b"x"), 404, "link_not_found")


# Programs


def test_curl_and_wget_take_it_all_and_go_on_where_they_stopped(ada: Caller, shared: str, tmp_path: Path) -> None:
    url = make(ada, shared, path=INSIDE)["url"]
    whole = CONTENT["a/in/deep/two.bin"]
    for name in ("curl.bin", "wget.bin"):
        (tmp_path / name).write_bytes(whole[:700_000])
    program(tmp_path, "curl", "-sfL", "-C", "-", "-o", "curl.bin", f"{url}/files/deep/two.bin")
    program(tmp_path, "wget", "-q", "-c", "-O", "wget.bin", f"{url}/files/deep/two.bin")
    assert (tmp_path / "curl.bin").read_bytes() == whole == (tmp_path / "wget.bin").read_bytes()
    program(tmp_path, "curl", "-sfLO", f"{url}/files/one.txt")
    program(tmp_path, "wget", "-q", "-x", "-nH", "--cut-dirs=3", f"{url}/files/deep/two.bin")
    program(tmp_path, "curl", "-sf", "-o", "sums", f"{url}/checksums")
    (tmp_path / "odd name %.txt").write_bytes(b"odd")
    program(tmp_path, "sha512sum", "--quiet", "-c", "sums")
    program(tmp_path, "curl", "-sfo", "all.zip", f"{url}/zip")
    packed = (tmp_path / "all.zip").read_bytes()
    (tmp_path / "all.zip").write_bytes(packed[:1000])
    program(tmp_path, "curl", "-sf", "-C", "-", "-o", "all.zip", f"{url}/zip")
    assert (tmp_path / "all.zip").read_bytes() == packed


def test_curl_drops_a_file(ada: Caller, archive: str, tmp_path: Path) -> None:
    url = make(ada, archive, kind="drop", password="plum tractor ninety sea")["url"]
    (tmp_path / "sent.bin").write_bytes(b"s" * 5_000_000)
    program(tmp_path, "curl", "-sf", "-u", ":plum tractor ninety sea", "-T", "sent.bin", f"{url}/files/sent.bin")
    assert len(ada.get_file(archive, "sent.bin").content) == 5_000_000


def test_both_planes_serve_the_bytes(ada: Caller, web: httpx.Client, shared: str, running: RunningApplication) -> None:
    made = make(ada, shared)
    address = f"/s/{made['secret']}/files/a/other.txt"
    here, there = web.get(address), httpx.get(running.data_url + address)
    assert here.content == there.content == b"outside-two"
    assert here.headers["etag"] == there.headers["etag"]
    assert here.headers["repr-digest"] == there.headers["repr-digest"]


# Limits, passwords, ends


def test_a_password_is_asked_for_and_slowed_down(ada: Caller, web: httpx.Client, shared: str, problem: Problem) -> None:
    url = make(ada, shared, password="plum tractor ninety sea")["url"]
    page = web.get(url)
    assert page.status_code == 401
    assert "Outside title" not in page.text
    assert 'type="password"' in page.text
    problem(web.get(f"{url}/zip"), 401, "link_password")
    problem(web.get(f"{url}/zip", auth=("", "wrong")), 401, "link_password")
    assert web.get(f"{url}/files/a/other.txt", auth=("", "plum tractor ninety sea")).content == b"outside-two"
    assert "That was not it" in web.post(url, data={"password": "wrong"}).text
    opened = web.post(url, data={"password": "plum tractor ninety sea"})
    assert opened.status_code == 303
    assert "HttpOnly" in opened.headers["set-cookie"]
    assert "plum" not in opened.headers["set-cookie"]
    assert "Outside title" in web.get(url).text
    assert web.get(f"{url}/files/a/other.txt").content == b"outside-two"
    cookie = web.cookies
    web.cookies = httpx.Cookies()
    other = make(ada, shared, password="plum tractor ninety sea")["url"]
    web.cookies.set("link_pass", next(iter(cookie.jar)).value or "")
    assert web.get(other).status_code == 401
    web.cookies = httpx.Cookies()
    answers = [web.get(f"{other}/zip", auth=("", f"guess {number}")).status_code for number in range(15)]
    assert 429 in answers


def test_downloads_are_limited_but_one_may_go_on(ada: Caller, web: httpx.Client, shared: str, problem: Problem) -> None:
    made = make(ada, shared, path=INSIDE, download_limit=2)
    address = f"{made['url']}/files/deep/two.bin"
    assert web.head(address).status_code == 200
    assert web.get(address).status_code == 200
    assert web.get(address, headers={"range": "bytes=1000-"}).status_code == 206
    assert web.get(f"{made['url']}/zip", headers={"range": "bytes=10-"}).status_code == 206  # nobody began it
    assert web.get(address, headers={"range": "bytes=5-"}).status_code == 206
    problem(web.get(address), 404, "link_not_found")
    problem(web.get(f"{made['url']}/files/one.txt", headers={"range": "bytes=1-"}), 404, "link_not_found")
    assert web.get(made["url"]).status_code == 404
    (told,) = (one for one in ada.get(f"/archives/{shared}/links").json()["items"] if one["id"] == made["id"])
    assert told["downloads"] == 2


def test_a_limit_holds_for_those_who_come_at_once(ada: Caller, shared: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    url = make(ada, shared, download_limit=3)["url"]
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: httpx.get(f"{url}/files/a/other.txt").status_code, range(12)))
    assert sorted(codes) == [200] * 3 + [404] * 9


def test_revoked_and_unknown_links_look_alike(ada: Caller, web: httpx.Client, shared: str, problem: Problem) -> None:
    made = make(ada, shared)
    assert ada.delete(f"/archives/{shared}/links/{made['id']}").status_code == 204
    assert ada.delete(f"/archives/{shared}/links/{made['id']}").status_code == 204
    gone = problem(web.get(f"{made['url']}/zip"), 404, "link_not_found")
    never = problem(web.get("/s/pdl_x/zip"), 404, "link_not_found")
    assert gone["detail"] == never["detail"]


def test_a_link_may_wait_for_the_close(ada: Caller, web: httpx.Client, archive: str, problem: Problem) -> None:
    ada.put_file(archive, "x", b"x")
    url = make(ada, archive, only_when_closed=True)["url"]
    problem(web.get(f"{url}/zip"), 403, "link_not_yet")
    ada.close_archive(archive)
    assert web.get(f"{url}/files/x").content == b"x"


# Who makes and sees them


def test_a_pinned_link_shows_what_was_said_when_it_was_made(
    ada: Caller, web: httpx.Client, archive: str, problem: Problem, running: RunningApplication
) -> None:
    assert ada.put_file(archive, "f.txt", b"content").status_code == 201
    wanted = {"kind": "read", "name": "for the record", "pinned": True}
    problem(ada.post(f"/archives/{archive}/links", json=wanted), 422, "link_kind")

    def say(word: str) -> None:
        patch = {"content-type": "application/merge-patch+json"}
        said = ada.patch(f"/archives/{archive}/metadata", json={"said": word}, headers=patch)
        assert said.status_code == 200
        assert ada.patch(f"/archives/{archive}", json={"title": f"{word} title", "tags": [word]}).status_code == 200

    say("first")
    ada.close_archive(archive)
    links = {pinned: make(ada, archive, pinned=pinned) for pinned in (True, False)}
    assert (links[True]["pinned"], links[False]["pinned"]) == (True, False)
    for word in ("second", "third"):
        say(word)
        kept, plain = (web.get(links[pinned]["url"]).text for pinned in (True, False))
        assert "first title" in kept
        assert "first" in kept.split("Metadata")[1]
        assert word not in kept
        assert f"{word} title" in plain
        assert "Described as on" in kept
        assert "Described as on" not in plain
    assert web.get(f"{links[True]['url']}/files/f.txt").content == b"content"
    with Caller(running, links[True]["secret"]) as bearer:  # the API tells of the present
        problem(bearer.get(f"/archives/{archive}"), 403, "link_address_needed")


def test_only_who_manages_makes_sees_and_revokes(
    ada: Caller, bob: Caller, nobody: Caller, shared: str, problem: Problem
) -> None:
    made = make(ada, shared)
    assert made["secret"] in made["url"]
    for caller, status in ((bob, 404), (nobody, 401)):
        assert caller.get(f"/archives/{shared}/links").status_code == status
        body = {"kind": "read", "name": "x"}
        assert caller.post(f"/archives/{shared}/links", json=body).status_code == status
        assert caller.delete(f"/archives/{shared}/links/{made['id']}").status_code == status
    listed = ada.get(f"/archives/{shared}/links")
    assert made["secret"] not in listed.text
    problem(ada.post(f"/archives/{shared}/links", json={"kind": "drop", "name": "x"}), 409, "archive_closed")
    missing = {"kind": "read", "name": "x", "path": "not/there"}
    problem(ada.post(f"/archives/{shared}/links", json=missing), 404, "entry_not_found")
    wrong = {"kind": "metadata", "name": "x", "path": "a"}
    problem(ada.post(f"/archives/{shared}/links", json=wrong), 422, "link_kind")


def test_nobody_gives_more_than_he_has(ada: Caller, running: RunningApplication, shared: str, problem: Problem) -> None:
    narrow = ada.post("/tokens", json={"name": "narrow", "verbs": ["manage"]}).json()["secret"]
    with Caller(running, narrow) as manager:
        problem(manager.post(f"/archives/{shared}/links", json={"kind": "read", "name": "x"}), 403, "link_too_wide")


def test_an_ended_link_is_as_one_that_never_was(
    ada: Caller, web: httpx.Client, shared: str, running: RunningApplication, problem: Problem
) -> None:
    past = {"kind": "read", "name": "x", "expires_at": "2020-01-01T00:00:00Z"}
    problem(ada.post(f"/archives/{shared}/links", json=past), 422, "bad_input")
    made = make(ada, shared, expires_at="2999-01-01T00:00:00Z")
    assert web.get(made["url"]).status_code == 200
    with running.application.db.begin() as tx:
        tx.execute(text("UPDATE links SET expires_at = now() WHERE id = :id"), {"id": made["id"]})
    problem(web.get(f"{made['url']}/zip"), 404, "link_not_found")


def test_what_a_link_was_used_for_is_told_to_who_manages_the_archive(
    ada: Caller, bob: Caller, web: httpx.Client, running: RunningApplication
) -> None:
    archive = ada.open(access="public")
    ada.put_file(archive, "x", b"x")
    ada.close_archive(archive)
    made = make(ada, archive)
    for _ in range(3):
        assert web.get(f"{made['url']}/files/x").status_code == 200
    application = running.application
    with application.db.begin() as tx:
        tx.execute(text("UPDATE link_days SET day = day - 1 WHERE link_id = :id"), {"id": made["id"]})
    assert tell_use(application.context) >= 1
    tell_use(application.context)
    application.events.sequence_pending()
    told = ada.get("/events", params={"archive": archive, "limit": 1000}).json()["items"]
    by_type = {event["type"]: event for event in told}
    assert by_type["link.made"]["data"]["link"] == made["id"]
    for kind in ("link.used", "archive.read"):
        assert [event["type"] for event in told].count(kind) == 1
        assert by_type[kind]["data"]["downloads"] == 3
    seen = bob.get("/events", params={"archive": archive, "limit": 1000}).json()["items"]
    assert all(event["data"] == {} for event in seen if event["type"].startswith(("link.", "archive.read")))
    (listed,) = ada.get(f"/archives/{archive}/links").json()["items"]
    assert (listed["uses"], listed["downloads"]) == (3, 3)
    assert listed["last_used_at"]


def test_uploads_by_a_drop_name_its_link(
    ada: Caller, web: httpx.Client, archive: str, running: RunningApplication
) -> None:
    made = make(ada, archive, kind="drop")
    assert web.put(f"{made['url']}/files/x", content=b"x").status_code == 201
    running.application.events.sequence_pending()
    told = ada.get("/events", params={"archive": archive, "limit": 1000}).json()["items"]
    (added,) = (event for event in told if event["type"] == "files.added")
    assert (added["actor_kind"], added["actor_id"]) == ("link", made["id"])


def test_no_secret_of_a_link_is_kept(ada: Caller, shared: str, running: RunningApplication) -> None:
    secret = make(ada, shared)["secret"]
    assert len(secret) >= len("pdl_") + 43
    with running.application.db.begin() as tx:
        rows = tx.execute(text("SELECT links::text FROM links UNION ALL SELECT data::text FROM events")).scalars()
        assert not any(secret in row for row in rows)


def test_the_log_tells_the_operation_and_not_the_address(ada: Caller, web: httpx.Client, shared: str) -> None:
    made = make(ada, shared)
    with structlog.testing.capture_logs() as logged:
        web.get(f"{made['url']}/files/a/other.txt")
        web.get(f"{made['url']}/files/nothing")
    assert made["secret"] not in str(logged)


def test_links_are_made_listed_and_revoked_by_command(
    ada: Caller, web: httpx.Client, shared: str, running: RunningApplication
) -> None:
    token = str(ada.headers["authorization"]).removeprefix("Bearer ")
    environment = {**os.environ, "PERDURE_URL": running.url, "PERDURE_TOKEN": token}

    def run(*words: str, told: str = "") -> str:
        program_ = str(Path(sys.executable).parent / "perdure")
        done = subprocess.run(
            [program_, "link", *words], env=environment, input=told, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    password = "plum tractor ninety sea"
    options = ("--until", "2990-01-31", "--limit", "5", "--password-stdin", "--name", "by command")
    url = run("make", shared, INSIDE, *options, told=f"{password}\n").strip()
    assert web.get(f"{url}/files/one.txt", auth=("", password)).content == b"one"
    (line,) = (line for line in run("list", shared).splitlines() if "by command" in line)
    assert "1 of 5" in line
    assert INSIDE in line
    run("revoke", shared, line.split()[0])
    assert web.get(f"{url}/files/one.txt", auth=("", password)).status_code == 404
