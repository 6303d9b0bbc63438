"""The doctor finds what is wrong, says how to mend it, and changes nothing."""

from __future__ import annotations

import json
import socket
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from perdure.db import Database
from perdure.doors.admin.doctor import Finding, examine, report
from perdure.settings import Settings, load_settings
from perdure.testing.certificates import make_authority, make_certificate, make_revocation_list


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


def test_programs_read_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(settings_of(tmp_path), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["well"] is True
    assert {"name", "is_well", "said", "mend"} == told["findings"][0].keys()
