"""Copies: placed with every byte compared, verified on the medium, doubted when damaged, removed without a trace."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from perdure.adapters.posix.store import PosixStore
from perdure.kernel.errors import PerdureError
from perdure.kernel.ids import new_id
from perdure.storage.errors import (
    CopyDamagedError,
    ForeignStoreError,
    NoGoodCopyError,
    StoreUnavailableError,
    UnknownObjectError,
    UnknownStoreError,
    VerificationStoppedError,
)
from perdure.storage.placing import SourceDamagedError
from perdure.testing.memory_store import MemoryStore

if TYPE_CHECKING:
    from tests.storage.conftest import Lab

    from perdure.storage.service import Storage

FILES = {b"a": b"1" * 5000, b"b/c": b"22" * 5000, b"b/d": b"", b"big": bytes(range(256)) * 20_000, b"e": b"3" * 5000}
DATA = Path("v1/content/data")
MANIFEST = "v1/content/meta/manifest.ndjson.gz"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap(folder: Path) -> None:
    (folder / DATA / "a").rename(folder / "x")
    (folder / DATA / "e").rename(folder / DATA / "a")
    (folder / "x").rename(folder / DATA / "e")


def exchange_bytes(path: Path, other: Path) -> None:
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second)
    other.write_bytes(first)


def link_away(folder: Path) -> None:
    (folder / DATA / "a").rename(folder.parent.parent.parent.parent / "elsewhere")
    (folder / DATA / "a").symlink_to(folder.parent.parent.parent.parent / "elsewhere")


def reseal(folder: Path) -> None:
    """A consistent inventory of another digest: only what the database knows tells."""
    import hashlib

    data = (folder / "inventory.json").read_bytes().replace(b"Closed", b"Closes")
    for place in (folder, folder / "v1"):
        (place / "inventory.json").write_bytes(data)
        (place / "inventory.json.sha512").write_text(f"{hashlib.sha512(data).hexdigest()} inventory.json\n")


def respell(folder: Path) -> None:
    """A sidecar that still says the right thing, and is not the one that was written."""
    sidecar = folder / "v1/inventory.json.sha512"
    sidecar.write_bytes(sidecar.read_bytes().upper().replace(b"INVENTORY.JSON", b"inventory.json"))


DAMAGE: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "bit flip": (lambda f: flip(f / DATA / "big"), {"flipped v1/content/data/big"}),
    "truncation": (lambda f: os.truncate(f / DATA / "big", 4096), {"truncated v1/content/data/big"}),
    "grown": (lambda f: os.truncate(f / DATA / "b/d", 1), {"flipped v1/content/data/b/d"}),
    "missing": (lambda f: (f / DATA / "a").unlink(), {"missing v1/content/data/a"}),
    "extra": (lambda f: (f / DATA / "new").write_bytes(b""), {"extra v1/content/data/new"}),
    "extra in root": (lambda f: (f / "new").write_bytes(b""), {"extra new"}),
    "empty folder": (lambda f: (f / DATA / "void").mkdir(), {"extra v1/content/data/void/"}),
    "swapped": (swap, {"swapped v1/content/data/a", "swapped v1/content/data/e"}),
    "link": (link_away, {"flipped v1/content/data/a"}),
    "manifest": (lambda f: flip(f / MANIFEST), {f"flipped {MANIFEST}"}),
    "inventory": (lambda f: flip(f / "inventory.json"), {"damaged_inventory inventory.json"}),
    "version inventory": (lambda f: flip(f / "v1/inventory.json"), {"damaged_inventory v1/inventory.json"}),
    "version sidecar": (lambda f: flip(f / "v1/inventory.json.sha512"), {"damaged_inventory v1/inventory.json"}),
    "spelling of a sidecar": (respell, {"damaged_inventory v1/inventory.json"}),
    "sidecar": (lambda f: flip(f / "inventory.json.sha512"), {"damaged_inventory inventory.json"}),
    "no sidecar": (lambda f: (f / "inventory.json.sha512").unlink(), {"damaged_inventory inventory.json"}),
    "declaration": (lambda f: flip(f / "0=ocfl_object_1.1"), {"flipped 0=ocfl_object_1.1"}),
    "other inventory": (reseal, {"damaged_inventory inventory.json"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_named(lab: Lab, damaged: set[str], kind: str) -> None:
    lab.make_part(FILES)
    assert lab.storage.verify_copy(lab.part.object_id, lab.first).is_good
    assert lab.states(lab.part.object_id) == {"first": "verified"}
    damaged.add("first")
    damage, expected = DAMAGE[kind]
    damage(lab.object_folder("first"))
    report = lab.storage.verify_copy(lab.part.object_id, lab.first)
    assert {f"{finding.kind.value} {finding.content}" for finding in report.findings} == expected
    assert lab.states(lab.part.object_id) == {"first": "suspect"}
    assert lab.copies(lab.part.object_id)["first"].evidence["finding_count"] == len(expected)
    with pytest.raises(NoGoodCopyError):
        lab.read("a")


def test_a_lost_object_is_not_ok(lab: Lab) -> None:
    lab.make_part(FILES)
    lab.object_folder("first").rename(lab.folder / "away")
    for folder in list(lab.object_folder("first").parents)[:3]:
        folder.rmdir()
    report = lab.storage.verify_copy(lab.part.object_id, lab.first)
    assert [finding.kind.value for finding in report.findings] == ["missing"]
    assert lab.states(lab.part.object_id) == {"first": "suspect"}


def test_a_verification_says_what_it_read_and_how(lab: Lab) -> None:
    lab.make_part(FILES)
    told: list[tuple[int, int]] = []
    report = lab.storage.verify_copy(lab.part.object_id, lab.first, progress=lambda *so_far: told.append(so_far))
    assert report.files == len(FILES) + 2
    assert told[-1] == (report.files, report.bytes)
    assert report.bytes > sum(map(len, FILES.values()))
    assert report.evidence["read"] in ("direct", "dropped", "plain")
    assert report.evidence["scope"] == "whole"
    copy = lab.copies(lab.part.object_id)["first"]
    assert copy.verified_at is not None
    assert copy.evidence == report.evidence


def test_a_stopped_verification_counts_for_nothing(lab: Lab) -> None:
    lab.make_part(FILES)
    with pytest.raises(VerificationStoppedError):
        lab.storage.verify_copy(lab.part.object_id, lab.first, should_stop=lambda: True)
    assert lab.states(lab.part.object_id) == {"first": "written"}


def test_a_copy_is_placed_verified_and_read_when_the_first_is_lost(lab: Lab, damaged: set[str]) -> None:
    final = lab.make_part(FILES)
    lab.storage.place_copy(lab.part.object_id, lab.second)
    assert lab.states(lab.part.object_id) == {"first": "written", "second": "written"}
    assert lab.storage.verify_copy(lab.part.object_id, lab.second).is_good
    damaged.add("first")
    (lab.object_folder("first") / DATA / "a").unlink()
    assert lab.storage.local_path(lab.part.object_id, "a") is not None
    lab.storage.verify_copy(lab.part.object_id, lab.first)
    assert {path: lab.read(content) for path, content in final.items()} == FILES
    assert lab.states(lab.part.object_id) == {"first": "suspect", "second": "verified"}


def test_reading_goes_on_with_the_next_copy_and_doubts_the_first(lab: Lab, damaged: set[str]) -> None:
    lab.make_part(FILES)
    lab.storage.verify_copy(lab.part.object_id, lab.first)
    lab.storage.place_copy(lab.part.object_id, lab.second)
    damaged.add("first")
    (lab.object_folder("first") / DATA / "a").unlink()
    assert lab.read("a") == FILES[b"a"]
    assert lab.states(lab.part.object_id) == {"first": "suspect", "second": "written"}


def test_a_file_that_is_cut_short_is_doubted_and_read_from_the_next_copy(lab: Lab, damaged: set[str]) -> None:
    lab.make_part({b"a": bytes(3 << 20)})
    lab.storage.place_copy(lab.part.object_id, lab.second)
    damaged.add("first")
    os.truncate(lab.object_folder("first") / DATA / "a", 1 << 20)
    beyond = lab.storage.read_object(lab.part.object_id, "a", 2 << 20, 7, size=3 << 20)
    assert b"".join(beyond) == bytes(7)
    assert lab.states(lab.part.object_id) == {"first": "suspect", "second": "written"}


def test_a_file_that_is_cut_short_is_not_opened_in_its_place(lab: Lab, damaged: set[str]) -> None:
    lab.make_part(FILES)
    lab.storage.place_copy(lab.part.object_id, lab.second)
    damaged.add("first")
    os.truncate(lab.object_folder("first") / DATA / "big", 1)
    path = lab.storage.local_path(lab.part.object_id, "big", size=len(FILES[b"big"]))
    assert path == lab.object_folder("second") / DATA / "big"
    assert lab.states(lab.part.object_id) == {"first": "suspect", "second": "written"}


def test_a_file_that_is_cut_short_never_ends_as_if_it_were_whole(lab: Lab, damaged: set[str]) -> None:
    """Once bytes of it are handed out, nothing can take their place."""
    lab.make_part({b"a": bytes(3 << 20)})
    lab.storage.place_copy(lab.part.object_id, lab.second)
    damaged.add("first")
    os.truncate(lab.object_folder("first") / DATA / "a", (2 << 20) + 1)
    with pytest.raises(CopyDamagedError):
        list(lab.storage.read_object(lab.part.object_id, "a", size=3 << 20))
    assert lab.states(lab.part.object_id) == {"first": "suspect", "second": "written"}
    whole = lab.storage.read_object(lab.part.object_id, "a", size=3 << 20)
    assert sum(map(len, whole)) == 3 << 20


def test_a_damaged_source_is_not_copied(lab: Lab, damaged: set[str]) -> None:
    lab.make_part(FILES)
    damaged.add("first")
    flip(lab.object_folder("first") / DATA / "big")
    with pytest.raises(NoGoodCopyError) as caught:
        lab.storage.place_copy(lab.part.object_id, lab.second)
    assert isinstance(caught.value.__cause__, SourceDamagedError)
    assert lab.states(lab.part.object_id) == {"first": "suspect", "second": "writing"}
    assert not lab.object_folder("second").exists()
    with pytest.raises(NoGoodCopyError):
        lab.storage.place_copy(lab.part.object_id, lab.second)


def test_a_suspect_copy_is_replaced_and_kept_as_evidence(lab: Lab) -> None:
    lab.make_part(FILES)
    lab.storage.place_copy(lab.part.object_id, lab.second)
    flip(lab.object_folder("second") / DATA / "big")
    assert not lab.storage.verify_copy(lab.part.object_id, lab.second).is_good
    lab.storage.place_copy(lab.part.object_id, lab.second)
    assert lab.storage.verify_copy(lab.part.object_id, lab.second).is_good
    assert len(list((lab.folder / "second" / "quarantine").rglob("0=ocfl_object_1.1"))) == 1


@pytest.mark.parametrize(
    "point",
    ["place.recorded", "place.copied", "place.documents_written", "publish.renamed", "place.published"],
)
def test_an_interrupted_placing_goes_on(lab: Lab, point: str) -> None:
    lab.make_part(FILES)
    assert lab.crash_at(point, lambda storage: storage.place_copy(lab.part.object_id, lab.second))
    assert lab.states(lab.part.object_id)["second"] == "writing"
    lab.storage.place_copy(lab.part.object_id, lab.second)
    assert lab.storage.verify_copy(lab.part.object_id, lab.second).is_good
    assert not list((lab.folder / "second" / "staging").rglob("*.json"))


def test_a_damaged_target_does_not_make_the_source_suspect(lab: Lab) -> None:
    lab.make_part(FILES)
    assert lab.crash_at("place.published", lambda storage: storage.place_copy(lab.part.object_id, lab.second))
    flip(lab.object_folder("second") / "inventory.json")
    lab.storage.place_copy(lab.part.object_id, lab.second)
    assert lab.states(lab.part.object_id) == {"first": "written", "second": "written"}
    assert lab.storage.verify_copy(lab.part.object_id, lab.second).is_good


def test_a_removal_is_not_done_while_a_store_is_away(lab: Lab) -> None:
    other = MemoryStore("other")
    lab.storage = lab.open([PosixStore("first", lab.folder / "first"), other])
    lab.make_part(FILES)
    lab.storage.place_copy(lab.part.object_id, other.info.id)
    without = lab.open([PosixStore("first", lab.folder / "first")])
    with pytest.raises(StoreUnavailableError):
        without.remove_object(lab.part.object_id)
    assert [removal.files for removal in lab.storage.remove_object(lab.part.object_id)] == [len(FILES) + 7, 0]


def test_a_copy_that_grows_for_days_is_not_swept(lab: Lab) -> None:
    lab.make_part(FILES)
    assert lab.crash_at("place.copied", lambda storage: storage.place_copy(lab.part.object_id, lab.second))
    later = lab.created + timedelta(days=36500)
    assert lab.storage.sweep_staging(lambda *_: False, later) == []
    lab.storage.remove_object(lab.part.object_id)
    assert lab.storage.sweep_staging(lambda *_: False, later) == [f"objects/{lab.part.part_id}"]


@pytest.mark.parametrize("point", ["remove.marked", "remove.renamed", "remove.removed"])
def test_an_interrupted_removal_goes_on(lab: Lab, point: str) -> None:
    lab.make_part(FILES)
    lab.storage.place_copy(lab.part.object_id, lab.second)
    assert lab.crash_at(point, lambda storage: storage.remove_object(lab.part.object_id))
    removals = lab.storage.remove_object(lab.part.object_id)
    assert [removal.store_id for removal in removals] == [lab.second, lab.first]
    assert removals[1].files == len(FILES) + 7
    assert not lab.object_folder("first").exists()
    assert not lab.object_folder("second").exists()
    assert [path.name for path in (lab.folder / "first" / "root").iterdir() if path.is_dir()] == ["extensions"]
    with pytest.raises(NoGoodCopyError):
        lab.read("a")
    with lab.db.begin() as tx:
        lab.storage.forget_objects(tx, [lab.part.object_id])
    with pytest.raises(UnknownObjectError):
        lab.storage.inventory(lab.part.object_id)


def test_due_copies_come_with_the_oldest_first(lab: Lab) -> None:
    lab.make_part(FILES)
    with lab.db.begin() as tx:
        assert [copy.object_id for copy in lab.storage.due_copies(tx, lab.first, lab.created)] == [lab.part.object_id]
    lab.storage.verify_copy(lab.part.object_id, lab.first)
    with lab.db.begin() as tx:
        assert lab.storage.due_copies(tx, lab.first, lab.created) == []
        assert len(lab.storage.due_copies(tx, lab.first, lab.created + timedelta(days=1))) == 1


def test_objects_are_found_in_the_store_itself(lab: Lab, damaged: set[str]) -> None:
    lab.make_part(FILES)
    assert [(name, type(found).__name__) for name, found in lab.storage.iter_objects(lab.first)] == [
        (lab.part.object_id, "Inventory")
    ]
    damaged.add("first")
    flip(lab.object_folder("first") / "inventory.json")
    ((_, found),) = lab.storage.iter_objects(lab.first)
    assert isinstance(found, PerdureError)


def test_what_nobody_knows_leaves_staging(lab: Lab) -> None:
    lab.stage({b"a": b"1"})
    lab.storage.log_staged(lab.part, [b"{}"])
    upload_id = new_id()
    lab.storage.begin_upload(lab.part, upload_id, b"u", digests=lab.digests)
    later = lab.created + timedelta(days=36500)
    assert lab.storage.sweep_staging(lambda *_: False, lab.created - timedelta(days=36500)) == []
    assert lab.storage.sweep_staging(lambda *_: True, later) == []
    assert lab.storage.sweep_staging(lambda _, thing: thing == upload_id, later)
    assert list(lab.storage.iter_staged()) == []
    assert lab.storage.upload_offset(lab.part, upload_id) == 0


# Stores that are not there, or not ours


def test_a_store_that_is_not_mounted_makes_no_copy_suspect(lab: Lab) -> None:
    lab.make_part(FILES)
    (lab.folder / "first").rename(lab.folder / "unmounted")
    try:
        with pytest.raises(StoreUnavailableError):
            lab.storage.verify_copy(lab.part.object_id, lab.first)
        with pytest.raises(StoreUnavailableError):
            lab.read("a")
        with pytest.raises(StoreUnavailableError):
            lab.stage({b"x": b"1"})
        with pytest.raises(StoreUnavailableError):
            lab.open()
    finally:
        (lab.folder / "unmounted").rename(lab.folder / "first")
    assert lab.states(lab.part.object_id) == {"first": "written"}


def test_a_folder_with_something_else_is_no_store(lab: Lab) -> None:
    (lab.folder / "other").mkdir()
    (lab.folder / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(ForeignStoreError):
        PosixStore("other", lab.folder / "other").prepare(new_id())
    with pytest.raises(ForeignStoreError):
        PosixStore("first", lab.folder / "first").prepare(new_id())
    with pytest.raises(UnknownStoreError):
        lab.storage.place_copy(lab.part.object_id, new_id())


def test_a_second_store_that_is_down_is_left_out(lab: Lab) -> None:
    down = MemoryStore("down")
    down.is_down = True
    first = lab.open().stores()[0]
    storage: Storage = lab.open([PosixStore("first", lab.folder / "first"), down])
    assert storage.stores() == [first]
    down.is_down = False
    storage.prepare()
    assert [info.name for info in storage.stores()] == ["first", "down"]


def test_the_only_copy_stays_where_it_is(lab: Lab, damaged: set[str]) -> None:
    """Without another copy to place from, a doubt must not take the object out of the store."""
    lab.make_part(FILES)
    damaged.add("first")
    flip(lab.object_folder("first") / DATA / "big")
    lab.storage.verify_copy(lab.part.object_id, lab.first)
    for _ in range(2):
        with pytest.raises(NoGoodCopyError):
            lab.storage.place_copy(lab.part.object_id, lab.first)
    assert lab.object_folder("first").is_dir()
    assert lab.states(lab.part.object_id) == {"first": "suspect"}


@pytest.mark.parametrize("is_replaced", [True, False])
def test_what_changes_while_it_is_verified_is_not_verified(lab: Lab, damaged: set[str], is_replaced: bool) -> None:
    """A copy that was doubted, or written anew, while its reading went on was not read after its last write."""
    lab.make_part(FILES)
    lab.storage.place_copy(lab.part.object_id, lab.second)
    lab.storage.verify_copy(lab.part.object_id, lab.second)
    store = next(store for store in lab.storage._stores if store.info.id == lab.second)
    done: list[bool] = []

    def change(*so_far: int) -> None:
        if not done:
            done.append(True)
            lab.storage._sources.doubt(store, lab.part.object_id, StoreUnavailableError("A read failed."))
            if is_replaced:
                lab.storage.place_copy(lab.part.object_id, lab.second)

    assert lab.storage.verify_copy(lab.part.object_id, lab.second, progress=change).is_good
    assert lab.states(lab.part.object_id)["second"] == ("written" if is_replaced else "suspect")
