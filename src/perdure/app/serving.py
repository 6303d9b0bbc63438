"""`perdure serve` and `perdure demo`.

This module imports little: its process only looks after others, which import the rest at the same time.
"""

from __future__ import annotations

import os
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from perdure.app.logs import configure_logging
from perdure.app.supervisor import serve, stopping_on_signals
from perdure.doors.admin.plain import data_dir_option, plainly
from perdure.kernel.errors import ConflictError
from perdure.settings import Settings, load_settings

_LOGIN = "admin"


class DemonstrationNotInstalledError(ConflictError):
    code = "demonstration_not_installed"
    title = "What the demonstration needs is not installed"
    next_step = "Install it with: pip install 'perdure[demo]'; or run `python3 start.py` in a checkout."


@click.command("serve")
@data_dir_option
@click.option("--host", help="Address to listen on; PERDURE_HOST.")
@click.option("--port", type=int, help="Port of the pages and the API, 0 for any; PERDURE_PORT.")
@click.option("--data-port", type=int, help="Port of the data plane, 0 for the same as the API; PERDURE_DATA_PORT.")
@click.option("--tls-cert", help="PEM file with the certificate and its chain, to answer over TLS; PERDURE_TLS_CERT.")
@click.option("--tls-key", help="PEM file with its key, if it is another one; PERDURE_TLS_KEY.")
@click.option("--public-url", help="What others are told, with the certificate's name; PERDURE_PUBLIC_URL.")
@click.option(
    "--allow-plain-http",
    is_flag=True,
    help="Listen on an address that others reach without TLS: a proxy has it, or the network is to be trusted.",
)
@plainly
def serve_command(data_dir: Path | None, *, allow_plain_http: bool, **chosen: Any) -> None:  # Any: by name of setting
    """Start everything: web, data plane, worker and, unless PERDURE_DATABASE_URL names one, the database."""
    settings = load_settings(data_dir=data_dir and str(data_dir), allow_plain_http=allow_plain_http or None, **chosen)
    configure_logging(level=settings.log_level, style=settings.log_format, process="serve")
    stop_event = threading.Event()

    def introduce(settings: Settings, database_url: str) -> None:
        if settings.database_url is None:
            first_login(settings, database_url)
        _say_ready(settings, with_password=sys.stdout.isatty())

    with stopping_on_signals(stop_event):
        serve(settings, on_ready=introduce, stop_event=stop_event)
    click.echo("Stopped.")


@click.command("demo")
@data_dir_option
@click.option("--once", is_flag=True, help="Stop when the demonstration is done.")
@plainly
def demo_command(data_dir: Path | None, once: bool) -> None:
    """Start everything and run the main job on generated data: archive, close, verify, fetch back."""
    if find_spec("h5py") is None:
        raise DemonstrationNotInstalledError("The demonstration writes HDF5 files, and h5py is not installed.")
    settings = load_settings(data_dir=data_dir and str(data_dir), log_level="warning")
    configure_logging(level=settings.log_level, style=settings.log_format, process="demo")
    click.echo(f"Starting database, web, data plane and worker; everything lies in {settings.data_dir}.")
    stop_event = threading.Event()
    failures: list[BaseException] = []

    def begin(settings: Settings, database_url: str) -> None:
        def show() -> None:
            try:
                _demonstrate(settings, database_url)
            except Exception as error:
                failures.append(error)
                click.echo(f"The demonstration failed: {error}", err=True)
            if once or failures:
                stop_event.set()

        threading.Thread(target=show, name="demo", daemon=True).start()

    with stopping_on_signals(stop_event):
        serve(settings, on_ready=begin, stop_event=stop_event)
    click.echo("Stopped.")
    if failures:
        sys.exit(1)


def first_login(settings: Settings, database_url: str) -> Path:
    """Make the first administrator if there is none; the file, readable by us alone, that holds his password."""
    from perdure.app.composition import opened  # noqa: PLC0415  # slow to import, and not needed to start

    kept = settings.data_dir / "first-login"
    with opened(settings, database_url, process="first login") as application:
        if application.identity.has_administrator():
            return kept
        login, password = application.identity.bootstrap_administrator(_LOGIN)
    if password is not None:
        with os.fdopen(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(f"{login}\n{password}\n")
    return kept


def _demonstrate(settings: Settings, database_url: str) -> None:
    from perdure.doors.admin.demo import run_demo  # noqa: PLC0415  # needs h5py, which a server does not have
    from perdure_client import Client  # noqa: PLC0415  # beside the demonstration only
    from perdure_client.settings import Session  # noqa: PLC0415

    kept = first_login(settings, database_url)
    login, password = kept.read_text().split()
    with Client(Session(settings.public_url, None)) as visitor:
        secret = visitor.log_in(login, password)["secret"]
    with Client(Session(settings.public_url, secret)) as client:
        run_demo(client, settings.data_dir / "demo", click.echo)
    _say_ready(settings, with_password=True)


def _say_ready(settings: Settings, *, with_password: bool) -> None:
    """Tell address and first login; what is no terminal may be a log that many read, which gets no password."""
    click.echo(f"Perdure is ready at {settings.public_url} (data at {settings.data_url}). Ctrl-C stops it.")
    kept = settings.data_dir / "first-login"
    if kept.is_file():
        login, password = kept.read_text().split()
        said = f"{password} (kept in {kept}" if with_password else f"that is kept in {kept} (readable by us alone"
        click.echo(f"Log in as {login} with the password {said}; delete the file when you have changed it).")
