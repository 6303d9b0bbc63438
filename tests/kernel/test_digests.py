"""Digests of a stream do not depend on how it is cut, and agree with other programs."""

from __future__ import annotations

import hashlib
import os
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.kernel.digests import (
    DIGEST_LENGTHS,
    DIGEST_NAMES,
    MultiDigest,
    digest_bytes,
    digest_each,
    find_digest_mismatch,
    make_digester,
)

# Check values for "123456789": the CRC catalogue, RFC 1950, the BLAKE3 reference.
KNOWN = {
    "crc32": "cbf43926",
    "crc32c": "e3069283",
    "adler32": "091e01de",
    "md5": "25f9e794323b453885f5181f1b624d0b",
    "sha256": hashlib.sha256(b"123456789").hexdigest(),
    "sha512": hashlib.sha512(b"123456789").hexdigest(),
    "blake3": "b7d65b48420d1033cb2595293263b6f72eabee20d55e699d0df1973b3c9deed1",
}


@pytest.mark.parametrize("name", sorted(DIGEST_NAMES))
def test_known_values(name: str) -> None:
    assert digest_bytes(b"123456789", [name]) == {name: KNOWN[name]}
    assert len(digest_bytes(b"", [name])[name]) == DIGEST_LENGTHS[name]


@given(st.lists(st.binary(max_size=50), max_size=8))
def test_the_cuts_do_not_matter(pieces: list[bytes]) -> None:
    digest = MultiDigest(DIGEST_NAMES)
    for number, piece in enumerate(pieces):
        digest.update((piece, bytearray(piece), memoryview(piece))[number % 3])
    whole = b"".join(pieces)
    assert digest.hexdigests() == digest_bytes(whole, DIGEST_NAMES)
    assert digest.size == len(whole)
    assert digest.hexdigests()["adler32"] == f"{zlib.adler32(whole):08x}"


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 255, 4097, 1 << 20, (1 << 20) + 5])
def test_checksums_are_those_of_zlib(size: int) -> None:
    """Their code takes other ways for other lengths, and for memory that begins elsewhere."""
    content = memoryview(os.urandom(size + 3))
    for start in range(3):
        piece = content[start : start + size]
        found = digest_bytes(bytes(piece), ["crc32", "adler32"])
        assert found == {"crc32": f"{zlib.crc32(piece):08x}", "adler32": f"{zlib.adler32(piece):08x}"}
        assert _of_pieces([piece[: size // 3], piece[size // 3 :]]) == found


def _of_pieces(pieces: list[memoryview]) -> dict[str, str]:
    digest = MultiDigest(["crc32", "adler32"])
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigests()


def test_an_unknown_digest_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'whirlpool'.*sha512"):
        make_digester("whirlpool")


def test_a_mismatch_is_named() -> None:
    computed = digest_bytes(b"data", ["sha512", "md5"])
    assert find_digest_mismatch({"md5": computed["md5"].upper(), "etag": "x"}, computed) is None
    assert find_digest_mismatch({"sha512": computed["sha512"], "md5": "0" * 32}, computed) == "md5"


@given(
    values=st.lists(st.binary(max_size=300), max_size=4),
    names=st.lists(st.sampled_from(sorted(DIGEST_NAMES)), unique=True),
)
def test_values_digested_together_have_the_digests_of_each(values: list[bytes], names: list[str]) -> None:
    assert digest_each(values, names) == [digest_bytes(value, names) for value in values]


def test_an_unknown_digest_of_many_values_is_refused() -> None:
    with pytest.raises(ValueError, match="sha512"):
        digest_each([], ["whirlpool"])
