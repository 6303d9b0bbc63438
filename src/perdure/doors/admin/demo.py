"""The demonstration: a generated experiment becomes a closed, verified archive and comes back, by the public client.

All data is made here and marked as a demonstration; nothing of it is a measurement.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from perdure_client import Client
from perdure_client.errors import LocalDamageError
from perdure_client.progress import format_count, format_duration, format_size
from perdure_client.proof import (
    order_layers,
    overlay_layers,
    read_document,
    read_manifest,
    read_public_key,
    require_manifest_of_statement,
    require_signature,
    verify_folder,
)
from perdure_client.records import Archive

TITLE = "Demonstration: powder diffraction of a copper foil (generated)"
TAG = "demonstration"
_SCANS = 12
_FRAMES, _HEIGHT, _WIDTH = 8, 256, 256
Say = Callable[[str], None]


def run_demo(client: Client, folder: Path, say: Say) -> Archive:
    """Archive the experiment, or find it archived by an earlier run, then verify it and fetch it back.

    Raises LocalDamageError when what comes back differs from what was sent. Safe to run again.
    """
    started = time.monotonic()
    source = folder / "experiment"
    say(f"1. A small experiment (generated NeXus/HDF5, no measurement) is in {source}.")
    make_experiment(source)
    one = _find_closed(client) or _archive(client, source, say)
    _show(client, one, say)
    _prove(client, one, source, folder / "fetched", say)
    say(f"All of it took {format_duration(time.monotonic() - started)}.")
    return one


def make_experiment(folder: Path) -> None:
    """Write the experiment unless it is there: the same bytes every time, so that a second run sends nothing new."""
    if (folder / "README.txt").exists():
        return
    (folder / "calibration").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(20261120)
    for number in range(1, _SCANS + 1):
        place = folder / f"scan_{number:04d}" / f"scan_{number:04d}.nxs"
        place.parent.mkdir(exist_ok=True)
        _write_scan(place, number, random)
        (place.parent / "log.txt").write_text(f"scan {number}: 12.4 keV, {280 + 5 * number} K\n", encoding="utf-8")
    (folder / "calibration" / "wavelength.csv").write_text("energy_keV,wavelength_A\n12.4,0.99987\n", encoding="utf-8")
    (folder / "dark current").mkdir(exist_ok=True)  # an empty folder is kept too
    (folder / "latest").symlink_to(f"scan_{_SCANS:04d}")
    (folder / "README.txt").write_text("Generated data of a demonstration. No measurement.\n", encoding="utf-8")


def _write_scan(place: Path, number: int, random: np.random.Generator) -> None:
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    radius = np.hypot(y - _HEIGHT / 2, x - _WIDTH / 2)
    rings = sum(np.exp(-(((radius - ring * (1 + number / 2000)) / 2.0) ** 2)) for ring in (38, 44, 62, 73, 96))
    with h5py.File(place, "w", track_order=True) as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["title"] = f"generated powder rings, scan {number}"
        entry["start_time"] = f"2026-11-20T{8 + number // 60:02d}:{number % 60:02d}:00+01:00"
        data = entry.create_group("data")
        data.attrs["NX_class"], data.attrs["signal"] = "NXdata", "counts"
        counts = random.poisson(40 * rings + 2, size=(_FRAMES, _HEIGHT, _WIDTH)).astype(np.uint16)
        data.create_dataset("counts", data=counts, chunks=(1, _HEIGHT, _WIDTH), compression="gzip", track_times=False)
        energy = entry.create_group("instrument/monochromator").create_dataset("energy", data=12.4, track_times=False)
        energy.attrs["units"] = "keV"


def _find_closed(client: Client) -> Archive | None:
    found = client.list_archives(text=TITLE, state="closed")
    return next((one for one in found if TAG in one.raw["tags"]), None)


def _archive(client: Client, source: Path, say: Say) -> Archive:
    one = _find_open(client) or client.open_archive(
        title=TITLE,
        profile="personal",
        description="Generated data that shows what an archive is. No measurement, no real persons.",
        creators=[{"name": "Demonstration, generated"}],
        publisher="Demonstration",
        licence="CC0-1.0",
        tags=[TAG],
        access="public",
    )
    say(f"2. The archive {one.short_id} is open; the folder is sent.")
    report = client.put(one.id, source)
    sent = f"{format_count(report.stored, 'entry').replace('entrys', 'entries')} stored, {report.present} there already"
    rate = f", {format_size(report.bytes_sent / report.seconds)}/s" if report.bytes_sent else ""
    say(f"   {sent}, {format_size(report.bytes_sent)}{rate}; every one has the sha512 it has here.")
    for path, reason in report.refused:
        say(f"   refused: {path!r}: {reason}")
    patch = {
        "sample": {"name": "Cu foil", "thickness": {"value": 25, "unit": "um"}},
        "energy": {"value": 12.4, "unit": "keV"},
    }
    client.patch_metadata(one.id, patch)
    say("   Metadata with units is added: sample, thickness, energy.")
    say("3. The archive is closed: parts are sealed, copied, and read back from the medium; then it is signed.")
    client.close(one.id)
    return client.archive(one.id)


def _find_open(client: Client) -> Archive | None:
    found = client.list_archives(text=TITLE, state="open")
    return next((one for one in found if TAG in one.raw["tags"]), None)


def _show(client: Client, one: Archive, say: Say) -> None:
    say(f"   {one.short_id} is closed: {format_count(one.file_count, 'file')}, {format_size(one.byte_count)}.")
    mark = " (a local test identifier)" if one.raw.get("identifier_is_test") else ""
    say(f"   Identifier: {one.identifier}{mark}, its page: {one.raw['url']}")
    statement = client.statement(one.id)
    merkle = statement["merkle"]
    say(f"   Merkle root over {merkle['size']} manifest lines: {merkle['root'][:32]}…")
    say(f"   The closing statement is signed with the key {statement['key_id']}.")
    for copy in client.copies(one.id):
        if copy["state"] == "verified":
            what = "Head" if copy["part"] is None else f"Part {copy['part']}"
            say(f"   {what} in the store {copy['store']}: read back and verified at {copy['verified_at']}.")
    receipt = client.receipt(one.id, wait_seconds=60)
    say(f"   Receipt: {receipt['required_copies']} verified copies exist, the source may be deleted.")


def _prove(client: Client, one: Archive, source: Path, fetched: Path, say: Say) -> None:
    say(f"4. It is fetched back to {fetched} and verified there without the server.")
    report = client.get(one.id, fetched)
    proof = client.get_proof(one.id, fetched.with_suffix(".proof"))
    layers = order_layers([read_document(path) for path in proof.glob("*.json")])
    manifests = []
    for statement in layers:
        manifest = proof / f"{statement['short_id']}.ndjson"
        require_signature(statement, read_public_key(proof / f"{statement['key_id']}.pem"))
        require_manifest_of_statement(manifest, statement)
        manifests.append(read_manifest(manifest))
    found = verify_folder(fetched, overlay_layers(manifests))
    if not found.is_good or _digest_tree(source) != _digest_tree(fetched):
        raise LocalDamageError(
            "What came back is not what was sent.", next_step="Keep the data folder and report this."
        )
    here = f"{report.files:,} fetched, {report.kept:,} already here"
    content = f"{format_count(found.files, 'file')} ({format_size(found.size)})"
    say(f"   {here}; {content} match the signed manifest and the source.")
    say("   The same by plain tools:")
    say(f"     cd {fetched} && sha512sum --quiet -c {proof / 'manifest-sha512.txt'}")


def _digest_tree(top: Path) -> dict[str, str]:
    """Every path below a folder with its digest, link target or mark of a folder."""
    found = {}
    for place in sorted(top.rglob("*")):
        name = place.relative_to(top).as_posix()
        if place.is_symlink():
            found[name] = f"-> {place.readlink()}"
        else:
            found[name] = hashlib.sha512(place.read_bytes()).hexdigest() if place.is_file() else "folder"
    return found
