"""Paths inside archives on the user's side: bytes on disk, text or base64 in JSON, percent-encoded in URLs."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from urllib.parse import quote_from_bytes


def to_bytes(path: str | bytes) -> bytes:
    """The bytes of a path given as text (as the operating system encodes it) or as bytes."""
    return path if isinstance(path, bytes) else os.fsencode(path)


def to_json(path: bytes, field: str = "path") -> dict[str, str]:
    """`{"path": text}`, or `{"path_b64": …}` for bytes that are not UTF-8."""
    try:
        return {field: path.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{field}_b64": base64.b64encode(path).decode("ascii")}


def from_json(record: Mapping[str, object], field: str = "path") -> bytes:
    """The bytes of the path that a JSON record carries; raises ValueError without one."""
    encoded = record.get(f"{field}_b64")
    if isinstance(encoded, str):
        return base64.b64decode(encoded, validate=True)
    text = record.get(field)
    if not isinstance(text, str):
        raise ValueError(f"a record without {field!r}")
    return text.encode("utf-8")


def to_url(path: bytes) -> str:
    """Percent-encoded for the path of a URL; the slashes stay."""
    return quote_from_bytes(path, safe="/-._~")


def is_safe(path: bytes) -> bool:
    """Whether a path that a server or a manifest names stays inside the folder it is written to."""
    return bool(path) and b"\0" not in path and all(part not in (b"", b".", b"..") for part in path.split(b"/"))


def display(path: bytes) -> str:
    """The path for people and terminals: no control characters, no half characters."""
    return printable(path.decode("utf-8", errors="backslashreplace"))


def printable(text: str) -> str:
    """What a server said, for terminals: a control character would command them, so that its escape is shown."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def leads_out(path: bytes, target: bytes) -> bool:
    """Whether a symbolic link at this path inside a folder leads out of the folder."""
    reached = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return os.path.isabs(reached) or reached == b".." or reached.startswith(b"../")
