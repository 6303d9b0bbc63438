"""Events and jobs on the command line."""

from __future__ import annotations

import json

import click

from perdure_client.cli.output import (
    job_line,
    job_watcher,
    json_option,
    make_client,
    print_json,
    progress_stream,
    show_time,
)
from perdure_client.paths import printable


@click.command()
@click.option("--archive", "archive_id", help="Only those of this archive.")
@click.option("--after", default=0, show_default=True, help="Only those with a greater number.")
@click.option("--follow", is_flag=True, help="Wait for new ones until stopped.")
@json_option
@click.pass_context
def events(ctx: click.Context, archive_id: str | None, after: int, follow: bool, as_json: bool) -> None:
    """Read the event log in its order; `--json` prints one event a line."""
    for event in make_client(ctx).events(after=after, archive_id=archive_id, follow=follow):
        if as_json:
            print_json(event)
        else:
            data = json.dumps(event["data"], ensure_ascii=False)
            who = event.get("actor_name") or event["actor_id"] or event["actor_kind"]
            moment = show_time(event["recorded_at"])
            click.echo(printable(f"{event['number']}  {moment}  {event['type']}  {who}  {data}"))


@click.group()
def job() -> None:
    """Jobs: work that goes on while you do something else."""


@job.command()
@click.argument("job_id")
@json_option
@click.pass_context
def show(ctx: click.Context, job_id: str, as_json: bool) -> None:
    """Show how far a job is."""
    found = make_client(ctx).job(job_id)
    if as_json:
        print_json(found.raw)
    else:
        click.echo(job_line(found))
        if found.error:
            click.echo(printable(f"{found.error.get('detail')} {found.error.get('next_step') or ''}"))


@job.command()
@click.argument("job_id")
@json_option
@click.pass_context
def wait(ctx: click.Context, job_id: str, as_json: bool) -> None:
    """Wait until a job is over."""
    found = make_client(ctx).wait_job(job_id, on_progress=job_watcher(progress_stream(quiet=as_json)))
    if as_json:
        print_json(found.raw)
