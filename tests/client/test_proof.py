"""Verification without a server finds one flipped bit, one missing and one extra file, and what was signed."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import signal
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from perdure.formats.manifest import ManifestEntry, entry_to_line, sha512sum_line
from perdure.formats.merkle import merkle_root as server_merkle_root
from perdure.formats.statement import sign
from perdure_client.errors import LocalDamageError, UsageError
from perdure_client.progress import Progress
from perdure_client.proof import (
    Expected,
    iter_manifest_lines,
    merkle_root,
    order_layers,
    overlay_layers,
    read_manifest,
    require_manifest_of_statement,
    require_signature,
    verify_folder,
)

CONTENT = {b"scan/frame_1.h5": b"\x89HDF" * 500, b"notes.txt": b"dark current\n", b"empty": b"", b"odd\nname\\": b"x"}


def entry(path: bytes, content: bytes) -> ManifestEntry:
    digests = {"sha512": hashlib.sha512(content).hexdigest(), "crc32": "00000000"}
    return ManifestEntry(path=path, kind="file", size=len(content), digests=digests, content="data/x")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "folder"
    for path, content in CONTENT.items():
        place = top / path.decode()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return top


@pytest.fixture
def checksums(tmp_path: Path) -> Path:
    manifest = tmp_path / "manifest-sha512.txt"
    manifest.write_bytes(b"".join(sha512sum_line(entry(path, content)) for path, content in sorted(CONTENT.items())))
    return manifest


def test_an_unchanged_folder_is_good_here_and_for_coreutils(folder: Path, checksums: Path) -> None:
    report = verify_folder(folder, read_manifest(checksums))
    assert report.is_good
    assert (report.files, report.size) == (len(CONTENT), sum(map(len, CONTENT.values())))
    assert subprocess.run(["sha512sum", "--quiet", "-c", checksums], cwd=folder, check=False).returncode == 0


def test_a_flipped_bit_a_missing_and_an_extra_file_are_each_found(folder: Path, checksums: Path) -> None:
    frame = folder / "scan/frame_1.h5"
    damaged = bytearray(frame.read_bytes())
    damaged[1000] ^= 1
    frame.write_bytes(damaged)
    (folder / "notes.txt").unlink()
    (folder / "scan/extra").write_text("new")
    report = verify_folder(folder, read_manifest(checksums))
    assert (report.changed, report.missing, report.extra) == ([b"scan/frame_1.h5"], [b"notes.txt"], [b"scan/extra"])
    assert not report.is_good
    assert subprocess.run(
        ["sha512sum", "--quiet", "-c", checksums], cwd=folder, check=False, capture_output=True
    ).returncode


def test_a_link_in_the_place_of_a_file_is_not_followed(folder: Path, checksums: Path) -> None:
    (folder / "empty").unlink()
    (folder / "empty").symlink_to("/dev/null")
    report = verify_folder(folder, read_manifest(checksums))
    assert [path for path, _ in report.unreadable] == [b"empty"]


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "a//b"])
def test_a_manifest_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    manifest = tmp_path / "m.txt"
    manifest.write_text(f"{'0' * 128}  {name}\n")
    with pytest.raises(UsageError, match="leads out"):
        read_manifest(manifest)


def test_an_empty_manifest_proves_nothing_and_is_refused(tmp_path: Path) -> None:
    manifest = tmp_path / "m.txt"
    manifest.touch()
    with pytest.raises(UsageError, match="names no files"):
        read_manifest(manifest)


@given(st.lists(st.binary(max_size=20), max_size=40))
def test_the_merkle_root_is_the_servers(leaves: list[bytes]) -> None:
    assert merkle_root(iter(leaves)) == (len(leaves), server_merkle_root(leaves))


@given(
    st.binary(min_size=1, max_size=60).filter(
        lambda path: b"\0" not in path and b"/" not in path and path not in (b".", b"..")
    )
)
def test_manifest_lines_of_the_server_are_read_exactly(path: bytes) -> None:
    one = entry(path, b"abc")
    for line in (entry_to_line(one), sha512sum_line(one)):
        (read,) = iter_manifest_lines(iter([line]))
        assert (read.path, read.digest) == (path, one.digests["sha512"])


def test_a_changed_statement_and_a_foreign_manifest_are_refused(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    lines = [entry_to_line(entry(path, content)) for path, content in sorted(CONTENT.items())]
    statement = sign({"merkle": {"size": len(lines), "root": server_merkle_root(lines)}, "title": "Grüße"}, key)
    require_signature(statement, public)
    with pytest.raises(LocalDamageError, match="changed after"):
        require_signature({**statement, "title": "other"}, public)
    with pytest.raises(LocalDamageError, match="another key"):
        require_signature({**statement, "key_id": "0" * 32}, public)
    manifest = tmp_path / "manifest.ndjson.gz"
    manifest.write_bytes(gzip.compress(b"".join(lines)))
    assert require_manifest_of_statement(manifest, statement) == len(lines)
    manifest.write_bytes(b"".join(lines[1:]))
    with pytest.raises(LocalDamageError, match="not the one that was signed"):
        require_manifest_of_statement(manifest, statement)


def test_a_signature_that_is_not_base64_is_a_refusal_not_a_crash() -> None:
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    statement = sign({"a": 1}, key)
    statement["signature"] = {"algorithm": "ed25519", "value": base64.b64encode(b"short").decode()}
    with pytest.raises(LocalDamageError):
        require_signature(statement, public)


def expected(path: str, kind: str = "file") -> Expected:
    return Expected(path.encode(), kind, 1, "sha512", "0" * 128)


def test_the_union_of_layers_follows_the_rules_of_append() -> None:
    child = [expected("a/b"), expected("gone", "hidden"), expected("same"), expected("was_folder")]
    parent = [expected("a"), expected("gone/x"), expected("kept"), expected("same"), expected("was_folder/y")]
    assert [one.path for one in overlay_layers([child, parent])] == [b"a/b", b"kept", b"same", b"was_folder"]


def test_layers_are_ordered_by_their_statements_and_a_gap_is_said() -> None:
    child: dict[str, object] = {"archive": "c", "parent": "p"}
    parent: dict[str, object] = {"archive": "p", "parent": None}
    assert order_layers([parent, child]) == [child, parent]
    with pytest.raises(UsageError, match="every layer"):
        order_layers([child])


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        verify_folder(tmp_path / "none", [])


@pytest.mark.usefixtures("interruptible")
def test_who_interrupts_does_not_wait_for_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 1 << 30
    (tmp_path / "large").write_bytes(b"")
    os.truncate(tmp_path / "large", size)
    read: list[int] = []

    class Watched(Progress):
        def add(self, *, files: int = 0, size: int = 0) -> None:
            read.append(size)
            if len(read) == 3:
                os.kill(os.getpid(), signal.SIGINT)
            super().add(files=files, size=size)

    with pytest.raises(KeyboardInterrupt):
        verify_folder(tmp_path, [Expected(b"large", "file", size, "sha512", "0" * 128)], progress=Watched("Verified"))
    assert 3 <= len(read) < 1000  # of 1,024
