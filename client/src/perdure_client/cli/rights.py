"""Roles on the command line: giving them, taking them back, and who reaches what."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, time
from typing import Any

import click

from perdure_client.cli.output import json_option, make_client, print_json, print_table, show_time
from perdure_client.errors import UsageError
from perdure_client.progress import format_count

MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%z"])
_ROLES = ["owner", "manager", "contributor", "reader", "curator"]


def _on_option(command: Callable[..., Any]) -> Callable[..., Any]:
    kinds = click.Choice(["archive", "account", "organisation"])
    return click.option("--on", type=kinds, default="archive", show_default=True, help="What THING is.")(command)


@click.group()
def grant() -> None:
    """Roles on archives, accounts and organisations. One on an account or organisation counts for all its archives."""


@grant.command("list")
@click.argument("thing")
@_on_option
@json_option
@click.pass_context
def grant_list(ctx: click.Context, thing: str, on: str, as_json: bool) -> None:
    """List who was given which role on THING itself. `perdure who` also tells what comes from above."""
    found = make_client(ctx).list_grants(thing, on=f"{on}s")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["id"],
            one["role"],
            _named(one),
            show_time(one["expires_at"]) or "no end",
            ", ".join(one["requires"]),
            _passed_on(one["pass_on"]),
        )
        for one in found
    ]
    print_table(rows, ("grant", "role", "for", "until", "if logged in by", "passed on to"))


@grant.command("give")
@click.argument("thing")
@click.argument("role", type=click.Choice(_ROLES))
@click.argument("whom")
@_on_option
@click.option(
    "--as",
    "kind",
    type=click.Choice(["login", "service", "group", "oidc", "saml", "x509", "orcid", "ldap", "entitlement", "email"]),
    default="login",
    show_default=True,
    help="What WHOM is. To an email an invitation is sent. Of oidc, saml and ldap it is two words: the issuer, and the "
    "person there.",
)
@click.option(
    "--requires",
    multiple=True,
    help="The role counts only for logins by this: x509, oidc, …, second_factor, or 'issuer https://…'.",
)
@click.option("--until", type=MOMENT, help="The last day, or a moment.")
@click.option(
    "--pass-on",
    metavar="TO",
    help="To whom WHOM may give roles by it: nobody, organisation:ID or group:ID; they pass on nothing.",
)
@json_option
@click.pass_context
def grant_give(
    ctx: click.Context,
    thing: str,
    role: str,
    whom: str,
    on: str,
    kind: str,
    requires: tuple[str, ...],
    until: datetime | None,
    pass_on: str | None,
    as_json: bool,
) -> None:
    """Give WHOM a ROLE on THING.

    WHOM is a login name, the identifier of a group or a service account, or what somebody is known by
    elsewhere, who need not have been here.
    """
    if kind == "email":
        from perdure_client.cli.invite import show_invited

        named = {f"{on}_id": thing}
        ending = end_of(until)
        made = make_client(ctx).invite(whom, role=role, role_until=ending, requires=requires, **named)
        show_invited(made, as_json=as_json)
        return
    made = make_client(ctx).grant(
        thing,
        role,
        login=whom if kind == "login" else None,
        group_id=whom if kind == "group" else None,
        identity_id=whom if kind == "service" else None,
        credential=None if kind in ("login", "service", "group") else (kind, whom),
        expires_at=end_of(until),
        requires=requires,
        pass_on=_limit_of(pass_on),
        on=f"{on}s",
    )
    if as_json:
        print_json(made)
        return
    ending = f" until {show_time(made['expires_at'])}" if made["expires_at"] else ""
    click.echo(f"{_named(made)} is {made['role']}{ending} ({made['id']}).")


@grant.command("revoke")
@click.argument("thing")
@click.argument("grant_id")
@_on_option
@click.pass_context
def grant_revoke(ctx: click.Context, thing: str, grant_id: str, on: str) -> None:
    """Take a role on THING back."""
    make_client(ctx).revoke_grant(thing, grant_id, on=f"{on}s")
    click.echo("Revoked.")


def _named(one: dict[str, Any]) -> str:
    if one["credential"]:
        return f"{one['credential']['kind']} {one['credential']['subject']}"
    return str(one.get("name") or one["identity_id"] or f"group {one['group_id']}")


def _limit_of(text: str | None) -> tuple[str, str | None] | None:
    if text is None:
        return None
    to, _, place = text.partition(":")
    if to not in ("nobody", "organisation", "group") or (to == "nobody") != (place == ""):
        raise UsageError(f"{text!r} is nobody to pass on to.", next_step="Write nobody, organisation:ID or group:ID.")
    return to, place or None


def _passed_on(limit: dict[str, Any] | None) -> str:
    return "" if limit is None else f"{limit['to']} {limit['id'] or ''}".rstrip()


def start_of(since: datetime | None) -> str | None:
    """A day begins with its first moment, in the zone of who says it."""
    return None if since is None else since.astimezone().isoformat()


def end_of(until: datetime | None) -> str | None:
    """A day lasts to its end, in the zone of who says it."""
    if until is None:
        return None
    if until.tzinfo is None:
        until = datetime.combine(until, time.max)
    return until.astimezone().isoformat()


@click.command()
@click.argument("archive_id")
@json_option
@click.pass_context
def who(ctx: click.Context, archive_id: str, as_json: bool) -> None:
    """Say who reaches an archive, as what and why. For those who manage it."""
    found = list(make_client(ctx).explain_access(archive_id))
    if as_json:
        print_json(found)
        return
    rows = [
        (_whom(one), one["role"] or ", ".join(one["actions"]), _why(one), show_time(one["expires_at"])) for one in found
    ]
    print_table(rows, ("who", "as", "why", "until"))


def _whom(way: dict[str, Any]) -> str:
    if way["credential"]:
        return _named(way)
    if way["identity_id"] or way["through"] in ("access_class", "invitation"):
        return way["name"] or (way["identity_id"] and str(way["identity_id"])) or "everybody"
    named = [member["name"] for member in way["members"]]
    more = way["member_count"] - len(named)
    listed = ", ".join([*named, *([f"{more} more"] if named and more else [])])
    whole = f"group {way['name']}" if way["group_id"] else "administrators"
    return f"{whole}: {listed or format_count(way['member_count'], 'member')}"


def _why(way: dict[str, Any]) -> str:
    demands = f", if logged in by {' and '.join(way['requires'])}" if way["requires"] else ""
    return _REASONS.get(way["through"], str(way["through"])) + demands


_REASONS = {
    "archive": "a role on the archive",
    "account": "a role on its account",
    "organisation": "a role on its organisation",
    "access_class": "it is public",
    "invitation": "invited, and has not accepted yet",
    "administrator": "they look after the installation",
}


@click.command()
@click.argument("login")
@json_option
@click.pass_context
def reach(ctx: click.Context, login: str, as_json: bool) -> None:
    """List the archives that the person with this LOGIN may see, and what he may do there. For administrators."""
    found = list(make_client(ctx).list_reach(login))
    if as_json:
        print_json(found)
        return
    rows = [(one["id"], one["state"], ", ".join(one["actions"]), one["title"]) for one in found]
    print_table(rows, ("archive", "state", "may", "title"))
