"""What commands share: the client, options, tables, JSON and errors in words."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TextIO

import click

from perdure_client.client import Client
from perdure_client.errors import EXIT_INTERNAL, EXIT_PARTLY, ClientError, UsageError
from perdure_client.paths import display, printable
from perdure_client.progress import format_count, format_duration, format_size
from perdure_client.records import Job
from perdure_client.settings import require_session

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
_MOST_REFUSED_SHOWN = 20


def make_client(ctx: click.Context) -> Client:
    """The client of this call; closed when the command ends."""
    root = ctx.find_root()
    client = Client(require_session((root.obj or {}).get("url")))
    root.call_on_close(client.close_connections)
    return client


def print_json(value: object) -> None:
    """One JSON value on standard output."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=None, separators=(", ", ": ")))


def print_table(rows: Iterable[Sequence[str]], headings: Sequence[str]) -> None:
    """Columns as wide as their content."""
    table = [list(headings), *(list(map(printable, row)) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(headings))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_facts(facts: Mapping[str, str | None]) -> None:
    """Names and values below each other; empty ones are left out."""
    shown = {name: value for name, value in facts.items() if value}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        click.echo(f"{name.ljust(width)}  {printable(value)}")


def progress_stream(*, quiet: bool) -> TextIO | None:
    """Where progress goes: standard error, so that standard output stays for results."""
    return None if quiet else sys.stderr


def show_time(text: str | None) -> str:
    """An RFC 3339 time in the reader's zone, the zone said."""
    if not text:
        return ""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def show_paths(title: str, paths: Iterable[bytes]) -> None:
    for path in paths:
        click.echo(f"{title}: {display(path)}", err=True)


def show_refused(refused: Sequence[tuple[bytes, str]]) -> None:
    """What was refused and why, the first of many."""
    for path, reason in refused[:_MOST_REFUSED_SHOWN]:
        click.echo(f"refused: {display(path)}: {printable(reason)}", err=True)
    if len(refused) > _MOST_REFUSED_SHOWN:
        click.echo(f"… and {len(refused) - _MOST_REFUSED_SHOWN:,} more; use --json for all.", err=True)


def refused_json(refused: Sequence[tuple[bytes, str]]) -> list[dict[str, str]]:
    return [{"path": display(path), "reason": reason} for path, reason in refused]


def exit_partly(refused: Sequence[object]) -> None:
    """End with the exit code for "done for some" when something was refused."""
    if refused:
        raise click.exceptions.Exit(EXIT_PARTLY)


def transfer_line(verb: str, files: int, size: int, seconds: float) -> str:
    rate = f", {format_size(size / seconds)}/s" if seconds > 0.001 and size else ""
    return f"{verb} {format_count(files, 'file')}, {format_size(size)} in {format_duration(seconds)}{rate}."


def job_watcher(stream: TextIO | None) -> Callable[[Job], None]:
    """Shows what a job says of its progress, each different line once."""
    state = {"line": ""}

    def watch(job: Job) -> None:
        line = job_line(job)
        if stream is None or line == state["line"]:
            return
        state["line"] = line
        if stream.isatty():
            stream.write("\r\x1b[K" + line + ("\n" if job.is_over else ""))
        else:
            stream.write(line + "\n")
        stream.flush()

    return watch


def job_line(job: Job) -> str:
    """A job in one line: kind, state, message and how far it is."""
    progress: Mapping[str, Any] = job.progress
    parts = [f"{job.kind}: {job.state}"]
    if progress.get("message"):
        parts.append(str(progress["message"]))
    done, total = progress.get("done"), progress.get("total")
    if total:
        is_size = progress.get("unit") == "bytes"
        parts.append(f"{format_size(done or 0)} of {format_size(total)}" if is_size else f"{done or 0:,} of {total:,}")
    return printable(", ".join(parts))


def show_error(error: Exception) -> int:
    """Print what happened and what to do; returns the exit code. With `--json` the error is JSON on standard error."""
    if isinstance(error, UnicodeEncodeError):
        error = UsageError("A text is not UTF-8.", next_step="Only paths may be other bytes; write the text anew.")
    if not isinstance(error, ClientError):
        click.echo(f"Something went wrong in this program: {type(error).__name__}: {error}", err=True)
        return EXIT_INTERNAL
    if "--json" in sys.argv:
        click.echo(json.dumps(error.as_json(), ensure_ascii=False), err=True)
        return error.exit_code
    click.echo(printable(error.detail), err=True)
    if error.next_step:
        click.echo(printable(error.next_step), err=True)
    click.echo(f"[{error.code}]", err=True)
    return error.exit_code
