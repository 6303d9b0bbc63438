"""What scopes of tokens of the grid mean here (pure).

The storage scopes of the WLCG Common JWT Profiles (1.x) and the authorisations of SciTokens (2.0): a word, a colon and
a path, which covers itself and what is below it. Whatever is written in another form refuses the token whole: a scope
that two programs read in two ways is an open door.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from perdure.identity.errors import GridTokenRefusedError
from perdure.kernel.actor import PathAct, PathScope
from perdure.kernel.ids import parse_id
from perdure.kernel.paths import find_path_problem

_MOST_SCOPES = 1000
_LONGEST_PATH = 4000
Components = tuple[str, ...]


class GridProfile(StrEnum):
    WLCG = "wlcg"
    SCITOKENS = "scitokens"


# `modify` holds `create`; `stage` and `poll` are for tapes and give no reading, and any of them lets ask for a file's
# size (WLCG Common JWT Profiles 1.3). Of others, such as `compute.read`, nothing is made.
_ACTS: Mapping[GridProfile, Mapping[str, PathAct]] = {
    GridProfile.WLCG: {
        "storage.read": PathAct.READ,
        "storage.create": PathAct.ADD,
        "storage.modify": PathAct.CHANGE,
        "storage.stage": PathAct.STAT,
        "storage.poll": PathAct.STAT,
    },
    GridProfile.SCITOKENS: {"read": PathAct.READ, "write": PathAct.CHANGE},
}


@dataclass(frozen=True, slots=True)
class GridPlaces:
    """Where the paths of an issuer lead: `<base>/<identifier of an archive>/<path in it>`, and the folders in `known`.

    Both are written with a slash at their beginning and none at their end; the top is empty.
    """

    base: str = ""
    known: Mapping[str, UUID] = field(default_factory=dict)

    def find(self, path: Components) -> Iterator[tuple[UUID | None, bytes]]:
        """What a path covers: archives (None: all) with what is below it in them."""
        base = tuple(self.base.split("/")[1:])
        if path == base[: len(path)]:
            yield None, b""
        elif path[: len(base)] == base:
            archive_id = _find_id(path[len(base)])
            if archive_id is not None:
                yield archive_id, _join(path[len(base) + 1 :])
        for folder, archive_id in self.known.items():
            mapped = tuple(folder.split("/")[1:])
            if path == mapped[: len(path)]:
                yield archive_id, b""
            elif path[: len(mapped)] == mapped:
                yield archive_id, _join(path[len(mapped) :])


def read_scopes(profile: GridProfile, text: str, places: GridPlaces) -> tuple[PathScope, ...]:
    """What the scopes of a token reach here; raises GridTokenRefusedError for one that is not written as it must be."""
    words = text.split(" ")
    if len(words) > _MOST_SCOPES:
        raise GridTokenRefusedError(f"The token has more than {_MOST_SCOPES} scopes.")
    found: dict[PathScope, None] = {}
    for word in words:
        name, colon, path = word.partition(":")
        act = _ACTS[profile].get(name)
        if act is None:
            continue
        if not colon:
            raise GridTokenRefusedError(f"The scope {name} has no path.")
        found |= {PathScope(act, archive_id, below): None for archive_id, below in places.find(_read_path(path))}
    return tuple(found)


def _read_path(text: str) -> Components:
    """The components of a path in its one form: absolute, nothing to resolve in it, nothing encoded."""
    if text == "/":
        return ()
    inside = text[1:].removesuffix("/")
    if not text.startswith("/") or "%" in text or not text.isprintable() or len(text) > _LONGEST_PATH:
        raise GridTokenRefusedError("A path of a scope is not absolute, or has encoded characters in it.")
    if find_path_problem(inside.encode()) is not None:
        raise GridTokenRefusedError("A path of a scope has empty, '.' or '..' components.")
    return tuple(inside.split("/"))


def _find_id(component: str) -> UUID | None:
    try:
        return parse_id(component)
    except ValueError:
        return None  # a path of another storage of the issuer


def _join(components: Components) -> bytes:
    return "/".join(components).encode()
