"""Copying small files in a helper process: many of the system's calls of one kind one after the other."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence

from perdure.adapters.posix import files
from perdure.adapters.posix.descriptors import close_all
from perdure.kernel.digests import digest_each
from perdure.storage.source_files import OPEN_SOURCE, SMALL, mark_of

_AT_ONCE = 64  # files; so many are open, and in memory

Copied = tuple[int, dict[str, str], int, int]  # fields of Received: size, digests, time of change (ns), mode


class Copying:
    """Copies small files at rest to free names, each read once. Of any other nothing is left, and None is told."""

    def __init__(self, parent: int) -> None:
        """For this parent: nothing is written any more when it has ended."""
        self._parent = parent

    def copy_files(
        self,
        folders: Sequence[int],
        staging: bytes,
        data: bytes,
        digests: Sequence[str],
        names: Sequence[bytes],
        places: Sequence[int],
        contents: Sequence[str],
    ) -> list[Copied | None]:
        """Copy each name in the open folder at its place to its content path in the folder `data` below `staging`.

        Raises EOFError when the parent has ended.
        """
        inside = [folders[place] for place in places]
        targets = [data + content.encode() for content in contents]
        copied: list[Copied | None] = []
        for start in range(0, len(names), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            copied += self._copy_some(staging, digests, names[some], inside[some], targets[some])
        return copied

    def _copy_some(
        self,
        staging: bytes,
        digests: Sequence[str],
        names: Sequence[bytes],
        folders: Sequence[int],
        targets: Sequence[bytes],
    ) -> list[Copied | None]:
        try:
            return self._copy_alike(staging, digests, names, folders, targets)
        except OSError:
            if len(names) == 1:
                return [None]
        alone = zip(names, folders, targets, strict=True)
        return [self._copy_some(staging, digests, [one], [folder], [target])[0] for one, folder, target in alone]

    def _copy_alike(
        self,
        staging: bytes,
        digests: Sequence[str],
        names: Sequence[bytes],
        folders: Sequence[int],
        targets: Sequence[bytes],
    ) -> list[Copied | None]:
        """Copy what can be read without exception; raises OSError before anything is written."""
        sources: list[int] = []
        try:
            before, found = _read(names, folders, sources)
            written = self._write(staging, targets, found)
            # the sources are still open, so that no other file has the inode of one that was replaced
            good = [
                is_written and _is_unchanged(name, folder, target, seen)
                for is_written, name, folder, target, seen in zip(written, names, folders, targets, before, strict=True)
            ]
        finally:
            close_all(sources)
        return [
            (seen.st_size, digested, seen.st_mtime_ns, stat.S_IMODE(seen.st_mode)) if is_good else None
            for is_good, seen, digested in zip(good, before, digest_each(found, digests), strict=True)
        ]

    def _write(self, staging: bytes, targets: Sequence[bytes], found: Sequence[bytes]) -> list[bool]:
        """Whether each was written whole under its name; what was not has left nothing."""
        written: list[bool] = []
        put = files.put
        for target, data in zip(targets, found, strict=True):
            if os.getppid() != self._parent:
                raise EOFError("the parent has ended, and the part may soon be another's")
            try:
                written.append(put(target, staging, data, None))
            except OSError:
                written.append(False)
        return written


def _read(
    names: Sequence[bytes], folders: Sequence[int], sources: list[int]
) -> tuple[list[os.stat_result], list[bytes]]:
    """Status and bytes of each name in its folder, left open among the sources; raises OSError if one is odd."""
    for name, folder in zip(names, folders, strict=True):
        sources.append(os.open(name, OPEN_SOURCE, dir_fd=folder))  # the caller closes what was opened
    before = [os.fstat(source) for source in sources]
    sizes = [seen.st_size for seen in before]
    if not all(stat.S_ISREG(seen.st_mode) for seen in before) or max(sizes) > SMALL:
        raise OSError("not a small file")
    found = [os.read(source, size + 1) for source, size in zip(sources, sizes, strict=True)]
    if [len(data) for data in found] != sizes:
        raise OSError("not at rest")
    return before, found


def _is_unchanged(name: bytes, folder: int, target: bytes, before: os.stat_result) -> bool:
    """Whether the name still stands for what was read; otherwise what was written is removed."""
    try:
        if mark_of(os.stat(name, dir_fd=folder, follow_symlinks=False)) == mark_of(before):
            return True
    except OSError:
        pass
    with contextlib.suppress(OSError):  # what stays is nobody's: the parent takes another name
        files.remove_file(target)
    return False
