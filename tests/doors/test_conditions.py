"""What was read before decides: If-Match on everything that changes an archive's record or a file."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from .callers import Caller, Problem


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("access", {"access": "public"}),
        ("lifetime", {"keep_until": "2035-01-01"}),
        ("profile", {"profile": "beamline"}),
    ],
)
def test_a_stale_revision_changes_nothing(
    ada: Caller, archive: str, problem: Problem, what: str, body: dict[str, str]
) -> None:
    before = ada.get(f"/archives/{archive}").json()
    refused = ada.post(f"/archives/{archive}/{what}", json=body, headers={"if-match": '"r0"'})
    problem(refused, 412, "revision_conflict")
    assert ada.get(f"/archives/{archive}").json() == before


def test_a_file_is_replaced_and_removed_only_as_it_was_read(ada: Caller, archive: str, problem: Problem) -> None:
    ada.put_file(archive, "a.txt", b"one")
    etag = ada.get_file(archive, "a.txt").headers["etag"]
    assert ada.put_file(archive, "a.txt", b"two", **{"if-match": etag}).status_code == 201
    problem(ada.put_file(archive, "a.txt", b"three", **{"if-match": etag}), 412, "condition_failed")
    problem(ada.put_file(archive, "new.txt", b"x", **{"if-match": "*"}), 412, "condition_failed")
    place = f"{ada.data}/archives/{archive}/files/a.txt"
    problem(ada.delete(place, headers={"if-match": etag}), 412, "condition_failed")
    assert ada.get_file(archive, "a.txt").content == b"two"
    current = ada.get_file(archive, "a.txt").headers["etag"]
    assert ada.delete(place, headers={"if-match": current}).status_code == 204


def test_an_archive_that_could_not_be_closed_is_not_opened(root: Caller, problem: Problem) -> None:
    contract = root.get("/profiles/personal").json()
    root.post("/profiles", json={**contract, "name": "many-copies", "copies": 9})
    problem(root.post("/archives", json={"title": "x", "profile": "many-copies"}), 409, "not_enough_stores")


def test_inherited_paths_are_found_until_a_layer_covers_them(ada: Caller) -> None:
    parent = ada.open(title="Parent")
    for path in ("zebra/one.h5", "zebra/two.h5", "yak.h5"):
        ada.put_file(parent, path, b"x")
    ada.close_archive(parent)
    child = ada.post(f"/archives/{parent}/append", json={"title": "Child"}).json()["id"]

    def found(text: str) -> set[str]:
        return {one["id"] for one in ada.get("/archives", params={"q": text}).json()["items"]}

    assert found("zebra/o") == {parent, child}
    ada.post(f"/archives/{child}/remove", json={"paths": ["zebra/one.h5"]})
    assert found("zebra/o") == {parent}
    assert found("zebra/t") == {parent, child}
    ada.put_file(child, "added.h5", b"y")
    ada.close_archive(child)
    grandchild = ada.post(f"/archives/{child}/append", json={}).json()["id"]
    assert found("yak.h5") == {parent, child, grandchild}
    ada.post(f"/archives/{grandchild}/remove", json={"paths": ["zebra"]})
    assert found("zebra/t") == {parent, child}
    assert found("added.h") == {child, grandchild}


def test_of_two_who_read_the_same_file_one_replaces_it(ada: Caller, archive: str) -> None:
    ada.put_file(archive, "shared.txt", b"start")
    etag = ada.get_file(archive, "shared.txt").headers["etag"]
    both = threading.Barrier(2)

    def replace(content: bytes) -> int:
        def late() -> Iterator[bytes]:  # the condition holds when the request begins, for both
            yield content[:1]
            both.wait(60)
            time.sleep(0.2)  # until both are past the look that refuses early
            yield content[1:]

        headers = {"if-match": etag, "content-length": str(len(content))}
        return ada.put(f"{ada.data}/archives/{archive}/files/shared.txt", content=late(), headers=headers).status_code

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(replace, [b"one", b"two"])) == [201, 412]


def test_a_file_that_changed_meanwhile_is_not_removed(ada: Caller, archive: str, problem: Problem) -> None:
    ada.put_file(archive, "kept.txt", b"one")
    etag = ada.get_file(archive, "kept.txt").headers["etag"]
    ada.put_file(archive, "kept.txt", b"two")
    place = f"{ada.data}/archives/{archive}/files/kept.txt"
    assert ada.delete(place, headers={"if-match": etag}).status_code == 412
    assert ada.get_file(archive, "kept.txt").content == b"two"


def test_an_archive_that_changed_meanwhile_is_not_discarded(ada: Caller, archive: str, problem: Problem) -> None:
    etag = ada.get(f"/archives/{archive}").headers["etag"]
    assert ada.patch(f"/archives/{archive}", json={"title": "Another"}).status_code == 200
    refused = ada.delete(f"/archives/{archive}", headers={"if-match": etag})
    problem(refused, 412, "revision_conflict")
    assert ada.get(f"/archives/{archive}").json()["state"] == "open"
    current = ada.get(f"/archives/{archive}").headers["etag"]
    assert ada.delete(f"/archives/{archive}", headers={"if-match": current}).status_code == 204


def test_an_inherited_file_is_hidden_only_as_it_was_read(ada: Caller, closed: str) -> None:
    child = ada.post(f"/archives/{closed}/append", json={}).json()["id"]
    etag = ada.get_file(child, "notes.txt").headers["etag"]
    place = f"{ada.data}/archives/{child}/files/notes.txt"
    assert ada.delete(place, headers={"if-match": '"other"'}).status_code == 412
    assert ada.get_file(child, "notes.txt").headers["etag"] == etag
    assert ada.delete(place, headers={"if-match": etag}).status_code == 204
    assert ada.get_file(child, "notes.txt").status_code == 404
