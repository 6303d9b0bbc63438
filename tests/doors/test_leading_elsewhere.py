"""No address of ours leads a browser to another host, whatever it is asked for and with what parameters."""

from __future__ import annotations

import re
import socket
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.routing import Route

from perdure.app.web import create_asgi
from perdure.testing.app import RunningApplication

EVIL = "evil.example"
TARGETS = (f"//{EVIL}", f"https://{EVIL}/", f"/\\{EVIL}", f"/\t/{EVIL}", f"\\\\{EVIL}", f"javascript://{EVIL}")
PARAMETERS = ("return_to", "next", "to", "url", "redirect_uri", "back", "continue", "here", "place", "state", "iss")


def leads_elsewhere(running: RunningApplication, location: str | None) -> bool:
    """Read as a browser does, which takes a backslash for a slash and leaves out tabs."""
    read = re.sub(r"[\t\r\n]", "", (location or "").replace("\\", "/")).strip()
    parts, ours = urlsplit(read), {urlsplit(running.url).netloc, urlsplit(running.data_url).netloc, ""}
    return parts.netloc not in ours or parts.scheme not in ("", "http")


@pytest.mark.parametrize("target", TARGETS)
def test_no_parameter_of_any_address_leads_elsewhere(running: RunningApplication, target: str) -> None:
    app = create_asgi(running.application, planes=frozenset({"api", "ui", "data"}))
    paths = {
        re.sub(r"\{[^}]*\}", "x", route.path)
        for held in app.routes
        for route in getattr(held, "original_router", app).routes
        if isinstance(route, Route) and "GET" in (route.methods or ())
    }
    assert len(paths) > 60
    wrong = []
    with httpx.Client(base_url=running.url, timeout=60, headers={"referer": target}) as stranger:
        for path in sorted(paths | {f"/api/v1{path}" for path in paths}):
            answer = stranger.get(path, params=dict.fromkeys(PARAMETERS, target))
            if leads_elsewhere(running, answer.headers.get("location")):
                wrong.append((path, answer.headers["location"]))
    assert not wrong


@pytest.mark.parametrize("target", [*TARGETS, "/archives/x"])
def test_a_login_leads_back_to_a_path_of_ours(running: RunningApplication, target: str) -> None:
    form = {"login": running.login, "password": running.password, "return_to": target}
    with httpx.Client(base_url=running.url, timeout=60, headers={"sec-fetch-site": "same-origin"}) as browser:
        answer = browser.post("/login", data=form)
        assert answer.status_code == 303, answer.text
        assert answer.headers["location"] == (target if target == "/archives/x" else "/")
        shown = browser.get("/login", params={"return_to": target})
        assert EVIL not in shown.text
        again = browser.get("/login", params={"return_to": target})
        assert not leads_elsewhere(running, again.headers.get("location"))


@pytest.mark.parametrize("path", [f"//{EVIL}/", f"//{EVIL}/login/", f"/\\{EVIL}/", "/login/", f"/login//{EVIL}/"])
@pytest.mark.parametrize("plane", ["api", "data"])
def test_no_path_and_no_host_that_is_said_leads_elsewhere(running: RunningApplication, plane: str, path: str) -> None:
    ours = urlsplit(running.url if plane == "api" else running.data_url)
    with socket.create_connection((ours.hostname or "", ours.port or 0), timeout=20) as line:
        said = f"GET {path} HTTP/1.1\r\nHost: {EVIL}\r\nX-Forwarded-Host: {EVIL}\r\nConnection: close\r\n\r\n"
        line.sendall(said.encode())
        answered = b""
        while piece := line.recv(65536):
            answered += piece
    head = answered.partition(b"\r\n\r\n")[0].decode().lower()
    locations = [one.partition(":")[2].strip() for one in head.splitlines() if one.startswith("location:")]
    assert head.startswith("http/1.1 "), head
    assert not [one for one in locations if leads_elsewhere(running, one)]
