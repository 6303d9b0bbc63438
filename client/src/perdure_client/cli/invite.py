"""Invitations, one's address and a forgotten password on the command line."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import click

from perdure_client.cli.output import json_option, make_client, print_facts, print_json, print_table, show_time
from perdure_client.cli.rights import end_of
from perdure_client.cli.session import ask_for_terms, in_session
from perdure_client.client import Client
from perdure_client.errors import ApiError, UsageError
from perdure_client.settings import Session, find_session

_ROLES = ["owner", "manager", "contributor", "reader", "curator"]
_password_stdin = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")


def _things(command: Any) -> Any:  # Any: a decorated command
    for name, what in (("organisation", "organisation"), ("account", "account"), ("archive", "archive")):
        command = click.option(f"--{name}", f"{name}_id", help=f"Identifier of an {what}.")(command)
    return command


@click.group()
def invite() -> None:
    """Invite people by e-mail: to a login here, or to a role. Whoever opens the link in the mail accepts."""


@invite.command("send")
@click.argument("email")
@click.option("--role", type=click.Choice(_ROLES), help="On the archive, account or organisation that is named.")
@_things
@click.option("--until", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%z"]), help="When the role ends.")
@click.option("--requires", multiple=True, help="As with `perdure grant give`.")
@click.option("--note", default="", help="A few words of yours in the mail.")
@json_option
@click.pass_context
def invite_send(
    ctx: click.Context,
    email: str,
    role: str | None,
    archive_id: str | None,
    account_id: str | None,
    organisation_id: str | None,
    until: datetime | None,
    requires: tuple[str, ...],
    note: str,
    as_json: bool,
) -> None:
    """Invite EMAIL: with --role to that role, else to a login here (for managers of the organisation)."""
    made = make_client(ctx).invite(
        email,
        role=role,
        archive_id=archive_id,
        account_id=account_id,
        organisation_id=organisation_id,
        role_until=end_of(until),
        requires=requires,
        note=note,
    )
    show_invited(made, as_json=as_json)


def show_invited(made: dict[str, Any], *, as_json: bool) -> None:
    """What was made of an invitation."""
    if as_json:
        print_json(made)
    else:
        click.echo(f"A mail goes to {made['email']}; its link is good until {show_time(made['expires_at'])}.")
        click.echo(made["id"])


@invite.command("list")
@_things
@click.option("--state", type=click.Choice(["pending", "accepted", "revoked", "ended"]), help="Only these.")
@json_option
@click.pass_context
def invite_list(
    ctx: click.Context,
    archive_id: str | None,
    account_id: str | None,
    organisation_id: str | None,
    state: str | None,
    as_json: bool,
) -> None:
    """List invitations: those that you sent, those of organisations that you manage, or those on one thing."""
    found = list(
        make_client(ctx).list_invitations(
            archive_id=archive_id, account_id=account_id, organisation_id=organisation_id, state=state
        )
    )
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["id"],
            one["state"],
            one["email"],
            f"{one['role']} of {one['on_kind']} {one['label']}" if one["role"] else f"a login at {one['label']}",
            show_time(one["expires_at"]),
            {None: "sent", "waiting": "waits to be sent"}.get(one["trouble"], str(one["trouble"])),
        )
        for one in found
    ]
    print_table(rows, ("invitation", "state", "address", "to", "good until", "mail"))


@invite.command("resend")
@click.argument("invitation_id")
@json_option
@click.pass_context
def invite_resend(ctx: click.Context, invitation_id: str, as_json: bool) -> None:
    """Send a new mail with a new link; the one before it ends."""
    show_invited(make_client(ctx).resend_invitation(invitation_id), as_json=as_json)


@invite.command("revoke")
@click.argument("invitation_id")
@click.pass_context
def invite_revoke(ctx: click.Context, invitation_id: str) -> None:
    """End an invitation that was not accepted."""
    make_client(ctx).revoke_invitation(invitation_id)
    click.echo("Revoked.")


@invite.command("show")
@click.argument("link")
@json_option
@click.pass_context
def invite_show(ctx: click.Context, link: str, as_json: bool) -> None:
    """Say what an invitation is about; LINK is the address in the mail, or its last part."""
    with _visitor(ctx) as visitor:
        card = visitor.look_at_invitation(_key_of(link))
    if as_json:
        print_json(card)
        return
    print_facts(
        {
            "from": card["inviter"],
            "organisation": card["organisation"],
            "to": f"{card['role']} of {card['on_kind']} {card['label']}" if card["role"] else "a login",
            "role until": show_time(card["role_until"]),
            "note": card["note"],
            "good until": show_time(card["expires_at"]),
        }
    )


@invite.command("accept")
@click.argument("link")
@json_option
@click.pass_context
def invite_accept(ctx: click.Context, link: str, as_json: bool) -> None:
    """Take the role of an invitation as who you are logged in; LINK is the address in the mail, or its last part."""
    accepted = make_client(ctx).accept_invitation(_key_of(link))
    if as_json:
        print_json(accepted)
    else:
        click.echo(f"You are {accepted['role']} of {accepted['on_kind']} {accepted['label']} ({accepted['on_id']}).")


@invite.command("join")
@click.argument("link")
@click.option("--login", "name", help="The login name that you choose; asked for when not given.")
@click.option("--name", "display_name", help="Your name as others see it; asked for when not given.")
@_password_stdin
@click.option("--accept-terms", type=click.IntRange(min=1), help="Accept this version of the terms of use.")
@click.pass_context
def invite_join(
    ctx: click.Context,
    link: str,
    name: str | None,
    display_name: str | None,
    password_stdin: bool,
    accept_terms: int | None,
) -> None:
    """Make a login by an invitation, and take its role. Then log in with `perdure login`."""
    key = _key_of(link)
    name = name or click.prompt("Login name")
    display_name = display_name or click.prompt("Your name")
    password = _new_password(password_stdin)
    with _visitor(ctx) as visitor:
        given = {"login": name, "password": password, "display_name": display_name}
        try:
            opened = visitor.join_by_invitation(key, **given, accept_terms=accept_terms)
        except ApiError as error:
            if error.code != "terms_not_accepted" or accept_terms is not None:
                raise
            opened = visitor.join_by_invitation(key, **given, accept_terms=ask_for_terms(visitor, error))
        url = visitor.session.url
    with Client(Session(url, opened["secret"])) as client:
        client.log_out()
    click.echo(f"You are let in at {url}. Log in: perdure login {url} --login {name}")


@click.group()
def password() -> None:
    """Your password: change it, or get a new one by mail when you forgot it."""


@password.command("change")
@click.option("--login", "name", help="Your login name; asked for when not given.")
@click.option("--revoke-tokens", is_flag=True, help="End all your tokens too, as after a theft.")
@click.pass_context
def password_change(ctx: click.Context, name: str | None, revoke_tokens: bool) -> None:
    """Replace your password; all your sessions end."""
    with in_session(ctx, name) as client:
        old = click.prompt("Your password once more", hide_input=True, err=True)
        client.set_password(old, _new_password(False), revoke_tokens=revoke_tokens)
    click.echo("Your password is changed.")


@password.command("forgot")
@click.argument("name", metavar="LOGIN_OR_ADDRESS")
@click.pass_context
def password_forgot(ctx: click.Context, name: str) -> None:
    """Have a link for a new password sent to the confirmed address of who has this login name or address."""
    with _visitor(ctx) as visitor:
        visitor.ask_for_reset(name)
    click.echo("If somebody here is meant and has a confirmed address, a mail is sent there.")


@password.command("reset")
@click.argument("link")
@_password_stdin
@click.option("--revoke-tokens", is_flag=True, help="End all your tokens too, as after a theft.")
@click.pass_context
def password_reset(ctx: click.Context, link: str, password_stdin: bool, revoke_tokens: bool) -> None:
    """Set a new password; LINK is the address in the mail, or its last part. All your sessions end."""
    key = _key_of(link)
    with _visitor(ctx) as visitor:
        visitor.reset_password(key, _new_password(password_stdin), revoke_tokens=revoke_tokens)
    click.echo("Your password is set. Log in with `perdure login`.")


@click.group()
def address() -> None:
    """Your e-mail address: where you are told of changes, and where a link for a new password goes."""


@address.command("show")
@json_option
@click.pass_context
def address_show(ctx: click.Context, as_json: bool) -> None:
    """Show your address."""
    found = make_client(ctx).address()
    if as_json:
        print_json(found)
        return
    since = f"confirmed {show_time(found['confirmed_at'])}" if found["confirmed_at"] else "not confirmed, so not used"
    click.echo(f"{found['email']} ({since})")


@address.command("set")
@click.argument("email")
@click.option("--login", "name", help="Your login name; asked for when not given.")
@click.option("--at", help="Show who you are at this institution instead; see `perdure providers`.")
@click.pass_context
def address_set(ctx: click.Context, email: str, name: str | None, at: str | None) -> None:
    """Set or change your address; a mail goes there, and it counts once you open its link. You log in for it."""
    with in_session(ctx, name, at) as client:
        client.change_address(email)
    click.echo(f"A mail goes to {email}. Open its link within a day.")


@address.command("confirm")
@click.argument("link")
@click.pass_context
def address_confirm(ctx: click.Context, link: str) -> None:
    """Confirm an address; LINK is the address in the mail, or its last part."""
    with _visitor(ctx) as visitor:
        found = visitor.confirm_address(_key_of(link))
    click.echo(f"{found['email']} is confirmed.")


def _visitor(ctx: click.Context) -> Client:
    """A client of somebody who is not logged in."""
    return Client(Session(find_session((ctx.find_root().obj or {}).get("url")).url, None))


def _key_of(link: str) -> str:
    """The key in the address of a mail, or the key itself."""
    key = link.strip().rstrip("/").rpartition("/")[2]
    if not key:
        raise UsageError("This is no link of a mail.", next_step="Give the address in the mail, in quotes.")
    return key


def _new_password(from_stdin: bool) -> str:
    if not from_stdin:
        chosen: str = click.prompt("New password", hide_input=True, confirmation_prompt=True, err=True)
        return chosen
    read = sys.stdin.readline().rstrip("\n")
    if not read:
        raise UsageError("No password came on standard input.")
    return read
