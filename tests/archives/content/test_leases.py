"""A lease counts as long as it runs and its process lives, and no longer."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from perdure.archives.model import ArchiveState
from perdure.archives.placing import is_leased, select_active_uploads
from perdure.archives.records import Context
from perdure.jobs import Lifelines

from .workshop import Workshop, require_success

HOLD = """
import sys
from pathlib import Path
from perdure.jobs import Lifelines

print(Lifelines(Path(sys.argv[1])).own_name())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "alive"


def die(folder: Path) -> str:
    """The name of a process that has ended."""
    ran = subprocess.run([sys.executable, "-c", HOLD, str(folder)], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def test_a_closing_does_not_wait_for_the_lease_of_a_process_that_died(
    shop: Workshop, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx: Context = replace(shop.ctx, lifelines=Lifelines(folder))
    archive = shop.open()
    shop.put_all(archive, {b"a": b"1"})
    monkeypatch.setattr(shop.filling, "_ctx", ctx)
    monkeypatch.setattr(shop.closing, "_ctx", ctx)
    shop.filling.begin_file(shop.ada, archive.id, b"b", 10)
    with ctx.db.begin() as tx:
        (living,) = tx.execute(select_active_uploads(archive.id)).all()
    now = ctx.clock.now()
    assert is_leased(ctx, living, now), "its process is this one"
    assert not is_leased(ctx, living, now + timedelta(days=1))
    died = {**living._mapping, "attributes": {"holder": die(folder)}}
    with ctx.db.begin() as tx:
        table = select_active_uploads(archive.id).get_final_froms()[0]
        tx.execute(table.update().values(attributes=died["attributes"]))  # type: ignore[attr-defined]
    job = shop.closing.close(shop.ada, archive.id, discard_uploads=True)
    ctx.jobs.run_job(job)
    require_success(shop.job(job))
    assert shop.look(archive).state is ArchiveState.CLOSED
