"""Settings: complete, checked, documented; the stronger source wins."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from uuid import UUID

import pytest

from perdure.settings import (
    NOT_SETTINGS,
    SECRETS,
    BadSettingError,
    Settings,
    StoreSettings,
    TokenIssuerSettings,
    default_data_dir,
    load_settings,
    plain_values,
    settings_from,
    variable_of,
)

MANUAL = Path(__file__).resolve().parent.parent / "docs" / "operate" / "configure.md"


ISSUER = '[[token_issuers]]\nname = "a"\nissuer = "https://issuer.example.org"\n'


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def environment(tmp_path: Path, **variables: str) -> dict[str, str]:
    return {"HOME": str(tmp_path)} | variables


@pytest.mark.parametrize("key", [entry.name for entry in fields(Settings)])
def test_every_setting_is_in_the_manual_with_its_variable(key: str) -> None:
    manual = MANUAL.read_text()
    assert f"`{key}`" in manual
    if key not in ("stores", "providers", "token_issuers"):
        assert f"`{variable_of(key)}`" in manual


@pytest.mark.parametrize("key", [entry.name for entry in fields(StoreSettings)] + [f"{key}_file" for key in SECRETS])
def test_every_field_of_a_store_and_every_secret_file_is_in_the_manual(key: str) -> None:
    assert f"`{key}`" in MANUAL.read_text()


def test_the_example_in_the_manual_is_valid(tmp_path: Path) -> None:
    example = MANUAL.read_text().split("```toml\n")[1].split("```")[0]
    (tmp_path / "url").write_text("postgresql://db.example.org/archive")
    (tmp_path / "perdure.toml").write_text(example.replace("/etc/archive/database-url", str(tmp_path / "url")))
    assert len(load_settings(environment(tmp_path)).stores) == 2


def test_the_issuer_of_tokens_in_the_manual_is_valid(tmp_path: Path) -> None:
    manual = (MANUAL.parent / "logins.md").read_text().split("## Tokens of the grid")[1]
    (tmp_path / "perdure.toml").write_text(manual.split("```toml\n")[1].split("```")[0])
    settings = load_settings(environment(tmp_path))
    (found,) = settings.token_issuers
    assert (found.base_path, list(found.paths), found.any_audience) == ("/perdure", ["/store/beam/2026"], True)
    assert settings_from(json.loads(json.dumps(plain_values(settings)))) == settings
    for entry in fields(TokenIssuerSettings):
        assert f"`{entry.name}`" in manual


def test_without_any_choice_everything_has_a_default(tmp_path: Path) -> None:
    settings = load_settings(environment(tmp_path))
    assert settings.data_dir == default_data_dir({"HOME": str(tmp_path)})
    assert [store.name for store in settings.stores] == ["first", "second"]
    assert {store.path.parent for store in settings.stores} == {settings.data_dir / "stores"}
    assert (settings.public_url, settings.data_url) == ("http://127.0.0.1:8440", "http://127.0.0.1:8441")
    assert settings.database_url is None


def test_the_command_line_beats_the_environment_and_that_beats_the_file(tmp_path: Path) -> None:
    named = tmp_path / "chosen.toml"
    named.write_text('port = 1001\nhost = "127.0.0.2"\nlog_level = "debug"\n')
    given = environment(tmp_path, PERDURE_CONFIG=str(named), PERDURE_PORT="1002", PERDURE_HOST="127.0.0.3")
    settings = load_settings(given, port=1003, host=None)
    assert (settings.port, settings.host, settings.log_level) == (1003, "127.0.0.3", "debug")


def test_the_data_folder_may_hold_the_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "config.toml").write_text("session_hours = 3\n")
    assert load_settings(environment(tmp_path, PERDURE_DATA_DIR=str(tmp_path / "data"))).session_hours == 3


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("prot = 1\n", "prot"),
        ('port = "many"\n', "port"),
        ("port = true\n", "port"),
        ("port = 70000\n", "port"),
        ("data_port = 8440\n", "data_port"),
        ('log_level = "loud"\n', "log_level"),
        ('public_url = "example.org"\n', "public_url"),
        ('[[stores]]\nname = "one"\n', "stores.path"),
        ('[[stores]]\nname = "one"\npath = "/a"\ncolour = "red"\n', "stores.colour"),
        ('[[stores]]\nname = "one"\npath = "/a"\nkind = "cloud"\n', "stores.kind"),
        ('[[stores]]\nname = "one"\npath = "/a"\n[[stores]]\nname = "one"\npath = "/b"\n', "stores"),
        ('[[stores]]\nname = "one"\npath = "/a"\n[[stores]]\nname = "two"\npath = "/a"\n', "stores"),
        ("stores = []\n", "stores"),
        ('database_url_file = "/nowhere"\n', "database_url_file"),
        ('host = "0.0.0.0"\n', "host"),
        ('host = "archive.example.org"\n', "host"),
        ('tls_key = "/key.pem"\n', "tls_key"),
        ('host = "::"\ntls_cert = "/cert.pem"\n', "public_url"),
        ('allow_plain_http = "perhaps"\n', "allow_plain_http"),
        ('trusted_proxies = ["*"]\n', "trusted_proxies"),
        ('trusted_proxies = ["10.1.2.3/8"]\n', "trusted_proxies"),
        ("token_issuers = 1\n", "token_issuers"),
        ('[[token_issuers]]\nname = "a"\n', "token_issuers.issuer"),
        (f"{ISSUER}colour = 1\n", "token_issuers.colour"),
        (f"{ISSUER.replace('https', 'http')}", "token_issuers.issuer"),
        (f'{ISSUER}profile = "other"\n', "token_issuers.profile"),
        (f'{ISSUER}service = "x"\n', "token_issuers.service"),
        (f'{ISSUER}base_path = "/a/../b"\n', "token_issuers.base_path"),
        (f'{ISSUER}[token_issuers.paths]\n"a" = "{UUID(int=1)}"\n', "token_issuers.paths"),
        (f'{ISSUER}[token_issuers.subjects]\nrobot = "x"\n', "token_issuers.subjects"),
        (ISSUER + ISSUER, "token_issuers"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "perdure.toml").write_text(text)
    with pytest.raises(BadSettingError) as caught:
        load_settings(environment(tmp_path))
    assert caught.value.extra["key"] == key
    assert key.split(".")[-1] in caught.value.detail


def test_others_are_answered_over_tls_or_because_the_operator_says_so(tmp_path: Path) -> None:
    plain = load_settings(environment(tmp_path, PERDURE_HOST="10.0.0.1", PERDURE_ALLOW_PLAIN_HTTP="yes"))
    assert plain.public_url == "http://10.0.0.1:8440"
    secured = load_settings(environment(tmp_path, PERDURE_HOST="10.0.0.1", PERDURE_TLS_CERT="/cert.pem"))
    assert (secured.public_url, secured.data_url) == ("https://10.0.0.1:8440", "https://10.0.0.1:8441")
    named = load_settings(environment(tmp_path), host="::", tls_cert="/cert.pem", public_url="https://a.example.org")
    assert (named.public_url, named.data_url) == ("https://a.example.org", "https://a.example.org:8441")
    trusting = load_settings(environment(tmp_path, PERDURE_TRUSTED_PROXIES="127.0.0.1, 10.1.0.0/16, fd00::/8"))
    assert trusting.trusted_proxies == ("127.0.0.1/32", "10.1.0.0/16", "fd00::/8")
    assert settings_from(json.loads(json.dumps(plain_values(secured)))) == secured


def test_a_variable_without_a_setting_is_named_and_the_clients_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(BadSettingError, match="PERDURE_PROT"):
        load_settings(environment(tmp_path, PERDURE_PROT="1"))
    others = dict.fromkeys(NOT_SETTINGS - {"PERDURE_CONFIG"}, "x")
    assert load_settings(environment(tmp_path, **others)).port == 8440


def test_a_named_file_that_is_missing_or_broken_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadSettingError, match="not a file"):
        load_settings(environment(tmp_path, PERDURE_CONFIG=str(tmp_path / "missing.toml")))
    (tmp_path / "perdure.toml").write_text("port = \n")
    with pytest.raises(BadSettingError, match="cannot be read"):
        load_settings(environment(tmp_path))


def test_a_secret_may_lie_in_a_file_of_its_own(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://keeper:secret@db.example.org/archive\n")
    settings = load_settings(environment(tmp_path, PERDURE_DATABASE_URL_FILE=str(secret)))
    assert settings.database_url == "postgresql://keeper:secret@db.example.org/archive"
    assert "secret@" not in repr(settings)
    with pytest.raises(BadSettingError, match="not both"):
        load_settings(
            environment(tmp_path, PERDURE_DATABASE_URL_FILE=str(secret), PERDURE_DATABASE_URL="postgresql://")
        )


def test_lists_come_from_the_environment_by_commas(tmp_path: Path) -> None:
    given = environment(tmp_path, PERDURE_INGEST_ROOTS="/one, /two", PERDURE_WORKER_QUEUES="default,store.tape")
    settings = load_settings(given)
    assert settings.ingest_roots == (Path("/one"), Path("/two"))
    assert settings.worker_queues == ("default", "store.tape")


def test_settings_survive_the_way_to_a_child_process(tmp_path: Path) -> None:
    settings = load_settings(environment(tmp_path), worker_queues=["a"], database_url="postgresql://x@/y")
    assert settings_from(json.loads(json.dumps(plain_values(settings)))) == settings
