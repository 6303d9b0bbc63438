"""Verification on the command line, with and without a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perdure_client.cli.output import job_watcher, json_option, make_client, print_json, progress_stream, show_paths
from perdure_client.errors import EXIT_DAMAGED, UsageError
from perdure_client.paths import display
from perdure_client.progress import Progress, format_count, format_size

if TYPE_CHECKING:
    from perdure_client.proof import Expected, FolderReport

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("target")
@click.option(
    "--manifest", type=_file, help="manifest-sha512.txt or manifest.ndjson: verify the folder TARGET with it."
)
@click.option("--statement", type=_file, help="The closing statement that the manifest belongs to.")
@click.option("--key", type=_file, help="The public key (PEM) that the statement was signed with.")
@click.option(
    "--proof",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder that `perdure get --proof` wrote.",
)
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    target: str,
    manifest: Path | None,
    statement: Path | None,
    key: Path | None,
    proof: Path | None,
    as_json: bool,
) -> None:
    """Verify a folder against a manifest, without any server; or, given an archive, every copy on the server.

    The statement and the key prove that the manifest is the one that was signed when the archive was closed.
    """
    if proof:
        _verify_proof(Path(target), proof, as_json)
        return
    if manifest is None:
        if statement or key:
            raise UsageError("A statement is verified with its manifest.", next_step="Give --manifest too.")
        _verify_on_server(ctx, target, as_json)
        return
    from perdure_client.proof import read_manifest

    signed = [_verify_statement(manifest, statement, key)] if statement else []
    _verify_folder(Path(target), read_manifest(manifest), signed, as_json)


def _verify_proof(folder: Path, proof: Path, as_json: bool) -> None:
    """Every layer's manifest against its statement, then the folder against the union of the layers."""
    from perdure_client.proof import order_layers, overlay_layers, read_document, read_manifest

    places = {str(document.get("archive")): path for path in proof.glob("*.json") for document in [read_document(path)]}
    layers = order_layers([read_document(path) for path in places.values()])
    signed, manifests = [], []
    for document in layers:
        place = places[str(document["archive"])]
        key = place.with_name(f"{document.get('key_id')}.pem")
        signed.append(_verify_statement(place.with_suffix(".ndjson"), place, key))
        manifests.append(read_manifest(place.with_suffix(".ndjson")))
    _verify_folder(folder, overlay_layers(manifests), signed, as_json)


def _verify_statement(manifest: Path, statement: Path, key: Path | None) -> dict[str, object]:
    from perdure_client.proof import read_document, read_public_key, require_manifest_of_statement, require_signature

    document = read_document(statement)
    if key is None:
        raise UsageError("The statement's signature needs the public key.", next_step="Give --key with its PEM file.")
    if manifest.suffix == ".txt":
        raise UsageError(
            "A checksum list does not carry what was signed.",
            next_step="Give the NDJSON manifest of layers=own, or --proof.",
        )
    require_signature(document, read_public_key(key))
    require_manifest_of_statement(manifest, document)
    return document


def _verify_folder(folder: Path, expected: list[Expected], signed: list[dict[str, object]], as_json: bool) -> None:
    from perdure_client.proof import verify_folder

    total = sum(entry.size or 0 for entry in expected)
    files = sum(entry.kind == "file" for entry in expected)
    progress = Progress("Verified", files=files, size=total, stream=progress_stream(quiet=as_json or not files))
    report = verify_folder(folder, expected, progress=progress)
    if as_json:
        print_json(
            {
                "good": report.is_good,
                "files": report.files,
                "bytes": report.size,
                "changed": [display(path) for path in report.changed],
                "missing": [display(path) for path in report.missing],
                "extra": [display(path) for path in report.extra],
                "unreadable": [{"path": display(path), "reason": reason} for path, reason in report.unreadable],
                "statements": [{"archive": one.get("archive"), "closed_at": one.get("closed_at")} for one in signed],
            }
        )
    else:
        progress.finish()
        _show_report(report, signed)
    if not report.is_good:
        raise click.exceptions.Exit(EXIT_DAMAGED)


def _show_report(report: FolderReport, signed: list[dict[str, object]]) -> None:
    for one in signed:
        click.echo(
            f"The manifest is the one signed for {one.get('short_id')} when it was closed at {one.get('closed_at')}."
        )
    show_paths("changed", report.changed)
    show_paths("missing", report.missing)
    show_paths("extra", report.extra)
    for path, reason in report.unreadable:
        click.echo(f"{reason}: {display(path)}", err=True)
    if report.is_good:
        content = f"{format_count(report.files, 'file')} ({format_size(report.size)})"
        click.echo(f"All {content} are as the manifest says; none is missing, none extra.")
    else:
        click.echo(
            f"{len(report.changed)} changed, {len(report.missing)} missing, {len(report.extra)} extra, "
            f"{len(report.unreadable)} unreadable of {format_count(report.files, 'file')}."
        )


def _verify_on_server(ctx: click.Context, archive_id: str, as_json: bool) -> None:
    if Path(archive_id).is_dir():
        raise UsageError(
            f"{archive_id} is a folder here.", next_step="Give --manifest to verify it, or name an archive."
        )
    job = make_client(ctx).verify(archive_id, on_progress=job_watcher(progress_stream(quiet=as_json)))
    if as_json:
        print_json(job.raw)
    else:
        _show_copies(job.result)
    if not job.result.get("good"):
        raise click.exceptions.Exit(EXIT_DAMAGED)


def _show_copies(result: Mapping[str, Any]) -> None:
    copies = result.get("copies", [])
    for copy in copies:
        what = "the record" if copy["part"] is None else f"part {copy['part']}"
        if copy.get("unreachable"):
            click.echo(f"{what} in {copy['store']}: {copy['unreachable']}", err=True)
        for finding in copy.get("findings", []):
            found = (finding["kind"], finding.get("content"), finding.get("detail"))
            click.echo(f"{what} in {copy['store']}: {', '.join(str(word) for word in found if word)}", err=True)
    good = sum(copy["good"] for copy in copies)
    read = f"{format_count(result.get('files', 0), 'file')} ({format_size(result.get('bytes', 0))})"
    click.echo(f"Read {read} back from the media; {good} of {len(copies)} copies of objects are good.")
