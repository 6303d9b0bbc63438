"""What can go wrong on the user's side, each with the exit code of the command."""

from __future__ import annotations

from collections.abc import Mapping

EXIT_INTERNAL = 1
EXIT_CALLER = 2
EXIT_NOT_ALLOWED = 3
EXIT_NOT_THERE = 4
EXIT_CONFLICT = 5
EXIT_TRY_AGAIN = 6
EXIT_DAMAGED = 7
EXIT_PARTLY = 8

LONGEST_WAIT = 60.0  # seconds that a server may ask for: to wait longer is for the caller to decide

EXIT_MEANINGS: dict[int, str] = {
    0: "done",
    EXIT_INTERNAL: "an error of the program or the server",
    EXIT_CALLER: "the command or its input is wrong",
    EXIT_NOT_ALLOWED: "not logged in, or not allowed",
    EXIT_NOT_THERE: "there is no such thing, or you may not see it",
    EXIT_CONFLICT: "the present state does not allow it",
    EXIT_TRY_AGAIN: "not possible now; the same command later may succeed",
    EXIT_DAMAGED: "bytes do not match their digest, or files are missing",
    EXIT_PARTLY: "done for some; what was refused is listed",
}

_EXIT_BY_STATUS = {
    401: EXIT_NOT_ALLOWED,
    403: EXIT_NOT_ALLOWED,
    404: EXIT_NOT_THERE,
    409: EXIT_CONFLICT,
    410: EXIT_NOT_THERE,
    412: EXIT_CONFLICT,
    429: EXIT_TRY_AGAIN,
    502: EXIT_TRY_AGAIN,
    503: EXIT_TRY_AGAIN,
    504: EXIT_TRY_AGAIN,
    507: EXIT_TRY_AGAIN,
}


class ClientError(Exception):
    """A sentence of what happened, the next step, and a stable code.

    `wait_seconds` is how long the server asks to wait because too much was sent; 0 when it does not.
    """

    code = "client_error"
    exit_code = EXIT_INTERNAL
    wait_seconds = 0.0

    def __init__(self, detail: str, *, next_step: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.next_step = next_step

    def as_json(self) -> dict[str, object]:
        return {"error": {"code": self.code, "detail": self.detail, "next_step": self.next_step}}


class UsageError(ClientError):
    """The caller's mistake, found before anything was sent."""

    code = "usage"
    exit_code = EXIT_CALLER


class NotLoggedInError(ClientError):
    code = "not_logged_in"
    exit_code = EXIT_NOT_ALLOWED


class StoppedError(ClientError):
    """The caller wants no more of what was under way, as with Ctrl-C."""

    code = "stopped"


class ConnectionLostError(ClientError):
    """The server could not be reached, or the connection broke and retries did not help."""

    code = "connection_lost"
    exit_code = EXIT_TRY_AGAIN


class LocalDamageError(ClientError):
    """Local bytes do not match what the server or the manifest states."""

    code = "digest_mismatch"
    exit_code = EXIT_DAMAGED


class SourceChangedError(ClientError):
    """A local file changed while it was read."""

    code = "source_changed"
    exit_code = EXIT_PARTLY


class JobFailedError(ClientError):
    """A job on the server ended without success."""

    code = "job_failed"
    exit_code = EXIT_CONFLICT


class ApiError(ClientError):
    """The server's answer, as RFC 9457 problem details; `extra` holds the further fields."""

    def __init__(self, status: int, problem: Mapping[str, object]) -> None:
        super().__init__(
            str(problem.get("detail") or problem.get("title") or f"the server answered {status}"),
            next_step=str(problem.get("next_step") or ""),
        )
        self.status = status
        self.code = str(problem.get("code") or f"http_{status}")
        self.extra = dict(problem)
        self.exit_code = self._find_exit_code()

    def _find_exit_code(self) -> int:
        if self.extra.get("kind") == "data damaged":
            return EXIT_DAMAGED
        if self.status in _EXIT_BY_STATUS:
            return _EXIT_BY_STATUS[self.status]
        return EXIT_CALLER if 400 <= self.status < 500 else EXIT_INTERNAL

    @property
    def is_worth_a_retry(self) -> bool:
        return self.exit_code == EXIT_TRY_AGAIN and self.wait_seconds <= LONGEST_WAIT

    def as_json(self) -> dict[str, object]:
        return {"error": {"status": self.status, **self.extra}}
