"""Where in a part a file's bytes lie: under its own name wherever that name can be carried by every system.

The content path of a file is relative to the folder `data` of its part. A name that is safe by itself and has no twin
in the part is its own content path, so that a person finds the file with `ls`; any other file lies at
`_/<sha256 of its logical path in hexadecimal>`. The true name stands in the part's manifest.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import sha256

MAX_COMPONENT_BYTES = 200
MAX_CONTENT_PATH_BYTES = 700
HASHED_FOLDER = "_"
# Windows refuses these characters and names; macOS shows a colon as a slash.
_UNPORTABLE = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f]')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])(\..*)?", re.IGNORECASE)
# Names that are safe at a glance: plain characters, no name of a device, nothing below the folder `_`.
_DEVICE = rb"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?![^./])"
_PLAIN_NAME = rb"(?!%s)[a-z0-9_+=@-][a-z0-9_+=@.-]{0,198}[a-z0-9_+=@-]|(?!%s)[a-z0-9_+=@-]" % (_DEVICE, _DEVICE)
_PLAIN_PATH = re.compile(rb"(?!_/|_\Z)(?:%s)(?:/(?:%s))*" % (_PLAIN_NAME, _PLAIN_NAME), re.IGNORECASE)
# Controls, formatting marks, surrogates, private use, unassigned and separators: invisible, or not the same to all.
_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def hashed_content_path(path: bytes) -> str:
    """The content path of a file whose name cannot be carried."""
    return f"{HASHED_FOLDER}/{sha256(path).hexdigest()}"


@lru_cache(maxsize=1 << 15)  # a path is asked for twice in the sealing of its part, and twice in the landing of a batch
def natural_content_path(path: bytes) -> str | None:
    """The path as text if it is safe by itself, twins apart; else None.

    Safe is UTF-8 in NFC, at most 700 bytes in all and 200 in each component, without characters or names that
    some system refuses, and not inside the folder that holds the files without a portable name.
    """
    if len(path) <= MAX_CONTENT_PATH_BYTES and _PLAIN_PATH.fullmatch(path):
        return path.decode("ascii")
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if len(path) > MAX_CONTENT_PATH_BYTES or not unicodedata.is_normalized("NFC", text):
        return None
    components = text.split("/")
    if _fold(components[0]) == HASHED_FOLDER or not all(_is_portable(component) for component in components):
        return None
    return text


def plan_content_paths(paths: Iterable[bytes]) -> dict[bytes, str]:
    """The content path of each path of one part, which does not depend on their order.

    Of paths that a system without case, or with its own normalisation, takes for one file, and of a file that it
    takes for a folder of another path, none keeps its name. A path given twice raises ValueError.
    """
    listed = list(paths)
    natural = {path: text for path in listed if (text := natural_content_path(path)) is not None}
    if len(set(listed)) != len(listed):
        raise ValueError("a path is given twice")
    folded = [_fold(text) for text in natural.values()]
    taken = _find_conflicts(folded)
    if not taken and len(natural) == len(listed):
        return natural
    if taken:
        names = zip(natural.items(), folded, strict=True)
        natural = {path: text for (path, text), name in names if taken.isdisjoint(_iter_prefixes(name))}
    return {path: natural.get(path) or hashed_content_path(path) for path in listed}


def _find_conflicts(folded: Sequence[str]) -> set[str]:
    """The folded names that belong to two files, or to a file and a folder."""
    files = set(folded)
    conflicts: set[str] = set()
    if len(files) < len(folded):
        conflicts = {name for name, count in Counter(folded).items() if count > 1}
    folders: set[str] = set()
    for name in folded:
        end = name.rfind("/")
        while end > 0 and (folder := name[:end]) not in folders:
            folders.add(folder)
            end = name.rfind("/", 0, end)
    return conflicts | files & folders


def _iter_folders(name: str) -> Iterator[str]:
    end = name.rfind("/")
    while end > 0:
        yield name[:end]
        end = name.rfind("/", 0, end)


def _iter_prefixes(name: str) -> Iterator[str]:
    yield name
    yield from _iter_folders(name)


def _is_portable(component: str) -> bool:
    if not component or component in (".", "..") or component[-1] in ". " or component[0] == " ":
        return False
    if len(component.encode("utf-8")) > MAX_COMPONENT_BYTES or _UNPORTABLE.search(component):
        return False
    if not component.isascii() and any(
        unicodedata.category(character) in _UNSEEN_CATEGORIES for character in component
    ):
        return False
    return not _RESERVED.fullmatch(component)


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    # Compatibility forms are folded too (a full-width letter, a ligature): some file systems take them for twins.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
