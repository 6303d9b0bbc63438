"""Logging in and out, and API tokens."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from perdure_client.cli.output import json_option, make_client, print_facts, print_json, print_table, show_time
from perdure_client.client import Client
from perdure_client.errors import ApiError, UsageError
from perdure_client.settings import Session, find_session, forget_session, store_session

_KEPT_VERBS = ("read", "write", "manage")  # an administrator's powers are kept only when asked for


@click.command()
@click.argument("url", required=False)
@click.option("--login", "name", help="Your login name; asked for when not given.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option(
    "--provider",
    "--with",
    "provider",
    help="Log in at this institution: in a browser on any device, or with the password that you have there; see "
    "`perdure providers`.",
)
@click.option("--token-stdin", is_flag=True, help="With --provider: read a token that it made from standard input.")
@click.option("--accept-terms", type=click.IntRange(min=1), help="Accept this version of the terms of use.")
@click.option("--administrator", is_flag=True, help="Let the kept token use the powers of an administrator.")
@click.option("--days", default=90, show_default=True, help="How long the kept token is good.")
@json_option
@click.pass_context
def login(
    ctx: click.Context,
    url: str | None,
    name: str | None,
    password_stdin: bool,
    provider: str | None,
    token_stdin: bool,
    accept_terms: int | None,
    administrator: bool,
    days: int,
    as_json: bool,
) -> None:
    """Log in at URL and keep a token for later commands.

    The password is not kept. The token is kept readable by you only, and revoked by `perdure logout`.
    """
    session = find_session(url or (ctx.find_root().obj or {}).get("url"))
    if token_stdin and provider is None:
        raise UsageError("A token is one of a provider.", next_step="Name it: --provider NAME.")
    with Client(Session(session.url, None)) as visitor:
        if provider is None:
            name = name or click.prompt(f"Login name at {session.url}")
            password = _read_secret() if password_stdin else click.prompt("Password", hide_input=True)
            opened = _open_session(visitor, name, password, accept_terms)
        elif token_stdin:
            opened = visitor.log_in_with_token(provider, _read_secret(), accept_terms=accept_terms)
        elif (directory := _find_directory(visitor, provider)) is not None:
            name, password = _ask_for_password(directory, name, password_stdin=password_stdin)
            try:
                opened = _open_session(visitor, name, password, accept_terms, provider)
            except ApiError as error:
                opened = _go_on(visitor, error, accept_terms)
        else:
            opened = _log_in_at(visitor, provider, accept_terms)
    name = name or opened["identity"]["display_name"]
    until = datetime.now(UTC) + timedelta(days=days)
    with Client(Session(session.url, opened["secret"], name)) as client:
        verbs = (*_KEPT_VERBS, "admin") if administrator else _KEPT_VERBS
        kept = client.create_token(
            f"perdure on {platform.node()}", verbs=verbs, expires_at=until.isoformat(), in_place_of_session=True
        )
        client.log_out()
    path = store_session(Session(session.url, kept["secret"], name))
    if as_json:
        print_json({"url": session.url, "login": name, "token_id": kept["id"], "expires_at": kept["expires_at"]})
    else:
        click.echo(
            f"Logged in at {session.url} as {name} until {show_time(kept['expires_at'])}. The token is in {path}."
        )


def _find_directory(visitor: Client, provider: str) -> str | None:
    """What the institution is called, if it takes a name and a password."""
    found = (one for one in visitor.list_providers() if one["name"] == provider and one["kind"] == "ldap")
    return next((one["label"] for one in found), None)


def _ask_for_password(directory: str, name: str | None, *, password_stdin: bool = False) -> tuple[str, str]:
    name = name or click.prompt(f"Login name at {directory}", err=True)
    return name, _read_secret() if password_stdin else click.prompt("Password", hide_input=True, err=True)


def _log_in_at(visitor: Client, provider: str, accept_terms: int | None) -> dict[str, Any]:
    """Log in at a provider by a browser elsewhere; who is not known here yet may apply."""
    try:
        return _confirm_at(visitor, provider)
    except ApiError as error:
        return _go_on(visitor, error, accept_terms)


def _confirm_at(visitor: Client, provider: str) -> dict[str, Any]:
    """The session of a login that is confirmed in a browser; raises ApiError when the login alone is not enough."""
    begun = visitor.begin_device_login(provider)
    click.echo(f"Open {begun['complete_uri']} in a browser, on any device, and confirm the code:", err=True)
    click.echo(f"\n  {begun['user_code']}\n", err=True)
    end = time.monotonic() + begun["expires_in"]
    while time.monotonic() < end:
        time.sleep(begun["interval"])
        opened = visitor.poll_device_login(begun["ticket"])
        if opened is not None:
            return opened
    raise UsageError("Nobody confirmed the login in time.", next_step="Run the command again.")


def _go_on(visitor: Client, error: ApiError, accept_terms: int | None) -> dict[str, Any]:
    """After a login that was confirmed, and not enough: accept the terms, or apply."""
    ticket = str(error.extra.get("ticket") or "")
    if error.code == "terms_not_accepted" and ticket:
        return visitor.log_in_with_ticket(ticket, accept_terms=accept_terms or ask_for_terms(visitor, error))
    if error.code != "unknown_person" or not ticket:
        raise error
    click.echo("You are not known here yet.", err=True)
    if not click.confirm("Ask to be let in?", err=True):
        raise error
    reason = click.prompt("Why (your beamtime, your group)", default="", show_default=False, err=True)
    try:
        visitor.apply(ticket, reason=reason, accept_terms=accept_terms)
    except ApiError as second:
        if second.code != "terms_not_accepted":
            raise
        visitor.apply(ticket, reason=reason, accept_terms=ask_for_terms(visitor, second))
    raise UsageError("Your application is sent.", next_step="Log in again once it has been approved.")


def ask_for_terms(visitor: Client, error: ApiError) -> int:
    """Show the terms of use; their version, once they are accepted."""
    terms = visitor.terms(error.extra.get("version"))  # type: ignore[arg-type]  # a number, as the server sends it
    click.echo(f"{terms['text'].rstrip()}\n", err=True)
    if not click.confirm("Do you accept these terms of use?", err=True):
        raise error
    return int(terms["version"])


def _open_session(
    visitor: Client, name: str, password: str, accept_terms: int | None = None, provider: str | None = None
) -> dict[str, Any]:
    """Log in; the code of a second factor, and whether one accepts the terms, are asked for where it is needed."""
    code: str | None = None
    for _ in range(3):
        try:
            return visitor.log_in(name, password, code=code, accept_terms=accept_terms, provider=provider)
        except ApiError as error:
            if error.code == "second_factor_needed" and code is None:
                code = click.prompt("Code of your device", err=True)
            elif error.code == "terms_not_accepted" and accept_terms is None:
                accept_terms = ask_for_terms(visitor, error)
            else:
                raise
    raise AssertionError("each is asked for once")


def _read_secret() -> str:
    secret = sys.stdin.readline().rstrip("\n")
    if not secret:
        raise UsageError("No password or token came on standard input.")
    return secret


@click.command()
@json_option
@click.pass_context
def providers(ctx: click.Context, as_json: bool) -> None:
    """List the institutions where you can log in, for `perdure login --provider NAME`."""
    session = find_session((ctx.find_root().obj or {}).get("url"))
    with Client(Session(session.url, None)) as visitor:
        found = visitor.list_providers()
    if as_json:
        print_json(found)
    elif not found:
        click.echo("This server knows no institutions; `perdure login` asks for the password that you have there.")
    else:
        print_table([(one["name"], one["label"], one["kind"]) for one in found], ("provider", "institution", "kind"))


@click.command()
@click.pass_context
def logout(ctx: click.Context) -> None:
    """Revoke the kept token and forget it.

    Where you may be logged in still at the institution where the login began, its address for logging out is shown.
    """
    session = find_session((ctx.find_root().obj or {}).get("url"))
    if not session.token:
        click.echo(f"You are not logged in at {session.url}.")
        return
    there: dict[str, Any] | None = None
    with Client(session) as client:
        try:
            there = client.log_out()
        except ApiError as error:
            if error.status != 401:
                raise
    forget_session(session.url)
    click.echo(f"Logged out at {session.url}.")
    if there is not None:
        told = f"In the browser in which you confirmed the login you may be logged in at {there['provider']} still;"
        click.echo(f"{told} open this there to log out, too:\n\n  {there['url']}\n", err=True)


@click.command()
@json_option
@click.pass_context
def whoami(ctx: click.Context, as_json: bool) -> None:
    """Say who you are at which server."""
    client = make_client(ctx)
    me = client.me()
    if as_json:
        print_json(me)
        return
    print_facts(
        {
            "server": client.session.url,
            "name": me["identity"]["display_name"],
            "id": me["identity"]["id"],
            "the token may": ", ".join(me["verbs"]) if me["verbs"] else "all that you may",
        }
    )


@click.group()
def token() -> None:
    """Create, list and revoke API tokens."""


@token.command("create")
@click.argument("name")
@click.option(
    "--verb", "verbs", multiple=True, type=click.Choice(["read", "write", "manage", "admin"]), help="Narrow to these."
)
@click.option("--archive", "archives", multiple=True, help="Narrow to these archives.")
@click.option(
    "--days", type=int, help="How long it is good, at most as long as your own token.  [default: 365, or as yours]"
)
@json_option
@click.pass_context
def token_create(
    ctx: click.Context, name: str, verbs: tuple[str, ...], archives: tuple[str, ...], days: int | None, as_json: bool
) -> None:
    """Create a token for a program. Its secret is shown this once only."""
    until = None if days is None else (datetime.now(UTC) + timedelta(days=days)).isoformat()
    made = make_client(ctx).create_token(name, verbs=verbs or None, archives=archives or None, expires_at=until)
    if as_json:
        print_json(made)
    else:
        click.echo(made["secret"])
        click.echo(f"Token {made['name']!r} is good until {show_time(made['expires_at'])}; keep it now.", err=True)


@token.command("list")
@json_option
@click.pass_context
def token_list(ctx: click.Context, as_json: bool) -> None:
    """List your tokens."""
    tokens = make_client(ctx).list_tokens()
    if as_json:
        print_json(tokens)
        return
    rows = [
        (
            one["id"],
            one["name"],
            ", ".join(one.get("verbs") or ["all"]),
            "revoked" if one.get("revoked_at") else show_time(one["expires_at"]),
            show_time(one.get("last_used_at")) or "never",
        )
        for one in tokens
    ]
    print_table(rows, ("id", "name", "may", "until", "last used"))


@token.command("revoke")
@click.argument("token_id")
@click.pass_context
def token_revoke(ctx: click.Context, token_id: str) -> None:
    """Revoke a token at once."""
    make_client(ctx).revoke_token(token_id)
    click.echo("Revoked.")


@click.group()
def session() -> None:
    """List and end your sessions: where you are logged in."""


@session.command("list")
@json_option
@click.pass_context
def session_list(ctx: click.Context, as_json: bool) -> None:
    """List your open sessions. A login by `perdure login` leaves a token instead; see `perdure token list`."""
    found = make_client(ctx).list_sessions()
    if as_json:
        print_json(found)
        return
    rows = [
        (one["id"], one["address"], show_time(one["last_used_at"]), show_time(one["expires_at"]), one["agent"])
        for one in found
    ]
    print_table(rows, ("session", "from", "last used", "until", "by"))


@session.command("end")
@click.argument("session_id")
@click.pass_context
def session_end(ctx: click.Context, session_id: str) -> None:
    """End a session at once."""
    make_client(ctx).end_session(session_id)
    click.echo("Ended.")


@click.group()
def logins() -> None:
    """The ways in which you log in: a password, institutions, certificates, each leading to the same you."""


@logins.command("list")
@json_option
@click.pass_context
def logins_list(ctx: click.Context, as_json: bool) -> None:
    """List the ways in which you log in."""
    found = make_client(ctx).list_logins()
    if as_json:
        print_json(found)
        return
    rows = [(one["id"], one["kind"], one["subject"], show_time(one["last_used_at"]) or "never") for one in found]
    print_table(rows, ("login", "kind", "who you are there", "last used"))


def fresh_options(command: Any) -> Any:
    """How somebody shows who he is for what a kept token is too weak for."""
    named = click.option("--login", "name", help="Your login name here; asked for when not given.")
    known = click.option("--at", "at", help="Show who you are at this institution, in place of your password here.")
    return named(known(command))


@logins.command("link")
@click.argument("provider")
@fresh_options
@click.pass_context
def logins_link(ctx: click.Context, provider: str, name: str | None, at: str | None) -> None:
    """Link a login at PROVIDER to you. You log in as you do now, and then there.

    PROVIDER is one of `perdure providers`.
    """
    with in_session(ctx, name, at) as client, Client(Session(client.session.url, None)) as visitor:
        made = client.link_login(_find_ticket(visitor, provider))
    click.echo(f"{made['subject']} is you from now on.")


def _find_ticket(visitor: Client, provider: str) -> str:
    """Log in at a provider as somebody whom nobody knows here; the ticket of that login."""
    directory = _find_directory(visitor, provider)
    try:
        if directory is None:
            opened = _confirm_at(visitor, provider)
        else:
            opened = visitor.log_in(*_ask_for_password(directory, None), provider=provider)
    except ApiError as error:
        if "ticket" not in error.extra or error.code == "terms_not_accepted":
            raise
        return str(error.extra["ticket"])
    with Client(Session(visitor.session.url, opened["secret"])) as other:
        other.log_out()
    raise UsageError("This login belongs to somebody here already.", next_step="Unlink it there first.")


@logins.command("unlink")
@click.argument("login_id")
@fresh_options
@click.pass_context
def logins_unlink(ctx: click.Context, login_id: str, name: str | None, at: str | None) -> None:
    """Unlink a login from you. One has to stay."""
    with in_session(ctx, name, at) as client:
        client.unlink_login(login_id)
    click.echo("Unlinked.")


@click.group()
def passkey() -> None:
    """Your passkeys: keys on your devices. They are made in a browser, at /passkeys."""


@passkey.command("list")
@json_option
@click.pass_context
def passkey_list(ctx: click.Context, as_json: bool) -> None:
    """List your passkeys."""
    found = make_client(ctx).list_passkeys()
    if as_json:
        print_json(found)
        return
    rows = [
        (one["id"], one["name"], show_time(one["created_at"]), show_time(one["last_used_at"]) or "never")
        for one in found
    ]
    print_table(rows, ("passkey", "name", "made", "last used"))


@passkey.command("rename")
@click.argument("passkey_id")
@click.argument("name")
@click.pass_context
def passkey_rename(ctx: click.Context, passkey_id: str, name: str) -> None:
    """Call a passkey otherwise."""
    make_client(ctx).rename_passkey(passkey_id, name)
    click.echo(f"It is called {name} from now on.")


@passkey.command("remove")
@click.argument("passkey_id")
@fresh_options
@click.pass_context
def passkey_remove(ctx: click.Context, passkey_id: str, name: str | None, at: str | None) -> None:
    """Take a passkey away, as when the device is lost. You show who you are."""
    with in_session(ctx, name, at) as client:
        client.remove_passkey(passkey_id)
    click.echo("Removed.")


@click.group("second-factor")
def second_factor() -> None:
    """Your second factor: a device whose code is asked for beside the password. You are asked for your password."""


@second_factor.command("on")
@fresh_options
@click.pass_context
def second_factor_on(ctx: click.Context, name: str | None, at: str | None) -> None:
    """Take a device into use. It shows codes of six digits (TOTP), as many programs for telephones do."""
    with in_session(ctx, name, at) as client:
        begun = client.begin_second_factor()
        click.echo(f"Enter this key into your device:\n\n  {begun['key']}\n\nor open {begun['address']}")
        codes = client.confirm_second_factor(click.prompt("Code that it shows now"))["codes"]
    click.echo("From now on a login needs a code. Keep these recovery codes; each is good once, without the device:\n")
    click.echo("\n".join(f"  {code}" for code in codes))


@second_factor.command("codes")
@fresh_options
@click.pass_context
def second_factor_codes(ctx: click.Context, name: str | None, at: str | None) -> None:
    """Print new recovery codes; the old ones end."""
    with in_session(ctx, name, at) as client:
        codes = client.renew_recovery_codes(click.prompt("Next code of your device", err=True))["codes"]
    click.echo("\n".join(codes))


@second_factor.command("off")
@fresh_options
@click.pass_context
def second_factor_off(ctx: click.Context, name: str | None, at: str | None) -> None:
    """Take your second factor away."""
    with in_session(ctx, name, at) as client:
        client.remove_second_factor(click.prompt("Next code of your device, or a recovery code"))
    click.echo("A login needs the password only.")


@contextmanager
def in_session(ctx: click.Context, name: str | None, at: str | None = None) -> Iterator[Client]:
    """A session of its own, for what a kept token is too weak for; it ends with the block.

    Who has no password here shows who he is at the institution `at`.
    """
    kept = find_session((ctx.find_root().obj or {}).get("url"))
    if at is None:
        name = name or kept.login or click.prompt(f"Login name at {kept.url}", err=True)
    with Client(open_session_as(kept.url, name, at)) as client:
        try:
            yield client
        finally:
            with suppress(ApiError):  # it may have ended by what was done
                client.log_out()


def open_session_as(url: str, name: str | None, at: str | None) -> Session:
    """A session of this login name here, or at an institution, after what it takes was asked for."""
    with Client(Session(url, None)) as visitor:
        if at is None:
            name = name or ""
            password = click.prompt(f"Password of {name}", hide_input=True, err=True)
            opened = _open_session(visitor, name, password)
        elif (directory := _find_directory(visitor, at)) is not None:
            opened = _open_session(visitor, *_ask_for_password(directory, name), None, at)
        else:
            opened = _log_in_at(visitor, at, None)
    return Session(url, opened["secret"], name)


@click.command()
@click.argument("shell", required=False, type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str | None) -> None:
    """Print the line that turns on completion in your shell; add it to the shell's start-up file."""
    shell = shell or os.path.basename(os.environ.get("SHELL", "bash"))
    if shell == "fish":
        click.echo("_PERDURE_COMPLETE=fish_source perdure | source")
    elif shell in ("bash", "zsh"):
        click.echo(f'eval "$(_PERDURE_COMPLETE={shell}_source perdure)"')
    else:
        raise UsageError(f"There is no completion for {shell!r}.", next_step="Name bash, zsh or fish.")
