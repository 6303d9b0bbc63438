"""What fails or comes late between two steps takes nothing away that the archive holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select

from perdure.archives import receiving
from perdure.archives.errors import ContentMovingError, DigestMismatchError, UploadEndedError
from perdure.archives.filling import Filling
from perdure.archives.layers import put_entries
from perdure.archives.model import ArchiveState
from perdure.archives.tables import account_usage
from perdure.formats.canonical import parse_json_object
from perdure.kernel.clock import parse_time
from perdure.storage.errors import StoreUnavailableError
from perdure.storage.model import HeadVersion
from perdure.storage.service import Storage

from .workshop import Workshop

LARGE = b"large" * 500_000
SMALL = b"small"


def fail(*arguments: object, **options: object) -> None:
    raise StoreUnavailableError("The store went away.")


@pytest.mark.parametrize("data", [LARGE, SMALL])
def test_giving_up_after_the_commit_keeps_the_file(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    archive = shop.open()
    receiver = shop.filling.begin_file(shop.ada, archive.id, b"p", len(data))
    receiver.write(data)
    monkeypatch.setattr(receiving, "carry_out", fail)
    with pytest.raises(StoreUnavailableError):
        receiver.finish()
    receiver.abort()
    monkeypatch.undo()
    assert shop.contents(shop.close(archive)) == {b"p": data}


@pytest.mark.parametrize("in_batch", [True, False])
def test_a_commit_without_an_answer_keeps_the_file(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, in_batch: bool
) -> None:
    archive = shop.open()
    begin, put = shop.ctx.db.begin, put_entries
    lost: list[bool] = []

    @contextmanager
    def begin_and_lose() -> Iterator[Connection]:
        with begin() as tx:
            yield tx
        if lost:
            lost.clear()
            raise StoreUnavailableError("The connection broke before the answer came.")

    def put_and_lose(*arguments: Any, **options: Any) -> Any:
        lost.append(True)
        return put(*arguments, **options)

    monkeypatch.setattr(shop.ctx.db, "begin", begin_and_lose)
    monkeypatch.setattr(receiving, "put_entries", put_and_lose)
    with pytest.raises(StoreUnavailableError):
        shop.put_all(archive, {b"p": SMALL}) if in_batch else _put_and_abort(shop, archive.id)
    monkeypatch.undo()
    held = shop.contents(shop.close(archive))
    assert held == {b"p": SMALL if in_batch else LARGE}


def _put_and_abort(shop: Workshop, archive_id: Any) -> None:
    receiver = shop.filling.begin_file(shop.ada, archive_id, b"p", len(LARGE))
    try:
        receiver.write(LARGE)
        receiver.finish()
    except StoreUnavailableError:
        receiver.abort()
        raise


def test_a_transfer_that_wakes_while_its_part_is_sealed_touches_nothing(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name was given to the file that came after it."""
    archive = shop.open()
    sleeper = shop.filling.begin_file(shop.ada, archive.id, b"p", 2 * len(LARGE))
    sleeper.write(LARGE)
    shop.put(archive, b"p", LARGE)
    shop.clock.ahead += timedelta(hours=1)
    assert shop.filling.expire_uploads() == 1
    store = shop.ctx.storage._staging.store
    publish = store.publish

    def wake_and_publish(tree: str, object_id: str) -> None:
        if tree.startswith(str(archive.id)):
            with pytest.raises(UploadEndedError):
                sleeper.write(LARGE)
            sleeper.abort()
        publish(tree, object_id)

    monkeypatch.setattr(store, "publish", wake_and_publish)
    job = shop.closing.close(shop.ada, archive.id)
    shop.run()
    monkeypatch.undo()
    assert shop.job(job).state.is_final
    assert shop.contents(shop.look(archive)) == {b"p": LARGE}


def test_what_a_lapsed_transfer_left_is_discarded(shop: Workshop) -> None:
    archive = shop.open()
    sleeper = shop.filling.begin_file(shop.ada, archive.id, b"p", 2 * len(LARGE))
    sleeper.write(LARGE)
    shop.clock.ahead += timedelta(hours=1)
    assert shop.filling.expire_uploads() == 1
    with pytest.raises(UploadEndedError):
        sleeper.write(LARGE)
    sleeper.abort()
    assert not [path for path in (shop.roots[0] / "staging").rglob("p") if path.is_file()]


def test_a_closing_that_ends_before_its_commit_leaves_one_statement(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head is written and the database is not: the next attempt keeps what was signed."""
    archive = shop.open()
    shop.put(archive, b"p", SMALL)
    write = Storage.write_head

    def write_and_fail(self: Storage, *arguments: Any, **options: Any) -> HeadVersion:
        answer = write(self, *arguments, **options)
        if options["message"] == "Closed":
            monkeypatch.setattr(Storage, "write_head", write)
            fail()
        return answer

    monkeypatch.setattr(Storage, "write_head", write_and_fail)
    shop.ctx.jobs.run_job(shop.closing.close(shop.ada, archive.id))
    assert shop.look(archive).state is ArchiveState.CLOSING
    signed = shop.ctx.storage.read_head_file(archive.id.urn, "statement.json")
    shop.clock.ahead = timedelta(minutes=5)
    shop.run()
    closed = shop.look(archive)
    assert closed.state is ArchiveState.CLOSED
    assert shop.ctx.storage.read_head_file(archive.id.urn, "statement.json") == signed
    statement = shop.reading.statement(shop.ada, archive.id)
    assert statement == parse_json_object(signed)
    assert closed.closed_at == parse_time(str(statement["closed_at"]))


def test_giving_up_twice_spares_who_has_the_name_since(shop: Workshop) -> None:
    archive = shop.open()
    first = shop.filling.begin_file(shop.ada, archive.id, b"p", len(LARGE), stated_digests={"crc32": "00000000"})
    first.write(LARGE)
    with pytest.raises(DigestMismatchError):
        first.finish()
    shop.put(archive, b"p", SMALL)
    first.abort()
    assert shop.read(archive, b"p") == SMALL


@pytest.mark.parametrize("times", [1, 2])
def test_a_reader_gets_the_file_that_he_was_told_of_or_none(shop: Workshop, times: int) -> None:
    """Replaced once, the path has another file; replaced twice, that file also has the name of the first."""
    archive = shop.open()
    shop.put(archive, b"p", b"first")
    content = shop.reading.open_content(shop.ada, archive.id, b"p")
    for number in range(times):
        shop.put(archive, b"p", b"%d.new" % number)
    with pytest.raises(ContentMovingError):
        b"".join(content.read())


def test_an_upload_that_is_opened_while_it_is_finished_stays_finished(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = shop.open()
    view = shop.filling.create_upload(shop.ada, archive.id, b"p", len(SMALL))
    writer = shop.filling.open_upload(shop.ada, view.id, 0)
    writer.write(SMALL)
    seen = Filling._require_upload

    def finish_meanwhile(self: Filling, tx: Connection, *arguments: Any) -> Any:
        row = seen(self, tx, *arguments)
        monkeypatch.undo()
        forget = shop.ctx.storage.forget_upload
        monkeypatch.setattr(shop.ctx.storage, "forget_upload", lambda *_: None)  # as if it had crashed here
        writer.finish()
        writer.close()
        monkeypatch.setattr(shop.ctx.storage, "forget_upload", forget)
        return row

    monkeypatch.setattr(Filling, "_require_upload", finish_meanwhile)
    with pytest.raises(UploadEndedError):
        shop.filling.open_upload(shop.ada, view.id, len(SMALL))
    assert shop.read(archive, b"p") == SMALL
    with shop.ctx.db.begin() as tx:
        assert tx.execute(select(account_usage.c.reserved_bytes)).scalars().all() == [0]
