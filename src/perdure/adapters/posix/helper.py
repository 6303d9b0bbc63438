"""The parent's side of a process that copies and digests small files; see `small_files` for the child's.

Parent and child talk over a pair of sockets, one order and one answer at a time. An order to copy carries the open
folders of its files, so that the child resolves no path of the source by itself.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Self

from perdure.adapters.posix.descriptors import MOST_PASSED, receive, send
from perdure.formats import ocfl
from perdure.formats.content_paths import natural_content_path
from perdure.storage.helpers import HelperLostError, Looked, SourceFile
from perdure.storage.model import DATA_PREFIX, Received
from perdure.storage.source_files import iter_content_names

_PROGRAM = (
    "import os, sys; sys.path += {path!a}; "
    "from perdure.adapters.posix.small_files import serve_parent; serve_parent({fd}, {parent}); "
    "os._exit(0)"  # there is nothing that taking the interpreter apart would save
)
_END_TIMEOUT = 5.0  # seconds


class HelperProcess:
    """The parent's side. The child ends when the socket is closed, however that happened."""

    def __init__(self, staging: bytes, root: bytes, medium_read: str) -> None:
        """For a store with these folders, whose medium is read in the way that its abilities name."""
        self._staging, self._root, self._medium_read = staging, root, medium_read
        self._channel, theirs = socket.socketpair()
        with theirs:
            # told where our modules are, it need not look for them
            path = [folder for folder in sys.path if os.path.isabs(folder)]
            program = _PROGRAM.format(path=path, fd=theirs.fileno(), parent=os.getpid())
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-P", "-c", program],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C at the terminal is for the parent, which ends us last
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def copy(self, tree: str, sources: Sequence[SourceFile], digests: frozenset[str]) -> list[Received | None]:
        if not sources:
            return []
        names, inside, paths = zip(*sources, strict=True)
        folders = list(dict.fromkeys(inside))
        if len(folders) > MOST_PASSED:
            return [None] * len(sources)
        places = {folder: place for place, folder in enumerate(folders)}
        contents = [natural_content_path(path) or next(iter_content_names(path)) for path in paths]
        data = self._staging + f"/{tree}/{DATA_PREFIX}".encode()
        order = ["copy", self._staging, data, sorted(digests), names, bytes(map(places.__getitem__, inside)), contents]
        return [
            Received._make((content, *one)) if one is not None else None
            for content, one in zip(contents, self._ask(order, folders), strict=True)
        ]

    def digest(self, object_id: str, paths: Sequence[str], algorithm: str) -> list[tuple[str, int] | None]:
        folder = self._root + b"/" + ocfl.object_path(object_id).encode()
        wanted = [path.encode("utf-8", "surrogateescape") for path in paths]
        answer: list[tuple[str, int] | None] = self._ask(["digest", folder, self._medium_read, algorithm, wanted], [])
        return answer

    def list_names(self, folder: int) -> list[bytes] | None:
        names: list[bytes] | None = self._ask(["names"], [folder])
        return names

    def look(self, folder: int, names: Sequence[bytes]) -> list[Looked | None]:
        answer: list[Looked | None] = self._ask(["look", list(names)], [folder])
        return answer

    def _ask(self, order: list[Any], folders: Sequence[int]) -> Any:  # Any: see `receive`
        try:
            send(self._channel, order, folders)
            answer = receive(self._channel)[0]
        except (OSError, EOFError) as error:
            raise HelperLostError(f"a process that does small files has ended: {error}") from error
        return answer

    def dismiss(self) -> None:
        self._channel.close()

    def close(self) -> None:
        self.dismiss()
        try:
            self._process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
