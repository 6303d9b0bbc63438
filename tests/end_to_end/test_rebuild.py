"""The database is dropped, and what the stores hold comes back as the API tells it, also when a rebuild is killed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from perdure.storage.crash_points import EXIT_STATUS
from perdure_client import Client
from perdure_client.settings import Session

from .conftest import PASSWORD, PERSON
from .running import CONFLICT, Server, running, wait_for

RECORD: dict[str, Any] = {"creators": [{"name": "Ada Example"}], "publisher": "Example Source", "licence": "CC0-1.0"}
OF_COPIES = ("copy.verified", "archive.verified")  # tell of what is done again after the rebuild
TIMES_OF_COPIES = ("written_at", "verified_at", "state", "evidence")


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        server.admin("admin", "account", PERSON, stdin=f"{PASSWORD}\n")
        yield server


@pytest.mark.timeout(180)
def test_the_archives_come_back_from_the_stores_alone(server: Server, tmp_path: Path) -> None:
    with server.client() as client:
        archives = fill(client, tmp_path)
        link = client.make_link(archives["closed"], "scans/1.dat", name="for the referees")["secret"]
        before = {name: tell(client, archive) for name, archive in archives.items()}
    export_all(server)
    server.stop()
    shutil.rmtree(server.data / "postgres")
    shutil.rmtree(server.data / "stores" / "first" / "journal", ignore_errors=True)  # the second has the same lines

    for point in ("rebuild.registry_restored", "rebuild.archive_restored"):
        server.set_trap(point)
        server.admin("admin", "rebuild", code=EXIT_STATUS)
        assert "was interrupted" in server.admin("serve", code=CONFLICT)
    said = server.admin("admin", "rebuild")
    assert f"{len(archives)} archives" in said
    assert "the given password" in server.admin("admin", "bootstrap", "--password-stdin", stdin=f"{PASSWORD}\n")
    server.start()
    with server.client(password=PASSWORD) as client:
        for name, archive in archives.items():
            after = tell(client, archive)
            assert after.keys() == before[name].keys()
            for part in after:
                assert after[part] == before[name][part], f"{name}: {part}"
        with Client(Session(server.url, link)) as visitor:
            assert visitor.read(archives["closed"], "scans/1.dat") == bytes([1]) * 1000
        carry_on(client, archives, tmp_path)


def fill(client: Client, folder: Path) -> dict[str, str]:
    """Archives of every kind, by a name for each."""
    source = folder / "source"
    (source / "scans").mkdir(parents=True)
    for number in range(20):
        (source / "scans" / f"{number}.dat").write_bytes(bytes([number]) * 1000 * number)
    (source / "empty folder").mkdir()
    (source / "latest").symlink_to("scans/19.dat")
    (source / "line\nbreak").write_text("odd")

    closed = client.open_archive(title="Closed", tags=["one", "two"], **RECORD).id
    client.put(closed, source)
    client.patch_metadata(closed, {"beam": {"energy": {"value": 12.4, "unit": "keV"}}})
    client.patch_metadata(closed, {"detector": "in"}, path="scans/1.dat")
    client.close(closed)
    client.receipt(closed, wait_seconds=60)
    client.patch_metadata(closed, {"beam": {"energy": {"value": 12.5, "unit": "keV"}}, "late": 1.50})
    client.describe(closed, title="Closed, described later")
    client.grant(closed, "reader", login=PERSON)

    child = client.append(closed, title="Child").id
    (folder / "0.dat").write_bytes(b"replaced")
    client.put(child, folder / "0.dat", into="scans")
    client.remove(child, ["scans/3.dat"])
    client.close(child)
    client.receipt(child, wait_seconds=60)

    still_open = client.open_archive(title="Open", **RECORD).id
    client.put(still_open, source)
    client.remove(still_open, ["scans/7.dat"])
    client.patch_metadata(still_open, {"note": "not closed"})
    client.grant(still_open, "contributor", login=PERSON)

    withdrawn = client.open_archive(title="Withdrawn", **RECORD).id
    client.put(withdrawn, source / "scans")
    client.close(withdrawn)
    client.receipt(withdrawn, wait_seconds=60)
    client.withdraw(withdrawn, "sent by mistake")
    wait_for(lambda: client.archive(withdrawn).raw["tombstone"].get("removed"))
    return {"closed": closed, "child": child, "open": still_open, "withdrawn": withdrawn}


def tell(client: Client, archive: str) -> dict[str, Any]:
    """What the API tells of an archive that matters."""
    record = client.archive(archive)
    told: dict[str, Any] = {
        "record": {name: value for name, value in record.raw.items() if name != "head_version"},
        "grants": client.list_grants(archive),
        "metadata": client.read_metadata(archive),
        "history": list(client.metadata_history(archive)),
        "record history": client._transport.json("GET", f"/archives/{archive}/record-history"),
        "events": [event for event in client.events(archive_id=archive) if event["type"] not in OF_COPIES],
    }
    if record.state == "withdrawn":
        return told
    told["entries"] = [entry.raw for entry in client.entries(archive, recursive=True)]
    told["contents"] = {entry.path: client.read(archive, entry.path) for entry in _files(client, archive)}
    if record.state == "closed":
        told |= {"statement": client.statement(archive), "receipt": client.receipt(archive)}
        told["copies"] = [
            {name: value for name, value in copy.items() if name not in TIMES_OF_COPIES}
            for copy in client.copies(archive)
        ]
    return told


def _files(client: Client, archive: str) -> list[Any]:
    return [entry for entry in client.entries(archive, recursive=True) if entry.kind == "file"][:8]


def export_all(server: Server) -> None:
    """Let what is written to the stores every few minutes be written at the next start, and wait for it."""
    with psycopg.connect(server.database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM periodic_runs WHERE kind LIKE 'archives.export_%'")
        server.kill_child("worker")
        wait_for(
            lambda: (
                connection.execute(
                    "SELECT count(finished_at) = 2 FROM periodic_runs WHERE kind LIKE 'archives.export_%'"
                ).fetchone()
                == (True,)
            )
        )


def carry_on(client: Client, archives: dict[str, str], folder: Path) -> None:
    """What was rebuilt is not for show only: it is filled, closed, verified, appended to and changed."""
    (folder / "new").write_text("after the rebuild")
    assert client.put(archives["open"], folder / "new").stored == 1
    client.close(archives["open"])
    assert client.verify(archives["closed"]).result["good"] is True
    client.patch_metadata(archives["closed"], {"after": "the rebuild"})
    assert client.append(archives["child"]).parent_id == archives["child"]
