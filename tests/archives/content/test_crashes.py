"""A process ends at each named step as by a power cut: what was acknowledged is there, and asking again goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from perdure.archives.closing import RECEIPT_JOB
from perdure.archives.errors import ContentMovingError
from perdure.archives.model import Archive, ArchiveState
from perdure.storage.crash_points import EXIT_STATUS, VARIABLE

from .victim import LARGE
from .workshop import Workshop, require_success

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).parent.parent


def crash(shop: Workshop, folder: Path, archive: Archive, act: str, point: str) -> None:
    """Let another process do it, until it meets the point."""
    ended = subprocess.run(  # our own file
        [sys.executable, "-m", "content.victim", shop.ctx.db.url, str(folder), str(archive.id), act],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), *sys.path]), VARIABLE: point},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == EXIT_STATUS, ended.stderr[-2000:]
    assert "acknowledged" not in ended.stdout


@pytest.mark.parametrize("point", ["staging.synced", "fill.synced", "fill.committed"])
def test_a_crash_while_a_file_arrives(shop: Workshop, tmp_path: Path, point: str) -> None:
    archive = shop.open()
    shop.put_all(archive, {b"a": b"1", b"b": b"old"})
    crash(shop, tmp_path, archive, "put", point)
    assert shop.contents(archive) == {b"a": b"1", b"b": LARGE if point == "fill.committed" else b"old"}
    shop.put(archive, b"b", LARGE)
    shop.clock.ahead = timedelta(minutes=5)  # the lease of the process that died has ended
    closed = shop.close(archive)
    assert shop.contents(closed) == {b"a": b"1", b"b": LARGE}


@pytest.mark.parametrize(
    "point",
    [
        "seal.fenced",
        "seal.arranged",
        "seal.documents_written",
        "seal.published",
        "seal.recorded",
        "place.published",
        "close.copied",
        "head.committed",
        "close.committed",
    ],
)
def test_a_crash_while_it_closes(shop: Workshop, tmp_path: Path, point: str) -> None:
    archive = shop.open()
    contents = {b"a": b"1", b"A": b"2", b"d/e": b"3"}
    shop.put_all(archive, contents)
    crash(shop, tmp_path, archive, "close", point)
    if point in ("seal.published", "head.committed"):  # in the root, and no row says so yet
        with pytest.raises(ContentMovingError):
            shop.contents(archive)
    else:
        assert shop.contents(archive) == contents
    job: UUID = shop.closing.close(shop.ada, archive.id)
    shop.ctx.jobs.run_job(job)  # as the worker does that finds the other one dead
    require_success(shop.job(job))
    with shop.ctx.db.begin() as tx:
        (receipt,) = shop.ctx.jobs.find_for_thing(tx, archive.id, kind=RECEIPT_JOB)
    shop.ctx.jobs.run_job(receipt.id)
    require_success(shop.job(receipt.id))
    assert shop.look(archive).state is ArchiveState.CLOSED
    assert shop.contents(archive) == contents
    assert shop.reading.receipt(shop.ada, archive.id)["source_may_be_deleted"] is True
