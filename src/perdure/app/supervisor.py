"""`perdure serve`: the process tree that holds database, web, data plane and worker together."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.error import URLError
from urllib.request import BaseHandler, HTTPSHandler, ProxyHandler, build_opener

import structlog

from perdure.app.metrics.asking import Asker
from perdure.archives.exporting import POSITION_NAME, require_known
from perdure.archives.rebuild import is_interrupted, knows_nothing
from perdure.db import Database
from perdure.db.embedded import EmbeddedServer
from perdure.db.errors import DataFolderInUseError, EmbeddedServerError
from perdure.db.migrations import migrate, require_current_schema
from perdure.doors.http.tls import Certificate
from perdure.doors.scrape import scraping
from perdure.events import EventLog
from perdure.kernel.clock import SystemClock
from perdure.kernel.errors import ConflictError, TryAgainError
from perdure.settings import Settings, plain_values, settings_from

log = structlog.get_logger(__name__)

_LOOK_EVERY = 0.2  # seconds
_STOP_WITHIN = 30.0  # seconds for a child, longer than its own grace
_READY_WITHIN = 60.0  # seconds
_BRIEF_LIFE = 5.0  # seconds; a child that lived longer had begun its work, and is started again at once
_LONGEST_WAIT = 30.0  # seconds between two starts of a child that keeps dying


class PortInUseError(ConflictError):
    code = "port_in_use"
    title = "Another program listens on our port"
    next_step = "Stop it, or choose other ports: PERDURE_PORT, PERDURE_DATA_PORT and PERDURE_METRICS_PORT."


class DatabaseLostError(ConflictError):
    """To serve would be to sweep away what the stores have staged and the database has never heard of."""

    code = "database_lost"
    title = "The stores hold what the database does not know"
    next_step = "Restore the database from its backup, or run `perdure admin rebuild`; then start again."


class NotReadyError(TryAgainError):
    code = "start_failed"
    title = "The service did not become ready"
    next_step = "Read the lines above; `perdure doctor` says what is wrong with the installation."


@dataclass
class _Child:
    """One child process, started again whenever it dies, ever more slowly."""

    role: str
    briefing: Mapping[str, object]
    process: subprocess.Popen[bytes] | None = None
    brief_lives: int = 0
    started: float = 0.0
    died: float | None = None
    asker: Asker | None = None
    starts: int = 0

    def start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "perdure.app.process", self.role],
                stdin=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a Ctrl-C is for the supervisor, which ends its children in order
            )
            briefing = json.dumps({**self.briefing, "metrics_fd": theirs.fileno()}).encode() + b"\n"
        self.asker = Asker(ours)
        self.started, self.died = time.monotonic(), None
        self.starts += 1
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it died at once; the next look finds it
            self.process.stdin.write(briefing)
            self.process.stdin.flush()

    @property
    def is_further(self) -> bool:
        """Whether another one does the same, so that the service is ready without it."""
        return "-" in self.role

    def look_after(self) -> None:
        if self.process is None:
            self.start()
        if self.process is None or self.process.poll() is None:
            return
        now = time.monotonic()
        if self.died is None:
            self.died = now
            self.brief_lives = self.brief_lives + 1 if now - self.started < _BRIEF_LIFE else 0
            log.error("child_died", role=self.role, exit_code=self.process.returncode, brief_lives=self.brief_lives)
        if now - self.started < _pause_after(self.brief_lives):
            return
        self._let_go()
        self.start()

    def ask_to_stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def end(self) -> None:
        if self.process is None:
            return
        try:
            self.process.wait(_STOP_WITHIN)
        except subprocess.TimeoutExpired:
            log.error("child_killed", role=self.role)
            self.process.kill()
            self.process.wait()
        self._let_go()

    def _let_go(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        if self.asker is not None:
            self.asker.close()
            self.asker = None


class DatabaseCare:
    """Starts an embedded server again that died; where that fails or is not for long, ever more slowly."""

    def __init__(self, server: EmbeddedServer, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._clock = clock
        self._brief_lives = 0
        self._started = self._next_try = float("-inf")
        self._is_dead = False

    def look(self) -> None:
        """See whether it runs; to be called again and again."""
        if self._server.is_running():
            self._is_dead = False
            return
        now = self._clock()
        if not self._is_dead:
            self._is_dead = True
            self._brief_lives = self._brief_lives + 1 if now - self._started < _BRIEF_LIFE else 0
        if now >= self._next_try:
            self._start()
            self._next_try = self._clock() + _pause_after(self._brief_lives)

    def _start(self) -> None:
        try:
            if self._server.ensure():
                log.error("database_server_was_restarted", brief_lives=self._brief_lives)
            self._started, self._is_dead = self._clock(), False
        except (EmbeddedServerError, OSError) as error:  # as on a full disk
            self._brief_lives += 1
            log.error("database_server_not_restarted", error=str(error), failures=self._brief_lives)


def _pause_after(brief_lives: int) -> float:
    """Seconds from a start that came to nothing to the next one: none at first, then twice as long each time."""
    return min(_LONGEST_WAIT, 2.0 ** min(max(brief_lives - 4, 0), 10) - 1)


def serve(settings: Settings, *, on_ready: Callable[[Settings, str], None], stop_event: threading.Event) -> None:
    """Run everything until `stop_event` is set, then stop everything. Blocks.

    `on_ready` is told the settings in force (ports that were 0 are chosen) and the database's URL when the service
    answers; it must return soon, for nobody looks after the children meanwhile. Raises
    BadCertificateError, DataFolderInUseError, PortInUseError, SchemaNewerError and, for a database of the operator's,
    SchemaBehindError.
    """
    if settings.tls_cert:
        Certificate(
            settings.tls_cert, settings.tls_key, settings.tls_client_ca
        )  # before there are children, who could only die of it
    settings = choose_ports(settings)
    with _only_one(settings.data_dir), _database(settings) as (url, embedded):
        _require_whole(settings, url)
        children = [_Child(role, _briefing(settings, url)) for role in _roles(settings)]
        try:
            for child in children:
                if not child.is_further:
                    child.start()
            _wait_until_ready(settings, children, stop_event)
            with _watched(settings, children):
                if not stop_event.is_set():
                    on_ready(settings, url)
                _look_after(children, embedded, stop_event)
        finally:
            log.info("stopping")
            for child in children:
                child.ask_to_stop()
            for child in children:
                child.end()


@contextmanager
def stopping_on_signals(stop_event: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set the event inside the block; a second one is not faster, so that nothing is torn."""

    def stop(number: int, frame: FrameType | None) -> None:
        stop_event.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def choose_ports(settings: Settings) -> Settings:
    """The settings with a free port in place of a port 0; raises PortInUseError when a chosen one is taken."""
    if settings.port == 0:
        values = plain_values(settings) | {"port": _free_port(settings.host)}
        made = {key for key in ("public_url", "data_url") if str(values[key]).endswith(":0")}  # from the port 0
        settings = settings_from({key: value for key, value in values.items() if key not in made})
    wanted = {(settings.host, settings.port), (settings.host, settings.data_port)}
    for host, port in wanted | {(settings.metrics_host, settings.metrics_port)}:
        if port and not is_free(host, port):
            raise PortInUseError(f"Port {port} of {host} is in use.", port=port)
    return settings


@contextmanager
def _watched(settings: Settings, children: list[_Child]) -> Iterator[None]:
    """Answer Prometheus inside the block, if the settings name a port for it."""
    if not settings.metrics_port:
        yield
        return
    from perdure.app.metrics.telling import render_tree  # noqa: PLC0415  # slow to import, and seldom needed to start

    turn = threading.Lock()

    def render() -> bytes:
        with turn:
            return render_tree([(child.role, child.asker, child.starts) for child in children])

    with scraping(settings.metrics_host, settings.metrics_port, settings.metrics_token, render):
        yield


def _briefing(settings: Settings, database_url: str) -> Mapping[str, object]:
    """What a child is told on standard input, in one line: an address with a password is no argument to show."""
    return {"settings": plain_values(settings), "database_url": database_url}


def _roles(settings: Settings) -> list[str]:
    """What each child is called; the second of its kind is `web-2`."""
    web = _name_all("web", settings.web_process_count)
    return [*web, *(["data"] if settings.data_port else []), *_name_all("worker", settings.worker_process_count)]


def _name_all(role: str, count: int) -> list[str]:
    return [role, *(f"{role}-{number}" for number in range(2, count + 1))]


def _require_whole(settings: Settings, database_url: str) -> None:
    """Raises DatabaseLostError for a new database over stores that are not, and for one that is half rebuilt.

    Raises DatabaseBehindError for one that is older than the stores.
    """
    db = Database(database_url, application_name="perdure serve")
    try:
        if is_interrupted(db):
            raise DatabaseLostError("A rebuild of the database was interrupted: let it run to its end.")
        if knows_nothing(db):
            for store in settings.stores:
                if next((store.path / "root").rglob("0=ocfl_object_*"), None) is not None:
                    raise DatabaseLostError(f"The database is new, and the store {store.name} holds objects.")
        places = {store.name: store.path / POSITION_NAME for store in settings.stores}
        with db.begin() as tx:
            known = EventLog(db, SystemClock()).head(tx)[0]
        require_known(known, {name: path.read_bytes() for name, path in places.items() if path.is_file()})
    finally:
        db.dispose()


@contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(data_dir / "serve.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            number = os.pread(lock, 32, 0).decode().strip()
            raise DataFolderInUseError(f"`perdure serve` runs on {data_dir} already (process {number}).") from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


@contextmanager
def _database(settings: Settings) -> Iterator[tuple[str, EmbeddedServer | None]]:
    if settings.database_url is not None:
        require_current_schema(settings.database_url)
        yield settings.database_url, None
        return
    server = EmbeddedServer(settings.postgres_dir)
    url = server.start()
    try:
        migrate(url)
        yield url, server
    finally:
        server.stop()


def _look_after(children: list[_Child], embedded: EmbeddedServer | None, stop_event: threading.Event) -> None:
    care = None if embedded is None else DatabaseCare(embedded)
    while not stop_event.wait(_LOOK_EVERY):
        if care is not None:
            care.look()
        for child in children:
            child.look_after()


def _wait_until_ready(settings: Settings, children: list[_Child], stop_event: threading.Event) -> None:
    deadline = time.monotonic() + _READY_WITHIN
    ports = [port for port in (settings.port, settings.data_port) if port]
    while not stop_event.wait(0.05):
        if all(_is_alive(settings, port) for port in ports):
            return
        if time.monotonic() > deadline:
            raise NotReadyError(f"It did not answer within {_READY_WITHIN:.0f} seconds.")
        for child in children:
            if child.process is not None and child.process.poll() is not None:
                raise NotReadyError(f"The process {child.role} ended with exit code {child.process.returncode}.")


def _is_alive(settings: Settings, port: int) -> bool:
    host = settings.host
    shown = "127.0.0.1" if host == "0.0.0.0" else "[::1]" if host == "::" else f"[{host}]" if ":" in host else host  # noqa: S104  # compared, not bound
    try:
        handlers: list[BaseHandler] = [ProxyHandler({})]  # our own address is never behind a proxy
        if settings.tls_cert:
            handlers.append(HTTPSHandler(context=_trust_anybody()))
        scheme = "https" if settings.tls_cert else "http"
        with build_opener(*handlers).open(f"{scheme}://{shown}:{port}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _trust_anybody() -> ssl.SSLContext:
    """The certificate has another name than our own address, and we tell nothing and believe only that one answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _free_port(host: str) -> int:
    with _socket(host) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens there."""
    with _socket(host) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _socket(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.socket(family, socket.SOCK_STREAM)
