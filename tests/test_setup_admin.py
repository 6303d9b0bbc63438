"""The operator's commands on a database of the operator's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from perdure.app import commands
from perdure.db.migrations import SchemaState, schema_state


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty_url: str) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "configure_logging", lambda **options: None)  # the tests' logs are pytest's
    return CliRunner(env={"PERDURE_DATABASE_URL": empty_url, "PERDURE_DATA_DIR": str(tmp_path / "data")})


def admin(runner: CliRunner, *words: str, typed: str | None = None) -> Result:
    return runner.invoke(commands.admin_group, words, input=typed)


def test_a_database_is_migrated_then_gets_its_administrator_once(runner: CliRunner, empty_url: str) -> None:
    assert admin(runner, "schema").output == "behind\n"
    early = admin(runner, "bootstrap")
    assert early.exit_code == 5
    assert "perdure admin migrate" in early.output

    assert admin(runner, "migrate").output == "The schema was behind; it is current.\n"
    assert admin(runner, "migrate").output == "The schema was current; it is current.\n"
    assert schema_state(empty_url) is SchemaState.CURRENT

    first = admin(runner, "bootstrap", "--login", "keeper")
    assert first.output.startswith("Login keeper, password ")
    assert admin(runner, "bootstrap", "--login", "keeper").output == "keeper exists already and was left as it is.\n"


def test_a_given_password_is_not_shown(runner: CliRunner) -> None:
    admin(runner, "migrate")
    told = admin(runner, "bootstrap", "--password-stdin", typed="a long and quiet sentence\n")
    assert told.output == "Login admin has the given password.\n"


def test_an_account_is_made_in_the_only_organisation(runner: CliRunner) -> None:
    admin(runner, "migrate")
    assert admin(runner, "account", "grace", typed="a long and quiet sentence\n").exit_code == 2  # there is none yet
    admin(runner, "bootstrap")
    told = admin(runner, "account", "grace", "--name", "Grace Example", typed="a long and quiet sentence\n")
    assert told.output == "grace can log in.\n"
    assert admin(runner, "account", "grace", typed="a long and quiet sentence\n").exit_code == 5


def test_a_wrong_setting_ends_with_a_sentence_and_an_exit_code(runner: CliRunner) -> None:
    told = runner.invoke(commands.doctor_command, env={"PERDURE_PORT": "many"})
    assert told.exit_code == 2
    assert "port must be a whole number" in told.output
    assert "configure.md" in told.output


def test_a_worker_without_a_database_says_what_to_start(runner: CliRunner) -> None:
    told = runner.invoke(commands.worker_command, env={"PERDURE_DATABASE_URL": None})
    assert told.exit_code == 6
    assert "perdure serve" in told.output


def test_the_doctors_exit_code_says_whether_all_is_well(runner: CliRunner) -> None:
    assert runner.invoke(commands.doctor_command, ["--json"]).exit_code == 1
    admin(runner, "migrate")
    ports = {"PERDURE_PORT": "0", "PERDURE_DATA_PORT": "0"}
    assert runner.invoke(commands.doctor_command, ["--json"], env=ports).exit_code == 0
