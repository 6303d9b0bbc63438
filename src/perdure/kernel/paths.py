"""Logical paths: what users see, kept as the bytes they are.

A logical path is `bytes`: components joined by `/`, at least one, none empty, `.` or `..`, none longer than
255 bytes, no NUL, at most 2,500 bytes in all. It is never normalised: NFC and NFD twins are two paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from urllib.parse import quote_from_bytes

from perdure.kernel.errors import BadInputError

MAX_PATH_BYTES = 2500  # paths must be found and sorted, and a key of a B-tree holds no more
MAX_COMPONENT_BYTES = 255
_ORDINARY = re.compile(rb"[^./\0][^/\0]{0,254}+(?:/[^./\0][^/\0]{0,254}+)*+")  # no component begins with a dot


class BadPathError(BadInputError):
    code = "bad_path"
    title = "This is not a path inside an archive"
    next_step = "Use a relative path such as scan_001/frame_01.h5, without empty, '.' or '..' components."


def check_path(path: bytes) -> bytes:
    """Return the path if it is a logical path; raises BadPathError saying what is wrong."""
    problem = find_path_problem(path)
    if problem:
        raise BadPathError(f"{display_path(path[:200])!r}: {problem}.", path=display_path(path[:200]))
    return path


def find_path_problem(path: bytes) -> str | None:
    """What is wrong with this logical path, in words, or None."""
    if len(path) <= MAX_PATH_BYTES and _ORDINARY.fullmatch(path):
        return None  # almost every path; the rest is looked at closely
    if not path:
        return "the path is empty"
    if len(path) > MAX_PATH_BYTES:
        return f"the path is longer than {MAX_PATH_BYTES} bytes"
    if b"\0" in path:
        return "the path contains a NUL"
    if path.startswith(b"/"):
        return "the path is absolute"
    for component in path.split(b"/"):
        if not component:
            return "the path has an empty component"
        if component in (b".", b".."):
            return "the path has a '.' or '..' component"
        if len(component) > MAX_COMPONENT_BYTES:
            return f"a component is longer than {MAX_COMPONENT_BYTES} bytes"
    return None


def iter_ancestors(path: bytes) -> list[bytes]:
    """The folders above a path, nearest last: `a/b/c` gives `a`, `a/b`."""
    return [path[: match.start()] for match in re.finditer(b"/", path)]


def find_ancestors(paths: Iterable[bytes]) -> set[bytes]:
    """The folders above any of these paths."""
    found: set[bytes] = set()
    for path in paths:
        end = path.rfind(b"/")
        while end > 0 and (folder := path[:end]) not in found:
            found.add(folder)
            end = path.rfind(b"/", 0, end)
    return found


def common_folder(paths: Sequence[bytes]) -> bytes:
    """The deepest path that all of these are or lie below; `b""` when that is the top, or there are none."""
    if not paths:
        return b""
    split = [path.split(b"/") for path in paths]
    # What the first and the last in the order of their components begin with, all between them begin with
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(min(split), max(split), strict=False))
    return b"/".join(one for one, _ in pairs)


def display_path(path: bytes) -> str:
    """The path for people: its text if it is UTF-8, otherwise percent-encoded where it is not ASCII."""
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        return quote_from_bytes(path, safe="/ !\"#$&'()*+,-.:;<=>?@[\\]^_`{|}~")


def is_text_path(path: bytes) -> bool:
    """Whether the path is UTF-8, so that a JSON string can carry it exactly."""
    try:
        path.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
