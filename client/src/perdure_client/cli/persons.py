"""A person as a whole on the command line: two identities become one."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click

from perdure_client.cli.output import json_option, make_client, print_facts, print_json
from perdure_client.cli.session import fresh_options, in_session, open_session_as
from perdure_client.client import Client
from perdure_client.errors import UsageError
from perdure_client.progress import format_count


@click.group()
def identity() -> None:
    """Persons as a whole: who somebody is, and two identities of one person that become one."""


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
    state = "merged" if found["merged_into"] else "erased" if found["is_erased"] else None
    print_facts(
        {
            "identity": found["id"],
            "name": found["display_name"],
            "kind": found["kind"],
            "ORCID": found["orcid"],
            "state": state or ("active" if found["is_active"] else "disabled"),
            "merged into": found["merged_into"],
            "organisation": found["organisation_id"],
        }
    )


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


def _identity_id(client: Client, whom: str) -> str:
    try:
        return str(UUID(whom))
    except ValueError:
        return str(client.find_identity(whom)["id"])
