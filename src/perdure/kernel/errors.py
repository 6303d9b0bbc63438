"""The base of every error a person can meet.

Each concrete class states a stable code, an HTTP status (RFC 9457), an exit code and the next step in words; the
catalogue in the manual is generated from the classes themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import ClassVar


class ErrorKind(StrEnum):
    """Only TRY_AGAIN is worth a retry by a program."""

    CALLER = "caller's mistake"
    NOT_ALLOWED = "not allowed"
    NOT_THERE = "not there"
    CONFLICT = "conflict"
    TRY_AGAIN = "try again"
    DAMAGED = "data damaged"
    INTERNAL = "internal"


EXIT_CODES: dict[ErrorKind, int] = {
    ErrorKind.INTERNAL: 1,
    ErrorKind.CALLER: 2,
    ErrorKind.NOT_ALLOWED: 3,
    ErrorKind.NOT_THERE: 4,
    ErrorKind.CONFLICT: 5,
    ErrorKind.TRY_AGAIN: 6,
    ErrorKind.DAMAGED: 7,
}


class PerdureError(Exception):
    """What happened (`detail`), what kind of thing that is, and what to do next.

    `extra` holds JSON-ready fields for programs (`{"missing": 3}`); it never holds a secret.
    """

    code: ClassVar[str] = "internal_error"
    kind: ClassVar[ErrorKind] = ErrorKind.INTERNAL
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong on our side"
    next_step: ClassVar[str] = "Try again; if it happens again, tell the operator the request id."

    def __init__(self, detail: str, **extra: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.kind]


def iter_error_classes() -> Iterator[type[PerdureError]]:
    """Every error class that is loaded, each code once, sorted by code."""
    found: dict[str, type[PerdureError]] = {}
    waiting: list[type[PerdureError]] = [PerdureError]
    while waiting:
        cls = waiting.pop()
        waiting.extend(cls.__subclasses__())
        if "code" in vars(cls):
            found[cls.code] = cls
    yield from (found[code] for code in sorted(found))


class BadInputError(PerdureError):
    code = "bad_input"
    kind = ErrorKind.CALLER
    status = 422
    title = "The request cannot be understood"
    next_step = "Correct the named field and send the request again."


class NotFoundError(PerdureError):
    """Also what an actor is told of a thing that it may not know of."""

    code = "not_found"
    kind = ErrorKind.NOT_THERE
    status = 404
    title = "There is no such thing, or you may not see it"
    next_step = "Check the identifier; ask the owner for access if it exists."


class NotAllowedError(PerdureError):
    code = "not_allowed"
    kind = ErrorKind.NOT_ALLOWED
    status = 403
    title = "You may not do this"
    next_step = "Ask an owner or manager for the role that is named."


class ConflictError(PerdureError):
    code = "conflict"
    kind = ErrorKind.CONFLICT
    status = 409
    title = "The present state does not allow this"
    next_step = "Read the present state and decide anew."


class TryAgainError(PerdureError):
    code = "try_again"
    kind = ErrorKind.TRY_AGAIN
    status = 503
    title = "Not possible at this moment"
    next_step = "Send the same request again after a short while; nothing was lost."


class DamagedError(PerdureError):
    code = "damaged"
    kind = ErrorKind.DAMAGED
    status = 500
    title = "Stored data does not match its digest"
    next_step = "Nothing was changed or hidden; the operator is told. Read from another copy where there is one."
