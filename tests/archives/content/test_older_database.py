"""A database that is older than its stores removes nothing from them, and a clock that is ahead ends nothing."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import delete, text

from perdure.archives.errors import DatabaseBehindError
from perdure.archives.exporting import export_events, keep_position
from perdure.archives.patience import Patience
from perdure.archives.tables import files, parts
from perdure.archives.upkeep import sweep_staging
from perdure.kernel.ids import new_id
from perdure.storage.model import PartRef

from .workshop import Workshop


class SteadyClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def list_staged(shop: Workshop) -> set[str]:
    return {file.name for file in (shop.roots[0] / "staging").rglob("*") if file.is_file()}


def test_what_an_unknown_archive_has_staged_is_never_swept(shop: Workshop) -> None:
    stranger = PartRef(new_id(), new_id())
    shop.ctx.storage.write_small(stranger, [(b"precious", b"1")], frozenset({"sha512", "crc32"}))
    shop.clock.ahead += timedelta(days=3)
    assert sweep_staging(shop.ctx) == []
    assert list_staged(shop) == {"precious"}


def test_a_part_that_the_database_has_forgotten_stays_while_its_log_names_files(shop: Workshop) -> None:
    archive = shop.open()
    shop.put(archive, b"precious", b"1")
    with shop.ctx.db.begin() as tx:  # as a backup has it that was made before
        tx.execute(delete(files).where(files.c.archive_id == archive.id))
        tx.execute(delete(parts).where(parts.c.archive_id == archive.id))
    shop.clock.ahead += timedelta(days=3)
    assert sweep_staging(shop.ctx) == []
    assert "precious" in list_staged(shop)


def test_a_part_that_was_dropped_is_swept(shop: Workshop) -> None:
    """It held nothing any more, and its process ended before the folder was removed."""
    archive = shop.open()
    shop.put(archive, b"gone", b"1")
    shop.filling.remove(shop.ada, archive.id, [b"gone"])
    with shop.ctx.db.begin() as tx:
        part = tx.execute(delete(parts).where(parts.c.archive_id == archive.id).returning(parts.c.id)).scalar_one()
    strays = PartRef(archive.id, new_id())
    shop.ctx.storage.write_small(strays, [(b"nobody was promised", b"1")], frozenset({"sha512", "crc32"}))
    shop.clock.ahead += timedelta(days=3)
    swept = {UUID(name.split("/")[1].partition(".")[0]) for name in sweep_staging(shop.ctx)}
    assert swept == {part, strays.part_id}
    assert list_staged(shop) == set()


def test_a_database_behind_its_stores_exports_and_sweeps_nothing(shop: Workshop) -> None:
    shop.open()
    shop.ctx.events.sequence_pending()
    number = keep_position(shop.ctx)
    assert number == keep_position(shop.ctx)
    export_events(shop.ctx)
    with shop.ctx.db.begin() as tx:
        tx.execute(text("DELETE FROM events WHERE number = :number"), {"number": number})
    for act in (keep_position, export_events, sweep_staging):
        with pytest.raises(DatabaseBehindError, match=f"up to {number}, the database of those up to {number - 1}"):
            act(shop.ctx)


def test_the_second_store_tells_it_too(shop: Workshop) -> None:
    (shop.roots[1] / "position.json").write_bytes(b'{"events":1000000,"format":1}\n')
    with pytest.raises(DatabaseBehindError, match="The store two"):
        sweep_staging(shop.ctx)


def test_patience_is_over_after_its_time_and_begins_anew() -> None:
    clock = SteadyClock()
    patience = Patience(timedelta(hours=1), clock)
    assert not patience.is_over("a")
    clock.seconds = 3599
    assert not patience.is_over("a")
    assert not patience.is_over("b")
    clock.seconds = 3600
    assert patience.is_over("a")
    assert not patience.is_over("b")
    patience.forget_all_but({"b"})
    assert not patience.is_over("a")


def test_an_upload_outlives_a_clock_that_is_ahead_for_a_while(shop: Workshop) -> None:
    archive, steady = shop.open(), SteadyClock()
    view = shop.filling.create_upload(shop.ada, archive.id, b"large", 4)
    receiver = shop.filling.open_upload(shop.ada, view.id, 0)
    receiver.write(b"12")
    receiver.checkpoint()
    receiver.close()
    patience = Patience(timedelta(hours=6), steady)
    shop.clock.ahead += timedelta(days=366)
    assert shop.filling.expire_uploads(patience) == 0
    shop.clock.ahead -= timedelta(days=366)
    steady.seconds += 7 * 3600
    assert shop.filling.expire_uploads(patience) == 0, "it is not late any more"
    assert shop.filling.get_upload(shop.ada, view.id).offset == 2
    shop.clock.ahead += timedelta(days=2)
    assert shop.filling.expire_uploads(patience) == 0
    steady.seconds += 7 * 3600
    assert shop.filling.expire_uploads(patience) == 1


def test_what_is_old_by_a_clock_that_is_ahead_stays_for_a_while(shop: Workshop) -> None:
    archive, steady = shop.open(), SteadyClock()
    strays = PartRef(archive.id, new_id())
    shop.ctx.storage.write_small(strays, [(b"stray", b"1")], frozenset({"sha512", "crc32"}))
    patience = Patience(timedelta(hours=6), steady)
    shop.clock.ahead += timedelta(days=366)
    assert sweep_staging(shop.ctx, patience) == []
    steady.seconds += 7 * 3600
    assert sweep_staging(shop.ctx, patience) == [f"{archive.id}/{strays.part_id}"]
