"""A small storage root with a parent archive and a child, made by the writers of `perdure.formats` alone."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from perdure.formats.canonical import canonical_json
from perdure.formats.content_paths import plan_content_paths
from perdure.formats.manifest import (
    MANIFEST_NAME,
    ManifestEntry,
    SupersededEntry,
    checksum_list_name,
    iter_sha512sum_lines,
    superseded_to_line,
    write_manifest,
)
from perdure.formats.ocfl import (
    OBJECT_DECLARATION,
    OBJECT_DECLARATION_NAME,
    ROOT_FILES,
    User,
    inventory_bytes,
    next_version,
    object_path,
    part_inventory,
    sidecar_bytes,
    sidecar_name,
)
from perdure.formats.statement import PartSummary, build_parts_document
from perdure.kernel.digests import digest_bytes

CREATED = datetime(2026, 11, 20, 12, tzinfo=UTC)
USER = User("Ada", "mailto:ada@example.org")


@dataclass(frozen=True)
class Content:
    """An entry to store; `data` is the content of a file."""

    entry: ManifestEntry
    data: bytes = b""


def a_file(path: bytes, data: bytes, algorithm: str = "sha512") -> Content:
    digests = digest_bytes(data, ["crc32", algorithm])
    return Content(ManifestEntry(path, "file", len(data), 1_700_000_000_123_456_789, 0o640, digests), data)


def write_root(root: Path) -> None:
    """The files of an empty storage root."""
    _write(root, dict(ROOT_FILES))


def write_part(
    root: Path, part_id: UUID, number: int, contents: Sequence[Content], algorithm: str = "sha512"
) -> PartSummary:
    """One sealed part."""
    planned = plan_content_paths(one.entry.path for one in contents if one.entry.kind == "file")
    listed = sorted((replace(one.entry, content=planned.get(one.entry.path)) for one in contents), key=lambda e: e.path)
    manifest = io.BytesIO()
    write_manifest(listed, manifest)
    checksums = b"".join(iter_sha512sum_lines(listed, algorithm))
    files = {f"data/{planned[one.entry.path]}": one.data for one in contents if one.entry.kind == "file"}
    files |= {f"meta/{MANIFEST_NAME}": manifest.getvalue(), f"meta/{checksum_list_name(algorithm)}": checksums}
    digests = {path: digest_bytes(data, [algorithm])[algorithm] for path, data in files.items()}
    inventory = part_inventory(
        part_id.urn, digests.items(), created=CREATED, message="Seal", user=USER, algorithm=algorithm
    )
    folder = root / object_path(part_id.urn)
    _write(folder, {f"v1/content/{path}": data for path, data in files.items()})
    _write_inventories(folder, inventory, "v1", algorithm)
    return PartSummary(
        number,
        part_id,
        len(planned),
        sum(len(one.data) for one in contents),
        digest_bytes(inventory, [algorithm])[algorithm],
        digests[f"meta/{MANIFEST_NAME}"],
    )


def write_head(
    root: Path, archive: UUID, parts: Sequence[PartSummary], superseded: Sequence[SupersededEntry], parent: UUID | None
) -> None:
    """A head of one version with what a reader needs of it."""
    record = {"parent": str(parent) if parent else None, "description": {"title": "Sample"}}
    files = {
        "archive.json": canonical_json(record),
        "parts.json": canonical_json(build_parts_document(parts)),
        "superseded.ndjson": b"".join(map(superseded_to_line, sorted(superseded))),
    }
    state = {path: digest_bytes(data, ["sha512"])["sha512"] for path, data in files.items()}
    planned = next_version(None, state, object_id=archive.urn, created=CREATED, message="Close", user=USER)
    folder = root / object_path(archive.urn)
    _write(folder, {content: files[logical] for content, logical in planned.new_content.items()})
    _write_inventories(folder, inventory_bytes(planned.inventory), "v1", "sha512")


def _write_inventories(folder: Path, inventory: bytes, version: str, algorithm: str) -> None:
    sidecar = sidecar_bytes(inventory, algorithm)
    for place in (f"{version}/", ""):
        _write(folder, {f"{place}inventory.json": inventory, f"{place}{sidecar_name(algorithm)}": sidecar})
    _write(folder, {OBJECT_DECLARATION_NAME: OBJECT_DECLARATION})


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
