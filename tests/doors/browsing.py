"""A person before a browser that runs no script: pages are fetched and their forms are sent."""

from __future__ import annotations

import html
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx

from perdure.kernel.actor import SYSTEM
from perdure.testing.app import RunningApplication

_PAGE = {"sec-fetch-site": "same-origin"}


class Browser(httpx.Client):
    """Logged in by a cookie; `login` and `password` are those of the person, `id` is his identity's."""

    login = password = id = ""

    def send_form(self, url: str, *, status: int = 303, **fields: str) -> httpx.Response:
        """Send a form as a page of ours does; the answer has to be of this status."""
        answer = self.post(url, data=fields, headers=_PAGE)
        assert answer.status_code == status, answer.text
        return answer

    def read(self, url: str, *, status: int = 200) -> str:
        """What the page says, without its marks."""
        answer = self.get(url)
        assert answer.status_code == status, (answer.status_code, answer.headers.get("location"), answer.text)
        return read_text(answer)


def read_text(answer: httpx.Response) -> str:
    """The text of a page, in one line."""
    bare = re.sub(r"<[^>]*>", " ", answer.text)
    return " ".join(html.unescape(bare).split())


def find_hidden(answer: httpx.Response, name: str) -> list[str]:
    """The values of the hidden fields of this name."""
    return re.findall(rf'type="hidden" name="{name}" value="([^"]*)"', answer.text)


def find_links(answer: httpx.Response) -> list[str]:
    """Where the links of a page lead."""
    return [html.unescape(one) for one in re.findall(r'<a [^>]*href="([^"]*)"', answer.text)]


@contextmanager
def browsing(running: RunningApplication, login: str, *, display_name: str = "", **more: object) -> Iterator[Browser]:
    """A new person, logged in just now."""
    identity, password = running.application.identity, secrets.token_urlsafe(15)
    home = more.pop("organisation_id", None) or identity.list_organisations(SYSTEM)[0].id
    card, _ = identity.create_local_account(
        SYSTEM,
        login=login,
        password=password,
        display_name=display_name or login.title(),
        organisation_id=home if isinstance(home, UUID) else UUID(str(home)),
        **more,  # type: ignore[arg-type]  # what the test wants beside
    )
    with Browser(base_url=running.url, timeout=60, trust_env=False) as browser:
        browser.login, browser.password, browser.id = login, password, str(card.id)
        browser.send_form("/login", login=login, password=password)
        yield browser
