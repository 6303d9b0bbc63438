"""What may be changed of people, and how a withdrawal that needs two of them is seen."""

from __future__ import annotations

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
