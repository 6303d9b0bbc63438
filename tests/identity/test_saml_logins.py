"""A real institution, the running application and its pages: logging in by SAML from end to end."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from perdure.settings import BadSettingError, settings_from
from perdure.testing.app import RunningApplication, start_application

from . import chromium
from .chromium import running_chromium
from .institution import GROUP, PASSWORD, Institution, find_missing, log_in, read_form, running_institution

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_missing() is not None, reason=f"simplesamlphp: {find_missing()}"),
]
PATIENCE = 60  # seconds: the library is loaded at the first login
OWN_PAGE = {"sec-fetch-site": "same-origin"}


@dataclass(frozen=True)
class Site:
    """The application, and the institution whose people it lets in."""

    running: RunningApplication
    institution: Institution
    root: httpx.Client

    def visit(self) -> httpx.Client:
        """A browser with cookies of its own."""
        return httpx.Client(base_url=self.running.url, trust_env=False, timeout=PATIENCE)

    def go_and_log_in(self, browser: httpx.Client, who: str, **asked: str) -> dict[str, str]:
        """The answer that the institution has this browser post to us."""
        begun = browser.get("/login/hall", params=asked, headers=OWN_PAGE)
        assert begun.status_code == 303, begun.text
        with httpx.Client(trust_env=False, timeout=PATIENCE) as elsewhere:
            action, answer = log_in(elsewhere, begun.headers["location"], who)
        assert action == f"{self.running.url}/login/hall/callback"
        return {name: answer[name] for name in ("SAMLResponse",)}

    def post_answer(self, answer: dict[str, str]) -> tuple[str, dict[str, str]]:
        """What comes of the post by the institution's page: cookies do not come along with it."""
        headers = {"sec-fetch-site": "cross-site", "origin": "https://idp.example.org"}
        return read_form(
            httpx.post(f"{self.running.url}/login/hall/callback", data=answer, headers=headers, timeout=PATIENCE)
        )

    def finish(self, browser: httpx.Client, answer: dict[str, str]) -> httpx.Response:
        action, fields = self.post_answer(answer)
        assert action == f"{self.running.url}/login/hall/finish"
        return browser.post(action, data=fields, headers=OWN_PAGE)

    def let_in(self, browser: httpx.Client, who: str) -> None:
        met = self.finish(browser, self.go_and_log_in(browser, who))
        assert met.status_code == 200, met.text
        action, fields = read_form(met)
        assert action == f"{self.running.url}/login/apply"
        applied = browser.post(action, data={**fields, "reason": "beamtime"}, headers=OWN_PAGE)
        assert applied.status_code == 202, applied.text
        waiting = self.root.get("/applications", params={"state": "pending"}).json()["items"]
        organisation = self.root.get("/organisations").json()["items"][0]["id"]
        approved = self.root.post(f"/applications/{waiting[0]['id']}/approve", json={"organisation_id": organisation})
        assert approved.status_code == 200, approved.text


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with (
        tempfile.TemporaryDirectory(prefix="institution-") as folder,
        running_institution(Path(folder)) as institution,
        # another name of this machine than the institution's: what comes from there is of another site
        start_application(providers=[provider(institution)], name="localhost") as running,
    ):
        described = httpx.get(f"{running.url}/login/hall/metadata", trust_env=False, timeout=PATIENCE)
        assert described.headers["content-type"].startswith("application/samlmetadata+xml")
        institution.trust(described.text)
        headers = {"authorization": f"Bearer {running.token()}"}
        with httpx.Client(base_url=f"{running.url}/api/v1", trust_env=False, headers=headers, timeout=PATIENCE) as root:
            yield Site(running, institution, root)


def provider(institution: Institution, **more: object) -> dict[str, Any]:
    found = {"name": "hall", "kind": "saml", "label": "The hall", "issuer": institution.entity_id}
    return {**found, "metadata_file": str(institution.metadata), "subject": "eduPersonPrincipalName", **more}


def test_a_stranger_is_let_in_and_is_in_the_groups_of_his_institution(site: Site) -> None:
    group = site.root.post("/groups", json={"name": "Beamline seven"}).json()["id"]
    rule = {"issuer": site.institution.entity_id, "entitlement": GROUP}
    assert site.root.post(f"/groups/{group}/rules", json=rule).status_code == 201
    with site.visit() as browser:
        assert "The hall" in browser.get("/login").text
        site.let_in(browser, "ada")
        entered = site.finish(browser, site.go_and_log_in(browser, "ada", return_to="/account"))
        assert (entered.status_code, entered.headers["location"]) == (303, "/account")
        me = browser.get("/api/v1/me").json()
        assert (me["identity"]["display_name"], me["groups"]) == ("Ada Example", [group])
        (login,) = browser.get("/api/v1/me/logins").json()["items"]
        assert (login["kind"], login["subject"]) == ("saml", f"{site.institution.entity_id} ada@example.org")
        proofs = browser.get("/api/v1/sessions").json()["items"][0]["proofs"]
        assert proofs == [f"issuer {site.institution.entity_id}", "saml"]
        # to show once more that it is her, she logs in there anew
        proven = site.finish(browser, site.go_and_log_in(browser, "ada", prove="1", return_to="/account"))
        assert (proven.status_code, proven.headers["location"]) == (303, "/account"), proven.text
    found = site.root.get("/login/providers").json()["items"]
    assert found == [{"name": "hall", "label": "The hall", "kind": "saml"}]


def test_an_answer_is_good_once_and_in_the_browser_that_asked(site: Site) -> None:
    with site.visit() as browser, site.visit() as other:
        answer = site.go_and_log_in(browser, "linus")
        refused = site.finish(other, answer)  # who was sent here with somebody's answer
        assert (refused.status_code, "perdure-session" in other.cookies) == (401, False)
        other.get("/login/hall")
        again = site.finish(other, answer)  # nor by a login that he has begun himself
        assert again.status_code == 401
        assert "no answer to this login" in again.text or "is none" in again.text or "believed" in again.text
        assert site.finish(browser, answer).status_code == 200  # the page of who is not known yet
        used = site.finish(browser, answer)
        assert (used.status_code, "used already" in used.text) == (401, True)
        action, fields = site.post_answer(answer)
        assert browser.post(action, data=fields, headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_the_page_that_repeats_an_answer_does_nothing_else(site: Site) -> None:
    told = httpx.post(
        f"{site.running.url}/login/hall/callback", data={"SAMLResponse": '"><script>alert(1)</script>'}, trust_env=False
    )
    assert told.status_code == 200
    assert "<script>alert" not in told.text
    assert re.search(r"script-src [^;]*/go-on\.js;.*form-action 'self'", told.headers["content-security-policy"])
    assert (told.headers["cache-control"], told.cookies) == ("no-store", httpx.Cookies())
    assert httpx.post(f"{site.running.url}/login/hall/callback", trust_env=False).status_code == 401
    for name in ("none", "metadata"):
        assert httpx.get(f"{site.running.url}/login/{name}/metadata", trust_env=False).status_code == 404


def test_programs_are_told_that_it_takes_a_browser(site: Site) -> None:
    api = f"{site.running.url}/api/v1"
    begun = httpx.post(f"{api}/login/device", json={"provider": "hall"}, trust_env=False)
    assert (begun.status_code, begun.json()["code"]) == (404, "no_such_provider")
    assert "/login/hall" in begun.json()["detail"]


@pytest.mark.skipif(chromium.find_missing() is not None, reason=f"chromium: {chromium.find_missing()}")
def test_a_browser_comes_back_by_itself(site: Site) -> None:
    with running_chromium() as window:
        window.open(f"{site.running.url}/login")
        window.click("a[href^='/login/hall']")
        window.fill("input[name=username]", "linus")
        window.fill("input[name=password]", PASSWORD)
        window.click("#submit_button, button[type=submit], input[type=submit]")
        window.wait_for("Your login was confirmed.")


WRONG: dict[str, dict[str, object]] = {
    "needs 'metadata_file'": {"metadata_file": None},
    "needs 'issuer'": {"issuer": ""},
    "is a URI": {"issuer": "the hall"},
    "is not a file": {"metadata_certificate": "/nowhere.pem"},
    "must be one of": {"subject": "mail"},
}


@pytest.mark.parametrize("told", WRONG)
def test_a_setting_that_cannot_be_meant_is_refused(site: Site, told: str, tmp_path: Path) -> None:
    with pytest.raises(BadSettingError, match=re.escape(told)):
        settings_from({"data_dir": str(tmp_path), "providers": [provider(site.institution, **WRONG[told])]})


@pytest.mark.parametrize(("missing", "told"), [("saml2", r"perdure\[saml\]"), ("xmlsec1", "package xmlsec1")])
def test_what_is_not_installed_is_told_at_the_start(
    site: Site, missing: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec, which = importlib.util.find_spec, shutil.which
    monkeypatch.setattr(
        "perdure.adapters.saml.provider.find_spec", lambda name: None if name == missing else find_spec(name)
    )
    monkeypatch.setattr("shutil.which", lambda name: None if name == missing else which(name))
    with (
        pytest.raises(BadSettingError, match=told),
        start_application(tmp_path, worker=False, providers=[provider(site.institution)]),
    ):
        pass
