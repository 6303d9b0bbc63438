"""The mail server is spoken to as it wants, its certificate is checked, and what it says is judged."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.adapters.smtp import SmtpMailer, SmtpSettings
from perdure.doors.admin.doctor import examine
from perdure.identity.errors import MailRefusedError, MailUnavailableError
from perdure.identity.model import Letter
from perdure.kernel.errors import PerdureError
from perdure.kernel.ids import new_id
from perdure.settings import BadSettingError, Settings, load_settings
from perdure.testing.certificates import make_certificate

from .letter_box import PASSWORD, USER, LetterBox, open_box

LETTER = Letter("test", "ada@example.org", "Grüße", "A line.\n\nhttps://example.org/" + "x" * 200 + "\n")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("mail") / "mail.pem")


@pytest.fixture(params=["starttls", "tls", "plain"])
def server(request: pytest.FixtureRequest, certificate: Path) -> Iterator[tuple[LetterBox, SmtpSettings]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    security: str = request.param
    with open_box(context=None if security == "plain" else context, starttls=security == "starttls") as box:
        user, password = (None, None) if security == "plain" else (USER, PASSWORD)
        sender = "Ärchiv <a@example.org>"
        yield box, SmtpSettings("127.0.0.1", sender, box.port, security, user, password, ca=certificate)


def test_mail_is_handed_over(server: tuple[LetterBox, SmtpSettings]) -> None:
    box, settings = server
    mailer, mail_id = SmtpMailer(settings), new_id()
    mailer.check()
    for _ in range(2):
        mailer.deliver(LETTER, mail_id)
    first, second = box.letters
    assert first["Message-ID"] == second["Message-ID"] == f"<{mail_id}@example.org>"
    assert (first["From"], first["Subject"]) == ("Ärchiv <a@example.org>", "Grüße")
    assert first.get_content().replace("\r\n", "\n") == LETTER.text


def test_what_the_server_says_is_judged_without_repeating_it(server: tuple[LetterBox, SmtpSettings]) -> None:
    box, settings = server
    mailer = SmtpMailer(settings)
    for address, refusal in (("refused@example.org", MailRefusedError), ("later@example.org", MailUnavailableError)):
        with pytest.raises(refusal) as caught:
            mailer.deliver(Letter("test", address, "S", "T"), new_id())
        assert "example.org" not in str(caught.value)
        assert caught.value.__cause__ is None
    for to, subject in (("a@example.org", "S\r\nBcc: b@example.org"), ("a@b\r\nc", "S")):
        with pytest.raises(MailRefusedError):
            mailer.deliver(Letter("test", to, subject, "T"), new_id())
    assert box.letters == []


def test_a_mail_that_was_taken_is_sent_whatever_is_said_at_parting(server: tuple[LetterBox, SmtpSettings]) -> None:
    box, settings = server
    box.last_word = "421 too many mails today"
    SmtpMailer(settings).deliver(LETTER, new_id())
    assert len(box.letters) == 1
    with pytest.raises(MailRefusedError):
        SmtpMailer(settings).deliver(Letter("test", "refused@example.org", "S", "T"), new_id())


def test_a_wrong_password_and_a_strange_certificate_are_told(certificate: Path, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with open_box(context=context, starttls=True) as box:
        right = SmtpSettings("127.0.0.1", "a@example.org", box.port, user=USER, password=PASSWORD, ca=certificate)
        wrong = SmtpSettings("127.0.0.1", "a@example.org", box.port, user=USER, password="wrong", ca=certificate)
        strange = SmtpSettings("127.0.0.1", "a@example.org", box.port, user=USER, password=PASSWORD)
        SmtpMailer(right).check()
        with pytest.raises(MailUnavailableError, match="does not let us log in"):
            SmtpMailer(wrong).check()
        with pytest.raises(MailUnavailableError, match="certificate"):
            SmtpMailer(strange).check()
        found = doctor(tmp_path, SmtpMailer(wrong), smtp_host="127.0.0.1", mail_from="a@example.org")
        assert (found[0], "smtp_user" in found[2]) == (False, True)
    with pytest.raises(MailUnavailableError, match="cannot be reached"):
        SmtpMailer(right).check()
    assert doctor(tmp_path, None)[0] is True


def doctor(folder: Path, mailer: SmtpMailer | None, **chosen: str) -> tuple[bool, str, str]:
    settings = settings_of(folder, **chosen)
    (found,) = [one for one in examine(settings, None if mailer is None else mailer.check) if one.name == "mail"]
    return found.is_well, found.said, found.mend


def settings_of(folder: Path, **chosen: str) -> Settings:
    return load_settings({"HOME": str(folder)}, data_dir=str(folder / "data"), port=0, data_port=0, **chosen)


@pytest.mark.parametrize(
    ("chosen", "key"),
    [
        ({"smtp_host": "mail.example.org"}, "mail_from"),
        ({"smtp_host": "m", "mail_from": "nobody"}, "mail_from"),
        ({"smtp_host": "m", "mail_from": "a@b\r\nBcc: c@d"}, "mail_from"),
        ({"smtp_host": "m", "mail_from": "a@b", "smtp_password": "p"}, "smtp_password"),
        ({"smtp_host": "m", "mail_from": "a@b", "smtp_user": "u", "smtp_security": "plain"}, "smtp_user"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, chosen: dict[str, str], key: str) -> None:
    with pytest.raises(BadSettingError) as caught:
        settings_of(tmp_path, **chosen)
    error: PerdureError = caught.value
    assert error.extra["key"] == key
