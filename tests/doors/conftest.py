"""One running application for the whole room; each test has an archive or a person of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from perdure.testing.app import RunningApplication, start_application

from .callers import Caller, Problem
from .letter_box import LetterBox, open_box

_numbers = count()


@pytest.fixture(scope="session")
def running(
    postgres: Any, tmp_path_factory: pytest.TempPathFactory, require_valid: Callable[[Path], None]
) -> Iterator[RunningApplication]:
    url = postgres.make_ready()
    folder: Path = tmp_path_factory.mktemp("application")
    with start_application(folder, database_url=url) as started:
        yield started
    for name in ("first", "second"):
        require_valid(folder / "stores" / name / "root")
    postgres.drop(url)


@pytest.fixture(scope="module")
def box() -> Iterator[LetterBox]:
    """A mail server of this module."""
    with open_box() as opened:
        yield opened


@pytest.fixture(scope="module")
def mailing(postgres: Any, tmp_path_factory: pytest.TempPathFactory, box: LetterBox) -> Iterator[RunningApplication]:
    """An application that sends mail."""
    url = postgres.make_ready()
    with start_application(
        tmp_path_factory.mktemp("mailing"),
        database_url=url,
        smtp_host="127.0.0.1",
        smtp_port=box.port,
        smtp_security="plain",
        mail_from="Data archive <archive@example.org>",
    ) as app:
        yield app
    postgres.drop(url)


@pytest.fixture(scope="session")
def root(running: RunningApplication) -> Iterator[Caller]:
    """The administrator."""
    with Caller(running, running.token()) as caller:
        yield caller


@pytest.fixture(scope="session")
def ada(running: RunningApplication) -> Iterator[Caller]:
    with Caller(running, running.person("ada")) as caller:
        yield caller


@pytest.fixture(scope="session")
def bob(running: RunningApplication) -> Iterator[Caller]:
    with Caller(running, running.person("bob")) as caller:
        yield caller


@pytest.fixture
def newcomer(running: RunningApplication) -> Iterator[Caller]:
    """A person of the test's own, in whose space nobody else does anything."""
    with Caller(running, running.person(f"newcomer{next(_numbers)}")) as caller:
        yield caller


@pytest.fixture(scope="session")
def nobody(running: RunningApplication) -> Iterator[Caller]:
    with Caller(running, None) as caller:
        yield caller


@pytest.fixture
def archive(ada: Caller) -> str:
    """An open archive of ada's."""
    return ada.open()


@pytest.fixture(scope="session")
def closed(ada: Caller) -> str:
    """A closed, public archive of ada's with two files in it."""
    made = ada.open(title="A closed one", access="public")
    assert ada.put_file(made, "scan/a.h5", b"a" * 3_000_000).status_code == 201
    assert ada.put_file(made, "notes.txt", b"<b>bold</b>").status_code == 201
    ada.close_archive(made)
    return made


@pytest.fixture
def problem() -> Problem:
    """Checks that an answer is a whole problem document with this status and code."""

    def check(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = answer.json()
        assert document["code"] == code
        assert document["status"] == status
        assert document["type"] == f"/api/v1/errors#{code}"
        assert document["request_id"] == answer.headers["x-request-id"]
        assert document["title"]
        assert document["next_step"]
        return document

    return check
