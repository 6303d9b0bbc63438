"""Filters of searches (RFC 4515) with places for what a person typed.

The operator's text is read once, into a tree. What a person typed goes into a place of the tree as a value of its own
and is sent as such, never as text that somebody reads: there is nothing to escape, and no way out of the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from perdure.adapters.ldap.ber import SEQUENCE, boolean, element, octets

_AND, _OR, _NOT, _EQUAL, _SUBSTRINGS, _AT_LEAST, _AT_MOST, _PRESENT, _ALIKE, _EXTENSIBLE = (
    0xA0,
    0xA1,
    0xA2,
    0xA3,
    0xA4,
    0xA5,
    0xA6,
    0x87,
    0xA8,
    0xA9,
)
_COMPARISONS = {">=": _AT_LEAST, "<=": _AT_MOST, "~=": _ALIKE, "=": _EQUAL}
_DESCRIPTION = r"(?:[A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)+)(?:;[A-Za-z0-9-]+)*"
_ITEM = re.compile(rf"({_DESCRIPTION})?((?::dn)?(?::[A-Za-z0-9.-]+)?):=|({_DESCRIPTION})(>=|<=|~=|=)")
_PLACE = re.compile(r"\{([a-z]+)\}")
_DEEPEST = 20

Values = Mapping[str, bytes]
Filter = Callable[[Values], bytes]


class BadFilterError(ValueError):
    """The text is no filter, or has a place where none may be."""


def parse_filter(text: str, places: frozenset[str]) -> Filter:
    """What makes the filter of a search out of the values for its places; raises BadFilterError."""
    made, end = _parse(text.strip(), 0, places, 0)
    if end != len(text.strip()):
        raise BadFilterError(f"something follows the filter: {text.strip()[end:]!r}")
    return made


def _parse(text: str, start: int, places: frozenset[str], depth: int) -> tuple[Filter, int]:
    if depth > _DEEPEST or text[start : start + 1] != "(":
        raise BadFilterError(f"a filter is in parentheses: {text[start:]!r}")
    head = text[start + 1 : start + 2]
    if head not in ("&", "|", "!"):
        return _parse_item(text, start + 1, places)
    parts: list[Filter] = []
    position = start + 2
    while text[position : position + 1] == "(":
        part, position = _parse(text, position, places, depth + 1)
        parts.append(part)
    if text[position : position + 1] != ")" or (head == "!" and len(parts) != 1):
        raise BadFilterError(f"a part of the filter does not end: {text[start:]!r}")
    tag = {"&": _AND, "|": _OR, "!": _NOT}[head]
    return (lambda values: element(tag, *(part(values) for part in parts))), position + 1


def _parse_item(text: str, start: int, places: frozenset[str]) -> tuple[Filter, int]:
    end = text.find(")", start)
    found = _ITEM.match(text, start)
    if end < 0 or found is None or found.end() > end:
        raise BadFilterError(f"this compares nothing: {text[start:]!r}")
    value = text[found.end() : end]
    if found[3] is None:
        return _extensible(found[1] or "", found[2], _value(value, places)), end + 1
    attribute, tag = octets(found[3].encode()), _COMPARISONS[found[4]]
    if tag == _EQUAL and "*" in value:
        return _starred(found[3], value), end + 1
    fill = _value(value, places)
    return (lambda values: element(tag, attribute, octets(fill(values)))), end + 1


def _extensible(attribute: str, qualifiers: str, fill: Filter) -> Filter:
    whole = qualifiers.startswith(":dn") and qualifiers[3:4] in ("", ":")
    rule = qualifiers.removeprefix(":dn" if whole else "").removeprefix(":")
    if not attribute and not rule:
        raise BadFilterError("a comparison needs an attribute or a rule")
    before = (octets(rule.encode(), 0x81) if rule else b"") + (octets(attribute.encode(), 0x82) if attribute else b"")
    after = boolean(True, 0x84) if whole else b""
    return lambda values: element(_EXTENSIBLE, before, octets(fill(values), 0x83), after)


def _starred(attribute: str, value: str) -> Filter:
    """`*` alone asks whether there is a value, beside text for a part of one; never with what a person typed."""
    if value == "*":
        present = octets(attribute.encode(), _PRESENT)
        return lambda values: present
    if _PLACE.search(value):
        raise BadFilterError(f"what is put in its place is compared whole, not beside a star: {value!r}")
    pieces = [_value(piece, frozenset())({}) for piece in value.split("*")]
    middle = [octets(piece, 0x81) for piece in pieces[1:-1] if piece]
    first = [octets(pieces[0], 0x80)] if pieces[0] else []
    last = [octets(pieces[-1], 0x82)] if pieces[-1] else []
    made = element(_SUBSTRINGS, octets(attribute.encode()), element(SEQUENCE, *first, *middle, *last))
    return lambda values: made


def _value(text: str, places: frozenset[str]) -> Filter:
    pieces: list[bytes | str] = []  # bytes stand for themselves, text for what comes in its place
    for index, piece in enumerate(_PLACE.split(text)):
        if index % 2 and piece not in places:
            raise BadFilterError(f"there is nothing to put in the place of {{{piece}}} here")
        pieces.append(piece if index % 2 else _unescape(piece))
    return lambda values: b"".join(one if isinstance(one, bytes) else values[one] for one in pieces)


def _unescape(text: str) -> bytes:
    if re.search(r"\\(?![0-9A-Fa-f]{2})", text) or any(one in text for one in "()\0"):
        raise BadFilterError(f"this is to be written with a backslash and two digits: {text!r}")
    parts = re.split(r"\\([0-9A-Fa-f]{2})", text)
    return b"".join(bytes.fromhex(part) if index % 2 else part.encode() for index, part in enumerate(parts))
