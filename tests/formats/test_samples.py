"""Bytes that were written once stay readable, and are written the same today.

The files in `samples/` are never changed. A change of a format adds a new sample beside the old one, which must stay
readable.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from perdure.formats.archive_files import ZipMember, iter_tar, iter_zip
from perdure.formats.canonical import canonical_json, parse_json_object
from perdure.formats.citation import Affiliation, Citation, Creator, Licence
from perdure.formats.datacite import datacite_attributes, datacite_xml
from perdure.formats.manifest import (
    ManifestEntry,
    SupersededEntry,
    entry_to_line,
    iter_manifest,
    iter_sha512sum_lines,
    line_to_superseded,
    superseded_to_line,
)
from perdure.formats.merkle import merkle_root
from perdure.formats.ocfl import (
    LAYOUT,
    LAYOUT_CONFIG,
    User,
    inventory_bytes,
    next_version,
    parse_inventory,
    part_inventory,
    sidecar_bytes,
)
from perdure.formats.rocrate import CrateFile, build_crate
from perdure.formats.statement import (
    ContentCounts,
    CopyEvidence,
    MerkleMark,
    MetadataMark,
    PartSummary,
    build_closing_statement,
    build_parts_document,
    build_receipt,
    find_metadata_mark,
    public_key_pem,
    require_signature,
    sign,
    statement_digest,
)
from perdure.kernel.digests import digest_bytes

SAMPLES = Path(__file__).resolve().parent / "samples"
ARCHIVE = UUID("01936f4e-8a7c-7def-8123-456789abcdef")
PART = UUID("01936f4e-8a7c-7def-8123-000000000001")
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
MOMENT = datetime(2026, 11, 20, 12, 0, 0, 1, tzinfo=UTC)
USER = User("Ada", "mailto:ada@example.org")
NAMES = ["crc32", "sha512"]
ENTRIES = [
    ManifestEntry(b"caf\xe9", "symlink", target=b"a\xff"),
    ManifestEntry(b"folder", "directory", mtime_ns=-1, mode=0o750),
    ManifestEntry(
        "folder/ä.h5".encode(), "file", 1, 1_763_640_000_123_456_789, 0o644, digest_bytes(b"1", NAMES),
        content="folder/ä.h5", metadata={"digest": "00", "sequence": 2},
    ),
    ManifestEntry(b"new\nline", "file", 0, None, None, digest_bytes(b"", [*NAMES, "md5", "blake3"]), None, "_/00"),
    ManifestEntry(b"old", "hidden"),
]  # fmt: skip
SUPERSEDED = [SupersededEntry(1, b"a"), SupersededEntry(2, b"\xff")]
CRATE_FILES = [CrateFile("parts.json", "Parts", "application/json", 9)]
CITATION = Citation(
    identifier="10.1234/abc",
    archive_urn=ARCHIVE.urn,
    title="Röntgen & more",
    creators=(
        Creator("Josiah Carberry", "Josiah", "Carberry", "0000-0002-1825-0097", (Affiliation("DESY", "https://ror.org/01js2sh04"),)),
        Creator("The Collaboration", is_organisation=True),
    ),
    publisher=Affiliation("DESY", "https://ror.org/01js2sh04"),
    issued=date(2026, 11, 20),
    description="What was measured",
    licence=Licence("CC BY 4.0", "CC-BY-4.0", "https://creativecommons.org/licenses/by/4.0/"),
    subjects=("X-ray",),
    parent="10.1234/parent",
    file_count=2,
    size=1,
)  # fmt: skip


def statement() -> dict[str, object]:
    document = build_closing_statement(
        archive_id=ARCHIVE,
        parent_id=PART,
        title="Röntgen & more",
        closed_at=MOMENT,
        profile="beamline",
        identifier="10.1234/abc",
        counts=ContentCounts(2, 1, 1, 1, 1),
        content_digest="sha512",
        merkle=MerkleMark(5, merkle_root(map(entry_to_line, ENTRIES))),
        parts=[PartSummary(1, PART, 2, 1, "aa" * 64, "bb" * 64)],
        superseded_digest="ee" * 64,
        metadata=MetadataMark(4, "cc" * 64, "dd" * 64),
        event_position=17,
    )
    return sign(document, KEY)


def receipt() -> dict[str, object]:
    copies = [
        CopyEvidence(name, f"{name}/x", "disk", "read after dropping the cache", MOMENT, [1]) for name in ("a", "b")
    ]
    digest = statement_digest(statement())
    return sign(
        build_receipt(
            archive_id=ARCHIVE,
            statement_digest=digest,
            metadata=find_metadata_mark(statement()),
            copies=copies,
            required_copies=2,
            issued_at=MOMENT,
        ),
        KEY,
    )


def part() -> bytes:
    entries = [("data/b", digest_bytes(b"1", NAMES)["sha512"]), ("data/a", digest_bytes(b"1", NAMES)["sha512"])]
    return part_inventory(PART.urn, entries, created=MOMENT, message="Seal part 1", user=USER)


def head() -> bytes:
    first = next_version(
        None, {"archive.json": "0" * 128}, object_id=ARCHIVE.urn, created=MOMENT, message="Open", user=USER
    )
    state = {"archive.json": "1" * 128, "old.json": "0" * 128}
    return inventory_bytes(
        next_version(
            first.inventory, state, object_id=ARCHIVE.urn, created=MOMENT, message="Change", user=USER
        ).inventory
    )


MEMBERS = [
    ZipMember(b"a", 3, 0x884863D2, 1_763_640_001, 0o640),
    ZipMember("ä".encode(), kind="directory"),
    ZipMember(b"l", kind="symlink", target=b"a"),
]


def content(_member: ZipMember, offset: int, length: int) -> Iterator[bytes]:
    yield b"123"[offset : offset + length]


WRITERS: dict[str, Callable[[], bytes]] = {
    "manifest.ndjson": lambda: b"".join(map(entry_to_line, ENTRIES)),
    "manifest-sha512.txt": lambda: b"".join(iter_sha512sum_lines(ENTRIES)),
    "superseded.ndjson": lambda: b"".join(map(superseded_to_line, SUPERSEDED)),
    "parts.json": lambda: canonical_json(build_parts_document([PartSummary(1, PART, 2, 1, "aa" * 64, "bb" * 64)])),
    "statement.json": lambda: canonical_json(statement()),
    "receipt.json": lambda: canonical_json(receipt()),
    "public-key.pem": lambda: public_key_pem(KEY.public_key()),
    "part-inventory.json": part,
    "part-inventory.json.sha512": lambda: sidecar_bytes(part()),
    "head-inventory.json": head,
    "ocfl_layout.json": lambda: LAYOUT,
    "config.json": lambda: LAYOUT_CONFIG,
    "ro-crate-metadata.json": lambda: canonical_json(build_crate(CITATION, files=CRATE_FILES)),
    "datacite.json": lambda: canonical_json(datacite_attributes(CITATION)),
    "datacite.xml": lambda: datacite_xml(CITATION),
    "sample.zip": lambda: b"".join(iter_zip(lambda: MEMBERS, content)),
    "sample.tar.gz": lambda: gzip.compress(b"".join(iter_tar(MEMBERS, content)), mtime=0),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_format_is_written_as_it_always_was(name: str) -> None:
    written, kept = WRITERS[name](), (SAMPLES / name).read_bytes()
    if name.endswith(".gz"):
        written, kept = gzip.decompress(written), gzip.decompress(kept)
    assert written == kept


def test_every_sample_is_tested() -> None:
    assert {path.name for path in SAMPLES.iterdir()} == WRITERS.keys()


def test_old_documents_are_read() -> None:
    lines = (SAMPLES / "manifest.ndjson").read_bytes()
    assert list(iter_manifest(io.BytesIO(gzip.compress(lines)))) == ENTRIES
    superseded = (SAMPLES / "superseded.ndjson").read_bytes().splitlines(keepends=True)
    assert [line_to_superseded(line).path for line in superseded] == [b"a", b"\xff"]
    inventory = parse_inventory(
        (SAMPLES / "part-inventory.json").read_bytes(), (SAMPLES / "part-inventory.json.sha512").read_bytes()
    )
    assert inventory.head_state().keys() == {"data/a", "data/b"}
    assert parse_inventory((SAMPLES / "head-inventory.json").read_bytes()).head == "v2"


@pytest.mark.parametrize("name", ["statement.json", "receipt.json"])
def test_old_signatures_verify(name: str) -> None:
    document = parse_json_object((SAMPLES / name).read_bytes())
    require_signature(document, KEY.public_key())
    assert json.loads(canonical_json(document)) == document
