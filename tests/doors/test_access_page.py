"""Who has access to an archive, on its page: shown with reasons, given and taken back."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from perdure.testing.app import RunningApplication

from .browsing import Browser, browsing, find_hidden, find_links, read_text
from .callers import CITABLE, Caller

OWN = {"sec-fetch-site": "same-origin"}


@pytest.fixture(scope="module")
def paula(running: RunningApplication) -> Iterator[Browser]:
    with browsing(running, "paula-access") as browser:
        yield browser


@pytest.fixture
def place(paula: Browser) -> str:
    """The page of an open archive of Paula's."""
    made = paula.post("/api/v1/archives", json={**CITABLE, "title": "Leaf <b>"}, headers=OWN)
    assert made.status_code == 201, made.text
    return f"/archives/{made.json()['short_id']}/access"


def grants_of(paula: Browser, place: str) -> list[dict[str, str]]:
    return list(paula.get(f"/api/v1{place.removesuffix('access')}grants").json()["items"])


def test_a_person_a_group_and_a_credential_are_let_in_and_out(
    running: RunningApplication, paula: Browser, place: str
) -> None:
    page = paula.read(place.removesuffix("/access"))
    assert "Who has access, and why" in page
    running.person("reader-of-pages")
    paula.send_form(place, to="login", role="reader", name="reader-of-pages")
    assert "Reader-Of-Pages" in (text := paula.read(place))
    assert "a role on this archive" in text
    assert paula.post("/api/v1/groups", json={"name": "Page team"}, headers=OWN).status_code == 201
    paula.send_form(place, to="group", role="manager", name="page TEAM", until="2199-03-08")
    paula.send_form(place, to="x509", name="/C=DE/O=Grid/CN=Paula", role="curator", requires="second_factor\n")
    text = paula.read(place)
    for shown in ("Page team group", "2199-03-09, 00:00 UTC", "CN=Paula,O=Grid,C=DE x509", "only with second_factor"):
        assert shown in text, shown
    given = {one["role"]: one for one in grants_of(paula, place)}
    assert set(given) == {"owner", "reader", "manager", "curator"}
    for role in ("reader", "manager", "curator"):
        assert given[role]["id"] in find_hidden(paula.get(place), "grant_id")
        paula.send_form(f"{place}/revoke", grant_id=given[role]["id"])
    assert [one["role"] for one in grants_of(paula, place)] == ["owner"]
    assert "Reader-Of-Pages" not in paula.read(place)


def test_what_cannot_be_given_is_said_beside_what_was_typed(paula: Browser, place: str) -> None:
    for wrong, said in (
        ({"name": "nobody-at-all", "role": "reader"}, "Nobody has this login name."),
        ({"name": "", "role": "reader"}, "Say who shall have the role."),
        ({"to": "group", "name": "No such group", "role": "reader"}, "You see no group"),
        ({"to": "orcid", "name": "0000-0002-1825-0098", "role": "reader"}, "not an ORCID iD"),
        ({"name": paula.login, "role": "king"}, "Choose one of those"),
        ({"name": paula.login, "role": "reader", "until": "soon"}, "A day is written as"),
        ({"name": paula.login, "role": "reader", "until": "9999-12-31"}, "too far away"),
        ({"name": paula.login, "role": "reader", "requires": "a password of mine"}, "A login can be required"),
        ({"to": "email", "name": "not an address", "role": "reader"}, "mail"),
    ):
        answer = paula.post(place, data={"to": "login", **wrong}, headers=OWN)
        assert answer.status_code in (409, 422, 503), (wrong, answer.status_code)
        assert said in read_text(answer), (wrong, read_text(answer))
        assert not wrong["name"] or f'value="{wrong["name"]}"' in answer.text
    assert [one["role"] for one in grants_of(paula, place)] == ["owner"]


def test_who_may_read_without_a_role_is_said_there(paula: Browser, place: str) -> None:
    assert "Nobody reads it who has no role." in paula.read(place)
    paula.send_form(f"{place}/class", access="embargoed", embargo_until="2199-01-01")
    assert "Everybody reads it from 2199-01-01 on" in paula.read(place)
    paula.send_form(f"{place}/class", access="public")
    assert "Everybody reads it, once it is closed." in paula.read(place)


def test_the_page_is_for_those_who_manage_the_archive(
    running: RunningApplication, paula: Browser, place: str, nobody: Caller, root: Caller, ada: Caller
) -> None:
    for somewhere in (place, "/archives/nothing/access"):
        led = nobody.get(f"{running.url}{somewhere}?cursor=x").headers["location"]
        assert led == f"/login?{urlencode({'return_to': f'{somewhere}?cursor=x'})}"
    assert ada.get(f"{running.url}{place}").status_code == 404
    ada_id = ada.get("/me").json()["identity"]["id"]
    give = {"to": "login", "name": "ada", "role": "reader"}
    assert ada.post(f"{running.url}{place}", data=give, headers=OWN).status_code == 404
    assert nobody.post(f"{running.url}{place}", data=give, headers=OWN).status_code == 401
    assert paula.post(place, data=give).status_code == 403  # not sent by a page of ours
    assert ada_id not in [one.get("identity_id") for one in grants_of(paula, place)]
    paula.send_form(place, to="login", name="ada", role="reader")
    assert ada.get(f"{running.url}{place}").status_code == 403
    assert "Who has access" not in ada.get(f"{running.url}{place.removesuffix('/access')}").text
    shown = root.get(f"{running.url}{place}")
    assert "administrators may, without a role" in read_text(shown)
    assert "<b>" not in shown.text
    for odd in ("/archives/nothing/access", f"{place}?cursor=x"):
        assert root.get(f"{running.url}{odd}").status_code in (400, 404, 422)


def test_who_lays_his_own_role_down_is_told_so(running: RunningApplication, paula: Browser, place: str) -> None:
    with browsing(running, "leaving-access") as leaving:
        paula.send_form(place, to="login", name="leaving-access", role="manager")
        (mine,) = [one["id"] for one in grants_of(paula, place) if one["role"] == "manager"]
        assert "Lay it down" in leaving.read(place)
        leaving.send_form(f"{place}/revoke", grant_id=mine)
        assert leaving.get(place).status_code == 404


def test_a_list_of_many_roles_has_pages(running: RunningApplication, paula: Browser, place: str) -> None:
    for number in range(101):
        name = f"https://login.example.org person-{number:03}"
        paula.send_form(place, to="oidc", name=name, role="reader")
    first = paula.get(place)
    (further,) = [one for one in find_links(first) if "cursor=" in one]
    second = paula.read(further)
    assert "person-000" in read_text(first)
    assert "person-100" not in read_text(first)
    assert "person-100" in second
    assert "Administrators" not in second
