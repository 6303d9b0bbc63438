"""Pages about oneself as a whole: what is kept, two identities that become one, and erasure."""

from __future__ import annotations

import httpx
from sqlalchemy import text

from perdure.testing.app import RunningApplication

from .browsing import Browser, browsing, find_links, read_text
from .callers import CITABLE, Caller

OWN = {"sec-fetch-site": "same-origin"}
ASIDE, SESSION = "perdure-aside", "perdure-session"


def open_archive(browser: Browser, title: str) -> str:
    made = browser.post("/api/v1/archives", json={**CITABLE, "title": title}, headers=OWN)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def grow_stale(running: RunningApplication, *people: Browser) -> None:
    """As if they had shown who they are long ago."""
    with running.application.db.begin() as tx:
        for one in people:
            tx.execute(text("UPDATE sessions SET proven_at = NULL WHERE identity_id = :one"), {"one": one.id})


def test_all_that_is_kept_is_downloaded_as_a_file(running: RunningApplication, nobody: Caller, ada: Caller) -> None:
    with browsing(running, "self-exported", email="exported@example.org") as person:
        archive = open_archive(person, "Mine")
        assert "/account/export" in find_links(person.get("/account"))
        answer = person.get("/account/export")
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["cache-control"] == "no-store"
        told = answer.json()
        assert told["identity"]["email"] == "exported@example.org"
        assert archive in [one["id"] for one in told["archives"]]
        assert person.cookies[SESSION] not in answer.text
    led = nobody.get(f"{running.url}/account/export")
    assert (led.status_code, led.headers["location"]) == (303, "/login?return_to=%2Faccount%2Fexport")
    assert "exported@example.org" not in ada.get(f"{running.url}/account/export").text


def test_erasure_is_shown_first_and_done_by_who_types_his_name(running: RunningApplication, ada: Caller) -> None:
    with browsing(running, "self-erased", email="erased@example.org") as person:
        archive = open_archive(person, "In the way <b>")
        page = person.get("/account/erase")
        text_of = read_text(page)
        assert "Nobody else would answer for: In the way <b>." in text_of
        assert "archive in your personal account: In the way <b>" in text_of
        assert "There is no way back" not in text_of
        person.send_form("/account/erase", name="self-erased", status=409)
        gone = person.delete(f"/api/v1/archives/{archive}", headers=OWN, params={"confirm_title": "In the way <b>"})
        assert gone.status_code == 204, gone.text
        text_of = person.read("/account/erase")
        for shown in ("What goes, for ever", "What stays, and why", "Type self-erased , to show"):
            assert shown in text_of, shown
        for wrong in ("", "ada", "Self"):
            refused = person.send_form("/account/erase", name=wrong, status=422)
            assert "This is not what you are called here." in read_text(refused)
        grow_stale(running, person)
        stale = person.get("/account/erase")
        assert "/account#proof" in find_links(stale)
        assert "There is no way back" not in read_text(stale)
        person.send_form("/account/erase", name="self-erased", status=403)
        person.send_form("/account/prove", password=person.password)
        assert person.post("/account/erase", data={"name": "self-erased"}).status_code == 403  # by a page of others
        assert person.get("/account").status_code == 200
        done = person.send_form("/account/erase", name=" SELF-erased ")
        assert done.headers["location"] == "/account/gone"
        assert SESSION not in person.cookies
        assert "You are erased" in person.read("/account/gone")
        assert ada.get(f"/identities/{person.id}").json()["is_erased"] is True


def test_another_identity_of_oneself_ends_in_this_one(running: RunningApplication) -> None:
    with browsing(running, "self-kept") as person, browsing(running, "self-gone") as other:
        archive = open_archive(other, "Of the other")
        kept, gone = person.cookies[SESSION], other.cookies[SESSION]
        assert "Here the other one ends in this one, Self-Kept" in person.read("/account/merge")
        begun = person.send_form("/account/merge", act="begin")
        assert begun.headers["location"] == "/login?return_to=/account/merge"
        assert (SESSION in person.cookies, person.cookies[ASIDE]) == (False, kept)
        assert "Self-Kept waits." in person.read("/account/merge")
        log_in(person, person.login, person.password)
        assert "once more; log in as the other one" in person.read("/account/merge")
        person.send_form("/account/merge", act="merge", name="Self-Gone", status=409)
        person.send_form("/account/merge", act="again")
        assert SESSION not in person.cookies
        log_in(person, other.login, other.password)
        text_of = person.read("/account/merge")
        for shown in ("Self-Gone ends in Self-Kept.", "Ways in that end password self-gone", "Type Self-Gone ,"):
            assert shown in text_of, shown
        refused = person.send_form("/account/merge", act="merge", name="Self-Kept", status=422)
        assert "not the name of the identity that ends" in read_text(refused)
        done = person.send_form("/account/merge", act="merge", name="self-gone")
        assert done.headers["location"] == "/account"
        assert (person.cookies[SESSION], ASIDE in person.cookies) == (kept, False)
        assert person.get(f"/api/v1/identities/{other.id}").json()["merged_into"] == person.id
        assert "manage" in person.get(f"/api/v1/archives/{archive}").json()["actions"]
        assert other.get("/account").status_code == 303
        assert other.cookies[SESSION] == gone


def test_who_began_a_merge_goes_back_or_logs_out_of_both(running: RunningApplication) -> None:
    with browsing(running, "self-back") as person, browsing(running, "self-beside") as other:
        kept = person.cookies[SESSION]
        person.send_form("/account/merge", act="begin")
        log_in(person, other.login, other.password)
        as_other = person.cookies[SESSION]
        person.send_form("/account/merge", act="back")
        assert (person.cookies[SESSION], ASIDE in person.cookies) == (kept, False)
        assert "Self-Back" in person.read("/account")
        assert is_over(running, as_other)
        assert other.get("/account").status_code == 200  # in another browser
        person.send_form("/account/merge", act="begin")
        log_in(person, other.login, other.password)
        person.send_form("/logout")
        assert (SESSION in person.cookies, ASIDE in person.cookies) == (False, False)
        assert is_over(running, kept)


def test_both_have_shown_just_now_who_they_are(running: RunningApplication, nobody: Caller) -> None:
    with browsing(running, "self-stale") as person, browsing(running, "self-fresh") as other:
        grow_stale(running, person)
        stale = person.send_form("/account/merge", act="begin", status=403)
        assert "/account#proof" in find_links(stale)
        assert ASIDE not in person.cookies
        person.send_form("/account/prove", password=person.password)
        person.send_form("/account/merge", act="begin")
        log_in(person, other.login, other.password)
        grow_stale(running, person, other)
        person.send_form("/account/merge", act="merge", name="Self-Fresh", status=403)
        assert "You are logged in as Self-Fresh, and Self-Stale waits." in read_text(person.get("/account/merge"))
        assert other.get(f"/api/v1/identities/{other.id}").json()["merged_into"] is None
    for act in ("begin", "merge", "back", "odd"):
        answer = nobody.post(f"{running.url}/account/merge", data={"act": act}, headers=OWN)
        assert answer.status_code in (401, 409, 422), act
    assert nobody.get(f"{running.url}/account/merge").headers["location"].startswith("/login?")


def log_in(browser: Browser, login: str, password: str) -> None:
    browser.send_form("/login", login=login, password=password, return_to="/account/merge")


def is_over(running: RunningApplication, secret: str) -> bool:
    headers = {"authorization": f"Bearer {secret}"}
    return httpx.get(f"{running.url}/api/v1/me", headers=headers).status_code == 401
