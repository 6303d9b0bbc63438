"""The audit trail on the command line."""

from __future__ import annotations

import json
import time
from datetime import datetime
from itertools import islice
from typing import Any

import click

from perdure_client.cli.output import json_option, make_client, print_json, show_time
from perdure_client.paths import printable

_FOLLOW_EVERY = 2.0  # seconds
_MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"])


@click.command()
@click.option("--type", "kind", help="Such as session.opened, or `session.` for all of these.")
@click.option("--actor", help="Login name of who did it.")
@click.option("--archive", "archive_id", help="The archive that it was done to.")
@click.option("--about", help="Identifier of an identity, account, group, organisation or token.")
@click.option("--since", type=_MOMENT, help="A day or a moment, in your zone unless one is given.")
@click.option("--until", type=_MOMENT, help="The moment that does not count any more.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="The newest so many.")
@click.option("--follow", is_flag=True, help="Then wait for new ones until stopped.")
@json_option
@click.pass_context
def audit(
    ctx: click.Context,
    kind: str | None,
    actor: str | None,
    archive_id: str | None,
    about: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    follow: bool,
    as_json: bool,
) -> None:
    """Say who did what, oldest first; `--json` prints one event a line. Needs a token with the verb admin or manage."""
    client = make_client(ctx)
    asked: dict[str, Any] = {"type": kind, "actor": actor, "archive_id": archive_id, "about": about}
    asked |= {"since": since and since.astimezone().isoformat(), "until": until and until.astimezone().isoformat()}
    last = 0
    for event in reversed(list(islice(client.search_audit_trail(**asked), limit))):
        last = _show(event, as_json=as_json)
    while follow:
        for event in client.search_audit_trail(**asked, newest_first=False, after=last):
            last = _show(event, as_json=as_json)
        time.sleep(_FOLLOW_EVERY)


def _show(event: dict[str, Any], *, as_json: bool) -> int:
    """Print an event; its number."""
    if as_json:
        print_json(event)
    else:
        who = event["actor_name"] or event["actor_id"] or event["actor_kind"]
        if event["actor_kind"] == "service" and "responsible" in event["data"]:
            who = f"{who} (responsible: {event['responsible_name'] or event['data']['responsible']})"
        what = f"{event['type']}  {event['subject'] or ''}".rstrip()
        data = json.dumps(event["data"], ensure_ascii=False)
        click.echo(printable(f"{event['number']}  {show_time(event['recorded_at'])}  {who}  {what}  {data}"))
    return int(event["number"])
