"""`perdure admin …`: what an operator does to an installation, not to one archive."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import click

from perdure.db.migrations import migrate, schema_state
from perdure.doors.admin.plain import data_dir_option, plainly
from perdure.identity import Identity


@dataclass(frozen=True, slots=True)
class AdminServices:
    """What the commands reach when the schema fits."""

    identity: Identity


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
