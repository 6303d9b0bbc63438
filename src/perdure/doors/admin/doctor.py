"""`perdure doctor`: look at an installation, say what is wrong and how to mend it. Changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click
from cryptography import x509

from perdure.archives.errors import DatabaseBehindError
from perdure.archives.exporting import POSITION_NAME, require_known
from perdure.db import Database
from perdure.db.embedded import EmbeddedServer, find_binaries
from perdure.db.migrations import SchemaState, schema_state
from perdure.doors.http.revocation import BadListError, RevocationLists
from perdure.doors.http.tls import Certificate
from perdure.events import EventLog
from perdure.kernel.clock import SystemClock
from perdure.kernel.errors import PerdureError
from perdure.settings import Settings, StoreSettings

_OLDEST_PYTHON = (3, 11)
_FEWEST_DAYS = 14  # that a certificate is valid for
OUTSIDE_WITHIN = 15.0  # seconds for everybody outside together
_MEND_OUTSIDE = "Look at its table in the settings, at the network, and at its authorities; docs/operate/logins.md."
_LARGEST_CLOCK_STEP = 2.0  # seconds between our clock and the database's

Questions = Mapping[str, Callable[[], str]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `mend` says what to do when it is not well."""

    name: str
    is_well: bool
    said: str
    mend: str = ""


def examine(
    settings: Settings, check_mail: Callable[[], None] | None = None, outside: Questions | None = None
) -> Iterator[Finding]:
    """Look at everything, one thing after the other; a look that itself breaks is a finding, too.

    `check_mail` talks to the mail server where one is set, and raises what is wrong. `outside` are those whom logins
    need; each says what he answered, or raises what is wrong.
    """
    looks: dict[str, Callable[[Settings], Iterator[Finding]]] = {
        **_LOOKS,
        "mail": partial(_look_at_mail, check=check_mail),
        "logins": partial(_look_outside, questions=outside or {}),
    }
    for name, look in looks.items():
        try:
            yield from look(settings)
        except (PerdureError, OSError) as error:
            yield Finding(name, False, str(error), getattr(error, "next_step", "See the message."))


def report(
    settings: Settings,
    *,
    as_json: bool,
    check_mail: Callable[[], None] | None = None,
    outside: Questions | None = None,
) -> bool:
    """Print the findings, as lines or as one JSON document; whether all is well."""
    findings = list(examine(settings, check_mail, outside))
    well = all(finding.is_well for finding in findings)
    if as_json:
        click.echo(json.dumps({"well": well, "findings": [asdict(finding) for finding in findings]}, indent=2))
        return well
    for finding in findings:
        click.echo(f"{'ok     ' if finding.is_well else 'problem'}  {finding.name}: {finding.said}")
        if not finding.is_well and finding.mend:
            click.echo(f"         To mend it: {finding.mend}")
    return well


def _look_at_python(settings: Settings) -> Iterator[Finding]:
    said = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    yield Finding("python", sys.version_info >= _OLDEST_PYTHON, said, "Install Python 3.11 or newer.")


def _look_at_binaries(settings: Settings) -> Iterator[Finding]:
    if settings.database_url is not None:
        return
    yield Finding("postgres binaries", True, str(find_binaries()))


def _look_at_data_dir(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir
    yield Finding(
        "data folder",
        _is_writable(folder),
        str(folder),
        f"Let the user {_user()} write there, or choose another folder with PERDURE_DATA_DIR.",
    )
    yield _free_space("data folder space", folder, settings.disk_reserve_bytes)


def _look_at_stores(settings: Settings) -> Iterator[Finding]:
    for store in settings.stores:
        yield Finding(
            f"store {store.name}",
            _is_writable(store.path),
            str(store.path),
            "Mount it, or let this user write there; its path is in the settings.",
        )
        yield _free_space(f"store {store.name} space", store.path, settings.disk_reserve_bytes)
    yield _distinct_devices(settings.stores)


def _look_at_database(settings: Settings) -> Iterator[Finding]:
    url = settings.database_url
    if url is None:
        server = EmbeddedServer(settings.postgres_dir)
        if not server.is_served():
            yield Finding("database", True, "embedded; it does not run, and starts with `perdure serve`")
            return
        url = server.url
    state = schema_state(url)
    mend = {
        SchemaState.BEHIND: "Run `perdure admin migrate`.",
        SchemaState.NEWER: "Start the newer release that migrated it.",
        SchemaState.CURRENT: "",
    }[state]
    yield Finding("database schema", state is SchemaState.CURRENT, str(state), mend)
    if state is SchemaState.CURRENT:
        yield _age_of(url, settings.stores)
    yield _clock_of(url)


def _look_at_ports(settings: Settings) -> Iterator[Finding]:
    served = _is_served(settings.data_dir)
    for name, host, port in (
        ("web port", settings.host, settings.port),
        ("data port", settings.host, settings.data_port),
        ("metrics port", settings.metrics_host, settings.metrics_port),
    ):
        if port == 0:
            continue
        free = _is_free(host, port)
        said = f"{host}:{port} " + ("is free" if free else "is ours" if served else "is taken")
        yield Finding(
            name, free or served, said, f"Stop the other program, or set PERDURE_{name.upper().replace(' ', '_')}."
        )


def _look_at_keys(settings: Settings) -> Iterator[Finding]:
    keys = sorted(settings.keys_dir.iterdir()) if settings.keys_dir.is_dir() else []
    for key in keys:
        mode = stat.S_IMODE(key.stat().st_mode)
        private = not mode & 0o077 or key.suffix == ".pub"
        yield Finding(f"key {key.name}", private, f"mode {mode:04o}", f"chmod 600 {key}")


def _look_at_certificate(settings: Settings) -> Iterator[Finding]:
    if settings.tls_cert is None:
        return
    Certificate(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    first = x509.load_pem_x509_certificates(settings.tls_cert.read_bytes())[0]
    left = (first.not_valid_after_utc - datetime.now(UTC)).days
    said = f"valid until {first.not_valid_after_utc:%Y-%m-%d} ({left} days)"
    yield Finding("certificate", left >= _FEWEST_DAYS, said, "Renew it; it is read again within a minute.")
    key = settings.tls_key or settings.tls_cert
    mode = stat.S_IMODE(key.stat().st_mode)
    yield Finding("certificate's key", not mode & 0o007, f"mode {mode:04o}", f"chmod o-rwx {key}")


def _look_at_revocation_lists(settings: Settings) -> Iterator[Finding]:
    for way in settings.providers:
        if way.kind != "x509":
            continue
        authorities = way.ca_file or settings.tls_client_ca
        if not way.crl_files or authorities is None:
            yield Finding(f"certificates of {way.name}", True, "no crl_files are set: revoked certificates are taken")
            continue
        follows = "nobody is let in by" if way.on_bad_crl == "refuse" else "revoked ones are let in with"
        for path in way.crl_files:
            name = f"revocation list {path}"
            mend = f"Fetch it anew from its authority; it is read again at once. Until then {follows} its certificates."
            try:
                found = RevocationLists([path], authorities).examine(path, datetime.now(UTC))
            except BadListError as error:
                yield Finding(name, False, str(error), mend)
                continue
            said = [f"{one.issuer.rfc4514_string()}, in force until {one.ends_at:%Y-%m-%d %H:%M} UTC" for one in found]
            yield Finding(name, True, "; ".join(said))


def _look_at_mail(settings: Settings, *, check: Callable[[], None] | None) -> Iterator[Finding]:
    if check is None:
        yield Finding("mail", True, "none is sent, as no smtp_host is set")
        return
    place = f"{settings.smtp_host} ({settings.smtp_security})"
    try:
        check()
    except PerdureError as error:
        mend = (
            "Look at smtp_host, smtp_port, smtp_security, smtp_user and smtp_ca; then try `perdure admin mail ADDRESS`."
        )
        yield Finding("mail", False, f"{place}: {error.detail}", mend)
        return
    yield Finding("mail", True, f"{place} takes mail from {settings.mail_from}")


def _look_outside(settings: Settings, *, questions: Questions) -> Iterator[Finding]:
    """Ask all at once, and wait no longer than for the slowest that may be: a name server can hold up for minutes."""
    answers: dict[str, Finding] = {}

    def ask(name: str, question: Callable[[], str]) -> None:
        try:
            answers[name] = Finding(name, True, question())
        except PerdureError as error:
            answers[name] = Finding(name, False, error.detail, _MEND_OUTSIDE)
        except Exception as error:  # whatever breaks is no reason to say nothing of the others
            answers[name] = Finding(name, False, f"it could not be asked ({type(error).__name__})", _MEND_OUTSIDE)

    # Daemons: who hangs must not keep the command from ending
    threads = [threading.Thread(target=ask, args=one, daemon=True) for one in questions.items()]
    end = time.monotonic() + OUTSIDE_WITHIN
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    silent = f"no answer came within {OUTSIDE_WITHIN:.0f} seconds"
    for name in questions:
        yield answers.get(name) or Finding(name, False, silent, _MEND_OUTSIDE)


_LOOKS: dict[str, Callable[[Settings], Iterator[Finding]]] = {
    "python": _look_at_python,
    "postgres binaries": _look_at_binaries,
    "data folder": _look_at_data_dir,
    "stores": _look_at_stores,
    "database": _look_at_database,
    "ports": _look_at_ports,
    "keys": _look_at_keys,
    "certificate": _look_at_certificate,
    "revocation lists": _look_at_revocation_lists,
}


def _is_writable(folder: Path) -> bool:
    """Whether we may write there, or may make it where it is not there yet."""
    return os.access(_nearest(folder), os.W_OK | os.X_OK)


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _free_space(name: str, folder: Path, reserve: int) -> Finding:
    free = shutil.disk_usage(_nearest(folder)).free
    said = f"{free / 1e9:.1f} GB free, {reserve / 1e9:.1f} GB are kept in reserve"
    return Finding(name, free > reserve, said, "Free some space: uploads are refused until there is more.")


def _distinct_devices(stores: tuple[StoreSettings, ...]) -> Finding:
    devices = {store.name: _nearest(store.path).stat().st_dev for store in stores}
    if len(devices) == len(set(devices.values())):
        return Finding("store devices", True, "each store has a device of its own")
    return Finding(
        "store devices",
        len(stores) == 1 or not _are_mounted(stores),
        "some stores share a device: good for trying out, but copies there do not survive its loss",
        "Put each store on a disk or system of its own.",
    )


def _are_mounted(stores: tuple[StoreSettings, ...]) -> bool:
    """Whether the operator placed the stores: stores of the default data folder are for trying out."""
    return len({store.location for store in stores}) > 1 or len({store.medium for store in stores}) > 1


def _age_of(url: str, stores: tuple[StoreSettings, ...]) -> Finding:
    """Whether the database knows every event that the stores were told of."""
    places = {store.name: store.path / POSITION_NAME for store in stores}
    marks = {name: path.read_bytes() for name, path in places.items() if path.is_file()}
    database = Database(url, pool_size=1)
    try:
        with database.begin() as tx:
            known = EventLog(database, SystemClock()).head(tx)[0]
        require_known(known, marks)
    except DatabaseBehindError as error:
        return Finding("database age", False, error.detail, error.next_step)
    finally:
        database.dispose()
    return Finding("database age", True, f"it knows of {known} events, and the stores of no more")


def _clock_of(url: str) -> Finding:
    database = Database(url, pool_size=1)
    try:
        step = database.clock() - time.time()
    finally:
        database.dispose()
    return Finding(
        "clock",
        abs(step) <= _LARGEST_CLOCK_STEP,
        f"{step:+.1f} s between the database's clock and ours",
        "Let both machines keep time by NTP.",
    )


def _is_served(data_dir: Path) -> bool:
    """Whether `perdure serve` runs on the folder: its process number stands in the lock file."""
    try:
        number = int((data_dir / "serve.lock").read_text())
        os.kill(number, 0)
    except (OSError, ValueError):
        return False
    return True


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _user() -> str:
    return f"with the number {os.geteuid()}"
