"""Digests in headers: Repr-Digest and Content-Digest (RFC 9530), and the Digest of RFC 3230 that grid tools speak."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

from starlette.datastructures import Headers

from perdure.doors.http.errors import MalformedRequestError
from perdure.kernel.digests import DIGEST_LENGTHS

_STRUCTURED = {"sha-512": "sha512", "sha-256": "sha256", "md5": "md5"}
_LEGACY = {
    "sha-512": "sha512",
    "sha-256": "sha256",
    "md5": "md5",
    "adler32": "adler32",
    "crc32": "crc32",
    "crc32c": "crc32c",
}
_LEGACY_HEX = frozenset({"adler32", "crc32", "crc32c"})  # as XRootD and gfal2 write them
_MEMBER = re.compile(r"\s*([a-z*][a-z0-9_.*-]*)\s*=\s*:([A-Za-z0-9+/=]*):\s*(?:;.*)?")


def format_repr_digest(digests: Mapping[str, str]) -> str | None:
    """The SHA-2 digests as a structured dictionary, strongest first; None when there is none."""
    fields = [
        f"{name}=:{_base64(digests[own])}:" for name, own in _STRUCTURED.items() if own in digests and own != "md5"
    ]
    return ", ".join(fields) or None


def format_legacy_digest(digests: Mapping[str, str], wanted: str | None) -> str | None:
    """The first of the wanted algorithms (RFC 3230 Want-Digest, best first) that is known of the file; else None."""
    for name in _wanted_names(wanted or ""):
        own = _LEGACY.get(name, "")
        if own in digests:
            return f"{name}={digests[own] if name in _LEGACY_HEX else _base64(digests[own])}"
    return None


def stated_digests(headers: Headers) -> dict[str, str]:
    """What the sender says of the content, as hexadecimal digests by our names.

    Repr-Digest and Content-Digest mean the same here, since content is never encoded for transport. Algorithms
    we do not know are passed over; raises MalformedRequestError for a digest of the wrong length.
    """
    stated: dict[str, str] = {}
    for field in ("content-digest", "repr-digest"):
        for member in filter(str.strip, headers.get(field, "").split(",")):
            match = _MEMBER.fullmatch(member)
            if match is None:
                raise MalformedRequestError(f"{field} is not a dictionary such as sha-512=:…:.")
            if match[1] in _STRUCTURED:
                stated[_STRUCTURED[match[1]]] = _hex(match[2], _STRUCTURED[match[1]])
    return stated


def parse_tus_checksum(field: str, algorithms: frozenset[str]) -> tuple[str, str]:
    """Algorithm and hexadecimal digest of an Upload-Checksum header; raises MalformedRequestError."""
    name, _, text = field.strip().partition(" ")
    if name not in algorithms:
        raise MalformedRequestError(f"Upload-Checksum takes {', '.join(sorted(algorithms))}.")
    try:
        return name, base64.b64decode(text, validate=True).hex()
    except (binascii.Error, ValueError):
        raise MalformedRequestError("The value of Upload-Checksum is not base64.") from None


def _wanted_names(wanted: str) -> list[str]:
    weighted: list[tuple[float, int, str]] = []
    for place, item in enumerate(wanted.split(",")):
        name, _, parameter = item.partition(";")
        weight = re.fullmatch(r"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*", parameter)
        weighted.append((-float(weight[1]) if weight else -1.0, place, name.strip().lower()))
    return [name for weight, _, name in sorted(weighted) if weight < 0]


def _base64(hexadecimal: str) -> str:
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


def _hex(text: str, name: str) -> str:
    try:
        value = base64.b64decode(text, validate=True).hex()
    except (binascii.Error, ValueError):
        raise MalformedRequestError(f"The digest {name} is not base64.") from None
    if len(value) != DIGEST_LENGTHS[name]:
        raise MalformedRequestError(f"The digest {name} does not have {DIGEST_LENGTHS[name] // 2} bytes.")
    return value
