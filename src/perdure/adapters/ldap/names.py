"""Distinguished names (RFC 4514): what a person typed as one value of a name, and names in one form."""

from __future__ import annotations

import re

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.@")
_AROUND_MARKS = re.compile(r"(?<!\\)\s*(?<!\\)([,=+])\s*")
PLACE = "{login}"


def fill_name(template: str, login: str) -> str:
    """The name with the login in its place; whatever is typed stays one value."""
    return template.replace(PLACE, escape_value(login))


def escape_value(text: str) -> str:
    """The text as a value in a name; all but the plainest characters as a backslash and two digits."""
    return "".join(chr(one) if one in _PLAIN else f"\\{one:02x}" for one in text.encode("utf-8"))


def fold_name(name: str) -> str:
    """A name in small letters, without blanks around its marks, and with `\\20` for those within: one word."""
    return _AROUND_MARKS.sub(r"\1", name.strip()).casefold().replace("\\ ", "\\20").replace(" ", "\\20")
