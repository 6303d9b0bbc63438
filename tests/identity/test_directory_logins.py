"""A real directory, the running application, a page, the API and the command: passwords that the site knows."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from perdure.adapters.ldap import directory
from perdure.settings import BadSettingError, settings_from
from perdure.testing.app import RunningApplication, start_application

from .directory import (
    BEAMLINE,
    PASSWORD,
    PEOPLE,
    SERVICE_DN,
    SERVICE_PASSWORD,
    Slapd,
    find_missing,
    running_slapd,
)

pytestmark = pytest.mark.skipif(find_missing() is not None, reason=f"slapd: {find_missing()}")
PROGRAM = Path(sys.executable).with_name("perdure")
WAY = {"name": "site", "kind": "ldap", "label": "The site"}


@dataclass(frozen=True)
class Site:
    """The application, and the directory whose people it lets in."""

    running: RunningApplication
    root: httpx.Client
    api: httpx.Client

    def log_in(self, login: str, password: str = PASSWORD, **more: object) -> httpx.Response:
        body = {"provider": "site", "login": login, "password": password, **more}
        return self.api.post("/login", json=body)

    def let_in(self, login: str) -> str:
        """Somebody of the directory, who applies and is approved; the secret of his session."""
        met = self.log_in(login)
        if met.status_code != 200:
            assert (met.status_code, met.json()["code"]) == (403, "unknown_person"), met.text
            applied = self.api.post("/applications", json={"ticket": met.json()["ticket"]})
            assert applied.status_code == 202, applied.text
            assert self.log_in(login).json()["code"] == "application_pending"
            organisation = self.root.get("/organisations").json()["items"][0]["id"]
            body = {"organisation_id": organisation}
            approved = self.root.post(f"/applications/{applied.json()['id']}/approve", json=body)
            assert approved.status_code == 200, approved.text
            met = self.log_in(login)
        assert met.status_code == 200, met.text
        return str(met.json()["secret"])

    def as_session(self, secret: str) -> httpx.Client:
        headers = {"authorization": f"Bearer {secret}"}
        return httpx.Client(base_url=self.api.base_url, trust_env=False, headers=headers)


@pytest.fixture(scope="module")
def slapd() -> Iterator[Slapd]:
    with tempfile.TemporaryDirectory(prefix="slapd-") as folder, running_slapd(Path(folder)) as found:
        yield found


@pytest.fixture(scope="module")
def site(slapd: Slapd) -> Iterator[Site]:
    away = provider(slapd, name="away", label="The one that is away", servers=["ldaps://127.0.0.1:1"])
    with pytest.MonkeyPatch.context() as patch, start_application(providers=[provider(slapd), away]) as running:
        patch.setattr(directory, "_REFUSED_AFTER", 0.01)
        headers = {"authorization": f"Bearer {running.token()}"}
        address = f"{running.url}/api/v1"
        with (
            httpx.Client(base_url=address, trust_env=False, headers=headers) as root,
            httpx.Client(base_url=address, trust_env=False) as api,
        ):
            yield Site(running, root, api)


def provider(slapd: Slapd, **more: object) -> dict[str, Any]:
    service = {"bind_dn": SERVICE_DN, "bind_password": SERVICE_PASSWORD, "user_base": PEOPLE}
    return {**WAY, "servers": [slapd.ldaps], "ca_file": str(slapd.certificate), **service, **more}


def test_a_stranger_is_let_in_and_is_in_the_groups_of_the_directory(site: Site) -> None:
    way, _ = site.api.get("/login/providers").json()["items"]
    assert way == {"name": "site", "label": "The site", "kind": "ldap"}
    group = site.root.post("/groups", json={"name": "Beamline seven"}).json()["id"]
    rule = site.root.post(f"/groups/{group}/rules", json={"issuer": "ldap:site", "entitlement": BEAMLINE})
    assert rule.status_code == 201, rule.text
    with site.as_session(site.let_in("ada")) as ada:
        me = ada.get("/me").json()
        assert me["identity"]["display_name"] == "Ada Example"
        assert me["groups"] == [group]
        (login,) = ada.get("/me/logins").json()["items"]
        assert (login["kind"], login["subject"].split(" ")[0]) == ("ldap", "site")
        assert ada.get("/sessions").json()["items"][0]["proofs"] == ["issuer ldap:site", "ldap"]


def test_a_refusal_tells_nothing_and_is_counted(site: Site) -> None:
    answers = [site.log_in(login, password) for login, password in (("linus", "wrong"), ("nobody", "wrong"))]
    problems = [{**one.json(), "request_id": "", "instance": ""} for one in answers]
    assert [one.status_code for one in answers] == [401, 401]
    assert problems[0] == problems[1]
    spellings = ("linus", "LINUS", "ｌｉｎｕｓ", " linus", "li\u00adnus", "lín\u0301us") * 3
    last = [site.log_in(spelling, "wrong") for spelling in spellings][-1]
    assert (last.status_code, last.json()["code"]) == (429, "login_throttled")
    assert site.log_in("linus").status_code == 429
    marks = "\u0301" * 60_000 + "\u0323" * 60_000  # to sort them takes the square of their number
    form = f"provider=site&login={marks}&password=wrong".encode()
    headers = {"sec-fetch-site": "same-origin", "content-type": "application/x-www-form-urlencoded"}
    assert httpx.post(f"{site.running.url}/login", content=form, headers=headers, trust_env=False).status_code == 401
    assert site.api.post("/login", json={"provider": "elsewhere", "login": "a", "password": "b"}).status_code == 404


def test_the_second_factor_of_here_is_asked_for_beside_the_password_of_there(site: Site) -> None:
    with site.as_session(site.let_in("grace")) as grace:
        key = grace.post("/me/second-factor").json()["key"]
        codes = grace.put("/me/second-factor", json={"code": _code(key)}).json()["codes"]
        assert site.log_in("grace").json()["code"] == "second_factor_needed"
        assert site.log_in("grace", "wrong", code=codes[0]).json()["code"] == "bad_credentials"
        assert site.log_in("grace", code="000000").json()["code"] == "bad_code"
        opened = site.log_in("grace", code=codes[0]).json()
        with site.as_session(opened["secret"]) as session:
            assert "second_factor" in session.get("/sessions").json()["items"][0]["proofs"]
        assert site.log_in("grace", code=codes[0]).json()["code"] == "bad_code"
        last = [site.log_in("grace", code=f"{guess:06}") for guess in range(12)][-1]
        assert last.json()["code"] == "login_throttled"


def test_a_browser_logs_in_and_links(site: Site) -> None:
    headers = {"sec-fetch-site": "same-origin"}
    own = {"login": site.running.login, "password": site.running.password}
    with httpx.Client(base_url=site.running.url, trust_env=False, headers=headers) as page:
        assert 'href="/login/site?return_to=' in page.get("/login").text
        form = page.get("/login/site?return_to=/archives/x").text
        assert "With your password of The site" in form
        sent = {**fields_of(form), "login": "linda", "password": "wrong"}
        refused = page.post("/login", data=sent)
        assert (refused.status_code, "wrong" in refused.text) == (401, True)
        assert 'name="provider" value="site"' in refused.text
        site.let_in("ada")
        back = page.post("/login", data={**sent, "login": "ada", "password": PASSWORD})
        assert (back.status_code, back.headers["location"]) == (303, "/archives/x")
        assert "logged in as Ada Example" in page.get("/login").text
        assert page.get("/login/site?link=true", headers={"sec-fetch-site": "cross-site"}).status_code == 403
        assert page.post("/login", data=own).status_code == 303
        link = fields_of(page.get("/login/site?link=true").text) | {"login": "odd*man (x)", "password": PASSWORD}
        assert page.post("/login", data=link).status_code == 303
        assert {one["kind"] for one in page.get("/api/v1/me/logins").json()["items"]} == {"password", "ldap"}
    with httpx.Client(base_url=site.running.url, trust_env=False, headers=headers) as other:
        assert other.post("/login", data=link).status_code == 401
        assert other.post("/login", data={**link, "link": ""}).status_code == 303


def test_the_command_asks_for_the_password_of_there(site: Site, tmp_path: Path) -> None:
    site.let_in("ada")
    assert "The site" in perdure(site, tmp_path, "providers").stdout
    came = perdure(site, tmp_path, "login", "--with", "site", "--login", "ada", "--json", said=f"{PASSWORD}\n")
    assert json.loads(came.stdout)["login"] == "ada", came.stderr
    assert "Ada Example" in perdure(site, tmp_path, "whoami").stdout
    assert PASSWORD not in (tmp_path / "credentials.json").read_text()
    words = ("login", "--provider", "site", "--login", "ada", "--password-stdin")
    refused = perdure(site, tmp_path, *words, said="wrong\n")
    assert (refused.returncode != 0, "at The site is wrong" in refused.stderr) == (True, True), refused.stderr


def test_while_the_directory_is_away_others_come_in(site: Site) -> None:
    answers = [site.log_in("ada", provider="away") for _ in range(15)]  # nothing of it is counted as a guess
    assert {(one.status_code, one.json()["code"]) for one in answers} == {(503, "provider_unavailable")}
    assert "The one that is away does not answer" in answers[-1].json()["detail"]
    own = {"login": site.running.login, "password": site.running.password}
    assert site.api.post("/login", json=own).status_code == 200
    site.let_in("ada")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"servers": []}, "servers"),
        ({"user_dn": "uid={login},dc=x"}, "not both"),
        ({"user_base": ""}, "user_base"),
        ({"bind_password": ""}, "go together"),
        ({"subject_attribute": ""}, "subject_attribute"),
        ({"allow_plain_ldap": True}, "allow_plain_ldap"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
    ],
)
def test_a_directory_that_cannot_be_asked_is_refused_at_the_start(
    slapd: Slapd, changed: dict[str, object], told: str, tmp_path: Path
) -> None:
    with pytest.raises(BadSettingError, match=told):
        settings_from({"data_dir": str(tmp_path), "providers": [provider(slapd, **changed)]})


def test_and_what_only_the_directory_can_judge(slapd: Slapd, tmp_path: Path) -> None:
    with (
        pytest.raises(BadSettingError, match=r"provider site .*'{login}\*'"),
        start_application(tmp_path, worker=False, providers=[provider(slapd, user_filter="(uid={login}*)")]),
    ):
        pass


def perdure(site: Site, home: Path, *words: str, said: str = "") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PERDURE_")}
    own = {"PERDURE_URL": site.running.url, "PERDURE_CREDENTIALS": str(home / "credentials.json")}
    return subprocess.run(
        [PROGRAM, *words], env={**environment, **own}, input=said, capture_output=True, text=True, check=False
    )


def fields_of(text: str) -> dict[str, str]:
    return {name: unescape(value) for name, value in re.findall(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"', text)}


def _code(key: str) -> str:
    return TOTP(base64.b32decode(key), 6, SHA1(), 30).generate(time.time()).decode()  # noqa: S303
