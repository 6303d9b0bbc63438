"""`perdure admin …`: what an operator does to an installation, not to one archive."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import click

from perdure.archives.rebuild_found import RebuildReport
from perdure.db.migrations import migrate, schema_state
from perdure.doors.admin.plain import data_dir_option, plainly
from perdure.identity import Identity
from perdure.kernel.actor import SYSTEM
from perdure.kernel.errors import EXIT_CODES, ErrorKind


@dataclass(frozen=True, slots=True)
class AdminServices:
    """What the commands reach when the schema fits."""

    identity: Identity
    rebuild: Callable[[Callable[[str], None]], RebuildReport]
    rotate_key: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Installation:
    """How the commands come to the configured database, None being the configured data folder.

    `database` gives its URL whatever its schema, `services` the use cases; both start the embedded server for the
    while of a command if it does not run.
    """

    database: Callable[[Path | None], AbstractContextManager[str]]
    services: Callable[[Path | None], AbstractContextManager[AdminServices]]


def make_admin_group(installation: Installation) -> click.Group:
    """The group with every command of an operator."""
    group = click.Group("admin", help="Operate the installation.", context_settings={"max_content_width": 100})
    group.add_command(_migrate_command(installation))
    group.add_command(_schema_command(installation))
    group.add_command(_bootstrap_command(installation))
    group.add_command(_account_command(installation))
    group.add_command(_rebuild_command(installation))
    group.add_command(_rotate_command(installation))
    group.add_command(_mail_command(installation))
    return group


def _migrate_command(installation: Installation) -> click.Command:
    @click.command("migrate")
    @data_dir_option
    @plainly
    def migrate_command(data_dir: Path | None) -> None:
        """Bring the database's schema to this release's. Safe to run twice, and while the service runs."""
        with installation.database(data_dir) as url:
            before = schema_state(url)
            migrate(url)
            click.echo(f"The schema was {before}; it is {schema_state(url)}.")

    return migrate_command


def _schema_command(installation: Installation) -> click.Command:
    @click.command("schema")
    @data_dir_option
    @plainly
    def schema_command(data_dir: Path | None) -> None:
        """Say how the database's schema stands to this release: behind, current or newer."""
        with installation.database(data_dir) as url:
            click.echo(schema_state(url))

    return schema_command


def _bootstrap_command(installation: Installation) -> click.Command:
    @click.command("bootstrap")
    @data_dir_option
    @click.option("--login", default="admin", show_default=True, help="Login name of the administrator.")
    @click.option("--organisation", default="Local organisation", show_default=True, help="Its organisation's name.")
    @click.option("--password-stdin", is_flag=True, help="Read the password from standard input; else one is made up.")
    @plainly
    def bootstrap_command(data_dir: Path | None, login: str, organisation: str, password_stdin: bool) -> None:
        """Make the first administrator. An existing login is left as it is."""
        given = sys.stdin.readline().rstrip("\n") if password_stdin else None
        with installation.services(data_dir) as services:
            name, password = services.identity.bootstrap_administrator(login, given, organisation=organisation)
        if password is None:
            click.echo(f"{name} exists already and was left as it is.")
        elif given is None:
            click.echo(f"Login {name}, password {password}. It is shown this once.")
        else:
            click.echo(f"Login {name} has the given password.")

    return bootstrap_command


def _account_command(installation: Installation) -> click.Command:
    @click.command("account")
    @click.argument("login")
    @data_dir_option
    @click.option("--name", help="Name that others see; default: the login.")
    @click.option("--organisation", type=click.UUID, help="Its id; needed where there are several.")
    @click.option("--administrator", is_flag=True, help="With the right to operate the installation.")
    @plainly
    def account_command(
        login: str, data_dir: Path | None, name: str | None, organisation: UUID | None, administrator: bool
    ) -> None:
        """Make a local account for a person; the password is read from standard input."""
        password = sys.stdin.readline().rstrip("\n")
        with installation.services(data_dir) as services:
            services.identity.create_local_account(
                SYSTEM,
                login=login,
                password=password,
                display_name=name or login,
                organisation_id=organisation,
                is_administrator=administrator,
            )
        click.echo(f"{login} can log in.")

    return account_command


def _rebuild_command(installation: Installation) -> click.Command:
    @click.command("rebuild")
    @data_dir_option
    @plainly
    def rebuild_command(data_dir: Path | None) -> None:
        """Fill an empty database from the stores alone. A database that holds archives is refused and left as it is.

        Credentials, sessions and jobs are in no store: restore them from the database's backup, or let
        `perdure admin bootstrap` give the administrator a new password. Exit code 7: something in a store is damaged.
        """
        with installation.database(data_dir) as url:
            migrate(url)
        with installation.services(data_dir) as services:
            report = services.rebuild(click.echo)
        click.echo(
            f"{report.archives:,} archives, {report.parts:,} parts, {report.files:,} entries and {report.events:,} "
            f"events from {report.objects:,} objects. Copies are to be verified again: the worker does it."
        )
        for doubt in report.doubts:
            click.echo(f"in doubt: {doubt}", err=True)
        for problem in report.problems:
            click.echo(f"problem: {problem}", err=True)
        if report.problems:
            sys.exit(EXIT_CODES[ErrorKind.DAMAGED])

    return rebuild_command


def _rotate_command(installation: Installation) -> click.Command:
    @click.command("rotate-key")
    @data_dir_option
    @plainly
    def rotate_command(data_dir: Path | None) -> None:
        """Make a new signing key; what was signed before stays verifiable with the old public key."""
        with installation.services(data_dir) as services:
            click.echo(f"From here on the key {services.rotate_key()} signs.")

    return rotate_command


def _mail_command(installation: Installation) -> click.Command:
    @click.command("mail")
    @click.argument("address")
    @data_dir_option
    @plainly
    def mail_command(address: str, data_dir: Path | None) -> None:
        """Send a test mail to ADDRESS at once, past the queue. `perdure doctor` looks at the server and sends none."""
        with installation.services(data_dir) as services:
            services.identity.send_test_mail(address)
        click.echo(f"The mail server took a test mail to {address}. Look whether it arrives.")

    return mail_command
