"""A real browser makes a passkey on our page, logs in with it, and loses it; a program sees the same by HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from perdure.testing.app import RunningApplication, start_application

from .chromium import Chromium, find_missing, running_chromium
from .soft_key import SoftKey


@pytest.fixture(scope="module")
def running() -> Iterator[RunningApplication]:
    with start_application(name="localhost", worker=False) as started:
        yield started


@pytest.mark.skipif(find_missing() is not None, reason=f"chromium: {find_missing()}")
def test_a_browser_logs_in_with_a_passkey(running: RunningApplication) -> None:
    with running_chromium() as browser:
        device = browser.add_device()
        browser.open(f"{running.url}/passkeys")
        browser.wait_for("With a passkey")  # the way to log in, too, stands where a script shows it
        _look(browser, "login")
        browser.fill("#login", running.login)
        browser.fill("#password", running.password)
        browser.click("form[action='/login'] button")
        browser.wait_for("You have none yet.")
        browser.fill("#name", "My telephone")
        browser.click("form[data-passkey=create] button")
        browser.wait_for("on one device")
        assert len(browser.list_keys(device)) == 1
        browser.click("form[data-passkey=create] button")
        browser.wait_for("This device has a passkey of yours already.")
        browser.click("summary")
        _look(browser, "passkeys")
        with running.application.db.begin() as tx:
            tx.exec_driver_sql("UPDATE sessions SET proven_at = NULL")
        for page, before in (("/account", "needs a proof from the last"), ("/passkeys", "show once more")):
            browser.open(running.url + page)
            browser.wait_for(before)
        _look(browser, "proof")
        browser.click("form[action='/passkeys/prove'] button")
        browser.wait_for("Add a passkey")
        browser.forget_cookies()
        browser.open(f"{running.url}/login?return_to=/passkeys")
        browser.click("form[data-passkey=get] button")
        browser.wait_for("Your passkeys")
        assert "never" not in browser.read()
        browser.click("summary")
        browser.fill("form[action$='/remove'] input", "My telephone")
        browser.click("form[action$='/remove'] button")
        browser.wait_for("You have none yet.")
        browser.forget_cookies()
        browser.open(f"{running.url}/login")
        browser.click("form[data-passkey=get] button")
        browser.wait_for("This passkey is not known here.")


def _look(browser: Chromium, name: str) -> None:
    """Keep pictures of the page where somebody wants to look at them."""
    folder = os.environ.get("PICTURES")
    for scheme in ("light", "dark") if folder else ():
        browser.prefer(scheme)
        browser.take_picture(Path(str(folder)) / f"{name}-{scheme}.png")


def test_a_program_makes_and_uses_one_by_http(running: RunningApplication) -> None:
    own, key = {"login": running.login, "password": running.password}, SoftKey(running.url)
    with httpx.Client(base_url=f"{running.url}/api/v1", trust_env=False) as api:
        headers = {"authorization": f"Bearer {api.post('/login', json=own).json()['secret']}"}
        begun = api.post("/me/passkeys/challenge", headers=headers).json()
        body = {"name": "Key", "ticket": begun["ticket"], "answer": key.make(begun["options"])}
        made = api.post("/me/passkeys", json=body, headers=headers)
        assert made.status_code == 201, made.text
        assert api.post("/me/passkeys", json=body, headers=headers).json()["code"] == "passkey_refused"
        place = f"/me/passkeys/{made.json()['id']}"
        assert api.patch(place, json={"name": "Blue key"}, headers=headers).json()["name"] == "Blue key"
        begun, key.count = api.post("/login/passkey").json(), 1
        opened = api.post("/login/passkey/finish", json={**begun_ticket(begun), "answer": key.sign(begun["options"])})
        assert opened.status_code == 200, opened.text
        headers = {"authorization": f"Bearer {opened.json()['secret']}"}
        assert api.get("/sessions", headers=headers).json()["items"][0]["proofs"] == ["passkey", "second_factor"]
        begun, key.count = api.post("/login/passkey").json(), 2
        body = {**begun_ticket(begun), "answer": key.sign(begun["options"])}
        assert "until" in api.post("/me/proof/passkey", json=body, headers=headers).json()
        assert api.post("/me/proof/passkey", json=body, headers=headers).json()["code"] == "passkey_refused"
        for answer in ({}, {"id": "AAAA"}, {"id": "AAAA", "response": {"userHandle": "!"}}):
            refused = api.post("/login/passkey/finish", json={**begun_ticket(begun), "answer": answer})
            assert (refused.status_code, refused.json()["code"]) == (401, "passkey_refused")
        page, headers_of_page = f"{running.url}/login/passkey", {"sec-fetch-site": "same-origin"}
        for odd in ("", "7", "[" * 20_000):
            assert api.post(page, data={"ticket": "x", "answer": odd}, headers=headers_of_page).status_code == 401
        token = {"authorization": f"Bearer {running.token()}"}
        assert api.delete(place, headers=token).status_code == 403
        assert api.delete(place, headers=headers).status_code == 204
        assert api.delete(place, headers=headers).status_code == 404


def begun_ticket(begun: dict[str, str]) -> dict[str, str]:
    return {"ticket": begun["ticket"]}
