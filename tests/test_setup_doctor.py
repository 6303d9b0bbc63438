"""The doctor finds what is wrong, says how to mend it, and changes nothing."""

from __future__ import annotations

import json
import socket
import threading
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text

from perdure.app.composition import make_questions
from perdure.db import Database
from perdure.doors.admin import doctor
from perdure.doors.admin.doctor import Finding, examine, report
from perdure.settings import Settings, load_settings
from perdure.testing.certificates import make_authority, make_certificate, make_revocation_list

from .identity.directory import PEOPLE, SERVICE_DN, SERVICE_PASSWORD, Slapd, find_missing, running_slapd
from .identity.signing_in import find_tools, running_hall


def settings_of(folder: Path, **chosen: object) -> Settings:
    return load_settings({"HOME": str(folder)}, data_dir=str(folder / "data"), port=0, data_port=0, **chosen)


def problems(settings: Settings) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(settings) if not finding.is_well}


def test_a_fresh_installation_is_well_and_stays_untouched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_of(tmp_path)
    assert report(settings, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    assert any("share a device" in line for line in lines), "the default stores are told to be for trying out"
    assert list(tmp_path.iterdir()) == []


def test_the_schema_and_the_clock_of_a_given_database_are_looked_at(tmp_path: Path, db: Database) -> None:
    settings = settings_of(tmp_path, database_url=db.url)
    found = problems(settings)
    assert found["database schema"].mend == "Run `perdure admin migrate`."
    assert "clock" not in found
    with db.begin() as tx:
        tx.execute(text("CREATE TABLE alembic_version (version_num text)"))
        tx.execute(text("INSERT INTO alembic_version VALUES ('of the future')"))
    assert "newer release" in problems(settings)["database schema"].mend


def test_a_database_that_is_away_is_a_finding_not_a_crash(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, database_url="postgresql://nobody@/nothing?host=/nonexistent")
    assert "connection" in problems(settings)["database"].said


def test_full_disks_open_keys_and_taken_ports_are_found(tmp_path: Path) -> None:
    (tmp_path / "data" / "keys").mkdir(parents=True)
    key = tmp_path / "data" / "keys" / "signing.pem"
    key.touch()
    key.chmod(0o644)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        chosen = {"HOME": str(tmp_path), "PERDURE_DATA_DIR": str(tmp_path / "data"), "PERDURE_DATA_PORT": "0"}
        settings = load_settings(chosen, port=port, disk_reserve_bytes=2**60)
        found = problems(settings)
    assert found["key signing.pem"].mend == f"chmod 600 {key}"
    assert found["web port"].said.endswith("is taken")
    assert {"data folder space", "store first space"} <= found.keys()


def test_stores_that_claim_to_be_apart_but_share_a_device_are_a_problem(tmp_path: Path) -> None:
    stores = [{"name": name, "path": str(tmp_path / name), "location": name} for name in ("one", "two")]
    assert "store devices" in problems(settings_of(tmp_path, stores=stores))


def test_a_certificate_that_ends_soon_or_has_an_open_key_is_a_problem(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "certificate.pem", days=90)
    settings = settings_of(tmp_path, tls_cert=str(certificate))
    assert not problems(settings).keys() & {"certificate", "certificate's key"}
    certificate.chmod(0o644)
    assert problems(settings)["certificate's key"].mend == f"chmod o-rwx {certificate}"
    make_certificate(certificate, days=5)
    assert "(4 days)" in problems(settings)["certificate"].said
    certificate.write_text("none")
    assert "cannot be used" in problems(settings)["certificate"].said


def test_revocation_lists_that_do_not_count_are_a_problem(tmp_path: Path) -> None:
    authority = make_authority(tmp_path / "authority.pem")
    path = make_revocation_list(tmp_path / "list.pem", authority=authority)
    card = {"name": "card", "kind": "x509", "crl_files": [str(path)], "ca_file": str(authority)}
    settings = settings_of(tmp_path, providers=[card])
    name = f"revocation list {path}"
    assert name not in problems(settings)
    assert name in {finding.name for finding in examine(settings)}
    make_revocation_list(path, authority=authority, ends=timedelta(minutes=-1))
    found = problems(settings)[name]
    assert "it ended on" in found.said
    assert "nobody is let in" in found.mend
    mild = settings_of(tmp_path, providers=[{**card, "on_bad_crl": "warn"}])
    assert "revoked ones are let in" in problems(mild)[name].mend
    path.unlink()
    assert "cannot be read (No such file" in problems(settings)[name].said
    none = settings_of(tmp_path, providers=[{"name": "card", "kind": "x509"}])
    (told,) = [finding for finding in examine(none) if finding.name == "certificates of card"]
    assert (told.is_well, "revoked certificates are taken" in told.said) == (True, True)


def ask_all(settings: Settings) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(settings, outside=make_questions(settings))}


def directory_at(slapd: Slapd, **more: object) -> dict[str, object]:
    kept = {"ca_file": str(slapd.certificate), "bind_dn": SERVICE_DN, "bind_password": SERVICE_PASSWORD}
    return {"name": "site", "kind": "ldap", "servers": [slapd.ldaps], "user_base": PEOPLE, **kept, **more}


@pytest.mark.skipif(find_missing() is not None, reason=f"slapd: {find_missing()}")
def test_each_server_of_a_directory_is_asked(tmp_path: Path) -> None:
    (tmp_path / "slapd").mkdir()
    with socket.socket() as closed, running_slapd(tmp_path / "slapd") as slapd:
        closed.bind(("127.0.0.1", 0))
        away = f"127.0.0.1:{closed.getsockname()[1]}"
        both = directory_at(slapd, servers=[slapd.ldaps, f"ldaps://{away}"])
        found = ask_all(settings_of(tmp_path, providers=[both]))
        name = f"directory site at {urlsplit(slapd.ldaps).netloc}"
        assert (found[name].is_well, found[name].said) == (True, f"it lets us in as {SERVICE_DN}")
        assert found[f"directory site at {away}"].said == "it cannot be reached (ConnectionRefusedError)"
        by_name = {**both, "bind_dn": "", "bind_password": None, "user_base": "", "user_dn": f"uid={{login}},{PEOPLE}"}
        assert ask_all(settings_of(tmp_path, providers=[by_name]))[name].is_well
        wrong = {"bind_password": "not the password"}
        for changed, said in (
            (wrong, "does not let us in"),
            ({"user_base": "ou=nowhere,dc=example,dc=org"}, "does not let us look at user_base"),
            ({"ca_file": str(make_certificate(tmp_path / "other.pem"))}, "its certificate is not to be trusted"),
        ):
            told = ask_all(settings_of(tmp_path, providers=[directory_at(slapd, **changed)]))[name]
            assert said in told.said
            assert "not the password" not in str(told)
        broken = ask_all(settings_of(tmp_path, providers=[directory_at(slapd, user_filter="(")]))
        assert "cannot be used" in broken["directory site"].said


@pytest.mark.slow
@pytest.mark.skipif(find_tools() is not None, reason=f"npm: {find_tools()}")
def test_each_provider_is_asked_what_it_publishes(tmp_path: Path) -> None:
    with running_hall() as hall:
        here = {"name": "hall", "issuer": hall.issuer, "client_id": "c", "client_secret": "a secret of ours"}
        away = {**here, "name": "away", "issuer": "http://127.0.0.1:9"}
        other = {**here, "name": "other", "issuer": hall.issuer.replace("127.0.0.1", "localhost")}
        issuer = {"name": "grid", "issuer": hall.issuer}
        found = ask_all(settings_of(tmp_path, providers=[here, away, other], token_issuers=[issuer]))
    assert found["provider hall"] == Finding("provider hall", True, "ends sessions there and tells of ended ones")
    assert found[f"token issuer {hall.issuer}"].is_well
    assert "cannot be reached" in found["provider away"].said
    assert "calls itself something else" in found["provider other"].said
    assert "a secret of ours" not in str(found)


def test_who_never_answers_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OUTSIDE_WITHIN", 0.2)
    never = threading.Event()

    def hang() -> str:
        never.wait(60)
        return "late"

    def break_down() -> str:
        raise RuntimeError("a secret of ours")

    outside = {"hangs": hang, "breaks": break_down, "answers": lambda: "here"}
    found = {one.name: one for one in examine(settings_of(tmp_path), outside=outside)}
    never.set()
    assert found["hangs"].said == "no answer came within 0 seconds"
    assert found["breaks"].said == "it could not be asked (RuntimeError)"
    assert found["answers"].is_well


def test_programs_read_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(settings_of(tmp_path), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["well"] is True
    assert {"name", "is_well", "said", "mend"} == told["findings"][0].keys()
