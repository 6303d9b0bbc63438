"""A real Prometheus watches a real installation: every number of the dashboard is there, and an alert goes off."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from perdure.testing.processes import free_ports

from .running import Numbers, Server, running, wait_for

DOCS = Path(__file__).parents[2] / "docs" / "operate"
ALERTS = DOCS / "prometheus" / "alerts.yml"
DASHBOARD = DOCS / "grafana" / "perdure.json"
# What nothing has happened for yet in a healthy installation, so that the numbers are no numbers or none
MAY_BE_EMPTY = (
    "perdure_copies_oldest_unverified_seconds",
    'status=~"4xx|5xx|none"',
    "perdure_periodic_failing",
    "> 3",
)
NAME = re.compile(r"\b(?:perdure|process)_[a-z0-9_]+\b(?!=)")


@dataclass(frozen=True)
class Watched(Numbers):
    server: Server
    asked: int

    def ask(self, path: str, **fields: str) -> Any:  # Any: the JSON of Prometheus
        with urlopen(f"http://127.0.0.1:{self.asked}/api/v1/{path}?{urlencode(fields)}", timeout=10) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        return told["data"]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus: it is not installed")
    port, listening = free_ports(2)
    with running(metrics_port=str(port)) as server:
        folder = tmp_path_factory.mktemp("prometheus")
        with prometheus(folder, port, listening):
            yield Watched(port, server, listening)


@contextmanager
def prometheus(folder: Path, port: int, listening: int) -> Iterator[None]:
    """Prometheus on its shipped configuration, but for the address and its patience."""
    given = (DOCS / "prometheus" / "prometheus.yml").read_text()
    given = given.replace("127.0.0.1:8442", f"127.0.0.1:{port}").replace("interval: 15s", "interval: 1s")
    (folder / "prometheus.yml").write_text(given)
    shutil.copy(ALERTS, folder)
    words = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    words.append(f"--web.listen-address=127.0.0.1:{listening}")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        wait_for(lambda: is_ready(listening) or None)
        yield
    finally:
        process.terminate()
        process.wait(30)


def is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def expressions() -> Mapping[str, list[str]]:
    """The expressions of each panel of the dashboard, for all instances and as Grafana would ask them."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return {
        panel["title"]: [
            target["expr"].replace("$__rate_interval", "30s").replace("$instance", ".*") for target in panel["targets"]
        ]
        for panel in panels
        if panel["type"] != "row"
    }


@pytest.mark.timeout(240)
def test_the_dashboard_is_full_and_a_damaged_copy_alerts(watched: Watched, tmp_path: Path) -> None:
    wait_for(lambda: any(target["health"] == "up" for target in watched.ask("targets")["activeTargets"]))
    (tmp_path / "scan.dat").write_bytes(b"counts " * 100_000)
    (watched.server.sources / "table.csv").write_bytes(b"1,2\n" * 50_000)
    with watched.server.client() as client:
        archive = client.open_archive(
            title="Watched", creators=[{"name": "Ada Example"}], publisher="Example Source", licence="CC0-1.0"
        ).id
        client.put(archive, tmp_path / "scan.dat")
        client.ingest(archive, str(watched.server.sources))
        assert client.read(archive, "scan.dat", 0, 6) == b"counts"
        client.close(archive)
        client.receipt(archive, wait_seconds=60)
        numbers_follow(watched)
        the_names_exist(watched)
        with suppress(AssertionError):
            wait_for(lambda: not empty_panels(watched), 40)
        assert not empty_panels(watched)

        damaged = next((watched.server.data / "stores" / "second" / "root").rglob("scan.dat"))
        whole = damaged.read_bytes()
        damaged.chmod(0o600)
        damaged.write_bytes(b"C" + whole[1:])
        try:
            client.verify(archive)
            wait_for(lambda: "PerdureCopySuspect" in firing(watched) or None)
        finally:
            damaged.write_bytes(whole)
    assert not firing(watched) - {"PerdureCopySuspect"}


def numbers_follow(watched: Watched) -> None:
    """What was done is what is told."""
    wait_for(lambda: watched.value("perdure_archives", state="closed") == 1.0 or None)
    assert watched.value("perdure_http_requests_total", operation="close_archive", status="2xx") == 1.0
    assert watched.value("perdure_files_stored") == 2.0
    assert watched.value("perdure_content_bytes") == 900_000
    assert watched.value("perdure_http_received_bytes_total", process="data") >= 700_000
    assert watched.value("perdure_jobs_received_bytes_total", kind="archives.ingest", process="worker") == 200_000
    assert watched.value("perdure_jobs_ended_total", kind="archives.close", outcome="succeeded") == 1.0
    assert watched.value("perdure_store_reachable", store="second") == 1.0
    assert watched.value("perdure_database_up") == 1.0
    assert {watched.value("perdure_process_up", process=name) for name in ("web", "data", "worker")} == {1.0}
    wait_for(lambda: watched.value("perdure_copies", store="second", state="verified") >= 2 or None)


def the_names_exist(watched: Watched) -> None:
    """Every metric that an alert or a panel names is told."""
    told = {sample.name for family in watched.scrape().values() for sample in family.samples}
    told |= {"perdure_copies_oldest_unverified_seconds"}  # only while there is one
    asked = [expression for panel in expressions().values() for expression in panel]
    asked += [line for line in ALERTS.read_text().splitlines() if "annotations" not in line and "name:" not in line]
    named = {name for expression in asked for name in NAME.findall(expression)}
    assert len(named) > 40
    missing = named - told
    assert not missing


def empty_panels(watched: Watched) -> list[str]:
    """Panels with an expression that Prometheus finds nothing for; an expression that it refuses raises."""
    return [
        f"{title}: {expression}"
        for title, panel in expressions().items()
        for expression in panel
        if not watched.ask("query", query=expression)["result"]
        and not any(known in expression for known in MAY_BE_EMPTY)
    ]


def firing(watched: Watched) -> set[str]:
    alerts = watched.ask("alerts")["alerts"]
    return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
