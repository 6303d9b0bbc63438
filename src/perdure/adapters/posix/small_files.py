"""The helper process: finds, copies and digests small files at its parent's order, one order and one answer at a time.

It starts anew for a few files' sake, so it imports little: none of `typing`, `enum`, `re` and `socket`, each of which
takes as long as the interpreter's own start, and what only some orders need with the first of them.
"""

from __future__ import annotations

import _socket  # what `socket` makes of it takes 10 ms
import gc
import os

from perdure.adapters.posix.descriptors import receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


def serve_parent(fd: int, parent: int) -> None:
    """The child's side: carry out orders until the parent closes the socket, or is gone."""
    acts: dict[str, Callable[..., Any]] = {}  # Any: what marshal takes
    channel = _socket.socket(fileno=fd)
    try:
        while True:
            (name, *order), folders = receive(channel)
            if name not in acts:
                acts[name] = _find_act(name, parent)
                gc.freeze()  # what was imported stays
            try:
                answer = acts[name](folders, *order)
            finally:
                for folder in folders:
                    os.close(folder)
            send(channel, answer)
    except (EOFError, ConnectionError):
        return


def _find_act(name: str, parent: int) -> Callable[..., Any]:  # Any: see `serve_parent`
    if name == "copy":
        from perdure.adapters.posix.small_copies import Copying  # noqa: PLC0415  # nothing else needs it

        return Copying(parent).copy_files
    if name == "digest":
        from perdure.adapters.posix.small_digests import Digesting  # noqa: PLC0415  # nothing else needs it

        return Digesting().digest_files
    return list_names if name == "names" else look


def list_names(folders: Sequence[int]) -> list[bytes] | None:
    """The names in an open folder, sorted; None where they are not given."""
    try:
        return sorted(os.fsencode(name) for name in os.listdir(folders[0]))
    except OSError:
        return None


def look(folders: Sequence[int], names: Sequence[bytes]) -> list[tuple[int, int, int] | None]:
    """Mode, size and time of each name in an open folder, no link followed; None where that is not given."""
    (folder,) = folders
    seen: list[tuple[int, int, int] | None] = []
    for name in names:
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            seen.append(None)
        else:
            seen.append((found.st_mode, found.st_size, found.st_mtime_ns))
    return seen
