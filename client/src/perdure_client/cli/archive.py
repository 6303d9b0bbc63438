"""The life of archives on the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from perdure_client.cli.output import (
    job_line,
    job_watcher,
    json_option,
    make_client,
    print_facts,
    print_json,
    print_table,
    progress_stream,
    show_time,
)
from perdure_client.errors import UsageError
from perdure_client.progress import format_count, format_size
from perdure_client.records import Archive


@click.group()
def archive() -> None:
    """Open, list, show, close, append to, share and withdraw archives."""


def description_options(command: Any) -> Any:
    """The fields of a record as options."""
    for option in reversed(
        (
            click.option("--description"),
            click.option("--creator", "creators", multiple=True, help="'Name', or 'Name; ORCID; affiliation; ROR'."),
            click.option("--publisher"),
            click.option("--licence", help="SPDX identifier or URL, as CC-BY-4.0."),
            click.option("--subject", "subjects", multiple=True),
            click.option("--tag", "tags", multiple=True),
        )
    ):
        command = option(command)
    return command


def _description(given: Mapping[str, Any]) -> dict[str, object]:
    fields: dict[str, object] = {name: value for name, value in given.items() if value not in (None, ())}
    if "creators" in fields:
        fields["creators"] = [_parse_creator(text) for text in given["creators"]]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _parse_creator(text: str) -> dict[str, str]:
    parts = [part.strip() for part in text.split(";")]
    if not parts[0] or len(parts) > 4:
        raise UsageError(f"{text!r} is not a creator.", next_step="Write 'Name; ORCID; affiliation; ROR'.")
    names = ("name", "orcid", "affiliation", "affiliation_ror")
    return {name: part for name, part in zip(names, parts, strict=False) if part}


@archive.command("create")
@click.argument("title")
@click.option("--profile", "profile_name", help="The contract to keep it by; see `perdure profile list`.")
@click.option("--account", "account_id", help="The account that owns it; default: your own.")
@click.option("--access", type=click.Choice(["private", "public", "embargoed"]))
@click.option("--embargo-until", metavar="DATE")
@description_options
@json_option
@click.pass_context
def create(
    ctx: click.Context,
    /,
    title: str,
    profile_name: str | None,
    account_id: str | None,
    access: str | None,
    embargo_until: str | None,
    as_json: bool,
    **description: Any,
) -> None:
    """Open an archive; its identifier is printed."""
    fields = _description({**description, "access": access, "embargo_until": embargo_until})
    made = make_client(ctx).open_archive(title=title, profile=profile_name, account_id=account_id, **fields)
    _print_made(made, as_json)


@archive.command("append")
@click.argument("parent")
@click.option("--title", help="Default: the parent's.")
@description_options
@json_option
@click.pass_context
def append(ctx: click.Context, /, parent: str, title: str | None, as_json: bool, **description: Any) -> None:
    """Open an archive that appends to the closed archive PARENT; the parent stays as it is."""
    made = make_client(ctx).append(parent, **_description({"title": title, **description}))
    _print_made(made, as_json)


def _print_made(made: Archive, as_json: bool) -> None:
    if as_json:
        print_json(made.raw)
    else:
        click.echo(made.short_id)


@archive.command("list")
@click.option("--text", help="Only those with this text in title, paths or metadata.")
@click.option("--state", type=click.Choice(["open", "closing", "closed", "withdrawn"]))
@json_option
@click.pass_context
def list_(ctx: click.Context, text: str | None, state: str | None, as_json: bool) -> None:
    """List the archives that you may read."""
    found = make_client(ctx).list_archives(text=text, state=state)
    if as_json:
        print_json([one.raw for one in found])
        return
    rows = [(one.short_id, one.state, f"{one.file_count:,}", format_size(one.byte_count), one.title) for one in found]
    print_table(rows, ("archive", "state", "files", "size", "title"))


@archive.command()
@click.argument("archive_id")
@json_option
@click.pass_context
def show(ctx: click.Context, archive_id: str, as_json: bool) -> None:
    """Show the record of an archive and where its copies are."""
    client = make_client(ctx)
    one = client.archive(archive_id)
    copies = [] if one.state in ("withdrawn", "discarded") else client.copies(archive_id)
    if as_json:
        print_json({**one.raw, "copies": copies})
        return
    raw = one.raw
    print_facts(
        {
            "archive": one.short_id,
            "title": one.title,
            "state": one.state,
            "identifier": _identifier(raw),
            "creators": "; ".join(creator["name"] for creator in raw["creators"]),
            "publisher": raw["publisher"],
            "licence": raw["licence"],
            "profile": raw["profile"],
            "access": raw["access"],
            "content": f"{format_count(one.file_count, 'file')}, {format_size(one.byte_count)}",
            "opened": show_time(raw["opened_at"]),
            "closed": show_time(raw.get("closed_at")),
            "kept until": raw["keep_until"],
            "appends to": one.parent_id,
            "tombstone": _tombstone(raw.get("tombstone")),
            "page": raw.get("url"),
            "you may": ", ".join(raw.get("actions", [])),
        }
    )
    for line in _copy_lines(copies):
        click.echo(line)


def _identifier(raw: Mapping[str, Any]) -> str | None:
    if not raw.get("identifier"):
        return None
    return f"{raw['identifier']} (a local test identifier)" if raw.get("identifier_is_test") else str(raw["identifier"])


def _tombstone(said: Mapping[str, Any] | None) -> str | None:
    return f"withdrawn {show_time(said['withdrawn_at'])}: {'; '.join(said['reasons'])}" if said else None


def _copy_lines(copies: list[dict[str, Any]]) -> list[str]:
    by_store: dict[str, list[dict[str, Any]]] = {}
    for copy in copies:
        by_store.setdefault(copy["store"], []).append(copy)
    lines = []
    for store, here in by_store.items():
        good = [copy for copy in here if copy["state"] == "verified"]
        oldest = min((copy["verified_at"] for copy in good if copy["verified_at"]), default=None)
        last = f", last on {show_time(oldest)}" if oldest else ""
        lines.append(f"copy in {store}: {len(good)} of {format_count(len(here), 'object')} verified{last}")
    return lines


@archive.command()
@click.argument("archive_id")
@click.option("--title")
@description_options
@click.option("--if-revision", type=int, help="Only if the record is still at this revision.")
@json_option
@click.pass_context
def describe(
    ctx: click.Context,
    /,
    archive_id: str,
    title: str | None,
    if_revision: int | None,
    as_json: bool,
    **description: Any,
) -> None:
    """Change what the record says; only the fields that you name."""
    fields = _description({"title": title, **description})
    if not fields:
        raise UsageError("Nothing to change was named.", next_step="Name at least one field, as --title.")
    changed = make_client(ctx).describe(archive_id, revision=if_revision, **fields)
    if as_json:
        print_json(changed.raw)
    else:
        click.echo(f"Changed; the record is at revision {changed.revision}.")


@archive.command()
@click.argument("archive_id")
@click.option("--discard-uploads", is_flag=True, help="Give up uploads that were not finished.")
@click.option("--no-wait", is_flag=True, help="Print the job and return at once.")
@json_option
@click.pass_context
def close(ctx: click.Context, archive_id: str, discard_uploads: bool, no_wait: bool, as_json: bool) -> None:
    """Close an archive: freeze its content, write and verify its copies, reserve its identifier, sign."""
    client = make_client(ctx)
    watcher = job_watcher(progress_stream(quiet=as_json))
    job = client.close(archive_id, wait=not no_wait, discard_uploads=discard_uploads, on_progress=watcher)
    if as_json:
        print_json(job.raw)
        return
    if no_wait:
        click.echo(f"{job_line(job)}\nWatch it with: perdure job wait {job.id}")
        return
    one = client.archive(archive_id)
    content = f"{format_count(one.file_count, 'file')}, {format_size(one.byte_count)}"
    click.echo(f"Closed: {content}, {_identifier(one.raw) or one.short_id}")
    for line in _copy_lines(client.copies(archive_id)):
        click.echo(line)


@archive.command()
@click.argument("archive_id")
@click.option("--reason", required=True, help="Why; it stays on the tombstone.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def withdraw(ctx: click.Context, archive_id: str, reason: str, yes: bool, as_json: bool) -> None:
    """Withdraw a closed archive: its bytes leave every copy, a tombstone stays. Also approves another's request."""
    client = make_client(ctx)
    if not yes:
        _confirm_by_title(client.archive(archive_id), "withdrawn: its bytes leave every copy")
    answer = client.withdraw(archive_id, reason)
    if as_json:
        print_json(answer)
    elif answer.get("state") == "succeeded":
        click.echo("Withdrawn. A tombstone stays under its identifier.")
    else:
        click.echo(f"Asked for: {answer['approvals']} of {answer['needed']} persons have agreed.")


@archive.command()
@click.argument("archive_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def discard(ctx: click.Context, archive_id: str, yes: bool) -> None:
    """Discard an open archive with everything in it."""
    client = make_client(ctx)
    if not yes:
        _confirm_by_title(client.archive(archive_id), "discarded with everything in it")
    client.discard(archive_id)
    click.echo("Discarded.")


@archive.command()
@click.argument("archive_id")
@click.argument("keep_until", metavar="DATE")
@json_option
@click.pass_context
def extend(ctx: click.Context, archive_id: str, keep_until: str, as_json: bool) -> None:
    """Keep an archive until DATE, as 2040-12-31; its profile says how long at most."""
    _print_changed(make_client(ctx).extend_lifetime(archive_id, keep_until), "keep_until", as_json)


@archive.command("set-access")
@click.argument("archive_id")
@click.argument("access", type=click.Choice(["private", "public", "embargoed"]))
@click.option("--embargo-until", metavar="DATE", help="The day from which everybody may read.")
@json_option
@click.pass_context
def set_access(ctx: click.Context, archive_id: str, access: str, embargo_until: str | None, as_json: bool) -> None:
    """Say who may read an archive."""
    _print_changed(make_client(ctx).set_access(archive_id, access, embargo_until=embargo_until), "access", as_json)


@archive.command("set-profile")
@click.argument("archive_id")
@click.argument("profile_name", metavar="PROFILE")
@click.option("--if-revision", type=int, help="Only if the record is still at this revision.")
@json_option
@click.pass_context
def set_profile(ctx: click.Context, archive_id: str, profile_name: str, if_revision: int | None, as_json: bool) -> None:
    """Keep an archive by another contract, a closed one too."""
    _print_changed(make_client(ctx).change_profile(archive_id, profile_name, revision=if_revision), "profile", as_json)


def _print_changed(changed: Archive, what: str, as_json: bool) -> None:
    if as_json:
        print_json(changed.raw)
    else:
        click.echo(f"{what.replace('_', ' ')}: {changed.raw[what]}; the record is at revision {changed.revision}.")


def _confirm_by_title(one: Archive, what: str) -> None:
    click.echo(f"{one.title!r} ({format_count(one.file_count, 'file')}, {format_size(one.byte_count)}) will be {what}.")
    if click.prompt("Type its title to go on") != one.title:
        raise UsageError("That is not the title; nothing was changed.")


@archive.command()
@click.argument("archive_id")
@click.pass_context
def receipt(ctx: click.Context, archive_id: str) -> None:
    """Print the signed receipt that the source may be deleted."""
    click.echo(json.dumps(make_client(ctx).receipt(archive_id), ensure_ascii=False, indent=1))


@archive.command("transfer")
@click.argument("archive_id")
@click.argument("login")
@click.option("--keep-account", is_flag=True, help="Leave it in its account: only the owner's role moves.")
@click.option("--at-once", is_flag=True, help="Without asking; for those who manage its organisation.")
@click.option("--account", "account_id", help="With --at-once: the account to move it to; default: the new owner's.")
@json_option
@click.pass_context
def transfer(
    ctx: click.Context,
    archive_id: str,
    login: str,
    keep_account: bool,
    at_once: bool,
    account_id: str | None,
    as_json: bool,
) -> None:
    """Offer an archive to the person with this LOGIN, who becomes its owner by accepting; you cease to be."""
    client = make_client(ctx)
    if account_id is not None and not at_once:
        raise UsageError("The new owner chooses the account.", next_step="Leave --account out, or say --at-once.")
    if at_once:
        moved = client.transfer_archive(archive_id, login, keeps_account=keep_account, account_id=account_id)
        if as_json:
            print_json(moved.raw)
        else:
            click.echo(f"{login} owns {moved.short_id}.")
        return
    made = client.offer_archive(archive_id, login, keeps_account=keep_account)
    if as_json:
        print_json(made)
    else:
        click.echo(f"Offered to {login} until {show_time(made['expires_at'])} ({made['id']}).")


@archive.command("transfers")
@json_option
@click.pass_context
def transfers(ctx: click.Context, as_json: bool) -> None:
    """List the offers of archives that wait, to you and your own."""
    found = make_client(ctx).list_transfers()
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["id"],
            one["archive_short_id"],
            one["from_name"] or one["from_id"],
            one["to_name"] or one["to_id"],
            format_size(one["bytes"]),
            show_time(one["expires_at"]),
            one["title"],
        )
        for one in found
    ]
    print_table(rows, ("offer", "archive", "from", "to", "size", "until", "title"))


@archive.command("accept")
@click.argument("transfer_id")
@click.option("--account", "account_id", help="The account to move it to; default: your own.")
@json_option
@click.pass_context
def accept(ctx: click.Context, transfer_id: str, account_id: str | None, as_json: bool) -> None:
    """Take over an archive that was offered to you."""
    moved = make_client(ctx).accept_transfer(transfer_id, account_id=account_id)
    if as_json:
        print_json(moved.raw)
    else:
        click.echo(f"You own {moved.short_id}.")


@archive.command("decline")
@click.argument("transfer_id")
@click.pass_context
def decline(ctx: click.Context, transfer_id: str) -> None:
    """Decline an offer, or take your own back."""
    make_client(ctx).decline_transfer(transfer_id)
    click.echo("The offer is gone.")


@click.group()
def profile() -> None:
    """Profiles: the contracts that archives are kept by."""


@profile.command("list")
@json_option
@click.pass_context
def profile_list(ctx: click.Context, as_json: bool) -> None:
    """List the profiles that you may choose."""
    found = make_client(ctx).list_profiles()
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["name"],
            one["label"],
            f"{one['lifetime_default_days'] // 365} years",
            str(one["copies"]),
            format_size(one["archive_max_bytes"]) if one.get("archive_max_bytes") else "no limit",
        )
        for one in found
    ]
    print_table(rows, ("profile", "for", "kept", "copies", "archive at most"))


@profile.command("show")
@click.argument("name")
@click.pass_context
def profile_show(ctx: click.Context, name: str) -> None:
    """Print a profile as JSON: what `perdure profile define` takes."""
    click.echo(json.dumps(make_client(ctx).get_profile(name), ensure_ascii=False, indent=1))


@profile.command("define")
@click.argument("document", type=click.File("rb"), default="-")
@click.pass_context
def profile_define(ctx: click.Context, document: Any) -> None:
    """Make a profile of a JSON document, or change it for archives opened later. Needs a token with the verb admin.

    The document is a file, or standard input without one; `perdure profile show` prints one to begin with. Lifetimes
    are days, sizes are bytes, null is no limit.
    """
    try:
        given = json.loads(document.read())
    except ValueError as error:
        raise UsageError(f"This is not JSON: {error}.") from error
    if not isinstance(given, dict):
        raise UsageError("A profile is a JSON object.")
    click.echo(json.dumps(make_client(ctx).define_profile(given), ensure_ascii=False, indent=1))
