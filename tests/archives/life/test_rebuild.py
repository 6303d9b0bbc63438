"""The stores alone give the database back, table by table (I9)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from perdure.adapters.posix.store import PosixStore
from perdure.adapters.signing import FileSigner
from perdure.archives import model
from perdure.archives.closing import Closing
from perdure.archives.errors import DatabaseBehindError, PathTakenError, StoresNotEmptyError
from perdure.archives.exporting import export_events, export_registry, keep_position, log_id, require_position
from perdure.archives.filling import Filling
from perdure.archives.heads import Heads
from perdure.archives.items import BatchItem
from perdure.archives.model import Access, EntryKind
from perdure.archives.reading import Reading
from perdure.archives.rebuild import compare, rebuild
from perdure.archives.records import Context
from perdure.archives.sealing import Sealing
from perdure.identity import Grantee, Role
from perdure.jobs.worker import run_pending
from perdure.kernel.actor import Actor
from perdure.sharing.links import LinkRequest, Links
from perdure.sharing.model import LinkKind
from perdure.sharing.restoring import restore_links
from perdure.sharing.rows import count_start, count_use
from perdure.sharing.storing import store_all
from perdure.sharing.upkeep import tell_use
from perdure.storage.errors import StoreFailedError

from .house import INSTANCE, PASSWORD, House, list_superseded, make_sealing, put, shown


def _live(house: House, ada: Actor, bob: Actor) -> None:
    """A closed archive with a child, an open one, a discarded and a withdrawn one, changes in heads and in journals."""
    parent = house.open(ada)
    house.fill(parent, {b"a/x.dat": b"one", b"b \xff.dat": b"two", b"empty": b""})
    house.describing.patch_metadata(ada, parent.id, b"", b'{"beam":{"value":1.50,"unit":"eV"},"n":[1,2]}')
    house.describing.patch_metadata(ada, parent.id, b"a/x.dat", b'{"note":"file"}')
    parent = house.close(parent)
    house.describing.patch_metadata(ada, parent.id, b"", b'{"later":true}')
    house.clock.move(hours=1)
    house.life.describe(ada, parent.id, {"tags": ["late"]})
    house.life.set_access(ada, parent.id, Access.PUBLIC)
    child = house.life.append_to(ada, parent.id, {"title": "Child"})
    grant = house.life.grant(ada, child.id, Grantee(identity_id=bob.identity_id), Role.READER)
    house.life.grant(ada, child.id, Grantee(identity_id=bob.identity_id), Role.CONTRIBUTOR)
    house.life.revoke(ada, child.id, grant.id)
    _make_links(house, ada, parent.id, child.id)
    rejected = house.open(ada)
    house.describing.patch_metadata(ada, rejected.id, b"", b'{"said":"in vain"}')
    house.heads.fold(rejected.id)
    house.describing.patch_metadata(ada, rejected.id, b"", b'{"said":"again"}')
    house.life.discard(ada, rejected.id)
    gone = house.open(ada)
    house.fill(gone, {b"gone": b"away"})
    house.close(gone)
    house.life.request_withdrawal(ada, gone.id, "Wrong sample.")
    run_pending(house.ctx.jobs)
    house.clock.move(hours=1)
    export_registry(house.ctx)
    export_events(house.ctx)


def _make_links(house: House, ada: Actor, closed: UUID, filled: UUID) -> None:
    """Of every kind, in every state."""
    links, later = Links(house.ctx, Reading(house.ctx)), house.clock.now() + timedelta(days=3)
    for kind in LinkKind:
        archive = filled if kind is LinkKind.DROP else closed
        links.make_link(ada, archive, LinkRequest(kind, f"a {kind} link"))
    links.make_link(ada, filled, LinkRequest(LinkKind.DROP, "drop", path=b"in box/\xff", password=PASSWORD))
    wanted = LinkRequest(LinkKind.READ, "limited", path=b"a/x.dat", download_limit=2, expires_at=later)
    links.make_link(ada, closed, wanted)
    links.make_link(ada, closed, LinkRequest(LinkKind.READ, "pinned", is_pinned=True))
    links.make_link(ada, closed, LinkRequest(LinkKind.READ, "waits", only_when_closed=True))
    _, revoked = links.make_link(ada, closed, LinkRequest(LinkKind.READ, "revoked"))
    house.clock.move(minutes=1)
    links.revoke_link(ada, closed, revoked.id)


def test_every_derived_table_comes_back(house: House, fresh: Context, ada: Actor, bob: Actor) -> None:
    _live(house, ada, bob)
    report = rebuild(fresh, restorers=[restore_links])
    assert report.problems == []
    assert (report.archives, report.parts) == (4, 1)
    assert compare(house.ctx.db, fresh.db) == []
    with fresh.db.begin() as tx:
        assert not tx.execute(text("SELECT value FROM metadata_values WHERE value LIKE '%vain%'")).all()
        assert not tx.execute(text("SELECT changes FROM metadata_changes WHERE changes LIKE '%vain%'")).all()


def test_links_come_back_as_they_were_used(house: House, fresh: Context, ada: Actor) -> None:
    archive = house.open(ada)
    house.fill(archive, {b"a": b"one"})
    house.close(archive)
    links = Links(house.ctx, Reading(house.ctx))
    secret, plain = links.make_link(ada, archive.id, LinkRequest(LinkKind.READ, "plain"))
    _, limited = links.make_link(ada, archive.id, LinkRequest(LinkKind.READ, "limited", download_limit=2))
    for day in range(3):
        for link in (plain, limited):
            with house.ctx.db.begin() as tx:
                count_use(tx, link.id, house.clock.now())
                assert count_start(tx, link, b"file a", "::1", house.clock.now(), goes_on=False) == (
                    link is plain or day < 2
                )
        house.clock.move(days=1)
    tell_use(house.ctx)
    assert store_all(house.ctx) == 1
    assert store_all(house.ctx) == 0
    export_registry(house.ctx)
    export_events(house.ctx)
    written = [path.read_bytes() for root in house.roots for path in root.rglob("links/*.ndjson")]
    assert written
    assert not [data for data in written if secret.encode() in data]
    assert rebuild(fresh, restorers=[restore_links]).problems == []
    assert compare(house.ctx.db, fresh.db) == []
    counts = text("SELECT name, uses, downloads, digest FROM links ORDER BY name")
    with house.ctx.db.begin() as was, fresh.db.begin() as tx:
        found = tx.execute(counts).all()
        assert found == was.execute(counts).all()
        assert [tuple(row)[:3] for row in found] == [("limited", 3, 2), ("plain", 3, 3)]
    assert store_all(fresh) == 0


def test_a_link_that_was_revoked_while_every_store_was_out_stays_revoked(
    house: House, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log tells of it, if it came to the stores at least; and what was not written is written later."""
    archive = house.open(ada)
    links = Links(house.ctx, Reading(house.ctx))
    _, link = links.make_link(ada, archive.id, LinkRequest(LinkKind.METADATA, "one"))

    def fail(*_: object, **__: object) -> None:
        raise StoreFailedError("The stores are out.")

    with monkeypatch.context() as out:
        out.setattr(house.ctx.storage, "write_head", fail)
        links.revoke_link(ada, archive.id, link.id)
    export_registry(house.ctx)
    export_events(house.ctx)
    assert rebuild(fresh, restorers=[restore_links]).problems == []
    assert compare(house.ctx.db, fresh.db) == []
    assert store_all(house.ctx) == store_all(fresh) == 1
    with house.ctx.db.begin() as tx:
        assert tx.execute(text("SELECT revoked_at IS NOT NULL FROM links")).scalar_one()


def test_links_of_an_archive_that_is_lost_are_told_of(house: House, fresh: Context, ada: Actor) -> None:
    lost = house.open(ada)
    Links(house.ctx, Reading(house.ctx)).make_link(ada, lost.id, LinkRequest(LinkKind.METADATA, "one"))
    export_registry(house.ctx)
    for root in house.roots:
        for record in (root / "root").rglob("archive.json"):
            record.write_bytes(record.read_bytes().replace(b"leaf", b"LEAF"))
    house.damaged = True
    report = rebuild(fresh, restorers=[restore_links])
    assert [line for line in report.problems if "links of an archive that did not come back" in line]
    with fresh.db.begin() as tx:
        assert not tx.execute(text("SELECT 1 FROM links")).all()


def test_archives_in_the_making_come_back(house: House, fresh: Context, ada: Actor, tmp_path: Path) -> None:
    """What filling and closing really leave: staged entries, replaced and removed ones, hiding, a signed statement."""
    filling = Filling(house.ctx)
    signer = FileSigner(tmp_path / "keys", house.clock)
    signer.prepare()
    closing = Closing(house.ctx, house.heads, signer)
    parent = house.open(ada)
    put(filling, ada, parent.id, {b"a/1": b"one", b"a/2": b"two", b"CASE": b"x", b"case": b"y"})
    closing.close(ada, parent.id)
    run_pending(house.ctx.jobs, include_scheduled=True)
    child = house.life.append_to(ada, parent.id)
    put(filling, ada, child.id, {b"a/2": b"new", b"b": b"1", b"c": b"2", b"d/e": b"3"})
    put(filling, ada, child.id, {b"b": b"replaced"})
    for path in (b"c", b"d/e", b"a/1"):
        house.describing.patch_metadata(ada, child.id, path, b'{"said":"of it"}')
    filling.remove(ada, child.id, [b"c"])
    filling.hide(ada, child.id, [b"a"])
    described = house.ctx.metadata.paths
    with house.ctx.db.begin() as tx:
        assert described(tx, child.id) == [b"d/e"]
    house.describing.patch_metadata(ada, child.id, b"b", b'{"in":"journal"}')
    export_registry(house.ctx)
    export_events(house.ctx)
    report = rebuild(fresh)
    assert report.problems == []
    assert compare(house.ctx.db, fresh.db) == []
    with fresh.db.begin() as tx:
        state = tx.execute(text("SELECT identifier_state FROM archives WHERE id = :id"), {"id": parent.id}).scalar_one()
    assert state == "registered"
    assert house.look(parent.id).state == "closed"


def test_what_was_refused_takes_nothing_from_what_was_there(house: House, fresh: Context, ada: Actor) -> None:
    """The log of entries names bytes that were discarded again; what lay at their path before is still there."""
    filling = Filling(house.ctx)
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"kept": b"first", b"twice": b"one"})
    put(filling, ada, archive.id, {b"twice": b"two"})
    for path in (b"kept", b"twice"):
        late = filling.begin_file(ada, archive.id, path, 5, replace=False)
        late.write(b"later")
        with pytest.raises(PathTakenError):
            late.finish()
    export_registry(house.ctx)
    export_events(house.ctx)
    report = rebuild(fresh)
    assert report.problems == []
    assert compare(house.ctx.db, fresh.db) == []


def test_an_unreadable_inventory_stops_no_rebuild(
    house: House, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = house.open(ada), house.open(ada)
    export_registry(house.ctx)
    read = PosixStore.read_object

    def fail(self: PosixStore, object_id: str, *arguments: Any) -> Iterator[bytes]:
        if object_id == bad.id.urn:
            raise StoreFailedError("The medium failed: input/output error.")
        return read(self, object_id, *arguments)

    monkeypatch.setattr(PosixStore, "read_object", fail)
    report = rebuild(fresh)
    assert report.archives == 1
    assert any(bad.id.urn in line for line in report.problems)
    with fresh.db.begin() as tx:
        assert tx.execute(text("SELECT id FROM archives")).scalars().all() == [good.id]


def test_a_damaged_journal_is_read_from_another_store_and_reported(house: House, fresh: Context, ada: Actor) -> None:
    archive = house.open(ada)
    house.heads.ensure_written(archive.id)
    for title in ("One", "Two", "Three"):
        house.life.describe(ada, archive.id, {"title": title})
    house.ctx.journal.flush(archive.id)
    export_registry(house.ctx)
    journal = house.roots[0] / "journal" / f"{archive.id}.ndjson"
    journal.write_bytes(journal.read_bytes().replace(b"One", b"ONE", 1))
    report = rebuild(fresh)
    assert [line for line in report.problems if "journal" in line and " in one," in line]
    assert report.archives == 1
    with fresh.db.begin() as tx:
        assert tx.execute(text("SELECT description ->> 'title' FROM archives")).scalar_one() == "Three"


def test_a_broken_event_log_is_reported(house: House, fresh: Context, ada: Actor) -> None:
    house.open(ada)
    export_registry(house.ctx)
    export_events(house.ctx)
    for root in house.roots:
        for segment in (root / "root").rglob("events/*.ndjson"):
            segment.write_bytes(segment.read_bytes().replace(b"archive", b"ARCHIVE"))
    house.damaged = True
    report = rebuild(fresh)
    assert report.archives == 1
    assert any("events" in line for line in report.problems)


def test_what_was_removed_stays_away_when_parts_are_numbered_anew(
    house: House, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that held nothing is dropped, so that a rebuild counts the staged parts after it one lower."""
    monkeypatch.setattr(model, "MAX_PART_FILES", 2)
    filling, sealing = Filling(house.ctx), make_sealing(house.ctx, house.heads)
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"1": b"one", b"2": b"two"})
    folder = filling.begin_batch(ada, archive.id, [BatchItem(b"folder", EntryKind.DIRECTORY, 0)])
    assert all(result.stored for result in folder.finish())
    put(filling, ada, archive.id, {b"kept": b"x"})
    filling.remove(ada, archive.id, [b"1", b"2"])
    assert sealing.seal(archive.id, 1)
    filling.remove(ada, archive.id, [b"folder"])
    export_registry(house.ctx)
    report = rebuild(fresh)
    assert report.problems == []
    assert shown(fresh) == {(b"kept", 1)}


@pytest.mark.parametrize("content", [b"late", b"sealed"])
def test_a_late_file_and_the_same_path_sealed_in_a_newer_part(
    house: House, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """What was acknowledged last is shown, and what was never acknowledged takes nothing from what is sealed.

    It is told of, unless both are the same: whoever asked again after a death has what he asked for.
    """
    monkeypatch.setattr(model, "MAX_PART_FILES", 1)
    filling, sealing = Filling(house.ctx), make_sealing(house.ctx, house.heads)
    archive = house.open(ada)
    late = filling.begin_file(ada, archive.id, b"x", len(content))
    put(filling, ada, archive.id, {b"x": b"sealed"})
    put(filling, ada, archive.id, {b"other": b"1"})
    assert sealing.seal(archive.id, 2)
    late.write(content)
    monkeypatch.setattr("perdure.archives.receiving.put_entries", _fail)
    with pytest.raises(RuntimeError):
        late.finish()
    export_registry(house.ctx)
    report = rebuild(fresh)
    is_told = any("'x' is not shown" in line for line in report.problems)
    assert is_told == (content != b"sealed")
    assert shown(fresh) >= {(b"x", 2)}


def test_a_staged_file_in_place_of_a_sealed_one_supersedes_it(
    house: House, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its note may be missing: it is written after the commit."""
    monkeypatch.setattr(model, "MAX_PART_FILES", 1)
    filling, sealing = Filling(house.ctx), make_sealing(house.ctx, house.heads)
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"x": b"sealed"})
    put(filling, ada, archive.id, {b"other": b"1"})
    assert sealing.seal(archive.id, 1)
    monkeypatch.setattr("perdure.archives.receiving.carry_out", lambda *_: None)
    put(filling, ada, archive.id, {b"x": b"newer"})
    export_registry(house.ctx)
    assert rebuild(fresh).problems == []
    assert shown(fresh) == {(b"other", 2), (b"x", 3)}
    assert list_superseded(fresh) == [(1, b"x")]


def test_a_part_in_the_root_that_no_head_names_is_adopted_and_sealed_to_its_end(
    house: House, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is lost between the rename of the part and the head's next version."""
    filling, sealing = Filling(house.ctx), make_sealing(house.ctx, house.heads)
    monkeypatch.setattr(model, "MAX_PART_FILES", 2)
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"a": b"1", b"gone": b"2"})
    put(filling, ada, archive.id, {b"b": b"3"})
    monkeypatch.setattr(Sealing, "_record", _fail)
    with pytest.raises(RuntimeError):
        sealing.seal(archive.id, 1)
    filling.remove(ada, archive.id, [b"gone"])
    monkeypatch.undo()
    export_registry(house.ctx)
    make_sealing(fresh, Heads(fresh))
    assert rebuild(fresh).problems == []
    assert shown(fresh) == {(b"a", 1), (b"b", 2)}
    run_pending(fresh.jobs)
    with fresh.db.begin() as tx:
        found = tx.execute(text("SELECT number, state, file_count FROM parts ORDER BY number"))
        assert [tuple(row) for row in found] == [(1, "sealed", 2), (2, "filling", 1)]
    assert list_superseded(fresh) == [(1, b"gone")]
    assert "checksums/part-0001.ndjson.gz" in fresh.storage.head_state(archive.id.urn)
    assert len(list(fresh.storage.iter_staged())) == 1


def _fail(*_: object, **__: object) -> None:
    raise RuntimeError("The process ends here.")


def test_comparing_sees_one_changed_value(house: House, fresh: Context, ada: Actor, bob: Actor) -> None:
    _live(house, ada, bob)
    rebuild(fresh, restorers=[restore_links])
    with fresh.db.begin() as tx:
        tx.execute(text("UPDATE files SET mode = 384 WHERE path = 'empty'"))
        tx.execute(text("DELETE FROM grants WHERE role = 'contributor'"))
    assert [line.split(":")[0] for line in compare(house.ctx.db, fresh.db)] == ["grants", "files"]


def test_rebuild_refuses_a_database_in_use(house: House, ada: Actor) -> None:
    house.open(ada)
    with pytest.raises(StoresNotEmptyError):
        rebuild(house.ctx)


def test_a_rebuilt_database_is_not_behind_its_stores(house: House, fresh: Context, ada: Actor) -> None:
    """The events since the last export are lost with the database that numbered them."""
    house.open(ada)
    export_registry(house.ctx)
    exported = export_events(house.ctx)
    house.open(ada)
    house.ctx.events.sequence_pending()
    assert keep_position(house.ctx) > exported
    with pytest.raises(DatabaseBehindError):
        require_position(fresh)
    assert rebuild(fresh).problems == []
    require_position(fresh)
    assert keep_position(fresh) == exported


def test_damage_is_reported_and_the_rest_comes_back(house: House, fresh: Context, ada: Actor) -> None:
    good, bad = house.open(ada), house.open(ada)
    export_registry(house.ctx)
    for root in house.roots:
        for record in (root / "root").rglob("archive.json"):
            if str(bad.id).encode() in record.read_bytes():
                record.write_bytes(record.read_bytes().replace(b"leaf", b"LEAF"))
    house.damaged = True
    report = rebuild(fresh)
    assert report.archives == 1
    assert any(bad.id.urn in line for line in report.problems)
    with fresh.db.begin() as tx:
        assert tx.execute(text("SELECT id FROM archives")).scalars().all() == [good.id]


def test_export_of_events_goes_on_in_the_same_segment(house: House, ada: Actor) -> None:
    first = export_events(house.ctx)
    house.open(ada)
    second = export_events(house.ctx)
    assert second > first
    third = house.ctx.storage.head_state(log_id(INSTANCE, house.clock.now()).urn)
    assert list(third) == [f"events/000000000001-{second:012d}.ndjson"]


def test_what_a_newer_part_displaces_is_counted_once(
    house: House, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unacknowledged file is in the log of one part, and was sent again into the next."""
    monkeypatch.setattr(model, "MAX_PART_FILES", 1)
    filling = Filling(house.ctx)
    archive = house.open(ada)
    with monkeypatch.context() as dying:
        dying.setattr("perdure.archives.receiving.put_entries", _fail)
        with pytest.raises(RuntimeError):
            put(filling, ada, archive.id, {b"x": b"sent"})
    put(filling, ada, archive.id, {b"x": b"sent"})
    export_registry(house.ctx)
    assert rebuild(fresh).problems == []
    assert shown(fresh) == {(b"x", 2)}
    with fresh.db.begin() as tx:
        assert tx.execute(text("SELECT sum(file_count), sum(byte_count) FROM parts")).one() == (1, 4)
        assert tx.execute(text("SELECT file_count, byte_count FROM account_usage")).one() == (1, 4)


def test_a_file_and_a_folder_of_one_name_both_come_back_and_are_reported(
    house: House, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that died before it was refused is in the log like one that was acknowledged."""
    filling = Filling(house.ctx)
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"a/b": b"acknowledged", b"c": b"acknowledged"})
    monkeypatch.setattr("perdure.archives.receiving.put_entries", _fail)
    for path in (b"a", b"c/d"):
        with pytest.raises(RuntimeError):
            put(filling, ada, archive.id, {path: b"never"})
    export_registry(house.ctx)
    problems = rebuild(fresh).problems
    assert ["'a' is a file and a folder" in line for line in problems] == [True, False]
    assert "'c' is a file and a folder" in problems[1]
    assert {path for path, _ in shown(fresh)} == {b"a/b", b"a", b"c", b"c/d"}
