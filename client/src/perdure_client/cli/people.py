"""Accounts, groups and organisations on the command line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import IO, Any

import click

from perdure_client.cli.limits import LIMIT, show_limits, to_limit
from perdure_client.cli.output import json_option, make_client, print_facts, print_json, print_table, show_time
from perdure_client.cli.rights import MOMENT, end_of, start_of
from perdure_client.progress import format_count, format_size


def _dated(command: Any) -> Any:
    """From when until when somebody is in a group."""
    since = click.option("--from", "since", type=MOMENT, help="The first day, or a moment; default: at once.")
    until = click.option("--until", type=MOMENT, help="The last day, or a moment; default: no end.")
    return since(until(command))


@click.group()
def account() -> None:
    """Accounts: the spaces that own archives. Making and changing them is for administrators."""


@account.command("list")
@json_option
@click.pass_context
def account_list(ctx: click.Context, as_json: bool) -> None:
    """List the accounts that you may see."""
    found = list(make_client(ctx).list_accounts())
    if as_json:
        print_json(found)
        return
    rows = [(one["id"], one["kind"], one["name"], one["role"] or "", _limit(one["quota_bytes"])) for one in found]
    print_table(rows, ("account", "kind", "name", "your role", "quota"))


@account.command("show")
@click.argument("account_id")
@json_option
@click.pass_context
def account_show(ctx: click.Context, account_id: str, as_json: bool) -> None:
    """Show an account and what it uses of its quota."""
    client = make_client(ctx)
    one, usage = client.account(account_id), client.account_usage(account_id)
    if as_json:
        print_json({**one, "usage": usage})
        return
    allowed = one["allowed_profiles"]
    print_facts(
        {
            "account": one["id"],
            "name": one["name"],
            "kind": one["kind"],
            "profiles": "all that are offered" if allowed is None else ", ".join(allowed) or "none",
            "quota": show_limits(one["quota_bytes"], one["quota_files"]),
            "used": f"{format_count(usage['files'], 'file')}, {format_size(usage['bytes'])}",
            "reserved": format_size(usage["reserved_bytes"]),
        }
    )


@account.command("create")
@click.argument("name")
@click.option("--kind", type=click.Choice(["group", "beamline"]), default="group", show_default=True)
@click.option("--owner", required=True, help="Login name of the person who owns it.")
@click.option("--quota", type=click.IntRange(min=0), help="In bytes; default: no limit.")
@click.option("--quota-files", type=click.IntRange(min=0), help="Number of files; default: no limit.")
@click.option("--profile", "profiles", multiple=True, help="A profile that it may choose; default: all on offer.")
@json_option
@click.pass_context
def account_create(
    ctx: click.Context,
    name: str,
    kind: str,
    owner: str,
    quota: int | None,
    quota_files: int | None,
    profiles: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make an account; its identifier is printed. Needs a token with the verb admin."""
    made = make_client(ctx).create_account(
        name,
        kind=kind,
        owner=owner,
        quota_bytes=quota,
        allowed_profiles=profiles or None,
        quota_files=quota_files,
    )
    _print_made(made, as_json)


@account.command("transfer")
@click.argument("account_id")
@click.argument("login")
@click.pass_context
def account_transfer(ctx: click.Context, account_id: str, login: str) -> None:
    """Make the person with this LOGIN the owner of an account of a group or beamline, in your place."""
    make_client(ctx).transfer_account(account_id, login)
    click.echo(f"{login} owns the account.")


@click.group()
def group() -> None:
    """Groups of people, which roles can be granted to."""


@group.command("list")
@json_option
@click.pass_context
def group_list(ctx: click.Context, as_json: bool) -> None:
    """List your groups."""
    found = make_client(ctx).list_groups()
    if as_json:
        print_json(found)
        return
    rows = [(one["id"], one["name"], str(len(one["members"]))) for one in found]
    print_table(rows, ("group", "name", "members"))


@group.command("create")
@click.argument("name")
@json_option
@click.pass_context
def group_create(ctx: click.Context, name: str, as_json: bool) -> None:
    """Make a group that you manage; its identifier is printed."""
    _print_made(make_client(ctx).create_group(name), as_json)


@group.command("add")
@click.argument("group_id")
@click.argument("login")
@click.option("--manager", is_flag=True, help="Who may take in others.")
@_dated
@click.pass_context
def group_add(
    ctx: click.Context, group_id: str, login: str, manager: bool, since: datetime | None, until: datetime | None
) -> None:
    """Take the person with this LOGIN into a group; or change from when until when, and whether he manages it."""
    made = make_client(ctx).add_member(
        group_id, login, is_manager=manager, starts_at=start_of(since), ends_at=end_of(until)
    )
    is_waiting = since is not None and since.astimezone() > datetime.now(UTC)
    click.echo(f"{login} is in the group {made['name']}{f' from {since:%Y-%m-%d} on' if is_waiting and since else ''}.")


@group.command("show")
@click.argument("group_id")
@json_option
@click.pass_context
def group_show(ctx: click.Context, group_id: str, as_json: bool) -> None:
    """Show who is in a group, from when and until when."""
    client = make_client(ctx)
    found = client.group(group_id)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            client.identity(one["identity_id"])["display_name"],
            "manager" if one["is_manager"] else "member",
            one["source"],
            show_time(one["starts_at"]),
            show_time(one["ends_at"]) or "no end",
            one["identity_id"],
        )
        for one in found["memberships"]
    ]
    print_table(rows, ("name", "as", "by", "from", "until", "identity"))


@group.command("remove")
@click.argument("group_id")
@click.argument("login")
@click.pass_context
def group_remove(ctx: click.Context, group_id: str, login: str) -> None:
    """Take the person with this LOGIN out of a group."""
    make_client(ctx).remove_member(group_id, login)
    click.echo(f"{login} is not in the group.")


@group.command("rules")
@click.argument("group_id")
@json_option
@click.pass_context
def group_rules(ctx: click.Context, group_id: str, as_json: bool) -> None:
    """List which entitlements of which institution lead into a group."""
    found = make_client(ctx).list_claim_rules(group_id)
    if as_json:
        print_json(found)
    else:
        rows = [
            (
                one["id"],
                one["issuer"],
                one["entitlement"],
                show_time(one["starts_at"]),
                show_time(one["ends_at"]) or "no end",
            )
            for one in found
        ]
        print_table(rows, ("rule", "institution", "entitlement", "from", "until"))


@group.command("add-rule")
@click.argument("group_id")
@click.argument("issuer")
@click.argument("entitlement")
@_dated
@json_option
@click.pass_context
def group_add_rule(
    ctx: click.Context,
    group_id: str,
    issuer: str,
    entitlement: str,
    since: datetime | None,
    until: datetime | None,
    as_json: bool,
) -> None:
    """Let into a group who logs in at ISSUER with ENTITLEMENT; * at its end stands for any ending."""
    made = make_client(ctx).add_claim_rule(
        group_id, issuer=issuer, entitlement=entitlement, starts_at=start_of(since), ends_at=end_of(until)
    )
    _print_made(made, as_json)


@group.command("remove-rule")
@click.argument("group_id")
@click.argument("rule_id")
@click.pass_context
def group_remove_rule(ctx: click.Context, group_id: str, rule_id: str) -> None:
    """Take a rule back."""
    make_client(ctx).remove_claim_rule(group_id, rule_id)
    click.echo("Removed.")


@click.group()
def application() -> None:
    """Applications of people who ask to be let in; for those who manage their organisation."""


@application.command("list")
@click.option("--state", type=click.Choice(["pending", "approved", "refused"]), help="Only these.")
@json_option
@click.pass_context
def application_list(ctx: click.Context, state: str | None, as_json: bool) -> None:
    """List who asks, or asked, to be let in."""
    found = list(make_client(ctx).list_applications(state=state))
    if as_json:
        print_json(found)
        return
    rows = [
        (one["id"], one["state"], one["display_name"], f"{one['kind']} {one['subject']}", one["reason"])
        for one in found
    ]
    print_table(rows, ("application", "state", "name", "login", "reason"))


@application.command("approve")
@click.argument("application_id")
@click.option("--organisation", help="Identifier of the organisation; needed where the application names none.")
@click.option("--quota", type=click.IntRange(min=0), help="Of the personal account, in bytes; default: no limit.")
@json_option
@click.pass_context
def application_approve(
    ctx: click.Context, application_id: str, organisation: str | None, quota: int | None, as_json: bool
) -> None:
    """Let somebody in; the identifier of the new identity is printed."""
    made = make_client(ctx).approve_application(application_id, organisation_id=organisation, quota_bytes=quota)
    _print_made(made, as_json)


@application.command("refuse")
@click.argument("application_id")
@click.option("--note", default="", help="Why; the applicant is told.")
@click.pass_context
def application_refuse(ctx: click.Context, application_id: str, note: str) -> None:
    """Say no."""
    make_client(ctx).refuse_application(application_id, note=note)
    click.echo("Refused.")


@click.group()
def terms() -> None:
    """The terms of use, which everybody accepts at his first login."""


@terms.command("show")
@click.argument("version", type=click.IntRange(min=1), required=False)
@json_option
@click.pass_context
def terms_show(ctx: click.Context, version: int | None, as_json: bool) -> None:
    """Print the terms of use in force, or an earlier VERSION."""
    found = make_client(ctx).terms(version)
    if as_json:
        print_json(found)
    else:
        click.echo(f"Version {found['version']}\n\n{found['text'].rstrip()}")


@terms.command("publish")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.pass_context
def terms_publish(ctx: click.Context, file: IO[str]) -> None:
    """Put the text of FILE (- for standard input) in force. Needs a token with the verb admin."""
    made = make_client(ctx).publish_terms(file.read())
    click.echo(f"Version {made['version']} is in force; everybody meets it at the next login.")


@click.group()
def organisation() -> None:
    """Organisations, which own people, groups and accounts. Roles on one are given by `perdure grant`."""


@organisation.command("list")
@json_option
@click.pass_context
def organisation_list(ctx: click.Context, as_json: bool) -> None:
    """List your organisation, and those on which you have a role."""
    found = list(make_client(ctx).list_organisations())
    if as_json:
        print_json(found)
        return
    print_table([(one["id"], one["name"], one["ror"] or "") for one in found], ("organisation", "name", "ROR"))


@organisation.command("create")
@click.argument("name")
@click.option("--ror", help="Its identifier in the Research Organization Registry.")
@json_option
@click.pass_context
def organisation_create(ctx: click.Context, name: str, ror: str | None, as_json: bool) -> None:
    """Make an organisation; its identifier is printed. Needs a token with the verb admin."""
    _print_made(make_client(ctx).create_organisation(name, ror=ror), as_json)


def _print_made(made: dict[str, object], as_json: bool) -> None:
    if as_json:
        print_json(made)
    else:
        click.echo(made["id"])


@organisation.command("quota")
@click.argument("organisation_id")
@click.argument("limit", type=LIMIT)
@json_option
@click.pass_context
def organisation_quota(ctx: click.Context, organisation_id: str, limit: int, as_json: bool) -> None:
    """Limit what all accounts of an organisation hold together: bytes, or `none`. Needs a token with the verb admin."""
    changed = make_client(ctx).set_organisation_quota(organisation_id, to_limit(limit))
    if as_json:
        print_json(changed)
    else:
        click.echo(f"quota: {_limit(changed['quota_bytes'])}")


def _limit(quota: int | None) -> str:
    return "no limit" if quota is None else format_size(quota)
