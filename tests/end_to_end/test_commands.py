"""Every command as a process against a running server: what it prints, with --json too, and how it exits."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from perdure.testing.processes import free_ports
from perdure_client import ApiError, Client
from perdure_client.cli.main import _COMMANDS
from perdure_client.cli.main import perdure as root
from perdure_client.settings import Session

from .conftest import PASSWORD, PERSON
from .running import (
    CONFLICT,
    DESCRIPTION,
    NOT_ALLOWED,
    NOT_THERE,
    PROGRAM,
    TRY_AGAIN,
    USAGE,
    Command,
    Numbers,
    Server,
    wait_for,
)

NOBODY_HAS_THIS = "01938c2f-7b3a-7c0e-9f1d-2b4a6c8e0f12"


# Who


def test_login_keeps_a_token_and_logout_revokes_it(server: Server, tmp_path: Path) -> None:
    perdure = Command(tmp_path, server.url)
    assert "not logged in" in perdure("archive", "list", code=NOT_ALLOWED).err
    refused = perdure("login", "--login", PERSON, "--password-stdin", "--json", stdin="wrong\n", code=NOT_ALLOWED)
    assert refused.error["code"] == "bad_credentials"
    perdure("login", "--login", PERSON, "--password-stdin", stdin="\n", code=USAGE)
    said = perdure("login", "--login", PERSON, "--password-stdin", "--json", stdin=f"{PASSWORD}\n").json
    assert (said["url"], said["login"]) == (server.url, PERSON)
    kept = json.loads((tmp_path / "credentials.json").read_text())["servers"][server.url]["token"]
    assert perdure("whoami", "--json").json["identity"]["display_name"] == "Grace Example"
    assert "Grace Example" in perdure("whoami").out
    assert "Logged out" in perdure("logout").out
    assert "not logged in" in perdure("logout").out
    with Client(Session(server.url, kept)) as client, pytest.raises(ApiError) as caught:
        client.me()
    assert caught.value.status == 401


def test_login_leaves_no_session_behind(server: Server, tmp_path: Path) -> None:
    perdure = Command(tmp_path, server.url)
    words = ("login", server.url, "--login", PERSON, "--password-stdin", "--days", "1")
    assert "Logged in" in perdure(*words, stdin=f"{PASSWORD}\n").out
    assert (tmp_path / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in (tmp_path / "credentials.json").read_text()
    perdure("logout")


def test_tokens(perdure: Command, server: Server) -> None:
    made = perdure("token", "create", "reader of events", "--verb", "read", "--days", "3", "--json").json
    assert made["verbs"] == ["read"]
    secret = {"PERDURE_TOKEN": made["secret"]}
    assert perdure("whoami", environment=secret).out.count("read") == 1
    perdure("archive", "create", "No", environment=secret, code=NOT_ALLOWED)
    listed = perdure("token", "list", "--json").json
    assert made["id"] in {one["id"] for one in listed}
    assert made["secret"] not in json.dumps(listed)
    assert perdure("token", "revoke", made["id"]).out == "Revoked.\n"
    assert perdure("whoami", "--json", environment=secret, code=NOT_ALLOWED).error["status"] == 401
    shown = perdure("token", "create", "for a program").out.strip()
    with Client(Session(server.url, shown)) as client:
        assert client.me()["verbs"] == ["read", "write"]
    perdure("token", "create", "outlives", "--days", "365", code=NOT_ALLOWED)
    perdure("token", "revoke", NOBODY_HAS_THIS, code=NOT_THERE)


# The life of an archive


def test_profiles_are_listed(perdure: Command) -> None:
    assert {"personal", "beamline", "facility"} <= {one["name"] for one in perdure("profile", "list", "--json").json}
    assert "10 years" in perdure("profile", "list").out


def test_a_profile_is_defined_from_one_that_is_shown(perdure: Command, server: Server) -> None:
    login = ("login", "--login", "admin", "--administrator", "--password-stdin")
    perdure(*login, stdin=f"{server.password()}\n")
    shown = json.loads(perdure("profile", "show", "personal").out)
    changed = {**shown, "name": "short-stay", "lifetime_default_days": 30, "copies": 1}
    assert json.loads(perdure("profile", "define", stdin=json.dumps(changed)).out) == changed
    assert json.loads(perdure("profile", "show", "short-stay").out) == changed
    assert "copies" in perdure("profile", "define", stdin=json.dumps({**changed, "copies": 0}), code=2).err
    assert "not JSON" in perdure("profile", "define", stdin="{", code=2).err


def test_an_archive_is_opened_described_found_and_discarded(perdure: Command) -> None:
    made = perdure("archive", "create", "Foil É", "--tag", "a", "--tag", "b", "--subject", "Cu", "--json").json
    archive = made["short_id"]
    assert (made["state"], made["title"], made["tags"], made["subjects"]) == ("open", "Foil É", ["a", "b"], ["Cu"])
    described = perdure("archive", "describe", archive, "--title", "Foil Ö", "--description", "two\nlines", "--json")
    assert (described.json["title"], described.json["tags"]) == ("Foil Ö", ["a", "b"])
    perdure("archive", "describe", archive, "--title", "lost", "--if-revision", "1", code=CONFLICT)
    perdure("archive", "describe", archive, code=USAGE)
    assert "revision 3" in perdure("archive", "describe", archive, "--creator", "Ada; ; A house").out
    assert "Foil Ö" in perdure("archive", "list", "--text", "foil ö").out
    shown = perdure("archive", "show", made["id"], "--json").json
    assert [creator["affiliation"] for creator in shown["creators"]] == ["A house"]
    assert "Foil Ö" in perdure("archive", "show", archive).out
    assert perdure("archive", "close", archive, "--json", code=CONFLICT).error["code"] == "archive_empty"
    perdure("archive", "discard", archive, stdin="another title\n", code=USAGE)
    assert "Discarded" in perdure("archive", "discard", archive, stdin="Foil Ö\n").out
    assert archive not in {one["short_id"] for one in perdure("archive", "list", "--json").json}
    assert perdure("archive", "show", archive, "--json").json["state"] == "discarded"


def test_creating_takes_every_field(perdure: Command) -> None:
    words = ("--access", "embargoed", "--embargo-until", "2030-01-31", "--profile", "beamline", *DESCRIPTION)
    made = perdure("archive", "create", "Embargoed", *words, "--json").json
    assert (made["access"], made["embargo_until"], made["profile"]) == ("embargoed", "2030-01-31", "beamline")
    assert made["creators"][0]["orcid"].endswith("0000-0002-1825-0097")
    perdure("archive", "discard", made["id"], "--yes")


WRONG: list[tuple[tuple[str, ...], int]] = [
    (("archive", "show", NOBODY_HAS_THIS), NOT_THERE),
    (("archive", "show", "nonsense"), USAGE),
    (("archive", "show", "01m7wj34e-kea0aw83r-vrtaz2zf0"), USAGE),  # a wrong check character
    (("archive", "create", "x", "--profile", "none"), NOT_THERE),
    (("archive", "create", "x", "--creator", ";0000-0002-1825-0097"), USAGE),
    (("archive", "create", "x", "--creator", "A; 0000-0002-1825-0098"), USAGE),
    (("archive", "create", "x", "--access", "secret"), USAGE),
    (("archive", "append", NOBODY_HAS_THIS), NOT_THERE),
    (("ls", NOBODY_HAS_THIS), NOT_THERE),
    (("get", NOBODY_HAS_THIS), NOT_THERE),
    (("put", NOBODY_HAS_THIS, "."), NOT_THERE),
    (("put", NOBODY_HAS_THIS, "not there"), USAGE),
    (("rm", NOBODY_HAS_THIS, "a"), NOT_THERE),
    (("meta", "get", NOBODY_HAS_THIS), NOT_THERE),
    (("meta", "set", NOBODY_HAS_THIS, "a=1"), NOT_THERE),
    (("meta", "set", NOBODY_HAS_THIS, "a"), USAGE),
    (("meta", "patch", NOBODY_HAS_THIS), USAGE),
    (("verify", NOBODY_HAS_THIS), NOT_THERE),
    (("verify", "."), USAGE),
    (("events", "--archive", NOBODY_HAS_THIS), NOT_THERE),
    (("job", "show", NOBODY_HAS_THIS), NOT_THERE),
    (("job", "wait", NOBODY_HAS_THIS), NOT_THERE),
    (("archive", "create", "not UTF-8: \udcff"), USAGE),
    (("completion", "tcsh"), USAGE),
    (("frobnicate",), USAGE),
    (("archive",), USAGE),
    (("--url", "ftp://x", "whoami"), USAGE),
    (("--url", "http://127.0.0.1:9", "whoami"), NOT_ALLOWED),  # no token is kept for that one
]


def test_a_wrong_word_ends_with_its_exit_code_and_a_sentence(perdure: Command) -> None:
    with ThreadPoolExecutor(4) as pool:
        nobody_answers = {"PERDURE_URL": "http://127.0.0.1:9", "PERDURE_TOKEN": "x"}
        waiting = pool.submit(perdure, "whoami", environment=nobody_answers, code=TRY_AGAIN)
        for ran in pool.map(lambda one: perdure(*one[0], code=one[1]), WRONG):
            assert ran.err.strip()
        assert "connection_lost" in waiting.result().err


def test_roles_are_granted_and_revoked(perdure: Command, server: Server, closed: tuple[str, Path]) -> None:
    archive = closed[0]
    other = Command(perdure.folder / "grace", server.url)
    other.log_in(PASSWORD, PERSON)
    other("archive", "show", archive, code=NOT_THERE)
    other("get", archive, code=NOT_THERE)
    assert "is reader" in perdure("grant", "give", archive, "reader", PERSON).out
    assert other("archive", "show", archive, "--json").json["actions"] == ["read", "see"]
    assert other("ls", archive).out
    other("meta", "set", archive, "a=1", code=NOT_ALLOWED)
    other("archive", "withdraw", archive, "--reason", "no", "--yes", code=NOT_ALLOWED)
    grants = perdure("grant", "list", archive, "--json").json
    given = next(one for one in grants if one["role"] == "reader")
    assert given["id"] in perdure("grant", "list", archive).out
    perdure("grant", "give", archive, "reader", "nobody", code=USAGE)
    assert perdure("grant", "revoke", archive, given["id"]).out == "Revoked.\n"
    other("archive", "show", archive, code=NOT_THERE)
    perdure("grant", "revoke", archive, given["id"], code=NOT_THERE)


# Metadata


def test_metadata_is_set_patched_read_and_remembered(perdure: Command) -> None:
    archive = perdure.create("Described")
    said = perdure("meta", "set", archive, "beam.energy:=12.4 keV", "sample.name=Cu foil", 'hot=["a", 1]', "n=3").out
    assert said == "4 values changed; the metadata is at revision 1.\n"
    found = perdure("meta", "get", archive, "--json").json
    assert found["value"]["beam"] == {"energy": {"value": 12.4, "unit": "keV"}}
    assert len(found["digest"]) == 128
    assert perdure("meta", "get", archive, "/sample/name").out == '"Cu foil"\n'
    perdure("meta", "get", archive, "/not/there", code=NOT_THERE)
    before = found["etag"].strip('"')
    perdure("meta", "set", archive, "n=4", "--if-match", before)
    stale = perdure("meta", "set", archive, "n=5", "--if-match", before, "--json", code=CONFLICT)
    assert stale.error["code"] == "revision_mismatch"
    patch = [{"op": "test", "path": "/n", "value": 4}, {"op": "remove", "path": "/hot"}]
    assert perdure("meta", "patch", archive, "--json", stdin=json.dumps(patch)).json["changed"] == 1
    perdure("meta", "patch", archive, "--json", stdin=json.dumps(patch), code=CONFLICT)
    perdure("meta", "patch", archive, stdin='"text"', code=USAGE)
    perdure("meta", "patch", archive, stdin='{"a": "\\ud800"}', code=USAGE)
    perdure("meta", "patch", archive, stdin='{"a":' * 3000 + "1" + "}" * 3000, code=USAGE)
    perdure("meta", "set", archive, "a:=much keV", code=USAGE)
    perdure("meta", "set", archive, "n=")
    assert "n" not in perdure("meta", "get", archive, "--json").json["value"]
    history = perdure("meta", "history", archive, "--json").lines
    assert [change["actor_name"] for change in history] == ["admin"] * 4
    early = perdure("meta", "get", archive, "--as-of", history[0]["at"], "--json").json["value"]
    assert early["n"] == 3
    assert "/n: 3 → 4" in perdure("meta", "history", archive).out


def test_a_file_has_metadata_of_its_own(perdure: Command, closed: tuple[str, Path]) -> None:
    archive = closed[0]
    perdure("meta", "set", archive, "--file", "scans/1.csv", "detector=in")
    odd = "line\nbreak \\ 'é'"
    perdure("meta", "set", archive, "--file", odd, "seen=true")
    assert perdure("meta", "get", archive, "/seen", "--file", odd).out == "true\n"
    perdure("meta", "set", archive, "--file", "scans/none.csv", "a=1", code=NOT_THERE)
    lines = perdure("meta", "history", archive, "--file", "scans/1.csv", "--json").lines
    assert [line["path"] for line in lines] == ["scans/1.csv"]


# Completion and the operator's commands


@pytest.mark.parametrize(("shell", "place"), [("bash", "1"), ("zsh", "1"), ("fish", "arch")])
def test_completion(perdure: Command, shell: str, place: str) -> None:
    assert f"_PERDURE_COMPLETE={shell}_source" in perdure("completion", shell).out
    completed = {"_PERDURE_COMPLETE": f"{shell}_complete", "COMP_WORDS": "perdure arch", "COMP_CWORD": place}
    assert "archive" in perdure(environment=completed).out


def test_every_command_has_help(perdure: Command) -> None:
    told = perdure("--help").out
    for name in (*_COMMANDS, "serve", "worker", "admin", "doctor", "demo"):
        assert f"\n  {name} " in told
        helped = CliRunner().invoke(root, [name, "--help"])
        assert helped.exit_code == 0
        assert helped.output.startswith(f"Usage: perdure {name}")
    assert perdure("--version").out.startswith("perdure, version ")


def test_the_operators_commands(perdure: Command, server: Server) -> None:
    perdure("archive", "create", "There before a rebuild")
    assert server.admin("admin", "schema") == "current\n"
    assert "it is current" in server.admin("admin", "migrate")
    assert "exists already" in server.admin("admin", "bootstrap")
    assert "a new one" in server.admin("admin", "rebuild", code=CONFLICT)
    assert "in use" in server.admin("serve", code=CONFLICT)
    assert json.loads(server.admin("doctor", "--json"))["well"] is True
    assert "problem" not in server.admin("doctor")


def test_a_further_worker_comes_tells_its_numbers_and_stops(server: Server, tmp_path: Path) -> None:
    with psycopg.connect(server.database_url, autocommit=True) as connection, (tmp_path / "log").open("w") as log:

        def workers() -> int:
            (found,) = connection.execute("SELECT count(*) FROM procrastinate_workers").fetchone() or (0,)
            return int(found)

        before = workers()
        (port,) = free_ports(1)
        words = [str(PROGRAM), "worker", "--concurrency", "1", "--metrics-port", str(port)]
        worker = subprocess.Popen(words, env=server.environment, cwd=tmp_path, stderr=log)
        try:
            wait_for(lambda: workers() > before)
            told = Numbers(port)
            assert told.value("perdure_build_info", process="worker") == 1
            assert told.value("perdure_store_reachable", process="worker") == len(server.roots())
            assert told.value("process_resident_memory_bytes") > 0
        finally:
            worker.terminate()
        assert worker.wait(60) == 0, (tmp_path / "log").read_text()
