"""The real application for other people's tests: its own database, stores, doors and worker, in this process.

with start_application() as archive:
    httpx.get(archive.url + "/api/v1", headers={"Authorization": f"Bearer {archive.token()}"})
"""

from __future__ import annotations

import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import uvicorn

from perdure.app.composition import Application, build
from perdure.app.web import configure_server
from perdure.db.embedded import EmbeddedServer
from perdure.db.migrations import migrate
from perdure.kernel.actor import Actor
from perdure.settings import settings_from

_START_WITHIN = 30.0  # seconds
_LOGIN = "admin"


@dataclass(frozen=True, slots=True)
class RunningApplication:
    """An application that answers; `login` and `password` are its administrator's.

    `data_url` is another port than `url`, as in production. `application` is for tests of the project itself.
    """

    url: str
    data_url: str
    login: str
    password: str
    data_dir: Path
    application: Application

    def token(
        self, *, verbs: Iterable[str] = ("read", "write", "manage", "admin"), archives: Iterable[str] | None = None
    ) -> str:
        """A fresh API token of the administrator."""
        limited = None if archives is None else [UUID(archive) for archive in archives]
        return self.application.identity.create_token(self._administrator(), "test", verbs=verbs, archives=limited)[0]

    def person(self, login: str) -> str:
        """A token of a new person, who has no right beyond his own space."""
        identity, password = self.application.identity, secrets.token_urlsafe(15)
        identity.create_local_account(self._administrator(), login=login, password=password, display_name=login.title())
        actor = identity.log_in(login, password)[1]
        return identity.create_token(actor, "test", verbs=("read", "write", "manage"))[0]

    def _administrator(self) -> Actor:
        return self.application.identity.log_in(self.login, self.password)[1]


@contextmanager
def start_application(
    data_dir: Path | None = None,
    *,
    database_url: str | None = None,
    worker: bool = True,
    name: str = "127.0.0.1",
    **settings: object,
) -> Iterator[RunningApplication]:
    """Start everything on free loopback ports; at the end all of it is stopped, and a temporary `data_dir` removed.

    Without `database_url` an embedded server of its own is started, fast and not durable; with it, that database has
    the present schema. `settings` are those of the configuration file. Without `worker` no job is carried out. `name`
    is what the addresses call this machine; browsers allow passkeys at `localhost`, and at no number.
    """
    with ExitStack() as stack:
        folder = data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="archive-test-")))
        url = database_url or stack.enter_context(_database(folder / "postgres"))
        api, data = _listen(), _listen()
        stack.callback(api.close)
        stack.callback(data.close)
        scheme = "https" if settings.get("tls_cert") else "http"
        places = {"public_url": _address(scheme, name, api), "data_url": _address(scheme, name, data)}
        unlimited = {"disk_reserve_bytes": 0, "rate_limit_attempts": 0}
        chosen = {"data_dir": str(folder), **unlimited, **places, **settings}
        application = build(settings_from(chosen), url, process="test")
        stack.callback(application.close)
        login, password = application.identity.bootstrap_administrator(_LOGIN, secrets.token_urlsafe(15))
        if worker:
            stack.enter_context(_working(application))
        stack.enter_context(_serving(application, api, frozenset({"api", "ui"})))
        stack.enter_context(_serving(application, data, frozenset({"data"})))
        yield RunningApplication(places["public_url"], places["data_url"], login, password or "", folder, application)


@contextmanager
def _database(folder: Path) -> Iterator[str]:
    server = EmbeddedServer(folder, durable=False)
    try:
        url = server.start()
        migrate(url)
        yield url
    finally:
        server.stop()


@contextmanager
def _working(application: Application) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=application.work, args=(stop,), kwargs={"grace": 5.0}, name="worker")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _serving(application: Application, listening: socket.socket, planes: frozenset[str]) -> Iterator[None]:
    server = uvicorn.Server(configure_server(application, planes=planes, grace=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="doors")
    thread.start()
    try:
        _wait_until_started(server, thread)
        yield
    finally:
        server.should_exit = True
        thread.join()


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _START_WITHIN
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError("the application did not start; its log says why")
        time.sleep(0.005)


def _listen() -> socket.socket:
    # The protocol is named, because asyncio leaves TCP_NODELAY off for a socket made with protocol 0.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    return listening


def _address(scheme: str, name: str, listening: socket.socket) -> str:
    return f"{scheme}://{name}:{listening.getsockname()[1]}"
