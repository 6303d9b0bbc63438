"""The pages about access, people and oneself in a real browser: wide, narrow, by keyboard, and without a script."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from perdure.kernel.actor import SYSTEM
from perdure.testing.app import RunningApplication, start_application

from .chromium import Chromium, find_missing, running_chromium

PASSWORD = "seven quiet lanterns"
ENTER = "\ue007"
LONG = "Anneliese-Katharina Freifrau von und zu Hohenlohe-Langenburg-Schillingsfürst"
pytestmark = pytest.mark.skipif(find_missing() is not None, reason=f"chromium: {find_missing()}")

# What no page may have: something wider than the window, a field that nobody names, an id that two have, and a script
# or a style of its own, which the policy would not let work.
_FAULTS = """
const fields = [...document.querySelectorAll('input:not([type=hidden]), select, textarea')];
const ids = [...document.querySelectorAll('[id]')].map(one => one.id);
return [
  document.documentElement.scrollWidth > innerWidth ? 'it is ' + document.documentElement.scrollWidth + ' wide' : '',
  ...fields.filter(one => !one.labels.length && !one.ariaLabel).map(one => 'nothing names ' + one.name),
  ...ids.filter((one, index) => ids.indexOf(one) !== index).map(one => 'two are ' + one),
  ...[...document.querySelectorAll('style, script:not([src]), [style], [onclick]')].map(one => one.outerHTML),
  ...[...document.querySelectorAll('main :is(a, button, summary)')].filter(one => !one.innerText.trim())
    .map(one => 'empty: ' + one.outerHTML),
  document.querySelectorAll('h1').length === 1 ? '' : 'not one heading',
  getComputedStyle(document.body).marginTop === '0px' ? '' : 'its style does not work',
].filter(Boolean)
"""


@pytest.fixture(scope="module")
def running() -> Iterator[RunningApplication]:
    with start_application(name="localhost") as started:
        identity = started.application.identity
        home = identity.list_organisations(SYSTEM)[0].id
        for login, name in (("mara", "Mara Lindqvist"), ("long", LONG), ("twice", "Mara L.")):
            identity.create_local_account(
                SYSTEM, login=login, password=PASSWORD, display_name=name, organisation_id=home, quota_bytes=10**9
            )
        yield started


def log_in(browser: Chromium, running: RunningApplication, login: str, password: str = PASSWORD) -> None:
    browser.fill("#login", login)
    browser.fill("#password", password)
    browser.click("form[action='/login'] button")


def test_pages_fit_wide_and_narrow_and_name_what_they_ask_for(running: RunningApplication) -> None:
    headers = {"authorization": f"Bearer {running.token()}"}
    with httpx.Client(base_url=f"{running.url}/api/v1", headers=headers, trust_env=False) as api:
        made = api.post("/archives", json={"title": "A leaf of " + "oak" * 30}).json()
        person = api.get("/identities", params={"login": "long"}).json()["items"][0]["id"]
        named = {"kind": "x509", "subject": "CN=" + "x" * 100 + ",O=Grid"}
        api.post(f"/archives/{made['id']}/grants", json={"role": "reader", "credential": named})
        api.post(f"/archives/{made['id']}/grants", json={"role": "contributor", "identity_id": person})
        apply = {"login": "asks", "password": PASSWORD, "display_name": LONG, "reason": "Beam " + "w" * 200}
        api.post("/applications/local", json=apply)
    archive = f"/archives/{made['short_id']}"
    places = {
        "access": f"{archive}/access",
        "usage": "/usage",
        "report": "/usage/report?by=kind&from=2020-01-01&to=2020-02-01",
        "people": "/people",
        "person": f"/people/{person}",
        "applications": "/applications",
        "audit": "/audit",
        "invitations": "/invitations",
        "account": "/account",
        "merge": "/account/merge",
        "erase": "/account/erase",
    }
    with running_chromium() as browser:
        browser.open(f"{running.url}/login")
        log_in(browser, running, running.login, running.password)
        browser.wait_for("Your account")
        found: dict[tuple[str, int], list[str]] = {}
        for width in (1280, 390):
            browser.resize(width, 900)
            for name, place in places.items():
                browser.open(running.url + place)
                browser.ask("document.querySelectorAll('details').forEach(one => one.open = true)")
                found[name, width] = browser.ask(_FAULTS)
                _look(browser, name, width)
        assert {where: faults for where, faults in found.items() if faults} == {}


def test_a_role_is_given_and_taken_back_by_keyboard(running: RunningApplication) -> None:
    headers = {"authorization": f"Bearer {running.token()}"}
    with httpx.Client(base_url=f"{running.url}/api/v1", headers=headers, trust_env=False) as api:
        made = api.post("/archives", json={"title": "By keyboard"}).json()
        with running_chromium() as browser:
            browser.open(f"{running.url}/archives/{made['short_id']}/access")
            log_in(browser, running, running.login, running.password)
            browser.wait_for("Who has access, and why")  # where one came from
            browser.press("#name", "mara" + ENTER)
            browser.wait_for("Mara Lindqvist")
            given = api.get(f"/archives/{made['id']}/grants").json()["items"]
            assert [one["role"] for one in given] == ["owner", "reader"]
            last = "tbody tr:last-child"
            browser.press(f"{last} summary", ENTER)
            browser.wait_for("loses this role at once")
            browser.press(f"{last} button", ENTER)
            browser.wait_for("Give a role")
            assert "Mara Lindqvist" not in browser.read()
            assert [one["role"] for one in api.get(f"/archives/{made['id']}/grants").json()["items"]] == ["owner"]


def test_two_become_one_in_a_browser(running: RunningApplication) -> None:
    with running_chromium() as browser:
        browser.open(f"{running.url}/account/merge")
        log_in(browser, running, "mara")
        browser.wait_for("Two of you become one")
        browser.click("button[value=begin]")
        log_in(browser, running, "twice")
        browser.wait_for("Mara L. ends in Mara Lindqvist.")
        _look(browser, "merging", 1280)
        browser.fill("#name", "Mara L.")
        browser.click("button[value=merge]")
        browser.wait_for("You as a whole")
        assert "Mara Lindqvist" in browser.read()
        browser.open(f"{running.url}/account/erase")
        browser.wait_for("twice")  # the account of the other, which nobody else would own
        assert "There is no way back" not in browser.read()
        browser.click("main p a")
        browser.wait_for("Your ways in")


def _look(browser: Chromium, name: str, width: int) -> None:
    """Keep pictures of the page where somebody wants to look at them."""
    folder = os.environ.get("PICTURES")
    for scheme in ("light", "dark") if folder else ():
        browser.prefer(scheme)
        browser.take_picture(Path(str(folder)) / f"{name}-{width}-{scheme}.png")
