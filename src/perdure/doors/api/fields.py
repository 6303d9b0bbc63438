"""The types that fields of requests are made of: strict, bounded, and without what the database cannot hold."""

from __future__ import annotations

import base64
import binascii
from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from perdure.kernel.clock import parse_time
from perdure.kernel.digests import DIGEST_LENGTHS
from perdure.kernel.ids import parse_id

_NO_NUL = r"^[^\u0000]*$"
LARGEST_INTEGER = 2**63 - 1


class Form(BaseModel):
    """A request's body: nothing is coerced and nothing unknown is passed over."""

    model_config = ConfigDict(strict=True, extra="forbid")


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("it contains a NUL")
    return text


def _read_id(value: object) -> UUID:
    if isinstance(value, UUID):
        return value
    if not isinstance(value, str) or len(value) > 100:
        raise ValueError("it is not an identifier")
    return parse_id(value)


def _read_date(value: object) -> date:
    if not isinstance(value, str) or len(value) != 10:
        raise ValueError("it is not a date such as 2030-01-31")
    return date.fromisoformat(value)


def _read_time(value: object) -> datetime:
    if not isinstance(value, str):
        raise ValueError("it is not a time such as 2030-01-31T12:00:00Z")
    try:
        return parse_time(value)
    except OverflowError:
        raise ValueError("it is out of range") from None


Text = Annotated[str, Field(max_length=10_000, json_schema_extra={"pattern": _NO_NUL}), AfterValidator(_without_nul)]
Line = Annotated[str, Field(max_length=500, json_schema_extra={"pattern": _NO_NUL}), AfterValidator(_without_nul)]
Secret = Annotated[
    str, Field(min_length=1, max_length=2000, json_schema_extra={"pattern": _NO_NUL}), AfterValidator(_without_nul)
]
Id = Annotated[
    UUID,
    BeforeValidator(_read_id),
    WithJsonSchema(
        {
            "type": "string",
            "maxLength": 100,
            "description": "A UUID, or the short form with its check character.",
            "examples": ["01938c2f-7b3a-7c0e-9f1d-2b4a6c8e0f12"],
        }
    ),
]
Day = Annotated[date, BeforeValidator(_read_date), WithJsonSchema({"type": "string", "format": "date"})]
Moment = Annotated[datetime, BeforeValidator(_read_time), WithJsonSchema({"type": "string", "format": "date-time"})]
Count = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]
Nanoseconds = Annotated[int, Field(ge=-LARGEST_INTEGER, le=LARGEST_INTEGER)]
Mode = Annotated[int, Field(ge=0, le=0o7777)]

ArchiveId = Annotated[Id, Path(alias="archive_id")]
PageSize = Annotated[int, Query(ge=1, le=1000, description="How many items a page holds at most.")]
CursorText = Annotated[
    str | None, Query(max_length=8_000, pattern=r"^[A-Za-z0-9_-]+$", description="`next_cursor` of the page before.")
]


def _check_digests(digests: dict[str, str]) -> dict[str, str]:
    for name, value in digests.items():
        if name not in DIGEST_LENGTHS:
            raise ValueError(f"{name[:20]!r} is no digest we know; known are {', '.join(sorted(DIGEST_LENGTHS))}")
        if len(value) != DIGEST_LENGTHS[name] or not set(value.lower()) <= set("0123456789abcdef"):
            raise ValueError(f"{name} has {DIGEST_LENGTHS[name]} hexadecimal digits")
    return {name: value.lower() for name, value in digests.items()}


Digests = Annotated[
    dict[str, str],
    AfterValidator(_check_digests),
    WithJsonSchema(
        {
            "type": "object",
            "properties": {
                name: {"type": "string", "pattern": f"^[0-9a-fA-F]{{{length}}}$"}
                for name, length in sorted(DIGEST_LENGTHS.items())
            },
            "additionalProperties": False,
        }
    ),
]


class PathForm(Form):
    """A logical path: `path` as text, or `path_b64` where its bytes are not UTF-8; the bytes win where both stand."""

    path: str | None = Field(default=None, max_length=20_000)
    path_b64: str | None = Field(default=None, max_length=6_000)

    @model_validator(mode="after")
    def _check_encoding(self) -> PathForm:
        self.path_bytes()  # whether the bytes are a path is for the use case: it refuses one item, not all
        return self

    def path_bytes(self) -> bytes:
        return read_path(self.path, self.path_b64)


def read_path(text: str | None, encoded: str | None) -> bytes:
    """The bytes of a path from its two forms; `b""` without either. Raises ValueError for bad base64."""
    if encoded is None:
        return (text or "").encode()
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise ValueError("path_b64 is not base64") from None
