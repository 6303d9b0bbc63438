"""The page of invitations, and inviting on the page of an archive, with a real mail server behind."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import text

from perdure.testing.app import RunningApplication

from .browsing import Browser, browsing, find_hidden, find_links, read_text
from .callers import CITABLE

OWN = {"sec-fetch-site": "same-origin"}


@pytest.fixture(scope="module")
def owner(mailing: RunningApplication) -> Iterator[Browser]:
    with browsing(mailing, "inviting-owner") as browser:
        yield browser


@pytest.fixture(scope="module")
def boss(mailing: RunningApplication) -> Iterator[Browser]:
    with browsing(mailing, "inviting-boss", is_administrator=True) as browser:
        yield browser


def test_an_address_is_invited_to_a_role_again_and_no_more(owner: Browser, boss: Browser) -> None:
    opened = owner.post("/api/v1/archives", json={**CITABLE, "title": "Leaf <b>"}, headers=OWN).json()
    place = f"/archives/{opened['short_id']}/access"
    owner.send_form(place, to="email", name="guest-a@example.org", role="reader", note="Come and see.")
    owner.send_form(place, to="email", name="guest-b@example.org", role="reader")
    assert "guest-a@example.org, to be reader" in owner.read(place)
    page = owner.get("/invitations")
    shown = read_text(page)
    assert shown.index("guest-b@example.org") < shown.index("guest-a@example.org")  # the newest first
    assert "reader of the archive Leaf <b>" in shown
    assert "◐ waiting" in shown
    assert "by you" in shown
    assert "Invite somebody to a login here" not in shown
    second, first, *_ = find_hidden(page, "invitation_id")
    owner.send_form("/invitations", act="resend", invitation_id=first, state="pending")
    owner.send_form("/invitations", act="withdraw", invitation_id=second)
    assert "guest-b" not in owner.read("/invitations?state=pending")
    withdrawn = owner.read("/invitations?state=revoked")
    assert "○ withdrawn" in withdrawn
    assert "guest-a" not in withdrawn
    again = owner.send_form("/invitations", act="resend", invitation_id=second, status=409)
    assert "The invitation is revoked." in read_text(again)
    one = owner.get(f"/api/v1/invitations?state=pending&archive_id={opened['id']}").json()["items"]
    assert [(item["email"], item["id"]) for item in one] == [("guest-a@example.org", first)]
    owner.send_form(f"{place}/withdraw", invitation_id=first)
    assert "guest-a" not in owner.read(place)
    with_names = boss.read("/invitations")
    assert "by Inviting-Owner" in with_names


def test_invitations_that_ended_are_told_apart(mailing: RunningApplication, owner: Browser) -> None:
    opened = owner.post("/api/v1/archives", json=CITABLE, headers=OWN).json()
    place = f"/archives/{opened['short_id']}/access"
    for name in ("late", "short"):
        owner.send_form(place, to="email", name=f"{name}@example.org", role="reader", until="2199-01-01")
    past = mailing.application.clock.now() - timedelta(minutes=1)
    with mailing.application.db.begin() as tx:
        tx.execute(text("UPDATE invitations SET expires_at = :p WHERE address = 'late@example.org'"), {"p": past})
        tx.execute(text("UPDATE invitations SET role_until = :p WHERE address = 'short@example.org'"), {"p": past})
    ended = owner.read("/invitations?state=ended")
    assert "late@example.org" in ended
    assert "short@example.org" in ended
    assert "✕ expired" in ended
    assert "late@example.org" not in owner.read("/invitations?state=pending")
    (late,) = [
        one["id"] for one in owner.get("/api/v1/invitations?state=ended").json()["items"] if "late" in one["email"]
    ]
    owner.send_form("/invitations", act="resend", invitation_id=late)
    assert "late@example.org" in owner.read("/invitations?state=pending")


def test_managers_invite_to_a_login_and_see_those_of_one_organisation(boss: Browser, owner: Browser) -> None:
    made = boss.post("/api/v1/organisations", json={"name": "Far institute"}, headers=OWN).json()
    home = boss.get("/api/v1/me").json()["identity"]["organisation_id"]
    boss.send_form("/invitations", act="invite", email="far@example.org", organisation_id=made["id"])
    boss.send_form("/invitations", act="invite", email="near@example.org", organisation_id=home)
    assert "a login, in Far institute" in (far := boss.read(f"/invitations?home={made['id']}"))
    assert "near@example.org" not in far
    assert "far@example.org" not in boss.read(f"/invitations?home={home}")
    assert "far@example.org" not in owner.read("/invitations")
    wrong = boss.send_form("/invitations", act="invite", email="nobody", organisation_id=home, status=422)
    assert 'value="nobody"' in wrong.text
    owner.send_form("/invitations", act="invite", email="x@example.org", organisation_id=home, status=403)
    (far_id,) = [one["id"] for one in boss.get(f"/api/v1/invitations?home_id={made['id']}").json()["items"]]
    owner.send_form("/invitations", act="withdraw", invitation_id=far_id, status=404)
    assert owner.get("/invitations?state=odd").status_code == 422


def test_the_list_has_pages_and_asks_for_a_login(mailing: RunningApplication, boss: Browser) -> None:
    home = boss.get("/api/v1/me").json()["identity"]["organisation_id"]
    for number in range(52):
        boss.send_form("/invitations", act="invite", email=f"crowd-{number:02}@example.org", organisation_id=home)
    first = boss.get(f"/invitations?home={home}&state=pending")
    (older,) = [one for one in find_links(first) if "cursor=" in one]
    assert "crowd-51@" in first.text
    assert "crowd-01@" not in first.text
    second = boss.read(older)
    assert "crowd-01@" in second
    assert "crowd-51@" not in second
    led = httpx.get(f"{mailing.url}/invitations?state=pending").headers["location"]
    assert led == "/login?return_to=%2Finvitations%3Fstate%3Dpending"
