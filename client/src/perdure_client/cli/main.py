"""The command group: sub-commands are found by name and imported only when they are called."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import click

_COMMANDS: dict[str, tuple[str, str]] = {  # name: (module and attribute, short help)
    "login": ("session:login", "Log in and keep a token for later commands."),
    "logout": ("session:logout", "Revoke the kept token and forget it."),
    "whoami": ("session:whoami", "Say who you are at which server."),
    "token": ("session:token", "Create, list and revoke API tokens."),
    "session": ("session:session", "List and end your sessions: where you are logged in."),
    "archive": ("archive:archive", "Open, list, show, close, append to, share and withdraw archives."),
    "profile": ("archive:profile", "List, show and define profiles."),
    "providers": ("session:providers", "List the institutions where you can log in."),
    "logins": ("session:logins", "The ways in which you log in: link and unlink them."),
    "passkey": ("session:passkey", "List, rename and remove your passkeys."),
    "second-factor": ("session:second_factor", "Turn your second factor on or off."),
    "identity": ("persons:identity", "Merge two identities of yours, export what is kept of you, erase it."),
    "password": ("invite:password", "Change your password, or reset it by mail when you forgot it."),
    "address": ("invite:address", "Your e-mail address: show, set and confirm it."),
    "account": ("people:account", "List, show and make accounts, the spaces that own archives."),
    "quota": ("quotas:quota", "Show and set quotas, ask for more room, decide requests, report what is used."),
    "service": ("machines:service", "Accounts of machines: who answers for them, their tokens, what they reach."),
    "group": ("people:group", "List and make groups of people, and say who is in them."),
    "application": ("people:application", "Decide who is let in."),
    "terms": ("people:terms", "Show the terms of use, or put new ones in force."),
    "organisation": ("people:organisation", "List and make organisations."),
    "grant": ("rights:grant", "Give roles on archives, accounts and organisations, and take them back."),
    "invite": ("invite:invite", "Invite people by e-mail, to a login or to a role."),
    "link": ("links:link", "Share an archive, a folder or a file with whoever has the link."),
    "who": ("rights:who", "Say who reaches an archive, as what and why."),
    "reach": ("rights:reach", "List the archives that a person may see, for administrators."),
    "put": ("content:put", "Send folders and files to an open archive."),
    "ingest": ("content:ingest", "Let the server read a folder that it can reach itself."),
    "ls": ("content:ls", "List the content of an archive."),
    "get": ("content:get", "Fetch an archive, folders or files."),
    "rm": ("content:rm", "Remove files and folders from an open archive."),
    "meta": ("meta:meta", "Read and change metadata, and see its history."),
    "verify": ("verify:verify", "Verify a folder with a manifest, or every copy on the server."),
    "audit": ("audit:audit", "Search the log of events by who did what, for administrators and managers."),
    "events": ("watch:events", "Read the event log."),
    "job": ("watch:job", "Show a job, or wait for it."),
    "completion": ("session:completion", "Print the line that turns on completion in your shell."),
}
_SERVER_COMMANDS = "perdure.commands"


class LazyGroup(click.Group):
    """Knows the names of its commands; imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS, *sorted(point.name for point in entry_points(group=_SERVER_COMMANDS))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _COMMANDS:
            module, attribute = _COMMANDS[cmd_name][0].split(":")
            found = getattr(import_module(f"perdure_client.cli.{module}"), attribute)
        else:
            points = list(entry_points(group=_SERVER_COMMANDS, name=cmd_name))
            if not points:
                return None
            found = points[0].load()
        if not isinstance(found, click.Command):
            raise TypeError(f"{cmd_name} is not a command")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])
        points = sorted(entry_points(group=_SERVER_COMMANDS), key=lambda point: point.name)
        if points:
            with formatter.section("Commands of the server"):
                formatter.write_dl([(point.name, _SERVER_HELP.get(point.name, "")) for point in points])


_SERVER_HELP = {  # beside their names, so that help imports no server
    "admin": "Operate the installation: migrate, rebuild, accounts, profiles.",
    "demo": "Run the main job end to end on generated data.",
    "doctor": "Check the installation and say how to mend what is wrong.",
    "serve": "Start everything: web, data plane, worker and, unless one is given, the database.",
    "worker": "Start a further worker.",
}


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--url", envvar="PERDURE_URL", help="Address of the server; default: the one you logged in to last.")
@click.version_option(package_name="perdure-client", prog_name="perdure")
@click.pass_context
def perdure(ctx: click.Context, url: str | None) -> None:
    """Keep research data: archives that stay, unchanged, findable and provable."""
    ctx.obj = {"url": url}


def main() -> None:
    """Run the command; errors become one sentence, the next step and an exit code."""
    arguments: dict[str, Any] = {"prog_name": "perdure", "standalone_mode": False}
    try:
        result = perdure.main(**arguments)
    except click.exceptions.Abort:
        click.echo("Stopped. The same command goes on where it stopped.", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:  # the last line before the user: every error becomes a sentence
        from perdure_client.cli.output import show_error

        sys.exit(show_error(error))
    sys.exit(result if isinstance(result, int) else 0)
