"""A folder on this computer as the list of what would be sent, and of what is refused with its reason."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from perdure_client.errors import SourceChangedError, UsageError
from perdure_client.paths import display


@dataclass(frozen=True)
class LocalItem:
    """One thing to send: `kind` is file, directory (an empty one) or symlink; `source` is where it lies here."""

    path: bytes
    kind: str
    source: bytes
    size: int = 0
    mtime_ns: int = 0
    mode: int = 0
    target: bytes | None = None
    identity: tuple[int, int] = (0, 0)  # device and inode


@dataclass
class LocalTree:
    """What a walk found; `count` of everything seen equals items and refusals together."""

    items: list[LocalItem] = field(default_factory=list)
    refused: list[tuple[bytes, str]] = field(default_factory=list)

    @property
    def byte_count(self) -> int:
        return sum(item.size for item in self.items)


def scan_sources(sources: list[str], into: bytes = b"") -> LocalTree:
    """List what `perdure put` sends: the content of each folder, each file by its name, all below `into`."""
    tree = LocalTree()
    for source in sources:
        name = os.fsencode(source)
        if os.path.isdir(name):
            _scan_folder(name, into, tree)
        elif os.path.lexists(name):
            base = os.path.basename(os.path.abspath(name))
            path, top = into + b"/" + base if into else base, os.path.dirname(os.path.abspath(name))
            _add(tree, name, path, top=top, name=name)
        else:
            raise UsageError(f"{display(name)} does not exist.", next_step="Check the path.")
    _refuse_doubles(tree)
    return tree


def _scan_folder(top: bytes, into: bytes, tree: LocalTree) -> None:
    """Walk without following links, also where a folder becomes one meanwhile: each is known again by its inode."""
    waiting: list[tuple[bytes, bytes, tuple[int, int] | None]] = [(top, into, None)]
    while waiting:
        folder, prefix, identity = waiting.pop()
        try:
            descriptor = _open_folder(folder, identity)
        except OSError as error:
            tree.refused.append((prefix or b".", f"the folder cannot be read: {error.strerror}"))
            continue
        try:
            waiting += _scan_names(descriptor, folder, prefix, tree, top=top, is_top=identity is None)
        finally:
            os.close(descriptor)


def _open_folder(folder: bytes, identity: tuple[int, int] | None) -> int:
    """Open a folder to list it; raises OSError, also when it is not the one that was met before (None: any)."""
    nofollow = 0 if identity is None else os.O_NOFOLLOW
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | nofollow)
    information = os.fstat(descriptor)
    if identity not in (None, (information.st_dev, information.st_ino)):
        os.close(descriptor)
        raise OSError(errno.ESTALE, "another one has taken its place")
    return descriptor


def _scan_names(
    descriptor: int, folder: bytes, prefix: bytes, tree: LocalTree, *, top: bytes, is_top: bool
) -> list[tuple[bytes, bytes, tuple[int, int] | None]]:
    """Put what an open folder holds into the tree, and return the folders in it, to be walked."""
    try:
        names = sorted(os.fsencode(name) for name in os.listdir(descriptor))
    except OSError as error:
        tree.refused.append((prefix or b".", f"the folder cannot be read: {error.strerror}"))
        return []
    if not names and not is_top:
        information = os.fstat(descriptor)
        mode = stat.S_IMODE(information.st_mode)
        tree.items.append(LocalItem(prefix, "directory", folder, 0, information.st_mtime_ns, mode))
    below: list[tuple[bytes, bytes, tuple[int, int] | None]] = []
    for name in names:
        source, path = folder + b"/" + name, prefix + b"/" + name if prefix else name
        identity = _add(tree, source, path, top=top, name=name, dir_fd=descriptor)
        if identity is not None:
            below.append((source, path, identity))
    return below


def _add(
    tree: LocalTree, source: bytes, path: bytes, *, top: bytes, name: bytes, dir_fd: int | None = None
) -> tuple[int, int] | None:
    """Put one thing, a name in an open folder, into the tree; a folder's identity is returned: it is to be walked."""
    try:
        information = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        kind, mode = stat.S_IFMT(information.st_mode), stat.S_IMODE(information.st_mode)
        target = os.readlink(name, dir_fd=dir_fd) if kind == stat.S_IFLNK else None
    except OSError as error:
        tree.refused.append((path, f"it cannot be read: {error.strerror}"))
        return None
    identity = (information.st_dev, information.st_ino)
    if kind == stat.S_IFDIR:
        return identity
    if kind == stat.S_IFREG:
        tree.items.append(
            LocalItem(path, "file", source, information.st_size, information.st_mtime_ns, mode, None, identity)
        )
    elif target is not None:
        _add_link(tree, source, path, top, target, information.st_mtime_ns)
    else:
        tree.refused.append((path, "it is a device, socket or pipe, not a file"))
    return None


def _add_link(tree: LocalTree, source: bytes, path: bytes, top: bytes, target: bytes, mtime_ns: int) -> None:
    reached = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(source)), target))
    root = os.path.abspath(top)
    if target.startswith(b"/") or not (reached == root or reached.startswith(root.rstrip(b"/") + b"/")):
        tree.refused.append((path, f"the symbolic link leads out of the folder, to {display(target)}"))
        return
    tree.items.append(LocalItem(path, "symlink", source, 0, mtime_ns, 0o777, target))


def _refuse_doubles(tree: LocalTree) -> None:
    seen: dict[bytes, LocalItem] = {}
    for item in tree.items:
        if item.path in seen:
            tree.refused.append((item.path, f"two sources give this path; {display(seen[item.path].source)} is sent"))
        else:
            seen[item.path] = item
    tree.items = list(seen.values())


def check_unchanged(item: LocalItem, descriptor: int) -> None:
    """Raise SourceChangedError when the open file is not the one that was listed, or has changed since."""
    information = os.fstat(descriptor)
    found = (information.st_size, information.st_mtime_ns, (information.st_dev, information.st_ino))
    if found != (item.size, item.mtime_ns, item.identity):
        raise SourceChangedError(
            f"{display(item.path)} changed while it was read.", next_step="Run the command again when it is at rest."
        )


def open_source(item: LocalItem) -> int:
    """A descriptor of the listed file, not through a symbolic link; raises SourceChangedError for another file."""
    try:
        # without waiting: a pipe may have come to the place of the file
        descriptor = os.open(item.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SourceChangedError(f"{display(item.path)} cannot be read: {error.strerror}.") from error
    try:
        check_unchanged(item, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_whole(item: LocalItem, room: memoryview) -> memoryview:
    """The content of a small file, consistent or refused by SourceChangedError.

    It lies at the beginning of the room, which has the listed size at least.
    """
    descriptor = open_source(item)
    filled = 0
    try:
        while filled < item.size and (count := os.readv(descriptor, [room[filled : item.size]])):
            filled += count
        check_unchanged(item, descriptor)
    except OSError as error:
        raise SourceChangedError(f"{display(item.path)} cannot be read: {error.strerror}.") from error
    finally:
        os.close(descriptor)
    if filled != item.size:
        raise SourceChangedError(f"{display(item.path)} changed while it was read.")
    return room[:filled]


def iter_folder_files(folder: Path) -> Iterator[tuple[bytes, bytes]]:
    """Every path below a folder that is not a folder, with where it lies; symbolic links are not followed."""
    top = os.fsencode(folder)
    waiting = [(top, b"")]
    while waiting:
        place, prefix = waiting.pop()
        for name in sorted(os.listdir(place)):
            source, path = place + b"/" + name, prefix + b"/" + name if prefix else name
            if os.path.isdir(source) and not os.path.islink(source):
                waiting.append((source, path))
            else:
                yield path, source
