"""What the state machine does, as plain values: they go to a process that dies in the middle, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True)
class Given:
    """An entry as a client offers it; `data` is the content of a file, the target of a link."""

    path: bytes
    kind: str = "file"
    data: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Open:
    """Asked again with the same key, it opens nothing more."""

    key: str
    title: str


@dataclass(frozen=True)
class Append:
    key: str
    parent: UUID
    title: str


@dataclass(frozen=True)
class Put:
    archive: UUID
    given: Given
    replace: bool = True


@dataclass(frozen=True)
class Batch:
    archive: UUID
    items: tuple[Given, ...]


@dataclass(frozen=True)
class BeginUpload:
    archive: UUID
    path: bytes
    size: int


@dataclass(frozen=True)
class Send:
    """Bytes of an upload from an offset on; the last ones make the file."""

    upload: UUID
    offset: int
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Abort:
    upload: UUID


@dataclass(frozen=True)
class Remove:
    archive: UUID
    path: bytes
    recursive: bool = True


@dataclass(frozen=True)
class Hide:
    archive: UUID
    path: bytes


@dataclass(frozen=True)
class Patch:
    """A merge patch; `behind` makes it one for a revision that is past (1) or the present one (0)."""

    archive: UUID
    path: bytes
    patch: str
    behind: int | None = None


@dataclass(frozen=True)
class Describe:
    archive: UUID
    title: str
    behind: int | None = None


@dataclass(frozen=True)
class Extend:
    archive: UUID
    days: int


@dataclass(frozen=True)
class Close:
    """Begins to close; `Work` does it."""

    archive: UUID
    discard_uploads: bool = False


@dataclass(frozen=True)
class _OfArchive:
    archive: UUID


class Reopen(_OfArchive):
    """Takes a closing back."""


class Discard(_OfArchive):
    """Throws an open archive away."""


class Withdraw(_OfArchive):
    """Asks for the withdrawal; `Work` does it."""


@dataclass(frozen=True)
class Work:
    """All jobs that wait."""


class Verify(_OfArchive):
    """Reads every copy of a closed archive back."""


class Repair(_OfArchive):
    """Places every suspect copy of a closed archive's parts anew."""


@dataclass(frozen=True)
class Upkeep:
    """What is done again and again: journals, heads, uploads that are late, staging that nobody knows, exports."""


Act = (
    Open | Append | Put | Batch | BeginUpload | Send | Abort | Remove | Hide | Patch | Describe | Extend
    | Close | Reopen | Discard | Withdraw | Work | Verify | Repair | Upkeep
)  # fmt: skip


@dataclass(frozen=True)
class Done:
    """The act was acknowledged with this answer."""

    answer: Mapping[str, object]


@dataclass(frozen=True)
class Refused:
    """The act was refused with this error's code."""

    code: str


@dataclass(frozen=True)
class Died:
    """The process ended at this crash point, and acknowledged nothing."""

    point: str


Outcome = Done | Refused | Died
