"""The command starts light and keeps its token to itself."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from perdure_client import settings
from perdure_client.cli.output import print_facts, print_table, show_error
from perdure_client.errors import ClientError, NotLoggedInError, UsageError
from perdure_client.paths import leads_out
from perdure_client.progress import format_duration, format_size
from perdure_client.transport import Transport

HEAVY = ("httpx", "cryptography", "perdure", "fsspec", "sqlalchemy", "fastapi", "rich", "numpy")
PROGRAM = """
import sys
sys.argv = ["perdure", "--help"]
from perdure_client.cli.main import main
try:
    main()
finally:
    import json
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def test_help_imports_nothing_heavy_and_shows_every_command() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    loaded = set(json.loads(ran.stderr.splitlines()[-1]))
    assert not loaded & set(HEAVY)
    for command in ("login", "archive", "put", "ls", "get", "meta", "verify", "events", "token"):
        assert f"\n  {command} " in ran.stdout


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "conf" / "credentials.json"
    monkeypatch.setenv("PERDURE_CREDENTIALS", str(path))
    monkeypatch.delenv("PERDURE_URL", raising=False)
    monkeypatch.delenv("PERDURE_TOKEN", raising=False)
    return path


def test_a_session_is_kept_for_this_user_only_and_found_again(credentials: Path) -> None:
    settings.store_session(settings.Session("https://a.example", "one", "anna"))
    settings.store_session(settings.Session("https://b.example", "two", "anna"))
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    assert settings.find_session().url == "https://b.example"
    assert settings.find_session("https://a.example/").token == "one"
    assert "two" not in repr(settings.find_session())
    settings.forget_session("https://b.example")
    with pytest.raises(NotLoggedInError):
        settings.require_session("https://b.example")


@pytest.mark.usefixtures("credentials")
def test_the_environment_goes_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    settings.store_session(settings.Session("https://a.example", "one"))
    monkeypatch.setenv("PERDURE_TOKEN", "other")
    assert settings.find_session().token == "other"


@pytest.mark.usefixtures("credentials")
def test_the_token_of_the_environment_goes_to_its_server_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_TOKEN", "mine")
    monkeypatch.setenv("PERDURE_URL", "https://a.example/")
    assert settings.find_session().token == "mine"
    assert settings.find_session("https://a.example").token == "mine"
    assert settings.find_session("https://elsewhere.example").token is None


def test_the_token_does_not_leave_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = Transport(settings.Session("https://a.example", "mine"))
    monkeypatch.setattr(transport, "json", lambda *_: {"data_url": "http://a.example:8441"})
    with pytest.raises(UsageError, match="without TLS"):
        transport.data_url()
    monkeypatch.setattr(transport, "json", lambda *_: {"data_url": "https://data.example/"})
    assert transport.data_url() == "https://data.example"


@pytest.mark.parametrize("said", ["\x1b]0;owned\x07", "\x9b2J", "\u202egnp.exe", "a\r\nb", "\x7f"])
def test_a_terminal_is_not_commanded_by_what_a_server_says(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_facts({"title": f"A {said}"})
    print_table([[f"A {said}"]], ["title"])
    show_error(ClientError(f"No {said}", next_step=f"Try {said}"))
    shown = capsys.readouterr()
    assert said not in shown.out + shown.err
    assert (shown.out + shown.err).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("path", "target", "is_out"),
    [
        (b"a/l", b"b", False),
        (b"a/l", b"../b", False),
        (b"l", b"..b", False),
        (b"a/l", b"../../b", True),
        (b"l", b"..", True),
        (b"l", b"/etc", True),
        (b"a/l", b"b/../../../c", True),
    ],
)
def test_a_link_that_leads_out_of_the_folder_is_known(path: bytes, target: bytes, is_out: bool) -> None:
    assert leads_out(path, target) is is_out


def test_a_broken_credentials_file_is_said_and_kept(credentials: Path) -> None:
    credentials.parent.mkdir()
    credentials.write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        settings.find_session()
    assert credentials.read_text() == "{"


def test_an_address_that_is_not_http_is_refused() -> None:
    with pytest.raises(UsageError):
        settings.normalise_url("file:///etc/passwd")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_949, "99.9 kB"), (1.8e12, "1.8 TB"), (999.6e3, "1.0 MB")],
)
def test_sizes_in_words(count: float, text: str) -> None:
    assert format_size(count) == text


def test_durations_in_words() -> None:
    assert [format_duration(seconds) for seconds in (7, 245, 11520)] == ["7 s", "4 min 5 s", "3 h 12 min"]
