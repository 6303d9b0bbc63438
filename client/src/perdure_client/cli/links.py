"""Links on the command line: making, listing and revoking them."""

from __future__ import annotations

import sys
from datetime import datetime

import click

from perdure_client.cli.output import json_option, make_client, print_json, print_table, show_time
from perdure_client.cli.rights import end_of

_KINDS = ["read", "drop", "metadata", "review"]


@click.group()
def link() -> None:
    """Links: whoever has one gets at what it is for, without a login."""


@link.command("make")
@click.argument("archive_id")
@click.argument("path", default="")
@click.option(
    "--kind",
    type=click.Choice(_KINDS),
    default="read",
    show_default=True,
    help="drop: files can be put there and nothing is seen. metadata: no content. review: read, without names.",
)
@click.option("--name", help="What it is for; you see it in the list of links.")
@click.option("--until", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%z"]), help="The last day, or a moment.")
@click.option("--password-stdin", is_flag=True, help="Ask for a password, which is read from standard input here.")
@click.option("--limit", type=click.IntRange(min=1), help="How many downloads may begin.")
@click.option("--when-closed", is_flag=True, help="It opens once the archive is closed.")
@click.option("--pinned", is_flag=True, help="Show record and metadata as they are now, whatever is changed later.")
@json_option
@click.pass_context
def link_make(
    ctx: click.Context,
    archive_id: str,
    path: str,
    kind: str,
    name: str | None,
    until: datetime | None,
    password_stdin: bool,
    limit: int | None,
    when_closed: bool,
    pinned: bool,
    as_json: bool,
) -> None:
    """Make a link to an archive, or to the folder or file at PATH in it. Its address is shown this once."""
    made = make_client(ctx).make_link(
        archive_id,
        path,
        kind=kind,
        name=name or kind,
        expires_at=end_of(until),
        password=sys.stdin.readline().rstrip("\r\n") if password_stdin else None,
        download_limit=limit,
        only_when_closed=when_closed,
        pinned=pinned,
    )
    if as_json:
        print_json(made)
        return
    click.echo(made["url"])
    click.echo(f"Keep it: it is not shown again. To end it: perdure link revoke {archive_id} {made['id']}", err=True)


@link.command("list")
@click.argument("archive_id")
@json_option
@click.pass_context
def link_list(ctx: click.Context, archive_id: str, as_json: bool) -> None:
    """List the links of an archive, ended ones too, and what they were used for."""
    found = make_client(ctx).list_links(archive_id)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["id"],
            one["name"],
            one["kind"],
            one["path"] or "everything",
            "revoked" if one["revoked_at"] else show_time(one["expires_at"]) or "no end",
            "yes" if one["has_password"] else "",
            f"{one['downloads']}" + (f" of {one['download_limit']}" if one["download_limit"] else ""),
            show_time(one["last_used_at"]),
        )
        for one in found
    ]
    print_table(rows, ("link", "name", "kind", "for", "until", "password", "downloads", "last use"))


@link.command("revoke")
@click.argument("archive_id")
@click.argument("link_id")
@click.pass_context
def link_revoke(ctx: click.Context, archive_id: str, link_id: str) -> None:
    """End a link for ever."""
    make_client(ctx).revoke_link(archive_id, link_id)
    click.echo("Revoked.")
