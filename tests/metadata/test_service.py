"""Reading, patching, copying and finding on a real PostgreSQL."""

from __future__ import annotations

import hashlib
import json
from uuid import UUID

import pytest
from sqlalchemy import select, text

from perdure.db import Database
from perdure.kernel.ids import new_id
from perdure.metadata import (
    BadMetadataError,
    NoSuchValueError,
    PatchDoesNotFitError,
    PatchItem,
    RevisionMismatchError,
    SubjectDigest,
)
from perdure.metadata.history import CHAIN_START
from perdure.metadata.ledger import EAGER_DIGEST_BYTES
from perdure.metadata.model import MAX_DEPTH, MAX_KEY_BYTES
from perdure.metadata.rows import PATH_KEY_BYTES, POINTER_KEY_BYTES
from perdure.metadata.tables import states

from .steps import ADA, METADATA, at, get, lines_of, put, rows_of

FILE = b"scan_001/frame.h5"


@pytest.fixture
def thing() -> UUID:
    return new_id()


def test_a_thing_without_metadata_is_an_empty_object(module_db: Database, thing: UUID) -> None:
    with module_db.begin() as tx:
        document = METADATA.read(tx, thing)
        assert (document.value, document.revision, document.digest, document.changed_at) == (b"{}", 0, None, None)
        assert METADATA.state(tx, thing).chain_digest == CHAIN_START
        assert METADATA.digests(tx, thing) == {}
        with pytest.raises(NoSuchValueError):
            METADATA.read(tx, thing, pointer="/a")


def test_what_was_written_is_read_letter_by_letter(module_db: Database, thing: UUID) -> None:
    document = '{"z":1.50,"a":{"é":{"value":1e-10,"unit":"Å"},"l":[1,{"k":[]}]},"e":{},"m":true}'.encode()
    with module_db.begin() as tx:
        METADATA.patch(tx, thing, b"", document, actor=ADA, now=at(0))
        assert METADATA.read(tx, thing).value == document


def test_a_part_is_read_by_its_pointer(module_db: Database, thing: UUID) -> None:
    with module_db.begin() as tx:
        put(tx, thing, {"a": {"b": {"c": [1, {"d": 2}]}, "x/y": 3}, "e": {"value": 4, "unit": "m"}})
        assert get(tx, thing, pointer="/a/b") == {"c": [1, {"d": 2}]}
        assert get(tx, thing, pointer="/a/b/c/1/d") == 2
        assert get(tx, thing, pointer="/a/x~1y") == 3
        assert get(tx, thing, pointer="/e/unit") == "m"
        for pointer in ("/a/b/c/2", "/a/b/c/-1", "/a/b/c/01", "/a/q", "/e/unit/x", "/aa"):
            with pytest.raises(NoSuchValueError):
                METADATA.read(tx, thing, pointer=pointer)
        with pytest.raises(BadMetadataError):
            METADATA.read(tx, thing, pointer="a")


def test_one_file_keeps_its_revision_when_another_changes(module_db: Database, thing: UUID) -> None:
    with module_db.begin() as tx:
        put(tx, thing, {"a": 1}, FILE)
        before = METADATA.read(tx, thing, FILE)
        put(tx, thing, {"a": 1}, b"other.h5")
        put(tx, thing, {"a": 1})
        assert METADATA.read(tx, thing, FILE) == before
        assert put(tx, thing, {"a": 2}, FILE).revision == 2
        assert METADATA.state(tx, thing).sequence == 4


def test_a_patch_that_changes_nothing_writes_nothing(module_db: Database, thing: UUID) -> None:
    with module_db.begin() as tx:
        put(tx, thing, {"a": {"b": 1}})
        before = rows_of(tx, thing)
        result = put(tx, thing, {"a": {"b": 1, "c": None}}, second=5)
        assert result.changes == ()
        assert result.revision == 1
        assert rows_of(tx, thing) == before


def test_an_expected_revision_is_required_to_be_the_present_one(module_db: Database, thing: UUID) -> None:
    with module_db.begin() as tx:
        METADATA.patch(tx, thing, FILE, b'{"a":1}', actor=ADA, now=at(0), expected_revision=0)
        METADATA.patch(tx, thing, FILE, b'{"a":2}', actor=ADA, now=at(0), expected_revision=1)
        before = rows_of(tx, thing)
        with pytest.raises(RevisionMismatchError) as caught:
            METADATA.patch(tx, thing, FILE, b'{"a":3}', actor=ADA, now=at(0), expected_revision=1)
        assert (caught.value.status, caught.value.extra["revision"]) == (412, 2)
        assert rows_of(tx, thing) == before


def test_a_refused_patch_of_many_changes_nothing(module_db: Database, thing: UUID) -> None:
    with module_db.begin() as tx:
        put(tx, thing, {"a": 1}, b"a")
        before = rows_of(tx, thing)
    items = [PatchItem(b"a", b'{"a":2}'), PatchItem(b"b", b'[{"op":"remove","path":"/x"}]', "json-patch")]
    with pytest.raises(PatchDoesNotFitError), module_db.begin() as tx:
        METADATA.patch_many(tx, thing, items, actor=ADA, now=at(1))
    with module_db.begin() as tx:
        assert rows_of(tx, thing) == before


def test_many_files_are_patched_at_once_and_one_file_twice_in_order(module_db: Database, thing: UUID) -> None:
    items = [PatchItem(b"f%d" % n, b'{"n":%d}' % n) for n in range(1200)] + [PatchItem(b"f7", b'{"n":8,"m":1}')]
    with module_db.begin() as tx:
        results = METADATA.patch_many(tx, thing, items, actor=ADA, now=at(0))
        assert [r.sequence for r in results] == list(range(1, 1202))
        assert results[-1].revision == 2
        assert get(tx, thing, b"f7") == {"n": 8, "m": 1}
        assert get(tx, thing, b"f1199") == {"n": 1199}


def test_paths_and_pointers_longer_than_an_index_entry(module_db: Database, thing: UUID) -> None:
    folder = b"d" * PATH_KEY_BYTES
    twins = [folder + b"/\xff1", folder + b"/\xff2", folder]
    key = "k" * MAX_KEY_BYTES
    deep: object = {"left": 1, "right": {"x": 2}}
    for _ in range(MAX_DEPTH - 3):
        deep = {key: deep}
    shared = "p" * (POINTER_KEY_BYTES // 2 - 1)
    with module_db.begin() as tx:
        for number, path in enumerate(twins):
            put(tx, thing, {"deep": deep, shared: {shared: {"a": {"v": number}, "b": 1}}}, path)
        pointer = "/deep" + f"/{key}" * (MAX_DEPTH - 3)
        METADATA.patch(
            tx,
            thing,
            twins[0],
            json.dumps([{"op": "remove", "path": f"{pointer}/right"}]).encode(),
            form="json-patch",
            actor=ADA,
            now=at(1),
        )
        assert get(tx, thing, twins[0], pointer=pointer) == {"left": 1}
        assert get(tx, thing, twins[1], pointer=pointer) == {"left": 1, "right": {"x": 2}}
        assert get(tx, thing, twins[2], pointer=f"/{shared}/{shared}/a") == {"v": 2}
        lines = list(METADATA.iter_snapshot_lines(tx, thing))
        assert len(lines) == len(set(lines)) == 3 * 4 - 1
        history, rows = lines_of(tx, thing), rows_of(tx, thing)
        METADATA.remove(tx, thing)
        METADATA.restore(tx, thing, history)
        assert rows_of(tx, thing) == rows


def test_the_longest_keys_fit_into_an_index(module_db: Database, thing: UUID) -> None:
    noise = "".join(chr(0x4E00 + n * 7919 % 20000) for n in range(MAX_KEY_BYTES // 3))
    path = b"/".join(hashlib.sha512(bytes([n])).digest().replace(b"/", b"x").replace(b"\0", b"x") for n in range(62))
    with module_db.begin() as tx:
        put(tx, thing, {noise: {noise: {noise: 1}}}, path)
        assert get(tx, thing, path) == {noise: {noise: {noise: 1}}}


def test_digests_are_what_an_outsider_computes_from_the_snapshot(module_db: Database, thing: UUID) -> None:
    with module_db.begin() as tx:
        put(tx, thing, {"b": 1.0, "a": {"x": "é", "-": [1]}}, FILE)
        put(tx, thing, {"t": "archive"})
        put(tx, thing, {"x": 1}, b"gone")
        METADATA.drop_values(tx, thing, [b"gone", b"never"], actor=ADA, now=at(1))
        lines = list(METADATA.iter_snapshot_lines(tx, thing))
        assert lines == [
            b'{"path":"","pointer":"/t","value":"archive"}\n',
            b'{"path":"scan_001/frame.h5","pointer":"/a/-","value":[1]}\n',
            '{"path":"scan_001/frame.h5","pointer":"/a/x","value":"é"}\n'.encode(),
            b'{"path":"scan_001/frame.h5","pointer":"/b","value":1.0}\n',
        ]
        digest = hashlib.sha512(b"".join(lines[1:])).hexdigest()
        assert METADATA.digests(tx, thing, [FILE, b"gone"]) == {FILE: SubjectDigest(digest, 1)}
        assert METADATA.read(tx, thing, FILE, pointer="/a").digest == digest
        assert set(METADATA.digests(tx, thing)) == {b"", FILE}


def test_the_digest_of_a_large_subject_is_computed_when_asked_for(module_db: Database, thing: UUID) -> None:
    with module_db.begin() as tx:
        assert put(tx, thing, {"a": "x" * EAGER_DIGEST_BYTES}).digest is None
        digest = hashlib.sha512(b"".join(METADATA.iter_snapshot_lines(tx, thing))).hexdigest()
        assert METADATA.read(tx, thing).digest == digest
        assert METADATA.digests(tx, thing) == {b"": SubjectDigest(digest, 1)}
        assert METADATA.read(tx, thing, pointer="/a").digest is None
        assert put(tx, thing, {"a": 1}).digest is not None


def test_dropped_values_are_a_change_and_the_revision_does_not_return(module_db: Database, thing: UUID) -> None:
    with module_db.begin() as tx:
        put(tx, thing, {"a": {"b": 1}, "c": {}}, FILE, second=0)
        (result,) = METADATA.drop_values(tx, thing, [FILE], actor=ADA, now=at(1))
        assert {(c.pointer, c.before, c.after) for c in result.changes} == {("/a/b", "1", None), ("/c", "{}", None)}
        assert METADATA.drop_values(tx, thing, [FILE], actor=ADA, now=at(2)) == []
        assert get(tx, thing, FILE) == {}
        assert get(tx, thing, FILE, as_of=at(0)) == {"a": {"b": 1}, "c": {}}
        assert put(tx, thing, {"new": 1}, FILE, second=3).revision == 3


def test_a_copy_is_by_value_and_its_own_history(module_db: Database, thing: UUID) -> None:
    child = new_id()
    with module_db.begin() as tx:
        put(tx, thing, {"z": {"value": 1.5, "unit": "eV"}, "a": {}})
        put(tx, thing, {"n": 1}, FILE)
        assert METADATA.copy(tx, thing, child, actor=ADA, now=at(1)) == 1
        assert get(tx, child, FILE) == {}
        assert METADATA.copy(tx, thing, child, actor=ADA, now=at(2), with_files=True) == 2
        put(tx, thing, {"z": None})
        assert METADATA.read(tx, child).value == b'{"z":{"value":1.5,"unit":"eV"},"a":{}}'
        assert get(tx, child, FILE) == {"n": 1}
        assert [c.path for c in METADATA.history(tx, child)] == [b"", FILE]
        before = rows_of(tx, child)
        history = lines_of(tx, child)
        METADATA.remove(tx, child)
        METADATA.restore(tx, child, history)
        assert rows_of(tx, child) == before


def test_history_tells_who_when_before_and_after(module_db: Database, thing: UUID) -> None:
    with module_db.begin() as tx:
        put(tx, thing, {"a": 1, "b": 1}, second=1)
        put(tx, thing, {"a": 2}, FILE, second=2)
        put(tx, thing, {"a": 3, "b": None}, second=3)
        changes = METADATA.history(tx, thing, b"")
        assert [(c.sequence, c.revision, c.at, c.actor_name) for c in changes] == [
            (1, 1, at(1), "Ada"),
            (3, 2, at(3), "Ada"),
        ]
        assert [(c.pointer, c.before, c.after) for c in changes[1].changes] == [("/b", "1", None), ("/a", "1", "3")]
        assert [c.sequence for c in METADATA.history(tx, thing, after_sequence=1, limit=1)] == [2]
        assert [c.sequence for c in METADATA.iter_changes(tx, thing, 2)] == [3]


def test_the_past_is_read_with_its_revision_and_digest(module_db: Database, thing: UUID) -> None:
    with module_db.begin() as tx:
        put(tx, thing, {"a": {"b": 1}}, second=1)
        then = METADATA.read(tx, thing)
        put(tx, thing, {"a": 5, "c": 1}, second=3)
        assert METADATA.read(tx, thing, as_of=at(2)) == then
        assert get(tx, thing, pointer="/a/b", as_of=at(1)) == 1
        assert METADATA.read(tx, thing, as_of=at(0)).revision == 0
        with pytest.raises(NoSuchValueError):
            METADATA.read(tx, thing, pointer="/c", as_of=at(2))


def test_a_clock_that_goes_back_does_not_disorder_the_history(module_db: Database, thing: UUID) -> None:
    with module_db.begin() as tx:
        put(tx, thing, {"a": 1}, second=10)
        put(tx, thing, {"a": 2}, second=5)
        assert [c.at for c in METADATA.history(tx, thing)] == [at(10), at(10)]


def test_a_huge_change_is_recorded_in_pieces(module_db: Database, thing: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.metadata.ledger.MAX_CHANGE_CHARACTERS", 100)
    with module_db.begin() as tx:
        put(tx, thing, {f"k{n}": "x" * 20 for n in range(20)}, second=1)
        put(tx, thing, {f"k{n}": None for n in range(20)} | {"k": 1}, second=2)
        assert METADATA.state(tx, thing).sequence > 4
        assert get(tx, thing) == {"k": 1}
        assert len(get(tx, thing, as_of=at(1))) == 20
        rows, history = rows_of(tx, thing), lines_of(tx, thing)
        METADATA.remove(tx, thing)
        METADATA.restore(tx, thing, history)
        assert rows_of(tx, thing) == rows


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("straße", True),
        ("STRASSE", True),
        ("energ", True),
        ("100%", True),
        ("1%0", False),
        ("a_b", True),
        ("axb", False),
        ("back\\slash", True),
        ("12.50", True),
        ("kev", True),
        ("2026-11", True),
        ("image/png", True),
        ("aaecaw", False),
        ("deep", True),
        ("in a list", True),
        ("absent", False),
    ],
)
def test_things_are_found_by_text_in_names_and_values(module_db: Database, wanted: str, found: bool) -> None:
    thing = new_id()
    with module_db.begin() as tx:
        put(tx, thing, {"Energy": {"value": 1, "unit": "keV"}, "deep": {"place": "Große Straße"}, "r": "100% a_b"})
        put(
            tx,
            thing,
            {
                "b": {"binary": "AAECAw==", "media_type": "image/png"},
                "d": {"date": "2026-11-20"},
                "l": [["In a List"], 12],
                "s": "back\\slash",
            },
            FILE,
        )
        METADATA.patch(tx, thing, FILE, b'{"n":12.50}', actor=ADA, now=at(0))
        things = tx.execute(METADATA.find_things(wanted)).scalars().all()
        assert (thing in things) is found
        listing = select(states.c.thing).where(states.c.thing.in_(METADATA.find_things(wanted)))
        assert (thing in tx.execute(listing).scalars().all()) is found


def test_removing_a_thing_leaves_nothing_of_it_and_all_of_others(module_db: Database, thing: UUID) -> None:
    other = new_id()
    with module_db.begin() as tx:
        put(tx, thing, {"a": 1}, FILE)
        put(tx, other, {"a": 1}, FILE)
        kept = rows_of(tx, other)
        METADATA.remove(tx, thing)
        assert not any(rows_of(tx, thing).values())
        assert rows_of(tx, other) == kept


def test_one_edit_of_a_big_document_writes_little(db: Database, thing: UUID) -> None:
    big = {f"scan_{n}": {f"motor_{m}": {"value": n * m, "unit": "mm"} for m in range(100)} for n in range(200)}
    with db.begin() as tx:
        put(tx, thing, big)
    with db.begin() as tx:
        start = tx.scalar(text("SELECT pg_current_wal_insert_lsn()"))
        put(tx, thing, {"scan_7": {"motor_3": {"value": 1}, "new": "x"}})
        written = tx.scalar(text("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), :start)"), {"start": start})
        rows = tx.execute(
            text("SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_xact_user_tables")
        ).scalar_one()
    assert 0 < rows <= 8
    assert 0 < written < 200_000


def test_one_edit_reads_the_rows_that_it_touches(db: Database, thing: UUID) -> None:
    with db.begin() as tx:
        put(tx, thing, {f"k{n}": {"a": n, "b": "x"} for n in range(3000)})
    with db.begin() as tx:
        query = text("SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables")
        put(tx, thing, {"k77": {"a": 1}})
        assert tx.execute(query).scalar_one() in range(1, 50)
