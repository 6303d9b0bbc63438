"""One connection to one server (RFC 4511): TLS, bind, search. It asks one thing at a time and follows no referral."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from perdure.adapters.ldap.ber import (
    ENUMERATED,
    INTEGER,
    OCTETS,
    SEQUENCE,
    SET,
    BerError,
    boolean,
    element,
    number,
    octets,
    read_elements,
    read_length,
    read_number,
)

_BIND, _BOUND, _UNBIND, _SEARCH, _ENTRY, _DONE, _ELSEWHERE, _EXTENDED, _EXTENDED_DONE = (
    0x60,
    0x61,
    0x42,
    0x63,
    0x64,
    0x65,
    0x73,
    0x77,
    0x78,
)
_SIMPLE, _REQUEST_NAME = 0x80, 0x80
_START_TLS = b"1.3.6.1.4.1.1466.20037"
_VERSION = 3
_LARGEST_MESSAGE = 4 << 20  # bytes; somebody in ten thousand groups is smaller
_MOST_MESSAGES = 20_000
SUCCESS, SIZE_LIMIT_EXCEEDED, REFERRAL, NO_SUCH_OBJECT, INVALID_CREDENTIALS = 0, 4, 10, 32, 49
BASE, SUBTREE = 0, 2


class ServerError(Exception):
    """The server cannot be asked at this moment, or answers what is of no use; the text names no secret."""

    def __init__(self, told: str, *, is_awake: bool = False) -> None:
        super().__init__(told)
        self.is_awake = is_awake  # it answers, and others may get what they ask for


class RefusedError(Exception):
    """The server answered with a code (RFC 4511 section 4.1.9) that is not success."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server listens. Without TLS at all only for tests."""

    host: str
    port: int
    is_tls: bool  # from the first byte
    starts_tls: bool

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a search found; names of attributes in small letters."""

    name: str
    attributes: Mapping[str, Sequence[bytes]]


class Connection:
    """Open until the block ends. All that is asked on it has to be answered before one deadline."""

    def __init__(self, server: Server, tls: ssl.SSLContext, *, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._number = 0
        with _telling():
            self._socket: socket.socket = socket.create_connection((server.host, server.port), timeout=seconds)
        try:
            if server.starts_tls:
                self._ask(element(_EXTENDED, octets(_START_TLS, _REQUEST_NAME)), _EXTENDED_DONE)
            if server.starts_tls or server.is_tls:
                # Whatever was sent in clear behind the answer comes into the handshake, and ends it
                with _telling():
                    self._socket.settimeout(self._left())
                    self._socket = tls.wrap_socket(self._socket, server_hostname=server.host)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ServerError):
            self._send(element(_UNBIND))
        self._socket.close()

    def bind(self, name: str, password: str) -> None:
        """Become somebody; raises RefusedError.

        An empty password is no password: servers answer success to it without having asked for one (RFC 4513
        section 5.1.2).
        """
        if bool(name) != bool(password) or "\0" in password:
            raise RefusedError(INVALID_CREDENTIALS)
        authentication = octets(password.encode(), _SIMPLE)
        self._ask(element(_BIND, number(_VERSION), octets(name.encode()), authentication), _BOUND)

    def search(self, base: str, scope: int, wanted: bytes, attributes: Sequence[str], *, most: int) -> list[Entry]:
        """What fits, at most so many; more of them raise RefusedError, as does a base that is not there."""
        asked = element(SEQUENCE, *(octets(one.encode()) for one in attributes))
        seconds = max(1, int(self._left()))
        limits = (number(0, ENUMERATED), number(most), number(seconds), boolean(False))  # aliases are not followed
        number_of = self._send(
            element(_SEARCH, octets(base.encode()), number(scope, ENUMERATED), *limits, wanted, asked)
        )
        found: list[Entry] = []
        for _ in range(_MOST_MESSAGES):
            tag, content = self._receive(number_of)
            if tag == _DONE:
                _require_success(content)
                return found
            if tag == _ENTRY:
                found.append(_entry(content))
            elif tag != _ELSEWHERE:
                raise ServerError("it answered something else than was asked")
            if len(found) > most:
                raise RefusedError(SIZE_LIMIT_EXCEEDED)
        raise ServerError("it answered without end")

    def _ask(self, operation: bytes, answer: int) -> None:
        tag, content = self._receive(self._send(operation))
        if tag != answer:
            raise ServerError("it answered something else than was asked")
        _require_success(content)

    def _send(self, operation: bytes) -> int:
        self._number += 1
        with _telling():
            self._socket.settimeout(self._left())
            self._socket.sendall(element(SEQUENCE, number(self._number), operation))
        return self._number

    def _receive(self, number_of: int) -> tuple[int, bytes]:
        with _telling():
            (_, sent), (tag, content) = self._receive_parts()
            if read_number(sent) != number_of:  # 0 says that the server ends the connection
                raise ServerError("it ended the connection")
            return tag, content

    def _receive_parts(self) -> tuple[tuple[int, bytes], tuple[int, bytes]]:
        head = self._read(2)
        if head[0] != SEQUENCE:
            raise BerError("no message")
        head += self._read(head[1] & 0x7F) if head[1] & 0x80 else b""
        size, _ = read_length(head, 1)
        if size > _LARGEST_MESSAGE:
            raise BerError("a message that is too large")
        first, second, *_ = [*read_elements(self._read(size)), (0, b""), (0, b"")]
        if first[0] != INTEGER or not second[0]:
            raise BerError("a message without number or answer")
        return first, second

    def _read(self, size: int) -> bytes:
        """Exactly so many bytes, none of those behind them."""
        data = bytearray()
        while len(data) < size:
            self._socket.settimeout(self._left())
            piece = self._socket.recv(min(size - len(data), 1 << 16))
            if not piece:
                raise ServerError("it ended the connection")
            data += piece
        return bytes(data)

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise ServerError("it did not answer in time")
        return left


def _require_success(content: bytes) -> None:
    with _telling():
        (tag, code), *_ = [*read_elements(content), (0, b"")]
        if tag != ENUMERATED:
            raise BerError("an answer without a code")
        if read_number(code) != SUCCESS:
            raise RefusedError(read_number(code))


def _entry(content: bytes) -> Entry:
    with _telling():
        (name_tag, name), (list_tag, attributes), *_ = [*read_elements(content), (0, b""), (0, b"")]
        if name_tag != OCTETS or list_tag != SEQUENCE:
            raise BerError("an entry of an unknown form")
        return Entry(name.decode("utf-8"), dict(_attribute(one) for _, one in read_elements(attributes)))


def _attribute(content: bytes) -> tuple[str, list[bytes]]:
    (name_tag, name), (set_tag, values), *_ = [*read_elements(content), (0, b""), (0, b"")]
    if name_tag != OCTETS or set_tag != SET:
        raise BerError("an attribute of an unknown form")
    return name.decode("utf-8").lower(), [value for _, value in read_elements(values)]


@contextmanager
def _telling() -> Iterator[None]:
    """Turns what a connection can suffer into ServerError, in words that hold nothing of what was sent."""
    try:
        yield
    except TimeoutError:
        raise ServerError("it did not answer in time") from None
    except ssl.SSLCertVerificationError as error:
        raise ServerError(f"its certificate is not to be trusted ({error.verify_message})") from None
    except (BerError, UnicodeError) as error:
        raise ServerError(f"it answered what is no LDAP ({type(error).__name__})") from None
    except OSError as error:
        raise ServerError(f"it cannot be reached ({type(error).__name__})") from None
