"""A manifest loses nothing, has one spelling, and coreutils agrees with its checksum list."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perdure.formats.canonical import canonical_line
from perdure.formats.errors import DamagedFormatError
from perdure.formats.manifest import (
    ManifestEntry,
    SupersededEntry,
    checksum_line,
    checksum_list_name,
    digest_of_line,
    entry_to_line,
    iter_manifest,
    iter_manifest_lines,
    iter_sha512sum_lines,
    line_to_entry,
    line_to_staged,
    line_to_superseded,
    parse_checksum_line,
    path_of_line,
    staged_line,
    superseded_to_line,
    write_manifest,
)
from perdure.kernel.digests import digest_bytes

from .strategies import entries, paths, sorted_entries

FILE = {"path": "a", "kind": "file", "size": 1, "digests": {"crc32": "e8b7be43", "sha256": "0" * 64}}


@given(entries())
def test_a_line_reads_back_equal(entry: ManifestEntry) -> None:
    line = entry_to_line(entry)
    assert line_to_entry(line) == entry
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1


ORDINARY = ManifestEntry(
    "a b/ü~.dat".encode(), "file", 3, -1, 0o644, {"crc32": "0" * 8, "sha512": "f" * 128}, None, "x"
)


@given(entries())
@example(replace(ORDINARY, path=b"a b/[c]~.dat", content="a b/[c]~.dat"))
@example(replace(ORDINARY, path=b'a"b', content='a"b'))
@example(replace(ORDINARY, path=b"a\\b", content="a\\b"))
@example(replace(ORDINARY, path=b"a\x7f", content="a\x7f"))
@example(replace(ORDINARY, content="a b/ü~.dat"))
@example(replace(ORDINARY, path=b"a", content="a", digests={"crc32": "1" * 8, "sha256": "e" * 64}))
@example(replace(ORDINARY, path=b"a", content="a", metadata={"digest": "1"}))
@example(replace(ORDINARY, path=b"a", content="a", target=b""))
def test_a_line_is_spelled_by_the_one_rule(entry: ManifestEntry) -> None:
    line = entry_to_line(entry)
    assert line == canonical_line(json.loads(line))
    assert line == canonical_line(_fields_of(entry)), "nothing is left out or in another's place"


def _fields_of(entry: ManifestEntry) -> dict[str, object]:
    """What docs/format says of a line, told once more."""
    told: dict[str, object] = {"kind": entry.kind, "size": entry.size}
    for name, value in (("path", entry.path), ("target", entry.target)):
        if value is not None:
            try:
                told[name] = value.decode()
            except UnicodeDecodeError:
                told[f"{name}_bytes"] = base64.b64encode(value).decode()
    others = {name: getattr(entry, name) for name in ("mtime_ns", "mode", "content", "metadata")}
    told |= {name: value for name, value in others.items() if value is not None}
    return {**told, "digests": dict(entry.digests)} if entry.digests else told


def test_a_known_entry_is_the_one_that_was_judged() -> None:
    values = [getattr(ORDINARY, one.name) for one in fields(ORDINARY)]
    assert ManifestEntry.known(*values) == ORDINARY


@given(paths)
def test_a_name_stands_as_text_or_as_its_bytes(path: bytes) -> None:
    told = json.loads(entry_to_line(ManifestEntry(path, "hidden")))
    if "path" in told:
        assert told["path"].encode() == path
    else:
        assert base64.b64decode(told["path_bytes"]) == path
        with pytest.raises(UnicodeDecodeError):
            path.decode()


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../a"},
        {"path": "/a"},
        {"path": None},
        {"path": 1},
        {"path_bytes": "YQ=="},
        {"path": None, "path_bytes": "YQ=="},
        {"path": None, "path_bytes": "!"},
        {"path": "\ud800"},
        {"path": None, "path_bytes": None},
        {"kind": "socket"},
        {"kind": ["file"]},
        {"size": -1},
        {"size": 1.0},
        {"size": True},
        {"size": None},
        {"mode": 0o10000},
        {"mode": "644"},
        {"mtime_ns": 1.5},
        {"mtime_ns": None},
        {"digests": {"sha256": "0" * 64}},
        {"digests": {"crc32": "e8b7be43"}},
        {"digests": {"crc32": "e8b7be43", "sha256": "0" * 63}},
        {"digests": {"crc32": "e8b7be43", "sha256": "0" * 66}},
        {"digests": {"crc32": "e8b7be43", "sha256": "00 " * 21 + "0"}},
        {"digests": {"crc32": "e8b7be43", "sha256": " " + "00" * 31 + " "}},
        {"digests": {"crc32": "E8B7BE43", "sha256": "0" * 64}},
        {"digests": {"crc32": 1, "sha256": "0" * 64}},
        {"digests": []},
        {"content": 1},
        {"metadata": "x"},
        {"target": "b"},
        {"kind": "directory"},
        {"kind": "symlink"},
        {"extra": 1},
    ],
)
def test_a_line_that_is_wrong_is_refused(change: Mapping[str, object]) -> None:
    assert line_to_entry(canonical_line(FILE)).path == b"a"
    fields = {**FILE, **change}
    if "path_bytes" in change and "path" in change:
        del fields["path"]
    spelled = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    with pytest.raises(DamagedFormatError):
        line_to_entry(spelled.encode("utf-8", "surrogatepass") + b"\n")


@pytest.mark.parametrize(
    "change",
    [{"content": "\ud800"}, {"digests": {"crc32": "e8b7be43", "sha256": "0" * 64, "\ud800": "00"}}],
)
def test_half_a_character_is_refused(change: Mapping[str, object]) -> None:
    line = json.dumps({**FILE, **change}, sort_keys=True, separators=(",", ":")) + "\n"
    with pytest.raises(DamagedFormatError):
        line_to_entry(line.encode())


@pytest.mark.parametrize("line", [b"", b"[]\n", b"{}\n", json.dumps(FILE).encode() + b"\n", canonical_line(FILE)[:-1]])
def test_another_spelling_is_refused(line: bytes) -> None:
    with pytest.raises(DamagedFormatError):
        line_to_entry(line)


@given(sorted_entries())
def test_a_manifest_reads_back_equal(listed: list[ManifestEntry]) -> None:
    first, second = io.BytesIO(), io.BytesIO()
    assert write_manifest(listed, first) == len(listed)
    write_manifest(listed, second)
    assert first.getvalue() == second.getvalue()
    first.seek(0)
    assert list(iter_manifest(first)) == listed
    first.seek(0)
    assert b"".join(iter_manifest_lines(first)) == gzip.decompress(first.getvalue())


@given(entries())
@example(ManifestEntry(b'a","path":"b', "hidden"))
@example(ManifestEntry(b"a", "symlink", target=b'"sha512":"' + b"0" * 128))
def test_path_and_digest_are_found_in_a_line_without_parsing_it(entry: ManifestEntry) -> None:
    line = entry_to_line(entry)
    assert path_of_line(line) == entry.path
    assert [digest_of_line(line, name) for name in ("sha512", "sha256")] == [
        entry.digests.get(name) for name in ("sha512", "sha256")
    ]


@pytest.mark.parametrize("names", [[b"b", b"a"], [b"a", b"a"]])
def test_entries_out_of_order_are_refused(names: list[bytes]) -> None:
    listed = [ManifestEntry(name, "hidden") for name in names]
    with pytest.raises(ValueError, match="order"):
        write_manifest(listed, io.BytesIO())
    written = gzip.compress(b"".join(map(entry_to_line, listed)))
    with pytest.raises(DamagedFormatError, match="sorted"):
        list(iter_manifest(io.BytesIO(written)))


@given(st.data())
@settings(max_examples=30)
def test_a_manifest_that_is_cut_or_flipped_is_never_read_as_another(data: st.DataObject) -> None:
    listed = [ManifestEntry(b"%04d" % number, "directory", mode=number) for number in range(50)]
    whole = io.BytesIO()
    write_manifest(listed, whole)
    raw = bytearray(whole.getvalue())
    is_cut = data.draw(st.booleans())
    if is_cut:
        del raw[data.draw(st.integers(1, len(raw) - 1)) :]
    else:
        place = data.draw(st.integers(10, len(raw) - 1))  # the header before holds no content
        raw[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        read = list(iter_manifest(io.BytesIO(bytes(raw))))
    except DamagedFormatError:
        return
    assert not is_cut
    assert read == listed, "only the bits that fill the last byte of the compressed stream mean nothing"


def test_a_line_without_end_takes_no_memory_without_end() -> None:
    bomb = gzip.compress(b" " * (8 << 20))
    with pytest.raises(DamagedFormatError, match="too long"):
        list(iter_manifest(io.BytesIO(bomb)))


@given(entries(), st.integers(0, 2**63 - 1))
def test_a_line_of_a_staged_part_reads_back(entry: ManifestEntry, after: int) -> None:
    line = staged_line(entry_to_line(entry), after)
    assert line_to_staged(line) == (entry, after)
    assert line == canonical_line({**json.loads(line)}), "one spelling"


@pytest.mark.parametrize("start", [b'{"after":0,', b'{"after":01,', b'{"after":-1,', b'{"after": 1,', b'{"after":1,,'])
def test_a_wrong_line_of_a_staged_part_is_refused(start: bytes) -> None:
    line = canonical_line(FILE)
    assert line_to_staged(b'{"after":1,' + line[1:])[1] == 1
    with pytest.raises(DamagedFormatError):
        line_to_staged(start + line[1:])


@given(st.integers(1, 99), paths, st.none() | st.uuids(), st.none() | st.integers(1, 2**63 - 1))
def test_superseded_entries_read_back(part: int, path: bytes, part_id: UUID | None, removal: int | None) -> None:
    entry = SupersededEntry(part, path, part_id, removal)
    assert line_to_superseded(superseded_to_line(entry)) == entry


@pytest.mark.parametrize(
    "line",
    [
        b"{}\n",
        b'{"part":0,"path":"a"}\n',
        b'{"part":true,"path":"a"}\n',
        b'{"path":"a", "part":1}\n',
        b'{"part":1,"part_id":"x","path":"a"}\n',
        b'{"part":1,"path":"a","removal":0}\n',
        b'{"part":1,"path":"a","removal":"1"}\n',
    ],
)
def test_a_wrong_line_of_superseded_entries_is_refused(line: bytes) -> None:
    with pytest.raises(DamagedFormatError):
        line_to_superseded(line)


@given(paths)
@example(b"a\\nb")
@example(b"\\\n\r\\r")
def test_a_checksum_line_reads_back(path: bytes) -> None:
    line = checksum_line("ab" * 64, path)
    assert parse_checksum_line(line) == (path, "ab" * 64)
    assert line.count(b"\n") == 1


@pytest.mark.parametrize(
    "line", [b"", b"zz  a\n", b"ab" * 32 + b" a\n", b"\\" + b"ab" * 32 + b"  a\\x\n", b"ab" * 32 + b"  \n"]
)
def test_a_wrong_checksum_line_is_refused(line: bytes) -> None:
    with pytest.raises(DamagedFormatError):
        parse_checksum_line(line)


@pytest.mark.parametrize("algorithm", ["sha512", "sha256"])
def test_coreutils_write_and_accept_the_same_list(tmp_path: Path, algorithm: str) -> None:
    names = [
        b"plain",
        b"with space",
        b"back\\slash",
        b"new\nline",
        b"re\rturn",
        b"caf\xe9",
        "ü/ö".encode(),
        b"-n",
        b"*x",
    ]
    listed = []
    for name in sorted(names):
        target = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        Path(os.fsdecode(target)).write_bytes(name)
        listed.append(ManifestEntry(name, "file", len(name), digests=digest_bytes(name, ["crc32", algorithm])))
    listed.append(ManifestEntry(b"zfolder", "directory"))
    lines = b"".join(iter_sha512sum_lines(listed, algorithm))
    program = f"{algorithm}sum"
    written = subprocess.run([program, "--", *sorted(names)], cwd=tmp_path, capture_output=True, check=True)
    assert written.stdout == lines
    (tmp_path / checksum_list_name(algorithm)).write_bytes(lines)
    check = [program, "--check", "--strict", "--quiet", checksum_list_name(algorithm)]
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 0
    (tmp_path / "plain").write_bytes(b"PLAIN")
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode == 1
