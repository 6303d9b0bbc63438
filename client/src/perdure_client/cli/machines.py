"""Service accounts on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from perdure_client.cli.output import json_option, make_client, print_facts, print_json, print_table, show_time
from perdure_client.cli.rights import end_of

_VERBS = click.Choice(["read", "write", "manage"])
_UNTIL = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%z"])


@click.group()
def service() -> None:
    """Accounts of machines. Each has a responsible person; roles are given by `perdure grant give … --as service`."""


@service.command("list")
@json_option
@click.pass_context
def service_list(ctx: click.Context, as_json: bool) -> None:
    """List the service accounts that you answer for, or whose organisation you manage."""
    found = list(make_client(ctx).list_services())
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["id"],
            one["name"],
            one["state"],
            one["responsible_name"],
            ", ".join(one["verbs"]),
            _last_use(one),
            show_time(one["ends_at"]) or "no token",
        )
        for one in found
    ]
    print_table(rows, ("service account", "name", "state", "responsible", "may", "last used", "tokens until"))


@service.command("show")
@click.argument("service_id")
@json_option
@click.pass_context
def service_show(ctx: click.Context, service_id: str, as_json: bool) -> None:
    """Show a service account and its tokens."""
    client = make_client(ctx)
    one, tokens = client.service(service_id), client.list_service_tokens(service_id)
    if as_json:
        print_json({**one, "tokens": tokens})
        return
    _print_service(one)
    if tokens:
        click.echo()
        print_table([_token_row(token) for token in tokens], ("token", "name", "may", "until", "last used", "replaces"))


@service.command("create")
@click.argument("name")
@click.option("--purpose", required=True, help="What the machine does; for who looks at it in some years.")
@click.option("--responsible", help="Login name of the person who answers for it; default: you.")
@click.option("--verb", "verbs", multiple=True, type=_VERBS, help="What its tokens may do.  [default: read and write]")
@click.option("--archive", "archives", multiple=True, help="Narrow its tokens to these archives.")
@click.option("--from", "addresses", multiple=True, help="An address or network that it may come from; default: any.")
@click.option("--organisation", help="Identifier of the organisation; default: yours.")
@click.option("--quota", type=click.IntRange(min=0), help="Of its own space, in bytes; default: no limit.")
@json_option
@click.pass_context
def service_create(
    ctx: click.Context,
    name: str,
    purpose: str,
    responsible: str | None,
    verbs: tuple[str, ...],
    archives: tuple[str, ...],
    addresses: tuple[str, ...],
    organisation: str | None,
    quota: int | None,
    as_json: bool,
) -> None:
    """Make a service account; its identifier is printed. For those who manage the organisation."""
    made = make_client(ctx).create_service(
        name,
        purpose,
        responsible=responsible,
        verbs=verbs or None,
        archives=archives or None,
        addresses=addresses,
        organisation_id=organisation,
        quota_bytes=quota,
    )
    if as_json:
        print_json(made)
    else:
        click.echo(made["id"])


@service.command("change")
@click.argument("service_id")
@click.option("--purpose", help="What the machine does.")
@click.option("--verb", "verbs", multiple=True, type=_VERBS, help="What its tokens may do: all of it.")
@click.option("--archive", "archives", multiple=True, help="Narrow its tokens to these archives.")
@click.option("--all-archives", is_flag=True, help="Narrow its tokens to no archives.")
@click.option("--from", "addresses", multiple=True, help="An address or network that it may come from.")
@click.option("--from-anywhere", is_flag=True, help="It may come from any address.")
@json_option
@click.pass_context
def service_change(
    ctx: click.Context,
    service_id: str,
    purpose: str | None,
    verbs: tuple[str, ...],
    archives: tuple[str, ...],
    all_archives: bool,
    addresses: tuple[str, ...],
    from_anywhere: bool,
    as_json: bool,
) -> None:
    """Change what is given; what tokens may do counts for those that exist, too."""
    changes: dict[str, Any] = {}  # Any: as the API has them
    if purpose is not None:
        changes["purpose"] = purpose
    if verbs:
        changes["verbs"] = verbs
    if archives or all_archives:
        changes["archives"] = archives or None
    if addresses or from_anywhere:
        changes["addresses"] = addresses
    _print_changed(make_client(ctx).change_service(service_id, **changes), as_json)


@service.command("hand-over")
@click.argument("service_id")
@click.argument("login")
@json_option
@click.pass_context
def service_hand_over(ctx: click.Context, service_id: str, login: str, as_json: bool) -> None:
    """Let the person with this LOGIN answer for a service account from now on."""
    _print_changed(make_client(ctx).change_service(service_id, responsible=login), as_json)


@service.command("disable")
@click.argument("service_id")
@click.pass_context
def service_disable(ctx: click.Context, service_id: str) -> None:
    """Refuse all tokens of a service account from now on."""
    make_client(ctx).change_service(service_id, is_active=False)
    click.echo("Disabled.")


@service.command("enable")
@click.argument("service_id")
@click.pass_context
def service_enable(ctx: click.Context, service_id: str) -> None:
    """Let a service account in again. For those who manage the organisation."""
    make_client(ctx).change_service(service_id, is_active=True)
    click.echo("Enabled.")


@service.command("reach")
@click.argument("service_id")
@json_option
@click.pass_context
def service_reach(ctx: click.Context, service_id: str, as_json: bool) -> None:
    """List the archives that a service account reaches, and what its tokens may do there at most."""
    found = list(make_client(ctx).list_service_reach(service_id))
    if as_json:
        print_json(found)
        return
    rows = [(one["id"], one["state"], ", ".join(one["actions"]), one["title"]) for one in found]
    print_table(rows, ("archive", "state", "may", "title"))


@service.command("token")
@click.argument("service_id")
@click.argument("name")
@click.option("--verb", "verbs", multiple=True, type=_VERBS, help="Narrow to these.")
@click.option("--archive", "archives", multiple=True, help="Narrow to these archives.")
@click.option("--days", type=click.IntRange(min=1), help="How long it is good.  [default: 90]")
@json_option
@click.pass_context
def service_token(
    ctx: click.Context,
    service_id: str,
    name: str,
    verbs: tuple[str, ...],
    archives: tuple[str, ...],
    days: int | None,
    as_json: bool,
) -> None:
    """Make a token for the machine. Its secret is printed this once only."""
    until = None if days is None else (datetime.now(UTC) + timedelta(days=days)).isoformat()
    made = make_client(ctx).create_service_token(
        service_id, name, verbs=verbs or None, archives=archives or None, expires_at=until
    )
    _print_secret(made, as_json)


@service.command("rotate")
@click.argument("service_id")
@click.argument("token_id")
@click.option("--grace-hours", type=click.IntRange(0, 90 * 24), help="For how long the old one goes on.")
@click.option("--until", type=_UNTIL, help="The last day of the new one, or a moment; default: it lives as long.")
@json_option
@click.pass_context
def service_rotate(
    ctx: click.Context,
    service_id: str,
    token_id: str,
    grace_hours: int | None,
    until: datetime | None,
    as_json: bool,
) -> None:
    """Make a token that takes over from another, which goes on for a time. The new secret is printed this once only."""
    made = make_client(ctx).rotate_service_token(
        service_id,
        token_id,
        grace_seconds=None if grace_hours is None else grace_hours * 3600,
        expires_at=end_of(until),
    )
    _print_secret(made, as_json)


@service.command("revoke")
@click.argument("service_id")
@click.argument("token_id")
@click.pass_context
def service_revoke(ctx: click.Context, service_id: str, token_id: str) -> None:
    """Revoke a token of a service account at once."""
    make_client(ctx).revoke_service_token(service_id, token_id)
    click.echo("Revoked.")


def _print_changed(changed: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(changed)
    else:
        _print_service(changed)


def _print_service(one: dict[str, Any]) -> None:
    print_facts(
        {
            "service account": one["id"],
            "name": one["name"],
            "state": _STATES.get(one["state"], one["state"]),
            "purpose": one["purpose"],
            "responsible": one["responsible_name"],
            "its tokens may": ", ".join(one["verbs"]),
            "on": "all that it has a role on" if one["archives"] is None else ", ".join(one["archives"]),
            "from": ", ".join(one["addresses"]) or "anywhere",
            "its space": one["account_id"],
            "last used": _last_use(one),
        }
    )


_STATES = {"orphaned": "orphaned: who is responsible is disabled, so no token works until it is handed over"}


def _last_use(one: dict[str, Any]) -> str:
    if not one["last_used_at"]:
        return "never"
    place = f" from {one['last_used_from']}" if one["last_used_from"] else ""
    return f"{show_time(one['last_used_at'])}{place}"


def _token_row(token: dict[str, Any]) -> tuple[str, ...]:
    until = "revoked" if token["revoked_at"] else show_time(token["expires_at"])
    return (
        token["id"],
        token["name"],
        ", ".join(token["verbs"]),
        until,
        _last_use(token),
        token["replaces"] or "",
    )


def _print_secret(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    click.echo(made["secret"])
    click.echo(f"Token {made['name']!r} is good until {show_time(made['expires_at'])}; keep it now.", err=True)
