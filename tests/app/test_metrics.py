"""Numbers for Prometheus: counted right, told by processes to their supervisor, kept from strangers, all described."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import UUID

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from perdure.adapters.posix.store import PosixStore
from perdure.app.metrics.asking import Asker, answer_on
from perdure.app.metrics.facts import Fact, Facts
from perdure.app.metrics.instruments import Counts, Distribution
from perdure.app.metrics.meters import JobMeter, RequestMeter
from perdure.app.metrics.telling import render, render_tree, to_plain
from perdure.db import Database
from perdure.doors.http.watching import FinishedRequest
from perdure.doors.scrape import scraping
from perdure.kernel.clock import SystemClock
from perdure.kernel.tally import Tally
from perdure.storage.errors import StoreFailedError
from perdure.storage.service import Storage
from perdure.testing.faults import FaultPlan
from perdure.testing.system import failing_system

ROOT = Path(__file__).parents[2]
OPERATE = ROOT / "docs" / "operate"
ALERTS = OPERATE / "prometheus" / "alerts.yml"


def samples(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def finished(
    busy: float, *, status: int | None = 200, received: int = 0, operation: str | None = "get_archive"
) -> FinishedRequest:
    tally = Tally("request_id", "r-1")
    tally.received, tally.queries, tally.database_seconds = received, 3, 0.25
    return FinishedRequest("r-1", "GET", operation, status, busy, 10, tally)


def test_a_distribution_places_values_at_and_between_its_bounds() -> None:
    distribution = Distribution("seconds", "Told.", ("kind",), bounds=(0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 1.0, 7.0):
        distribution.observe(value, "a")
    found = samples(render(distribution.collect()))
    buckets = {labels[1][1]: value for (name, labels), value in found.items() if name == "seconds_bucket"}
    assert buckets == {"0.1": 2, "1.0": 4, "+Inf": 5}
    assert found["seconds_sum", (("kind", "a"),)] == pytest.approx(8.65)


def test_counts_lose_nothing_between_threads() -> None:
    counts = Counts("things", "Told.")

    def add() -> None:
        for _ in range(5000):
            counts.add(1)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert samples(render(counts.collect())) == {("things_total", ()): 20_000}


def test_a_slow_request_is_told_with_what_it_cost_and_a_large_one_is_not_slow() -> None:
    meter = RequestMeter(1.0)
    with capture_logs() as logs:
        for request in (finished(0.5), finished(3.0, received=100_000_000), finished(1.5, status=503)):
            meter.began()
            meter.ended(request)
    assert [line["event"] for line in logs] == ["slow_request"]
    assert logs[0]["request_id"] == "r-1"
    assert (logs[0]["queries"], logs[0]["database_milliseconds"], logs[0]["milliseconds"]) == (3, 250.0, 1500.0)
    found = samples(render(meter.collect()))
    assert found["perdure_http_slow_requests_total", (("operation", "get_archive"),)] == 1
    assert found["perdure_http_requests_in_flight", ()] == 0
    by_status = {
        labels[1][1]: value for (name, labels), value in found.items() if name == "perdure_http_requests_total"
    }
    assert by_status == {"2xx": 2, "5xx": 1}


def test_what_no_route_takes_has_one_name_and_needs_no_answer() -> None:
    meter = RequestMeter(0.0)
    meter.began()
    meter.ended(finished(99.0, status=None, operation=None))
    assert ("perdure_http_requests_total", (("operation", "none"), ("status", "none"))) in samples(
        render(meter.collect())
    )


def test_a_job_that_never_ran_is_told_as_zeros() -> None:
    meter = JobMeter()
    meter.know(["archives.close"], receiving=["archives.ingest"])
    meter.began("archives.close")
    meter.ended("archives.close", "failed", 2.0)
    found = samples(render(meter.collect()))
    ended = {labels[1][1]: value for (name, labels), value in found.items() if name == "perdure_jobs_ended_total"}
    assert ended == {"succeeded": 0, "failed": 1, "retried": 0}
    received = ("perdure_jobs_received_bytes_total", (("kind", "archives.ingest"),))
    assert found[received] == 0
    for byte_count in (5, 7):
        meter.received("archives.ingest", byte_count)
    assert samples(render(meter.collect()))[received] == 12


def child(collect: Callable[[], list[Metric]]) -> Asker:
    ours, theirs = socket.socketpair()
    answer_on(theirs, lambda: to_plain(collect()))
    return Asker(ours)


def numbers(value: float) -> list[Metric]:
    counts = Counts("things", 'Told "so".', ("name",))
    counts.add(value, 'a"\\\nb')
    return list(counts.collect())


def test_one_page_tells_of_all_processes_and_of_those_that_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.app.metrics.telling._PATIENCE", 0.3)
    held = threading.Event()

    def hang() -> list[Metric]:
        held.wait(30)
        return numbers(99)

    def fail() -> list[Metric]:
        raise OSError

    slow, dead = child(hang), child(lambda: numbers(1))
    dead.close()
    tree = [("web", child(lambda: numbers(1)), 1), ("web", child(lambda: numbers(2)), 3), ("data", slow, 1)]
    tree += [("worker", dead, 2), ("late", child(fail), 1)]
    with capture_logs():
        page = render_tree([*tree, ("gone", None, 1)])
    found = samples(page)
    up = {labels[0][1]: value for (name, labels), value in found.items() if name == "perdure_process_up"}
    assert up == {"web": 1, "web-2": 1, "data": 0, "worker": 0, "late": 0, "gone": 0}
    assert found["things_total", (("name", 'a"\\\nb'), ("process", "web-2"))] == 2
    assert found["perdure_process_starts_total", (("process", "web-2"),)] == 3
    assert page.count(b"# TYPE things_total") == 1
    held.set()
    monkeypatch.setattr("perdure.app.metrics.telling._PATIENCE", 5.0)
    again = samples(render_tree([("data", slow, 1)]))  # the answer that came too late is passed over
    assert again["things_total", (("name", 'a"\\\nb'), ("process", "data"))] == 99
    for _, asker, _ in tree:
        asker.close()


@pytest.fixture
def address() -> Iterator[str]:
    with scraping("127.0.0.1", 0, "secret", lambda: b"things 1\n") as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("path", "token", "status"),
    [
        ("/metrics", "secret", 200),
        ("/metrics", "wrong", 401),
        ("/metrics", None, 401),
        ("/other", None, 401),
        ("/other", "secret", 404),
    ],
)
def test_numbers_are_told_to_who_has_the_token(address: str, path: str, token: str | None, status: int) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = Request(address + path, headers=headers)  # noqa: S310  # our own address
    if status == 200:
        with urlopen(request, timeout=10) as answer:  # noqa: S310
            assert answer.read() == b"things 1\n"
        return
    with pytest.raises(HTTPError) as caught:
        urlopen(request, timeout=10)  # noqa: S310
    caught.value.close()
    assert caught.value.code == status


def test_a_look_is_remembered_and_one_that_fails_or_hangs_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    held = threading.Event()

    def look() -> list[Metric]:
        asked.append(1)
        if len(asked) == 2:
            raise OSError
        if len(asked) == 3:
            held.wait(30)
        return numbers(len(asked))

    fact = Fact("things", look, 0.0)

    def answer(patience: float = 30.0) -> list[Metric] | None:
        fact._next = float("-inf")
        fact.begin()
        return fact.answer(time.monotonic() + patience)

    with capture_logs():
        assert answer()
        fact._next = float("inf")
        fact.begin()
        assert len(asked) == 1
        assert answer() is None
        monkeypatch.setattr("perdure.app.metrics.facts._STUCK_AFTER", 0.1)
        assert answer(patience=0.3) is None
        held.set()


def test_a_store_is_reachable_while_it_is_the_one_that_was_opened_and_lost_no_writes(
    db: Database, tmp_path: Path
) -> None:
    stores = [PosixStore(name, tmp_path / name) for name in ("one", "two")]
    storage = Storage(db, stores, instance_id=UUID(int=1))
    storage.prepare()

    def reachable() -> dict[str, float]:
        found = samples(render(look(db, storage).collect()))
        told = {labels[0][1] for name, labels in found if name == "perdure_store_free_bytes"}
        answers = {labels[0][1]: value for (name, labels), value in found.items() if name == "perdure_store_reachable"}
        assert told == {name for name, value in answers.items() if value}
        return answers

    assert reachable() == {"one": 1, "two": 1, "never there": 0}
    (tmp_path / "two").rename(tmp_path / "unmounted")
    (tmp_path / "two").mkdir()
    assert reachable() == {"one": 1, "two": 0, "never there": 0}
    (tmp_path / "two").rmdir()
    (tmp_path / "unmounted").rename(tmp_path / "two")
    assert reachable() == {"one": 1, "two": 1, "never there": 0}
    with failing_system(FaultPlan(at=1, counts=lambda call: call == "fsync")), pytest.raises(StoreFailedError):
        stores[0].write_store_file("lost", b"")
    assert reachable() == {"one": 0, "two": 1, "never there": 0}


def look(db: Database, storage: Storage) -> Facts:
    """Fresh facts: what was looked at is remembered."""
    names = ["one", "two", "never there"]
    return Facts(
        db,
        SystemClock(),
        stores=names,
        prepared=storage.stores,
        is_sound=storage.is_sound,
        room=storage.room,
        reserve=0,
        kinds=(),
        periodic={},
    )


def alerts() -> list[str]:
    return re.findall(r"alert: (\w+)", ALERTS.read_text())


def test_every_alert_is_described_and_tested() -> None:
    manual, tested = (OPERATE / "watch.md").read_text(), (Path(__file__).parent / "alerts_test.yml").read_text()
    assert not [name for name in alerts() if f"`{name}`" not in manual]
    assert not [name for name in alerts() if f"alertname: {name}," not in tested]


def test_every_metric_of_alerts_and_dashboard_is_described() -> None:
    dashboard = json.loads((OPERATE / "grafana" / "perdure.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    named = {
        re.sub(r"_(bucket|count|sum)$", "", name)
        for text in [*asked, *re.findall(r"expr: (?:>-)?((?:.|\n)*?)\n *for:", ALERTS.read_text())]
        for name in re.findall(r"\b(?:perdure|process)_[a-z0-9_]+", text)
    }
    manual = (OPERATE / "watch.md").read_text()
    assert len(named) > 40
    assert not [name for name in sorted(named) if f"`{name}" not in manual]


def test_alerts_go_off_for_their_reason_and_for_no_other(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("prometheus: it is not installed")
    checked = subprocess.run(["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    bare = re.sub(r" +annotations:\n +summary:.*\n +description:.*\n", "", ALERTS.read_text())  # else each is compared
    (tmp_path / "alerts.yml").write_text(bare)
    cases = (Path(__file__).parent / "alerts_test.yml").read_text()
    (tmp_path / "cases.yml").write_text(cases.replace("ALERTS", str(tmp_path / "alerts.yml")))
    tested = subprocess.run(["promtool", "test", "rules", str(tmp_path / "cases.yml")], capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout + tested.stderr
