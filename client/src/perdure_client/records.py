"""What the server answers, as typed values; each keeps the whole JSON in `raw`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from perdure_client.paths import from_json

Json = Mapping[str, Any]  # decoded JSON objects


@dataclass(frozen=True)
class Archive:
    """One archive; `state` is open, closing, closed, withdrawn or discarded, sizes are bytes."""

    id: str
    short_id: str
    state: str
    title: str
    file_count: int
    byte_count: int
    identifier: str | None
    parent_id: str | None
    revision: int
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, record: Json) -> Archive:
        return cls(
            id=record["id"],
            short_id=record["short_id"],
            state=record["state"],
            title=record["title"],
            file_count=record["file_count"],
            byte_count=record["byte_count"],
            identifier=record["identifier"],
            parent_id=record["parent_id"],
            revision=record["revision"],
            raw=record,
        )


@dataclass(frozen=True)
class Entry:
    """One path of an archive; `kind` is file, directory, symlink, hidden or folder (one that is only listed).

    `layer` is the archive that the entry is from: the archive itself or one it appends to.
    """

    path: bytes
    kind: str
    size: int
    mtime_ns: int | None
    mode: int | None
    digests: Mapping[str, str]
    target: bytes | None
    layer: str | None
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, record: Json) -> Entry:
        has_target = record.get("target") is not None or record.get("target_b64") is not None
        return cls(
            path=from_json(record),
            kind=record["kind"],
            size=record.get("size") or 0,
            mtime_ns=record.get("mtime_ns"),
            mode=record.get("mode"),
            digests=record.get("digests") or {},
            target=from_json(record, "target") if has_target else None,
            layer=record.get("archive_id"),
            raw=record,
        )


@dataclass(frozen=True)
class Job:
    """Work on the server; `state` is waiting, running, succeeded, failed or cancelled."""

    id: str
    kind: str
    state: str
    progress: Json
    result: Json
    error: Json | None
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, record: Json) -> Job:
        return cls(
            id=record["id"],
            kind=record["kind"],
            state=record["state"],
            progress=record.get("progress") or {},
            result=record.get("result") or {},
            error=record.get("error"),
            raw=record,
        )

    @property
    def is_over(self) -> bool:
        return self.state in ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Metadata:
    """A metadata document with its revision (for `If-Match`) and digest."""

    value: Any
    etag: str | None
    digest: str | None


@dataclass
class PutReport:
    """What became of everything that was to be sent: stored, present and refused make up all that was seen."""

    seen: int = 0
    stored: int = 0
    present: int = 0
    bytes_sent: int = 0
    seconds: float = 0.0
    refused: list[tuple[bytes, str]] = field(default_factory=list)


@dataclass
class GetReport:
    """What was fetched; `kept` was here already with the right digest."""

    files: int = 0
    kept: int = 0
    bytes_received: int = 0
    seconds: float = 0.0
    refused: list[tuple[bytes, str]] = field(default_factory=list)
