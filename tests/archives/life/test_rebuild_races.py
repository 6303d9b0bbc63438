"""Two writers at one path of one part: what a rebuild shows is what the database showed, however their lines stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perdure.archives import layers, receiving, removing
from perdure.archives.filling import Filling
from perdure.archives.heads import Heads
from perdure.archives.items import BatchItem
from perdure.archives.model import EntryKind
from perdure.archives.rebuild import compare, rebuild
from perdure.archives.records import Context
from perdure.db import Database
from perdure.kernel.actor import Actor
from perdure.storage.crash_points import crash_point
from perdure.storage.model import PartRef

from .house import House, context_on, put, shown

Act = Callable[..., object]
LOST_ON_PURPOSE = {"files": ("added_at",), "superseded": ("at",), "account_usage": ("reserved_bytes",)}


@pytest.fixture
def filling(house: House) -> Filling:
    return Filling(house.ctx)


def link(filling: Filling, actor: Actor, archive: Any, path: bytes, target: bytes = b"there") -> None:
    receiver = filling.begin_batch(actor, archive.id, [BatchItem(path, EntryKind.SYMLINK, 0, target=target)])
    assert all(result.stored for result in receiver.finish())


def note_late(patched: pytest.MonkeyPatch, meanwhile: Act) -> None:
    """Let something happen between the commit of the next removal and its note, after which its process ends."""
    carry_out = layers.carry_out

    def late(*arguments: Any) -> None:
        patched.setattr(removing, "carry_out", carry_out)
        meanwhile()
        carry_out(*arguments)
        raise SystemExit

    patched.setattr(removing, "carry_out", late)


def commit_late(patched: pytest.MonkeyPatch, meanwhile: Act) -> None:
    """Let something happen between the line of what is put next and its commit."""

    def late(name: str) -> None:
        if name == "fill.synced":
            patched.setattr(receiving, "crash_point", crash_point)
            meanwhile()

    patched.setattr(receiving, "crash_point", late)


def require_same(house: House, fresh: Context) -> None:
    assert rebuild(fresh).problems == []
    assert compare(house.ctx.db, fresh.db, tables=LOST_ON_PURPOSE) == []


@pytest.mark.parametrize(
    "act", [link, lambda filling, actor, archive, path: put(filling, actor, archive.id, {path: b"newer"})]
)
def test_what_is_put_between_a_removal_and_its_note_stays(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    archive = house.open(ada)
    act(filling, ada, archive, b"p")
    note_late(monkeypatch, lambda: act(filling, ada, archive, b"p"))
    with pytest.raises(SystemExit):
        filling.remove(ada, archive.id, [b"p"])
    assert shown(house.ctx) == {(b"p", 1)}
    require_same(house, fresh)


def test_what_was_noted_before_a_removal_and_committed_after_it_stays(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"p": b"old"})
    commit_late(monkeypatch, lambda: filling.remove(ada, archive.id, [b"p"]))
    put(filling, ada, archive.id, {b"p": b"newer"})
    require_same(house, fresh)


def test_what_was_noted_before_all_that_was_put_and_removed_meanwhile_stays(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = house.open(ada)

    def put_and_remove() -> None:
        put(filling, ada, archive.id, {b"p": b"between"})
        filling.remove(ada, archive.id, [b"p"])

    commit_late(monkeypatch, put_and_remove)
    put(filling, ada, archive.id, {b"p": b"newest"})
    require_same(house, fresh)


def test_an_upload_that_was_begun_before_a_removal_stays(
    house: House, filling: Filling, fresh: Context, ada: Actor
) -> None:
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"p": b"old"})
    view = filling.create_upload(ada, archive.id, b"p", 5)
    filling.remove(ada, archive.id, [b"p"])
    receiver = filling.open_upload(ada, view.id, 0)
    receiver.write(b"newer")
    receiver.finish()
    receiver.close()
    require_same(house, fresh)


def test_what_never_became_the_archives_does_not_come_back_after_a_removal(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process ends between the line of a file and its commit; the same path is put again, and removed."""
    archive = house.open(ada)

    def end() -> None:
        raise SystemExit

    commit_late(monkeypatch, end)
    with pytest.raises(SystemExit):
        put(filling, ada, archive.id, {b"p": b"never"})
    put(filling, ada, archive.id, {b"p": b"acknowledged"})
    filling.remove(ada, archive.id, [b"p"])
    require_same(house, fresh)


def test_a_file_in_place_of_a_link_that_was_noted_after_it_stays(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = house.open(ada)
    commit_late(monkeypatch, lambda: link(filling, ada, archive, b"p"))
    put(filling, ada, archive.id, {b"p": b"newest"})
    require_same(house, fresh)


def test_a_rebuilt_archive_counts_on(
    house: House,
    filling: Filling,
    fresh: Context,
    ada: Actor,
    make_database: Callable[[], Database],
) -> None:
    """What is put into a rebuilt archive comes after every removal that its log tells of."""
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"p": b"old", b"q": b"kept"})
    filling.remove(ada, archive.id, [b"p"])
    Heads(house.ctx).fold(archive.id)
    require_same(house, fresh)
    again = Filling(fresh)
    put(again, ada, archive.id, {b"p": b"newer"})
    again.remove(ada, archive.id, [b"q"])
    put(again, ada, archive.id, {b"q": b"newer"})
    another = context_on(house, make_database())
    assert rebuild(another).problems == []
    assert shown(another) == {(b"p", 1), (b"q", 1)}


def test_a_note_without_a_number_takes_away_what_stands_before_it(
    house: House, filling: Filling, fresh: Context, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logs of a release that did not number them are read as it wrote them."""
    archive = house.open(ada)
    monkeypatch.setattr("perdure.archives.layers.number_removals", lambda tx, archive_id, removed: removed)
    put(filling, ada, archive.id, {b"p": b"old", b"q": b"old"})
    filling.remove(ada, archive.id, [b"p", b"q"])
    put(filling, ada, archive.id, {b"q": b"newer"})
    staged = next(iter(house.ctx.storage.iter_staged())).part
    lines = house.ctx.storage.read_staged_log(PartRef(archive.id, staged.part_id)).lines
    assert b'"removal"' not in b"".join(lines)
    require_same(house, fresh)
    assert shown(fresh) == {(b"q", 1)}


@pytest.mark.parametrize(
    "refused",
    [
        BatchItem(b"file", EntryKind.DIRECTORY),
        BatchItem(b"link", EntryKind.DIRECTORY),
        BatchItem(b"full", EntryKind.SYMLINK, target=b"there"),
    ],
)
def test_what_was_refused_and_has_no_bytes_takes_nothing_away(
    house: House, filling: Filling, fresh: Context, ada: Actor, refused: BatchItem
) -> None:
    """Its line stands in the log after that of what it did not replace; no missing bytes tell that it was refused."""
    archive = house.open(ada)
    put(filling, ada, archive.id, {b"file": b"1", b"full/file": b"2"})
    link(filling, ada, archive, b"link")
    results = [
        filling.begin_batch(ada, archive.id, [item]).finish()[0].stored
        for item in (BatchItem(b"full", EntryKind.DIRECTORY), refused)
    ]
    assert results == [True, False]
    require_same(house, fresh)
