"""Metadata on the command line."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from perdure_client.cli.output import json_option, make_client, print_json, show_time
from perdure_client.errors import UsageError
from perdure_client.progress import format_count

file_option = click.option("--file", "path", metavar="PATH", help="The metadata of this file of the archive.")
if_match_option = click.option("--if-match", "etag", help="Only if the metadata is still at this revision, as m12.")


@click.group()
def meta() -> None:
    """Read and change metadata, and see its history."""


@meta.command("get")
@click.argument("archive_id")
@click.argument("pointer", required=False)
@file_option
@click.option("--as-of", metavar="TIME", help="As it was at this time, as 2026-11-20T12:00:00+01:00.")
@click.option("--json", "as_json", is_flag=True, help="One line, with revision and digest.")
@click.pass_context
def get(
    ctx: click.Context, archive_id: str, pointer: str | None, path: str | None, as_of: str | None, as_json: bool
) -> None:
    """Print metadata as JSON, whole or below a POINTER such as /beam/energy."""
    found = make_client(ctx).read_metadata(archive_id, path=_bytes(path), pointer=pointer, as_of=as_of)
    if as_json:
        print_json({"value": found.value, "etag": found.etag, "digest": found.digest})
    else:
        click.echo(json.dumps(found.value, ensure_ascii=False, indent=2))


@meta.command("set")
@click.argument("archive_id")
@click.argument("pairs", nargs=-1, required=True, metavar="KEY=VALUE…")
@file_option
@if_match_option
@json_option
@click.pass_context
def set_(
    ctx: click.Context, archive_id: str, pairs: tuple[str, ...], path: str | None, etag: str | None, as_json: bool
) -> None:
    """Set keys: `beam.energy='12.4 keV'` nests at the dots.

    A value that is JSON is taken as JSON (12.4, true, ["a"], {"value": 12.4, "unit": "keV"}), anything else as text;
    `12.4 keV` after `:=` is a number with a unit. An empty value deletes the key.
    """
    patch: dict[str, Any] = {}
    for pair in pairs:
        _put(patch, *_parse_pair(pair))
    _send(ctx, archive_id, patch, path, etag, as_json)


def _parse_pair(pair: str) -> tuple[list[str], object]:
    name, separator, text = pair.partition("=")
    if not separator or not name.rstrip(":"):
        raise UsageError(f"{pair!r} is not KEY=VALUE.", next_step="Write for example sample.name='Cu foil'.")
    has_unit = name.endswith(":")
    keys = name.rstrip(":").split(".")
    if text == "":
        return keys, None
    if has_unit:
        number, _, unit = text.strip().partition(" ")
        try:
            return keys, {"value": json.loads(number), "unit": unit.strip()}
        except ValueError as error:
            raise UsageError(
                f"{text!r} is not a number with a unit.", next_step="Write for example energy:='12.4 keV'."
            ) from error
    try:
        return keys, json.loads(text)
    except ValueError:
        return keys, text


def _put(patch: dict[str, Any], keys: list[str], value: object) -> None:
    place = patch
    for key in keys[:-1]:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise UsageError(f"{'.'.join(keys)} is set below a value.")
    place[keys[-1]] = value


@meta.command()
@click.argument("archive_id")
@click.argument("document", type=click.File("rb"), default="-")
@file_option
@if_match_option
@json_option
@click.pass_context
def patch(
    ctx: click.Context, archive_id: str, document: Any, path: str | None, etag: str | None, as_json: bool
) -> None:
    """Apply a patch from a file or standard input: an object is a merge patch, an array a JSON Patch."""
    try:
        loaded = json.loads(document.read())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The patch is not JSON, or nested too deeply: {error}.") from error
    if not isinstance(loaded, dict | list):
        raise UsageError("A patch is an object (merge patch) or an array (JSON Patch).")
    _send(ctx, archive_id, loaded, path, etag, as_json)


def _send(
    ctx: click.Context,
    archive_id: str,
    loaded: dict[str, Any] | list[Any],
    path: str | None,
    etag: str | None,
    as_json: bool,
) -> None:
    quoted = f'"{etag.strip(chr(34))}"' if etag else None
    answer = make_client(ctx).patch_metadata(archive_id, loaded, path=_bytes(path), etag=quoted)
    if as_json:
        print_json(answer)
    else:
        changed = format_count(answer["changed"], "value")
        click.echo(f"{changed} changed; the metadata is at revision {answer['revision']}.")


@meta.command()
@click.argument("archive_id")
@file_option
@json_option
@click.pass_context
def history(ctx: click.Context, archive_id: str, path: str | None, as_json: bool) -> None:
    """Who changed what and when, the oldest first."""
    for change in make_client(ctx).metadata_history(archive_id, path=_bytes(path)):
        if as_json:
            print_json(change)
            continue
        where = f" {change['path']}" if change.get("path") else ""
        click.echo(f"{show_time(change['at'])}  {change['actor_name']}{where}")
        for one in change["changes"]:
            click.echo(f"  {one['pointer'] or '/'}: {_shown(one, 'before')} → {_shown(one, 'after')}")


def _shown(change: dict[str, Any], side: str) -> str:
    return json.dumps(change[side], ensure_ascii=False) if change[side] is not None else "nothing"


def _bytes(path: str | None) -> bytes | None:
    return os.fsencode(path) if path is not None else None
