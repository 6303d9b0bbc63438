"""Large answers come whole, or the caller hears that they did not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from perdure_client.errors import ApiError, ConnectionLostError
from perdure_client.settings import Session
from perdure_client.transport import Transport


def serve(answers: list[bytes]) -> tuple[str, Callable[[], None]]:
    """A server that gives one answer to each request, all on connections that it keeps; no bytes end one instead."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def run() -> None:
        while answers:
            connection, _ = listener.accept()
            with connection:
                while answers and connection.recv(65536):
                    answer = answers.pop(0).replace(b"URL", url.encode())
                    connection.sendall(answer)
                    if not answer or b"Connection: close" in answer:
                        break

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def end() -> None:
        thread.join(60)
        listener.close()

    return url, end


def answer(body: bytes, *, status: str = "200 OK", length: int | None = None, more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body) if length is None else length}\r\n{more}\r\n"
    return head.encode() + body


def instance() -> bytes:
    body = b'{"data_url": "URL"}'
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def read(transport: Transport) -> bytes:
    with transport.large("/archives/a/files/b") as found:
        return b"".join(found.pieces)


def test_one_connection_serves_several_answers() -> None:
    large = bytes(3_000_000)
    url, end = serve([instance(), answer(large), answer(b""), answer(b"again")])
    transport = Transport(Session(url, "secret"))
    assert (read(transport), read(transport), read(transport)) == (large, b"", b"again")
    transport.close()
    end()


def test_an_answer_that_ends_too_early_is_told() -> None:
    url, end = serve([instance(), answer(b"half", length=8, more="Connection: close\r\n")])
    transport = Transport(Session(url, None))
    with pytest.raises(ConnectionLostError):
        read(transport)
    transport.close()
    end()


def test_a_connection_that_the_server_ended_is_replaced() -> None:
    url, end = serve([instance(), answer(b"first", more="X: Connection: close\r\n"), answer(b"second")])
    transport = Transport(Session(url, None))
    assert (read(transport), read(transport)) == (b"first", b"second")
    transport.close()
    end()


def test_a_connection_that_the_server_ends_while_it_is_asked_is_replaced() -> None:
    url, end = serve([instance(), answer(b"first"), b"", answer(b"second")])
    transport = Transport(Session(url, None))
    assert (read(transport), read(transport)) == (b"first", b"second")
    transport.close()
    end()


def test_a_server_that_ends_a_new_connection_is_not_asked_again() -> None:
    url, end = serve([instance(), b""])
    transport = Transport(Session(url, None))
    with pytest.raises(ConnectionLostError):
        read(transport)
    transport.close()
    end()


def test_a_refusal_is_an_error_of_the_server() -> None:
    problem = b'{"status": 410, "code": "withdrawn", "title": "Gone", "detail": "It is gone."}'
    url, end = serve([instance(), answer(problem, status="410 Gone")])
    transport = Transport(Session(url, None))
    with pytest.raises(ApiError) as caught:
        read(transport)
    assert caught.value.status == 410
    transport.close()
    end()
