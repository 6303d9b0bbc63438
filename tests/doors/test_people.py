"""What may be changed of people, and how a withdrawal that needs two of them is seen."""

from __future__ import annotations

import time

from sqlalchemy import text

from perdure.testing.app import RunningApplication

from .callers import CITABLE, Caller, Problem


def test_a_name_is_changed_by_administrators(root: Caller, ada: Caller, problem: Problem) -> None:
    made = root.post("/identities", json={"login": "edith", "display_name": "Edit"}).json()["id"]
    problem(ada.patch(f"/identities/{made}", json={"display_name": "Mallory"}), 403, "not_allowed")
    changed = root.patch(f"/identities/{made}", json={"display_name": "Edith"})
    assert changed.json()["display_name"] == "Edith"
    assert ada.get(f"/identities/{made}").json()["display_name"] == "Edith"


def test_one_changes_ones_own_name_with_a_password_only(root: Caller, ada: Caller, problem: Problem) -> None:
    made = root.post("/identities", json={"login": "frida", "display_name": "F"}).json()
    login = {"login": "frida", "password": made["password"]}
    session = root.post("/login", json=login, headers={"authorization": ""}).json()["secret"]
    own = {"authorization": f"Bearer {session}"}
    changed = root.patch(f"/identities/{made['id']}", json={"display_name": "Frida"}, headers=own)
    assert (changed.status_code, changed.json()["display_name"]) == (200, "Frida")
    me = ada.get("/me").json()["identity"]["id"]
    problem(ada.patch(f"/identities/{me}", json={"display_name": "Eve"}), 403, "not_allowed")


def test_a_withdrawal_by_two_shows_who_has_agreed(root: Caller, ada: Caller, bob: Caller, problem: Problem) -> None:
    contract = root.get("/profiles/personal").json()
    root.post("/profiles", json={**contract, "name": "by-two", "withdraw_approvals": 2})
    archive = ada.post("/archives", json={**CITABLE, "profile": "by-two"}).json()["id"]
    ada.put_file(archive, "a.txt", b"a")
    ada.close_archive(archive)
    place = f"/archives/{archive}/withdrawal"
    assert ada.get(place).json() == {
        "archive_id": archive,
        "approvals": 0,
        "needed": 2,
        "approved_by": [],
        "job_id": None,
    }
    asked = ada.post(f"/archives/{archive}/withdraw", json={"reason": "Wrong sample."})
    assert asked.json() == {"archive_id": archive, "approvals": 1, "needed": 2}
    problem(ada.post(f"/archives/{archive}/withdraw", json={"reason": "Again."}), 409, "already_approved")
    assert [one["reason"] for one in ada.get(place).json()["approved_by"]] == ["Wrong sample."]
    ada.post(f"/archives/{archive}/grants", json={"role": "owner", "login": "bob"})
    bob.finish(bob.post(f"/archives/{archive}/withdraw", json={"reason": "I agree."}))
    tombstone = ada.get(f"/archives/{archive}").json()
    assert tombstone["state"] == "withdrawn"


def test_a_new_password_ends_other_sessions_and_on_request_tokens(root: Caller, nobody: Caller) -> None:
    made = root.post("/identities", json={"login": "greta", "display_name": "G"}).json()
    login = {"login": "greta", "password": made["password"]}
    present, other = (
        {"authorization": f"Bearer {nobody.post('/login', json=login).json()['secret']}"} for _ in range(2)
    )
    token = nobody.post("/tokens", json={"name": "script", "verbs": ["read"]}, headers=present).json()["secret"]
    script = {"authorization": f"Bearer {token}"}
    form = {"old_password": made["password"], "new_password": "seven quiet lanterns"}
    assert nobody.put("/me/password", json=form, headers=present).status_code == 204
    assert [nobody.get("/me", headers=one).status_code for one in (present, other, script)] == [200, 401, 200]
    again = {"old_password": "seven quiet lanterns", "new_password": "eight quiet lanterns", "revoke_tokens": True}
    assert nobody.put("/me/password", json=again, headers=present).status_code == 204
    assert [nobody.get("/me", headers=one).status_code for one in (present, script)] == [200, 401]


def test_only_administrators_learn_who_is_one(root: Caller, ada: Caller) -> None:
    me = root.get("/me").json()["identity"]
    assert me["is_administrator"] is True
    shown = ada.get(f"/identities/{me['id']}").json()
    assert shown["is_administrator"] is None
    assert root.get(f"/identities/{ada.get('/me').json()['identity']['id']}").json()["is_administrator"] is False


def test_sessions_are_listed_with_their_place_and_ended_one_by_one(
    root: Caller, ada: Caller, nobody: Caller, problem: Problem
) -> None:
    made = root.post("/identities", json={"login": "hanna", "display_name": "H"}).json()
    login = {"login": "hanna", "password": made["password"]}
    told = ({"user-agent": agent} for agent in ("at home", "at work"))
    home, work = (nobody.post("/login", json=login, headers=one).json()["secret"] for one in told)
    at_home, at_work = ({"authorization": f"Bearer {secret}"} for secret in (home, work))
    listed = nobody.get("/sessions", headers=at_home).json()["items"]
    assert [(one["agent"], one["address"]) for one in listed] == [("at work", "127.0.0.1"), ("at home", "127.0.0.1")]
    assert home not in str(listed)
    place = f"/sessions/{listed[0]['id']}"
    problem(ada.delete(place), 404, "not_found")
    problem(nobody.get("/sessions"), 401, "not_logged_in")
    assert nobody.delete(place, headers=at_home).status_code == 204
    assert nobody.get("/me", headers=at_work).status_code == 401
    problem(nobody.delete(place, headers=at_home), 404, "not_found")
    assert [one["agent"] for one in nobody.get("/sessions", headers=at_home).json()["items"]] == ["at home"]


def test_who_reaches_an_archive_is_explained_to_those_who_manage_it(
    root: Caller, ada: Caller, bob: Caller, nobody: Caller, problem: Problem
) -> None:
    archive = ada.open()
    problem(bob.get(f"/archives/{archive}/access"), 404, "archive_not_found")
    problem(nobody.get(f"/archives/{archive}/access"), 401, "not_logged_in")
    grant = ada.post(f"/archives/{archive}/grants", json={"role": "reader", "login": "bob"}).json()
    problem(bob.get(f"/archives/{archive}/access"), 403, "not_allowed")
    items = ada.get(f"/archives/{archive}/access").json()["items"]
    told = [(one["through"], one["name"], one["role"]) for one in items]
    assert told[-3:] == [("account", "Ada", "owner"), ("archive", "Ada", "owner"), ("archive", "Bob", "reader")]
    assert (items[-1]["grant_id"], items[-1]["actions"]) == (grant["id"], ["read", "see"])
    assert {one["through"] for one in items[:-3]} == {"administrator"}
    first = ada.get(f"/archives/{archive}/access", params={"limit": 2}).json()
    rest = ada.get(f"/archives/{archive}/access", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [*first["items"], *rest["items"]] == items


def test_what_somebody_reaches_is_listed_to_administrators(
    root: Caller, ada: Caller, newcomer: Caller, problem: Problem
) -> None:
    archive, person = ada.open(), newcomer.get("/me").json()["identity"]["id"]
    place = f"/identities/{person}/archives"
    problem(ada.get(place), 403, "not_allowed")
    problem(root.get(f"/identities/{archive}/archives"), 404, "not_found")
    before = {one["id"] for one in root.get(place).json()["items"]}
    ada.post(f"/archives/{archive}/grants", json={"role": "contributor", "identity_id": person})
    (found,) = [one for one in root.get(place).json()["items"] if one["id"] not in before]
    assert (found["id"], "fill" in found["actions"], "manage" in found["actions"]) == (archive, True, False)
    root.patch(f"/identities/{person}", json={"is_active": False})
    assert root.get(place).json()["items"] == []


def test_the_workers_forget_sessions_that_ended_long_ago(running: RunningApplication) -> None:
    running.person("retired")
    application = running.application
    left = text("SELECT count(*) FROM sessions WHERE expires_at < now() - interval '1 year'")
    with application.db.begin() as tx:
        assert tx.execute(
            text(
                "UPDATE sessions SET expires_at = now() - interval '2 years' WHERE identity_id ="
                " (SELECT identity_id FROM credentials WHERE subject = 'retired')"
            )
        ).rowcount
        tx.execute(text("DELETE FROM periodic_runs WHERE kind = 'identity.forget_ended'"))
    application.jobs.run_periodic("identity.forget_ended")  # or a worker was faster
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with application.db.begin() as tx:
            if not tx.execute(left).scalar_one():
                break
        time.sleep(0.1)
    else:
        raise AssertionError("the sessions are still there")
    assert "identity.forget_refused" in application.jobs.periodic_kinds()
