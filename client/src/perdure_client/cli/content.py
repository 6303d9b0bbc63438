"""Content on the command line: put, ingest, ls, get, rm."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import click

from perdure_client.cli.output import (
    exit_partly,
    job_watcher,
    json_option,
    make_client,
    print_json,
    print_table,
    progress_stream,
    refused_json,
    show_refused,
    transfer_line,
)
from perdure_client.errors import EXIT_PARTLY
from perdure_client.paths import display
from perdure_client.progress import format_count, format_duration, format_size
from perdure_client.records import Entry

_LINK_MARKS = {"symlink": "->", "folder": "/", "directory": "/"}


@click.command()
@click.argument("archive_id")
@click.argument("sources", nargs=-1, required=True, type=click.Path(exists=True))
@click.option("--into", default="", metavar="FOLDER", help="Below this folder of the archive.")
@click.option("--checksum", is_flag=True, help="Compare by digest, not by size and time, what is there already.")
@json_option
@click.pass_context
def put(
    ctx: click.Context, archive_id: str, sources: tuple[str, ...], into: str, checksum: bool, as_json: bool
) -> None:
    """Send the content of folders, and files, to an open archive.

    Run again after anything, it sends only what is missing or different. What cannot be stored is listed with its
    reason, and the exit code is then 8.
    """
    report = make_client(ctx).put(
        archive_id, *sources, into=os.fsencode(into), checksum=checksum, show=progress_stream(quiet=as_json)
    )
    if as_json:
        print_json(
            {
                "seen": report.seen,
                "stored": report.stored,
                "present": report.present,
                "bytes_sent": report.bytes_sent,
                "seconds": round(report.seconds, 3),
                "refused": refused_json(report.refused),
            }
        )
    else:
        click.echo(transfer_line("Stored", report.stored, report.bytes_sent, report.seconds))
        if report.present:
            click.echo(
                f"{format_count(report.present, 'file')} {'was' if report.present == 1 else 'were'} there already."
            )
        show_refused(report.refused)
    exit_partly(report.refused)


@click.command()
@click.argument("archive_id")
@click.argument("folder")
@click.option("--into", default="", metavar="FOLDER", help="Below this folder of the archive.")
@click.option("--no-wait", is_flag=True, help="Print the job and return at once.")
@json_option
@click.pass_context
def ingest(ctx: click.Context, archive_id: str, folder: str, into: str, no_wait: bool, as_json: bool) -> None:
    """Let the server read FOLDER, a path on the server that the operator allows."""
    watcher = job_watcher(progress_stream(quiet=as_json))
    job = make_client(ctx).ingest(archive_id, folder, into=into, wait=not no_wait, on_progress=watcher)
    if as_json:
        print_json(job.raw)
    elif no_wait:
        click.echo(f"Watch it with: perdure job wait {job.id}")
    else:
        counts = ", ".join(f"{job.result.get(name, 0):,} {name}" for name in ("stored", "present", "refused"))
        click.echo(f"Ingested: {counts}; {format_size(job.result.get('bytes', 0))}.")
        show_refused([(os.fsencode(one["path"]), one["reason"]) for one in job.result.get("refusals", [])])
    if job.result.get("refused"):
        raise click.exceptions.Exit(EXIT_PARTLY)


@click.command()
@click.argument("archive_id")
@click.argument("folder", default="")
@click.option("-R", "--recursive", is_flag=True, help="Everything below.")
@click.option("-l", "--long", "is_long", is_flag=True, help="With size, time, layer and digest.")
@click.option("--own", is_flag=True, help="Only this archive's own entries, not inherited ones.")
@json_option
@click.pass_context
def ls(
    ctx: click.Context, archive_id: str, folder: str, recursive: bool, is_long: bool, own: bool, as_json: bool
) -> None:
    """List a folder of an archive."""
    layers = "own" if own else "union"
    entries = make_client(ctx).entries(archive_id, os.fsencode(folder).strip(b"/"), recursive=recursive, layers=layers)
    if as_json:
        for entry in entries:  # one object a line: an archive may have a million
            print_json(entry.raw)
    elif is_long:
        print_table((_long_row(entry) for entry in entries), ("mode", "size", "modified", "digest", "path"))
    else:
        for entry in entries:
            click.echo(_name(entry))


def _name(entry: Entry) -> str:
    mark = _LINK_MARKS.get(entry.kind, "")
    if entry.kind == "symlink" and entry.target is not None:
        return f"{display(entry.path)} -> {display(entry.target)}"
    return display(entry.path) + mark


def _long_row(entry: Entry) -> tuple[str, str, str, str, str]:
    kind = {"file": stat.S_IFREG, "symlink": stat.S_IFLNK}.get(entry.kind, stat.S_IFDIR)
    modified = (
        datetime.fromtimestamp(entry.mtime_ns / 1e9, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
        if entry.mtime_ns
        else ""
    )
    digest = entry.digests.get("sha512") or entry.digests.get("sha256") or ""
    mode = stat.filemode(kind | entry.mode) if entry.mode is not None else ""
    return mode, format_size(entry.size) if entry.kind == "file" else "", modified, digest[:12], _name(entry)


@click.command()
@click.argument("archive_id")
@click.argument("paths", nargs=-1)
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write to; default: the archive's identifier.",
)
@click.option("--proof", is_flag=True, help="Also write manifest, statement and keys beside it, for `perdure verify`.")
@json_option
@click.pass_context
def get(
    ctx: click.Context, archive_id: str, paths: tuple[str, ...], to: Path | None, proof: bool, as_json: bool
) -> None:
    """Fetch an archive, or the named folders and files, into a folder.

    Each file is compared with its digest before it gets its name. Run again, only what is missing is fetched.
    """
    client = make_client(ctx)
    folder = to or Path(client.archive(archive_id).short_id)
    report = client.get(archive_id, folder, [os.fsencode(path) for path in paths], show=progress_stream(quiet=as_json))
    proof_folder = client.get_proof(archive_id, Path(f"{folder}.proof")) if proof else None
    if as_json:
        print_json(
            {
                "folder": str(folder),
                "fetched": report.files,
                "kept": report.kept,
                "bytes_received": report.bytes_received,
                "seconds": round(report.seconds, 3),
                "refused": refused_json(report.refused),
                "proof": str(proof_folder) if proof_folder else None,
            }
        )
    else:
        click.echo(transfer_line("Fetched", report.files, report.bytes_received, report.seconds))
        if report.kept:
            click.echo(f"{format_count(report.kept, 'file')} already here with the right digest.")
        click.echo(f"Every file matches its digest. They are in {folder} (took {format_duration(report.seconds)}).")
        if proof_folder:
            click.echo(f"Verify at any time, without the server: perdure verify {folder} --proof {proof_folder}")
        show_refused(report.refused)
    exit_partly(report.refused)


@click.command()
@click.argument("archive_id")
@click.argument("paths", nargs=-1, required=True)
@json_option
@click.pass_context
def rm(ctx: click.Context, archive_id: str, paths: tuple[str, ...], as_json: bool) -> None:
    """Remove files and folders from an open archive; inherited ones are hidden, the parent keeps them."""
    answer = make_client(ctx).remove(archive_id, [os.fsencode(path) for path in paths])
    if as_json:
        print_json(answer)
    else:
        click.echo(f"Removed {answer.get('removed', 0):,}, hidden {answer.get('hidden', 0):,}.")
