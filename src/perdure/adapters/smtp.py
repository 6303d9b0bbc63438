"""Mail by SMTP (RFC 5321): over TLS from the start, turned to TLS by STARTTLS, or plain inside a trusted network."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from pathlib import Path
from uuid import UUID

from perdure.identity.errors import MailRefusedError, MailUnavailableError
from perdure.identity.model import Letter

_PORTS = {"starttls": 587, "tls": 465, "plain": 25}
_OURS_TO_MEND = (530, 534, 535, 538)  # RFC 4954: it wants a login, or another one


@dataclass(frozen=True, slots=True)
class SmtpSettings:
    """Where mail is handed over, and as whose: `sender` is an address, or a name and one in angle brackets.

    `security` is `starttls`, `tls` or `plain`; `ca` holds certificates of authorities beside the system's.
    """

    host: str
    sender: str
    port: int = 0
    security: str = "starttls"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: Path | None = None
    timeout: float = 30.0


class SmtpMailer:
    """One connection for each mail: they are few, and a server ends connections that wait."""

    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings
        name, address = parseaddr(settings.sender)
        self._sender = Address(name, addr_spec=address)

    def deliver(self, letter: Letter, mail_id: UUID) -> None:
        message = self._compose(letter, mail_id)
        with self._connected() as server:
            server.send_message(message, self._sender.addr_spec, [letter.to])

    def check(self) -> None:
        with self._connected() as server:
            server.noop()

    def _compose(self, letter: Letter, mail_id: UUID) -> EmailMessage:
        message = EmailMessage(policy=SMTP)
        try:
            message["From"] = self._sender
            message["To"] = Address(addr_spec=letter.to)
            message["Subject"] = letter.subject
            message["Date"] = format_datetime(datetime.now(UTC))
            message["Message-ID"] = f"<{mail_id}@{self._sender.domain}>"
            message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no machine answers it
            message.set_content(letter.text)
        except (MessageError, ValueError, IndexError):  # as a line break in a header would be
            raise MailRefusedError("It cannot be written as a mail.") from None
        return message

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        """Errors are told without the words of the server, which may repeat addresses."""
        settings = self._settings
        try:
            with _left_alone(self._connect()) as server:
                if settings.security == "starttls":
                    server.starttls(context=self._context())
                if settings.user is not None:
                    server.login(settings.user, settings.password or "")
                yield server
        except smtplib.SMTPRecipientsRefused as error:
            raise _judge("the recipient", next(iter(error.recipients.values()), (0, b""))[0]) from None
        except smtplib.SMTPAuthenticationError as error:
            raise MailUnavailableError(f"It does not let us log in ({error.smtp_code}).") from None
        except smtplib.SMTPSenderRefused as error:
            raise _judge("the sender", error.smtp_code) from None
        except smtplib.SMTPDataError as error:
            raise _judge("the content", error.smtp_code) from None
        except smtplib.SMTPNotSupportedError:
            raise MailUnavailableError("It does not know STARTTLS, or no way to log in that we know.") from None
        except smtplib.SMTPResponseException as error:
            raise MailUnavailableError(f"It answers {error.smtp_code}.") from None
        except ssl.SSLCertVerificationError as error:
            raise MailUnavailableError(f"Its certificate is not to be trusted: {error.verify_message}.") from None
        except (smtplib.SMTPException, OSError) as error:
            raise MailUnavailableError(f"It cannot be reached or ends the talk ({type(error).__name__}).") from None

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        port, here = settings.port or _PORTS[settings.security], self._sender.domain  # its own would ask the DNS
        if settings.security == "tls":
            return smtplib.SMTP_SSL(settings.host, port, here, timeout=settings.timeout, context=self._context())
        return smtplib.SMTP(settings.host, port, here, timeout=settings.timeout)

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._settings.ca is not None:
            context.load_verify_locations(self._settings.ca)
        return context


@contextmanager
def _left_alone(server: smtplib.SMTP) -> Iterator[smtplib.SMTP]:
    """Say good-bye at the end, whatever is answered: a mail that was taken must not be sent again for it."""
    try:
        yield server
    finally:
        with suppress(smtplib.SMTPException, OSError):
            server.quit()
        server.close()


def _judge(what: str, code: int) -> MailRefusedError | MailUnavailableError:
    """A refusal for good, or one of this moment, such as greylisting."""
    if code >= 500 and code not in _OURS_TO_MEND:
        return MailRefusedError(f"The mail server refuses {what} ({code}).")
    return MailUnavailableError(f"It does not take {what} at this moment ({code}).")
