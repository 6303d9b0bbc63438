"""Cursors: opaque to the caller, bound to their list, checked when they come back."""

from __future__ import annotations

import base64
import binascii
import json
import re

from perdure.doors.http.errors import BadCursorError

_LONGEST = 8_000  # the longest path that is stored, twice encoded, and its list's name


AN_ID = r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}"
A_SHORT_ID = r"[0-9a-z-]{1,40}"
A_NUMBER = r"\d{1,18}"
HEXADECIMAL = r"([0-9a-f]{2}){1,4096}"


def encode_cursor(list_name: str, position: str | None) -> str | None:
    """The cursor of a position in the named list; None at its end."""
    if position is None:
        return None
    return base64.urlsafe_b64encode(json.dumps([list_name, position]).encode()).decode().rstrip("=")


def decode_cursor(list_name: str, cursor: str | None, form: str) -> str | None:
    """The position in the named list, None for its start; raises BadCursorError for what `encode_cursor` did not make.

    `form` is the regular expression of this list's positions: a cursor is not signed, so a forged one must be harmless.
    """
    if cursor is None:
        return None
    try:
        if len(cursor) > _LONGEST:
            raise ValueError
        content = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        raise BadCursorError("The cursor cannot be read.") from None
    match content:
        case [str(name), str(position)] if name == list_name and re.fullmatch(form, position):
            return position
    raise BadCursorError("The cursor belongs to another list.")
