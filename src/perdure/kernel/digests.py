"""Digests by name, several in one pass over a stream."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import blake3
import google_crc32c
from isal import isal_zlib


class Digester(Protocol):
    """Takes bytes in order and tells their digest in lower-case hexadecimal."""

    def update(self, data: bytes | bytearray | memoryview, /) -> object: ...

    def hexdigest(self) -> str: ...


class _Rolling:
    """CRC-32 and Adler-32 as zlib has them, as eight hexadecimal digits."""

    def __init__(self, function: Callable[..., int], start: int) -> None:
        self._function = function
        self._value = start

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        self._value = self._function(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


class _Crc32c:
    """CRC-32C (Castagnoli) as eight hexadecimal digits."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        self._value = google_crc32c.extend(self._value, bytes(data) if not isinstance(data, bytes) else data)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


_MAKERS: dict[str, Callable[[], Digester]] = {
    "sha512": hashlib.sha512,
    "sha256": hashlib.sha256,
    "md5": lambda: hashlib.md5(usedforsecurity=False),
    "crc32": lambda: _Rolling(isal_zlib.crc32, 0),
    "adler32": lambda: _Rolling(isal_zlib.adler32, 1),
    "crc32c": _Crc32c,
    "blake3": blake3.blake3,
}

_AT_ONCE: dict[
    str, Callable[[bytes], str]
] = {  # the same of a whole value, without a digester for those that are common
    "sha512": lambda data: hashlib.sha512(data).hexdigest(),
    "sha256": lambda data: hashlib.sha256(data).hexdigest(),
    "crc32": lambda data: f"{isal_zlib.crc32(data):08x}",
}

DIGEST_NAMES: frozenset[str] = frozenset(_MAKERS)
CONTENT_DIGESTS: frozenset[str] = frozenset({"sha512", "sha256"})
DIGEST_LENGTHS: dict[str, int] = {
    "sha512": 128,
    "sha256": 64,
    "md5": 32,
    "blake3": 64,
    "crc32": 8,
    "adler32": 8,
    "crc32c": 8,
}  # hexadecimal digits


class MultiDigest:
    """Several digests of one stream; `size` counts the bytes seen."""

    def __init__(self, names: Iterable[str]) -> None:
        self._digesters = {name: make_digester(name) for name in names}
        self.size = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        for digester in self._digesters.values():
            digester.update(data)
        self.size += len(data)

    def hexdigests(self) -> dict[str, str]:
        return {name: digester.hexdigest() for name, digester in self._digesters.items()}


def make_digester(name: str) -> Digester:
    """A fresh digester; raises ValueError for a name that is not in DIGEST_NAMES."""
    try:
        return _MAKERS[name]()
    except KeyError:
        raise ValueError(f"unknown digest {name!r}; known are {', '.join(sorted(_MAKERS))}") from None


def content_digest_name(digest: str) -> str:
    """Which of CONTENT_DIGESTS has so many hexadecimal digits; raises ValueError when none has."""
    for name in CONTENT_DIGESTS:
        if len(digest) == DIGEST_LENGTHS[name]:
            return name
    raise ValueError(f"{digest!r} is no content digest")


def digest_bytes(data: bytes, names: Iterable[str]) -> dict[str, str]:
    """All the named digests of one value."""
    digest = MultiDigest(names)
    digest.update(data)
    return digest.hexdigests()


def digest_each(values: Sequence[bytes], names: Iterable[str]) -> list[dict[str, str]]:
    """`digest_bytes` of each value; raises ValueError for a name that is not in DIGEST_NAMES."""
    digests: list[dict[str, str]] = [{} for _ in values]
    for name in names:
        digest = _AT_ONCE.get(name) or _digest_by(name)
        for found, value in zip(digests, values, strict=True):
            found[name] = digest(value)
    return digests


def _digest_by(name: str) -> Callable[[bytes], str]:
    make_digester(name)

    def digest(data: bytes) -> str:
        digester = make_digester(name)
        digester.update(data)
        return digester.hexdigest()

    return digest


def find_digest_mismatch(stated: Mapping[str, str], computed: Mapping[str, str]) -> str | None:
    """The name of the first stated digest that differs from the computed one, or None; unknown names are skipped."""
    return next((n for n, value in stated.items() if n in computed and computed[n] != value.lower()), None)
