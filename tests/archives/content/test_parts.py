"""Full parts are sealed while the archive is open; what they hold and the archive does not show is superseded."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from perdure.archives import model, sealing
from perdure.archives.closing import Closing
from perdure.archives.copying import ensure_copies
from perdure.archives.errors import ArchiveClosingError, CopiesMissingError, NotReopenableError, UploadsUnfinishedError
from perdure.archives.model import ArchiveState, PartState
from perdure.archives.placing import list_parts
from perdure.archives.records import Context
from perdure.archives.sealing import Sealing
from perdure.archives.tables import account_usage, superseded, uploads
from perdure.formats.merkle import merkle_root
from perdure.jobs import run_pending
from perdure.storage.errors import StoreUnavailableError
from perdure.storage.model import Copy, CopyState

from .workshop import Workshop, require_success


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MAX_PART_FILES", 3)


def parts_of(shop: Workshop, archive: model.Archive) -> list[model.Part]:
    with shop.ctx.db.begin() as tx:
        return list_parts(tx, archive.id)


@pytest.mark.usefixtures("small_parts")
def test_full_parts_are_sealed_early_and_closing_accounts_for_all(shop: Workshop) -> None:
    archive = shop.open()
    for number in range(4):
        shop.put_all(archive, {b"%d/%d" % (number, file): b"%d%d" % (number, file) for file in range(3)})
    shop.run()
    assert [part.state for part in parts_of(shop, archive)] == [PartState.SEALED] * 3 + [PartState.FILLING]
    copies = shop.reading.copies(shop.ada, archive.id)
    assert sum(copy.state is CopyState.VERIFIED for copy in copies if copy.part) == 6

    shop.put(archive, b"0/0", b"replaced after sealing")
    shop.filling.remove(shop.ada, archive.id, [b"1"])
    expected = {b"0/0": b"replaced after sealing", b"0/1": b"01", b"0/2": b"02"}
    expected |= {b"%d/%d" % (number, file): b"%d%d" % (number, file) for number in (2, 3) for file in range(3)}
    assert shop.contents(archive) == expected
    with shop.ctx.db.begin() as tx:
        gone = {(row.part, row.path) for row in tx.execute(select(superseded))}
    assert gone == {(1, b"0/0"), (2, b"1/0"), (2, b"1/1"), (2, b"1/2")}

    closed = shop.close(archive)
    assert shop.contents(closed) == expected
    statement = shop.reading.statement(shop.ada, archive.id)
    lines = list(shop.reading.iter_manifest(shop.ada, archive.id))
    assert statement["merkle"] == {"algorithm": "rfc6962-sha512", "size": 9, "root": merkle_root(lines)}
    assert statement["superseded_digest"]
    with shop.ctx.db.begin() as tx:
        usage = tx.execute(select(account_usage)).one()
    assert usage.reserved_bytes == 0
    assert (usage.file_count, usage.byte_count) == (
        sum(part.file_count for part in parts_of(shop, archive)),
        sum(part.byte_count for part in parts_of(shop, archive)),
    )


@pytest.mark.usefixtures("small_parts")
def test_a_full_part_is_copied_while_something_comes_in(shop: Workshop) -> None:
    archive = shop.open()
    for number in range(2):
        shop.put_all(archive, {b"%d/%d" % (number, file): b"%d" % file for file in range(3)})
    coming = shop.filling.begin_file(shop.ada, archive.id, b"late", 1)
    shop.run()
    assert {copy.state for copy in shop.reading.copies(shop.ada, archive.id) if copy.part == 1} == {CopyState.VERIFIED}
    coming.write(b"1")
    coming.finish()
    closed = shop.close(archive)
    states = {copy.state for copy in shop.reading.copies(shop.ada, closed.id)}
    assert states == {CopyState.VERIFIED}


@pytest.mark.usefixtures("small_parts")
def test_what_becomes_full_while_copies_are_made_is_sealed_beside_them(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = shop.open()
    for number in range(4):
        shop.put(archive, b"%d" % number, b"x")
    beside: list[PartState] = []

    def ensure(ctx: Context, on: model.Archive, object_id: str, **told: Any) -> list[Copy]:
        if not beside:
            for number in range(4, 7):
                shop.put(archive, b"%d" % number, b"x")
            told["progress"](1, 1)
            deadline = time.monotonic() + 20
            while (state := parts_of(shop, archive)[1].state) is not PartState.SEALED and time.monotonic() < deadline:
                time.sleep(0.01)
            beside.append(state)
        return ensure_copies(ctx, on, object_id, **told)

    monkeypatch.setattr(sealing, "_LOOK_EVERY", 0.0)
    monkeypatch.setattr(sealing, "ensure_copies", ensure)
    shop.run()
    assert beside == [PartState.SEALED]
    assert [part.state for part in parts_of(shop, archive)] == [PartState.SEALED] * 2 + [PartState.FILLING]
    assert shop.contents(shop.close(archive)) == {b"%d" % number: b"x" for number in range(7)}


@pytest.mark.usefixtures("small_parts")
def test_a_part_that_lost_everything_is_no_object(shop: Workshop) -> None:
    archive = shop.open()
    shop.put_all(archive, {b"a/1": b"1", b"a/2": b"2", b"a/3": b"3"})
    shop.filling.remove(shop.ada, archive.id, [b"a"])
    shop.put(archive, b"b", b"4")
    closed = shop.close(archive)
    assert shop.contents(closed) == {b"b": b"4"}
    assert [part.file_count for part in parts_of(shop, archive)] == [1]


def test_what_is_removed_while_its_part_is_sealed_is_accounted_for(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removed before sealing reads the rows: not in the part. Removed after: in the part, and superseded."""
    archive = shop.open()
    shop.put_all(archive, {b"before": b"1", b"after": b"2", b"kept": b"3"})
    sealing = Sealing(shop.ctx, shop.heads)
    read, seal_part = sealing._read, shop.ctx.storage.seal_part

    def read_late(*arguments: Any) -> Any:
        shop.filling.remove(shop.ada, archive.id, [b"before"])
        return read(*arguments)

    def seal_and_remove(*arguments: Any, **options: Any) -> Any:
        sealed = seal_part(*arguments, **options)
        shop.filling.remove(shop.ada, archive.id, [b"after"])
        return sealed

    monkeypatch.setattr(sealing, "_read", read_late)
    monkeypatch.setattr(shop.ctx.storage, "seal_part", seal_and_remove)
    assert sealing.seal(archive.id, 1)
    monkeypatch.undo()
    with shop.ctx.db.begin() as tx:
        assert tx.execute(select(superseded.c.path)).scalars().all() == [b"after"]
    closed = shop.close(archive)
    assert shop.contents(closed) == {b"kept": b"3"}
    assert shop.reading.counts(shop.ada, archive.id).files == 1


def test_two_sessions_fill_the_same_path_at_once(shop: Workshop) -> None:
    archive = shop.open()
    data = [b"%d" % number * 2_000_000 for number in range(4)]
    receivers = [shop.filling.begin_file(shop.ada, archive.id, b"same", len(each)) for each in data]
    failures: list[BaseException] = []

    def send(number: int) -> None:
        try:
            for start in range(0, len(data[number]), 100_000):
                receivers[number].write(data[number][start : start + 100_000])
            receivers[number].finish()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert shop.read(archive, b"same") in data
    closed = shop.close(archive)
    assert shop.read(closed, b"same") in data
    assert shop.look(archive).file_count == 1


def test_many_sessions_fill_one_archive(shop: Workshop) -> None:
    archive = shop.open()

    def fill(session: int) -> None:
        for batch in range(3):
            shop.put_all(archive, {b"%d/%d/%d" % (session, batch, file): b"x" * file for file in range(20)})

    threads = [threading.Thread(target=fill, args=(session,)) for session in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(shop.tree(archive)) == 240
    with shop.ctx.db.begin() as tx:
        assert tx.execute(select(uploads)).all() == []
        assert tx.execute(select(account_usage.c.reserved_bytes)).scalar_one() == 0


def test_closing_waits_for_a_file_that_is_arriving(shop: Workshop) -> None:
    archive = shop.open()
    shop.put(archive, b"a", b"1")
    arriving = shop.filling.begin_file(shop.ada, archive.id, b"b", 10)
    arriving.write(b"12345")
    with pytest.raises(UploadsUnfinishedError):
        shop.closing.close(shop.ada, archive.id)
    job = shop.closing.close(shop.ada, archive.id, discard_uploads=True)
    closer = threading.Thread(target=shop.run)
    closer.start()
    arriving.write(b"67890")
    with pytest.raises(ArchiveClosingError):
        arriving.finish()
    arriving.abort()
    closer.join()
    shop.run()
    require_success(shop.job(job))
    assert shop.contents(archive) == {b"a": b"1"}


def test_a_closing_that_fails_can_be_taken_back_or_asked_for_again(shop: Workshop) -> None:
    archive = shop.open()
    shop.put(archive, b"a", b"1")
    path = next(file for file in (shop.roots[0] / "staging").rglob("a") if file.is_file())
    away = path.rename(shop.roots[0] / "away")
    job = shop.closing.close(shop.ada, archive.id)
    shop.run()
    assert shop.job(job).state.value == "failed"
    assert shop.look(archive).state is ArchiveState.CLOSING
    assert shop.closing.reopen(shop.ada, archive.id).state is ArchiveState.OPEN
    shop.put(archive, b"b", b"2")
    away.rename(path)
    closed = shop.close(archive)
    assert shop.contents(closed) == {b"a": b"1", b"b": b"2"}
    with pytest.raises(Exception, match="closed"):
        shop.closing.reopen(shop.ada, archive.id)
    assert NotReopenableError.status == 409


def test_verify_finds_damage_and_reads_go_to_the_good_copy(shop: Workshop) -> None:
    shop.damaged = True
    archive = shop.open()
    shop.put_all(archive, {b"a": b"alpha" * 100, b"b": b"beta" * 100, b"c": b"gamma" * 100})
    shop.close(archive)
    flip(find_stored(shop.roots[0], "a"))
    find_stored(shop.roots[1], "b").unlink()
    job = shop.verifying.start_verify(shop.ada, archive.id)
    shop.run()
    view = shop.job(job)
    require_success(view)
    assert view.result is not None
    assert view.result["good"] is False
    copies = view.result["copies"]
    assert isinstance(copies, list)
    kinds = {finding["kind"] for copy in copies for finding in copy["findings"]}
    assert kinds == {"flipped", "missing"}
    assert "copy.suspected" in [name for name, _ in shop.told(archive)]


def test_a_receipt_waits_for_its_copies(shop: Workshop) -> None:
    """With one of two stores failing there is no closed archive and no receipt, and later there is."""
    archive = shop.open()
    shop.put(archive, b"a", b"1")
    second = shop.roots[1] / "root"
    away = second.rename(shop.roots[1] / "root.away")
    second.write_bytes(b"no folder")
    job = shop.closing.close(shop.ada, archive.id)
    run_pending(shop.ctx.jobs, limit=5, raise_unforeseen=False)
    assert shop.job(job).state.value in ("waiting", "running")
    assert shop.look(archive).state is ArchiveState.CLOSING
    assert CopiesMissingError.code in str(shop.job(job).error) or shop.job(job).error
    second.unlink()
    away.rename(second)
    shop.run()
    require_success(shop.job(job))
    assert shop.reading.receipt(shop.ada, archive.id)["required_copies"] == 2


def test_closed_means_that_the_statement_has_its_copies(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = shop.open()
    shop.put(archive, b"a", b"1")
    second = shop.ctx.storage._stores[1]
    exchange, copied = second.exchange, Closing._seal_and_copy

    def fail(tree: str, object_id: str) -> None:
        raise StoreUnavailableError("The store went away.")

    def copy_and_fail(*arguments: Any) -> Any:
        tree = copied(*arguments)
        monkeypatch.setattr(second, "exchange", fail)
        return tree

    monkeypatch.setattr(Closing, "_seal_and_copy", copy_and_fail)
    job = shop.closing.close(shop.ada, archive.id)
    run_pending(shop.ctx.jobs, limit=5, raise_unforeseen=False)
    assert shop.look(archive).state is ArchiveState.CLOSING
    assert "copies of the record" in str(shop.job(job).error)
    monkeypatch.setattr(Closing, "_seal_and_copy", copied)
    monkeypatch.setattr(second, "exchange", exchange)
    shop.run()
    require_success(shop.job(job))
    assert shop.reading.receipt(shop.ada, archive.id)["required_copies"] == 2


def find_stored(root: Path, name: str) -> Path:
    return next(path for path in (root / "root").rglob(f"v1/content/data/{name}") if path.is_file())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))
