"""The reader in the manual, which knows nothing of us, gives back what we stored."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal
from uuid import UUID

import ocfl
import pytest

from perdure.formats.manifest import ManifestEntry, SupersededEntry
from perdure.formats.ocfl import object_path

from .make_store import Content, a_file, write_head, write_part, write_root

READER = Path(__file__).resolve().parents[2] / "docs/format/reader.py"
PARENT, CHILD, PART_1, PART_2, PART_3 = (UUID(int=(7 << 76) + number) for number in range(1, 6))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A parent of two parts, in which a file was replaced and another removed, and a child that hides one."""
    root = tmp_path / "root"
    write_root(root)
    first = [a_file(b"scan/1.h5", b"old"), a_file(b"scan/2.h5", b"two"), a_file(b"gone", b"gone"), a_file(b"A", b"A")]
    first += [a_file(b"a", b"a"), a_file(b"caf\xe9\n", b"latin"), a_file(b"twin", b"two")]
    first += [
        Content(ManifestEntry(b"empty", "directory")),
        Content(ManifestEntry(b"ln", "symlink", target=b"scan/1.h5")),
    ]
    parts = [write_part(root, PART_1, 1, first), write_part(root, PART_2, 2, [a_file(b"scan/1.h5", b"new")])]
    write_head(root, PARENT, parts, [SupersededEntry(1, b"scan/1.h5"), SupersededEntry(1, b"gone")], None)
    added = [a_file(b"scan/3.h5", b"three", "sha256"), Content(ManifestEntry(b"scan/2.h5", "hidden"))]
    write_head(root, CHILD, [write_part(root, PART_3, 1, added, "sha256")], [], PARENT)
    return root


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-W", "error", str(READER), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_reader_is_short_and_needs_the_standard_library_only() -> None:
    source = READER.read_text("utf-8")
    assert len(source.splitlines()) <= 100
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert names <= sys.stdlib_module_names


def test_it_lists_the_archives(root: Path) -> None:
    done = run(root)
    assert sorted(done.stdout.split()) == sorted([PARENT.urn, CHILD.urn])
    assert ocfl.StorageRoot(root=str(root)).validate(validate_objects=True, check_digests=True)


def extracted(folder: Path) -> dict[bytes, bytes | None]:
    found: dict[bytes, bytes | None] = {}
    base = os.fsencode(folder)
    for place, folders, files in os.walk(base):
        for name in folders + files:
            path = os.path.join(place, name)
            link = os.readlink(path) if os.path.islink(path) else None
            content = link if link is not None else Path(os.fsdecode(path)).read_bytes() if name in files else None
            found[os.path.relpath(path, base)] = content
    return found


def test_it_extracts_every_file_under_its_true_name(root: Path, tmp_path: Path) -> None:
    parent = {
        b"scan": None,
        b"scan/1.h5": b"new",
        b"scan/2.h5": b"two",
        b"A": b"A",
        b"a": b"a",
        b"caf\xe9\n": b"latin",
        b"twin": b"two",
        b"empty": None,
        b"ln": b"scan/1.h5",
    }
    assert run(root, PARENT.urn, "extract", tmp_path / "parent").returncode == 0
    assert extracted(tmp_path / "parent") == parent
    assert (tmp_path / "parent/scan/1.h5").stat().st_mtime_ns == 1_700_000_000_123_456_789
    assert run(root, str(CHILD), "extract", tmp_path / "child").returncode == 0
    del parent[b"scan/2.h5"]
    assert extracted(tmp_path / "child") == {**parent, b"scan/3.h5": b"three"}


@pytest.mark.parametrize(
    ("above", "below", "shown"),
    [
        (("hidden", b"d"), b"d/a/b", []),
        (("hidden", b"d"), b"e", [b"e"]),
        (("hidden", b"d/a"), b"d", [b"d"]),
        (("file", b"d"), b"d/a", [b"d"]),
        (("file", b"d/a"), b"d", [b"d", b"d/a"]),
        (("directory", b"d"), b"d", [b"d"]),
        (("directory", b"d"), b"d/a", [b"d", b"d/a"]),
    ],
)
def test_a_child_covers_its_parent(
    tmp_path: Path, above: tuple[Literal["file", "directory", "hidden"], bytes], below: bytes, shown: list[bytes]
) -> None:
    kind, path = above
    write_root(tmp_path)
    write_head(tmp_path, PARENT, [write_part(tmp_path, PART_1, 1, [a_file(below, b"below")])], [], None)
    child = a_file(path, b"above") if kind == "file" else Content(ManifestEntry(path, kind))
    write_head(tmp_path, CHILD, [write_part(tmp_path, PART_2, 1, [child])], [], PARENT)
    out = tmp_path / "out"
    assert run(tmp_path, CHILD.urn, "extract", out).returncode == 0
    assert sorted(extracted(out)) == shown


def test_it_lists_the_union(root: Path) -> None:
    lines = run(root, CHILD.urn).stdout.splitlines()
    assert len(lines) == 8
    assert lines[-2].split() == ["file", "5", "'scan/3.h5'"]


@pytest.mark.parametrize(
    "damaged",
    [
        "v1/content/data/scan/2.h5",
        "v1/content/data/twin",
        "v1/content/meta/manifest.ndjson.gz",
        "inventory.json",
        "inventory.json.sha512",
    ],
)
def test_it_finds_one_flipped_bit(root: Path, damaged: str) -> None:
    assert run(root, PARENT.urn, "verify").returncode == 0
    place = root / object_path(PART_1.urn) / damaged
    data = bytearray(place.read_bytes())
    data[1] ^= 1
    place.write_bytes(data)
    done = run(root, PARENT.urn, "verify")
    assert done.returncode == 1
    assert "DAMAGED" in done.stderr


def test_it_finds_a_missing_file(root: Path) -> None:
    (root / object_path(PART_1.urn) / "v1/content/data/scan/2.h5").unlink()
    assert run(root, PARENT.urn, "verify").returncode == 1
