"""The server's short commands, attached to `perdure` by entry points."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from perdure.app.composition import Application, make_mailer, make_questions, opened
from perdure.app.logs import configure_logging
from perdure.app.metrics.telling import merge, render
from perdure.app.supervisor import PortInUseError, is_free
from perdure.archives.rebuild import rebuild
from perdure.db.embedded import EmbeddedServer, open_embedded
from perdure.db.errors import DatabaseUnavailableError
from perdure.db.migrations import require_current_schema
from perdure.doors.admin.command import AdminServices, Installation, make_admin_group
from perdure.doors.admin.doctor import report
from perdure.doors.admin.plain import data_dir_option, plainly
from perdure.doors.scrape import scraping
from perdure.doors.worker import work
from perdure.settings import Settings, load_settings
from perdure.sharing.restoring import restore_links

_GRACE = 20.0  # seconds for running jobs when a worker is stopped


@click.command("worker")
@data_dir_option
@click.option("--queue", "queues", multiple=True, help="Take only jobs of this queue; may be repeated.")
@click.option("--concurrency", type=int, help="Jobs at a time; PERDURE_WORKER_CONCURRENCY.")
@click.option(
    "--metrics-port", type=int, default=0, help="Port where Prometheus reads this worker's metrics, 0 for none."
)
@plainly
def worker_command(data_dir: Path | None, queues: tuple[str, ...], concurrency: int | None, metrics_port: int) -> None:
    """Start a further worker, on this machine or on another one with the same stores and PERDURE_DATABASE_URL."""
    settings = load_settings(
        data_dir=data_dir and str(data_dir),
        worker_queues=list(queues) or None,
        worker_concurrency=concurrency,
        metrics_port=metrics_port,  # not the one of the settings, where `serve` answers
    )
    configure_logging(level=settings.log_level, style=settings.log_format, process="worker")
    url = _running_database(settings)
    require_current_schema(url)
    with opened(settings, url, process="worker") as application, _scraped(application):
        work(lambda stop: application.work(stop, grace=_GRACE))


@contextmanager
def _scraped(application: Application) -> Iterator[None]:
    """Answer Prometheus inside the block, if a port was named for it."""
    settings = application.settings
    if not settings.metrics_port:
        yield
        return
    collect = application.numbers(with_facts=True)
    host, port = settings.metrics_host, settings.metrics_port
    if not is_free(host, port):
        raise PortInUseError(f"Port {port} of {host} is in use.", port=port)
    with scraping(host, port, settings.metrics_token, lambda: render(merge({"worker": collect()}))):
        yield


@click.command("doctor")
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document for programs.")
@plainly
def doctor_command(data_dir: Path | None, as_json: bool) -> None:
    """Check the installation and say how to mend what is wrong. Exit code 0: all is well, 1: there is a problem."""
    settings = load_settings(data_dir=data_dir and str(data_dir))
    mailer = make_mailer(settings)
    check_mail = None if mailer is None else mailer.check
    if not report(settings, as_json=as_json, check_mail=check_mail, outside=make_questions(settings)):
        sys.exit(1)


@contextmanager
def _database(data_dir: Path | None) -> Iterator[str]:
    settings = load_settings(data_dir=data_dir and str(data_dir))
    configure_logging(level="warning", style=settings.log_format, process="admin")
    if settings.database_url is not None:
        yield settings.database_url
        return
    with open_embedded(settings.postgres_dir) as url:
        yield url


@contextmanager
def _services(data_dir: Path | None) -> Iterator[AdminServices]:
    settings = load_settings(data_dir=data_dir and str(data_dir))
    with _database(data_dir) as url:
        require_current_schema(url)
        with opened(settings, url, process="admin") as application:
            yield AdminServices(
                identity=application.identity,
                rebuild=lambda tell: rebuild(application.context, tell, restorers=[restore_links]),
                rotate_key=application.rotate_key,
            )


admin_group = make_admin_group(Installation(database=_database, services=_services))


def _running_database(settings: Settings) -> str:
    if settings.database_url is not None:
        return settings.database_url
    server = EmbeddedServer(settings.postgres_dir)
    if not server.is_served():
        raise DatabaseUnavailableError(f"No database server runs on {settings.data_dir}; start `perdure serve` first.")
    return server.url
