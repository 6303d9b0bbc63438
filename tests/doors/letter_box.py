"""A mail server beside the tests, which takes what is sent and keeps it."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword

USER, PASSWORD = "archive", "a password of the mail server"


class LetterBox:
    """What came; addresses that begin with `refused` are refused for good, with `later` for a while."""

    def __init__(self) -> None:
        self.letters: list[EmailMessage] = []
        self.port = 0
        self.is_late = False
        self.last_word = "221 Bye"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Envelope, address: str, options: Any) -> str:  # noqa: N802  # the library's name
        if address.startswith("refused"):
            return f"550 no such user {address}"
        if address.startswith("later") or self.is_late:
            return "451 later, please"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802  # as above
        assert isinstance(envelope.content, bytes)
        letter = message_from_bytes(envelope.content, policy=default)
        assert isinstance(letter, EmailMessage)
        self.letters.append(letter)
        return "250 taken"

    async def handle_QUIT(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802  # as above
        return self.last_word

    def wait_for(self, address: str, subject: str = "", *, seconds: float = 20) -> EmailMessage:
        """Take the next letter to this address out of the box."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for letter in self.letters:
                if letter["To"] == address and subject in letter["Subject"]:
                    self.letters.remove(letter)
                    return letter
            time.sleep(0.02)
        raise AssertionError(
            f"no mail {subject!r} to {address}: {[(one['To'], one['Subject']) for one in self.letters]}"
        )


def link_in(letter: EmailMessage) -> str:
    """The address that the mail leads to."""
    (found, *_) = re.findall(r"https?://\S+/mail/\S+", letter.get_content())
    return str(found)


def key_in(letter: EmailMessage) -> str:
    return link_in(letter).rpartition("/")[2]


def _judge(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    is_right = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=is_right, handled=False)


@contextmanager
def open_box(*, context: ssl.SSLContext | None = None, starttls: bool = False) -> Iterator[LetterBox]:
    """A server on a free port: plain, over TLS from the start, or with STARTTLS; with TLS it wants a login."""
    box = LetterBox()
    demands: dict[str, Any] = {"server_hostname": "mail.example.org"}  # else it asks the DNS
    if context is not None:
        demands |= {"authenticator": _judge, "auth_required": starttls, "auth_require_tls": starttls}
    if starttls:
        demands |= {"tls_context": context, "require_starttls": True}
    elif context is not None:
        demands |= {"ssl_context": context}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        box.port = probe.getsockname()[1]
    server = Controller(box, hostname="127.0.0.1", port=box.port, **demands)
    server.start()
    try:
        yield box
    finally:
        server.stop()
