"""A person as a whole on the command line: two identities become one, exports, erasure."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from perdure_client.cli.output import json_option, make_client, print_facts, print_json, print_table, show_time
from perdure_client.cli.session import fresh_options, in_session, open_session_as
from perdure_client.client import Client
from perdure_client.errors import UsageError
from perdure_client.progress import format_count


@click.group()
def identity() -> None:
    """Persons as a whole: who somebody is, two identities that become one, all that is kept of you, erasure."""


@identity.command("show")
@click.argument("whom")
@json_option
@click.pass_context
def identity_show(ctx: click.Context, whom: str, as_json: bool) -> None:
    """Show who has the login name or the identifier WHOM."""
    client = make_client(ctx)
    found = client.identity(_identity_id(client, whom))
    if as_json:
        print_json(found)
        return
    print_facts(
        {
            "identity": found["id"],
            "name": found["display_name"],
            "kind": found["kind"],
            "ORCID": found["orcid"],
            "state": _state_of(found),
            "merged into": found["merged_into"],
            "organisation": found["organisation_id"],
        }
    )


@identity.command("list")
@click.argument("text", required=False)
@click.option("--state", type=click.Choice(["active", "disabled", "merged", "erased"]), help="Only these.")
@json_option
@click.pass_context
def identity_list(ctx: click.Context, text: str | None, state: str | None, as_json: bool) -> None:
    """List the people and services of the organisations that you manage, or those with TEXT in their names."""
    found = list(make_client(ctx).list_identities(text=text, state=state))
    if as_json:
        print_json(found)
        return
    print_table(
        [(one["id"], _state_of(one), one["kind"], one["display_name"]) for one in found],
        ("identity", "state", "kind", "name"),
    )


@identity.command("logins")
@click.argument("whom")
@json_option
@click.pass_context
def identity_logins(ctx: click.Context, whom: str, as_json: bool) -> None:
    """Show in what ways WHOM logs in, and when he last did; for those who manage his organisation."""
    client = make_client(ctx)
    found = client.list_logins_of(_identity_id(client, whom))
    if as_json:
        print_json(found)
        return
    rows = [
        (one["kind"], one["subject"], show_time(one["last_used_at"]) if one["last_used_at"] else "never")
        for one in found
    ]
    print_table(rows, ("way", "who or where", "last used"))


@identity.command("merge")
@click.argument("gone")
@click.argument("kept", required=False)
@fresh_options
@click.option("--other-at", help="Show who the other is at this institution, in place of a password here.")
@click.option("--reason", help="For those who manage organisations: why; it is kept.")
@click.option("--yes", is_flag=True, help="Do it without asking; else you are shown what it does.")
@json_option
@click.pass_context
def identity_merge(
    ctx: click.Context,
    gone: str,
    kept: str | None,
    name: str | None,
    at: str | None,
    other_at: str | None,
    reason: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Let the identity GONE end in you, or in KEPT: both are one person. There is no way back.

    GONE and KEPT are login names; of two identities that are not you, also identifiers. Of your own you show that you
    are both, one after the other.
    """
    with in_session(ctx, name, at) as client:
        if kept is None:
            other = open_session_as(client.session.url, gone, other_at)
            with Client(other) as elsewhere:
                try:
                    _merge(lambda dry: client.merge_own(other.token or "", dry_run=dry), yes, as_json)
                except BaseException:
                    elsewhere.log_out()
                    raise
            return
        if reason is None:
            raise UsageError("Say why these two are one person.", next_step="Add --reason.")
        kept_id, gone_id = _identity_id(client, kept), _identity_id(client, gone)
        _merge(lambda dry: client.merge_identities(kept_id, gone_id, reason=reason, dry_run=dry), yes, as_json)


@identity.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.pass_context
def identity_export(ctx: click.Context, file: Path | None) -> None:
    """Write all that the server keeps of you to FILE as JSON, or to standard output. FILE must not be there yet."""
    told = json.dumps(make_client(ctx).export_own(), ensure_ascii=False, indent=2) + "\n"
    if file is None:
        click.echo(told, nl=False)
        return
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as kept:
            kept.write(told)
    except FileExistsError:
        raise UsageError(f"{file} is there already.", next_step="Name another file.") from None
    click.echo(f"Written to {file}, readable by you only.")


@identity.command("erase")
@click.argument("whom", required=False)
@fresh_options
@click.option("--reason", help="For those who manage organisations: why; it is kept.")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.pass_context
def identity_erase(
    ctx: click.Context, whom: str | None, name: str | None, at: str | None, reason: str | None, yes: bool
) -> None:
    """Remove for ever what is personal of you, or of WHOM (a login name or an identifier).

    What is named in closed archives and what was done stays, under a pseudonym. What somebody else has to answer for is
    to be handed over first.
    """
    if whom is not None and reason is None:
        raise UsageError("Say why.", next_step="Add --reason.")
    with in_session(ctx, name, at) as client:
        if whom is None:
            client.erase_own(dry_run=True)
            _require_yes("you", yes)
            client.erase_own()
        else:
            identity_id = _identity_id(client, whom)
            client.erase_identity(identity_id, reason=reason or "", dry_run=True)
            _require_yes(whom, yes)
            client.erase_identity(identity_id, reason=reason or "")
    click.echo("Erased.")


def _require_yes(whom: str, yes: bool) -> None:
    if yes:
        return
    told = f"Logins, sessions, tokens, addresses and the name of {whom} are removed, and every role ends."
    click.echo(f"{told} There is no way back.", err=True)
    typed = click.prompt(f"Type `erase {whom}` to do it", err=True)
    if typed != f"erase {whom}":
        raise UsageError("Nothing was erased.")


def _merge(act: Any, yes: bool, as_json: bool) -> None:  # Any: a function of whether nothing is to be done
    if not yes:
        _show_plan(act(True))
        click.confirm("Merge them? There is no way back.", abort=True, err=True)
    done = act(False)
    if as_json:
        print_json(done)
    else:
        click.echo(f"{done['gone_name']} ({done['gone_id']}) is {done['kept_name']} ({done['kept_id']}) from now on.")


def _show_plan(plan: dict[str, Any]) -> None:
    lines = [
        f"{plan['gone_name']} ({plan['gone_id']}) ends in {plan['kept_name']} ({plan['kept_id']}).",
        f"Ways in that become its: {', '.join(plan['logins']) or 'none'}.",
        f"Ways in that end: {', '.join(plan['ending_logins']) or 'none'}.",
        f"Accounts: {', '.join(one['name'] for one in plan['accounts']) or 'none'}.",
        f"It gets {format_count(plan['roles'], 'role')} and {format_count(plan['groups'], 'membership')} in groups.",
        f"{format_count(plan['ending_sessions'], 'session')}, {format_count(plan['ending_tokens'], 'token')} and "
        f"{format_count(plan['ending_passkeys'], 'passkey')} end.",
    ]
    if plan["second_factor"]:
        moved = plan["second_factor"] == "moved"
        lines.append("The second factor of the one that ends is asked for." if moved else "Its second factor stays.")
    click.echo("\n".join(lines), err=True)


def _state_of(found: dict[str, Any]) -> str:
    if found["merged_into"] or found["is_erased"]:
        return "merged" if found["merged_into"] else "erased"
    return "active" if found["is_active"] else "disabled"


def _identity_id(client: Client, whom: str) -> str:
    try:
        return str(UUID(whom))
    except ValueError:
        return str(client.find_identity(whom)["id"])
