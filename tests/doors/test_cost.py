"""What a request costs the database, and that a right that was taken back ends with the very next request."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

import psycopg
import pytest
import uvicorn
from sqlalchemy import make_url

from perdure.app import web
from perdure.app.composition import Application
from perdure.db.questions import AskingConnection, Question
from perdure.testing.app import RunningApplication, start_application
from perdure.testing.processes import free_ports

from .callers import CITABLE, Caller


@pytest.fixture(scope="module")
def alone(postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApplication]:
    """An application whose database nobody else asks anything: no worker runs."""
    url = postgres.make_ready()
    with start_application(tmp_path_factory.mktemp("alone"), database_url=url, worker=False) as started:
        yield started
    postgres.drop(url)


@pytest.fixture
def statements(alone: RunningApplication, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that is sent to the application's database from here on."""
    seen: list[str] = []
    execute, ask = psycopg.Cursor.execute, AskingConnection.ask
    name = make_url(alone.application.db.url).database

    def note(cursor: Any, query: Any, *given: Any, **named: Any) -> Any:
        if cursor.connection.info.dbname == name:
            seen.append(str(query))
        return execute(cursor, query, *given, **named)

    def note_question(connection: AskingConnection, question: Question, parameters: Mapping[str, object]) -> Any:
        seen.append(question.sql)
        return ask(connection, question, parameters)

    monkeypatch.setattr(psycopg.Cursor, "execute", note)
    monkeypatch.setattr(AskingConnection, "ask", note_question)
    return seen


def test_a_record_costs_two_queries(alone: RunningApplication, statements: list[str]) -> None:
    with Caller(alone, alone.person("counted")) as ada:
        archive = ada.open()
        assert ada.get(f"/archives/{archive}").status_code == 200  # notes that the token is in use
        statements.clear()
        answer = ada.get(f"/archives/{archive}")
        assert answer.json()["title"] == CITABLE["title"]
        assert [statement.split()[0] for statement in statements] == ["SELECT", "SELECT"], statements


def test_a_role_that_is_taken_back_ends_with_the_next_request(alone: RunningApplication) -> None:
    with Caller(alone, alone.person("giver")) as giver, Caller(alone, alone.person("taker")) as taker:
        archive = giver.open()
        taker_id = taker.get("/me").json()["identity"]["id"]
        assert taker.get(f"/archives/{archive}").status_code == 404
        given = giver.post(f"/archives/{archive}/grants", json={"identity_id": taker_id, "role": "reader"}).json()
        assert taker.get(f"/archives/{archive}").json()["actions"] == ["read", "see"]
        assert giver.delete(f"/archives/{archive}/grants/{given['id']}").status_code == 204
        assert taker.get(f"/archives/{archive}").status_code == 404


def test_a_token_that_is_revoked_ends_with_the_next_request(alone: RunningApplication) -> None:
    with Caller(alone, alone.person("owner")) as owner:
        archive = owner.open()
        made = owner.post("/tokens", json={"name": "short", "verbs": ["read"]}).json()
        with Caller(alone, made["secret"]) as program:
            assert program.get(f"/archives/{archive}").json()["actions"] == ["read", "see"]
            assert owner.delete(f"/tokens/{made['id']}").status_code == 204
            assert program.get(f"/archives/{archive}").status_code == 401


def test_a_group_that_is_left_ends_what_it_gave(alone: RunningApplication) -> None:
    with Caller(alone, alone.person("leader")) as leader, Caller(alone, alone.person("member")) as member:
        archive = leader.open()
        member_id = member.get("/me").json()["identity"]["id"]
        group = leader.post("/groups", json={"name": "Team"}).json()["id"]
        assert leader.put(f"/groups/{group}/members/{member_id}", json={}).status_code < 300
        leader.post(f"/archives/{archive}/grants", json={"group_id": group, "role": "contributor"})
        assert "fill" in member.get(f"/archives/{archive}").json()["actions"]
        assert leader.delete(f"/groups/{group}/members/{member_id}").status_code == 204
        assert member.get(f"/archives/{archive}").status_code == 404


def test_connections_that_the_server_ended_cost_no_request(alone: RunningApplication) -> None:
    with Caller(alone, alone.person("patient")) as ada:
        archive = ada.open()
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        with psycopg.connect(alone.application.db.url, autocommit=True) as operator:
            operator.execute(f"SELECT pg_terminate_backend(pid) {others}")
            while operator.execute(f"SELECT 1 {others}").fetchone():
                time.sleep(0.01)
        for _ in range(5):
            assert ada.get(f"/archives/{archive}").status_code == 200


@pytest.mark.parametrize("is_shared", [False, True])
def test_answers_wait_for_no_acknowledgement(
    alone: RunningApplication, is_shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Head and body are two writes: without TCP_NODELAY the second waits up to 40 ms for the client's delayed ACK."""
    with (
        _serving(alone.application, monkeypatch, is_shared=is_shared) as port,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert _find_options(client.getsockname()) == [1]


@contextmanager
def _serving(application: Application, monkeypatch: pytest.MonkeyPatch, *, is_shared: bool) -> Iterator[int]:
    """The doors as a web process opens them, alone on its port or beside others; yields the port."""
    made: list[uvicorn.Server] = []

    class Kept(uvicorn.Server):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            made.append(self)

    monkeypatch.setattr(web, "settle_heap", lambda: None)  # this process goes on, and has other garbage
    monkeypatch.setattr(uvicorn, "Server", Kept)
    (port,) = free_ports(1)
    given = {"port": port, "planes": frozenset({"api"}), "grace": 5, "is_shared": is_shared}
    thread = Thread(target=web.serve_planes, args=(application,), kwargs=given)
    thread.start()
    try:
        while not (made and made[0].started):
            assert thread.is_alive()
            time.sleep(0.005)
        yield port
    finally:
        for server in made:
            server.should_exit = True
        thread.join()


def _find_options(peer: object) -> list[int]:
    """TCP_NODELAY of this process's ends of the connections to a peer: it is server and client at once."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=_copy_socket(int(name))) as one:
            if one.getpeername() == peer:
                found.append(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    return found


def _copy_socket(descriptor: int) -> int:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        raise OSError("no socket")
    return os.dup(descriptor)
