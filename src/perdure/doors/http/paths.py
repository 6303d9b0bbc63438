"""The one place where a URL becomes a logical path.

Servers and frameworks decode the path of a request before routing: a newline then matches no route, bytes that are
not UTF-8 turn into replacement characters, and `%2F` becomes a separator. So a path inside an archive is taken from
the undecoded bytes of the request, and the router only ever sees a placeholder in its place.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Annotated, Any, Final
from urllib.parse import quote_from_bytes, unquote

from fastapi import Depends, Path, Request

from perdure.doors.http.errors import NoSuchAddressError
from perdure.kernel.paths import BadPathError, check_path

_TAIL_KEY: Final = "archive.tail"
_PLACEHOLDER: Final = "-"
_TAILED: Final = re.compile(
    rb"(/api/v1/archives/[^/]+/(?:files|entry|file-metadata|proof)/|/s/[^/]+/files/)(.+)", re.DOTALL
)
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})?")


def set_tail_aside(scope: MutableMapping[str, Any]) -> None:  # Any: the ASGI specification's own type of a scope
    """Move the path inside an archive from the scope's path, where routes look, to a place of its own."""
    match = _TAILED.fullmatch(raw_path_of(scope))
    if match is None:
        return
    prefix, tail = match.groups()
    scope[_TAIL_KEY] = tail
    scope["path"] = scope.get("root_path", "") + unquote(prefix.decode("ascii", "replace")) + _PLACEHOLDER


def raw_path_of(scope: MutableMapping[str, Any]) -> bytes:  # Any: as above
    """The path of the request as it was sent, without query and without the root path of a proxy."""
    raw = scope.get("raw_path") or quote_from_bytes(str(scope["path"]).encode()).encode()
    raw = bytes(raw).partition(b"?")[0]
    root = str(scope.get("root_path", "")).encode()
    return raw.removeprefix(root) if root else raw


def get_tail(
    request: Request,
    path: Annotated[
        str, Path(description="A path inside the archive: its bytes percent-encoded, `/` between components.")
    ],
) -> bytes:
    """The logical path at the end of the request's address; raises BadPathError, or NoSuchAddressError without one."""
    tail = request.scope.get(_TAIL_KEY)
    if tail is None:
        raise NoSuchAddressError("The address ends before the path of a file.")
    return decode_logical_path(tail)


TailPath = Annotated[bytes, Depends(get_tail)]


def decode_logical_path(raw: bytes) -> bytes:
    """Percent-decode each component by itself and check the whole.

    `%2F` is refused, because a component cannot contain a separator; so are `%00`, a `%` without two hexadecimal
    digits and everything else that is no logical path. Bytes that are not UTF-8, and newlines, stay as they are.
    """
    if re.search(rb"%2f", raw, re.IGNORECASE):
        raise BadPathError("A component of the path contains an encoded '/'.")
    try:
        return check_path(_decode(raw))
    except ValueError as error:
        raise BadPathError(str(error)) from None


def encode_logical_path(path: bytes) -> str:
    """The path as it stands in a URL; `decode_logical_path` gives the same bytes again."""
    return quote_from_bytes(path, safe="/-._~")


def get_query_paths(request: Request, name: str) -> list[bytes]:
    """All values of a repeatable query parameter as logical paths; an encoded `/` separates like any other."""
    return [_decode_query_path(value) for value in _raw_values(request, name) if value]


def find_query_path(request: Request, name: str) -> bytes | None:
    """The one value of a query parameter as a logical path; None without it, `b""` when it is empty (the top)."""
    values = _raw_values(request, name)
    if not values:
        return None
    return _decode_query_path(values[-1]) if values[-1] else b""


def _raw_values(request: Request, name: str) -> list[bytes]:
    pairs = (pair.partition(b"=") for pair in bytes(request.scope["query_string"]).split(b"&"))
    return [value.replace(b"+", b" ") for key, _, value in pairs if key == name.encode()]


def _decode_query_path(value: bytes) -> bytes:
    try:
        return check_path(_decode(value).removesuffix(b"/"))
    except ValueError as error:
        raise BadPathError(str(error)) from None


def _decode(raw: bytes) -> bytes:
    def one(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            raise ValueError("A '%' in the path is not followed by two hexadecimal digits.")
        return bytes([int(match[1], 16)])

    return _ESCAPE.sub(one, raw)
