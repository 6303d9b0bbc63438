"""What a worker does last: a stopped installation rebuilds whole, whoever died before."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from perdure.archives.heads import Heads
from perdure.archives.model import Description
from perdure.archives.opening import OpenRequest
from perdure.db import Database
from perdure.testing.app import start_application


def test_a_worker_that_stops_writes_the_head_whose_writer_died(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_application(tmp_path, database_url=db.url, worker=False) as running:
        application, stop = running.application, threading.Event()
        ada = application.identity.log_in(running.login, running.password)[1]
        assert application.jobs.run_periodic("archives.fold_heads"), "so that its next time comes after the stop"
        with monkeypatch.context() as dying:
            dying.setattr(Heads, "ensure_written", lambda heads, archive_id: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                application.archives.life.open_archive(ada, OpenRequest(description=Description(title="Orphan")))
        stop.set()
        application.work(stop, grace=1.0)
        [found] = application.archives.life.list_archives(ada).items
        assert found.archive.head_version == 1
