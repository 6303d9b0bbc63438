"""What a stranger, or a friend in bulk, may not do to the doors."""

from __future__ import annotations

import base64
import socket

import pytest

from perdure.app import wire
from perdure.testing.app import RunningApplication

from .callers import Caller, Problem

JSON = {"content-type": "application/json"}


def test_a_stranger_sends_only_small_bodies(nobody: Caller, problem: Problem) -> None:
    large = b'{"login": "x", "password": "' + b"y" * 1_100_000 + b'"}'
    problem(nobody.post("/login", content=large, headers=JSON), 401, "not_logged_in")
    problem(nobody.post("/login", content=iter([large]), headers=JSON), 401, "not_logged_in")
    wrong = {**JSON, "authorization": "Bearer pds_wrong"}
    problem(nobody.post("/login", content=large, headers=wrong), 401, "bad_credentials")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_foreign_page_does_not_act_with_the_password_that_a_browser_keeps(
    ada: Caller, nobody: Caller, archive: str, problem: Problem, site: str
) -> None:
    token = ada.headers["authorization"].removeprefix("Bearer ")
    kept = {"authorization": "Basic " + base64.b64encode(f"ada:{token}".encode()).decode()}
    place = f"/archives/{archive}/verify"
    problem(nobody.post(place, headers={**kept, "sec-fetch-site": site}), 403, "foreign_page")
    assert nobody.get(f"/archives/{archive}", headers={**kept, "sec-fetch-site": site}).status_code == 200
    assert nobody.post(place, headers={**kept, "sec-fetch-site": "same-origin"}).status_code == 202
    assert nobody.post(place, headers=kept).status_code == 202
    assert ada.post(place, headers={"sec-fetch-site": site}).status_code == 202


def test_a_stranger_names_a_thousand_files_of_a_public_archive(nobody: Caller, closed: str) -> None:
    paths = [f"{'long/' * 20}{number}" for number in range(1000)]
    answer = nobody.post(f"{nobody.data}/archives/{closed}/read-batch", json={"paths": paths})
    assert answer.status_code == 200, answer.text


def test_only_lists_of_paths_and_metadata_are_very_large(ada: Caller, archive: str, problem: Problem) -> None:
    large = b'{"items": [' + b" " * 5_000_000 + b"]}"
    assert ada.post(f"/archives/{archive}/plan", content=large, headers=JSON).status_code == 200
    assert ada.post(f"/archives/{archive}/plan", content=iter([large]), headers=JSON).status_code == 200
    problem(ada.post("/archives", content=large, headers=JSON), 413, "body_too_large")
    problem(ada.post("/archives", content=iter([large]), headers=JSON), 413, "body_too_large")


def test_names_of_persons_are_for_those_who_are_logged_in(ada: Caller, bob: Caller, nobody: Caller) -> None:
    public = ada.open(access="public")
    merge = {"content-type": "application/merge-patch+json"}
    assert ada.patch(f"/archives/{public}/metadata", content=b'{"a": 1}', headers=merge).status_code == 200
    ada.put_file(public, "a.txt", b"a")
    ada.close_archive(public)
    place = f"/archives/{public}/metadata-history"
    assert bob.get(place).json()["items"][0]["actor_name"] == "Ada"
    assert nobody.get(place).json()["items"][0]["actor_name"] == ""


def _connect(running: RunningApplication) -> socket.socket:
    host, _, port = running.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_headers_without_end_are_cut_off(running: RunningApplication) -> None:
    with _connect(running) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: here\r\nX-Long: ")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            line.sendall(b"x" * 40_000_000)
    with _connect(running) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: here\r\nX-Long: " + b"x" * 60_000 + b"\r\n\r\n")
        assert line.recv(15) == b"HTTP/1.1 200 OK"


def test_headers_that_never_come_are_not_waited_for(
    running: RunningApplication, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "SLOWEST_HEAD", 0.2)
    with _connect(running) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert line.recv(1) == b""
    with _connect(running) as line:
        for _ in range(3):
            line.sendall(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
            assert line.recv(10_000).startswith(b"HTTP/1.1 200 OK")
