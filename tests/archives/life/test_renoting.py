"""A process that ends between the line of an entry and its commit: a rebuild long after shows what the database did."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from sqlalchemy import delete, select, text

from perdure.archives import model, receiving, removing, renoting, sealing
from perdure.archives.entries import find_own
from perdure.archives.errors import DatabaseBehindError, PathTakenError, UploadEndedError
from perdure.archives.exporting import keep_position
from perdure.archives.filling import Filling
from perdure.archives.items import BatchItem
from perdure.archives.model import Archive, EntryKind
from perdure.archives.rebuild import compare, rebuild
from perdure.archives.receiving import BatchReceiver
from perdure.archives.records import Context
from perdure.archives.tables import files, uploads
from perdure.db import Database
from perdure.kernel.actor import Actor
from perdure.storage import service
from perdure.storage.errors import StoreFailedError, StoreUnavailableError
from perdure.storage.model import JournalRead, PartRef
from perdure.storage.service import Storage

from .house import House, context_on, make_sealing, put, shown

Act = Callable[[Filling, Actor, Archive], object]
LOST_ON_PURPOSE = {"files": ("added_at",), "superseded": ("at",), "account_usage": ("reserved_bytes",)}


class Ended(BaseException):
    """The process ended: nothing in it runs any more."""


@pytest.fixture
def filling(house: House) -> Filling:
    return Filling(house.ctx)


def end_at(monkeypatch: pytest.MonkeyPatch, module: Any, point: str, act: Callable[[], object]) -> None:
    def end(name: str) -> None:
        if name == point:
            raise Ended

    with monkeypatch.context() as patched:
        patched.setattr(module, "crash_point", end)
        with pytest.raises(Ended):
            act()


def end_before_commit(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    end_at(monkeypatch, receiving, "fill.synced", act)


def require_same(house: House, fresh: Context) -> None:
    report = rebuild(fresh)
    assert report.problems == []
    assert compare(house.ctx.db, fresh.db, tables=LOST_ON_PURPOSE) == []


def send(filling: Filling, actor: Actor, archive: Archive, *items: BatchItem, data: bytes = b"") -> None:
    receiver = filling.begin_batch(actor, archive.id, list(items))
    receiver.write(data)
    receiver.finish()


def replace(filling: Filling, actor: Actor, archive: Archive) -> None:
    send(filling, actor, archive, BatchItem(b"p", EntryKind.FILE, 5), data=b"never")


def link(filling: Filling, actor: Actor, archive: Archive) -> None:
    put_link(filling, actor, archive, b"never")


def put_link(filling: Filling, actor: Actor, archive: Archive, target: bytes) -> None:
    send(filling, actor, archive, BatchItem(b"p", EntryKind.SYMLINK, target=target))


def make_folder(filling: Filling, actor: Actor, archive: Archive) -> None:
    send(filling, actor, archive, BatchItem(b"p", EntryKind.DIRECTORY))


def put_below(filling: Filling, actor: Actor, archive: Archive) -> None:
    send(filling, actor, archive, BatchItem(b"p/below", EntryKind.FILE, 5), data=b"never")


def put_if_absent(filling: Filling, actor: Actor, archive: Archive) -> None:
    receiver = filling.begin_file(actor, archive.id, b"p", 5, replace=False)
    receiver.write(b"never")
    receiver.finish()


def put_beside(filling: Filling, actor: Actor, archive: Archive) -> None:
    send(filling, actor, archive, BatchItem(b"new", EntryKind.FILE, 5), data=b"never")


ACTS: list[Act] = [replace, link, make_folder, put_below, put_if_absent, put_beside]


def lapse(house: House, filling: Filling) -> None:
    house.clock.move(minutes=10)
    filling.expire_uploads()


@pytest.mark.parametrize("act", ACTS)
def test_what_never_came_is_not_shown_once_its_reservation_is_over(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"p": b"acknowledged", b"kept": b"1"})
    end_before_commit(monkeypatch, lambda: act(filling, ada, archive))
    lapse(house, filling)
    with house.ctx.db.begin() as tx:
        assert tx.execute(select(uploads)).all() == []
    require_same(house, fresh)
    assert shown(fresh) == {(b"p", 1), (b"kept", 1)}


@pytest.mark.parametrize("act", [replace, link, put_below, put_beside])
def test_what_was_sent_again_and_removed_since_stays_away(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"p": b"acknowledged"})
    end_before_commit(monkeypatch, lambda: act(filling, ada, archive))
    lapse(house, filling)
    filling.remove(ada, archive.id, [b"p"])
    put(filling, ada, archive.id, {b"p": b"newest", b"new": b"newest"})
    filling.remove(ada, archive.id, [b"new"])
    require_same(house, fresh)
    assert shown(fresh) == {(b"p", 1)}


def test_an_upload_that_ended_while_it_was_finished_and_goes_on_never(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is kept for days; its log is right long before."""
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"p": b"acknowledged"})
    view = filling.create_upload(ada, archive.id, b"p", 5)
    receiver = filling.open_upload(ada, view.id, 0)
    receiver.write(b"never")
    end_before_commit(monkeypatch, receiver.finish)
    receiver.close()
    lapse(house, filling)
    require_same(house, fresh)
    assert [one.id for one in filling.list_uploads(ada, archive.id)] == [view.id]


def test_an_upload_that_ended_while_it_was_finished_and_goes_on(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"p": b"old"})
    view = filling.create_upload(ada, archive.id, b"p", 5)
    receiver = filling.open_upload(ada, view.id, 0)
    receiver.write(b"newer")
    end_before_commit(monkeypatch, receiver.finish)
    receiver.close()
    lapse(house, filling)
    again = filling.open_upload(ada, view.id, 5)
    again.finish()
    again.close()
    require_same(house, fresh)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("point", ["renote.counted", "renote.noted"])
def test_putting_it_right_may_end_anywhere(
    house: House,
    filling: Filling,
    make_database: Callable[[], Database],
    ada: Actor,
    monkeypatch: pytest.MonkeyPatch,
    act: Act,
    point: str,
) -> None:
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"p": b"acknowledged"})
    end_before_commit(monkeypatch, lambda: act(filling, ada, archive))
    end_at(monkeypatch, renoting, point, lambda: lapse(house, filling))
    if point == "renote.noted":
        require_same(house, context_on(house, make_database()))
    lapse(house, filling)
    require_same(house, context_on(house, make_database()))
    with house.ctx.db.begin() as tx:
        assert tx.execute(select(uploads)).all() == []


@pytest.mark.parametrize("act", [replace, link])
def test_what_was_noted_before_the_log_was_put_right_and_committed_after_it_stays(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    archive = house.open(ada)
    put_link(filling, ada, archive, b"old")
    end_before_commit(monkeypatch, lambda: act(filling, ada, archive))
    house.clock.move(minutes=10)

    def expire(name: str) -> None:
        if name == "fill.synced":
            filling.expire_uploads()

    monkeypatch.setattr(receiving, "crash_point", expire)
    put_link(filling, ada, archive, b"newest")
    require_same(house, fresh)


def test_what_was_noted_before_a_refusal_and_committed_after_it_stays(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refused line takes nothing away: what it did not replace is noted again, behind the line of the other."""
    archive = house.open(ada)
    put_link(filling, ada, archive, b"old")

    def refuse(name: str) -> None:
        if name == "fill.synced":
            monkeypatch.setattr(receiving, "crash_point", lambda name: None)
            with pytest.raises(PathTakenError):
                put_if_absent(filling, ada, archive)

    monkeypatch.setattr(receiving, "crash_point", refuse)
    put_link(filling, ada, archive, b"newest")
    require_same(house, fresh)


@pytest.mark.parametrize("is_ended", [False, True])
@pytest.mark.parametrize("act", [replace, link])
def test_what_was_reserved_and_noted_while_the_log_was_put_right_stays(
    house: House,
    filling: Filling,
    fresh: Context,
    ada: Actor,
    monkeypatch: pytest.MonkeyPatch,
    act: Act,
    is_ended: bool,
) -> None:
    """It was reserved after the count, so that only the second one tells that its line came too early.

    Where putting it right ends before that is committed, the line itself tells that it comes later.
    """
    archive = house.open(ada)
    put_link(filling, ada, archive, b"old")
    end_before_commit(monkeypatch, lambda: act(filling, ada, archive))
    noted, is_over = Event(), Event()

    def wait(name: str) -> None:
        if name == "fill.synced":
            noted.set()
            assert is_over.wait(60)

    with ThreadPoolExecutor(1) as other:

        def put_meanwhile(name: str) -> None:
            if name == "renote.counted":
                landing.append(other.submit(put_link, filling, ada, archive, b"newest"))
                assert noted.wait(60)
            elif is_ended:
                raise Ended

        landing: list[Future[None]] = []
        monkeypatch.setattr(receiving, "crash_point", wait)
        monkeypatch.setattr(renoting, "crash_point", put_meanwhile)
        with pytest.raises(Ended) if is_ended else nullcontext():
            lapse(house, filling)
        is_over.set()
        landing[0].result()
    require_same(house, fresh)


def test_who_gives_up_after_his_line_lets_the_log_be_put_right(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link has no bytes whose absence tells that it never came."""
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"p": b"acknowledged"})
    receiver = filling.begin_batch(ada, archive.id, [BatchItem(b"p", EntryKind.SYMLINK, target=b"never")])
    end_before_commit(monkeypatch, receiver.finish)
    receiver.abort()
    filling.expire_uploads()
    require_same(house, fresh)


def test_who_comes_too_late_takes_his_lines_away(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"p": b"acknowledged"})

    def stall(name: str) -> None:
        if name == "fill.synced":
            lapse(house, filling)

    monkeypatch.setattr(receiving, "crash_point", stall)
    with pytest.raises(UploadEndedError):
        link(filling, ada, archive)
    require_same(house, fresh)


def test_a_hiding_that_never_came_hides_nothing(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = house.open(ada)
    house.fill(parent, {b"p": b"inherited"})
    house.close(parent)
    archive = house.life.append_to(ada, parent.id, {})
    put(filling, ada, archive.id, {b"p": b"acknowledged"})
    end_at(monkeypatch, removing, "hide.noted", lambda: filling.hide(ada, archive.id, [b"p"]))
    lapse(house, filling)
    require_same(house, fresh)
    assert shown(fresh) == {(b"p", 1)}


def test_a_damaged_log_keeps_no_reservation(
    house: House, filling: Filling, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"p": b"1", b"q": b"2"})
    end_before_commit(monkeypatch, lambda: replace(filling, ada, archive))
    logs = [log for root in house.roots for log in root.rglob("*") if b'"kind"' in read(log)]
    for log in logs:
        log.write_bytes(read(log).replace(b'"size":1', b'"size":7', 1))
    assert logs
    house.clock.move(minutes=10)
    assert filling.expire_uploads() == 1


def read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


@pytest.mark.parametrize("max_files", [1, 100])
@pytest.mark.parametrize("is_committed", [True, False])
def test_a_rebuild_that_cannot_know_tells_of_both(
    house: House,
    filling: Filling,
    fresh: Context,
    ada: Actor,
    monkeypatch: pytest.MonkeyPatch,
    is_committed: bool,
    max_files: int,
) -> None:
    """The database is lost with the process: what was noted last may have been acknowledged, and is shown."""
    monkeypatch.setattr(model, "MAX_PART_FILES", max_files)
    make_sealing(house.ctx, house.heads)
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"p": b"acknowledged", b"same": b"same"})
    point = "fill.committed" if is_committed else "fill.synced"
    contents = {b"p": b"newer", b"same": b"same"}
    end_at(monkeypatch, receiving, point, lambda: put(filling, ada, archive.id, contents))
    report = rebuild(fresh)
    assert (report.problems, len(report.doubts)) == ([], 1)
    assert "'p' has an earlier file in part 1 at 'p'; nothing says" in report.doubts[0]
    with fresh.db.begin() as tx:
        assert find_own(tx, archive.id, [b"p"])[b"p"].size == len(b"newer")


def end_in_commit(
    monkeypatch: pytest.MonkeyPatch, receiver: BatchReceiver, meanwhile: Callable[[], object] = lambda: None
) -> None:
    """End in the transaction that makes entries the archive's, after what it tells the log itself."""

    def look_out(name: str) -> None:
        if name == "fill.synced":
            meanwhile()
            patched.setattr(service, "crash_point", end)

    def end(name: str) -> None:
        if name == "staging.synced":
            raise Ended

    with monkeypatch.context() as patched:
        patched.setattr(receiving, "crash_point", look_out)
        with pytest.raises(Ended):
            receiver.finish()


BESIDE_A_REFUSAL = [BatchItem(b"p", EntryKind.DIRECTORY), BatchItem(b"new", EntryKind.SYMLINK, target=b"never")]


def test_a_count_that_was_undone_is_told_by_no_line(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else no later removal would take such a line away."""
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"p": b"acknowledged", b"x": b"1"})
    receiver = filling.begin_batch(ada, archive.id, BESIDE_A_REFUSAL)
    end_in_commit(monkeypatch, receiver, lambda: filling.remove(ada, archive.id, [b"x"]))
    lapse(house, filling)
    with house.ctx.db.begin() as tx:
        assert tx.execute(select(uploads)).all() == []
    require_same(house, fresh)


def test_a_removal_after_a_count_that_was_undone_is_not_forgotten(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = house.open(ada)
    put_link(filling, ada, archive, b"acknowledged")
    end_in_commit(monkeypatch, filling.begin_batch(ada, archive.id, BESIDE_A_REFUSAL[:1]))
    filling.remove(ada, archive.id, [b"p"])
    require_same(house, fresh)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (BatchItem(b"p", EntryKind.SYMLINK, target=b"one"), BatchItem(b"p", EntryKind.SYMLINK, target=b"two")),
        (BatchItem(b"p", EntryKind.DIRECTORY, mtime_ns=1), BatchItem(b"p", EntryKind.DIRECTORY, mtime_ns=2)),
    ],
)
def test_of_two_who_note_one_path_the_last_to_commit_is_shown(
    house: House,
    filling: Filling,
    fresh: Context,
    ada: Actor,
    monkeypatch: pytest.MonkeyPatch,
    first: BatchItem,
    last: BatchItem,
) -> None:
    """Neither has bytes whose absence would tell which is older."""
    archive = house.open(ada)

    def commit_first(name: str) -> None:
        if name == "fill.synced":
            monkeypatch.setattr(receiving, "crash_point", lambda name: None)
            send(filling, ada, archive, first)

    monkeypatch.setattr(receiving, "crash_point", commit_first)
    send(filling, ada, archive, last)
    require_same(house, fresh)


def test_a_part_that_is_being_sealed_is_put_right(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No head tells of it until it is sealed, which may take long."""
    parts_sealing = make_sealing(house.ctx, house.heads)
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"p": b"acknowledged"})
    receiver = filling.begin_batch(ada, archive.id, [BatchItem(b"p", EntryKind.SYMLINK, target=b"never")])
    end_before_commit(monkeypatch, receiver.finish)
    receiver.abort()
    end_at(monkeypatch, sealing, "seal.fenced", lambda: parts_sealing.seal(archive.id, 1))
    lapse(house, filling)
    rebuild(fresh)
    assert shown(fresh) == {(b"p", 1)}
    with fresh.db.begin() as tx:
        assert find_own(tx, archive.id, [b"p"])[b"p"].kind is EntryKind.FILE


def test_one_log_that_fails_keeps_its_own_reservations_only(
    house: House, filling: Filling, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing, others = house.open(ada), house.open(ada)
    for archive in (failing, others):
        put(filling, ada, archive.id, {b"p": b"acknowledged"})
        end_before_commit(monkeypatch, lambda archive=archive: link(filling, ada, archive))  # type: ignore[misc]
    reading = Storage.read_staged_log

    def read_log(storage: Storage, part: PartRef) -> JournalRead:
        if part.archive_id == failing.id:
            raise StoreFailedError("The disk does not answer.")
        return reading(storage, part)

    monkeypatch.setattr(Storage, "read_staged_log", read_log)
    for _ in range(2):
        with pytest.raises(StoreFailedError):
            lapse(house, filling)
    with house.ctx.db.begin() as tx:
        assert [row.archive_id for row in tx.execute(select(uploads))] == [failing.id]


def test_a_store_that_is_absent_settles_nothing(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"p": b"acknowledged"})
    end_before_commit(monkeypatch, lambda: link(filling, ada, archive))
    for root in house.roots:
        root.rename(root.with_suffix(".away"))
        root.mkdir()
    with pytest.raises(StoreUnavailableError):
        lapse(house, filling)
    for root in house.roots:
        shutil.rmtree(root)
        root.with_suffix(".away").rename(root)
    lapse(house, filling)
    require_same(house, fresh)


def test_a_database_older_than_its_stores_takes_nothing_away(
    house: House, filling: Filling, fresh: Context, ada: Actor
) -> None:
    """A backup that was made while something was on its way, and a worker on it."""
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"old": b"1"})
    filling.begin_batch(ada, archive.id, [BatchItem(b"x", EntryKind.FILE, 1)])
    house.ctx.events.sequence_pending()
    of_backup = keep_position(house.ctx)
    put(filling, ada, archive.id, {b"today": b"acknowledged"})
    house.ctx.events.sequence_pending()
    assert keep_position(house.ctx) > of_backup
    with house.ctx.db.begin() as tx:
        tx.execute(delete(files).where(files.c.path == b"today"))
        tx.execute(text("DELETE FROM events WHERE number > :number"), {"number": of_backup})
    with pytest.raises(DatabaseBehindError):
        lapse(house, filling)
    rebuild(fresh)
    assert shown(fresh) == {(b"old", 1), (b"today", 1)}


def test_who_was_put_right_before_his_line_and_gives_up_lets_it_be_put_right_again(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He stalls for longer than his lease, notes an entry all the same, and loses the database."""
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"p": b"acknowledged"})
    receiver = filling.begin_batch(ada, archive.id, [BatchItem(b"p", EntryKind.SYMLINK, target=b"never")])
    noting = Storage.log_staged

    def stall(storage: Storage, part: PartRef, lines: list[bytes]) -> None:
        monkeypatch.setattr(Storage, "log_staged", noting)
        lapse(house, filling)
        noting(storage, part, lines)

    monkeypatch.setattr(Storage, "log_staged", stall)
    end_before_commit(monkeypatch, receiver.finish)
    receiver.abort()
    filling.expire_uploads()
    require_same(house, fresh)


def test_a_line_that_tells_of_fewer_removals_is_older_wherever_it_stands(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reserved before a removal and commits after it tells his entries again; so this one never came."""
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"x": b"1"})
    receiver = filling.begin_batch(ada, archive.id, [BatchItem(b"p", EntryKind.SYMLINK, target=b"never")])
    filling.remove(ada, archive.id, [b"x"])
    put_link(filling, ada, archive, b"acknowledged")
    end_before_commit(monkeypatch, receiver.finish)
    require_same(house, fresh)
