"""A staged part becomes an OCFL object, whatever its names are and wherever the sealing was interrupted."""

from __future__ import annotations

import hashlib
import subprocess
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure.formats.manifest import ManifestEntry
from perdure.kernel.ids import new_id
from perdure.kernel.paths import find_path_problem
from perdure.storage.errors import StagedContentError
from perdure.storage.model import PartRef

if TYPE_CHECKING:
    from tests.storage.conftest import Lab

    from perdure.storage.service import Storage

HOSTILE = {
    b"plain/file.h5": b"1",
    b"Case": b"2",
    b"case": b"3",
    b"e\xcc\x81": b"4",
    b"\xc3\xa9": b"5",
    b"with\nnewline": b"6",
    b"inventory.json": b"7",
    b"0=ocfl_object_1.1": b"8",
    b"v1/content/data/x": b"9",
    b"n" * 255: b"10",
    b"latin\xe9": b"11",
    b"-rf": b"12",
    b" ": b"13",
    b"_/x": b"14",
    b"empty": b"",
    b"Folder/a": b"15",
    b"folder": b"16",
    b"deep/" * 60 + b"x": b"17",
    b"back\\slash": b"18",
}
SEAL_POINTS = [
    "seal.strays_aside",
    "seal.moved",
    "seal.arranged",
    "seal.documents_written",
    "publish.synced",
    "publish.folders_made",
    "publish.renamed",
    "seal.published",
]


def read_all(lab: Lab, final: dict[bytes, str]) -> dict[bytes, bytes]:
    return {path: lab.read(content) for path, content in final.items()}


def test_hostile_names_come_back_as_they_are(lab: Lab) -> None:
    final = lab.make_part(HOSTILE)
    assert read_all(lab, final) == HOSTILE
    assert final[b"plain/file.h5"] == "plain/file.h5"
    assert final[b"Case"] == f"_/{hashlib.sha256(b'Case').hexdigest()}"
    assert not lab.staged_folder().exists()


def test_a_tree_of_another_kind_of_entry_is_sealed_too(lab: Lab) -> None:
    entries = lab.stage({b"d/f": b"1"})
    entries += [ManifestEntry(b"d/link", "symlink", target=b"f"), ManifestEntry(b"empty", "directory")]
    sealed, final = lab.seal(sorted(entries, key=lambda entry: entry.path))
    assert (sealed.file_count, sealed.byte_count, final) == (1, 1, {b"d/f": "d/f"})
    listing = lab.storage.read_part_document(lab.part.object_id, "manifest-sha512.txt")
    assert listing == hashlib.sha512(b"1").hexdigest().encode() + b"  d/f\n"


def test_the_checksum_list_agrees_with_coreutils(lab: Lab) -> None:
    lab.make_part({b"a": b"1", b"b/c": b"2"})
    meta = lab.object_folder("first") / "v1" / "content"
    command = ["sha512sum", "-c", "--strict", str(meta / "meta" / "manifest-sha512.txt")]
    assert subprocess.run(command, cwd=meta / "data", capture_output=True, check=False).returncode == 0


def test_a_part_with_sha256(lab: Lab) -> None:
    received = lab.storage.write_small(lab.part, [(b"a", b"1")], frozenset({"sha256", "crc32"}))
    lab.storage.sync(lab.part)
    lab.seal([lab.entry(b"a", received[0])], algorithm="sha256")
    assert lab.storage.verify_copy(lab.part.object_id, lab.first).is_good


def test_a_replaced_file_keeps_its_place_and_the_old_bytes_go_aside(lab: Lab) -> None:
    lab.stage({b"a": b"old", b"b": b"stays"})
    (new,) = lab.stage({b"a": b"new"})
    kept = lab.storage.staged_size(lab.part, "b")
    entry = replace(new, path=b"b", content="b", size=kept, digests=_digests(b"stays"))
    _, final = lab.seal([new, entry])
    assert final == {b"a": "a", b"b": "b"}
    assert read_all(lab, final) == {b"a": b"new", b"b": b"stays"}
    aside = [path.read_bytes() for path in (lab.folder / "first" / "quarantine").rglob("*") if path.is_file()]
    assert aside == [b"old"]


def test_a_file_gives_its_place_to_a_folder(lab: Lab) -> None:
    lab.stage({b"a": b"was a file", b"d/x": b"was in a folder"})
    entries = lab.stage({b"a/b": b"1", b"d": b"2"})
    _, final = lab.seal(entries)
    assert final == {b"a/b": "a/b", b"d": "d"}
    assert read_all(lab, final) == {b"a/b": b"1", b"d": b"2"}


def test_a_sealing_that_died_before_its_part_came_leaves_a_valid_root(lab: Lab) -> None:
    """Nobody has to come back for the part: the next start removes the folders made for it, and the lab judges."""
    entries = lab.stage({b"a": b"1"})
    assert lab.crash_at("publish.folders_made", lambda storage: lab.seal(entries, storage))
    assert not lab.object_folder("first").exists()
    assert lab.object_folder("first").parent.exists()
    lab.open()
    assert not lab.object_folder("first").parent.exists()


def test_missing_and_short_files_stop_the_sealing(lab: Lab) -> None:
    entries = lab.stage({b"a": b"1", b"b": b"22", b"c": b"3"})
    data = lab.staged_folder() / "v1" / "content" / "data"
    (data / "a").unlink()
    (data / "b").write_bytes(b"2")
    with pytest.raises(StagedContentError) as caught:
        lab.seal(entries)
    assert caught.value.extra == {"paths": ["a", "b"], "count": 2}
    assert (data / "b").read_bytes() == b"2"
    assert (data / "c").read_bytes() == b"3"


@pytest.mark.parametrize("point", SEAL_POINTS)
def test_an_interrupted_sealing_goes_on(lab: Lab, point: str) -> None:
    lab.stage({b"a": b"stray of a", b"Twin": b"x"})
    lab.storage.log_staged(lab.part, [b"entry"])
    entries = lab.stage({b"a": b"1", b"b/Twin": b"2", b"b/twin": b"3", b"z": b""})

    def act(storage: Storage) -> None:
        storage.seal_part(lab.part, entries, created=lab.created, message="Closed", user=lab.user)

    assert lab.crash_at(point, act)
    sealed, final = lab.seal(entries)
    assert read_all(lab, final) == {b"a": b"1", b"b/Twin": b"2", b"b/twin": b"3", b"z": b""}
    assert lab.seal(entries) == (sealed, final)
    assert lab.storage.verify_copy(lab.part.object_id, lab.first).is_good
    assert lab.storage.read_staged_log(lab.part).lines == [b"entry"]
    lab.storage.forget_staged_log(lab.part)
    lab.storage.forget_staged_log(lab.part)
    assert list(lab.storage.iter_staged()) == []


def test_a_stray_of_the_same_size_is_not_taken_for_a_file(lab: Lab) -> None:
    """After a lost file, what lies at its final name must not pass by its length alone."""
    lab.stage({b"a": b"stray"})
    (entry,) = lab.stage({b"a": b"right"})
    lab.storage.discard_staged(lab.part, [entry.content or ""])
    with pytest.raises(StagedContentError):
        lab.seal([entry])


names = st.sampled_from([b"a", b"A", b"b", b"\xc3\xa9", b"e\xcc\x81", b"\n", b"CON", b"_", b"\xff"])
paths = st.lists(names, min_size=1, max_size=3)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(paths.map(b"/".join), st.binary(max_size=5), min_size=1, max_size=12))
def test_any_set_of_paths_comes_back(lab: Lab, files: dict[bytes, bytes]) -> None:
    files = {path: data for path, data in files.items() if not find_path_problem(path)}
    files = {path: data for path, data in files.items() if not any(other.startswith(path + b"/") for other in files)}
    lab.part = PartRef(new_id(), new_id())
    assert read_all(lab, lab.make_part(files)) == files


def _digests(data: bytes) -> dict[str, str]:
    return {"sha512": hashlib.sha512(data).hexdigest(), "crc32": f"{zlib.crc32(data):08x}"}
