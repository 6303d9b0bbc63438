"""Quotas on the command line: what is used, what is asked for, who decides, and reports."""

from __future__ import annotations

import sys

import click

from perdure_client.cli.limits import LIMIT, show_limits, to_limit
from perdure_client.cli.output import json_option, make_client, print_facts, print_json, print_table, show_time
from perdure_client.errors import UsageError
from perdure_client.progress import format_count, format_size

_BY = ("account", "beamline", "group", "organisation", "kind")
_DAY = click.DateTime(formats=["%Y-%m-%d"])


@click.group()
def quota() -> None:
    """How much accounts may hold and do hold. Sizes are given in bytes."""


@quota.command("show")
@click.argument("account_id", required=False)
@click.option("--organisation", "organisation_id", help="All accounts of an organisation that you manage.")
@json_option
@click.pass_context
def quota_show(ctx: click.Context, account_id: str | None, organisation_id: str | None, as_json: bool) -> None:
    """Show what an account uses of its quota; without one, each account on which you have a role."""
    client = make_client(ctx)
    if organisation_id is not None:
        found = [{"name": "organisation", **client.organisation_usage(organisation_id)}]
    elif account_id is not None:
        found = [{**client.account(account_id), **client.account_usage(account_id)}]
    else:
        mine = [one for one in client.list_accounts() if one["role"]]
        found = [{**one, **client.account_usage(one["id"])} for one in mine]
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one.get("id", organisation_id or ""),
            one["name"],
            format_size(one["bytes"]),
            format_size(one["reserved_bytes"]),
            format_count(one["files"], "file"),
            show_limits(one["quota_bytes"], one.get("quota_files")),
        )
        for one in found
    ]
    print_table(rows, ("account", "name", "used", "reserved", "files", "quota"))


@quota.command("set")
@click.argument("account_id")
@click.argument("limit", type=LIMIT, required=False)
@click.option("--files", type=LIMIT, help="How many files it may hold, or `none`.")
@json_option
@click.pass_context
def quota_set(ctx: click.Context, account_id: str, limit: int | None, files: int | None, as_json: bool) -> None:
    """Set the quota of an account: LIMIT in bytes, or `none`. For those who manage its organisation."""
    given = {"quota_bytes": limit, "quota_files": files}
    changes = {name: to_limit(value) for name, value in given.items() if value is not None}
    if not changes:
        raise UsageError("There is nothing to set: give a number of bytes, --files, or both.")
    changed = make_client(ctx).set_quota(account_id, **changes)
    if as_json:
        print_json(changed)
    else:
        click.echo(f"quota: {show_limits(changed['quota_bytes'], changed['quota_files'])}")


@quota.command("request")
@click.argument("account_id")
@click.argument("size", type=click.IntRange(min=0))
@click.option("--reason", default="", help="What it is for; those who decide read it.")
@json_option
@click.pass_context
def quota_request(ctx: click.Context, account_id: str, size: int, reason: str, as_json: bool) -> None:
    """Ask that an account may hold SIZE bytes; the request's identifier is printed."""
    made = make_client(ctx).request_quota(account_id, size, reason=reason)
    if as_json:
        print_json(made)
    else:
        click.echo(made["id"])


@quota.command("requests")
@click.option("--account", "account_id", help="Those for this account; default: those that you may decide.")
@click.option("--state", type=click.Choice(["pending", "approved", "refused"]))
@json_option
@click.pass_context
def quota_requests(ctx: click.Context, account_id: str | None, state: str | None, as_json: bool) -> None:
    """List requests for other quotas, oldest first."""
    found = list(make_client(ctx).list_quota_requests(account_id=account_id, state=state))
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["id"],
            one["account_id"],
            show_time(one["asked_at"]),
            format_size(one["asked_bytes"]),
            one["state"],
            one["note"] or one["reason"],
        )
        for one in found
    ]
    print_table(rows, ("request", "account", "asked", "for", "state", "reason or note"))


@quota.command("approve")
@click.argument("request_id")
@click.option("--bytes", "size", type=click.IntRange(min=0), help="Another quota than was asked for.")
@click.option("--note", default="", help="For who asked.")
@json_option
@click.pass_context
def quota_approve(ctx: click.Context, request_id: str, size: int | None, note: str, as_json: bool) -> None:
    """Give what was asked for, or another quota."""
    _print_decided(make_client(ctx).approve_quota(request_id, quota_bytes=size, note=note), as_json)


@quota.command("refuse")
@click.argument("request_id")
@click.option("--note", required=True, help="Why; for who asked.")
@json_option
@click.pass_context
def quota_refuse(ctx: click.Context, request_id: str, note: str, as_json: bool) -> None:
    """Leave the quota as it is."""
    _print_decided(make_client(ctx).refuse_quota(request_id, note=note), as_json)


@quota.command("report")
@click.option("--by", type=click.Choice(_BY), default="account", show_default=True)
@click.option("--from", "first", type=_DAY, help="First day (UTC); default: what is used at this moment.")
@click.option("--to", "last", type=_DAY, help="Last day; alone: as counted on that day.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV for spreadsheets.")
@json_option
@click.pass_context
def quota_report(ctx: click.Context, by: str, first: object, last: object, as_csv: bool, as_json: bool) -> None:
    """Report what is used, now or day by day, with totals. For those who manage organisations."""
    client = make_client(ctx)
    if as_csv:
        client.report_usage_csv(sys.stdout.buffer, by=by, first=_day(first), last=_day(last))
        return
    report = client.report_usage(by=by, first=_day(first), last=_day(last))
    if as_json:
        print_json(report)
        return
    rows = [
        (
            one["day"],
            "total" if one["by"] == "total" else one["name"],
            format_size(one["bytes"]),
            format_count(one["files"], "file"),
            str(one["archives_open"]),
            str(one["archives_closed"]),
            format_size(one["copy_bytes"]),
        )
        for one in (*report["items"], *report["totals"])
    ]
    print_table(rows, ("day", by, "used", "files", "open", "closed", "in copies"))


def _day(given: object) -> str | None:
    return None if given is None else str(given)[:10]


def _print_decided(decided: dict[str, object], as_json: bool) -> None:
    if as_json:
        print_json(decided)
        return
    given = decided["given_bytes"]
    print_facts(
        {
            "request": str(decided["id"]),
            "state": str(decided["state"]),
            "quota": format_size(given) if isinstance(given, int) else None,
        }
    )
