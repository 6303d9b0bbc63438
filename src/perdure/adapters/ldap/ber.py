"""The part of BER that LDAP needs (RFC 4511 section 5.1): definite lengths, low tag numbers."""

from __future__ import annotations

from collections.abc import Iterator

INTEGER, OCTETS, ENUMERATED, SEQUENCE, SET, BOOLEAN = 0x02, 0x04, 0x0A, 0x30, 0x31, 0x01
_LONGEST_LENGTH = 4  # bytes that tell a length
_LONG = 0x80
_HIGH_TAG = 0x1F


class BerError(ValueError):
    """This is not BER as LDAP uses it."""


def element(tag: int, *content: bytes) -> bytes:
    """One element that holds the content in this order."""
    body = b"".join(content)
    size = len(body)
    if size < _LONG:
        return bytes((tag, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, _LONG | len(length))) + length + body


def octets(value: bytes, tag: int = OCTETS) -> bytes:
    return element(tag, value)


def number(value: int, tag: int = INTEGER) -> bytes:
    """A number that is not negative."""
    return element(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def boolean(value: bool, tag: int = BOOLEAN) -> bytes:
    return element(tag, b"\xff" if value else b"\x00")


def read_number(content: bytes) -> int:
    """The number in the content of an INTEGER or ENUMERATED."""
    if not 0 < len(content) <= 8:
        raise BerError("a number of a strange size")
    return int.from_bytes(content, "big", signed=True)


def read_elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element in turn; raises BerError where one is cut short."""
    position = 0
    while position < len(data):
        tag = data[position]
        size, position = read_length(data, position + 1)
        if tag & _HIGH_TAG == _HIGH_TAG or position + size > len(data):
            raise BerError("an element that is cut short, or of an unknown form")
        yield tag, data[position : position + size]
        position += size


def read_length(data: bytes, position: int) -> tuple[int, int]:
    """The length that is told at this position, and the position behind it."""
    if position >= len(data):
        raise BerError("an element without a length")
    first = data[position]
    if first < _LONG:
        return first, position + 1
    count = first & ~_LONG
    end = position + 1 + count
    if not 0 < count <= _LONGEST_LENGTH or end > len(data):
        raise BerError("a length of an unknown form")
    return int.from_bytes(data[position + 1 : end], "big"), end
