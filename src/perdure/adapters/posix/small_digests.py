"""Reading small files back in a helper process. Imports little: each part that is read back has helpers of its own."""

from __future__ import annotations

import hashlib
import os

from perdure.adapters.posix.medium import ManyReader, MediumReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MAKERS = {"sha512": hashlib.sha512, "sha256": hashlib.sha256}  # what objects are named by; others are for the parent

Digested = tuple[str, int]  # digest (hex) and size


class Digesting:
    """Digests files, with readers that are kept from one order to the next."""

    def __init__(self) -> None:
        self._many: ManyReader | None = None
        self._readers: dict[str, MediumReader] = {}

    def digest_files(
        self, _folders: Sequence[int], folder: bytes, medium_read: str, algorithm: str, wanted: Sequence[bytes]
    ) -> list[Digested | None]:
        """What the medium gives for each path below a folder; None where it does not."""
        if algorithm not in _MAKERS:
            return [None] * len(wanted)
        digest = _MAKERS[algorithm]
        digested: list[Digested | None] = []
        for found in self._iter_many(folder, medium_read, wanted):
            digested += [None if data is None else (digest(data).hexdigest(), len(data)) for data in found]
        reader = self._readers.setdefault(medium_read, MediumReader(medium_read))
        for place, one in enumerate(digested):
            if one is None:
                digested[place] = try_digest(reader, folder + b"/" + wanted[place], algorithm)
        return digested

    def _iter_many(
        self, folder: bytes, medium_read: str, wanted: Sequence[bytes]
    ) -> Iterator[Sequence[memoryview | None]]:
        """What can be read many at a time, in order; each block is valid until the next ones are asked for."""
        many = self._find_reader_of_many() if medium_read == "direct" else None
        opened = _find_open(folder) if many is not None else None
        if many is None or opened is None:
            yield [None] * len(wanted)
            return
        try:
            yield from many.iter_read(opened, wanted)
        finally:
            os.close(opened)

    def _find_reader_of_many(self) -> ManyReader | None:
        if self._many is None:
            try:
                self._many = ManyReader()
            except OSError:
                return None
        return self._many


def _find_open(folder: bytes) -> int | None:
    try:
        return os.open(folder, _FOLDER)
    except OSError:
        return None


def try_digest(reader: MediumReader, path: bytes, algorithm: str) -> Digested | None:
    """Digest and size of one file on its medium; None where it is not given."""
    digester, size = _MAKERS[algorithm](), 0
    try:
        for block in reader.read(path):
            digester.update(block)
            size += len(block)
    except OSError:
        return None
    return digester.hexdigest(), size
