"""Pages for people: what they show to whom, and that they ask nobody else for anything."""

from __future__ import annotations

import json
import re

import httpx

from perdure.testing.app import RunningApplication

from .callers import Caller


def short_id(caller: Caller, archive: str) -> str:
    return str(caller.get(f"/archives/{archive}").json()["short_id"])


def page(running: RunningApplication, caller: Caller, archive: str) -> httpx.Response:
    return caller.get(f"{running.url}/archives/{archive}")


def test_a_public_archive_has_a_page_for_everybody(
    running: RunningApplication, ada: Caller, nobody: Caller, closed: str
) -> None:
    answer = page(running, nobody, short_id(ada, closed))
    text = answer.text
    assert answer.status_code == 200
    for shown in (
        "A closed one", "Ada Example", "local test DOI", "Closed: the content never changes",
        "Both copies are verified",
        "UTC", "CC-BY-4.0", "How to cite", "notes.txt", "2 files", "3.00 MB",
    ):  # fmt: skip
        assert shown in text, shown


def test_the_page_tells_machines_a_dataset(running: RunningApplication, nobody: Caller, closed: str) -> None:
    found = re.search(
        r'<script type="application/ld\+json">(.*?)</script>', page(running, nobody, closed).text, re.DOTALL
    )
    assert found
    dataset = json.loads(found[1])
    assert (dataset["@type"], dataset["name"]) == ("Dataset", "A closed one")
    assert dataset["creator"][0]["@id"] == "https://orcid.org/0000-0002-1825-0097"


def test_a_page_asks_no_other_host_and_runs_no_script(running: RunningApplication, nobody: Caller, closed: str) -> None:
    for answer in (page(running, nobody, closed), nobody.get(f"{running.url}/")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script(?! type=\"application/ld\+json\")", answer.text)
        assert " style=" not in answer.text
        for asset in re.findall(r'<link rel="(?:icon|stylesheet)"[^>]* href="([^"]+)"', answer.text):
            assert asset.startswith("/assets/")
            assert "immutable" in nobody.get(f"{running.url}{asset}").headers["cache-control"]


def test_what_people_write_stays_text(running: RunningApplication, ada: Caller) -> None:
    evil = "</script><script>alert(1)</script><b>"
    archive = ada.open(title=evil, description=evil, subjects=[evil], publisher=evil, licence='javascript:alert(1)"')
    ada.put_file(archive, "%3Cimg%20src=x%3E", b"x")
    text = page(running, ada, archive).text
    assert "<script>alert" not in text
    assert "<b>" not in text
    assert "<img" not in text
    assert 'href="javascript' not in text


def test_a_private_archive_shows_that_it_is_there_and_nothing_in_it(
    running: RunningApplication, ada: Caller, nobody: Caller
) -> None:
    archive = ada.open(title="Only ours", description="a secret description")
    ada.put_file(archive, "hidden-name.h5", b"x")
    assert page(running, nobody, archive).status_code == 404
    ada.close_archive(archive)
    answer = page(running, nobody, archive)
    assert answer.status_code == 200
    assert "not public" in answer.text
    for hidden in ("hidden-name.h5", "a secret description", "Ada Example", "Merkle", "Download"):
        assert hidden not in answer.text
    assert "hidden-name.h5" in page(running, ada, archive).text
    assert "Only ours" not in nobody.get(f"{running.url}/").text


def test_a_withdrawn_archive_leaves_a_tombstone(running: RunningApplication, ada: Caller, nobody: Caller) -> None:
    archive = ada.open(title="Taken back", access="public")
    ada.put_file(archive, "gone.h5", b"x")
    ada.close_archive(archive)
    ada.finish(ada.post(f"/archives/{archive}/withdraw", json={"reason": "The sample was mislabelled."}))
    text = page(running, nobody, archive).text
    assert "Withdrawn" in text
    assert "The sample was mislabelled." in text
    assert "gone.h5" not in text
    assert ada.get_file(archive, "gone.h5").status_code in (404, 410)


def test_an_identifier_leads_to_its_page(running: RunningApplication, ada: Caller, nobody: Caller, closed: str) -> None:
    identifier = ada.get(f"/archives/{closed}").json()["identifier"]
    answer = nobody.get(f"{running.url}/id/{identifier}")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/archives/{short_id(ada, closed)}")
    lost = nobody.get(f"{running.url}/id/10.5072/nothing")
    assert lost.status_code == 404
    assert lost.headers["content-type"].startswith("text/html")


def test_an_appended_archive_names_its_parent(running: RunningApplication, ada: Caller, closed: str) -> None:
    child = ada.post(f"/archives/{closed}/append", json={"title": "More of it"}).json()["id"]
    text = page(running, ada, child).text
    assert f"/archives/{short_id(ada, closed)}" in text
    assert "from the archive before" in text
    assert "Open: content is still being added" in text


def test_the_front_page_lists_what_is_public(running: RunningApplication, nobody: Caller, closed: str) -> None:
    assert "A closed one" in nobody.get(f"{running.url}/").text
