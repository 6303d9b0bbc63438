"""What was read before decides: If-Match on everything that changes an archive's record or a file."""

from __future__ import annotations

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
