"""Invitations, resets, addresses and notices by a real mail server, over HTTP and by pages."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from sqlalchemy import text

from perdure.identity import Arrival, CredentialKind
from perdure.identity.secrets import digest_secret
from perdure.testing.app import RunningApplication
from perdure_client.cli.main import perdure

from .callers import Caller, Problem
from .letter_box import LetterBox, key_in, link_in

OWN = {"sec-fetch-site": "same-origin"}
GOOD = "seven quiet lanterns"
BETTER = "eight quiet lanterns"


@pytest.fixture(scope="module")
def chief(mailing: RunningApplication) -> Iterator[Caller]:
    """The administrator there."""
    with Caller(mailing, mailing.token()) as caller:
        yield caller


@pytest.fixture(scope="module")
def owner(mailing: RunningApplication) -> Iterator[Caller]:
    """Somebody with archives, who manages nothing else."""
    with Caller(mailing, mailing.person("olga")) as caller:
        yield caller


@pytest.fixture
def stranger(mailing: RunningApplication) -> Iterator[Caller]:
    with Caller(mailing, None) as caller:
        yield caller


@pytest.fixture
def page(mailing: RunningApplication) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=mailing.url, trust_env=False, headers=OWN) as client:
        yield client


class Town:
    """Whoever is logged in at the application, until the end of the module."""

    def __init__(self, running: RunningApplication, chief: Caller, box: LetterBox) -> None:
        self._running = running
        self._chief = chief
        self._box = box
        self._callers = ExitStack()

    def close(self) -> None:
        self._callers.close()

    def bear(self, secret: str) -> Caller:
        return self._callers.enter_context(Caller(self._running, secret))

    def log_in(self, login: str, password: str, **more: Any) -> Caller:
        with Caller(self._running, None) as visitor:
            opened = visitor.post("/login", json={"login": login, "password": password, **more})
        assert opened.status_code == 200, opened.text
        return self.bear(opened.json()["secret"])

    def add(self, login: str, *, address: str | None = None) -> Caller:
        """Somebody with a session, and with a confirmed address if one is named."""
        made = self._chief.post("/identities", json={"login": login, "display_name": login.title(), "password": GOOD})
        assert made.status_code == 201, made.text
        person = self.log_in(login, GOOD)
        if address:
            asked = person.put("/me/address", json={"email": address})
            assert asked.status_code == 202, asked.text
            key = key_in(self._box.wait_for(address, "Confirm"))
            assert person.post("/address/confirm", json={"key": key}).json()["email"] == address
        return person


@pytest.fixture(scope="module")
def town(mailing: RunningApplication, chief: Caller, box: LetterBox) -> Iterator[Town]:
    made = Town(mailing, chief, box)
    yield made
    made.close()


def test_an_archive_is_shared_with_an_address_and_who_has_the_link_takes_it(
    mailing: RunningApplication,
    town: Town,
    owner: Caller,
    chief: Caller,
    stranger: Caller,
    box: LetterBox,
    problem: Problem,
) -> None:
    archive = owner.open(title="Leaves")
    wanted = {
        "email": "Guest@Bücher.example",
        "archive_id": archive,
        "role": "reader",
        "note": "Our beamtime.\r\nBcc: x@example.org",
    }
    made = owner.post("/invitations", json=wanted)
    assert made.status_code == 201, made.text
    assert (made.json()["state"], made.json()["email"]) == ("pending", "Guest@xn--bcher-kva.example")
    letter = box.wait_for("Guest@xn--bcher-kva.example")
    assert letter["From"] == "Data archive <archive@example.org>"
    assert (letter["Bcc"], letter["Auto-Submitted"]) == (None, "auto-generated")
    told = letter.get_content()
    assert all(word in told for word in ("Olga", "reader", '"Leaves"', "Our beamtime.", "until"))
    key = key_in(letter)
    who = owner.get(f"/archives/{archive}/access").json()["items"][-1]
    assert (who["through"], who["name"], who["role"], who["actions"]) == (
        "invitation",
        made.json()["email"],
        "reader",
        [],
    )
    listed = owner.get("/invitations", params={"archive_id": archive}).json()["items"]
    assert [one["id"] for one in listed] == [who["invitation_id"]]

    guest = town.add("gustav")
    problem(guest.get("/invitations", params={"archive_id": archive}), 404, "archive_not_found")
    problem(guest.delete(f"/invitations/{made.json()['id']}"), 404, "invitation_not_found")
    assert guest.get("/invitations").json()["items"] == []
    card = stranger.post("/invitations/look", json={"key": key}).json()
    assert (card["inviter"], card["role"], card["may_join"]) == ("Olga", "reader", True)
    problem(stranger.post("/invitations/accept", json={"key": key}), 401, "not_logged_in")
    for _ in range(2):  # the same answer when the first was lost
        assert guest.post("/invitations/accept", json={"key": key}).json()["state"] == "accepted"
    assert guest.get(f"/archives/{archive}").json()["actions"] == ["read", "see"]
    problem(owner.post("/invitations/accept", json={"key": key}), 404, "invitation_ended")
    problem(stranger.post("/invitations/look", json={"key": key}), 404, "invitation_ended")
    grants = owner.get(f"/archives/{archive}/grants").json()["items"]
    me = owner.get("/me").json()["identity"]["id"]
    assert [(one["name"], one["role"], one["granted_by"]) for one in grants][-1] == ("Gustav", "reader", me)
    assert owner.get(f"/archives/{archive}/access").json()["items"][-1]["through"] == "archive"
    problem(owner.delete(f"/invitations/{made.json()['id']}"), 409, "invitation_decided")


def test_what_is_invited_to_is_asked_again_and_ends_when_revoked_or_sent_anew(
    mailing: RunningApplication,
    town: Town,
    owner: Caller,
    chief: Caller,
    stranger: Caller,
    box: LetterBox,
    problem: Problem,
) -> None:
    archive = owner.open()
    helper = town.add("helge")
    managing = owner.post(f"/archives/{archive}/grants", json={"role": "manager", "login": "helge"}).json()
    above = {"email": "a@example.org", "archive_id": archive, "role": "owner"}
    problem(helper.post("/invitations", json=above), 403, "not_allowed")
    problem(stranger.post("/invitations", json=above), 401, "not_logged_in")
    one = helper.post("/invitations", json={**above, "role": "manager"}).json()
    first = key_in(box.wait_for("a@example.org"))
    again = helper.post("/invitations", json={**above, "role": "manager"}).json()
    assert again["id"] == one["id"]
    second = key_in(box.wait_for("a@example.org"))
    assert owner.post(f"/invitations/{one['id']}/resend").status_code == 200
    third = key_in(box.wait_for("a@example.org"))
    for key in (first, second):
        problem(stranger.post("/invitations/look", json={"key": key}), 404, "invitation_ended")
    assert stranger.post("/invitations/look", json={"key": third}).status_code == 200
    assert owner.delete(f"/archives/{archive}/grants/{managing['id']}").status_code == 204
    late = town.add("lutz")
    problem(late.post("/invitations/accept", json={"key": third}), 404, "invitation_ended")
    problem(late.get(f"/archives/{archive}"), 404, "archive_not_found")
    for _ in range(2):
        assert owner.delete(f"/invitations/{one['id']}").status_code == 204
    problem(stranger.post("/invitations/look", json={"key": third}), 404, "invitation_ended")
    problem(owner.post(f"/invitations/{one['id']}/resend"), 409, "invitation_decided")
    for bad in (
        "ada",
        "a@b",
        "a b@example.org",
        "a@example.org\r\nBcc: x@example.org",
        "<a@example.org>",
        "@example.org",
    ):
        wrong = {"email": bad, "archive_id": archive, "role": "reader"}
        assert problem(owner.post("/invitations", json=wrong), 422, "bad_input")["field"] == "email"


def test_of_invitations_sent_at_once_no_more_than_a_days_number_goes_out(
    mailing: RunningApplication, chief: Caller
) -> None:
    """Whether they are new, or sent again by who sent them or by somebody else."""
    with Caller(mailing, mailing.person("quentin")) as sender:
        archive = sender.open()
        fields = {"archive_id": archive, "role": "reader"}
        first, again, *_ = (
            sender.post("/invitations", json={"email": f"many{number}@example.org", **fields}).json()["id"]
            for number in range(2)
        )
        with mailing.application.db.begin() as tx:
            tx.execute(text("UPDATE invitations SET sent = 196 WHERE id = :id"), {"id": first})
        start = Barrier(9)

        def send(number: int) -> int:
            start.wait(60)
            if number < 7:
                return sender.post("/invitations", json={"email": f"more{number}@example.org", **fields}).status_code
            who = sender if number == 7 else chief
            return who.post(f"/invitations/{again}/resend").status_code

        with ThreadPoolExecutor(9) as pool:
            outcomes = list(pool.map(send, range(9)))
        sent = sum(one in (200, 201, 202) for one in outcomes)
        assert (sent, outcomes.count(429)) == (3, 6), outcomes
        with mailing.application.db.begin() as tx:
            query = text("SELECT sum(sent) FROM invitations WHERE on_id = :id")
            assert tx.execute(query, {"id": archive}).scalar_one() == 200


def test_a_newcomer_joins_by_the_page_of_his_invitation(
    mailing: RunningApplication, owner: Caller, chief: Caller, box: LetterBox, page: httpx.Client
) -> None:
    archive = owner.open()
    owner.post("/invitations", json={"email": "new@example.org", "archive_id": archive, "role": "contributor"})
    place = urlsplit(link_in(box.wait_for("new@example.org"))).path
    for _ in range(2):  # a program that looks at mail opens it, and nothing is used up
        shown = page.get(place)
        assert (shown.status_code, shown.headers["cache-control"]) == (200, "no-store")
        assert shown.headers["x-robots-tag"] == "noindex, nofollow"
        assert "contributor" in shown.text
    form = {"display_name": "Nora", "login": "nora", "password": "short"}
    assert page.post(f"{place}/join", data=form, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    weak = page.post(f"{place}/join", data=form)
    assert (weak.status_code, 'value="nora"' in weak.text) == (422, True)
    joined = page.post(f"{place}/join", data={**form, "password": GOOD})
    assert (joined.status_code, joined.headers["location"].split("/")[1]) == (303, "archives")
    me = page.get("/api/v1/me").json()
    assert (me["identity"]["display_name"], me["identity"]["is_administrator"]) == ("Nora", False)
    assert "fill" in page.get(f"/api/v1/archives/{archive}").json()["actions"]
    assert page.get("/api/v1/me/address").json()["confirmed_at"]
    space = page.get(f"/api/v1/accounts/{me['personal_account_id']}").json()
    assert space["quota_bytes"] == 0, "who invited does not manage the organisation"
    assert page.get(place).status_code == 404
    told = {one["type"] for one in chief.get("/audit", params={"about": me["identity"]["id"]}).json()["items"]}
    assert {"identity.created", "invitation.accepted"} <= told


def test_managers_invite_to_a_login_and_others_do_not(
    mailing: RunningApplication,
    town: Town,
    owner: Caller,
    chief: Caller,
    stranger: Caller,
    box: LetterBox,
    problem: Problem,
) -> None:
    problem(owner.post("/invitations", json={"email": "m@example.org"}), 403, "not_allowed")
    made = chief.post("/invitations", json={"email": "m@example.org"}).json()
    assert (made["role"], made["on_kind"]) == (None, None)
    key = key_in(box.wait_for("m@example.org"))
    problem(owner.post("/invitations/accept", json={"key": key}), 409, "known_already")
    form = {"key": key, "login": "martha", "password": GOOD, "display_name": "Martha"}
    problem(stranger.post("/invitations/join", json={**form, "login": "olga"}), 409, "name_taken")
    version = chief.post("/terms", json={"text": "Be kind."}).json()["version"]
    try:
        problem(stranger.post("/invitations/join", json=form), 403, "terms_not_accepted")
        joined = stranger.post("/invitations/join", json={**form, "accept_terms": version})
    finally:
        with mailing.application.db.begin() as tx:
            tx.execute(text("DELETE FROM terms"))
    assert joined.json()["identity"]["display_name"] == "Martha"
    mine = town.bear(joined.json()["secret"])
    account = mine.get(f"/accounts/{mine.get('/me').json()['personal_account_id']}").json()
    assert account["quota_bytes"] is None


def test_who_is_known_elsewhere_joins_by_that_login_and_by_no_address(
    mailing: RunningApplication, town: Town, owner: Caller, stranger: Caller, page: httpx.Client, box: LetterBox
) -> None:
    first, second = owner.open(), owner.open()
    for archive in (first, second):
        owner.post("/invitations", json={"email": "wanda@example.org", "archive_id": archive, "role": "reader"})
    keys: list[str] = []
    for _ in range(2):
        letter = box.wait_for("wanda@example.org")
        card = stranger.post("/invitations/look", json={"key": key_in(letter)}).json()
        assert card["role"] == "reader"
        keys.append(key_in(letter))
    identity = mailing.application.identity
    claimed = Arrival(CredentialKind.OIDC, "https://login.example.org wanda", "Wanda", email="wanda@example.org")
    ticket = identity.seal_arrival(claimed)
    refused = stranger.post("/login/ticket", json={"ticket": ticket})
    assert refused.json()["code"] == "unknown_person", "an address that a provider says of somebody is no invitation"
    form = {"ticket": ticket, "display_name": "Wanda"}
    joined = page.post(f"/mail/invitation/{keys[0]}/join", data=form)
    assert joined.status_code == 303, joined.text
    me = page.get("/api/v1/me").json()["identity"]
    opened = page.get("/api/v1/sessions").json()["items"]
    assert [one["proven_at"] for one in opened] == [None], "nobody knows when she showed there who she is"
    again = stranger.post("/invitations/join", json={"key": keys[1], "ticket": identity.seal_arrival(claimed)})
    assert again.json()["identity"]["id"] == me["id"]
    wanda = town.bear(again.json()["secret"])
    assert [wanda.get(f"/archives/{archive}").status_code for archive in (first, second)] == [200, 200]
    assert [one["kind"] for one in wanda.get("/me/logins").json()["items"]] == ["oidc"]


def test_where_guests_are_not_taken_an_invitation_makes_no_login(
    mailing: RunningApplication, owner: Caller, stranger: Caller, box: LetterBox, problem: Problem, monkeypatch: Any
) -> None:
    invitations = mailing.application.sharing.invitations
    monkeypatch.setattr(invitations, "_settings", replace(invitations._settings, with_guests=False))
    owner.post("/invitations", json={"email": "g@example.org", "archive_id": owner.open(), "role": "reader"})
    key = key_in(box.wait_for("g@example.org"))
    assert stranger.post("/invitations/look", json={"key": key}).json()["may_join"] is False
    form = {"key": key, "login": "guido", "password": GOOD, "display_name": "G"}
    problem(stranger.post("/invitations/join", json=form), 403, "guests_not_taken")


def test_who_manages_the_organisation_no_more_lets_in_as_everybody_does(
    town: Town, owner: Caller, chief: Caller, stranger: Caller, box: LetterBox
) -> None:
    manager = town.add("mara")
    home = manager.get("/me").json()["identity"]["organisation_id"]
    given = chief.post(f"/organisations/{home}/grants", json={"role": "manager", "login": "mara"}).json()
    archive = manager.open()
    manager.post("/invitations", json={"email": "q@example.org", "archive_id": archive, "role": "reader"})
    key = key_in(box.wait_for("q@example.org"))
    assert chief.delete(f"/organisations/{home}/grants/{given['id']}").status_code == 204
    form = {"key": key, "login": "quirin", "password": GOOD, "display_name": "Quirin"}
    joined = stranger.post("/invitations/join", json=form)
    assert joined.status_code == 200, joined.text
    mine = town.bear(joined.json()["secret"])
    assert mine.get(f"/accounts/{mine.get('/me').json()['personal_account_id']}").json()["quota_bytes"] == 0


def test_who_has_no_password_is_told_so_three_times_an_hour(
    mailing: RunningApplication, town: Town, stranger: Caller, box: LetterBox
) -> None:
    mine = town.add("paul", address="paul@example.org").get("/me").json()["identity"]["id"]
    with mailing.application.db.begin() as tx:
        tx.execute(text("DELETE FROM credentials WHERE identity_id = :id"), {"id": mine})
    for _ in range(5):
        assert stranger.post("/password/forgotten", json={"name": "paul@example.org"}).status_code == 202
        _wait_until_nothing_waits(mailing)
    assert len([one for one in box.letters if one["To"] == "paul@example.org"]) == 3


@pytest.mark.parametrize("is_forgotten", [False, True])
def test_a_new_password_ends_what_was_sent_to_another_address(
    town: Town, stranger: Caller, box: LetterBox, problem: Problem, *, is_forgotten: bool
) -> None:
    login = "ines" if is_forgotten else "ivo"
    person = town.add(login, address=f"{login}@example.org")
    assert person.put("/me/address", json={"email": "thief@example.org"}).status_code == 202
    stolen = key_in(box.wait_for("thief@example.org", "Confirm"))
    if is_forgotten:
        assert stranger.post("/password/forgotten", json={"name": login}).status_code == 202
        key = key_in(box.wait_for(f"{login}@example.org", "A new password"))
        assert stranger.post("/password/reset", json={"key": key, "password": BETTER}).status_code == 204
    else:
        change = {"old_password": GOOD, "new_password": BETTER}
        assert person.put("/me/password", json=change).status_code == 204
    problem(stranger.post("/address/confirm", json={"key": stolen}), 404, "mail_key_ended")


def test_a_page_takes_no_nul(page: httpx.Client) -> None:
    assert page.post("/login", data={"login": "a\0b", "password": GOOD}).status_code == 401


def test_a_forgotten_password_is_reset_by_its_owner(
    mailing: RunningApplication,
    town: Town,
    chief: Caller,
    box: LetterBox,
    page: httpx.Client,
    stranger: Caller,
    problem: Problem,
) -> None:
    person = town.add("rita", address="rita@example.org")
    token = {"authorization": f"Bearer {person.post('/tokens', json={'name': 't'}).json()['secret']}"}
    assert "Forgotten password" in page.get("/login").text
    answers = [
        page.post("/password/forgotten", data={"name": name})
        for name in ("nobody", "nobody@example.org", "olga", "RITA", "Rita@Example.org")
    ]
    assert {(answer.status_code, re.sub(r"[0-9a-f-]{32,}", "", answer.text)) for answer in answers} == {
        (202, re.sub(r"[0-9a-f-]{32,}", "", answers[0].text))
    }
    letters = [box.wait_for("rita@example.org", "A new password") for _ in range(2)]
    places = [urlsplit(link_in(letter)).path for letter in letters]
    assert "login name rita" in letters[0].get_content()
    assert page.get(places[0]).status_code == 200
    assert "12 are needed" in page.post(places[0], data={"password": "short"}).text
    assert "is set" in page.post(places[0], data={"password": BETTER}).text
    assert person.get("/me").status_code == 401
    assert person.get("/me", headers=token).status_code == 200, "tokens stay unless they are named"
    assert [page.post(place, data={"password": GOOD}).status_code for place in places] == [404, 404]
    box.wait_for("rita@example.org", "Your password was reset")
    problem(stranger.post("/login", json={"login": "rita", "password": GOOD}), 401, "bad_credentials")
    back = town.log_in("rita", BETTER)
    mine = back.get("/me").json()["identity"]["id"]
    told = [one["type"] for one in chief.get("/audit", params={"about": mine, "order": "oldest"}).json()["items"]]
    assert told.count("password.reset_asked") == 2
    assert "password.reset" in told
    assert not [one for one in box.letters if one["To"] == "nobody@example.org"]


def test_a_reset_leaves_the_second_factor_and_an_hour_ends_its_link(
    mailing: RunningApplication, town: Town, chief: Caller, box: LetterBox, stranger: Caller, problem: Problem
) -> None:
    person = town.add("sven", address="sven@example.org")
    mine = person.get("/me").json()["identity"]["id"]
    begun = person.post("/me/second-factor").json()
    codes = person.put("/me/second-factor", json={"code": _code_of(begun["key"])}).json()["codes"]
    for _ in range(5):
        assert stranger.post("/password/forgotten", json={"name": "sven"}).status_code == 202
    keys = [key_in(box.wait_for("sven@example.org", "A new password")) for _ in range(3)]
    _wait_until_nothing_waits(mailing)
    ended = text(
        "UPDATE mail_keys SET expires_at = now() - interval '1 s' WHERE identity_id = :id AND digest = :digest"
    )
    with mailing.application.db.begin() as tx:
        tx.execute(ended, {"id": mine, "digest": digest_secret(keys[0])})
    assert not [one for one in box.letters if one["To"] == "sven@example.org"], "three are good at a time"
    problem(stranger.post("/password/reset", json={"key": keys[0], "password": BETTER}), 404, "mail_key_ended")
    problem(stranger.post("/password/reset", json={"key": keys[1], "password": "short"}), 422, "weak_password")
    assert stranger.post("/password/reset", json={"key": keys[1], "password": BETTER}).status_code == 204
    box.wait_for("sven@example.org", "was reset")
    login = {"login": "sven", "password": BETTER}
    problem(stranger.post("/login", json=login), 401, "second_factor_needed")
    back = town.log_in("sven", BETTER, code=codes[0])
    assert back.post("/me/second-factor/remove", json={"code": codes[1]}).status_code == 204
    assert "turned off by you" in box.wait_for("sven@example.org", "second factor").get_content()


def _code_of(key: str) -> str:
    totp = TOTP(base64.b32decode(key), 6, SHA1(), 30)  # noqa: S303  # what every device speaks
    return totp.generate(int(time.time())).decode()


def _wait_until_nothing_waits(mailing: RunningApplication) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with mailing.application.db.begin() as tx:
            if not tx.execute(text("SELECT count(*) FROM mails WHERE problem IS NULL")).scalar_one():
                return
        time.sleep(0.05)
    raise AssertionError("mail waits on")


def test_a_changed_address_is_told_to_the_one_before_and_counts_once_it_is_confirmed(
    mailing: RunningApplication,
    town: Town,
    chief: Caller,
    box: LetterBox,
    page: httpx.Client,
    stranger: Caller,
    problem: Problem,
) -> None:
    person = town.add("thea", address="thea@example.org")
    change = {"email": "thea.new@example.org"}
    token = person.post("/tokens", json={"name": "t", "verbs": ["read", "manage"]}).json()["secret"]
    bearing = {"authorization": f"Bearer {token}"}
    problem(person.put("/me/address", json=change, headers=bearing), 403, "not_allowed")
    with mailing.application.db.begin() as tx:
        tx.execute(
            text("UPDATE sessions SET proven_at = now() - interval '1 day' WHERE digest = :digest"),
            {"digest": digest_secret(str(person.headers["authorization"]).removeprefix("Bearer "))},
        )
    problem(person.put("/me/address", json=change), 403, "fresh_login_required")
    assert page.get("/address").headers["location"] == "/login?return_to=/address"
    page.post("/login", data={"login": "thea", "password": GOOD})
    assert "thea@example.org" in page.get("/address").text
    asked = page.post("/address", data=change)
    assert "Open its link" in asked.text
    place = urlsplit(link_in(box.wait_for("thea.new@example.org", "Confirm"))).path
    assert person.get("/me/address").json()["email"] == "thea@example.org"
    assert "thea.new@example.org" in page.get(place).text
    assert "is confirmed" in page.post(place).text
    assert page.post(place).status_code == 404
    assert "another one" in box.wait_for("thea@example.org", "was changed").get_content()
    assert person.get("/me/address").json()["email"] == "thea.new@example.org"


def test_applicants_and_those_who_decide_are_told_once(
    mailing: RunningApplication, town: Town, chief: Caller, box: LetterBox, stranger: Caller
) -> None:
    town.add("vera", address="vera@example.org")
    home = chief.get("/organisations").json()["items"][0]["id"]
    chief.post(f"/organisations/{home}/grants", json={"role": "manager", "login": "vera"})
    form = {"password": GOOD, "organisation_id": home}
    for login in ("uwe", "uta"):
        told = {"login": login, "display_name": login.title(), "email": f"{login}@example.org"}
        assert stranger.post("/applications/local", json={**form, **told}).status_code == 202
    assert mailing.application.identity.tell_deciders() == 1
    assert mailing.application.identity.tell_deciders() == 0
    letter = box.wait_for("vera@example.org", "2 applications")
    assert all(name in letter.get_content() for name in ("Uwe", "Uta"))
    waiting = chief.get("/applications", params={"state": "pending"}).json()["items"]
    uwe, uta = (next(one["id"] for one in waiting if one["subject"] == login) for login in ("uwe", "uta"))
    assert chief.post(f"/applications/{uwe}/approve", json={}).status_code == 200
    assert chief.post(f"/applications/{uta}/refuse", json={"note": "Not this year."}).status_code == 204
    assert "Not this year." in box.wait_for("uta@example.org", "Your application").get_content()
    key = key_in(box.wait_for("uwe@example.org", "You are let in"))
    mine = town.log_in("uwe", GOOD)
    assert mine.get("/me/address").json()["confirmed_at"] is None
    assert stranger.post("/address/confirm", json={"key": key}).status_code == 200
    assert mine.get("/me/address").json()["confirmed_at"]


def test_mail_that_waits_is_sealed_is_tried_again_and_what_is_refused_is_told(
    mailing: RunningApplication, chief: Caller, owner: Caller, box: LetterBox, problem: Problem
) -> None:
    archive = owner.open()
    box.is_late = True
    try:
        made = owner.post(
            "/invitations", json={"email": "x@example.org", "archive_id": archive, "role": "reader"}
        ).json()
        _wait_for_attempt(mailing)
        with mailing.application.db.begin() as tx:
            for table in ("mails", "jobs", "procrastinate_jobs", "invitations", "events"):
                rows = tx.execute(text(f"SELECT to_jsonb(t)::text FROM {table} t")).scalars().all()  # noqa: S608
                assert not [row for row in rows if "pdi_" in row or "/mail/" in row], table
            kept = tx.execute(text("SELECT to_jsonb(t)::text FROM mails t")).scalars().all()
            assert kept
            assert not [row for row in kept if "example.org" in row]
        listed = owner.get("/invitations", params={"archive_id": archive}).json()["items"]
        assert [one["trouble"] for one in listed] == ["waiting"]
    finally:
        box.is_late = False
    with mailing.application.db.begin() as tx:  # the wait is fifteen seconds otherwise
        tx.execute(text("UPDATE procrastinate_jobs SET scheduled_at = now() WHERE status = 'todo'"))
    assert key_in(box.wait_for("x@example.org"))
    _wait_until_nothing_waits(mailing)
    listed = owner.get("/invitations", params={"archive_id": archive}).json()["items"]
    assert [(one["id"], one["trouble"]) for one in listed] == [(made["id"], None)]
    gone = owner.post("/invitations", json={"email": "refused@example.org", "archive_id": archive, "role": "reader"})
    until = time.monotonic() + 20
    trouble = "waiting"
    while trouble == "waiting" and time.monotonic() < until:
        found = owner.get("/invitations", params={"archive_id": archive}).json()["items"]
        (trouble,) = (one["trouble"] for one in found if one["id"] == gone.json()["id"])
    assert trouble == "The mail server refuses the recipient (550)."
    mailing.application.events.sequence_pending()
    (failed,) = chief.get("/audit", params={"type": "mail.failed"}).json()["items"]
    assert (failed["data"]["about"], failed["data"]["why"]) == (gone.json()["id"], "refused")
    assert "refused@example.org" not in json.dumps(failed)


def _wait_for_attempt(mailing: RunningApplication) -> None:
    until = time.monotonic() + 20
    query = text(
        "SELECT count(*) FROM jobs WHERE kind = 'identity.send_mail' AND error ->> 'code' = 'mail_unavailable'"
    )
    while time.monotonic() < until:
        with mailing.application.db.begin() as tx:
            if tx.execute(query).scalar_one():
                return
        time.sleep(0.05)
    raise AssertionError("nobody tried")


def test_without_a_mail_server_it_is_said_and_nothing_else_breaks(
    root: Caller, ada: Caller, nobody: Caller, archive: str, problem: Problem
) -> None:
    wanted = {"email": "a@example.org", "archive_id": archive, "role": "reader"}
    for answer in (
        ada.post("/invitations", json=wanted),
        nobody.post("/password/forgotten", json={"name": "ada"}),
        nobody.post("/password/forgotten", json={"name": "nobody at all"}),
    ):
        assert "smtp_host" in problem(answer, 409, "mail_not_configured")["next_step"]
    told = {"login": "viktor", "display_name": "V", "password": GOOD, "email": "v@example.org"}
    assert nobody.post("/applications/local", json=told).status_code == 202
    (asked,) = [one for one in root.get("/applications").json()["items"] if one["subject"] == "viktor"]
    home = root.get("/organisations").json()["items"][0]["id"]
    assert root.post(f"/applications/{asked['id']}/approve", json={"organisation_id": home}).status_code == 200


def test_the_commands(
    mailing: RunningApplication, town: Town, owner: Caller, chief: Caller, box: LetterBox, tmp_path: Path
) -> None:
    def run(caller: Caller | None, *words: str, typed: str = "") -> str:
        token = str(caller.headers["authorization"]).removeprefix("Bearer ") if caller else ""
        environment = {"PERDURE_URL": mailing.url, "PERDURE_TOKEN": token, "HOME": str(tmp_path)}
        ran = CliRunner().invoke(perdure, words, input=typed, env=environment)
        assert ran.exit_code == 0, (ran.output, ran.exception)
        return ran.stdout

    archive = owner.open()
    made = run(owner, "grant", "give", archive, "reader", "c@example.org", "--as", "email").split()[-1]
    assert "waits to be sent" in (listed := run(owner, "invite", "list")) or "sent" in listed
    assert "has not accepted yet" in run(owner, "who", archive)
    box.wait_for("c@example.org")
    run(owner, "invite", "resend", made)
    link = link_in(box.wait_for("c@example.org"))
    assert "reader of archive" in run(None, "invite", "show", link)
    assert "perdure login" in run(
        None, "invite", "join", link, "--login", "carla", "--name", "Carla", "--password-stdin", typed=f"{GOOD}\n"
    )
    carla = town.log_in("carla", GOOD)
    assert carla.get(f"/archives/{archive}").status_code == 200
    other = run(owner, "invite", "send", "d@example.org", "--archive", archive, "--role", "curator").split()[-1]
    assert "is confirmed" not in run(carla, "address", "show")
    accepted = run(carla, "invite", "accept", link_in(box.wait_for("d@example.org")))
    assert "You are curator of archive" in accepted
    assert other in run(owner, "invite", "list", "--archive", archive)
    run(None, "password", "forgot", "carla")
    reset = link_in(box.wait_for("c@example.org", "A new password"))
    run(None, "password", "reset", reset, "--password-stdin", typed=f"{BETTER}\n")
    assert town.log_in("carla", BETTER).get("/me").status_code == 200
    last = run(owner, "invite", "send", "e@example.org", "--archive", archive, "--role", "reader").split()[-1]
    assert "Revoked" in run(owner, "invite", "revoke", last)
