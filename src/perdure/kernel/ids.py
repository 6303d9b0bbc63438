"""Identifiers: UUIDv7 (RFC 9562 section 5.7), and the short form that people read and type."""

from __future__ import annotations

import os
import re
import threading
import time
from uuid import UUID

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
_FIELD = 0b100101  # x⁵ + x² + 1 makes a field of the 32 symbols; x is of order 31, longer than any identifier
_CONFUSED = str.maketrans({"i": "1", "l": "1", "o": "0"})
_UUID = re.compile(r"(urn:uuid:)?[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}")
_PAIR_SHIFTS = range(120, -1, -10)  # two symbols at a time
_lock = threading.Lock()
_last = 0


def new_id() -> UUID:
    """A fresh UUIDv7, greater than every earlier one made by this process."""
    global _last
    with _lock:
        stamp = (time.time_ns() // 1_000_000) << 74 | int.from_bytes(os.urandom(9), "big") & ((1 << 74) - 1)
        _last = stamp if stamp > _last else _last + 1
        value = _last
    milliseconds, random = value >> 74, value & ((1 << 74) - 1)
    bits = (
        (milliseconds & ((1 << 48) - 1)) << 80
        | 0x7 << 76
        | (random >> 62) << 64
        | 0b10 << 62
        | random & ((1 << 62) - 1)
    )
    return UUID(int=bits)


def short_form(identifier: UUID) -> str:
    """26 characters of base 32 and a check character, in groups of nine joined by hyphens."""
    value, text, check = identifier.int, "", 0
    for shift in _PAIR_SHIFTS:
        symbols, adds = _PAIRS[value >> shift & 1023]
        text += symbols
        check = _TWICE[check] ^ adds
    return f"{text[:9]}-{text[9:18]}-{text[18:]}{_ALPHABET[check]}"


def parse_id(text: str) -> UUID:
    """Read the short form, a UUID or `urn:uuid:…`; raises ValueError with a sentence, also for a failed check."""
    cleaned = text.strip().lower()
    if _UUID.fullmatch(cleaned):
        return UUID(cleaned)
    symbols = cleaned.replace("-", "").translate(_CONFUSED)
    if len(symbols) != 27 or any(symbol not in _ALPHABET for symbol in symbols):
        raise ValueError(f"{text[:80]!r} is not an identifier")
    *digits, check = (_ALPHABET.index(symbol) for symbol in symbols)
    value = 0
    for digit in digits:
        value = value << 5 | digit
    if value >> 128 or _check_digit(digits) != check:
        raise ValueError(f"{text!r} has a typing error: its check character does not fit")
    return UUID(int=value)


def _check_digit(digits: list[int]) -> int:
    """The digit by which any single wrong digit, and any two digits swapped, are found.

    The digits are coefficients of a polynomial over the field of 32 elements, evaluated at x. (A remainder of the
    number would not do: 32 leaves 1 when divided by 31, so that swapped digits would go unseen.)
    """
    total = 0
    for digit in digits:
        total = (total ^ digit) << 1
        total ^= _FIELD if total & 32 else 0
    return total


# The check of a longer text follows from that of a shorter one, for it is linear: x² times that, plus that of the pair.
_PAIRS = [(_ALPHABET[pair >> 5] + _ALPHABET[pair & 31], _check_digit([pair >> 5, pair & 31])) for pair in range(1024)]
_TWICE = [_check_digit([digit, 0]) for digit in range(32)]
