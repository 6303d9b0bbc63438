"""Entity tags, conditional requests and ranges (RFC 9110 sections 8.8, 13 and 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.datastructures import Headers

from perdure.doors.http.errors import ConditionFailedError, MalformedRequestError, RangeNotSatisfiableError

_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.IGNORECASE)
_REVISION = re.compile(r"([rm])(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes from `start` up to, not including, `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


def format_revision(letter: str, revision: int) -> str:
    """The entity tag of a revision: `"r7"` of an archive's record, `"m7"` of metadata."""
    return f'"{letter}{revision}"'


def expected_revision(headers: Headers, letter: str) -> int | None:
    """The revision that If-Match insists on; None when it is absent or `*`.

    Raises ConditionFailedError for a tag that no revision of this kind of thing has ever had.
    """
    field = headers.get("if-match")
    if field is None or field.strip() == "*":
        return None
    tags = _parse_tags(field)
    match = _REVISION.fullmatch(tags[0][1]) if len(tags) == 1 and not tags[0][0] else None
    if match is None or match[1] != letter:
        raise ConditionFailedError("If-Match does not name one revision of this thing.")
    return int(match[2])


def is_not_modified(headers: Headers, etag: str) -> bool:
    """Whether If-None-Match says that the caller has this very state (weak comparison)."""
    field = headers.get("if-none-match")
    if field is None:
        return False
    return field.strip() == "*" or _opaque(etag) in [opaque for _, opaque in _parse_tags(field)]


def require_match(headers: Headers, etag: str | None) -> None:
    """Raise ConditionFailedError when If-Match is given and names another state (strong comparison)."""
    field = headers.get("if-match")
    if field is None or (field.strip() == "*" and etag is not None):
        return
    strong = [] if field.strip() == "*" else [opaque for weak, opaque in _parse_tags(field) if not weak]
    if etag is None or _opaque(etag) not in strong:
        raise ConditionFailedError("If-Match names another state than the present one.")


def expected_tags(headers: Headers) -> frozenset[str] | None:
    """The strong entity tags that If-Match accepts, without their quotes; None accepts any state of what is there."""
    field = headers.get("if-match", "*")
    if field.strip() == "*":
        return None
    return frozenset(opaque for weak, opaque in _parse_tags(field) if not weak)


def find_span(headers: Headers, size: int, etag: str | None) -> Span | None:
    """The one range that is asked for; None means the whole.

    Several ranges, another unit, and an If-Range that is a date or another tag are answered with the whole, as the
    standard allows. Raises RangeNotSatisfiableError for a range outside the content.
    """
    match = _RANGE.fullmatch(headers.get("range", "").strip())
    if match is None or not _if_range_holds(headers.get("if-range"), etag):
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if first and last and int(last) < int(first):
        return None
    span = _suffix(int(last), size) if not first else Span(int(first), min(int(last) + 1, size) if last else size)
    if span.start >= size:
        raise RangeNotSatisfiableError(f"The content has {size} bytes.", size=size)
    return span


def _suffix(length: int, size: int) -> Span:
    return Span(max(0, size - length) if length else size, size)


def _if_range_holds(field: str | None, etag: str | None) -> bool:
    return field is None or (etag is not None and field.strip() == etag)


def _parse_tags(field: str) -> list[tuple[bool, str]]:
    tags: list[tuple[bool, str]] = []
    for text in field.split(","):
        if not text.strip():
            continue
        match = _TAG.fullmatch(text.strip())
        if match is None:
            raise MalformedRequestError('An entity tag stands in double quotes, such as "r7".')
        tags.append((match[1] is not None, match[2]))
    return tags


def _opaque(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')
