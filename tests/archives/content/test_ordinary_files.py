"""The fast ways for ordinary files, of which a batch has thousands, do what the ways for any entry do."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

from perdure.archives.entries import encode_ordinary, find_near, load_entries
from perdure.archives.errors import PathTakenError
from perdure.archives.items import BatchItem, find_batch_conflicts, find_item_problem
from perdure.archives.layers import line_of, to_manifest_entry
from perdure.archives.model import Entry, EntryKind
from perdure.archives.placing import reserve
from perdure.archives.receiving import Landing
from perdure.archives.tables import files
from perdure.db import Database
from perdure.formats.content_paths import natural_content_path
from perdure.formats.manifest import entry_to_line
from perdure.kernel.digests import digest_bytes
from perdure.kernel.paths import iter_ancestors
from perdure.storage.model import Received
from perdure.storage.source_files import iter_content_names

from .workshop import Workshop

LAYER, OTHER = UUID(int=1), UUID(int=2)
AT = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)
PATHS = [
    b"a",
    b"a/b",
    b"a-b",
    b"con",
    b"\xff",
    "\u00fc".encode(),
    b'"',
    b"\\",
    b"x y",
    b"_/a",
    b"d/e/f.h5",
    b"a.",
    b"D/E",
]
HALF = 1 << 62
WHOLE = st.integers(-HALF, HALF) | st.sampled_from([-(1 << 63) + 1, (1 << 63) - 1])


@st.composite
def entries(draw: st.DrawFn, path: bytes) -> Entry:
    """An entry of a part, as staging leaves it: most are ordinary files."""
    kind = draw(st.sampled_from([EntryKind.FILE] * 6 + [EntryKind.DIRECTORY, EntryKind.SYMLINK]))
    part, mtime_ns, mode = (
        draw(st.sampled_from([3, 3, 3, 4])),
        draw(st.none() | WHOLE),
        draw(st.none() | st.just(0o640)),
    )
    if kind is not EntryKind.FILE:
        target = b"t" if kind is EntryKind.SYMLINK else None
        return Entry(LAYER, path, kind, 0, mtime_ns, mode, {}, target, part)
    digests = digest_bytes(draw(st.binary(max_size=3)), ["sha512", "crc32", *draw(st.sets(st.just("md5")))])
    names = islice(iter_content_names(path, lambda count: "0" * 2 * count), 2)
    content = draw(st.sampled_from([*names]))
    return Entry(LAYER, path, kind, draw(st.integers(0, HALF)), mtime_ns, mode, digests, None, part, content)


MANY = st.sets(st.sampled_from(PATHS)).flatmap(lambda paths: st.tuples(*(entries(path) for path in sorted(paths))))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(MANY)
def test_rows_are_those_of_the_driver(module_db: Database, given_entries: tuple[Entry, ...]) -> None:
    found = []
    for as_staged in (False, True):
        with module_db.begin() as tx:
            tx.execute(delete(files))
            load_entries(module_db, tx, given_entries, content_digest="sha512", added_at=AT, as_staged=as_staged)
            found.append(tx.execute(select(files).order_by(files.c.path)).all())
    assert found[0] == found[1]
    assert len(found[0]) == len(given_entries)


def test_ordinary_files_are_encoded_and_nothing_else() -> None:
    digests = digest_bytes(b"", ["sha512", "crc32"])
    plain = Entry(LAYER, b"a", EntryKind.FILE, 0, 5, 0o640, digests, None, 3, "a")
    odd = [
        plain._replace(content="_/0123"),
        plain._replace(mtime_ns=None),
        plain._replace(mtime_ns=1 << 63),
        plain._replace(mode=None),
        plain._replace(part=4),
        plain._replace(archive_id=OTHER),
        plain._replace(target=b"t"),
        plain._replace(digests={**digests, "md5": "00"}),
        plain._replace(kind=EntryKind.DIRECTORY, content=None),
    ]
    encoded, others = encode_ordinary([plain, *odd], "sha512", AT)
    assert (encoded, others) == (encode_ordinary([plain], "sha512", AT)[0], odd)
    assert encode_ordinary(odd[:1], "sha512", AT) == (b"", odd[:1])


@given(MANY)
def test_lines_are_those_of_the_writer(given_entries: tuple[Entry, ...]) -> None:
    for entry in given_entries:
        assert line_of(entry) == entry_to_line(to_manifest_entry(entry))


def test_entries_of_files_that_were_copied_in_are_made_by_the_batch_as_alone(shop: Workshop) -> None:
    archive = shop.open()
    with shop.ctx.db.begin() as tx:
        room = reserve(tx, shop.ctx, shop.ada, archive, entries=2, size=3, expires_at=shop.clock.now())
    landing = Landing(shop.ctx, shop.ada, archive, room)
    kept = digest_bytes(b"abc", landing.digests_of(BatchItem(b"a")))
    taken = [
        (BatchItem(b"a", size=2, mtime_ns=1, mode=0o600), Received("a", 3, kept, 5, 0o640)),
        (BatchItem(b"b", size=3), Received("_/b", 3, kept | {"md5": "00"}, 5, 0o640)),
    ]
    entries = list(landing.iter_entries(taken))
    assert entries == [landing.make_entry(item, received) for item, received in taken]
    assert [entry.digests.keys() for entry in entries] == [kept.keys(), kept.keys()]


@given(st.binary(min_size=1, max_size=9) | st.sampled_from(PATHS))
def test_staging_gives_a_file_its_own_name_only_where_that_is_natural(path: bytes) -> None:
    for content in islice(iter_content_names(path), 3):
        assert content.encode() != path or content == natural_content_path(path)


@given(st.lists(st.tuples(st.sampled_from([b"a", b"a/b", b"a/b/c", b"a-b", b"d"]), st.sampled_from(EntryKind))))
def test_what_contradicts_an_earlier_item_is_found(given_items: list[tuple[bytes, EntryKind]]) -> None:
    kept: list[BatchItem] = []
    expected = set()
    for index, (path, kind) in enumerate(given_items):
        above = {one for item in kept for one in iter_ancestors(item.path)}
        plain = {item.path for item in kept if item.kind is not EntryKind.DIRECTORY}
        is_twice = path in {item.path for item in kept}
        if is_twice or plain & set(iter_ancestors(path)) or (kind is not EntryKind.DIRECTORY and path in above):
            expected.add(index)
        else:
            kept.append(BatchItem(path, kind))
    assert find_batch_conflicts([BatchItem(path, kind) for path, kind in given_items]).keys() == expected


@pytest.mark.parametrize(
    ("change", "is_taken"),
    [
        ({}, True),
        ({"size": -1}, False),
        ({"mtime_ns": (1 << 63) - 1}, True),
        ({"mtime_ns": 1 << 63}, False),
        ({"mtime_ns": -(1 << 63)}, False),
        ({"mtime_ns": None}, True),
        ({"mode": 0o7777}, True),
        ({"mode": 0o10000}, False),
        ({"mode": -1}, False),
        ({"mode": None}, True),
        ({"target": b"t"}, False),
        ({"digests": {"md5": "00"}}, False),
        ({"path": b"a/../b"}, False),
        ({"kind": EntryKind.DIRECTORY}, False),  # with a size
        ({"kind": EntryKind.HIDDEN}, False),
    ],
)
def test_an_item_is_taken_for_its_path_and_figures(change: dict[str, Any], is_taken: bool) -> None:
    item = BatchItem(b"a/b", EntryKind.FILE, 3, 5, 0o640)._replace(**change)
    assert (find_item_problem(item) is None) is is_taken


def test_a_folder_is_seen_whose_content_comes_after_all_of_a_batch(shop: Workshop) -> None:
    archive = shop.open()
    shop.put(archive, b"a/x", b"1")
    batch = {b"a": b"2"} | {b"a-%03d" % number: b"" for number in range(300)}  # "-" before "/"
    results = {result.path: result.reason for result in shop.put_all(archive, batch)}
    assert results.pop(b"a") == "a folder with content has this path"
    assert set(results.values()) == {None}


def test_what_is_far_from_all_that_is_there_is_not_looked_at_closely(shop: Workshop) -> None:
    archive = shop.open()
    shop.put(archive, b"f/0300/x", b"1")
    paths = [b"f/%04d" % number for number in range(1000)]
    with shop.ctx.db.begin() as tx:
        assert find_near(tx, archive.id, paths[::-1]) == paths[250:500]


def test_one_of_many_that_is_in_the_way_is_refused(shop: Workshop) -> None:
    archive = shop.open()
    shop.put(archive, b"f/0300/x", b"1")
    with pytest.raises(PathTakenError, match="a folder with content"):
        shop.put(archive, b"f/0300", b"2")
    results = shop.put_all(archive, {b"f/%04d" % number: b"" for number in range(1000)})
    assert [result.path for result in results if not result.stored] == [b"f/0300"]
    results = shop.put_all(archive, {b"f/0400/%04d" % number: b"" for number in range(300)})
    assert {result.reason for result in results} == {"'f/0400' is a file, not a folder"}
